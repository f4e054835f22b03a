"""The point about the identity of messages: which ones are duplicates, and which are not."""

from collections.abc import Iterator
from typing import NamedTuple

from destination.certification.examination import CheckRequest, Examination
from destination.certification.expected import Item, message_of, position_key, subject_key
from destination.certification.findings import FAQ, CheckResult, NotCheckable, failed, passed
from destination.certification.points import Point
from destination.certification.storage import copies_fault
from destination.certification.wire import WireExchange
from destination.segment.contract import JsonObject

TIMES = ("2026-01-17T08:00:00.000Z", "2026-01-17T08:00:00.001Z")


class _Variant(NamedTuple):
    """A message that is stored in addition to the others, and its difference."""

    what: str
    message: JsonObject
    is_bystander: bool = False


def _variants(examination: Examination) -> Iterator[_Variant]:
    """Yield messages that differ from the first one in one respect; each must be stored separately."""
    user = examination.marks["a user id"]
    first = examination.message(originalTimestamp=TIMES[0], userId=f"{user}-Same")
    message_id = first["messageId"]
    yield _Variant("of a user whose id has capital letters", first)
    yield _Variant("with one id at another time", {**first, "originalTimestamp": TIMES[1]})
    yield _Variant("with one id of another user", {**first, "userId": f"{user}-other"})
    yield _Variant("with one id of another customer", first, is_bystander=True)
    yield _Variant("of a user whose id differs in case", {**first, "userId": f"{user}-same"})
    yield _Variant("of a user whose id has a #", {**first, "userId": f"{user}-Same#1"})
    yield _Variant("of a user whose id has a % where another has a #", {**first, "userId": f"{user}-Same%231"})
    yield _Variant("with an id that differs in case", {**first, "messageId": message_id.upper()})
    yield _Variant("with an id that has a #", {**first, "messageId": f"{message_id}#1"})
    yield _Variant("with an id that has a % where another has a #", {**first, "messageId": f"{message_id}%231"})
    if examination.carrier in ("track", "page", "screen", "group", "identify"):
        visitor = {name: value for name, value in first.items() if name != "userId"}
        yield _Variant("of a visitor with the id of the user", {**visitor, "anonymousId": first["userId"]})


def _identity(examination: Examination) -> CheckResult:
    """Send messages that differ in one respect, and the first one again with other contents."""
    stores = examination.stores
    variants = [one for one in _variants(examination) if examination.samples.refusal(one.message) is None]
    if not variants or examination.keys.bystander is None:
        raise NotCheckable("the schemas of this checkout refuse such messages")
    for variant, exchanges in _send(examination, variants):
        refused = [exchange for exchange in exchanges if not exchange.is_accepted]
        if refused:
            return failed(f"a message {variant.what} is answered {refused[0].came}", *refused)
        if fault := copies_fault(exchanges):
            return failed(f"a message {variant.what}: {fault}", *exchanges)
    for variant in variants:
        customer_id = stores.customer_ids[variant.is_bystander]
        found = stores.items_of(variant.message, customer_id=customer_id)
        if fault := _fault_of(variant.message, found, customer_id):
            return failed(f"a message {variant.what} {fault}")
    return passed(f"{len(variants)} messages that differ in one respect are each stored once")


def _send(examination: Examination, variants: list[_Variant]) -> Iterator[tuple[_Variant, list[WireExchange]]]:
    """Send the first of these messages twice, and the others concurrently. Yields each with its answers."""
    first, *others = variants
    yield first, [examination.post_valid(copy) for copy in _copies(examination, first.message)]
    own = [one for one in others if not one.is_bystander]
    for variant, exchange in zip(
        own, examination.post_all_valid(CheckRequest(one.message) for one in own), strict=True
    ):
        yield variant, [exchange]
    foreign = [one for one in others if one.is_bystander]
    answers = examination.post_all(examination.bystanders(one.message) for one in foreign)
    for variant, exchange in zip(foreign, answers, strict=True):
        yield variant, [exchange]


def _copies(examination: Examination, message: JsonObject) -> list[JsonObject]:
    """Return a message, and a copy with other contents: the first one must stay stored."""
    own = message.get(examination.own)
    again = {**message, examination.own: {**own, "changed": True}} if isinstance(own, dict) else message
    return [message, message if examination.samples.refusal(again) else again]


def _fault_of(message: JsonObject, found: list[Item], customer_id: str) -> str | None:
    """Return the fault of a user's items, as the second half of a sentence."""
    position = position_key(message, message["messageId"])
    own = [item for item in found if item["position"]["S"] == position]
    if not own:
        return f"is not stored under {subject_key(customer_id, message)} and {position}"
    stored = message_of(own[0])
    if "changed" in str(stored):
        return "was replaced when it was sent again"
    return None if stored.get("message_id") == message["messageId"] else "is stored with another id"


POINTS = (
    Point(
        id="stored.identity",
        title="Customer, user, time and id together identify a message",
        source=FAQ,
        remedy=(
            "Build the key of a message from its customer, user, time and id, escape the separators, "
            "and put it only if the key does not exist; docs/reference/storage.md."
        ),
        check=_identity,
    ),
)
