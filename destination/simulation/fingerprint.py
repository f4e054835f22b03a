"""Hashes by which `destination simulate` knows a message again in a store."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple, Self

from destination.segment.due import Due
from destination.simulation.stored import CHANGED_BY_RESENDS, Stored, as_json, changed_by_resends


class Fingerprint(NamedTuple):
    """Two hashes of a message, of which a run keeps one for each that it sends.

    `identity` is of its key, subject and position. `content` is of all that is stored of it and that every resend
    repeats.
    """

    identity: bytes
    content: bytes

    @classmethod
    def of_due(cls, due: Due) -> Self:
        """Take them of what must be stored."""
        return cls._of((due.subject, due.position), due.facts, due.settings, due.body)

    @classmethod
    def of_stored(cls, stored: Stored) -> Self:
        """Take them of what is stored."""
        facts = {**stored.facts, **(stored.others or {})}
        return cls._of((stored.subject, stored.position), facts, stored.settings or {}, stored.message)

    @classmethod
    def _of(cls, key: tuple[str, str], facts: Mapping[str, object], settings: object, message: object) -> Self:
        known = {name: value for name, value in facts.items() if name not in ("timestamp", "stored_at")}
        if isinstance(message, dict):
            message = {name: value for name, value in message.items() if name not in CHANGED_BY_RESENDS}
        return cls(identity=_hash(key), content=_hash((known, settings, message)))


class RejectKey(NamedTuple):
    """By which a reject is known again: whose it is, and a hash of its body and settings."""

    customer_id: str
    digest: bytes


def reject_key(customer_id: str, body: object, settings_header: str) -> RejectKey:
    """Return the key of a reject: `body` is the text that was sent, or in a batch the document that is stored of it."""
    return RejectKey(customer_id=customer_id, digest=_hash((body, settings_header)))


def variant_of(timestamp: str | None, message: object) -> bytes:
    """Return a hash of what tells the copies of one message from each other."""
    return _hash((timestamp, changed_by_resends(message)))


def _hash(document: object) -> bytes:
    return hashlib.blake2b(as_json(document).encode(), digest_size=16).digest()
