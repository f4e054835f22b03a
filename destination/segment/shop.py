"""Realistic traffic of a small coffee shop, as a first impression of the messages that a destination receives.

Visitors look at pages and products, some sign up and order, one uses the app, and one buys for a company. Segment
repeats one message, and one message has an error. Events and properties follow Segment's specification for e-commerce:
https://segment.com/docs/connections/spec/ecommerce/v2/
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

Message = dict[str, Any]

SHOP = "https://www.bluebean.example"
CURRENCY = "EUR"
VISITORS_AT_ONCE = 4
REPEATED, WITH_ERROR = 9, 21
"""The message that Segment sends twice, and the message that is followed by one with an error; counted from 0."""

PRODUCTS: tuple[tuple[str, str, str, float], ...] = (
    ("bean-01", "Ethiopia Sidamo 250 g", "Coffee", 9.9),
    ("bean-02", "House Espresso 1 kg", "Coffee", 24.5),
    ("bean-03", "Decaf Colombia 250 g", "Coffee", 10.5),
    ("gear-01", "Hand Grinder", "Equipment", 59.0),
    ("gear-02", "Pour-Over Dripper", "Equipment", 18.0),
    ("gear-03", "Paper Filters, 100", "Equipment", 4.5),
)
PEOPLE: tuple[tuple[str, str, str], ...] = (
    ("usr-1041", "Ada Nilsson", "Malmö"),
    ("usr-1042", "Bruno Costa", "Porto"),
    ("usr-1043", "Chiara Moretti", "Torino"),
    ("usr-1044", "Daan Visser", "Utrecht"),
    ("usr-1045", "Elif Kaya", "Köln"),
    ("usr-1046", "Finn Murphy", "Cork"),
)
BROWSERS = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Chrome/143.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:148.0) Gecko/20100101 Firefox/148.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile Safari/604.1",
)
_TIMES = {"originalTimestamp": 0.9, "timestamp": 0.8, "sentAt": 0.5, "receivedAt": 0.3}
"""Seconds between each time field and the arrival at the destination."""


def shop_traffic(random: Random, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[Message]:
    """Yield the messages of a few visits in the order in which they happen, with their times."""
    waiting = _visits(random)
    visits = [waiting.pop(0) for _ in range(VISITORS_AT_ONCE)]
    kept: Message | None = None
    number = 0
    while visits:
        visit = random.choice(visits)
        message = next(visit, None)
        if message is None:
            visits.remove(visit)
            visits += waiting[:1]
            del waiting[:1]
            continue
        yield (sent := _stamped(message, random, clock()))
        if number == REPEATED:
            kept = sent
        if number == REPEATED + 3 and kept is not None:
            yield kept
        if number == WITH_ERROR:
            about: Message = {name: message[name] for name in ("anonymousId", "userId", "context") if name in message}
            yield _stamped({"type": "track", **about, "event": "", "properties": {}}, random, clock())
        number += 1


def _visits(random: Random) -> list[Iterator[Message]]:
    people = random.sample(PEOPLE, len(PEOPLE))
    visits = [
        _web_visit(random, people[0], buys=True),
        _web_visit(random),
        _app_visit(random, people[1]),
        _web_visit(random, people[2], buys=True),
        _company_visit(random, people[3]),
        _web_visit(random),
        _web_visit(random, people[4], buys=False),
        _web_visit(random, people[5], buys=True),
    ]
    random.shuffle(visits)
    return visits


def _web_visit(random: Random, person: tuple[str, str, str] | None = None, *, buys: bool = False) -> Iterator[Message]:
    """Yield the messages of a visitor of the web site, who looks around, and as a `person` signs up and may order."""
    who: Message = {"anonymousId": _uuid(random)}
    browser = _browser(random)
    basket = random.sample(PRODUCTS, random.randint(1, 2))

    def page(name: str, path: str) -> Message:
        seen = {"path": path, "title": f"{name} | Blue Bean", "url": SHOP + path, "referrer": "", "search": ""}
        return {"type": "page", **who, "name": name, "properties": seen, "context": {**browser, "page": seen}}

    def track(event: str, properties: Message) -> Message:
        return {"type": "track", **who, "event": event, "properties": properties, "context": browser}

    yield page("Home", "/")
    yield page(basket[0][2], f"/{basket[0][2].lower()}")
    for product in basket:
        yield track("Product Viewed", _product(product))
        if person:
            yield track("Product Added", {**_product(product), "quantity": 1})
    if person is None:
        return
    who["userId"], name, city = person
    yield {"type": "identify", **who, "traits": _traits(name, city), "context": browser}
    yield track("Signed Up", {"method": "email"})
    if buys:
        yield page("Checkout", "/checkout")
        order = _order(random, basket)
        yield track("Checkout Started", order)
        yield track("Order Completed", order)


def _app_visit(random: Random, person: tuple[str, str, str]) -> Iterator[Message]:
    """Yield the messages of somebody who signs up in an older app, which still sends `alias`."""
    anonymous_id, (user_id, name, city) = _uuid(random), person
    context = {
        "app": {"name": "Blue Bean", "version": "3.2.1", "build": "301"},
        "device": {"type": "ios", "manufacturer": "Apple", "model": "iPhone16,1"},
        "library": {"name": "analytics-ios", "version": "4.1.8"},
        "os": {"name": "iOS", "version": "18.5"},
        **_place(random),
    }
    who: Message = {"anonymousId": anonymous_id}
    yield {
        "type": "track",
        **who,
        "event": "Application Opened",
        "properties": {"version": "3.2.1"},
        "context": context,
    }
    yield {"type": "screen", **who, "name": "Home", "properties": {}, "context": context}
    yield {"type": "alias", "previousId": anonymous_id, "userId": user_id, "context": context}
    who["userId"] = user_id
    yield {"type": "identify", **who, "traits": _traits(name, city), "context": context}
    product = random.choice(PRODUCTS)
    yield {"type": "screen", **who, "name": "Product", "properties": _product(product), "context": context}
    order = _order(random, [product])
    yield {"type": "track", **who, "event": "Order Completed", "properties": order, "context": context}


def _company_visit(random: Random, person: tuple[str, str, str]) -> Iterator[Message]:
    """Yield the messages of a company's buyer: a visit, and the `group` call with the company."""
    visit = _web_visit(random, person, buys=True)
    for message in visit:
        yield message
        if message["type"] == "identify":
            traits = {"name": "Café Nord", "industry": "Hospitality", "employees": 12}
            yield {**message, "type": "group", "groupId": "company-77", "traits": traits}


