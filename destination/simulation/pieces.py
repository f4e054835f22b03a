"""Set pieces of `destination simulate`: messages that random traffic contains too rarely, each sent twice.

The expected stored form of each is written out here, or equals the sent message.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from destination.segment.contract import JsonObject
from destination.segment.due import Moments
from destination.simulation.required import Required, without

PIECES_FROM = 100
"""A run with fewer messages has no set pieces: there would be room for nothing else."""
CROWD = 250
"""Messages of one user who is erased: more than a store reads or deletes in one call."""
CROWD_SHARE = 0.7
"""Upper bound for their share in a run: the eraser reads everything twice, so 300 messages must contain more than
200 of these."""
REJECTS_OF_ERASED = 3
BYSTANDER_MESSAGES = 5
FIRST = datetime(2026, 2, 1, tzinfo=UTC)
"""The time of the first set piece: before all other messages, so that no two are duplicates."""
SPACING = timedelta(minutes=1)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MUCH_LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""Later than any `delete` of a run, by any clock."""
LONG_TEXT_CHARS = 5000
OWN_KEYS: JsonObject = {
    "": "an empty key",
    "UPPER": "A",
    "upper": "a",
    "a.b.c": 1,
    "$set": {"$inc": 1},
    "userId": "own",
    "user_id": "own too",
    "First Name": "Ada",
    "_conflicts": "own",
    "__proto__": {"": {}},
    "null": None,
}
NUMBERS: JsonObject = {"above 64 bits": 2**63 + 1, "below": -(2**63) - 1, "large": 10**40, "fraction": 1e-7, "-0": -0.0}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One message in the spec's spelling without its times, and the fields that replace its own when sent and stored.

    `refusal` is the code by which it must be refused, None for one that must be accepted. `user` is the number of a
    user of the run whom a `delete` names. `is_sent_again` is False for messages whose number is tested.
    """

    why: str
    customer: int
    plain: JsonObject
    happened: datetime
    sent: JsonObject | None = None
    stored: JsonObject | None = None
    refusal: str | None = None
    user: int | None = None
    is_sent_again: bool = True

    def message(self, copy: int) -> tuple[JsonObject, Moments]:
        """Return the message with its times. A resend repeats the first one."""
        delay = timedelta(seconds=1 + 90 * copy)
        received = self.happened + delay + timedelta(milliseconds=200 + 900 * copy)
        timestamp = received - delay
        times = {
            "originalTimestamp": iso(self.happened),
            "sentAt": iso(self.happened + delay),
            "receivedAt": iso(received),
            "timestamp": iso(timestamp),
        }
        return {**self.plain, **times}, Moments(original=self.happened, timestamp=timestamp, received=received)


def iso(time: datetime) -> str:
    """Format a time as most sources do."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Maker:
    """Numbers set pieces, so that each has its own time, user and message id unless it says otherwise."""

    def __init__(self, customers: int, call_types: Collection[str]) -> None:
        self._customers = customers
        self._call_types = call_types
        self._number = 0

    def make(
        self,
        why: str,
        call_type: str,
        fields: JsonObject | None = None,
        *,
        customer: int | None = None,
        happened: datetime | None = None,
        sent: JsonObject | None = None,
        stored: JsonObject | None = None,
        refusal: str | None = None,
        user: int | None = None,
        is_sent_again: bool = True,
    ) -> Iterator[Piece]:
        """Yield the piece, or nothing if its call type is not supported."""
        self._number += 1
        number = self._number
        if call_type not in self._call_types:
            return
        plain = {"type": call_type, "messageId": f"piece-{number}", "userId": f"piece-user-{number}"}
        plain |= _usual(call_type) | (fields or {})
        yield Piece(
            why=why,
            customer=number % self._customers if customer is None else customer,
            plain={name: value for name, value in plain.items() if value is not ABSENT},
            happened=happened or FIRST + number * SPACING,
            sent=sent,
            stored=stored,
            refusal=refusal,
            user=user,
            is_sent_again=is_sent_again,
        )


ABSENT = object()
"""Replaces a field that a set piece omits."""


def _usual(call_type: str) -> JsonObject:
    """Return the usual fields of a call type, which schemas often require."""
    traits = {"email": "ada@example.com"}
    fields: dict[str, JsonObject] = {
        "identify": {"traits": traits},
        "group": {"groupId": "piece-company", "traits": traits},
        "track": {"event": "Piece Played", "properties": {"plan": "pro"}},
        "page": {"name": "Piece", "properties": {"title": "Größe"}},
        "screen": {"name": "Piece", "properties": {"title": "Größe"}},
        "alias": {"previousId": "piece-visitor"},
    }
    return fields.get(call_type, {})


def set_pieces(customers: int, call_types: Collection[str], required: Sequence[Required]) -> list[Piece]:
    """Return the set pieces of a run."""
    make = _Maker(customers, call_types).make
    return [
        *_two_values(make),
        *_odd_contents(make),
        *_close_identities(make),
        *_reordered(make),
        *_bad(make),
        *(piece for one in required for piece in _lacking(make, one)),
    ]


