"""Step 3: a payload in any casing -> messages in the spec's words.

The spec's fields at the top and in `context` are spelled canonically. Keys inside `traits`, `properties` and
`integrations` are the customer's own and stay as they are, as do unknown fields anywhere.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.decode import JsonObject
from handler.spec import ALIAS_TOP, CONTEXT, CONTEXT_OBJECTS, MAX_NAME_CHARS, TOP, Fields, fold
from handler.timestamps import parse_time

UNDATED = "undated"
"""Stands for the time of a message that has none that can be read; sorts after all times."""
DERIVED_ID_PREFIX = "derived-"
CONFLICTS = "_conflicts"
"""Where the other values of a field go that arrived in several spellings with different values."""

OBJECT_FIELDS = ("context", "integrations", "properties", "traits")
HOLD_WRITE_KEYS = ("context", "_metadata")
WRITE_KEY = "write_key"
"""The key of a source, which must never be stored; some libraries send it, at the top or in one of those."""
ID_FIELDS = ("anonymous_id", "group_id", "message_id", "previous_id", "user_id")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One canonical message.

    `body` is what is validated, stored and passed on. `time` is the part of its identity that tells when: sortable UTC
    made only of what every resend repeats, or `UNDATED`. `timestamp` is when it happened as far as Segment can tell,
    sortable too, None where it tells no time that can be read; it shifts a little between resends.
    """

    body: JsonObject
    time: str
    timestamp: str | None

    @property
    def type(self) -> object:
        """The call type, of which nothing is known before `check_call_type`."""
        return self.body.get("type")

    @property
    def message_id(self) -> str:
        """The message id, which is certain to be a string only after `validate`."""
        message_id: str = self.body["message_id"]
        return message_id


def canonicalise(payload: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a payload. Never refuses: what is odd stays as it is, for `validate` to judge."""
    body = _top_fields(payload)
    if isinstance(body.get("type"), str):
        body["type"] = body["type"].lower()
    for name in ID_FIELDS:
        if name in body:
            _settle_id(body, name)
    if body.get("type") == "alias":
        _rename_alias(body)
    for name in OBJECT_FIELDS:
        if body.get(name) == []:
            body[name] = {}  # how PHP spells an empty object
    if isinstance(body.get("context"), dict):
        body["context"] = _canonical_context(body["context"])
    if "message_id" not in body:
        body["message_id"] = _derive_message_id(body)
    return [Message(body=body, time=identity_time(body), timestamp=_timestamp(body))]


def _top_fields(payload: Mapping[str, Any]) -> JsonObject:
    """Return the fields of a payload in the spec's spelling, without write keys and the spec's that are null."""
    body = _rename(payload, TOP)
    if CONFLICTS in body:  # which may hold another `context`, with a write key of its own
        body = _rename(without_write_key(payload), TOP)
    body.pop(WRITE_KEY, None)
    if None in body.values():
        body = {name: value for name, value in body.items() if value is not None or name not in TOP.spelling}
    for name in HOLD_WRITE_KEYS:
        if name in body:
            body[name] = _without_write_keys(body[name])
    return body


def without_write_key(payload: Mapping[str, Any]) -> JsonObject:
    """Return a payload without the key of its source, which must never be stored."""
    kept = {}
    for name, value in payload.items():
        canonical = TOP.canonical[name]
        if canonical != WRITE_KEY:
            kept[name] = _without_write_keys(value) if canonical in HOLD_WRITE_KEYS else value
    return kept


def names_write_key(text: str) -> bool:
    """Whether JSON names a key of a source anywhere, be it in an object that a later one of the same name hides."""
    names: list[str] = []
    json.loads(text, object_pairs_hook=lambda members: names.extend(name for name, _ in members))
    return any(len(name) <= MAX_NAME_CHARS and fold(name) == fold(WRITE_KEY) for name in names)


def _without_write_keys(value: object) -> object:
    if isinstance(value, list):
        return [_without_write_keys(entry) for entry in value]
    return without_write_key(value) if isinstance(value, dict) else value


def _rename(source: Mapping[str, Any], fields: Fields) -> JsonObject:
    """Spell the spec's fields canonically. Of several spellings one wins, and the others' values go to `CONFLICTS`."""
    renamed: JsonObject = {fields.canonical[name] or name: value for name, value in source.items()}
    if len(renamed) == len(source):
        return renamed
    spellings: dict[str, list[str]] = {}
    for name in source:
        spellings.setdefault(fields.canonical[name] or name, []).append(name)
    lost: JsonObject = {}
    for canonical, names in spellings.items():
        if len(names) > 1:
            names.sort(key=lambda name: (source[name] in (None, ""), fields.rank(name)))
        renamed[canonical] = source[names[0]]
        if canonical != WRITE_KEY:
            lost.update((name, source[name]) for name in names[1:] if not _same(source[name], renamed[canonical]))
    if lost:
        if CONFLICTS in renamed:
            lost[CONFLICTS] = renamed[CONFLICTS]
        renamed[CONFLICTS] = lost
    return renamed


def _same(value: object, winner: object) -> bool:
    """Whether dropping a value for the winner loses nothing; in Python `1 == True`, in JSON not.

    Compared first, because that is quick where they differ, and a message can hold thousands of spellings.
    """
    return value in (None, "") or (
        value == winner and json.dumps(value, sort_keys=True) == json.dumps(winner, sort_keys=True)
    )


def _rename_alias(body: JsonObject) -> None:
    for name in sorted(name for name in body if fold(name) in ALIAS_TOP):
        target = ALIAS_TOP[fold(name)]
        _settle_id(body, name)
        if body.get(name) is None:
            body.pop(name, None)
        elif body.get(target) in (None, body[name]):
            body[target] = body.pop(name)


def _settle_id(body: JsonObject, name: str) -> None:
    """Make an integer id its decimal string, and drop an empty one."""
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
    """Hash what every resend of a message repeats.

    Segment computes `timestamp` anew from `sentAt` and `receivedAt` wherever there is an `originalTimestamp`.
    """
    shifting = {"sent_at", "received_at", "_metadata"}
    if "original_timestamp" in body:
        shifting.add("timestamp")
    repeated = {name: value for name, value in body.items() if name not in shifting}
    lost = repeated.pop(CONFLICTS, None)
    if isinstance(lost, dict):
        lost = {name: value for name, value in lost.items() if TOP.canonical[name] not in shifting}
    if lost:
        repeated[CONFLICTS] = lost
    text = json.dumps(repeated, sort_keys=True, separators=(",", ":"))
    return DERIVED_ID_PREFIX + hashlib.sha256(text.encode()).hexdigest()


def identity_time(body: JsonObject) -> str:
    """Return the part of a message's identity that tells when, as `Message.time` has it."""
    return parse_time(body.get("original_timestamp", body.get("timestamp"))) or UNDATED


def _timestamp(body: JsonObject) -> str | None:
    times = (parse_time(body.get(name)) for name in ("timestamp", "original_timestamp", "received_at"))
    return next((time for time in times if time), None)
