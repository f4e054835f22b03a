"""One message of one customer, in the form that both sinks store.

Subject and position are the two parts of its key. They depend only on values that every resend of a message repeats. So
a resent message is recognised, and the records of a subject form its timeline. See `docs/reference/storage.md`.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from handler.canonicalise import Message
from handler.decode import JsonObject
from handler.timestamps import sortable

MAX_SUBJECT_BYTES = 2048
MAX_POSITION_BYTES = 1024
"""DynamoDB's limits for a partition key and a sort key."""


_FACTS = ("type", "message_id", "user_id", "anonymous_id", "group_id", "event")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One message of one customer, as it is stored.

    `stored_at` is in seconds since 1970. `received_at` is UTC that sorts, and None for a message that arrives now.
    It is text, because a float of seconds can't hold every time: the last microsecond of the year 9999 is rounded up.
    """

    customer_id: str
    message: Message
    settings: JsonObject
    stored_at: float
    received_at: str | None = None

    @cached_property
    def subject(self) -> str:
        """The subject of the message: `acme#user#97980cfea0067` or `acme#anonymous#507f191e`."""
        subject = subject_of(self.customer_id, self.message.body)
        if subject is None:
            raise ValueError("A message without user_id and anonymous_id can't be stored: its schema refuses it")
        return subject

    @cached_property
    def position(self) -> str:
        """The place of the message in the timeline of its subject: `2020-05-09T23:54:49.200000Z#ajs-next-17e0`."""
        return _key(self.message.time, escape(self.message.message_id), max_bytes=MAX_POSITION_BYTES)

    @cached_property
    def facts(self) -> dict[str, str]:
        """The attributes for queries, as text without lone surrogates (which UTF-8, and so DynamoDB, can't encode)."""
        texts = ((name, self.message.body.get(name)) for name in _FACTS)
        stored_at = sortable(datetime.fromtimestamp(self.stored_at, UTC))
        return {
            "customer_id": self.customer_id,
            **{name: utf8(text) for name, text in texts if text and isinstance(text, str)},
            "timestamp": self.message.timestamp or self.received_at or stored_at,
            "stored_at": stored_at,
        }


def subject_of(customer_id: str, body: JsonObject) -> str | None:
    """Return the subject of a canonical message, None if it has neither a user id nor an anonymous id as a string."""
    if isinstance(user_id := body.get("user_id"), str):
        return subject_key(customer_id, "user", user_id)
    if isinstance(anonymous_id := body.get("anonymous_id"), str):
        return subject_key(customer_id, "anonymous", anonymous_id)
    return None


def subject_key(customer_id: str, kind: Literal["user", "anonymous"], subject_id: str) -> str:
    """Return the partition key of a user's or an anonymous visitor's records, which is unique."""
    return _key(escape(customer_id), kind, escape(subject_id), max_bytes=MAX_SUBJECT_BYTES)


_UNSAFE = re.compile(r"[%#\x00-\x1f\ud800-\udfff\ufffe\uffff]")


def escape(text: str) -> str:
    """Percent-encode characters that would make keys ambiguous (`#`, `%`) or that SQS or UTF-8 can't encode."""
    return _UNSAFE.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode("utf-8", "surrogatepass")), text)


def _key(*parts: str, max_bytes: int) -> str:
    """Join the parts of a key. If it is too long, replace the last part by a hash, marked by one more `#`."""
    key = "#".join(parts)
    if len(key.encode()) <= max_bytes:
        return key
    return "#".join((*parts[:-1], "sha256", sha256(parts[-1])))


def utf8(text: str) -> str:
    """Replace lone surrogates, which UTF-8 can't encode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
