"""The messages of `destination simulate`: all call types as Segment's sources create them, including unusual ones.

A message is a function of the seed and its number: it is created again for each try instead of being kept, and the same
seed sends the same messages again. https://segment.com/docs/connections/spec/
"""

import heapq
import itertools
import json
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, partial
from itertools import filterfalse
from random import Random

from destination.segment.contract import CALL_TYPES, DELETE, JsonObject
from destination.segment.due import Due, Moments, cut_to_seconds, stored_body
from destination.segment.spelling import respelled
from destination.simulation.content import (
    FIELDS_BY_CALL_TYPE,
    anonymous_id,
    context,
    extras,
    former_user_id,
    integrations,
    is_odd,
)
from destination.simulation.pieces import (
    CROWD,
    CROWD_SHARE,
    PIECES_FROM,
    REJECTS_OF_ERASED,
    Piece,
    after_erasure,
    bystander,
    crowd,
    set_pieces,
)
from destination.simulation.required import Required

DESTINATION = "Direct Destination"
"""Our name in `integrations`; the function reads none of them."""
USERS_PER_CUSTOMER = 50
"""Each has a user id and an anonymous id; few of them have many messages, as in reality."""
REORDER_WINDOW = 500
"""How many places a message may be late, and a duplicate may follow the first one."""
ORIGIN = datetime(2026, 3, 1, tzinfo=UTC)
"""The time of the first message. It is fixed: the same seed must give the same times, which are part of the
identity."""
MESSAGE_SPACING = timedelta(milliseconds=40)

DELETED_WITHIN_SECONDS = 120
"""Half of the deletes happen within this time after the first message; the others a day later, after all messages."""
LATER_USERS = 3
"""For this many erased users, messages arrive after all deletes were carried out."""
NOBODY = -1
"""The number of a user if a set piece has its own user."""
LATE_SHARE = 5
"""One in this many messages is sent in parallel with the deletes, if its user stays."""

_SHARED_CONTEXT = {
    "library": {"name": "analytics-python", "version": "2.3.3"},
    "App": {"name": "Größe"},
    "our own": 1,
}
_SHARED_CONTEXT_STORED = {
    "library": {"name": "analytics-python", "version": "2.3.3"},
    "app": {"name": "Größe"},
    "our own": 1,
}
SHORT_DELETE = {"type", "userId", "timestamp"}
"""The fields of the shorter form of a `delete`."""

CALL_TYPE_WEIGHTS = {"track": 45, "page": 20, "identify": 15, "screen": 8, "group": 6, "alias": 3, "delete": 3}


class Kind(Enum):
    """The kind of a delivery."""

    LIVE = "live"
    REPLAY = "replay"
    INVALID = "invalid"
    DELETE = "delete"


@dataclass(frozen=True, kw_only=True, order=True)
class Sending:
    """One delivery: the message with a number, or (if `copy` is not 0) a library's resend of it.

    If it `deletes`, the number is the number of a user in `Traffic.doomed`. If it comes `later`, after all deletes were
    carried out, the number is one in `Traffic.later`.
    """

    index: int
    copy: int = 0
    deletes: bool = False
    later: bool = False


