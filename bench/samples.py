"""The API Gateway events that are sent, made from those in `events/`; a call's number replaces `NUMBER` in them."""

import base64
import json
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.store_server import GOOD_KEY, UNKNOWN_KEY
from bench.subject import NUMBER
from destination.paths import ROOT

BATCH_PATH = "/v1/batch"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An event as JSON text, and its expected response: a status, and a text in the body."""

    event: str
    status: int
    word: str = ""


def sample(name: str, *, status: int, word: str, key: str = GOOD_KEY) -> Sample:
    """Return a file of `events/` with another API key, and another message id for each call."""
    event: Json = json.loads((ROOT / "events" / f"{name}.json").read_bytes())
    body = {**json.loads(event["body"]), "messageId": f"ajs-next-1773307792120-{NUMBER}"}
    event["headers"]["authorization"] = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
    return _with_body(event, body, status=status, word=word)


def order(kilobytes: float, *, status: int) -> Sample:
    """Make an event whose body has exactly this size: an order, filled up with products."""
    event: Json = json.loads(ACCEPTED.event)
    body = json.loads(event["body"])
    draw = Random(round(kilobytes))  # noqa: S311 -- to be repeatable, not secret
    spare = round(kilobytes * 1024) - _size(body)  # a call's number is as long as NUMBER
    while (size := _size(product := _product(draw)) + len(",")) <= spare:
        body["properties"]["products"].append(product)
        spare -= size
    body["context"]["page"]["title"] += "." * spare
    return _with_body(event, body, status=status)


def _product(draw: Random) -> Json:
    name = " ".join(draw.choices(("green", "black", "tea", "pot", "cup", "spoon", "tin", "box"), k=3))
    return {
        "product_id": f"{draw.getrandbits(64):016x}",
        "sku": f"G-{draw.randint(1, 99999)}",
        "name": name,
        "price": round(draw.uniform(1, 200), 2),
        "quantity": draw.randint(1, 9),
        "url": f"https://shop.example.com/{name.replace(' ', '-')}",
    }


def batch(of: Sample, messages: int) -> Sample:
    """Return a batch of a sample's message, each with another id."""
    event: Json = json.loads(of.event)
    message = json.loads(event["body"])
    entries = [{**message, "messageId": f"{message['messageId']}-{index}"} for index in range(messages)]
    event |= {"rawPath": BATCH_PATH, "routeKey": f"POST {BATCH_PATH}"}
    event["requestContext"] |= {"routeKey": event["routeKey"]}
    word = f'"accepted": {messages}, "duplicates": 0, "rejected": []'
    return _with_body(event, {"batch": entries}, status=200, word=word)


def shortened(of: Sample) -> Sample:
    """Return a sample with only the fields that a `track` call needs, its time and its id."""
    event: Json = json.loads(of.event)
    body = json.loads(event["body"])
    names = ("type", "userId", "event", "timestamp", "messageId")
    return _with_body(event, {name: body[name] for name in names}, status=of.status, word=of.word)


def _size(body: Json) -> int:
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def _with_body(event: Json, body: Json, *, status: int, word: str = "") -> Sample:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    headers = {**event["headers"], "content-length": str(_size(body))}
    return Sample(event=json.dumps({**event, "headers": headers, "body": text}), status=status, word=word)


ACCEPTED = sample("track", status=200, word="stored")
DUPLICATE = sample("track", status=200, word="duplicate")
QUEUED = sample("track", status=202, word="queued")
REFUSED = sample("missing-event", status=400, word="invalid_message")
UNAUTHORISED = sample("track", status=401, word="unknown_key", key=UNKNOWN_KEY)
SHORT = shortened(ACCEPTED)
