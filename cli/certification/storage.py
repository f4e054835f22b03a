"""The points about what is stored: all that was accepted, once, and as it was sent."""

import base64
import json
from collections.abc import Container
from datetime import UTC, datetime, timedelta

from cli.certification.examination import Examination
from cli.certification.findings import (
    ACCEPTING,
    BODY,
    DELETION,
    FAQ,
    SPEC,
    NotCheckable,
    Outcome,
    Point,
    failed,
    passed,
)
from cli.certification.holdings import PATIENCE_SECONDS, Stored
from cli.certification.wire import Exchange
from cli.simulation.spelling import SPELLINGS, spelled
from handler.canonicalise import canonicalise
from handler.decode import JsonObject
from handler.spec import CALL_TYPES, DELETE, TOP

SHOWN_LOSSES = 5
COMPARED = TOP.spelling.keys() - {"timestamp", "original_timestamp", "sent_at", "received_at", "write_key", "_metadata"}
"""Times may come in other words, and the key of a source is never stored."""
ODD_EVENT = "注文完了 <b>null</b>"
OWN_KEYS: JsonObject = {
    "First Name": "Jördis",
    "utm.source": "a.b",
    "": "no name",
    " ": " ",
    "userId": "not the spec's",
    "user_id": "nor this",
    "ключ": "注文完了 🛒 e\u0301 é",
    "null": "null",
    "number": "NaN",
    "html": "<script>alert('certify')</script>",
    "sql": "'); DROP TABLE events;--",
    "controls": "\u0000 \u2028 \ufeff line\nbreak",
    "half of an emoji": "\ud83d",
    "nested": {"Ünder_Score": [1, 2.5, 10**20, True, None, {"A-b": {}}]},
}
"""Keys and values as odd as customers have them."""


def _all_accepted(examination: Examination) -> Outcome:
    """Look for all that was accepted; of deletes there is nothing to be found when they are carried out."""
    stores = examination.stores
    for call_type in CALL_TYPES:
        examination.call(call_type)
    canonical = [canonicalise(message)[0].body for message in examination.accepted]
    messages = {str(body["message_id"]): body for body in canonical if body["type"] != DELETE}
    if not messages:
        raise NotCheckable("no message was accepted")
    faults: dict[str, list[str]] = {}
    for message_id, body in messages.items():
        if fault := _fault_of(body, stores.of_user(body), messages):
            faults.setdefault(fault, []).append(message_id)
    for fault, ids in faults.items():
        shown = ", ".join(ids[:SHOWN_LOSSES])
        return failed(f"{len(ids)} of {len(messages)} messages were accepted and {fault}: {shown}")
    types = {body["type"] for body in messages.values()}
    return passed(f"all {len(messages)} are there, once and as they were sent, of {len(types)} call types")


def _fault_of(body: JsonObject, of_user: list[Stored], accepted: Container[str]) -> str | None:
    """Return what is wrong with what is stored of a canonical message, and of its user."""
    found = [stored.message for stored in of_user if stored.message.get("message_id") == body["message_id"]]
    if not found:
        return "are not stored"
    if len(found) > 1:
        return "are stored more than once"
    if any(stored.message.get("message_id") not in accepted for stored in of_user):
        return "are stored under another id too"
    different = [name for name in body if name in COMPARED and _text(found[0].get(name)) != _text(body[name])]
    return f"are stored with another {different[0]}" if different else None


def _judge_copies(examination: Examination, message: JsonObject, exchanges: list[Exchange]) -> Outcome:
    """Judge whether what was sent several times is stored once."""
    bad = [exchange for exchange in exchanges if not exchange.is_accepted]
    if bad:
        return failed(f"answered {bad[0].came}, where a success is due", *bad)
    stores = examination.stores
    count = len(stores.stored(message))
    if count != 1:
        return failed(f"sent {len(exchanges)} times, stored {count} times", *exchanges)
    accepted_ids = examination.accepted_ids
    if any(stored.message.get("message_id") not in accepted_ids for stored in stores.of_user(message)):
        return failed(f"sent {len(exchanges)} times, and stored under another id too", *exchanges)
    return passed(f"sent {len(exchanges)} times, stored once", *exchanges)


def _one_field(examination: Examination) -> Outcome:
    """Send one message in all casings, which must make it one, and one in each, which must lose nothing."""
    stores = examination.stores
    message = examination.message()
    variants = [message, *(spelled(message, spell) for spell in SPELLINGS.values())]
    exchanges = [examination.post_valid(variant) for variant in variants]
    judged = _judge_copies(examination, message, exchanges)
    found = stores.stored(message)
    if len(found) == 1 and found[0].message.get("user_id") != message["userId"]:
        return failed(f"the user is stored as {found[0].message.get('user_id')}, and was sent as userId", *exchanges)
    for spell in SPELLINGS.values():
        message = spelled(examination.message(), spell)
        exchange, body = examination.post_valid(message), canonicalise(message)[0].body
        if exchange.is_accepted and (fault := _fault_of(body, stores.of_user(body), examination.accepted_ids)):
            return failed(f"messages with {spell('userId')} {fault}", exchange)
    return judged