def _two_values(make: Any) -> Iterator[Piece]:  # noqa: ANN401 -- `_Maker.make`
    """Yield one field in two spellings with two values: the spec's spelling counts, then ours, then alphabetically."""
    why = "two values of one field"
    yield from make(
        why, "track", {"event": "Right"}, sent={"Event": "Wrong"}, stored={"_conflicts": {"Event": "Wrong"}}
    )
    yield from make(
        why,
        "track",
        {"event": "Right"},
        sent={"EVENT": 7, "Event": "W"},
        stored={"_conflicts": {"EVENT": 7, "Event": "W"}},
    )
    yield from make(
        why,
        "group",
        {"groupId": ABSENT, "group_id": "right"},
        sent={"GroupID": "wrong"},
        stored={"_conflicts": {"GroupID": "wrong"}},
    )
    yield from make(
        why, "identify", {"userId": "right"}, sent={"user_id": "wrong"}, stored={"_conflicts": {"user_id": "wrong"}}
    )
    yield from make(why, "page", {"userId": "", "user_id": "right"}, stored={"user_id": "right"})
    yield from make(
        why,
        "identify",
        sent={"Traits": {"email": "wrong@example.com"}},
        stored={"_conflicts": {"Traits": {"email": "wrong@example.com"}}},
    )
    yield from make(
        why,
        "screen",
        {"context": {"userAgent": "right", "user_agent": "wrong", "my own": 1}},
        customer=0,
        stored={"context": {"user_agent": "right", "my own": 1, "_conflicts": {"user_agent": "wrong"}}},
    )


def _odd_contents(make: Any) -> Iterator[Piece]:  # noqa: ANN401 -- `_Maker.make`
    traits = {"email": "ada@example.com"}
    yield from make("odd keys in traits", "identify", {"traits": traits | OWN_KEYS})
    yield from make("odd keys in traits", "group", {"traits": traits | OWN_KEYS})
    yield from make("odd keys in properties", "track", {"properties": OWN_KEYS})
    yield from make("numbers beyond 64 bits", "track", {"properties": NUMBERS})
    yield from make("numbers beyond 64 bits", "identify", {"traits": traits | NUMBERS})
    long = "long text ".ljust(LONG_TEXT_CHARS, "ж")
    yield from make("a long text", "identify", {"traits": traits | {"bio": long}})
    yield from make("a long text", "track", {"properties": {"text": long, "list": [long, {"deep": [long]}]}})
    yield from make(
        "a context with all that explains a message",
        "track",
        {
            "context": {
                "active": False,
                "consent": {"categoryPreferences": {"Advertising": False, "": True}},
                "protocols": {"violations": [{"type": "Required"}], "omitted": ["properties.x"]},
                "userAgentData": {"fullVersionList": [], "brands": [{"brand": "X"}]},
                "device": {"advertisingId": "7A3C", "own": None},
            }
        },
        customer=0,
        stored={
            "context": {
                "active": False,
                "consent": {"categoryPreferences": {"Advertising": False, "": True}},
                "protocols": {"violations": [{"type": "Required"}], "omitted": ["properties.x"]},
                "user_agent_data": {"full_version_list": [], "brands": [{"brand": "X"}]},
                "device": {"advertising_id": "7A3C", "own": None},
            }
        },
    )
    key = "write-key-of-a-source"
    yield from make("the key of a source", "track", {"_metadata": {"bundled": [], "writeKey": key}, "writeKey": key})
    yield from make("the key of a source", "page", {"context": {"writeKey": key, "locale": "de-AT"}})
    yield from make("no message id", "track", {"messageId": ABSENT, "event": "Without An Id"})
    yield from make("no message id", "identify", {"messageId": ABSENT})


def _close_identities(make: Any) -> Iterator[Piece]:  # noqa: ANN401 -- `_Maker.make`
    """Yield messages that an imprecise key would confuse."""
    one, other = FIRST - SPACING, FIRST - 2 * SPACING
    same: JsonObject = {"messageId": "same-id", "userId": "same-user"}
    yield from make("one message id at two times", "track", same, customer=0, happened=one)
    yield from make("one message id at two times", "track", same, customer=0, happened=other)
    why = "one message id of two users"
    for name in ("a", "b", "A"):
        yield from make(why, "track", {"messageId": "shared-id", "userId": name}, customer=0, happened=one)
    visitor = {"messageId": "shared-id", "userId": ABSENT, "anonymousId": "a"}
    yield from make("a user and a visitor of one id", "track", visitor, customer=0, happened=one)
    why = "ids that differ by case or by #"
    for name in ("x#y", "x%23y", "X#Y", "x"):
        yield from make(why, "track", {"messageId": "hash-id", "userId": name}, customer=0, happened=one)
    for name in ("m#1", "m%231", "M#1"):
        yield from make(why, "track", {"messageId": name, "userId": "hash-user"}, customer=0, happened=one)


