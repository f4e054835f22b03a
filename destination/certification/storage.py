"""The points about stored messages: every accepted message is stored, once and unchanged."""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime, timedelta

from destination.certification.examination import AcceptedMessage, CheckRequest, Examination
from destination.certification.expected import (
    Item,
    differences,
    expiry_fault,
    json_text,
    message_of,
    position_key,
    settings_of,
    stored_fields,
    subject_key,
)
from destination.certification.findings import ACCEPTING, BODY, FAQ, SPEC, CheckResult, NotCheckable, failed, passed
from destination.certification.points import Point
from destination.certification.wire import WireExchange
from destination.deployment.parallel import in_parallel
from destination.segment.contract import CALL_TYPES, DELETE, JsonObject
from destination.segment.spelling import SPELLINGS, spelled

SHOWN_LOSSES = 5
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
    "UPPER CASE": "Upper And lower",
    "upper case": "another key",
    " padded ": "  white space  ",
    "long": "certify, " * 250,
    "large": 2**63 + 1,
    "empty": {"object": {}, "list": [], "text": "", "nothing": None},
    "half of an emoji": "\ud83d",
    "nested": {"Ünder_Score": [1, 2.5, 10**20, True, None, {"A-b": {}}]},
}
"""Unusual keys and values, as customers use them."""
OWN_CONTEXT: JsonObject = {
    "userAgent": "certify " * 250,
    "locale": "de-DE",
    "page": {"title": "Prei\u0301se", "url": "https://shop.example.com/?Q=1#Top"},
    "device": {"advertisingId": "7A3CBEA0", "adTrackingEnabled": False},
    "consent": {"categoryPreferences": {"Advertising": False, "analytics": True}},
    "traits": {"": "no name", "Plan": "pro", "plan": "free"},
    "My Own Field": {"Some Key": [1, None]},
}
"""Fields of the spec, which are stored in snake_case, and unknown fields."""


def _all_accepted(examination: Examination) -> CheckResult:
    """Check that every message accepted so far is stored. This runs before the first user is erased."""
    stores = examination.stores
    for call_type in CALL_TYPES:
        if call_type != DELETE:
            examination.call(call_type)
    messages: dict[tuple[str, str, str | None], AcceptedMessage] = {}
    for one in examination.accepted:  # of several equal messages the first is stored
        subject = subject_key(stores.customer_id, one.plain)
        messages.setdefault((subject, one.message_id, position_key(one.plain, one.message_id)), one)
    if not messages:
        raise NotCheckable("no message was accepted")
    users = {subject_key(stores.customer_id, one.plain): one.plain for one in messages.values()}
    stored = dict(in_parallel(lambda user: (user[0], stores.items_of(user[1])), users.items()))
    faults: dict[str, list[str]] = {}
    for one in messages.values():
        of_user = stored[subject_key(stores.customer_id, one.plain)]
        if fault := _fault_of(examination, one.plain, one.message_id, of_user):
            faults.setdefault(fault, []).append(one.message_id)
    if faults:
        told = (f"{len(ids)} {fault}: {', '.join(ids[:SHOWN_LOSSES])}" for fault, ids in faults.items())
        return failed(f"{len(messages)} messages were accepted; of these, {'; '.join(told)}")
    types = {one.plain["type"] for one in messages.values()}
    return passed(f"all {len(messages)} are stored once and unchanged, of {len(types)} call types")


def _fault_of(examination: Examination, plain: JsonObject, message_id: str, of_user: list[Item]) -> str | None:
    """Return the fault of a stored message, or of its user's items."""
    stores = examination.stores
    found = [item for item in of_user if message_of(item).get("message_id") == message_id]
    if not found:
        return "are not stored under the key of their user"
    same = [one for one in examination.accepted if one.message_id == message_id]
    positions = {position_key(one.plain, message_id) for one in same}  # two times are two messages
    if None not in positions and any(item["position"]["S"] not in positions for item in found):
        return "are stored with another time or id in their key, or more than once"
    if len(positions) > 1:
        found = [item for item in found if item["position"]["S"] == position_key(plain, message_id)]
    if len(found) != 1:
        return f"are stored {len(found)} times"
    if any(message_of(item).get("message_id") not in examination.accepted_ids for item in of_user):
        return "are stored under another id too"
    return differences(
        found[0],
        plain,
        customer_id=stores.customer_id,
        message_id=message_id,
        retention_days=stores.retention_days,
    )


