"""Compute the expected contacts from messages as simply as possible, to compare the consumer's contacts with them.

It shares no code with `consumer/contacts/contact.py`: it has all messages at once and sorts them, while the consumer
gets them one by one in any order.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from destination.segment.contract import JsonObject
from destination.segment.due import Due, sortable

MAX_TRAITS = 300
MAX_GROUPS = 50
MAX_FACT_BYTES = 1024
MAX_TEXT_CHARS = 4096
"""The limits of docs/how-to/consuming.md. Change them here too if you change them in `consumer/contacts/contact.py`."""


class _Who(NamedTuple):
    """A user, or a visitor by an anonymous id; the same text may be both."""

    kind: str
    id: str


@dataclass(frozen=True, kw_only=True)
class _Said:
    """A message, its contact, and its event time, "" if unknown."""

    time: str
    received_at: str
    contact: _Who
    message: JsonObject

    @property
    def type(self) -> str:
        call_type: str = self.message["type"]
        return call_type

    @property
    def visitor(self) -> _Who | None:
        """The visitor that an alias merges into a user."""
        previous = self.message.get("previous_id")
        is_alias = self.type == "alias" and self.contact.kind == "user" and previous != self.contact.id
        return _Who("visitor", previous) if is_alias and isinstance(previous, str) else None


class _Facts:
    """Traits or groups. Messages are added oldest first, so a later value replaces an earlier one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: dict[str, object] = {}
        self._too_long: set[str] = set()
        self._is_cut = False

    def set(self, one: _Said, values: Mapping[str, object]) -> None:
        for name, value in sorted(values.items()):
            if _size(one, name, None) > MAX_FACT_BYTES:
                self._is_cut = True
                continue
            self._values.pop(name, None)
            self._too_long.discard(name)
            self._values[name] = value
            if _size(one, name, value) > MAX_FACT_BYTES:
                self._too_long.add(name)

    @property
    def newest(self) -> dict[str, object]:
        return {name: self._values[name] for name in [*self._values][-self._limit :]}

    @property
    def kept(self) -> dict[str, object]:
        return {name: value for name, value in self.newest.items() if name not in self._too_long}

    @property
    def left_out(self) -> list[str]:
        return sorted(self._too_long & self.newest.keys())

    @property
    def is_cut(self) -> bool:
        return self._is_cut or len(self._values) > self._limit


def _size(one: _Said, name: str, value: object) -> int:
    fact = [name, [one.time, one.message["message_id"], value]]
    return len(json.dumps(fact, ensure_ascii=False).encode("utf-8", "backslashreplace"))


def expected_contacts(messages: Iterable[Due], *, now: str) -> dict[str, JsonObject]:
    """Return the contacts of one customer by id, in the form of `destination contacts list --json`.

    `now` is the time of storage, for messages without a time of receipt.
    """
    said = sorted((_said(message, now) for message in messages), key=lambda one: (one.time, one.message["message_id"]))
    erased_until = _erased_until(said)

    def counts(contact: _Who, time: str) -> bool:
        return contact not in erased_until or time > erased_until[contact]

    merged_into = {
        one.visitor: one.contact for one in said if one.visitor is not None and counts(one.visitor, one.time)
    }
    valid = [one for one in said if one.type != "delete" and counts(one.contact, one.time)]
    accounts = _accounts(said)
    of_contact: defaultdict[_Who, list[_Said]] = defaultdict(list)
    for one in valid:
        of_contact[merged_into.get(one.contact, one.contact)].append(one)
    speakers = {one.contact for one in valid}
    contacts: dict[str, JsonObject] = {}
    for root, own in of_contact.items():
        visitors = [visitor for visitor, user in merged_into.items() if user == root]
        # A user id that an alias names as a visitor is not merged: that contact stays separate.
        merged = [one.id for one in visitors if one in speakers or _Who("user", one.id) not in speakers]
        contacts[_shortened(root.id)] = {
            "id": _shortened(root.id),
            "merged": sorted(map(_shortened, merged)),
            **_facts(own, accounts),
        }
    return contacts


def _facts(own: Iterable[_Said], accounts: Mapping[str, _Facts]) -> JsonObject:
    """Return the facts about a contact in its messages."""
    traits, groups = _Facts(MAX_TRAITS), _Facts(MAX_GROUPS)
    events: Counter[str] = Counter()
    last_seen = ""
    for one in own:
        message, context = one.message, one.message.get("context")
        if not isinstance(context, dict) or context.get("active") is not False:
            last_seen = one.time  # the latest one comes last
        match one.type:
            case "identify":
                said = message.get("traits", context.get("traits") if isinstance(context, dict) else None)
                traits.set(one, said if isinstance(said, dict) else {})
            case "group":
                groups.set(one, {message["group_id"]: None})
            case "track":
                events[_shortened(message["event"])] += 1
    left_out = {
        "traits": traits.left_out,
        "groups": sorted(
            group_id for group_id in groups.kept if accounts[group_id].left_out or accounts[group_id].is_cut
        ),
        "more": traits.is_cut or groups.is_cut,
    }
    return {
        "traits": traits.kept,
        "groups": {group_id: accounts[group_id].kept for group_id in groups.kept},
        "last_seen": last_seen,
        "events": events,
        **({"left_out": left_out} if any(left_out.values()) else {}),
    }


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else f"{text[:MAX_TEXT_CHARS]}…"


def _said(message: Due, now: str) -> _Said:
    """Read a message. Its event time is at most its time of receipt: a clock that is ahead is wrong."""
    body, moments = message.body, message.moments
    received_at = sortable(moments.received) if moments.received else now
    user_id = body.get("user_id")
    return _Said(
        time=min(sortable(moments.original), received_at) if moments.original else "",
        received_at=received_at,
        contact=_Who("user", user_id) if user_id else _Who("visitor", body["anonymous_id"]),
        message=body,
    )


def _accounts(said: Iterable[_Said]) -> Mapping[str, _Facts]:
    """Return the traits of accounts, which a user's erasure does not affect."""
    accounts: defaultdict[str, _Facts] = defaultdict(lambda: _Facts(MAX_TRAITS))
    for one in said:
        if one.type == "group":
            traits = one.message.get("traits")
            accounts[one.message["group_id"]].set(one, traits if isinstance(traits, dict) else {})
    return accounts


def _erased_until(said: Iterable[_Said]) -> dict[_Who, str]:
    """Return the time until which contacts are erased: users in `delete` messages, and their visitors at that time."""
    until: dict[_Who, str] = {}
    for one in said:
        if one.type == "delete":
            until[one.contact] = max(one.received_at, until.get(one.contact, ""))
    of_users = dict(until)
    for one in said:
        erased = of_users.get(one.contact)
        if one.visitor is not None and erased is not None and one.time <= erased:
            until[one.visitor] = max(erased, until.get(one.visitor, ""))
    return until
