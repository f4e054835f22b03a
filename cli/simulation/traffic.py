"""What `destination simulate` sends: messages of all call types as Segment's sources make them, the odd ones included.

A message is a function of the seed and its number: it is made anew for each try instead of being kept, and the same
seed sends the same messages again. https://segment.com/docs/connections/spec/
"""

import heapq
import json
import re
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property
from random import Random
from typing import Any

from cli.simulation.content import FIELDS_BY_CALL_TYPE, context, extras, integrations, is_odd
from cli.simulation.spelling import respelled
from handler.canonicalise import canonicalise
from handler.decode import JsonObject
from handler.record import Record
from handler.spec import CALL_TYPES

DESTINATION = "Direct Destination"
"""Our name in `integrations`; the function reads none of them."""
USERS_PER_CUSTOMER = 50
"""Each with a user id and an anonymous id; few of them have many messages, as in life."""
REORDER_WINDOW = 500
"""How many places a message may come too late, and a duplicate after the first one."""
ORIGIN = datetime(2026, 3, 1, tzinfo=UTC)
"""When the first message happens. Not today: the same seed must give the same times, which are part of identity."""
MESSAGE_SPACING = timedelta(milliseconds=40)

CALL_TYPE_WEIGHTS = {"track": 45, "page": 20, "identify": 15, "screen": 8, "group": 6, "alias": 3, "delete": 3}


class Kind(Enum):
    """Why a message is sent."""

    LIVE = "live"
    REPLAY = "replay"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True, order=True)
