"""Contacts, the example of a consumer: the facts known of each user, and the rules to combine them, without a store.

Each message becomes a small contact, and the stored contact is the join of all of them. The join does not depend on
order or repetition, so every order of the same messages ends in the same contacts.

Users and visitors have separate name spaces, as in the event table. A message with a user id is about that user, and a
message with only an anonymous id is about that visitor. An alias merges a visitor into a user. It moves nothing: both
keep their own facts, and a read combines them. An alias can't reach the contact of another user.

https://segment.com/docs/connections/spec/
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Self

from consumer.errors import PermanentFailure
from handler.canonicalise import UNDATED, identity_time
from handler.decode import JsonObject
from handler.record import escape, sha256
from handler.spec import DELETE

# DynamoDB refuses items above 400 KB. A contact at all of these limits takes less than 390 KiB.
MAX_TRAITS = 300
"""Limit for the traits of a contact or an account."""
MAX_GROUPS = 50
MAX_FACT_BYTES = 1024
"""Limit for a stored trait or group: its name, time, message id and value, as JSON in UTF-8."""
MAX_TEXT_CHARS = 4096
"""Limit for a contact's id and an event's name; the rest is cut off. Keys are hashes of the whole text."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A value with its age: the time and id of the message that it comes from.

    A fact that `is_left_out` had a value that is too long to keep. It still replaces older values.
    """

    time: str
    message_id: str
    value: Any = None
    is_left_out: bool = False

    @classmethod
    def from_json(cls, parts: list[Any], *, is_left_out: bool = False) -> Self:
        """Read what `to_json` made."""
        time, message_id, value = parts
        return cls(time=time, message_id=message_id, value=value, is_left_out=is_left_out)

    def to_json(self) -> list[Any]:
        """Return the form that is stored."""
        return [self.time, self.message_id, self.value]

    @property
    def age(self) -> tuple[str, str, bool, str]:
        """The sort key of facts. If two messages share time and id, the value decides, not the order of arrival."""
        return self.time, self.message_id, self.is_left_out, json.dumps(self.value, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Contact:
    """The facts of one contact; times are event times, and the unknown time "" is older than all others.

    `last_seen` is the latest activity. `updated` is the latest message, activity or not. Without `updated` and
    `merged_into`, nothing is known of the contact, and its id is dropped. `merged_into` has the key of the user that
    this visitor is part of now. Everything that happened until `deleted_at` is void: it is removed, and ignored if it
    arrives later. `cut_at` is the time of the newest trait or group that was dropped because there were too many.
    `has_parts` says that an alias named a visitor as part of this user.

    An account (of group calls) has the same form, with an id, times and traits.
    """

    contact_id: str | None = None
    last_seen: str | None = None
    updated: str | None = None
    traits: Mapping[str, Fact] = field(default_factory=dict)
    groups: Mapping[str, Fact] = field(default_factory=dict)
    merged_into: Fact | None = None
    has_parts: bool = False
    deleted_at: str | None = None
    cut_at: str | None = None

    @classmethod
    def from_json(cls, document: JsonObject) -> Self:
        """Read what `to_json` made."""
        pointer = document.get("merged_into")
        left_out = document.get("left_out", {})
        return cls(
            contact_id=document.get("id"),
            last_seen=document.get("last_seen"),
            updated=document.get("updated", document.get("last_seen")),
            traits=_read_facts(document.get("traits", {})) | _read_facts(left_out, is_left_out=True),
            groups=_read_facts(document.get("groups", {})),
            merged_into=None if pointer is None else Fact.from_json(pointer),
            has_parts=document.get("has_parts", False),
            deleted_at=document.get("deleted_at"),
            cut_at=document.get("cut_at"),
        )

    def to_json(self) -> JsonObject:
        """Return the form that is stored: the same for the same contact, in whatever order its messages arrived."""
        parts = {
            "id": self.contact_id,
            "last_seen": self.last_seen,
            "updated": None if self.updated == self.last_seen else self.updated,
            "traits": _stored_facts({name: fact for name, fact in self.traits.items() if not fact.is_left_out}),
            "left_out": _stored_facts({name: fact for name, fact in self.traits.items() if fact.is_left_out}),
            "groups": _stored_facts(self.groups),
            "merged_into": self.merged_into and self.merged_into.to_json(),
            "has_parts": self.has_parts or None,
            "deleted_at": self.deleted_at,
            "cut_at": self.cut_at,
        }
        return {name: part for name, part in parts.items() if part not in (None, {})}

    @property
    def values(self) -> JsonObject:
        """The latest values of the traits."""
        return {name: self.traits[name].value for name in sorted(self.traits) if not self.traits[name].is_left_out}

    @property
    def left_out(self) -> list[str]:
        """The traits whose latest values were too long to keep."""
        return sorted(name for name, fact in self.traits.items() if fact.is_left_out)

    @property
    def is_whole(self) -> bool:
        """Return whether nothing was left out."""
        return self.cut_at is None and not self.left_out

    def voids(self, time: str | None) -> bool:
        """Return whether something that happened at a time is erased; True for None, if nothing happened."""
        return time is None or (self.deleted_at is not None and time <= self.deleted_at)

    def join(self, other: "Contact") -> "Contact":
        """Return the combination of two contacts: the latest of each fact, without void or surplus facts."""
        whole = Contact(deleted_at=_latest(self.deleted_at, other.deleted_at))
        traits, traits_cut_at = _newest_of(_join(self.traits, other.traits), MAX_TRAITS)
        groups, groups_cut_at = _newest_of(_join(self.groups, other.groups), MAX_GROUPS)
        merged_into = _newest(self.merged_into, other.merged_into)
        if merged_into is not None and whole.voids(merged_into.time):
            merged_into = None

        def valid(*times: str | None) -> str | None:
            time = _latest(*times)
            return None if whole.voids(time) else time

        updated = valid(self.updated, other.updated)
        return replace(
            whole,
            contact_id=None if updated is None and merged_into is None else self.contact_id or other.contact_id,
            last_seen=valid(self.last_seen, other.last_seen),
            updated=updated,
            traits={name: fact for name, fact in traits.items() if not whole.voids(fact.time)},
            groups={name: fact for name, fact in groups.items() if not whole.voids(fact.time)},
            merged_into=merged_into,
            has_parts=self.has_parts or other.has_parts,
            cut_at=valid(self.cut_at, other.cut_at, traits_cut_at, groups_cut_at),
        )


def _read_facts(documents: Mapping[str, list[Any]], *, is_left_out: bool = False) -> dict[str, Fact]:
    return {name: Fact.from_json(parts, is_left_out=is_left_out) for name, parts in documents.items()}


def _stored_facts(facts: Mapping[str, Fact]) -> JsonObject:
    return {name: facts[name].to_json() for name in sorted(facts)}


def _latest(*times: str | None) -> str | None:
    return max((time for time in times if time is not None), default=None)


def _newest(*facts: Fact | None) -> Fact | None:
    return max((fact for fact in facts if fact is not None), key=lambda fact: fact.age, default=None)


def _join(facts: Mapping[str, Fact], others: Mapping[str, Fact]) -> dict[str, Fact]:
    newer = {name: fact for name, fact in others.items() if name not in facts or fact.age > facts[name].age}
    return {**facts, **newer}


def _newest_of(facts: Mapping[str, Fact], count: int) -> tuple[Mapping[str, Fact], str | None]:
    """Return the `count` newest facts, and the time of the newest dropped one, None if none was dropped.

    A dropped fact has `count` newer facts with other names. Later messages don't change that, and an erasure voids
    older facts first. So the result does not depend on the order of arrival; with a limit in bytes it would.
    """
    if len(facts) <= count:
        return facts, None
    ordered = sorted(facts.items(), key=lambda named: (named[1].age, named[0]), reverse=True)
    return dict(ordered[:count]), ordered[count][1].time


# The content of a message


def claimed_time(message: JsonObject) -> str:
    """Return when a message happened by its sender's clock, sortable; "" if that is unknown.

    Every resend repeats it, so it can distinguish two messages.
    """
    time = identity_time(message)
    return "" if time == UNDATED else time


def event_time(message: JsonObject) -> str:
    """Return when a message happened, sortable; "" if that is unknown.

    A message can't happen after its receipt: a clock that is ahead is wrong, and its time must not outlive an erasure.
    """
    return min(claimed_time(message), str(message["received_at"]))


def erasure_time(message: JsonObject) -> str:
    """Return the time until which a `delete` message erases.

    This is its time of receipt, which is never before its event time: messages between the two are erased too. If a
    `delete` contradicts that, `consumer/runtime/stored.py` uses the time when it was stored.
    """
    return str(message["received_at"])


def contact_of(message: JsonObject) -> str:
    """Return the id of the message's contact; raises `PermanentFailure`."""
    contact_id = message.get("user_id") or message.get("anonymous_id")
    if not contact_id:
        raise PermanentFailure("The message has neither a user_id nor an anonymous_id")
    return str(contact_id)


