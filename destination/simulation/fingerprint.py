"""Hashes by which `destination simulate` recognises a message in a store."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, Self

from destination.segment.due import Due
from destination.simulation.stored import CHANGED_BY_RESENDS, Stored, as_json, changed_by_resends


class Fingerprint(NamedTuple):
    """Two hashes of a message; a run keeps a fingerprint for each message that it sends.

    `identity` is a hash of its key: subject and position. `content` is a hash of its stored parts that every resend
    repeats.
    """

    identity: bytes
    content: bytes

    @classmethod
    def of_due(cls, due: Due) -> Self:
        """Return the fingerprint of an expected item."""
        return cls._of((due.subject, due.position), due.facts, due.settings, due.body)

    @classmethod
    def of_stored(cls, stored: Stored) -> Self:
        """Return the fingerprint of a stored item."""
        facts = {**stored.facts, **(stored.others or {})}
        return cls._of((stored.subject, stored.position), facts, stored.settings or {}, stored.message)

    @classmethod
    def _of(cls, key: tuple[str, str], facts: Mapping[str, object], settings: object, message: object) -> Self:
        known = {name: value for name, value in facts.items() if name not in ("timestamp", "stored_at")}
        if isinstance(message, dict):
            message = {name: value for name, value in message.items() if name not in CHANGED_BY_RESENDS}
        return cls(identity=_hash(key), content=_hash((known, settings, message)))


class RejectKey(NamedTuple):
    """Identifies a reject: its customer, and a hash of its body and settings."""

    customer_id: str
    digest: bytes


def reject_key(customer_id: str, body: object, settings_header: str) -> RejectKey:
    """Return the key of a reject: `body` is the sent text, or in a batch the stored document."""
    return RejectKey(customer_id=customer_id, digest=_hash((body, settings_header)))


def variant_of(timestamp: str | None, message: object) -> bytes:
    """Return a hash that distinguishes the copies of one message."""
    return _hash((timestamp, changed_by_resends(message)))


def _hash(document: object) -> bytes:
    return hashlib.blake2b(as_json(document).encode(), digest_size=16).digest()
