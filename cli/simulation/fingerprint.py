"""That by which `destination simulate` knows a message again in a store: two hashes."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from handler.record import Record

COMPARED_FACTS = ("customer_id", "user_id", "anonymous_id", "message_id", "type", "group_id", "event")
"""Of `Record.facts` all but the times."""
CHANGED_BY_RESENDS = frozenset({"sent_at", "received_at", "timestamp", "integrations"})
"""Of a message; the last one where the resend is a replay."""


class Fingerprint(NamedTuple):
    """Two hashes of a message, of which a run keeps one for each that it sends.

    `identity` tells whose it is and which: by customer, user (or else anonymous) id, and message id. `content` holds
    all that is stored of it and that every resend repeats.
    """

    identity: bytes
    content: bytes

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Take them of what is stored: facts, `settings` and `message`, named as in a queue message."""
        facts = {name: stored.get(name) for name in COMPARED_FACTS}
        whose = facts["user_id"] or ("anonymous", facts["anonymous_id"])
        message = stored.get("message")
        if isinstance(message, dict):
            message = {name: value for name, value in message.items() if name not in CHANGED_BY_RESENDS}
        return cls(
            identity=_hash((facts["customer_id"], whose, facts["message_id"])),
            content=_hash((facts, stored.get("settings") or {}, message)),
        )


class RejectKey(NamedTuple):
    """By which a reject is known again: whose it is, and the hash of its body and settings."""

    customer_id: str
    body_hash: str


def fingerprint_of(record: Record) -> Fingerprint:
    """Return that by which a record is known again in a store."""
    return Fingerprint.of({**record.facts, "settings": record.settings, "message": record.message.body})


def _hash(document: object) -> bytes:
    return hashlib.blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=16).digest()
