"""What `destination simulate` sends: messages of all call types as Segment's sources make them, the odd ones included.

A message is a function of the seed and its number: it is made anew for each try instead of being kept, and the same
seed sends the same messages again. https://segment.com/docs/connections/spec/
"""

import heapq
import json
import re
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, partial
from itertools import filterfalse
from random import Random
from typing import Any

from cli.simulation.content import (
    FIELDS_BY_CALL_TYPE,
    anonymous_id,
    context,
    extras,
    former_user_id,
    integrations,
    is_odd,
)
from cli.simulation.spelling import respelled
from handler.canonicalise import Message, canonicalise_batch
from handler.decode import JsonObject
from handler.record import Record
from handler.spec import CALL_TYPES, DELETE

DESTINATION = "Direct Destination"
"""Our name in `integrations`; the function reads none of them."""
USERS_PER_CUSTOMER = 50
"""Each with a user id and an anonymous id; few of them have many messages, as in life."""
REORDER_WINDOW = 500
"""How many places a message may come too late, and a duplicate after the first one."""
ORIGIN = datetime(2026, 3, 1, tzinfo=UTC)
"""When the first message happens. Not today: the same seed must give the same times, which are part of identity."""
MESSAGE_SPACING = timedelta(milliseconds=40)

DELETED_WITHIN_SECONDS = 120
"""From the first message on, half of the deletes; the others happen a day later, when all messages have happened."""
LATE_SHARE = 5
"""One in so many messages comes beside the deletes, the last ones, if their users stay."""

CALL_TYPE_WEIGHTS = {"track": 45, "page": 20, "identify": 15, "screen": 8, "group": 6, "alias": 3, "delete": 3}


class Kind(Enum):
    """Why a message is sent."""

    LIVE = "live"
    REPLAY = "replay"
    INVALID = "invalid"
    DELETE = "delete"