def _judge_copies(examination: Examination, message: JsonObject, exchanges: list[WireExchange]) -> CheckResult:
    """Judge whether a message that was sent several times is stored once."""
    bad = [exchange for exchange in exchanges if not exchange.is_accepted]
    if bad:
        return failed(f"answered {bad[0].came}; expected: a success", *bad)
    stores = examination.stores
    message_id = message.get("messageId") or exchanges[0].answer.get("message_id")
    items = stores.items_of(message)
    count = sum(1 for item in items if message_of(item).get("message_id") == message_id)
    if count != 1:
        return failed(f"sent {len(exchanges)} times, stored {count} times", *exchanges)
    accepted_ids = examination.accepted_ids
    if any(message_of(item).get("message_id") not in accepted_ids for item in items):
        return failed(f"sent {len(exchanges)} times, and stored under another id too", *exchanges)
    if fault := copies_fault(exchanges):
        return failed(fault, *exchanges)
    return passed(f"sent {len(exchanges)} times, stored once", *exchanges)


def copies_fault(exchanges: Sequence[WireExchange]) -> str | None:
    """Return the fault of the answers to a message that was sent several times, None if they are right.

    A request that failed may have been stored. Then the answer to its retry may be either.
    """
    first, *others = exchanges
    due_first = {"stored", "duplicate"} if first.failures else {"stored"}
    for exchange, due in ((first, due_first), *((other, {"duplicate"}) for other in others)):
        status = exchange.answer.get("status")
        if status not in due:
            told = "for the first time" if exchange is first else "again"
            return f"a message that was sent {told} is answered {status!r}; expected: {' or '.join(sorted(due))!r}"
    return None


def _one_field(examination: Examination) -> CheckResult:
    """Send one message in all casings, which must count as one, and one in each, which must lose nothing."""
    stores = examination.stores
    message = examination.message()
    variants = [spelled(deepcopy(message), spell) for spell in SPELLINGS.values()]
    others = [examination.message() for _ in SPELLINGS]
    singles = [
        CheckRequest(spelled(deepcopy(one), spell), plain=one)
        for one, spell in zip(others, SPELLINGS.values(), strict=True)
    ]
    first = examination.post_valid(message)
    exchanges = examination.post_all_valid([*(CheckRequest(variant, plain=message) for variant in variants), *singles])
    judged = _judge_copies(examination, message, [first, *exchanges[: len(variants)]])
    for one, spell, exchange in zip(others, SPELLINGS.values(), exchanges[len(variants) :], strict=True):
        fault = _fault_of(examination, one, one["messageId"], stores.items_of(one))
        if exchange.is_accepted and fault:
            return failed(f"messages with {spell('userId')} {fault}", exchange)
    return judged


def _verbatim(examination: Examination) -> CheckResult:
    stores, own = examination.stores, examination.own
    if examination.carrier == "alias":
        raise NotCheckable("alias calls have no fields that belong to the customer")
    message = examination.message()
    holds = {**message[own], **OWN_KEYS} if isinstance(message.get(own), dict) else OWN_KEYS
    context = message.get("context")
    message = {
        **message,
        own: holds,
        "integrations": {"All": True, "A Tool": {"Some Id": "x"}, "a tool": False},
        "context": {**(context if isinstance(context, dict) else {}), **OWN_CONTEXT},
    }
    if message["type"] == "track" and examination.samples.refusal({**message, "event": ODD_EVENT}) is None:
        message["event"] = ODD_EVENT
    if refusal := examination.samples.refusal(message):
        raise NotCheckable(f"the schemas of this checkout refuse such a message: {refusal}")
    exchange = examination.post_valid(message)
    found = stores.stored(message)
    if not exchange.is_accepted or len(found) != 1:
        return failed(f"answered {exchange.came}, stored {len(found)} times", exchange)
    stored, expected = message_of(found[0]), stored_fields(message)
    for name in (own, "integrations", "context", *(["event"] if message["type"] == "track" else [])):
        if json_text(stored.get(name)) != json_text(expected[name]):
            return failed(f"{name} is not stored as it was sent{_first_key(stored, expected, name)}", exchange)
    return passed(f"{len(OWN_KEYS) + len(OWN_CONTEXT)} keys and values are stored as they were sent", exchange)


