"""What a store holds of a message, read without any code of the product: an item of the table, or a queue message."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from destination.segment.contract import JsonObject
from destination.segment.due import Due

MAX_SHOWN_CHARS = 60
ABSENT = object()
"""Stands for what one of two documents lacks; `null` is a value."""
CHANGED_BY_RESENDS = frozenset({"sent_at", "received_at", "timestamp", "integrations"})
"""Fields of a message; the last one where the resend is a replay."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A message as a store holds it; `facts` are all attributes that are texts.

    `message` is None where it is not JSON. `others` are attributes that the contract does not know. `envelope` is what
    SQS says of a queue message: its attributes, group and deduplication id.
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
        """The customer, "" where the item names none."""
        return self.facts.get("customer_id", "")


_OF_ITEM = ("subject", "position", "message", "settings", "expires_at")


def _document(attribute: Mapping[str, Any]) -> object:
    """Read JSON, which may be compressed by zlib; None stands for what can't be read, which nobody sent."""
    try:
        text = zlib.decompress(attribute["B"]) if "B" in attribute else attribute["S"]
        return json.loads(text)
    except (ValueError, KeyError, zlib.error):
        return None


def differences(due: Due, stored: Stored) -> Iterator[tuple[str, str, str]]:
    """Yield the parts that differ, each with what is due and what was found, both JSON that is cut short."""
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
    """Yield the innermost parts of two documents that differ: path, what is due, and what was found."""
    if as_json(expected) == as_json(found):
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            path = f"{name}.{key or json.dumps(key)}" if name else key
            yield from parts_that_differ(expected.get(key, ABSENT), found.get(key, ABSENT), path)
    else:
        yield name, short(expected), short(found)


def as_json(document: object) -> str:
    """Spell a document such that others differ: in Python `1 == True`, in JSON not. What is absent has no JSON."""
    return "" if document is ABSENT else json.dumps(document, sort_keys=True, default=repr)


def short(value: object) -> str:
    """Return a value as JSON that is cut short, "" for one that is absent."""
    text = "" if value is ABSENT else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}… ({len(text):,} characters)"


def changed_by_resends(message: object) -> JsonObject:
    """Return the part of a stored message that is another one in each resend."""
    if not isinstance(message, dict):
        return {}
    return {name: message[name] for name in sorted(CHANGED_BY_RESENDS & message.keys())}
