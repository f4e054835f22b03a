"""Step 3: turn a payload in any casing into messages with the spec's field names.

The spec's fields at the top and in `context` get their canonical spelling. Keys inside `traits`, `properties` and
`integrations` belong to the customer and stay as they are. Unknown fields stay as they are everywhere.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from handler.decode import CheckedBatch, JsonObject, check_values, type_name
from handler.errors import BatchTooLarge, InternalError, MissingBatch, NotAnObject, NumberOutOfRange, Refusal
from handler.spec import ALIAS_TOP, BATCH, CONTEXT, CONTEXT_OBJECTS, MAX_NAME_CHARS, TOP, Fields, fold
from handler.split import MAX_BATCH_MESSAGES
from handler.timestamps import parse_time

UNDATED = "undated"
"""The time of a message without a readable time; sorts after all times."""
DERIVED_ID_PREFIX = "derived-"
CONFLICTS = "_conflicts"
"""The field for lost values: if a field arrives in several spellings, only one value can be kept under its name."""

OBJECT_FIELDS = ("context", "integrations", "properties", "traits")
HOLD_WRITE_KEYS = ("context", "_metadata")
WRITE_KEY = "write_key"
"""The field with the key of a Segment source, which must never be stored. Some libraries send it, at the top or in one
of `HOLD_WRITE_KEYS`."""
INHERITED = ("context", "integrations", "sent_at", "timestamp")
"""The fields of a batch that apply to each of its messages."""
MAX_INHERITED_BYTES = 16 * 1024 * 1024
"""Upper bound for the batch-level fields times the number of messages, because each message gets a copy."""
MAX_ESCAPED_NAME_CHARS = MAX_NAME_CHARS * len(r"\u0077")
ID_FIELDS = ("anonymous_id", "group_id", "message_id", "previous_id", "user_id")

_STRING = re.compile(r'"((?:[^"\\]++|\\.)*+)"(\s*+:)?')
"""A string in a JSON text. The second group is a colon if the string is a name."""
_EXACT = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One canonical message.

    `body` is validated, stored and passed on. `time` is the time in the message's identity: sortable UTC, or `UNDATED`.
    It depends only on fields that every resend repeats. `timestamp` is Segment's estimate of when the message happened:
    sortable UTC, or None without a readable time. It differs slightly between resends. `fault` is the reason why an
    entry of a batch is not a valid message; the body is empty if the entry can't be read.
    """

    body: JsonObject
    time: str
    timestamp: str | None
    fault: Refusal | None = None

    @property
    def type(self) -> object:
        """The call type; it can be any value before `check_call_type`."""
        return self.body.get("type")

    @property
    def message_id(self) -> str:
        """The message id; it is certain to be a string only after `validate`."""
        message_id: str = self.body["message_id"]
        return message_id


def canonicalise(payload: Mapping[str, Any], *, call_type: str | None = None) -> list[Message]:
    """Return the message of a payload. Never refuses: `validate` judges odd values, which stay as they are.

    `call_type` is used for a message without a type.
    """
    return [_message(payload, {"type": call_type} if call_type else {})]


def canonicalise_batch(payload: JsonObject) -> list[Message]:
    """Return the messages of a batch, with the batch-level fields applied; raises a `Refusal` with status 400.

    https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#batch
    """
    batches = [value for name, value in payload.items() if BATCH.canonical[name]]
    if len(batches) != 1 or not isinstance(batches[0], list):
        raise MissingBatch
    [entries] = batches
    if len(entries) > MAX_BATCH_MESSAGES:
        raise BatchTooLarge(f"A batch may hold at most {MAX_BATCH_MESSAGES:,} messages")
    check = _pass if isinstance(payload, CheckedBatch) else check_values
    inherited = _inherited(payload, check)
    if len(json.dumps(inherited)) * len(entries) > MAX_INHERITED_BYTES:
        raise BatchTooLarge("The fields of the batch that apply to each message are too large for so many messages")
    return [_entry(entry, inherited, check) for entry in entries]


def _pass(_: object) -> None:
    """Accept the values of a batch that are checked already."""