@dataclass(frozen=True, kw_only=True)
class ExpectedRefusal:
    """The reason why a message must be refused: the code of the answer if it is sent alone, and the code in a batch.

    A message without a code `in_batch` is not JSON, and would make its batch invalid.
    """

    alone: str
    in_batch: str | None


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A message for a customer's endpoint.

    `message` is in the casing of its source, and `body` is its JSON, possibly damaged: then `refusal` is the reason why
    it must be refused. `plain` is the message in the spec's own spelling, before the disguise. `stored` replaces fields
    of the expected stored form, if the disguise is more than another casing. `why` describes the special property of
    the message.
    """

    customer: int
    kind: Kind
    message: JsonObject
    body: bytes
    plain: JsonObject
    moments: Moments
    refusal: ExpectedRefusal | None = None
    stored: JsonObject | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """The decisions about a message before its creation; `per_customer` separates it from others of its customer."""

    call_type: str
    kind: Kind
    sending: Sending
    user: int
    per_customer: str
    replayed_again: bool


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """All messages of a run. `replays` and `invalid` are shares of the messages, `deletes` is a share of the users.

    Messages `in_batches` come from a library: it sends no settings, and may send some fields once for a batch. A run
    with enough `messages` contains set pieces, one for each field that is `required`. `refuses_erased` says that the
    deployment answers 403 to messages from before their user's erasure.
    """

    seed: int
    customers: int
    call_types: Collection[str] = CALL_TYPES
    in_batches: bool = False
    replays: float = 0.0
    invalid: float = 0.0
    deletes: float = 0.0
    messages: int = 0
    required: tuple[Required, ...] = ()
    refuses_erased: bool = False

    @cached_property
    def customer_ids(self) -> list[str]:
        """The customers that exist only for this run."""
        return [f"simulated-{self.seed}-{number}" for number in range(self.customers)]

    def settings(self, customer: int) -> JsonObject | None:
        """Return the settings of a customer; two of three have none."""
        has_some = customer % 3 == 1 and not self.in_batches
        return {"region": "eu", "Größe": customer, "custom setting": "значение ✓"} if has_some else None

    def shared(self, customer: int) -> JsonObject:
        """Return the batch-level fields of a customer; one of three customers has none.

        They are the same in each batch, because they are part of a message, and so of a derived message id.
        """
        if not self.in_batches or customer % 3 == 0:
            return {}
        return {"context": _SHARED_CONTEXT} | ({"integrations": {"All": True}} if customer % 3 == 1 else {})

    @cached_property
    def doomed(self) -> list[tuple[int, int]]:
        """The users in `delete` messages, in no particular order: numbers of customers and of their users."""
        draw = Random(f"{self.seed}/doomed")  # noqa: S311 -- repeatable, not secret
        everyone = [(customer, user) for customer in range(self.customers) for user in range(USERS_PER_CUSTOMER)]
        doomed = [someone for someone in everyone if draw.random() < self.deletes]
        draw.shuffle(doomed)
        return doomed

    @cached_property
    def doomed_subjects(self) -> list[str]:
        """The subjects of these users, which are the partition keys of their messages."""
        sendings = (Sending(index=index, deletes=True) for index in range(len(self.doomed)))
        return [self.due(self.parcel(sending)).subject for sending in sendings]

    @cached_property
    def pieces(self) -> dict[int, Piece]:
        """The set pieces by message number, spread over the run.

        They begin with an erased user: that user's many messages, and the messages of a bystander.
        """
        if self.messages < PIECES_FROM:
            return {}
        own: list[Piece] = []
        if self.doomed:
            _, user = self.doomed[0]
            others = [other for other in range(self.customers) if (other, user) not in self._doomed]
            own = bystander(others[0], _user_id(user), self.call_types) if others else []
        own += set_pieces(self.customers, self.call_types, self.required)[: self.messages // 2 - len(own)]
        crowded: list[Piece] = []
        if self.doomed:
            customer, user = self.doomed[0]
            size = min(CROWD, int(self.messages * CROWD_SHARE), self.messages - len(own) - REJECTS_OF_ERASED)
            crowded = crowd(customer, user, _user_id(user), self.call_types, size)
        pieces = [piece for pair in itertools.zip_longest(own, crowded) for piece in pair if piece is not None]
        return {number * self.messages // len(pieces): piece for number, piece in enumerate(pieces)}

    @cached_property
    def sent_again(self) -> frozenset[int]:
        """The numbers of messages that are always sent again, whatever the share of duplicates is."""
        return frozenset(index for index, piece in self.pieces.items() if piece.is_sent_again)

    @cached_property
    def later(self) -> list[Piece]:
        """Messages of users after their erasure."""
        if not self.pieces:
            return []
        return [
            piece
            for customer, user in self.doomed[:LATER_USERS]
            for piece in after_erasure(customer, user, _user_id(user), self.call_types, refuses=self.refuses_erased)
        ]

    def customer(self, index: int) -> int:
        """Return the number of the customer of a message."""
        return self.pieces[index].customer if index in self.pieces else index % self.customers

    def _piece(self, sending: Sending) -> Piece | None:
        if sending.later:
            return self.later[sending.index]
        return None if sending.deletes else self.pieces.get(sending.index)

    def _parcel_of(self, piece: Piece, copy: int) -> Parcel:
        plain, moments = piece.message(copy)
        message = plain | (piece.sent or {})
        return Parcel(
            customer=piece.customer,
            kind=Kind.INVALID if piece.refusal else Kind.LIVE,
            message=message,
            body=json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode(),
            plain=plain,
            moments=moments,
            refusal=ExpectedRefusal(alone=piece.refusal, in_batch=piece.refusal) if piece.refusal else None,
            stored=piece.stored,
            why=piece.why,
        )

    @cached_property
    def _doomed(self) -> frozenset[tuple[int, int]]:
        return frozenset(self.doomed)

    def is_doomed(self, index: int) -> bool:
        """Return whether the user of a message is named by a `delete` message."""
        return self._whose(Sending(index=index)) in self._doomed

    def parcel(self, sending: Sending) -> Parcel:
        """Create the message of a delivery."""
        if piece := self._piece(sending):
            return self._parcel_of(piece, sending.copy)
        kind = self._kind(sending)
        customer, user = self._whose(sending)
        # A replay with the same number is another message than a live one, so that runs can differ in their rates
        # alone.
        draw = Random(f"{self.seed}/{sending.index}/{kind.value}")  # noqa: S311 -- repeatable, not secret
        draft = _Draft(
            replayed_again=draw.random() < self.replays and sending.copy > 0,
            call_type=DELETE if kind is Kind.DELETE else self._call_type(draw),
            kind=kind,
            sending=sending,
            user=user,
            per_customer=f"{kind.value}-{self.customers}-{sending.index // self.customers}",
        )
        plain, moments = _message(draw, draft)
        spoilt = _spoil(plain, draw) if kind is Kind.INVALID else None
        plain, refusal = (spoilt.plain, spoilt.refusal) if spoilt else (plain, None)
        message = plain if plain.keys() == SHORT_DELETE else respelled(draw, plain)
        body = spoilt.break_up(json.dumps(message).encode()) if spoilt else _encode(message, draw)
        return Parcel(
            customer=customer, kind=kind, message=message, body=body, plain=plain, moments=moments, refusal=refusal
        )

    def due(self, parcel: Parcel, fields: JsonObject | None = None) -> Due:
        """Return the expected stored form of a message: its subject, its key, and its content.

        `fields` are the batch-level fields.
        """
        body = stored_body(parcel.plain, self.stored_fields(parcel.customer, fields)) | (parcel.stored or {})
        return Due(
            customer_id=self.customer_ids[parcel.customer],
            body=body,
            moments=parcel.moments,
            settings=self.settings(parcel.customer) or {},
        )

    def stored_fields(self, customer: int, fields: JsonObject | None) -> JsonObject:
        """Return the batch-level fields in the form in which each message is stored with them."""
        told = self.shared(customer) if fields is None else fields
        stored = {"context": _SHARED_CONTEXT_STORED} if "context" in told else {}
        stored |= {"integrations": told["integrations"]} if "integrations" in told else {}
        return stored | ({"sent_at": told["sentAt"]} if "sentAt" in told else {})

    def _whose(self, sending: Sending) -> tuple[int, int]:
        """Return the numbers of the customer and of the user."""
        if sending.deletes:
            return self.doomed[sending.index]
        if piece := self._piece(sending):
            return piece.customer, NOBODY if piece.user is None else piece.user
        chance = Random(f"{self.seed}/{sending.index}/user").random()  # noqa: S311 -- repeatable, not secret
        return sending.index % self.customers, int(USERS_PER_CUSTOMER * chance**2)

    def _call_type(self, draw: Random) -> str:
        weights = [weight if name in self.call_types else 0 for name, weight in CALL_TYPE_WEIGHTS.items()]
        [call_type] = draw.choices(tuple(CALL_TYPE_WEIGHTS), weights)
        return call_type

    def _kind(self, sending: Sending) -> Kind:
        if sending.deletes:
            return Kind.DELETE
        chance = Random(f"{self.seed}/{sending.index}").random()  # noqa: S311 -- repeatable, not secret
        if chance < self.invalid:
            return Kind.INVALID
        return Kind.REPLAY if chance < self.invalid + self.replays else Kind.LIVE


def sendings(
    *, messages: int, seed: int, duplicates: float, reorder: float, again: Container[int] = ()
) -> Iterator[Sending]:
    """Yield the deliveries in the order of their first tries; the rates are shares of the messages.

    Those to be sent `again` always have a duplicate. A duplicate follows immediately, so that both are sent
    concurrently, or later.
    """
    waiting: list[tuple[int, Sending]] = []
    for index in range(messages):
        draw = Random(f"{seed}/{index}/order")  # noqa: S311 -- repeatable, not secret
        place = index + (draw.randint(1, REORDER_WINDOW) if draw.random() < reorder else 0)
        heapq.heappush(waiting, (place, Sending(index=index)))
        if draw.random() < duplicates or index in again:
            later = draw.choice((0, draw.randint(1, REORDER_WINDOW)))
            heapq.heappush(waiting, (place + later, Sending(index=index, copy=1)))
        while waiting and waiting[0][0] <= index:
            yield heapq.heappop(waiting)[1]
    while waiting:
        yield heapq.heappop(waiting)[1]


def stages(
    traffic: Traffic, *, messages: int, duplicates: float, reorder: float
) -> tuple[Iterable[Sending], Iterable[Sending]]:
    """Return the deliveries before the deletes, and then the deletes, with some messages of other users in between.

    Without deletes, the second stage is empty. All messages of the users to erase are in the first stage.
    """
    order = partial(
        sendings,
        messages=messages,
        seed=traffic.seed,
        duplicates=duplicates,
        reorder=reorder,
        again=traffic.sent_again,
    )
    if not traffic.doomed:
        return order(), ()
    first_late = messages - messages // LATE_SHARE

    def is_late(sending: Sending) -> bool:
        return sending.index >= first_late and not traffic.is_doomed(sending.index)

    late = ((number / messages * LATE_SHARE, sending) for number, sending in enumerate(filter(is_late, order())))
    deletes = sorted(_deletes(traffic, duplicates))
    return filterfalse(is_late, order()), (sending for _, sending in heapq.merge(late, deletes))


def _deletes(traffic: Traffic, duplicates: float) -> Iterator[tuple[float, Sending]]:
    """Yield the deletes with their places: 0 is the begin of the second stage, and 1 its end.

    A duplicate follows immediately, or when the first one may have been carried out.
    """
    draw = Random(f"{traffic.seed}/deletes")  # noqa: S311 -- repeatable, not secret
    for index in range(len(traffic.doomed)):
        place = draw.random()
        yield place, Sending(index=index, deletes=True)
        if draw.random() < duplicates:
            yield draw.choice((place, 1 + place)), Sending(index=index, copy=1, deletes=True)


def _message(draw: Random, draft: _Draft) -> tuple[JsonObject, Moments]:
    """Create a message in the spec's spelling. A resend makes the same random choices, except where resends differ."""
    call_type, user = draft.call_type, draft.user
    message_id, who = _message_id(draw, call_type, draft.per_customer), _who(draw, call_type, user)
    times, moments = _times(draw, draft)
    message: JsonObject = {
        "type": call_type,
        "messageId": message_id,
        **who,
        **times,
        **FIELDS_BY_CALL_TYPE[call_type](draw, user),
        "context": context(draw, call_type),
        "integrations": integrations(draw, call_type),
        **extras(draw),
    }
    if is_odd(draw):
        del message["messageId"]
    # otherwise they would be part of the derived id
    if draft.kind is Kind.REPLAY or (draft.replayed_again and "messageId" in message):
        message["integrations"] = {"All": False, DESTINATION: True}
    if call_type == DELETE and draw.random() < 0.5:  # noqa: PLR2004 -- both forms are equally common
        happened = _happened(draw, draft)
        message = {"type": DELETE, "userId": message["userId"], "timestamp": _iso(happened)}
        return message, Moments(original=happened, timestamp=happened)
    return message, moments