def contact_key(message: JsonObject, customer: str) -> str:
    """Return the key of the message's contact; raises `PermanentFailure`."""
    contact_id = contact_of(message)
    return key_of(customer, contact_id) if message.get("user_id") else visitor_key_of(customer, contact_id)


def previous_of(message: JsonObject) -> str | None:
    """Return the anonymous id of the visitor that an `alias` message merges into a user, or None."""
    previous = _text(message, "alias", "previous_id")
    return previous if message.get("user_id") not in (None, previous) else None


def account_of(message: JsonObject) -> str | None:
    """Return the id of a `group` message's account, or None."""
    return _text(message, "group", "group_id")


def is_activity(message: JsonObject) -> bool:
    """Return whether a message shows activity of the user.

    https://segment.com/docs/connections/spec/common/#context
    """
    context = message.get("context")
    return not (isinstance(context, dict) and context.get("active") is False)


def event_of(message: JsonObject) -> str | None:
    """Return the event name of a `track` message, or None."""
    return _text(message, "track", "event")


def _text(message: JsonObject, call_type: str, name: str) -> str | None:
    """Return a text field of a message of one type, or None: an edited schema may accept messages without it."""
    text = message.get(name)
    return text if message["type"] == call_type and isinstance(text, str) and text else None


def key_of(customer: str, contact_id: str) -> str:
    """Return the hash that represents a user or an account, so that what remains after an erasure identifies nobody."""
    return sha256(f"{escape(customer)}#{escape(contact_id)}")