def _inherited(batch: JsonObject, check: Callable[[object], None]) -> JsonObject:
    fields = {name: value for name, value in batch.items() if TOP.canonical[name] in INHERITED}
    check(fields)
    body = _message(fields, {}).body
    return {name: body[name] for name in INHERITED if name in body}


def _entry(entry: object, inherited: JsonObject, check: Callable[[object], None]) -> Message:
    try:
        if isinstance(entry, Refusal):
            raise entry
        if not isinstance(entry, dict):
            raise NotAnObject(f"A message must be a JSON object, not {type_name(entry)}")
        check(entry)
    except NumberOutOfRange as fault:
        return _guarded(cast("JsonObject", entry), inherited, fault)
    except Refusal as fault:
        return Message(body={}, time=UNDATED, timestamp=None, fault=fault)
    return _guarded(entry, inherited, None)


def _guarded(entry: JsonObject, inherited: JsonObject, fault: Refusal | None) -> Message:
    """Return an entry's message; after an unexpected exception, a message with the entry's content for a retry."""
    try:
        message = _message(entry, inherited)
    except Exception as bug:  # noqa: BLE001 -- a bug affects this message alone; the fault keeps it
        body = {TOP.canonical[name] or name: value for name, value in without_write_key(entry).items()}
        for name in body.keys() & set(ID_FIELDS):
            _settle_id(body, name)  # an erasure finds the reject by its user
        _inherit(body, inherited)
        return Message(body=body, time=UNDATED, timestamp=None, fault=InternalError(bug))
    return message if fault is None else replace(message, fault=fault)


def _message(payload: Mapping[str, Any], inherited: Mapping[str, Any]) -> Message:
    body = _top_fields(payload)
    if "type" in inherited:  # the steps below depend on the type
        body.setdefault("type", inherited["type"])
    if isinstance(body.get("type"), str):
        body["type"] = body["type"].lower()
    for name in ID_FIELDS:
        if name in body:
            _settle_id(body, name)
    if body.get("type") == "alias":
        _rename_alias(body)
    for name in OBJECT_FIELDS:
        if body.get(name) == []:
            body[name] = {}  # PHP encodes an empty object as []
    if isinstance(body.get("context"), dict):
        body["context"] = _canonical_context(body["context"])
    _inherit(body, inherited)
    if "message_id" not in body:
        body["message_id"] = _derive_message_id(body)
    return Message(body=body, time=identity_time(body), timestamp=_timestamp(body))


def _inherit(body: JsonObject, inherited: Mapping[str, Any]) -> None:
    """Add batch-level fields that a message lacks; merge objects field by field."""
    for name, value in inherited.items():
        own = body.get(name)
        if own is None:
            body[name] = value
        elif isinstance(value, dict) and isinstance(own, dict):
            body[name] = {**value, **own}


def _top_fields(payload: Mapping[str, Any]) -> JsonObject:
    """Return a payload with canonical field names, without write keys, and without spec fields that are null."""
    body = _rename(payload, TOP)
    body.pop(WRITE_KEY, None)
    if None in body.values():
        body = {name: value for name, value in body.items() if value is not None or name not in TOP.spelling}
    for name in HOLD_WRITE_KEYS:
        if name in body:
            body[name] = _without_write_keys(body[name])
    return body


def without_write_key(payload: Mapping[str, Any]) -> JsonObject:
    """Return a payload without write keys, which must never be stored."""
    kept = {}
    for name, value in payload.items():
        canonical = TOP.canonical[name]
        if canonical != WRITE_KEY:
            kept[name] = _without_write_keys(value) if canonical in HOLD_WRITE_KEYS else value
    return kept


def write_key_of(payload: Mapping[str, Any]) -> str | None:
    """Return the write key at the top of a payload, or None."""
    names = (name for name, key in payload.items() if key and isinstance(key, str) and TOP.canonical[name] == WRITE_KEY)
    best = min(names, key=lambda name: TOP.rank(name, WRITE_KEY), default=None)
    return None if best is None else payload[best]


def names_write_key(text: str) -> bool:
    """Return whether a JSON text contains a write key anywhere, even in an object that a later duplicate name hides."""
    names = (name for name, colon in _STRING.findall(text) if colon and len(name) <= MAX_ESCAPED_NAME_CHARS)
    return any(TOP.canonical[json.loads(f'"{name}"') if "\\" in name else name] == WRITE_KEY for name in names)