def _verbatim(examination: Examination) -> Outcome:
    stores, own = examination.stores, examination.own
    if examination.carrier == "alias":
        raise NotCheckable("alias calls hold nothing of the customer's own")
    message = examination.message()
    holds = {**message[own], **OWN_KEYS} if isinstance(message.get(own), dict) else OWN_KEYS
    message = {**message, own: holds, "integrations": {"All": True, "A Tool": {"Some Id": "x"}}}
    if message["type"] == "track" and examination.samples.refusal({**message, "event": ODD_EVENT}) is None:
        message["event"] = ODD_EVENT
    if refusal := examination.samples.refusal(message):
        raise NotCheckable(f"the schemas of this checkout refuse such a message: {refusal}")
    exchange = examination.post_valid(message)
    found = stores.stored(message)
    if not exchange.is_accepted or len(found) != 1:
        return failed(f"answered {exchange.came}, stored {len(found)} times", exchange)
    for name in (own, "integrations", *(["event"] if message["type"] == "track" else [])):
        if _text(found[0].message.get(name)) != _text(message[name]):
            return failed(f"{name} is stored otherwise than it was sent", exchange)
    return passed(f"{len(OWN_KEYS)} keys and values came back as they were sent", exchange)


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _duplicate(examination: Examination) -> Outcome:
    _ = examination.stores
    message = examination.message()
    return _judge_copies(examination, message, [examination.post_valid(message) for _ in range(2)])


def _resent(message: JsonObject) -> JsonObject:
    """Return a message as a library sends it again: Segment computes its timestamp anew."""
    now = datetime.now(UTC)
    times = {"sentAt": now, "receivedAt": now + timedelta(seconds=1), "timestamp": now - timedelta(seconds=3)}
    return {**message, **{name: time.isoformat().replace("+00:00", "Z") for name, time in times.items()}}


def _resend(examination: Examination) -> Outcome:
    _ = examination.stores
    message = examination.message()
    return _judge_copies(
        examination, message, [examination.post_valid(message), examination.post_valid(_resent(message))]
    )


def _without_id(examination: Examination) -> Outcome:
    message = examination.message()
    del message["messageId"]
    exchanges = [examination.post_valid(message), examination.post_valid(_resent(message))]
    bad = [exchange for exchange in exchanges if not exchange.is_accepted]
    if bad:
        return failed(f"answered {bad[0].came}, where a success is due", *bad)
    ids = {_text(exchange.answer.get("message_id")) for exchange in exchanges}
    if len(ids) > 1:
        return failed("the same message was given two ids", *exchanges)
    if ids == {"null"} or (examination.holdings and not examination.holdings.is_queue):
        return _judge_copies(examination, message, exchanges)
    return passed(f"both times it was given the id {ids.pop()}", *exchanges)


def _write_key(examination: Examination) -> Outcome:
    stores = examination.stores
    secret = f"write-key-of-{examination.name}"
    message = examination.message(writeKey=secret, _metadata={"writeKey": secret})
    exchange = examination.post_valid(message)
    found = stores.stored(message)
    if not exchange.is_accepted or not found:
        return failed(f"answered {exchange.came}, stored {len(found)} times", exchange)
    if any(secret in _text(stored.message) for stored in found):
        return failed("the write key of the source is stored", exchange)
    return passed("the message is stored without it", exchange)


def _settings(examination: Examination) -> Outcome:
    stores = examination.stores
    settings = {**examination.samples.settings, "customSettingOne": "custom setting value"}
    message = examination.message()
    header = base64.b64encode(json.dumps(settings).encode()).decode()
    exchange = examination.post_valid(message, examination.headers() | {"X-Segment-Settings": header})
    found = stores.stored(message)
    if not exchange.is_accepted or [stored.settings for stored in found] != [settings]:
        return failed(f"answered {exchange.came}, and the settings are not stored with the message", exchange)
    return passed("they are stored with the message", exchange)