def visitor_key_of(customer: str, anonymous_id: str) -> str:
    """Return the hash that represents a visitor. An anonymous id may be the same text as a user id."""
    return sha256(f"{escape(customer)}#anonymous#{escape(anonymous_id)}")


def shortened(text: str) -> str:
    """Return a text, cut off if it is too long to keep."""
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"


def contact_in(message: JsonObject) -> Contact:
    """Return the contact that a message describes, with the facts of that message."""
    if message["type"] == DELETE:
        return Contact(deleted_at=erasure_time(message))
    group_id = account_of(message)
    traits = _traits(message, _sent_traits(message)) if message["type"] == "identify" else {}
    groups = {} if group_id is None else {group_id: _fact(message)}
    return replace(
        _contact_with(message, contact_of(message), traits, groups), has_parts=previous_of(message) is not None
    )


def previous_in(message: JsonObject, customer: str) -> Contact:
    """Return the visitor that an `alias` message merges into a user."""
    return Contact(
        contact_id=shortened(previous_of(message) or ""), merged_into=_fact(message, contact_key(message, customer))
    )


def account_in(message: JsonObject) -> Contact:
    """Return the account that a `group` message describes, with the facts of that message."""
    return _contact_with(message, account_of(message) or "", _traits(message, message.get("traits")), {})


def _contact_with(
    message: JsonObject, contact_id: str, traits: Mapping[str, Fact], groups: Mapping[str, Fact]
) -> Contact:
    """Return the contact of one message, without facts that are too long."""
    time = event_time(message)
    kept = {name: _fitting(name, fact) for name, fact in traits.items()}
    traits = {name: fact for name, fact in kept.items() if fact is not None}
    joined = {name: fact for name, fact in groups.items() if _fact_bytes(name, fact) <= MAX_FACT_BYTES}
    return Contact(
        contact_id=shortened(contact_id),
        last_seen=time if is_activity(message) else None,
        updated=time,
        traits=traits,
        groups=joined,
        cut_at=None if len(traits) == len(kept) and len(joined) == len(groups) else time,
    )


def _fitting(name: str, fact: Fact) -> Fact | None:
    """Return a fact, without its value if that is too long; None if the name alone is too long."""
    for fitting in (fact, replace(fact, value=None, is_left_out=True)):
        if _fact_bytes(name, fitting) <= MAX_FACT_BYTES:
            return fitting
    return None


def _fact_bytes(name: str, fact: Fact) -> int:
    """Return the size of a stored fact: a lone surrogate, which UTF-8 can't encode, is escaped."""
    return len(json.dumps([name, fact.to_json()], ensure_ascii=False).encode("utf-8", "backslashreplace"))


def _sent_traits(message: JsonObject) -> object:
    """Return the traits of an `identify` message; RudderStack's libraries send them only in the context."""
    context = message.get("context")
    return message.get("traits", context.get("traits") if isinstance(context, dict) else None)


def _traits(message: JsonObject, traits: object) -> dict[str, Fact]:
    how_new = _fact(message)
    return {name: replace(how_new, value=value) for name, value in traits.items()} if isinstance(traits, dict) else {}


def _fact(message: JsonObject, value: object = None) -> Fact:
    return Fact(time=event_time(message), message_id=message["message_id"], value=value)


# Merged contacts


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A contact for display: a user with the visitors that are part of the user, or a visitor without a user.

    `contacts` has their contacts by key. `merged` are the anonymous ids of the visitors.
    """

    contact_id: str
    contacts: Mapping[str, Contact]
    merged: list[str]
    whole: Contact

    @classmethod
    def of(cls, contacts: Mapping[str, Contact]) -> Self:
        """Return a profile of some contacts; the first one gives the id."""
        root, *visitors = contacts.values()
        return cls(
            contact_id=root.contact_id or "",
            contacts=contacts,
            merged=sorted(visitor.contact_id or "" for visitor in visitors),
            whole=_whole(contacts.values()),
        )

    @property
    def traits(self) -> JsonObject:
        """The latest values of the traits."""
        return self.whole.values

    @property
    def groups(self) -> list[str]:
        """The ids of the accounts."""
        return sorted(self.whole.groups)

    @property
    def last_seen(self) -> str:
        """The time of the latest activity, "" if it is unknown or there was none."""
        return self.whole.last_seen or ""


def _whole(contacts: Iterable[Contact]) -> Contact:
    """Join contacts. Each has already lost its own erased facts; none loses more."""
    return reduce(Contact.join, (replace(contact, deleted_at=None) for contact in contacts), Contact())
