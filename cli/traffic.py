"""What `destination simulate` sends: messages of all call types as Segment's sources make them, the odd ones included.

A message is a function of the seed and its number: it is made anew for each try instead of being kept, and the same
seed sends the same messages again. https://segment.com/docs/connections/spec/
"""

import hashlib
import heapq
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property
from random import Random
from typing import Any

from handler.canonicalise import canonicalise
from handler.decode import JsonObject
from handler.record import Record
from handler.spec import CALL_TYPES, CONTEXT, CONTEXT_OBJECTS, TOP, Fields, snake_case

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
LARGE_SHARE = 0.002
MAX_LARGE_BYTES = 250 * 1024
"""Reverse-ETL records reach 512 KiB; what is not ASCII doubles and triples in a queue, which takes 1 MiB."""
ODD_SHARE = 0.04
"""Of each odd shape, among the messages that can have it."""


Identity = bytes
"""Whose message it is and which, as a hash: a run keeps one of each message that it sends."""


def identity_of(facts: Mapping[str, str]) -> Identity:
    """Tell a message by its customer, user (or else anonymous) id, and message id, all named as in `Record.facts`."""
    user_id = facts.get("user_id")
    parts = (facts["customer_id"], user_id, None if user_id else facts.get("anonymous_id"), facts["message_id"])
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


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
        return Record(customer_id=self.customer_ids[parcel.customer], message=message, settings={}, stored_at=0)

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


_WORDS = (
    *(
        "plan",
        "Pro",
        "Ada Lovelace",
        "ada@example.com",
        "Größe",
        "naïve café",
        "注文完了",
        "Оформлен заказ",
        "🛒",
        "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}",
    ),
    *("مرحبا", "שלום", "e\u0301", "é", "", " ", "null", "NaN", "undefined", "true", "-0", "1e999", "0x1F"),
    *("Robert'); DROP TABLE events;--", "<script>alert(1)</script>", "${jndi:ldap://x}", "../../etc/passwd", "%00%0a"),
    *('"quoted"', "back\\slash", "line\nbreak", "tab\t", "\u0000", "\u2028", "\ufeff", "\uffff", "#", "a#b%23c", "a:b"),
)
_OWN_KEYS = (
    *("plan", "total", "First Name", "utm.source", "a.b.c", "", " ", "user_id", "userId", "type", "$set", "__proto__"),
    *("constructor", "ключ", "🔑", "list[0]", "a/b~c", "0", "Total (USD)", "\u0000", "_conflicts", "null"),
)
_EVENTS = (
    "Order Completed",
    "Signed Up",
    "注文完了",
    "🛒 Added",
    "null",
    "<b>x</b>",
    "a.b",
    "Заказ",
    " ",
    "NaN",
    "x" * 300,
)
_CONTINENTS = ("Europe/Vienna", "Asia/Tokyo", "America/New_York")


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
        **_SPECIFIC[call_type](draw, user),
        "context": _context(draw, call_type),
        "integrations": _integrations(draw, call_type),
        **_extras(draw),
    }
    if _is_odd(draw):
        del message["messageId"]
    if kind is Kind.REPLAY or (replayed_again and "messageId" in message):  # else they count into the derived id
        message["integrations"] = {"All": False, DESTINATION: True}
    if call_type == "delete" and draw.random() < 0.5:  # noqa: PLR2004 -- both forms are as common
        return {"type": "delete", "userId": message["userId"], "timestamp": _iso(_happened(draw, kind, sending))}
    return _respelled(draw, message)


def _encode(message: JsonObject, draw: Random) -> bytes:
    try:
        return json.dumps(message, ensure_ascii=_is_odd(draw), separators=(",", ":")).encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8, only an escape
        return json.dumps(message).encode()


