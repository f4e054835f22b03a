"""The expected stored form of a message, from the documentation and not computed by the product.

`plain` is a message in the spelling of Segment's documentation, before it is disguised. docs/reference/storage.md
describes the key and the attributes.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from destination.segment.contract import DELETE, JsonObject
from destination.segment.due import (
    FACTS,
    UNDATED,
    escaped,
    sha256,
    sortable,
    stored_context,
    subject_of,
)
from destination.segment.names import TOP_NAMES, WRITE_KEY

Item = Mapping[str, Any]
"""An item of the event table, as DynamoDB returns it."""

IDS = ("userId", "anonymousId", "messageId", "groupId", "previousId")
OBJECTS = ("context", "integrations", "properties", "traits")
NOT_COMPARED = ("timestamp", "originalTimestamp", "sentAt", "receivedAt", WRITE_KEY, "_metadata")
"""Fields that are compared elsewhere or never stored: times are part of the key and the attributes, and a source's
key is never stored."""
SECONDS_PER_DAY = 24 * 60 * 60
CLOCKS_APART_SECONDS = 3600
"""Tolerance for the clocks of this machine and the function, and for the duration of a run."""


def subject_key(customer_id: str, plain: JsonObject) -> str:
    """Return the partition key of a message's user or anonymous visitor, "" for a message without both."""
    return next(_subjects(customer_id, plain), "")


def subject_keys(customer_id: str, plain: JsonObject) -> set[str]:
    """Return the partition keys of a message's user and of its anonymous visitor, if it has them."""
    return set(_subjects(customer_id, plain))


def _subjects(customer_id: str, plain: JsonObject) -> Iterator[str]:
    for name, kind in (("userId", "user"), ("anonymousId", "anonymous")):
        if plain.get(name) not in (None, ""):
            yield subject_of(customer_id, kind, str(plain[name]))


def position_key(plain: JsonObject, message_id: str) -> str | None:
    """Return the sort key of a message, None if its time is not ISO 8601."""
    time = plain.get("originalTimestamp") or plain.get("timestamp")
    if time is None:
        return f"{UNDATED}#{escaped(message_id)}"
    stored_time = _stored_time(time)
    return stored_time and f"{stored_time}#{escaped(message_id)}"


def hashed(subject: str) -> str:
    """Return the hash of a subject in receipts."""
    return sha256(subject)


def stored_fields(plain: JsonObject) -> JsonObject:
    """Return the fields that the stored message must have; None for a field that must be missing."""
    fields: JsonObject = {}
    for name, value in plain.items():
        if name in NOT_COMPARED:
            continue
        expected = str(value) if name in IDS and isinstance(value, int) else value
        if name in OBJECTS and value == []:
            expected = {}  # PHP encodes an empty object as []
        if name == "context" and isinstance(value, dict):
            expected = stored_context(value)
        fields[TOP_NAMES.get(name, name)] = expected
    return fields


def message_of(item: Item) -> JsonObject:
    """Read the message of an item."""
    return _json(item["message"])


def settings_of(item: Item) -> JsonObject:
    """Read the settings of an item, an empty object without any."""
    return _json(item["settings"]) if "settings" in item else {}


def differences(item: Item, plain: JsonObject, *, customer_id: str, message_id: str, retention_days: int) -> str | None:
    """Return the first difference between an item and the expected form of a message, None if there is none."""
    stored, expected = message_of(item), stored_fields(plain)
    different = [name for name, value in expected.items() if json_text(stored.get(name)) != json_text(value)]
    if different:
        return f"are stored with another {different[0]}"
    position = position_key(plain, message_id)
    if position is not None and item["position"]["S"] != position:
        return "have a key that does not match time and message id"
    attributes = {name: expected.get(name) for name in FACTS} | {
        "customer_id": customer_id,
        "message_id": message_id,
    }
    for name, value in attributes.items():
        if isinstance(value, str) and value.isascii() and item.get(name, {}).get("S") != value:
            return f"have another attribute {name}"
    time = _stored_time(plain.get("timestamp"))
    if time is not None and item.get("timestamp", {}).get("S") != time:
        return "have an attribute timestamp that differs from Segment's timestamp"
    return expiry_fault(item, 0 if plain.get("type") == DELETE else retention_days)


def expiry_fault(item: Item, retention_days: int) -> str | None:
    """Return the fault of an item's expiry time; 0 days mean never."""
    if not retention_days:
        return "expire, although none should" if "expires_at" in item else None
    if "expires_at" not in item:
        return f"never expire, although they should after {retention_days} days"
    seconds = int(item["expires_at"]["N"]) - datetime.now(UTC).timestamp()
    if abs(seconds - retention_days * SECONDS_PER_DAY) > CLOCKS_APART_SECONDS:
        return f"expire after {seconds / SECONDS_PER_DAY:,.1f} days, although {retention_days} days are configured"
    return None


def json_text(value: object) -> str:
    """Return a value as JSON text, in which `1` and `true` differ."""
    return json.dumps(value, sort_keys=True)


def _json(attribute: Mapping[str, Any]) -> JsonObject:
    text = attribute["S"] if "S" in attribute else zlib.decompress(attribute["B"])
    value: JsonObject = json.loads(text)
    return value


def _stored_time(time: object) -> str | None:
    """Return an ISO 8601 time as sortable UTC, None for anything else."""
    try:
        moment = datetime.fromisoformat(str(time))
    except ValueError:
        return None
    return sortable(moment) if moment.tzinfo else None
