"""What must be stored of a message, written out by the documentation and not computed by the product itself.

`plain` is a message in the spelling of Segment's documentation, before anything disguises it. docs/storage.md describes
the key and the attributes.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cli.segment.contract import DELETE, JsonObject

Item = Mapping[str, Any]
"""An item of the event table, as DynamoDB returns it."""

TOP_NAMES = {
    "anonymousId": "anonymous_id",
    "userId": "user_id",
    "messageId": "message_id",
    "projectId": "project_id",
    "groupId": "group_id",
    "previousId": "previous_id",
}
"""Fields of a message that are stored under another name; all others keep theirs."""
CONTEXT_NAMES = {
    "externalIds": "external_ids",
    "groupId": "group_id",
    "userAgent": "user_agent",
    "userAgentData": "user_agent_data",
}
"""Fields of `context`, likewise."""
NESTED_NAMES = {
    "device": {"adTrackingEnabled": "ad_tracking_enabled", "advertisingId": "advertising_id"},
    "user_agent_data": {
        "fullVersionList": "full_version_list",
        "platformVersion": "platform_version",
        "uaFullVersion": "ua_full_version",
    },
}
"""Fields of objects in `context`, likewise."""
IDS = ("userId", "anonymousId", "messageId", "groupId", "previousId")
OBJECTS = ("context", "integrations", "properties", "traits")
NOT_COMPARED = ("timestamp", "originalTimestamp", "sentAt", "receivedAt", "writeKey", "_metadata")
"""Times are compared as they stand in the key and the attributes; the key of a source is never stored."""
ATTRIBUTES = ("type", "message_id", "user_id", "anonymous_id", "group_id", "event")
SECONDS_PER_DAY = 24 * 60 * 60
CLOCKS_APART_SECONDS = 3600
"""Between this machine and the function, and the duration of a run."""


def subject_key(customer_id: str, plain: JsonObject) -> str:
    """Return the partition key of a message's user, or of its anonymous visitor, "" for a message of nobody."""
    for name, kind in (("userId", "user"), ("anonymousId", "anonymous")):
        if plain.get(name) not in (None, ""):
            return f"{customer_id}#{kind}#{_escaped(str(plain[name]))}"
    return ""


def position_key(plain: JsonObject, message_id: str) -> str | None:
    """Return the sort key of a message, None if its time is not ISO 8601."""
    time = plain.get("originalTimestamp") or plain.get("timestamp")
    if time is None:
        return f"undated#{_escaped(message_id)}"
    sortable = _sortable(time)
    return sortable and f"{sortable}#{_escaped(message_id)}"


def hashed(subject: str) -> str:
    """Return what stands for a subject in receipts."""
    return hashlib.sha256(subject.encode()).hexdigest()


def stored_fields(plain: JsonObject) -> JsonObject:
    """Return the fields that the stored message must have; None stands for a field that must be missing."""
    fields: JsonObject = {}
    for name, value in plain.items():
        if name in NOT_COMPARED:
            continue
        expected = str(value) if name in IDS and isinstance(value, int) else value
        if name in OBJECTS and value == []:
            expected = {}  # how PHP spells an empty object
        if name == "context" and isinstance(value, dict):
            expected = _stored_context(value)
        fields[TOP_NAMES.get(name, name)] = expected
    return fields


def message_of(item: Item) -> JsonObject:
    """Read the message of an item."""
    return _json(item["message"])


def settings_of(item: Item) -> JsonObject:
    """Read the settings of an item, an empty object where there are none."""
    return _json(item["settings"]) if "settings" in item else {}


def differences(item: Item, plain: JsonObject, *, customer_id: str, message_id: str, retention_days: int) -> str | None:
    """Return the first difference between an item and what must be stored of a message, None if there is none."""
    stored, expected = message_of(item), stored_fields(plain)
    different = [name for name, value in expected.items() if json_text(stored.get(name)) != json_text(value)]
    if different:
        return f"are stored with another {different[0]}"
    position = position_key(plain, message_id)
    if position is not None and item["position"]["S"] != position:
        return "have another key than time and message id make"
    attributes = {name: expected.get(name) for name in ATTRIBUTES} | {
        "customer_id": customer_id,
        "message_id": message_id,
    }
    for name, value in attributes.items():
        if isinstance(value, str) and value.isascii() and item.get(name, {}).get("S") != value:
            return f"have another attribute {name}"
    time = _sortable(plain.get("timestamp"))
    if time is not None and item.get("timestamp", {}).get("S") != time:
        return "have another attribute timestamp than Segment's timestamp"
    return expiry_fault(item, 0 if plain.get("type") == DELETE else retention_days)


def expiry_fault(item: Item, retention_days: int) -> str | None:
    """Return what is wrong with the time at which DynamoDB deletes an item; 0 days mean never."""
    if not retention_days:
        return "expire, although none should" if "expires_at" in item else None
    if "expires_at" not in item:
        return f"never expire, although they should after {retention_days} days"
    seconds = int(item["expires_at"]["N"]) - datetime.now(UTC).timestamp()
    if abs(seconds - retention_days * SECONDS_PER_DAY) > CLOCKS_APART_SECONDS:
        return f"expire after {seconds / SECONDS_PER_DAY:,.1f} days, although {retention_days} days are configured"
    return None


def json_text(value: object) -> str:
    """Return a value as JSON, by which `1` and `true` differ."""
    return json.dumps(value, sort_keys=True)


def _stored_context(context: JsonObject) -> JsonObject:
    stored = {CONTEXT_NAMES.get(name, name): value for name, value in context.items()}
    for name, names in NESTED_NAMES.items():
        if isinstance(stored.get(name), dict):
            stored[name] = {names.get(key, key): value for key, value in stored[name].items()}
    return stored


def _json(attribute: Mapping[str, Any]) -> JsonObject:
    text = attribute["S"] if "S" in attribute else zlib.decompress(attribute["B"])
    value: JsonObject = json.loads(text)
    return value


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("#", "%23")


def _sortable(time: object) -> str | None:
    """Return an ISO 8601 time as UTC that sorts, None for anything else."""
    try:
        moment = datetime.fromisoformat(str(time))
    except ValueError:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if moment.tzinfo else None