def _is_odd(draw: Random) -> bool:
    return draw.random() < ODD_SHARE


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
    return time + odd[draw.choice(tuple(odd))] if _is_odd(draw) else time


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
    if _is_odd(draw):  # a source that knows only one time
        return {"timestamp": _iso(happened)}
    return times


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _spelled_time(draw: Random, time: datetime, call_type: str) -> str:
    if call_type == "delete":
        return f"{time:%Y-%m-%d %H:%M:%S}.{f'{time:%f}'.rstrip('0')}0 +0000 UTC m=+70366.297599337"  # Go
    if not _is_odd(draw):
        return _iso(time)
    elsewhere = time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "+00:00")
    return draw.choice(
        (elsewhere, f"{time:%Y-%m-%dT%H:%M:%S}", f"{time:%Y-%m-%dT%H:%M:%S.%f}000Z", "0000-00-00 00:00:00")
    )


def _value(draw: Random, depth: int = 0) -> Any:  # noqa: ANN401 -- any JSON
    choice = draw.random()
    if choice < 0.6:  # noqa: PLR2004 -- most are texts
        return draw.choice(_WORDS)
    if choice < 0.8 or depth > 3:  # noqa: PLR2004 -- then come numbers
        return draw.choice((0, -1, 19.99, 1e-7, 1e300, 2**63, 10**40, draw.randint(-999, 999), True, False, None, -0.0))
    if choice < 0.9:  # noqa: PLR2004 -- then arrays and objects
        return [_value(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    return _own(draw, depth + 1)


def _own(draw: Random, depth: int = 0) -> JsonObject:
    """Return an object whose keys are the customer's own."""
    return {draw.choice(_OWN_KEYS): _value(draw, depth) for _ in range(draw.randint(0, 5))}


def _customers_own(draw: Random) -> JsonObject:
    """Return traits or properties."""
    own = _own(draw)
    if draw.random() < 0.002:  # noqa: PLR2004 -- JSON can escape what no UTF-8 can hold
        own["half of an emoji"] = "\ud83d"
    if draw.random() < LARGE_SHARE:
        text = draw.choice(_WORDS[:9])
        own["description"] = text * (draw.randint(40_000, MAX_LARGE_BYTES) // len(text.encode()))
    if draw.random() < LARGE_SHARE:
        own |= {f"property {number}": number for number in range(9_990)}
    return own


def _odd_or(draw: Random, value: JsonObject) -> Any:  # noqa: ANN401 -- an object, or what stands for none
    """Return an object, or how some sources write an empty one."""
    return draw.choice(({}, [], None)) if _is_odd(draw) else value


def _traits(draw: Random, _user: int) -> JsonObject:
    return {"traits": _odd_or(draw, {"email": "ada@example.com", **_customers_own(draw)})}


def _track(draw: Random, _user: int) -> JsonObject:
    return {"event": draw.choice(_EVENTS), "properties": _odd_or(draw, _customers_own(draw))}


def _page(draw: Random, _user: int) -> JsonObject:
    properties = {"title": "Größe wählen", "path": "/größe", "url": "https://example.com/%67", "search": "?q=a b"}
    return {
        "name": draw.choice(_WORDS),
        "category": draw.choice((None, "Docs")),
        "properties": properties | _customers_own(draw),
    }


def _screen(draw: Random, _user: int) -> JsonObject:
    return {"name": draw.choice(_WORDS), "properties": _odd_or(draw, _customers_own(draw))}


def _group(draw: Random, user: int) -> JsonObject:
    return {"groupId": draw.choice((f"company-{user}", 4711 + user, "0e8c78ea9d9a", "株式会社")), **_traits(draw, user)}


def _alias(_draw: Random, user: int) -> JsonObject:
    return {"previousId": f"507f191e-{user:04}-анон#"}


_SPECIFIC: dict[str, Callable[[Random, int], JsonObject]] = {
    "identify": _traits,
    "track": _track,
    "page": _page,
    "screen": _screen,
    "group": _group,
    "alias": _alias,
    "delete": lambda _draw, _user: {},
}


def _context(draw: Random, call_type: str) -> Any:  # noqa: ANN401 -- an object, or what stands for none
    if call_type == "delete":
        return None
    context = {
        "library": {"name": "analytics.js", "version": "2.11.1"},
        "ip": draw.choice(("203.0.113.7", "2001:db8::7")),
        "locale": "de-AT",
        "timezone": draw.choice(_CONTINENTS),
        "userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)",
    }
    parts: tuple[JsonObject, ...] = (
        {"page": {"path": "/größe", "referrer": "", "search": "", "title": "Größe", "url": "https://example.com/"}},
        {"campaign": {"name": "été ☀️", "source": "Newsletter", "medium": "email", "utm.own": 1}},
        {"device": {"id": "B5372DB0", "advertisingId": "7A3CBEA0", "adTrackingEnabled": True, "type": "ios"}},
        {"os": {"name": "iOS", "version": "18.1"}, "network": {"wifi": False, "carrier": "A1", "cellular": True}},
        {"userAgentData": {"brands": [{"brand": "Chromium", "version": "130"}], "mobile": False}},
        {"traits": _own(draw), "externalIds": [{"id": "x", "type": "ga_client_id", "collection": "users"}]},
        {"my own": _own(draw)},
    )
    for part in draw.sample(parts, draw.randint(0, 3)):
        context |= part
    return _odd_or(draw, context)


def _integrations(draw: Random, call_type: str) -> Any:  # noqa: ANN401 -- an object, or what stands for none
    if call_type == "delete":
        return None
    shapes: tuple[Any, ...] = (
        {},
        {"All": True},
        {"All": True, "Mixpanel": False, "a.b c": {"clientId": "1.2"}, "": True},
        None,
        [],
        True,
    )
    return draw.choices(shapes, (60, 20, 14, 2, 2, 2))[0]


def _extras(draw: Random) -> JsonObject:
    """Return what Segment adds, and fields that nobody knows."""
    extras: tuple[JsonObject, ...] = (
        {"version": draw.choice((2, 1, "1.1"))},
        {"channel": draw.choice(("client", "server"))},
        {"projectId": "kFtT5tzxUg"},
        {"_metadata": {"bundled": ["Segment.io"], "unbundled": [], "nodeVersion": "20.1"}},
        {"writeKey": "no-secret"},
        {"a field of tomorrow": _own(draw)},
    )
    chosen: JsonObject = {}
    for extra in draw.sample(extras, draw.randint(0, 4)):
        chosen |= extra
    return chosen


def _words(name: str) -> list[str]:
    return snake_case(name).split("_")


_SPELLINGS: dict[str, Callable[[str], str]] = {
    "user_id": snake_case,
    "UserID": lambda name: "".join("ID" if word == "id" else word.title() for word in _words(name)),
    "User ID": lambda name: " ".join("ID" if word == "id" else word.title() for word in _words(name)),
    "user-id": lambda name: "-".join(_words(name)),
    "USER_ID": lambda name: snake_case(name).upper(),
}


def _respelled(draw: Random, message: JsonObject) -> JsonObject:
    """Spell a message as its source does: most as the spec, some in another casing, old aliases in other words."""
    if message["type"] == "alias":
        spelling = draw.choice(("spec", "old", "User ID"))
        if spelling == "old":
            return {{"previousId": "from", "userId": "to"}.get(name, name): value for name, value in message.items()}
    else:
        spelling = draw.choices(("spec", "both", *_SPELLINGS), (70, 2, 15, 4, 3, 3, 3))[0]
    if spelling == "spec":
        return message
    if spelling == "both":
        return message | {snake_case(name): value for name, value in message.items() if name in ("userId", "messageId")}
    spell = _SPELLINGS[spelling]
    respelled = _spell_fields(message, TOP, spell)
    context = respelled.get(spell("context"))
    if isinstance(context, dict):
        for name, fields in CONTEXT_OBJECTS.items():
            field = CONTEXT.spelling[name]
            if field in context:
                context[field] = _spell_fields(context[field], fields, spell)
        respelled[spell("context")] = _spell_fields(context, CONTEXT, spell)
    return respelled


def _spell_fields(source: JsonObject, fields: Fields, spell: Callable[[str], str]) -> JsonObject:
    """Spell the spec's fields anew and leave all others alone; a leading underscore counts, so it is one of those."""
    return {spell(name) if fields.canonical(name) and name[0] != "_" else name: value for name, value in source.items()}


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
