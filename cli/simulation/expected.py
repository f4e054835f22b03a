"""What contacts must come of messages, computed as plainly as can be, to compare the consumer's work with.

It shares nothing with `consumer/contacts.py`: it has all messages at once and sorts them, where the consumer gets them
one by one in any order. It counts on what `destination simulate` sends: no alias leads back to where it came from.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from handler.canonicalise import UNDATED, Message
from handler.decode import JsonObject
from handler.timestamps import parse_time

CLOCK_ERROR = timedelta(days=1)
"""A message from further ahead of its receipt tells no time."""


@dataclass(frozen=True, kw_only=True)
class _Said:
    """A message, the contact whose it is, and its event time, "" where that is unknown."""

    time: str
    contact: str
    message: JsonObject


def expected_contacts(messages: Iterable[Message], *, now: str) -> dict[str, JsonObject]:
    """Return the contacts of one customer by their ids, each as `destination contacts list --json` prints it.

    `now` is when they were stored, for messages that do not tell when they were received.
    """
    said = sorted((_said(message, now) for message in messages), key=lambda one: (one.time, one.message["message_id"]))
    aliases = [one for one in said if one.message["type"] == "alias"]
    erased_until = _erased_until(said, aliases, now)

    def counts(contact: str, time: str) -> bool:
        return contact not in erased_until or time > erased_until[contact]

    merged_into = {
        one.message["previous_id"]: one.contact for one in aliases if counts(one.message["previous_id"], one.time)
    }

    def root_of(contact: str) -> str:
        return root_of(merged_into[contact]) if contact in merged_into else contact

    accounts = _accounts(said)
    contacts: dict[str, JsonObject] = {}
    for one in said:
        message, root = one.message, root_of(one.contact)
        if message["type"] == "delete" or not counts(one.contact, one.time):
            continue
        contact = contacts.setdefault(root, {"id": root, "traits": {}, "groups": {}, "events": Counter()})
        contact["last_seen"] = one.time  # which is the latest one, at the end
        match message["type"]:
            case "identify":
                traits = message.get("traits", message.get("context", {}).get("traits"))
                contact["traits"].update(traits if isinstance(traits, dict) else {})
            case "group":
                contact["groups"][message["group_id"]] = accounts[message["group_id"]]
            case "track":
                contact["events"][message["event"]] += 1
    for root, contact in contacts.items():
        contact["merged"] = sorted(other for other in merged_into if root_of(other) == root)
    return contacts


def _said(message: Message, now: str) -> _Said:
    body = message.body
    received = datetime.fromisoformat(parse_time(body.get("received_at")) or now)
    is_known = message.time != UNDATED and datetime.fromisoformat(message.time) <= received + CLOCK_ERROR
    return _Said(
        time=message.time if is_known else "",
        contact=body.get("user_id") or body["anonymous_id"],
        message=body,
    )


def _accounts(said: Iterable[_Said]) -> Mapping[str, JsonObject]:
    """Return the traits of accounts, which no user's erasure touches."""
    accounts: defaultdict[str, JsonObject] = defaultdict(dict)
    for one in said:
        if one.message["type"] == "group":
            accounts[one.message["group_id"]].update(one.message.get("traits", {}))
    return accounts


def _erased_until(said: Iterable[_Said], aliases: Iterable[_Said], now: str) -> dict[str, str]:
    """Return until when contacts are erased: those that a `delete` names, and all that ever became part of them."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for alias in aliases:
        parts[alias.contact].add(alias.message["previous_id"])
    until: dict[str, str] = {}

    def erase(contact: str, time: str) -> None:
        until[contact] = max(time, until.get(contact, ""))
        for part in parts[contact]:
            erase(part, time)

    for one in said:
        if one.message["type"] == "delete":
            erase(one.contact, one.time or parse_time(one.message.get("received_at")) or now)
    return until