class Sending:
    """One delivery to make: the message with a number, or (where `copy` is not 0) a library's resend of it."""

    index: int
    copy: int = 0


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What is delivered to a customer's endpoint; `message` is what was made into `body`, perhaps to be refused."""

    customer: int
    kind: Kind
    message: JsonObject
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All messages of a run. `replays` and `invalid` are shares of 1."""

    seed: int
    customers: int
    call_types: Collection[str] = CALL_TYPES
    replays: float = 0.0
    invalid: float = 0.0

    @cached_property
    def customer_ids(self) -> list[str]:
        """The customers that exist only for this run."""
        return [f"simulated-{self.seed}-{number}" for number in range(self.customers)]

    def settings(self, customer: int) -> JsonObject | None:
        """Return the settings of a customer; two of three have none."""
        return {"region": "eu", "Größe": customer, "custom setting": "значение ✓"} if customer % 3 == 1 else None

    def parcel(self, sending: Sending) -> Parcel:
        """Make what is delivered."""
        kind = self._kind(sending.index)
        customer = sending.index % self.customers
        # Of one number another message is made as a replay than live, so that runs can differ in their rates alone.
        draw = Random(f"{self.seed}/{sending.index}/{kind.value}")  # noqa: S311 -- to be repeatable, not secret
        per_customer = f"{kind.value}-{self.customers}-{sending.index // self.customers}"
        replayed_again = draw.random() < self.replays and sending.copy > 0
        weights = [weight if name in self.call_types else 0 for name, weight in CALL_TYPE_WEIGHTS.items()]
        [call_type] = draw.choices(tuple(CALL_TYPE_WEIGHTS), weights)
        message = _message(draw, call_type, kind, sending, per_customer, replayed_again=replayed_again)
        body = _spoil(message, draw) if kind is Kind.INVALID else _encode(message, draw)
        return Parcel(customer=customer, kind=kind, message=message, body=body)

    def record(self, parcel: Parcel) -> Record:
        """Return a valid message as the function must store it: whose it is, and where it must be found."""
        [message] = canonicalise(parcel.message)
        settings = self.settings(parcel.customer) or {}
        return Record(customer_id=self.customer_ids[parcel.customer], message=message, settings=settings, stored_at=0)

    def _kind(self, index: int) -> Kind:
        chance = Random(f"{self.seed}/{index}").random()  # noqa: S311 -- to be repeatable, not secret
        if chance < self.invalid:
            return Kind.INVALID
        return Kind.REPLAY if chance < self.invalid + self.replays else Kind.LIVE


def sendings(*, messages: int, seed: int, duplicates: float, reorder: float) -> Iterator[Sending]:
    """Yield the deliveries in the order of their first tries; the rates are shares of the messages.

    A duplicate comes at once, so that both are under way together, or later.
    """
    waiting: list[tuple[int, Sending]] = []
    for index in range(messages):
        draw = Random(f"{seed}/{index}/order")  # noqa: S311 -- to be repeatable, not secret
        place = index + (draw.randint(1, REORDER_WINDOW) if draw.random() < reorder else 0)
        heapq.heappush(waiting, (place, Sending(index=index)))
        if draw.random() < duplicates:
            later = draw.choice((0, draw.randint(1, REORDER_WINDOW)))
            heapq.heappush(waiting, (place + later, Sending(index=index, copy=1)))
        while waiting and waiting[0][0] <= index:
            yield heapq.heappop(waiting)[1]
    while waiting:
        yield heapq.heappop(waiting)[1]


def _message(
    draw: Random, call_type: str, kind: Kind, sending: Sending, per_customer: str, *, replayed_again: bool
) -> JsonObject:
    """Make a message. A resend takes the same draws, so that it differs only where resends do."""
    user = int(USERS_PER_CUSTOMER * draw.random() ** 2)
    message: JsonObject = {
        "type": call_type,
        "messageId": _message_id(draw, call_type, per_customer),
        **_who(draw, call_type, user),
        **_times(draw, kind, sending, call_type),
        **FIELDS_BY_CALL_TYPE[call_type](draw, user),
        "context": context(draw, call_type),
        "integrations": integrations(draw, call_type),
        **extras(draw),
    }
    if is_odd(draw):
        del message["messageId"]
    if kind is Kind.REPLAY or (replayed_again and "messageId" in message):  # else they count into the derived id
        message["integrations"] = {"All": False, DESTINATION: True}
    if call_type == "delete" and draw.random() < 0.5:  # noqa: PLR2004 -- both forms are as common
        return {"type": "delete", "userId": message["userId"], "timestamp": _iso(_happened(draw, kind, sending))}
    return respelled(draw, message)


def _encode(message: JsonObject, draw: Random) -> bytes:
    try:
        return json.dumps(message, ensure_ascii=is_odd(draw), separators=(",", ":")).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, only an escape
        return json.dumps(message).encode()


def _message_id(draw: Random, call_type: str, per_customer: str) -> str:
    unique = uuid.UUID(int=draw.getrandbits(128), version=4)
    if call_type == "delete":
        return f"delete-reg-{unique.hex}::job-{draw.randint(1, 9)}-project"
    shapes = (
        f"ajs-next-1772323200000-{unique}",
        str(unique),
        f"api-{unique.hex}",
        f"order-{per_customer}",  # chosen by the customer: other customers have the same
        f"注文 #{per_customer} 100%".ljust(100, "…"),
    )
    return draw.choices(shapes, (60, 20, 14, 4, 2))[0]


def _user_id(user: int) -> str | int:
    shapes: tuple[str | int, ...] = (
        f"user-{user}",
        f"97980cfea0{user:03}",
        f"ada+{user}@example.com",
        90_000_000_000_000_000 + user,
        f"用户-{user}",
        f"a#user#{user}%23",
        f"\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET} {user}",
        ("null", "NaN", "0", "-1", "true", "e\u0301", "é", "'; DROP TABLE users;--", "<script>", "a b")[user % 10],
        f"{user}-" + "ж" * 1200,  # longer than a key can be
    )
    return shapes[user % len(shapes)]


def _who(draw: Random, call_type: str, user: int) -> JsonObject:
    user_id, anonymous_id = _user_id(user), f"507f191e-{user:04}-анон#"
    if call_type in ("alias", "delete"):
        return {"userId": user_id}
    return draw.choice(
        (
            {"userId": user_id},
            {"userId": user_id, "anonymousId": anonymous_id},
            {"userId": None, "anonymousId": anonymous_id},
            {"userId": "", "anonymousId": anonymous_id},
            {"anonymousId": anonymous_id},
        )
    )


def _happened(draw: Random, kind: Kind, sending: Sending) -> datetime:
    """When a message happened: unique in the run, so that no two messages are alike."""
    time = ORIGIN + sending.index * MESSAGE_SPACING
    if kind is Kind.REPLAY:
        return time - timedelta(days=draw.randint(400, 4000))
    odd = {
        "offline phone": timedelta(days=-3),
        "wrong clock": timedelta(days=4000),
        "dead clock": timedelta(days=-18000),
    }
    return time + odd[draw.choice(tuple(odd))] if is_odd(draw) else time


def _times(draw: Random, kind: Kind, sending: Sending, call_type: str) -> JsonObject:
    """Return the times. A resend repeats the original one, and Segment computes `timestamp` anew from the others."""
    happened = _happened(draw, kind, sending)
    again = sending.copy * timedelta(seconds=90)
    sent = happened + timedelta(milliseconds=draw.randint(0, 3000)) + again
    received = sent + timedelta(milliseconds=draw.randint(5, 900)) + 0.01 * again
    times = {
        "originalTimestamp": _spelled_time(draw, happened, call_type),
        "sentAt": _iso(sent),
        "receivedAt": _iso(received),
        "timestamp": _iso(received - (sent - happened)),
    }
    if is_odd(draw):  # a source that knows only one time
        return {"timestamp": _iso(happened)}
    return times


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _spelled_time(draw: Random, time: datetime, call_type: str) -> str:
    if call_type == "delete":
        return f"{time:%Y-%m-%d %H:%M:%S}.{f'{time:%f}'.rstrip('0')}0 +0000 UTC m=+70366.297599337"  # Go
    if not is_odd(draw):
        return _iso(time)
    return draw.choice(
        (
            time.isoformat(timespec="microseconds"),
            f"{time:%Y-%m-%dT%H:%M:%S}",
            f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z",
            "0000-00-00 00:00:00",
        )
    )


def _spoil(message: JsonObject, draw: Random) -> bytes:
    """Make what every destination must refuse, whatever its schemas are: 400, or 501 for a call type there is not."""
    who = re.compile(r"user.?id|anonymous.?id|to", re.IGNORECASE)
    spoilt: tuple[Any, ...] = (
        [message],
        "track",
        {name: value for name, value in message.items() if name.lower() != "type"},
        {**message, "type": "sing"},
        {name: value for name, value in message.items() if not who.fullmatch(name)},
        {**message, "properties": {"amount": float("nan")}},
    )
    bodies = [json.dumps(body).encode() for body in spoilt]
    return draw.choice((*bodies, bodies[0][1:-2], b"", b"\xff" + bodies[0], b'"\xed\xa0\x80"'))