def _encode(message: JsonObject, draw: Random) -> bytes:
    try:
        return json.dumps(message, ensure_ascii=is_odd(draw), separators=(",", ":")).encode()
    except UnicodeEncodeError:  # UTF-8 can't encode a lone surrogate, so it is escaped
        return json.dumps(message).encode()


def _message_id(draw: Random, call_type: str, per_customer: str) -> str:
    unique = uuid.UUID(int=draw.getrandbits(128), version=4)
    if call_type == DELETE:
        return f"delete-reg-{unique.hex}::job-{draw.randint(1, 9)}-project"
    shapes = (
        f"ajs-next-1772323200000-{unique}",
        str(unique),
        f"api-{unique.hex}",
        f"order-{per_customer}",  # chosen by the customer: other customers use the same
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
    """Return when a message happened: unique in the run, so that no two messages are equal."""
    if draft.kind is Kind.DELETE:
        seconds = draw.choice((draw.uniform(0, DELETED_WITHIN_SECONDS), 24 * 60 * 60))
        return ORIGIN + timedelta(milliseconds=round(1000 * seconds))
    time = ORIGIN + draft.sending.index * MESSAGE_SPACING
    return time - timedelta(days=draw.randint(400, 4000)) if draft.kind is Kind.REPLAY else time


def _times(draw: Random, draft: _Draft) -> tuple[JsonObject, Moments]:
    """Return the times as texts, and as the values that must be read from them.

    The source's clock gives the original time and `sentAt`, Segment's clock gives `receivedAt`. Segment computes
    `timestamp` from these. A resend repeats only the original time.
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
    timestamp = received - waited - delay
    original_text, original_read = _spelled_time(draw, original, draft.call_type)
    times = {
        "originalTimestamp": original_text,
        "sentAt": _iso(happened + wrong + delay),
        "receivedAt": _iso(received),
        "timestamp": _iso(timestamp),
    }
    knows_one_time = is_odd(draw)
    if (
        knows_one_time and wrong <= timedelta()
    ):  # if it is ahead, its event time would be the time of storage, which is not known here
        return {"timestamp": _iso(original)}, Moments(original=original, timestamp=original)
    return times, Moments(original=original_read, timestamp=timestamp, received=received)


def sent_at(sending: Sending) -> str:
    """Return when a library would send a batch that ends with a message."""
    return _iso(ORIGIN + (sending.index + 1) * MESSAGE_SPACING)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _spelled_time(draw: Random, time: datetime, call_type: str) -> tuple[str, datetime | None]:
    """Return a time as text, and as the value that must be read from it; None if it can't be read."""
    if call_type == DELETE:
        return f"{time:%Y-%m-%d %H:%M:%S}.{f'{time:%f}'.rstrip('0')}0 +0000 UTC m=+70366.297599337", time  # Go
    if not is_odd(draw):
        return _iso(time), time
    return draw.choice(
        (
            (time.isoformat(timespec="microseconds"), time),
            (f"{time:%Y-%m-%dT%H:%M:%S}", cut_to_seconds(time)),
            (f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z", time),
            ("0000-00-00 00:00:00", None),
        )
    )


@dataclass(frozen=True, kw_only=True)
class _Spoilt:
    """A message that must be refused; `break_up` makes its body from its JSON."""

    plain: JsonObject
    refusal: ExpectedRefusal
    break_up: Callable[[bytes], bytes] = bytes


def _spoil(message: JsonObject, draw: Random) -> _Spoilt:
    """Create messages that every destination must refuse, whatever its schemas are: by 400, or 501 for an unknown type.

    For most of them, a schema refuses the message of a known customer: then it is kept among the rejects.
    """
    shapes: tuple[tuple[JsonObject, ExpectedRefusal, Callable[[bytes], bytes]], ...] = (
        (message, NOT_AN_OBJECT, lambda body: b"[" + body + b"]"),
        (message, NOT_AN_OBJECT, lambda _body: b'"track"'),
        (_without(message, "type"), NO_TYPE, bytes),
        ({**message, "type": "sing"}, UNSUPPORTED, bytes),
        (_without(message, "userId", "anonymousId"), INVALID, bytes),
        ({**message, "properties": {"amount": float("nan")}}, NOT_A_NUMBER, bytes),
        *[({**message, "messageId": ["no", "text"]}, INVALID, bytes)] * 6,
        (message, NOT_JSON, lambda body: body[:-1]),
        (message, NOT_JSON, lambda _body: b""),
        (message, NOT_UTF8, lambda body: b"\xff" + body),
        (message, NOT_UTF8, lambda _body: b'"\xed\xa0\x80"'),
    )
    plain, refusal, break_up = draw.choice(shapes)
    return _Spoilt(plain=plain, refusal=refusal, break_up=break_up)


def _without(message: JsonObject, *names: str) -> JsonObject:
    return {name: value for name, value in message.items() if name not in names}


NOT_AN_OBJECT = ExpectedRefusal(alone="not_an_object", in_batch="not_an_object")
NO_TYPE = ExpectedRefusal(alone="missing_type", in_batch="missing_type")
UNSUPPORTED = ExpectedRefusal(alone="unsupported_call_type", in_batch="unsupported_call_type")
INVALID = ExpectedRefusal(alone="invalid_message", in_batch="invalid_message")
NOT_A_NUMBER = ExpectedRefusal(alone="invalid_json", in_batch="number_out_of_range")
NOT_JSON = ExpectedRefusal(alone="invalid_json", in_batch=None)
NOT_UTF8 = ExpectedRefusal(alone="invalid_encoding", in_batch=None)