def _first_key(stored: JsonObject, expected: JsonObject, name: str) -> str:
    """Return the first key of an object that differs, in words; "" if it is not an object."""
    came, sent = stored.get(name), expected[name]
    if not isinstance(came, dict) or not isinstance(sent, dict):
        return ""
    keys = [key for key in sent if key not in came] or [key for key in came if key not in sent]
    keys += [key for key, value in sent.items() if json_text(came.get(key)) != json_text(value)]
    what = "missing or spelled differently" if keys and keys[0] not in came else "changed"
    return f": the key {json.dumps(keys[0])} is {what}" if keys else ""


def _duplicate(examination: Examination) -> CheckResult:
    _ = examination.stores
    message = examination.message()
    return _judge_copies(examination, message, [examination.post_valid(message) for _ in range(2)])


def _resent(message: JsonObject) -> JsonObject:
    """Return a message as a library resends it: Segment computes a new timestamp."""
    now = datetime.now(UTC)
    times = {"sentAt": now, "receivedAt": now + timedelta(seconds=1), "timestamp": now - timedelta(seconds=3)}
    return {**message, **{name: time.isoformat().replace("+00:00", "Z") for name, time in times.items()}}


def _resend(examination: Examination) -> CheckResult:
    _ = examination.stores
    message = examination.message()
    return _judge_copies(
        examination, message, [examination.post_valid(message), examination.post_valid(_resent(message))]
    )


def _without_id(examination: Examination) -> CheckResult:
    message = examination.message()
    del message["messageId"]
    exchanges = [examination.post_valid(message), examination.post_valid(_resent(message))]
    bad = [exchange for exchange in exchanges if not exchange.is_accepted]
    if bad:
        return failed(f"answered {bad[0].came}; expected: a success", *bad)
    ids = {json_text(exchange.answer.get("message_id")) for exchange in exchanges}
    if len(ids) > 1:
        return failed("the same message was given two ids", *exchanges)
    if ids == {"null"} or (examination.store_access and not examination.store_access.is_queue):
        return _judge_copies(examination, message, exchanges)
    return passed(f"both times it got the id {ids.pop()}", *exchanges)


def _write_key(examination: Examination) -> CheckResult:
    """Send the key of a source in a message, in a batch and in a message that its schema refuses."""
    stores = examination.stores
    secret = f"write-key-of-{examination.name}"
    holds: JsonObject = {"writeKey": secret, "_metadata": {"writeKey": secret}}
    message = examination.message(**holds)
    sent = {"a message": examination.post_valid(message)}
    items = stores.stored(message)
    if not sent["a message"].is_accepted or not items:
        return failed(f"answered {sent['a message'].came}, stored {len(items)} times", *sent.values())
    places: dict[str, list[Item]] = {"a message": items}
    with suppress(NotCheckable):
        examination.need_libraries()
        other = examination.message(**holds)
        sent["a message of a batch"] = examination.post({"batch": [other]}, target=examination.target("/v1/batch"))
        if sent["a message of a batch"].is_accepted:
            examination.note_accepted(other)
        places["a message of a batch"] = stores.stored(other)
    with suppress(NotCheckable):
        broken = {**examination.broken(), **holds}
        sent["a reject"] = examination.post_by_key(broken)
        kept = stores.kept(broken["messageId"])
        places["a reject"] = [stores.raw_reject(kept[0])] if kept else []
    for place, found in places.items():
        if any(secret in f"{item}{message_of(item) if 'message' in item else ''}" for item in found):
            return failed(f"the write key of the source is stored in {place}", sent[place])
    return passed(f"{', '.join(places)} are stored without it", *sent.values())


