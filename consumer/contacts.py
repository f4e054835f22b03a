"""Contacts, the example of what one can do with messages: what is known of each user, as rules without a store.

What a message says is a small contact of its own, and what is kept is the join of all of them. Joining minds neither
order nor repetition, so that any history of the same messages, however often each came, ends in the same contacts.

A contact is known by its user id, or by the anonymous id of a message without one; both are one name space. An alias
moves nothing: each contact keeps its own, and those that are merged are put together when one reads.

https://segment.com/docs/connections/spec/
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import reduce
from typing import Any, Self

from handler.canonicalise import UNDATED, identity_time
from handler.decode import JsonObject
from handler.record import escape, sha256
from handler.spec import DELETE

MAX_CLOCK_ERROR = timedelta(days=1)
"""A message from further ahead of its receipt has a wrong clock, and would otherwise be the newest for years."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A value, and how new it is: the event time of the message that said it, and its id."""

    time: str
    message_id: str
    value: Any = None

    @classmethod
    def from_json(cls, parts: list[Any]) -> Self:
        """Read what `to_json` made."""
        time, message_id, value = parts
        return cls(time=time, message_id=message_id, value=value)

    def to_json(self) -> list[Any]:
        """Return what is stored."""
        return [self.time, self.message_id, self.value]

    @property
    def age(self) -> tuple[str, str, str]:
        """Order facts; the value decides where two messages share time and id, so that it is not their order."""
        return self.time, self.message_id, json.dumps(self.value, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Contact:
    """What is kept of a contact; times are event times, of which the unknown "" is older than all others.

    `merged_into` holds the key of the contact that this one is part of now; `merged` the keys of those that ever became
    part of this one, for ever, because an erasure flows that way. What happened until `deleted_at` is void: it is gone,
    and ignored when it comes later. Where nothing else is left there is no id either, and nothing that tells of whom.

    An account (of group calls) is kept likewise, with an id, `last_seen` and traits.
    """

    contact_id: str | None = None
    last_seen: str | None = None
    traits: Mapping[str, Fact] = field(default_factory=dict)
    groups: Mapping[str, Fact] = field(default_factory=dict)
    merged_into: Fact | None = None
    merged: frozenset[str] = frozenset()
    deleted_at: str | None = None

    @classmethod
    def from_json(cls, document: JsonObject) -> Self:
        """Read what `to_json` made."""
        pointer = document.get("merged_into")
        return cls(
            contact_id=document.get("id"),
            last_seen=document.get("last_seen"),
            traits={name: Fact.from_json(parts) for name, parts in document.get("traits", {}).items()},
            groups={name: Fact.from_json(parts) for name, parts in document.get("groups", {}).items()},
            merged_into=None if pointer is None else Fact.from_json(pointer),
            merged=frozenset(document.get("merged", ())),
            deleted_at=document.get("deleted_at"),
        )

    def to_json(self) -> JsonObject:
        """Return what is stored; the same for the same contact, whatever order its messages had."""
        parts = {
            "id": self.contact_id,
            "last_seen": self.last_seen,
            "traits": {name: self.traits[name].to_json() for name in sorted(self.traits)},
            "groups": {name: self.groups[name].to_json() for name in sorted(self.groups)},
            "merged_into": self.merged_into and self.merged_into.to_json(),
            "merged": sorted(self.merged),
            "deleted_at": self.deleted_at,
        }
        return {name: part for name, part in parts.items() if part not in (None, {}, [])}

    @property
    def values(self) -> JsonObject:
        """The traits as they were last said."""
        return {name: self.traits[name].value for name in sorted(self.traits)}

    def voids(self, time: str | None) -> bool:
        """Whether what happened then does not count, or nothing happened."""
        return time is None or (self.deleted_at is not None and time <= self.deleted_at)

    def join(self, other: "Contact") -> "Contact":
        """Return what both know together: the latest of each, less what is void."""
        whole = Contact(
            contact_id=self.contact_id or other.contact_id,
            last_seen=_latest(self.last_seen, other.last_seen),
            traits=_join(self.traits, other.traits),
            groups=_join(self.groups, other.groups),
            merged_into=_newest(self.merged_into, other.merged_into),
            merged=self.merged | other.merged,
            deleted_at=_latest(self.deleted_at, other.deleted_at),
        )
        last_seen = None if whole.voids(whole.last_seen) else whole.last_seen
        merged_into = whole.merged_into if whole.merged_into and not whole.voids(whole.merged_into.time) else None
        return replace(
            whole,
            contact_id=None if last_seen is None and merged_into is None else whole.contact_id,
            last_seen=last_seen,
            traits={name: fact for name, fact in whole.traits.items() if not whole.voids(fact.time)},
            groups={name: fact for name, fact in whole.groups.items() if not whole.voids(fact.time)},
            merged_into=merged_into,
        )


def _latest(*times: str | None) -> str | None:
    return max((time for time in times if time is not None), default=None)


def _newest(*facts: Fact | None) -> Fact | None:
    return max((fact for fact in facts if fact is not None), key=lambda fact: fact.age, default=None)


def _join(facts: Mapping[str, Fact], others: Mapping[str, Fact]) -> dict[str, Fact]:
    newer = {name: fact for name, fact in others.items() if name not in facts or fact.age > facts[name].age}
    return {**facts, **newer}


# What a message says


def event_time(message: JsonObject) -> str:
    """Return when a message happened as every resend of it repeats, sortable; "" where that is unknown.

    Unknown is what can't be read, and what a clock says that is wrong.
    """
    time = identity_time(message)
    if time == UNDATED or _moment(time) - _moment(message["received_at"]) > MAX_CLOCK_ERROR:
        return ""
    return time


def _moment(time: str) -> datetime:
    return datetime.fromisoformat(time)


def erasure_time(message: JsonObject) -> str:
    """Return until when a `delete` message erases: its event time, or its receipt, since it must do something."""
    return event_time(message) or str(message["received_at"])


def contact_of(message: JsonObject) -> str:
    """Return the id of the contact whose message it is."""
    return str(message.get("user_id") or message["anonymous_id"])


def previous_of(message: JsonObject) -> str | None:
    """Return the id of the contact that an `alias` message makes a part of another one."""
    previous = _text(message, "alias", "previous_id")
    return None if previous == contact_of(message) else previous


def account_of(message: JsonObject) -> str | None:
    """Return the id of the account that a `group` message is about."""
    return _text(message, "group", "group_id")


def event_of(message: JsonObject) -> str | None:
    """Return the name of what a `track` message says was done."""
    return _text(message, "track", "event")


def _text(message: JsonObject, call_type: str, name: str) -> str | None:
    """Return a text of a message of one type; an edited schema may let pass what has none."""
    text = message.get(name)
    return text if message["type"] == call_type and isinstance(text, str) and text else None


def key_of(customer: str, contact_id: str) -> str:
    """Return the hash that stands for a contact or an account: what remains of it names nobody."""
    return sha256(f"{escape(customer)}#{escape(contact_id)}")


def said_of_contact(message: JsonObject, customer: str) -> Contact:
    """Return what a message says of the contact whose it is."""
    if message["type"] == DELETE:
        return Contact(deleted_at=erasure_time(message))
    previous, group_id = previous_of(message), account_of(message)
    return Contact(
        contact_id=contact_of(message),
        last_seen=event_time(message),
        traits=_traits(message, _told_traits(message)) if message["type"] == "identify" else {},
        groups={} if group_id is None else {group_id: _fact(message)},
        merged=frozenset() if previous is None else frozenset({key_of(customer, previous)}),
    )


def said_of_previous(message: JsonObject, customer: str) -> Contact:
    """Return what an `alias` message says of the contact that it makes a part of another one."""
    return Contact(contact_id=previous_of(message), merged_into=_fact(message, key_of(customer, contact_of(message))))


def said_of_account(message: JsonObject) -> Contact:
    """Return what a `group` message says of the account."""
    traits = _traits(message, message.get("traits"))
    return Contact(contact_id=account_of(message), last_seen=event_time(message), traits=traits)


def _told_traits(message: JsonObject) -> object:
    """Return the traits of an `identify` message, which RudderStack's libraries have in the context only."""
    context = message.get("context")
    return message.get("traits", context.get("traits") if isinstance(context, dict) else None)


def _traits(message: JsonObject, traits: object) -> dict[str, Fact]:
    how_new = _fact(message)
    return {name: replace(how_new, value=value) for name, value in traits.items()} if isinstance(traits, dict) else {}


def _fact(message: JsonObject, value: object = None) -> Fact:
    return Fact(time=event_time(message), message_id=message["message_id"], value=value)


# Contacts that are merged

Read = Callable[[str], Contact]
"""Returns the contact of a key, an empty one where there is none."""


def root_of(key: str, read: Read) -> str:
    """Follow `merged_into` to the contact that stands for the others: its end, or the first key of a circle."""
    path: list[str] = []
    while key not in path:
        path.append(key)
        pointer = read(key).merged_into
        if pointer is None:
            return key
        key = pointer.value
    return min(path[path.index(key) :])


def members_of(root: str, contact: Contact, read: Read) -> dict[str, Contact]:
    """Return a root and the contacts that are one with it, by their keys, itself first."""
    members = {root: contact}
    waiting = [root]
    while waiting:
        key = waiting.pop()
        for other in sorted(members[key].merged - members.keys()):
            candidate = read(other)
            if candidate.merged_into is not None and candidate.merged_into.value == key:
                members[other] = candidate
                waiting.append(other)
    return members


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A contact as people see it: a root and its members in one. `members` are by their keys."""

    contact_id: str
    traits: JsonObject
    groups: list[str]
    last_seen: str
    merged: list[str]
    members: Mapping[str, Contact]

    @classmethod
    def of(cls, members: Mapping[str, Contact]) -> Self:
        """Put together what `members_of` returned."""
        root, *others = members.values()
        whole = _whole(members.values())
        return cls(
            contact_id=root.contact_id or "",
            traits=whole.values,
            groups=sorted(whole.groups),
            last_seen=whole.last_seen or "",
            merged=sorted(contact.contact_id or "" for contact in others),
            members=members,
        )


def _whole(contacts: Iterable[Contact]) -> Contact:
    """Join contacts; what one of them has lost to an erasure is gone from it already, and the others keep theirs."""
    return reduce(Contact.join, (replace(contact, deleted_at=None) for contact in contacts), Contact())