def _reordered(make: Any) -> Iterator[Piece]:  # noqa: ANN401 -- `_Maker.make`
    """Yield three identifies of one user, the latest first and the oldest last but one."""
    for minute, plan in ((50, "third"), (10, "first"), (30, "second")):
        traits = {"email": "ada@example.com", "plan": plan, f"only {plan}": True}
        happened = FIRST - timedelta(hours=2) + timedelta(minutes=minute)
        fields = {"userId": "reordered", "traits": traits}
        yield from make("identifies of one user in another order", "identify", fields, customer=0, happened=happened)


def _bad(make: Any) -> Iterator[Piece]:  # noqa: ANN401 -- `_Maker.make`
    """Yield messages that every schema refuses, among valid ones."""
    yield from make("an id that is an object", "track", {"userId": {"id": "u"}}, refusal="invalid_message")
    yield from make("an empty event", "track", {"event": ""}, refusal="invalid_message")
    yield from make("traits that are a text", "identify", {"traits": "none"}, refusal="invalid_message")
    yield from make("nobody's", "page", {"userId": None}, refusal="invalid_message")
    yield from make("no type", "track", {"type": ABSENT}, refusal="missing_type")
    yield from make("an unknown type", "track", {"type": "sing"}, refusal="unsupported_call_type")
    key = {"writeKey": "write-key-of-a-source", "_metadata": {"writeKey": "write-key-of-a-source"}}
    yield from make("an invalid one with the key of a source", "track", {"event": 7, **key}, refusal="invalid_message")
    long = {"event": [], "properties": {"text": "long text ".ljust(LONG_TEXT_CHARS, "ж")}}
    yield from make("a long one that is invalid", "track", long, refusal="invalid_message")


def _lacking(make: Any, required: Required) -> Iterator[Piece]:  # noqa: ANN401 -- `_Maker.make`
    """Yield a message without a field that the schema of its call type requires."""
    why = f"{required.call_type} without {'.'.join(required.path)}"
    for piece in make(why, required.call_type, {"anonymousId": "piece-visitor"}, refusal="invalid_message"):
        plain = without(piece.plain, required.path)
        yield Piece(**{**vars(piece), "plain": plain})


def crowd(customer: int, user: int, user_id: object, call_types: Collection[str], size: int) -> list[Piece]:
    """Return many messages of a user who is to be erased, with some that are refused."""
    call_type = next(name for name in ("track", "page", "screen", "identify", "group", "alias") if name in call_types)
    pieces = []
    for number in range(size + REJECTS_OF_ERASED):
        is_bad = number >= size
        fields = {"messageId": f"crowd-{number}", "userId": user_id} | ({"integrations": "bad"} if is_bad else {})
        pieces.append(
            Piece(
                why="a reject of an erased user" if is_bad else "one of many of an erased user",
                customer=customer,
                plain={"type": call_type, **_usual(call_type), **fields},
                happened=FIRST - timedelta(days=1) + number * timedelta(seconds=1),
                refusal="invalid_message" if is_bad else None,
                user=user,
                is_sent_again=False,
            )
        )
    return pieces


def bystander(customer: int, user_id: object, call_types: Collection[str]) -> list[Piece]:
    """Return messages of another customer's user with the id of an erased one."""
    call_type = next(name for name in ("track", "page", "screen", "identify", "group", "alias") if name in call_types)
    return [
        Piece(
            why="a user of another customer with the id of an erased one",
            customer=customer,
            plain={
                "type": call_type,
                **_usual(call_type),
                "messageId": f"bystander-{number}",
                "userId": user_id,
                **({"integrations": "bad"} if number == BYSTANDER_MESSAGES else {}),
            },
            happened=FIRST - timedelta(days=2) + number * timedelta(seconds=1),
            refusal="invalid_message" if number == BYSTANDER_MESSAGES else None,
        )
        for number in range(BYSTANDER_MESSAGES + 1)
    ]


def after_erasure(
    customer: int, user: int, user_id: object, call_types: Collection[str], *, refuses: bool
) -> list[Piece]:
    """Return later messages of an erased user: one from before the erasure, and one from after it."""
    call_type = next(name for name in ("track", "page", "screen", "identify", "group", "alias") if name in call_types)
    usual = {"type": call_type, **_usual(call_type), "userId": user_id}
    return [
        Piece(
            why="it happened before its user was erased",
            customer=customer,
            plain={**usual, "messageId": f"before-erasure-{user}"},
            happened=LONG_AGO,
            refusal="user_erased" if refuses else None,
            user=user,
        ),
        Piece(
            why="it happened after its user was erased",
            customer=customer,
            # Not an activity: its time lies in the future, so "last seen" would become the time of storage.
            plain={**usual, "messageId": f"after-erasure-{user}", "context": {"active": False}},
            happened=MUCH_LATER,
            user=user,
        ),
    ]