def _settings(examination: Examination) -> CheckResult:
    stores = examination.stores
    settings = {**examination.samples.settings, "customSettingOne": "custom setting value"}
    message = examination.message()
    header = base64.b64encode(json.dumps(settings).encode()).decode()
    exchange = examination.post_valid(message, examination.headers() | {"X-Segment-Settings": header})
    found = stores.stored(message)
    if not exchange.is_accepted or [settings_of(item) for item in found] != [settings]:
        return failed(f"answered {exchange.came}, and the settings are not stored with the message", exchange)
    return passed("they are stored with the message", exchange)


def _rejects(examination: Examination) -> CheckResult:
    stores = examination.stores if not examination.store_access else examination.store_access
    message = examination.personal()
    message = {name: value for name, value in message.items() if name not in ("userId", "anonymousId")}
    exchange = examination.post_by_key(message)
    if exchange.status != 400 or "kept" not in exchange.answer:  # noqa: PLR2004 -- a refusal by a schema
        return failed(
            f"answered {exchange.came}; expected: a refusal by the schema that says whether it is kept", exchange
        )
    if exchange.answer["kept"] is not True:
        raise NotCheckable("the answer says that rejects are not kept (RejectsRetentionDays=0)")
    kept = stores.kept(message["messageId"])
    if kept is None:
        return failed("the answer says that it is kept, but it is not among the rejects", exchange)
    reject, contents = kept
    if contents is None or json.loads(contents.body) != message:
        return failed("it is not kept as it was sent", exchange)
    if reject.answer != exchange.message:
        return failed("it is kept with another text than the answer", exchange)
    days = examination.store_access.target.stores.rejects_retention_days if examination.store_access else ""
    if days and (fault := expiry_fault(stores.raw_reject(reject), int(days))):
        return failed(f"rejects {fault}", exchange)
    return passed("it is among the rejects, as it was sent", exchange)


REMEDY_LOSS = (
    "A success must be answered only after the write is confirmed. Check that the URL leads to this deployment and to "
    "no other; then `destination simulate` shows more."
)
REMEDY_DUPLICATE = (
    "Build the key of a message from values that each resend repeats: messageId and originalTimestamp; "
    "docs/reference/storage.md."
)
ALL_ACCEPTED = Point(
    id="stored.accepted",
    title="Every accepted message is stored once",
    source=ACCEPTING,
    remedy=REMEDY_LOSS,
    check=_all_accepted,
)
"""It runs after all points that send messages, and before the points that erase users."""
POINTS = (
    Point(
        id="stored.casing",
        title="A message is the same in any casing",
        source=BODY,
        remedy="Compare the spec's fields by their letters only, before the message is stored.",
        check=_one_field,
    ),
    Point(
        id="stored.verbatim",
        title="The customer's own keys and values stay unchanged",
        source=SPEC,
        remedy="Keep keys and values in traits, properties and integrations unchanged; store the message as JSON text.",
        check=_verbatim,
    ),
    Point(
        id="stored.duplicate",
        title="A message that is sent again is stored once",
        source=FAQ,
        remedy=REMEDY_DUPLICATE,
        check=_duplicate,
    ),
    Point(
        id="stored.resend",
        title="A library's resend, with new times, is stored once",
        source=f"inferred: {SPEC}",
        remedy=REMEDY_DUPLICATE,
        check=_resend,
    ),
    Point(
        id="stored.no-id",
        title="A message without a messageId is recognised when it is sent again",
        source=SPEC,
        remedy="Derive the id from the fields that a resend does not change, and never at random.",
        check=_without_id,
    ),
    Point(
        id="stored.settings",
        title="Settings are stored with their message",
        source="Building a Direct Destination, Custom settings",
        remedy="Store the content of X-Segment-Settings with the message.",
        check=_settings,
    ),
    Point(
        id="stored.write-key",
        title="The write key of a source is never stored",
        source=f"inferred: {SPEC}",
        remedy="Remove writeKey at the top, in context and in _metadata.",
        check=_write_key,
    ),
    Point(
        id="stored.rejects",
        title="A message that a schema refuses is kept",
        source="this destination, docs/how-to/rejects.md",
        remedy="Check that the function may write the rejects table, and that the answer says `kept` only if it did.",
        check=_rejects,
    ),
)