@dataclass(frozen=True, kw_only=True, order=True)
class Sending:
    """One delivery to make: the message with a number, or (where `copy` is not 0) a library's resend of it.

    Where it `deletes`, the number is that of a user among `Traffic.doomed`.
    """

    index: int
    copy: int = 0
    deletes: bool = False


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """What is delivered to a customer's endpoint; `message` is what was made into `body`, perhaps to be refused."""

    customer: int
    kind: Kind
    message: JsonObject
    body: bytes


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """What is decided of a message before it is made; `per_customer` tells it from the others of its customer."""

    call_type: str
    kind: Kind
    sending: Sending
    user: int
    per_customer: str
    replayed_again: bool


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All messages of a run. `replays` and `invalid` are shares of the messages, `deletes` is one of the users.

    What comes `in_batches` is a library's: it sends no settings, and may tell some fields once for a batch.
    """

    seed: int
    customers: int
    call_types: Collection[str] = CALL_TYPES
    in_batches: bool = False
    replays: float = 0.0
    invalid: float = 0.0
    deletes: float = 0.0

    @cached_property
    def customer_ids(self) -> list[str]:
        """The customers that exist only for this run."""
        return [f"simulated-{self.seed}-{number}" for number in range(self.customers)]

    def settings(self, customer: int) -> JsonObject | None:
        """Return the settings of a customer; two of three have none."""
        has_some = customer % 3 == 1 and not self.in_batches
        return {"region": "eu", "Größe": customer, "custom setting": "значение ✓"} if has_some else None

    def shared(self, customer: int) -> JsonObject:
        """Return what all batches of a customer tell for their messages; of three customers one has nothing.

        It is the same in each of them: it is part of a message, and so of the id that is made for one without its own.
        """
        if not self.in_batches or customer % 3 == 0:
            return {}
        context = {"library": {"name": "analytics-python", "version": "2.3.3"}, "App": {"name": "Größe"}, "our own": 1}
        return {"context": context} | ({"integrations": {"All": True}} if customer % 3 == 1 else {})

    @cached_property
    def doomed(self) -> list[tuple[int, int]]:
        """Whom `delete` messages name, in no order: numbers of customers and of their users."""
        draw = Random(f"{self.seed}/doomed")  # noqa: S311 -- to be repeatable, not secret
        everyone = [(customer, user) for customer in range(self.customers) for user in range(USERS_PER_CUSTOMER)]
        doomed = [someone for someone in everyone if draw.random() < self.deletes]
        draw.shuffle(doomed)
        return doomed

    @cached_property
    def doomed_subjects(self) -> list[str]:
        """The subjects of those, which are the keys that their messages have in the event table."""
        sendings = (Sending(index=index, deletes=True) for index in range(len(self.doomed)))
        return [self.record(self.parcel(sending)).subject for sending in sendings]

    @cached_property
    def _doomed(self) -> frozenset[tuple[int, int]]:
        return frozenset(self.doomed)

    def is_doomed(self, index: int) -> bool:
        """Whether a message is one of a user whom a `delete` message names."""
        return self._whose(Sending(index=index)) in self._doomed

    def parcel(self, sending: Sending) -> Parcel:
        """Make what is delivered."""
        kind = self._kind(sending)
        customer, user = self._whose(sending)
        # Of one number another message is made as a replay than live, so that runs can differ in their rates alone.
        draw = Random(f"{self.seed}/{sending.index}/{kind.value}")  # noqa: S311 -- to be repeatable, not secret
        draft = _Draft(
            replayed_again=draw.random() < self.replays and sending.copy > 0,
            call_type=DELETE if kind is Kind.DELETE else self._call_type(draw),
            kind=kind,
            sending=sending,
            user=user,
            per_customer=f"{kind.value}-{self.customers}-{sending.index // self.customers}",
        )
        message = _message(draw, draft)
        body = _spoil(message, draw) if kind is Kind.INVALID else _encode(message, draw)
        return Parcel(customer=customer, kind=kind, message=message, body=body)

    def record(self, parcel: Parcel) -> Record:
        """Return a valid message as the function must store it: whose it is, and where it must be found."""
        message = self.canonical(parcel.message, self.shared(parcel.customer))
        settings = self.settings(parcel.customer) or {}
        return Record(customer_id=self.customer_ids[parcel.customer], message=message, settings=settings, stored_at=0)

    @staticmethod
    def canonical(entry: object, fields: JsonObject) -> Message:
        """Return the message of a batch that has just this entry, and tells these fields for it."""
        [message] = canonicalise_batch({**fields, "batch": [entry]})
        return message

    def _whose(self, sending: Sending) -> tuple[int, int]:
        """Return the numbers of the customer and of the user."""
        if sending.deletes:
            return self.doomed[sending.index]
        chance = Random(f"{self.seed}/{sending.index}/user").random()  # noqa: S311 -- to be repeatable, not secret
        return sending.index % self.customers, int(USERS_PER_CUSTOMER * chance**2)

    def _call_type(self, draw: Random) -> str:
        weights = [weight if name in self.call_types else 0 for name, weight in CALL_TYPE_WEIGHTS.items()]
        [call_type] = draw.choices(tuple(CALL_TYPE_WEIGHTS), weights)
        return call_type

    def _kind(self, sending: Sending) -> Kind:
        if sending.deletes:
            return Kind.DELETE
        chance = Random(f"{self.seed}/{sending.index}").random()  # noqa: S311 -- to be repeatable, not secret
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


def stages(
    traffic: Traffic, *, messages: int, duplicates: float, reorder: float
) -> tuple[Iterable[Sending], Iterable[Sending]]:
    """Return the deliveries before the deletes, and then these, with some messages of other users beside them.

    Without deletes there is nothing to come then. Before them comes all of the users whom they name.
    """
    order = partial(sendings, messages=messages, seed=traffic.seed, duplicates=duplicates, reorder=reorder)
    if not traffic.doomed:
        return order(), ()
    first_late = messages - messages // LATE_SHARE

    def is_late(sending: Sending) -> bool:
        return sending.index >= first_late and not traffic.is_doomed(sending.index)

    late = ((number / messages * LATE_SHARE, sending) for number, sending in enumerate(filter(is_late, order())))
    deletes = sorted(_deletes(traffic, duplicates))
    return filterfalse(is_late, order()), (sending for _, sending in heapq.merge(late, deletes))


def _deletes(traffic: Traffic, duplicates: float) -> Iterator[tuple[float, Sending]]:
    """Yield the deletes with their places, of which 0 is the begin of the second stage, and 1 its end.

    A duplicate comes at once, or when the first one may have been carried out.
    """
    draw = Random(f"{traffic.seed}/deletes")  # noqa: S311 -- to be repeatable, not secret
    for index in range(len(traffic.doomed)):
        place = draw.random()
        yield place, Sending(index=index, deletes=True)
        if draw.random() < duplicates:
            yield draw.choice((place, 1 + place)), Sending(index=index, copy=1, deletes=True)


def _message(draw: Random, draft: _Draft) -> JsonObject:
    """Make a message. A resend takes the same draws, so that it differs only where resends do."""
    call_type, user = draft.call_type, draft.user
    message: JsonObject = {
        "type": call_type,
        "messageId": _message_id(draw, call_type, draft.per_customer),
        **_who(draw, call_type, user),
        **_times(draw, draft),
        **FIELDS_BY_CALL_TYPE[call_type](draw, user),
        "context": context(draw, call_type),
        "integrations": integrations(draw, call_type),
        **extras(draw),
    }
    if is_odd(draw):
        del message["messageId"]
    if draft.kind is Kind.REPLAY or (draft.replayed_again and "messageId" in message):  # else they count into the id
        message["integrations"] = {"All": False, DESTINATION: True}
    if call_type == DELETE and draw.random() < 0.5:  # noqa: PLR2004 -- both forms are as common
        return {"type": DELETE, "userId": message["userId"], "timestamp": _iso(_happened(draw, draft))}
    return respelled(draw, message)


def _encode(message: JsonObject, draw: Random) -> bytes:
    try:
        return json.dumps(message, ensure_ascii=is_odd(draw), separators=(",", ":")).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, only an escape
        return json.dumps(message).encode()


def _message_id(draw: Random, call_type: str, per_customer: str) -> str:
    unique = uuid.UUID(int=draw.getrandbits(128), version=4)
    if call_type == DELETE:
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
    user_id, visitor = _user_id(user), {"anonymousId": anonymous_id(user)}
    if call_type in ("alias", DELETE):
        return {"userId": user_id}
    if is_odd(draw):
        return {"userId": former_user_id(user)}
    return draw.choice(
        (
            {"userId": user_id},
            {"userId": user_id, **visitor},
            {"userId": None, **visitor},
            {"userId": "", **visitor},
            visitor,
        )
    )


def _happened(draw: Random, draft: _Draft) -> datetime:
    """When a message happened: unique in the run, so that no two messages are alike."""
    if draft.kind is Kind.DELETE:
        seconds = draw.choice((draw.uniform(0, DELETED_WITHIN_SECONDS), 24 * 60 * 60))
        return ORIGIN + timedelta(milliseconds=round(1000 * seconds))
    time = ORIGIN + draft.sending.index * MESSAGE_SPACING
    return time - timedelta(days=draw.randint(400, 4000)) if draft.kind is Kind.REPLAY else time


def _times(draw: Random, draft: _Draft) -> JsonObject:
    """Return the times: the source's clock gives the original one and `sentAt`, Segment's own gives `receivedAt`.

    From these Segment computes `timestamp`. A resend repeats the original one only.
    """
    happened = _happened(draw, draft)
    wrong = waited = timedelta()
    if draft.kind in (Kind.LIVE, Kind.INVALID) and draft.call_type != DELETE and is_odd(draw):
        waited = draw.choice((timedelta(days=3), timedelta()))  # an offline phone …
        wrong = timedelta() if waited else draw.choice((timedelta(days=4000), timedelta(days=-18000)))  # … or its clock
    original = happened - waited + wrong
    again = draft.sending.copy * timedelta(seconds=90)
    delay = timedelta(milliseconds=draw.randint(0, 3000)) + again
    received = happened + delay + timedelta(milliseconds=draw.randint(5, 900)) + 0.01 * again
    times = {
        "originalTimestamp": _spelled_time(draw, original, draft.call_type),
        "sentAt": _iso(happened + wrong + delay),
        "receivedAt": _iso(received),
        "timestamp": _iso(received - waited - delay),
    }
    knows_one_time = is_odd(draw)
    if (
        knows_one_time and wrong <= timedelta()
    ):  # ahead, its event time would be that of storing, which nobody can expect
        return {"timestamp": _iso(original)}
    return times


def sent_at(sending: Sending) -> str:
    """Return when a library would send a batch that ends with a message."""
    return _iso(ORIGIN + (sending.index + 1) * MESSAGE_SPACING)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _spelled_time(draw: Random, time: datetime, call_type: str) -> str:
    if call_type == DELETE:
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
    """Make what every destination must refuse, whatever its schemas are: 400, or 501 for a call type there is not.

    Much of it is what a schema refuses of somebody who can be told: it is kept among the rejects.
    """
    who = re.compile(r"user.?id|anonymous.?id|to", re.IGNORECASE)
    spoilt: tuple[Any, ...] = (
        [message],
        "track",
        {name: value for name, value in message.items() if name.lower() != "type"},
        {**message, "type": "sing"},
        {name: value for name, value in message.items() if not who.fullmatch(name)},
        {**message, "properties": {"amount": float("nan")}},
        *[{**message, "messageId": ["no", "text"]}] * 6,
    )
    bodies = [json.dumps(body).encode() for body in spoilt]
    return draw.choice((*bodies, bodies[0][1:-2], b"", b"\xff" + bodies[0], b'"\xed\xa0\x80"'))
