"""Read a stored message without any code of the product: an item of the table, or a queue message."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from destination.segment.contract import JsonObject
from destination.segment.due import Due

MAX_SHOWN_CHARS = 60
ABSENT = object()
"""Stands for a part that is missing in one of two documents; `null` is a value."""
CHANGED_BY_RESENDS = frozenset({"sent_at", "received_at", "timestamp", "integrations"})
"""Fields that a resend changes; the last one only if the resend is a replay."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored message; `facts` are all string attributes.

    `message` is None if it is not JSON. `others` are attributes that are not in the contract. `envelope` has SQS's
    facts about a queue message: its attributes, group and deduplication id.
    """

    subject: str
    position: str
    facts: Mapping[str, str]
    settings: object
    message: Any
    expires_at: int | None = None
    others: Mapping[str, object] | None = None
    envelope: Mapping[str, str] | None = None

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """Read an item of the event table."""
        rest = {name: value for name, value in item.items() if name not in _OF_ITEM}
        expiry = item.get("expires_at", {}).get("N")
        return cls(
            subject=item["subject"]["S"],
            position=item["position"]["S"],
            facts={name: value["S"] for name, value in rest.items() if "S" in value},
            settings=_document(item["settings"]) if "settings" in item else {},
            message=_document(item["message"]) if "message" in item else None,
            expires_at=int(expiry) if expiry else None,
            others={name: value for name, value in rest.items() if "S" not in value},
        )

    @classmethod
    def from_queue(cls, body: str, envelope: Mapping[str, str]) -> Self:
        """Read the body of a queue message."""
        content = json.loads(body)
        rest = {name: value for name, value in content.items() if name not in _OF_ITEM}
        return cls(
            subject=str(content.get("subject")),
            position=str(content.get("position")),
            facts={name: value for name, value in rest.items() if isinstance(value, str)},
            settings=content.get("settings"),
            message=content.get("message"),
            others={name: value for name, value in rest.items() if not isinstance(value, str)},
            envelope=envelope,
        )

    @property
    def customer_id(self) -> str:
        """The customer, "" if the item has none."""
        return self.facts.get("customer_id", "")


_OF_ITEM = ("subject", "position", "message", "settings", "expires_at")


def _document(attribute: Mapping[str, Any]) -> object:
    """Read JSON, which may be compressed by zlib; None for unreadable data, which nobody sent."""
    try:
        text = zlib.decompress(attribute["B"]) if "B" in attribute else attribute["S"]
        return json.loads(text)
    except (ValueError, KeyError, zlib.error):
        return None


def differences(due: Due, stored: Stored) -> Iterator[tuple[str, str, str]]:
    """Yield the differing parts, each with the expected and the found value as shortened JSON."""
    due_facts = {name: text for name, text in due.facts.items() if name != "timestamp"}
    facts = {name: text for name, text in stored.facts.items() if name not in ("timestamp", "stored_at")}
    due_message = {name: value for name, value in due.body.items() if name not in CHANGED_BY_RESENDS}
    message = stored.message
    if isinstance(message, dict):
        message = {name: value for name, value in message.items() if name not in CHANGED_BY_RESENDS}
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("subject", due.subject, stored.subject),
        ("position", due.position, stored.position),
        ("", due_facts, facts | dict(stored.others or {})),
        ("settings", due.settings, stored.settings or {}),
        ("message", due_message, message),
    )
    for name, expected, found in pairs:
        yield from parts_that_differ(expected, found, name)


def parts_that_differ(expected: Any, found: Any, name: str = "") -> Iterator[tuple[str, str, str]]:  # noqa: ANN401 -- JSON
    """Yield the innermost differing parts of two documents: path, expected value, and found value."""
    if as_json(expected) == as_json(found):
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            path = f"{name}.{key or json.dumps(key)}" if name else key
            yield from parts_that_differ(expected.get(key, ABSENT), found.get(key, ABSENT), path)
    else:
        yield name, short(expected), short(found)


def as_json(document: object) -> str:
    """Return a text that differs for different documents: in Python `1 == True`, in JSON not. "" if absent."""
    return "" if document is ABSENT else json.dumps(document, sort_keys=True, default=repr)


def short(value: object) -> str:
    """Return a value as shortened JSON, "" for an absent one."""
    text = "" if value is ABSENT else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}… ({len(text):,} characters)"


def changed_by_resends(message: object) -> JsonObject:
    """Return the part of a stored message that each resend changes."""
    if not isinstance(message, dict):
        return {}
    return {name: message[name] for name in sorted(CHANGED_BY_RESENDS & message.keys())}
