"""Compute the due record of a message, its key and every attribute, without any code of the product.

The input is the message as its source wrote it, in the spec's spelling, before it is disguised in another casing. Times
are given as times, so that none has to be parsed. docs/reference/storage.md describes the record in words.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from destination.segment.contract import JsonObject
from destination.segment.names import CONTEXT_NAMES, CONTEXT_OBJECT_NAMES, TOP_NAMES, WRITE_KEY

MAX_SUBJECT_BYTES = 2048
MAX_POSITION_BYTES = 1024
"""DynamoDB's limit for a sort key. The line before has the limit for a partition key."""
UNDATED = "undated"
"""The time in a position if the message's time is missing or unreadable."""
DERIVED = "derived-"
"""The prefix of a message id that was derived because the message had none."""
FACTS = ("type", "message_id", "user_id", "anonymous_id", "group_id", "event")
"""Fields of a message that are also attributes, if they are strings."""

_IDS = ("anonymous_id", "group_id", "message_id", "previous_id", "user_id")
_OBJECTS = ("context", "integrations", "properties", "traits")
_NOT_REPEATED = ("sent_at", "received_at", "_metadata")


@dataclass(frozen=True, kw_only=True)
class Moments:
    """The times of a message: `original` for its identity, `timestamp` for the attribute of this name.

    None stands for a time that is missing or unreadable.
    """

    original: datetime | None
    timestamp: datetime | None
    received: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Due:
    """The due record of one message of one customer."""

    customer_id: str
    body: JsonObject
    moments: Moments
    settings: JsonObject

    @cached_property
    def subject(self) -> str:
        """The partition key: the subject of the message."""
        if "user_id" in self.body:
            return subject_of(self.customer_id, "user", self.body["user_id"])
        return subject_of(self.customer_id, "anonymous", self.body["anonymous_id"])

    @cached_property
    def position(self) -> str:
        """The sort key: the time and id of the message."""
        time = sortable(self.moments.original) if self.moments.original else UNDATED
        return _key(time, escaped(self.body["message_id"]), max_bytes=MAX_POSITION_BYTES)

    @property
    def facts(self) -> dict[str, str]:
        """The text attributes, except `stored_at`, which is known only after the write."""
        facts = {"customer_id": self.customer_id}
        facts |= {name: self.body[name] for name in FACTS if isinstance(self.body.get(name), str) and self.body[name]}
        if self.moments.timestamp:
            facts["timestamp"] = sortable(self.moments.timestamp)
        return {name: text.encode("utf-8", "replace").decode() for name, text in facts.items()}

    @property
    def type(self) -> str:
        """The call type."""
        call_type: str = self.body["type"]
        return call_type


def stored_body(message: JsonObject, shared: JsonObject | None = None) -> JsonObject:
    """Return the due form of a message in the spec's spelling; `shared` has the batch-level fields."""
    body = {
        TOP_NAMES.get(name, name): value
        for name, value in message.items()
        if name != WRITE_KEY and not (value is None and name in TOP_NAMES)
    }
    _settle_ids(body)
    body |= {name: {} for name in _OBJECTS if body.get(name) == []}
    if isinstance(body.get("_metadata"), dict):
        body["_metadata"] = {name: value for name, value in body["_metadata"].items() if name != WRITE_KEY}
    if isinstance(body.get("context"), dict):
        body["context"] = stored_context(body["context"])
    for name, value in (shared or {}).items():
        own = body.get(name)
        is_merged = isinstance(own, dict) and isinstance(value, dict)
        body[name] = value | own if is_merged else value if own is None else own
    if "message_id" not in body:
        body["message_id"] = derived_id(body)
    return body


def _settle_ids(body: JsonObject) -> None:
    """Turn integer ids into strings, and remove empty ones."""
    for name in _IDS:
        if type(body.get(name)) is int:
            body[name] = str(body[name])
        if body.get(name) == "":
            del body[name]


def stored_context(context: Mapping[str, Any]) -> JsonObject:
    """Return the due form of a context in the spec's spelling."""
    stored = {}
    for name, value in context.items():
        names = CONTEXT_OBJECT_NAMES.get(name)
        if names and isinstance(value, dict):
            value = {names.get(inner, inner): deep for inner, deep in value.items()}  # noqa: PLW2901 -- renamed
        if name != WRITE_KEY:
            stored[CONTEXT_NAMES.get(name, name)] = value
    return stored


def repeated(body: JsonObject) -> JsonObject:
    """Return the part of a stored message that every resend repeats."""
    left_out = {*_NOT_REPEATED, *(("timestamp",) if "original_timestamp" in body else ())}
    return {name: value for name, value in body.items() if name not in left_out}


def derived_id(body: JsonObject) -> str:
    """Return the derived id of a message without one: a hash of everything that every resend repeats."""
    return DERIVED + sha256(json.dumps(repeated(body), sort_keys=True, separators=(",", ":")))


@lru_cache(maxsize=4096)
def subject_of(customer_id: str, kind: str, subject_id: str) -> str:
    """Return the partition key of a user (`kind` is `user`) or a visitor (`anonymous`)."""
    return _key(escaped(customer_id), kind, escaped(subject_id), max_bytes=MAX_SUBJECT_BYTES)


def escaped(text: str) -> str:
    """Percent-encode the separators of a key, and characters that UTF-8 can't encode."""
    return "".join(char if _is_safe(char) else _percent(char) for char in text)


def sortable(time: datetime) -> str:
    """Format a time as it is stored: UTC with six digits of a second."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z".rjust(len("2020-05-09T23:54:49.200000Z"), "0")


def read_sortable(text: str) -> datetime:
    """Read a stored time; raises `ValueError`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def sha256(text: str) -> str:
    """Return the hash of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def cut_to_seconds(time: datetime) -> datetime:
    """Return a time as a source without fractions of a second writes it."""
    return time - timedelta(microseconds=time.microsecond)


def _is_safe(char: str) -> bool:
    return char not in "%#" and char >= " " and not "\ud800" <= char <= "\udfff" and char not in "\ufffe\uffff"


def _percent(char: str) -> str:
    return "".join(f"%{octet:02X}" for octet in char.encode("utf-8", "surrogatepass"))


def _key(*parts: str, max_bytes: int) -> str:
    key = "#".join(parts)
    return key if len(key.encode()) <= max_bytes else "#".join((*parts[:-1], "sha256", sha256(parts[-1])))