def _browser(random: Random) -> Message:
    library = {"name": "analytics.js", "version": "next-1.81.0"}
    return {"library": library, "userAgent": random.choice(BROWSERS), **_place(random)}


def _place(random: Random) -> Message:
    locale, timezone = random.choice(
        (("de-DE", "Europe/Berlin"), ("en-IE", "Europe/Dublin"), ("pt-PT", "Europe/Lisbon"))
    )
    return {"ip": f"203.0.113.{random.randint(1, 254)}", "locale": locale, "timezone": timezone}


def _product(product: tuple[str, str, str, float]) -> Message:
    product_id, name, category, price = product
    return {"product_id": product_id, "name": name, "category": category, "price": price, "currency": CURRENCY}


def _order(random: Random, basket: list[tuple[str, str, str, float]]) -> Message:
    total = round(sum(price for *_, price in basket), 2)
    products = [{**_product(product), "quantity": 1} for product in basket]
    return {
        "order_id": f"o-{random.randint(10_000, 99_999)}",
        "total": total,
        "currency": CURRENCY,
        "products": products,
    }


def _traits(name: str, city: str) -> Message:
    first = name.split(maxsplit=1)[0].lower()
    return {"name": name, "email": f"{first}@mail.example", "address": {"city": city}, "newsletter": len(name) % 2 == 0}


def _uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _stamped(message: Mapping[str, Any], random: Random, now: datetime) -> Message:
    """Return a message with the time fields that Segment sends."""
    moments = {name: now.astimezone(UTC) - timedelta(seconds=seconds) for name, seconds in _TIMES.items()}
    times = {name: time.isoformat(timespec="milliseconds").replace("+00:00", "Z") for name, time in moments.items()}
    message_id = f"ajs-next-{round(now.timestamp() * 1000)}-{_uuid(random)}"
    return {**message, "messageId": message_id, **times}