def _without_write_keys(value: object) -> object:
    if isinstance(value, list):
        return [_without_write_keys(entry) for entry in value]
    return without_write_key(value) if isinstance(value, dict) else value


def _rename(source: Mapping[str, Any], fields: Fields) -> JsonObject:
    """Give the spec's fields their canonical names. If a field has several, the losing values go to `CONFLICTS`."""
    canonicals = [fields.canonical[name] or name for name in source]
    renamed: JsonObject = dict(zip(canonicals, source.values(), strict=True))
    if len(renamed) == len(source):
        return renamed
    spellings: dict[str, list[str]] = {}
    for name, canonical in zip(source, canonicals, strict=True):
        spellings.setdefault(canonical, []).append(name)
    lost: JsonObject = {}
    for canonical, names in spellings.items():
        if len(names) > 1:
            lost.update(_settle_spellings(renamed, canonical, {name: source[name] for name in names}, fields))
    if lost:
        if CONFLICTS in renamed:
            lost[CONFLICTS] = renamed[CONFLICTS]
        renamed[CONFLICTS] = lost
    return renamed


def _settle_spellings(renamed: JsonObject, canonical: str, values: JsonObject, fields: Fields) -> JsonObject:
    """Give a field the value of its best spelling, and return the values that differ from it."""
    if canonical in HOLD_WRITE_KEYS:
        values = {name: _without_write_keys(value) for name, value in values.items()}
    best = min(values, key=lambda name: (values[name] in (None, ""), fields.rank(name, canonical)))
    winner = renamed[canonical] = values[best]
    if canonical == WRITE_KEY:
        return {}
    exact = _EXACT.encode(winner)  # 1 == True in Python, but not in JSON
    return {
        name: value
        for name, value in values.items()
        if value not in (None, "") and (value != winner or _EXACT.encode(value) != exact)
    }


def _rename_alias(body: JsonObject) -> None:
    for name in sorted(name for name in body if fold(name) in ALIAS_TOP):
        target = ALIAS_TOP[fold(name)]
        _settle_id(body, name)
        if body.get(name) is None:
            body.pop(name, None)
        elif body.get(target) in (None, body[name]):
            body[target] = body.pop(name)


def _settle_id(body: JsonObject, name: str) -> None:
    """Turn an integer id into its decimal string, and remove an empty id."""
    value = body.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        body[name] = str(value)
    elif value == "":
        del body[name]


def _canonical_context(context: JsonObject) -> JsonObject:
    context = _rename(context, CONTEXT)
    for name in context.keys() & CONTEXT_OBJECTS:
        if isinstance(context[name], dict):
            context[name] = _rename(context[name], CONTEXT_OBJECTS[name])
    return context


def _derive_message_id(body: JsonObject) -> str:
    text = json.dumps(repeated(body), sort_keys=True, separators=(",", ":"))
    return DERIVED_ID_PREFIX + hashlib.sha256(text.encode()).hexdigest()


def repeated(body: JsonObject) -> JsonObject:
    """Return the part of a canonical message that every resend repeats.

    If there is an `originalTimestamp`, Segment computes a new `timestamp` from `sentAt` and `receivedAt` for each
    resend.
    """
    shifting = {"sent_at", "received_at", "_metadata"}
    if "original_timestamp" in body:
        shifting.add("timestamp")
    fields = {name: value for name, value in body.items() if name not in shifting}
    lost = fields.pop(CONFLICTS, None)
    if isinstance(lost, dict):
        lost = {name: value for name, value in lost.items() if TOP.canonical[name] not in shifting}
    if lost:
        fields[CONFLICTS] = lost
    return fields


def identity_time(body: JsonObject) -> str:
    """Return the time in a message's identity; see `Message.time`."""
    return parse_time(body.get("original_timestamp", body.get("timestamp"))) or UNDATED


def _timestamp(body: JsonObject) -> str | None:
    times = (parse_time(body.get(name)) for name in ("timestamp", "original_timestamp", "received_at"))
    return next((time for time in times if time), None)
