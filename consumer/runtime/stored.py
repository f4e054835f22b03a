"""Read a stored message from DynamoDB's stream or the event queue, as Lambda delivers it.

`handler/sinks/` writes both, and `docs/reference/storage.md` describes them.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consumer.errors import PermanentFailure
from handler.canonicalise import canonicalise, identity_time
from handler.decode import JsonObject
from handler.items import read_json_attribute
from handler.record import Record
from handler.spec import DELETE
from handler.timestamps import parse_time, sortable

Item = Mapping[str, Any]
"""An item of the event table, as boto3 returns it."""
Image = Mapping[str, Mapping[str, Any]]
"""An item as a stream record's `NewImage`: Lambda encodes bytes as base64."""

UNREADABLE = (LookupError, AttributeError, TypeError, ValueError, OverflowError, zlib.error, RecursionError)
"""The errors of reading an item that `handler/sinks/dynamodb.py` did not write."""

_NEEDED = {"message": dict, "customer_id": str, "subject": str, "timestamp": str, "stored_at": str}
"""The fields that a stored message always has, with their types in JSON."""


@dataclass(frozen=True, kw_only=True)
class StoredMessage:
    """A message as it was stored, with times that a consumer can rely on.

    `message` is canonical, and its `timestamp` and `received_at` are always present, as sortable UTC. If one of them is
    missing or unreadable, the record's `timestamp` or `stored_at` replaces it. `stored_at` also replaces a
    `received_at` that is later, and the `received_at` of a `delete` that says it happened after its receipt. `subject`
    is the partition key of the event table.
    """

    message: JsonObject
    customer_id: str
    subject: str


class Unreadable(PermanentFailure):
    """A record that `handler/sinks/` can't have written. `facts` are its readable parts."""

    def __init__(self, problem: str, facts: Mapping[str, Any]) -> None:
        super().__init__(f"The stored message can't be read: {problem}")
        self.facts = facts


def image_of(item: Item) -> Image:
    """Return an item of the event table in the format of the stream."""
    return {
        name: {"B": base64.b64encode(attribute["B"]).decode()} if "B" in attribute else attribute
        for name, attribute in item.items()
    }


def _bytes_read(attribute: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"B": base64.b64decode(attribute["B"], validate=True)} if "B" in attribute else attribute


def read_item(image: Image) -> StoredMessage:
    """Read an item of the event table from the stream; raises `Unreadable`."""
    facts: JsonObject = {name: attribute.get("S") for name, attribute in image.items()}
    try:
        facts["message"] = read_json_attribute(_bytes_read(image.get("message", {})))
    except UNREADABLE as error:
        raise Unreadable("its message is not JSON, or badly compressed", {**facts, "message": None}) from error
    return _stored(facts)


def record_of(image: Image) -> Record:
    """Return the record that was stored as an item of the event table; raises `Unreadable`."""
    try:
        item = {name: _bytes_read(attribute) for name, attribute in image.items()}
        [message] = canonicalise(read_json_attribute(item["message"]))
        record = Record(
            customer_id=item["customer_id"]["S"],
            message=message,
            settings=read_json_attribute(item["settings"]) if "settings" in item else {},
            stored_at=datetime.fromisoformat(item["stored_at"]["S"]).timestamp(),
            received_at=sortable(datetime.fromisoformat(item["timestamp"]["S"])),
        )
        made = (record.subject, record.facts["stored_at"])
        is_same = made == (item["subject"]["S"], item["stored_at"]["S"])
    except UNREADABLE as error:
        raise Unreadable("an attribute is missing, or of another type", {}) from error
    if not is_same:
        raise Unreadable("its subject does not match its message, or its time has another format", {})
    return record


def read_queue_message(body: str) -> StoredMessage:
    """Read the body of an event queue message, which may be an item that was sent on; raises `Unreadable`."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON", {}) from error
    if not isinstance(content, dict):
        raise Unreadable("it is not a JSON object", {})
    if content and all(isinstance(attribute, dict) for attribute in content.values()):
        return read_item(content)
    return _stored(content)


def _stored(facts: JsonObject) -> StoredMessage:
    for name, kind in _NEEDED.items():
        if not isinstance(facts.get(name), kind):
            raise Unreadable(f"its {name} is missing, or of another type", facts)
    message = facts["message"]
    times = {
        "timestamp": parse_time(message.get("timestamp")) or facts["timestamp"],
        "received_at": _received_at(message, facts["stored_at"]),
    }
    return StoredMessage(message={**message, **times}, customer_id=facts["customer_id"], subject=facts["subject"])


def _received_at(message: JsonObject, stored_at: str) -> str:
    """Return when a message was received, which can't be after it was stored. A sender can write any time.

    A `delete` erases everything until its time of receipt. That time counts only if the `delete` happened before it:
    otherwise messages that were stored earlier would outlive the erasure.
    """
    received_at = min(parse_time(message.get("received_at")) or stored_at, stored_at)
    # UNDATED sorts after every time.
    happened_at = max(identity_time(message), parse_time(message.get("timestamp")) or "")
    return stored_at if message.get("type") == DELETE and happened_at > received_at else received_at
