"""The contents of the messages of `destination simulate`, as unusual as real customers' messages.

Other modules decide about users, times and spellings.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from destination.segment.contract import JsonObject

LARGE_SHARE = 0.002
MAX_LARGE_BYTES = 250 * 1024
"""Reverse-ETL records reach 512 KiB, but characters outside ASCII double or triple in a queue, which accepts 1 MiB."""
ODD_SHARE = 0.04
"""The share of each unusual form, among the messages that can have it."""

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


def anonymous_id(user: int) -> str:
    """Return the anonymous id of a user's earlier visits."""
    return f"507f191e-{user:04}-анон#"


def former_user_id(user: int) -> str:
    """Return another user id of the same person, as after a migration between systems."""
    return f"former-{user}"


def is_odd(draw: Random) -> bool:
    """Decide at random whether a message has one of the unusual forms."""
    return draw.random() < ODD_SHARE


def _value(draw: Random, depth: int = 0) -> Any:  # noqa: ANN401 -- any JSON value
    choice = draw.random()
    if choice < 0.6:  # noqa: PLR2004 -- most values are strings
        return draw.choice(_WORDS)
    if choice < 0.8 or depth > 3:  # noqa: PLR2004 -- then come numbers
        return draw.choice((0, -1, 19.99, 1e-7, 1e300, 2**63, 10**40, draw.randint(-999, 999), True, False, None, -0.0))
    if choice < 0.9:  # noqa: PLR2004 -- then arrays and objects
        return [_value(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    return _own(draw, depth + 1)


def _own(draw: Random, depth: int = 0) -> JsonObject:
    """Return an object with keys that belong to the customer."""
    return {draw.choice(_OWN_KEYS): _value(draw, depth) for _ in range(draw.randint(0, 5))}


def _customers_own(draw: Random) -> JsonObject:
    """Return traits or properties."""
    own = _own(draw)
    if draw.random() < 0.002:  # noqa: PLR2004 -- JSON can escape characters that UTF-8 can't encode
        own["half of an emoji"] = "\ud83d"
    if draw.random() < LARGE_SHARE:
        text = draw.choice(_WORDS[:9])
        own["description"] = text * (draw.randint(40_000, MAX_LARGE_BYTES) // len(text.encode()))
    if draw.random() < LARGE_SHARE:
        own |= {f"property {number}": number for number in range(9_990)}
    return own


def _odd_or(draw: Random, value: JsonObject) -> Any:  # noqa: ANN401 -- an object, or a substitute for an empty one
    """Return an object, or a form in which some sources write an empty one."""
    return draw.choice(({}, [], None)) if is_odd(draw) else value


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


def _alias(draw: Random, user: int) -> JsonObject:
    return {"previousId": draw.choices((anonymous_id(user), former_user_id(user)), (4, 1))[0]}


FIELDS_BY_CALL_TYPE: dict[str, Callable[[Random, int], JsonObject]] = {
    "identify": _traits,
    "track": _track,
    "page": _page,
    "screen": _screen,
    "group": _group,
    "alias": _alias,
    "delete": lambda _draw, _user: {},
}
"""The fields of a call type in addition to the common ones; called with the number of the user."""


def context(draw: Random, call_type: str) -> Any:  # noqa: ANN401 -- an object, or a substitute for an empty one
    """Return the context."""
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


def integrations(draw: Random, call_type: str) -> Any:  # noqa: ANN401 -- an object, or a substitute for an empty one
    """Return the integrations."""
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


def extras(draw: Random) -> JsonObject:
    """Return fields that Segment adds, and unknown fields."""
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