def _rejects(examination: Examination) -> Outcome:
    stores = examination.stores if not examination.holdings else examination.holdings
    message = examination.personal()
    message = {name: value for name, value in message.items() if name not in ("userId", "anonymousId")}
    exchange = examination.post_by_key(message)
    if exchange.status != 400 or "kept" not in exchange.answer:  # noqa: PLR2004 -- a refusal by a schema
        return failed(
            f"answered {exchange.came}, where a refusal by the schema is due, which says whether it is kept", exchange
        )
    if exchange.answer["kept"] is not True:
        raise NotCheckable("the answer says that rejects are not kept (RejectsRetentionDays=0)")
    kept = stores.kept(message["messageId"])
    if kept is None:
        return failed("the answer says that it is kept, and it is not among the rejects", exchange)
    reject, contents = kept
    if contents is None or json.loads(contents.body) != message:
        return failed("it is kept otherwise than it was sent", exchange)
    if reject.answer != exchange.message:
        return failed("another text is kept with it than was answered", exchange)
    return passed("it is among the rejects, as it was sent", exchange)


def _carried_out(examination: Examination) -> Outcome:
    """Erase a user who has a message, unless only deletes are supported; and look after all deletes of the run."""
    stores = examination.erasing_stores
    if not examination.call(DELETE).is_accepted:
        raise NotCheckable(f"delete calls are not accepted ({examination.call(DELETE).came})")
    message = examination.message()
    user = {"userId": message["userId"]}
    exchanges = [] if message["type"] == DELETE else [examination.post_valid(message)]
    examination.forget(message["userId"])
    exchanges.append(examination.post_valid({**examination.message(DELETE), **user}))
    if not all(exchange.is_accepted for exchange in exchanges):
        return failed(f"answered {' and '.join(exchange.came for exchange in exchanges)}", *exchanges)
    deletes = [accepted for accepted in examination.accepted if canonicalise(accepted)[0].type == DELETE]
    for delete in deletes:
        if not stores.is_requested(delete):
            return failed(f"that of {delete['userId']} was accepted, and not noted", *exchanges)
    for delete in deletes:
        if not stores.is_erased(delete):
            return failed(f"no receipt of {delete['userId']} came within {PATIENCE_SECONDS} s", *exchanges)
    left = stores.messages_of(user)
    if left:
        return failed(f"there is a receipt, and {left} messages of the user are left", *exchanges)
    return passed(f"the user's message is gone, and there are receipts of all {len(deletes)} deletes", *exchanges)


MEND_LOSS = (
    "A success must be answered only after the write is confirmed. See that the URL leads to this deployment and to "
    "no other; then `destination simulate` tells more."
)
MEND_DUPLICATE = (
    "Make the key of a message of what each resend repeats: messageId and originalTimestamp; docs/storage.md."
)
ALL_ACCEPTED = Point(
    id="stored.accepted",
    title="Whatever is accepted is stored, once",
    source=ACCEPTING,
    mend=MEND_LOSS,
    check=_all_accepted,
)
"""The last one, for it looks at the whole run."""
POINTS = (
    Point(
        id="stored.casing",
        title="A message is the same in any casing",
        source=BODY,
        mend="Match the spec's fields by their letters alone, before the message is stored.",
        check=_one_field,
    ),
    Point(
        id="stored.verbatim",
        title="What is the customer's own stays as it is",
        source=SPEC,
        mend="Leave keys and values in traits, properties and integrations alone, and store the message as JSON text.",
        check=_verbatim,
    ),
    Point(
        id="stored.duplicate",
        title="A message that comes again is stored once",
        source=FAQ,
        mend=MEND_DUPLICATE,
        check=_duplicate,
    ),
    Point(
        id="stored.resend",
        title="A library's resend, with new times, is stored once",
        source=f"inferred: {SPEC}",
        mend=MEND_DUPLICATE,
        check=_resend,
    ),
    Point(
        id="stored.no-id",
        title="A message without a messageId is the same when it comes again",
        source=SPEC,
        mend="Derive the id from the message without what a resend changes, and never by chance.",
        check=_without_id,
    ),
    Point(
        id="stored.settings",
        title="Settings are kept with their message",
        source="Building a Direct Destination, Custom settings",
        mend="Store what X-Segment-Settings holds beside the message.",
        check=_settings,
    ),
    Point(
        id="stored.write-key",
        title="The write key of a source is never stored",
        source=f"inferred: {SPEC}",
        mend="Drop writeKey at the top, in context and in _metadata.",
        check=_write_key,
    ),
    Point(
        id="stored.rejects",
        title="What a schema refuses is kept",
        source="this destination, docs/rejects.md",
        mend="See that the function may write the rejects table, and that the answer says `kept` only when it did.",
        check=_rejects,
    ),
    Point(
        id="delete.carried-out",
        title="A delete call erases the user",
        source=DELETION,
        mend="`destination erasures list` shows what is under way, docs/privacy.md what may keep the eraser from it.",
        check=_carried_out,
    ),
)
