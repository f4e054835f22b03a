"""The contact table: where contacts are kept, in DynamoDB, such that messages may come beside each other.

Items of one customer (partition key `customer`), by their sort key `item`, which holds nothing readable:

- `contact#<key>` and `account#<key>`: a `Contact` as JSON in `facts`, compressed where it is long, and a `version`, on
  which its puts are conditional. It takes some 10,000 other contacts that were merged into one, or as many traits.
- `seen#<key>#<day>#<hash of the event>`: what a contact did on a day (UTC, or `unknown`): the name of the `event`, and
  in the set `messages` event times and hashes of message ids. It takes some 10,000 messages.

What does not fit into an item of 400 KB is refused by DynamoDB and raises, so that it ends among the dead letters.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from consumer.contacts import (
    Contact,
    Profile,
    account_of,
    contact_of,
    erasure_time,
    event_of,
    event_time,
    key_of,
    members_of,
    previous_of,
    root_of,
    said_of_account,
    said_of_contact,
    said_of_previous,
)
from handler.decode import JsonObject
from handler.items import json_attribute, read_json_attribute
from handler.record import escape, sha256, utf8
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_TRIES = 10
"""To put an item that others change at the same time."""
MAX_PAUSE_SECONDS = 0.2
"""Between two of them; ten messages of a queue have 30 seconds."""
MESSAGE_HASH_CHARS = 12
"""Enough to tell the messages of one microsecond apart; the shorter they are, the more an item takes."""

UNKNOWN_DAY = "unknown"
DAY_CHARS = len("2020-05-09")

Item = Mapping[str, Any]
"""An item of the table, as DynamoDB returns it."""


class Conflict(Exception):
    """Others changed an item whenever this one was about to; the message is to come again."""


class ContactTable:
    """The contacts of one customer, by a client that lets pass no answer that confirms nothing; `sleep` is in seconds.

    What one reads is whole when all messages were taken. Until then an alias or an erasure may show by half.
    """

    def __init__(
        self, client: "DynamoDBClient", name: str, *, customer: str, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._client = client
        self._name = name
        self._customer = customer
        self._sleep = sleep

    def take(self, message: JsonObject) -> None:
        """Keep what a message says; raises `Conflict` or one of `STORE_ERRORS`, after which it is to come again.

        The order of the steps is what lets messages come beside each other and be interrupted anywhere. An erasure is
        first noted and then sweeps, while an event is first counted and then looks for an erasure. An alias is first
        noted with the user, where an erasure begins, and then looks for one that came before it.
        """
        key = key_of(self._customer, contact_of(message))
        account, event, previous = account_of(message), event_of(message), previous_of(message)
        if account is not None:
            self._join(f"account#{key_of(self._customer, account)}", said_of_account(message))
        if event is not None:
            self._count(key, event, message)
        contact = self._join(f"contact#{key}", said_of_contact(message, self._customer))
        if event is not None and contact.voids(event_time(message)):
            self._uncount(_seen_item(key, event, message), [_counted(message)])
        if previous is not None:
            previous_key = key_of(self._customer, previous)
            self._join(f"contact#{previous_key}", said_of_previous(message, self._customer))
            if contact.deleted_at is not None:
                self._erase(previous_key, contact.deleted_at)
        if message["type"] == DELETE:
            self._erase(key, erasure_time(message))

    def _join(self, name: str, said: Contact) -> Contact:
        """Add to what is known of a contact or an account, and return all of that."""
        for _ in range(MAX_TRIES):
            item = self._get(name)
            contact = _contact(item).join(said)
            facts = json_attribute(contact.to_json())
            if item.get("facts") == facts:
                return contact
            read = item.get("version", {"N": "0"})
            try:
                self._client.put_item(
                    TableName=self._name,
                    Item={**self._key(name), "version": {"N": str(int(read["N"]) + 1)}, "facts": facts},
                    ConditionExpression="attribute_not_exists(#version) OR #version = :read",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues={":read": read},
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                self._sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 -- no secret
            else:
                return contact
        raise Conflict(f"{name} was changed by others {MAX_TRIES} times in a row")

    def _count(self, key: str, event: str, message: JsonObject) -> None:
        """Add a message to the set of those that count; a set does not mind what comes again."""
        self._client.update_item(
            TableName=self._name,
            Key=self._key(_seen_item(key, event, message)),
            UpdateExpression="SET #event = :event ADD #messages :messages",
            ExpressionAttributeNames={"#event": "event", "#messages": "messages"},
            ExpressionAttributeValues={":event": {"S": utf8(event)}, ":messages": {"SS": [_counted(message)]}},
        )

    def _uncount(self, name: str, counted: list[str]) -> None:
        """Take messages, if any, out of their set, and delete the item of a set that is empty."""
        if counted:
            with suppress(self._client.exceptions.ConditionalCheckFailedException):
                self._client.update_item(
                    TableName=self._name,
                    Key=self._key(name),
                    UpdateExpression="DELETE #messages :messages",
                    ConditionExpression="attribute_exists(#messages)",
                    ExpressionAttributeNames={"#messages": "messages"},
                    ExpressionAttributeValues={":messages": {"SS": counted}},
                )
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.delete_item(
                TableName=self._name,
                Key=self._key(name),
                ConditionExpression="attribute_not_exists(#messages)",
                ExpressionAttributeNames={"#messages": "messages"},
            )

    def _erase(self, key: str, deleted_at: str) -> None:
        """Erase a contact and all that ever became part of it; all of them again where one was erased already.

        That one may be the last that an interrupted try got to.
        """
        waiting, reached = [key], {key}
        while waiting:
            key = waiting.pop()
            contact = self._join(f"contact#{key}", Contact(deleted_at=deleted_at))
            self._sweep(key, deleted_at)
            waiting += contact.merged - reached
            reached |= contact.merged

    def _sweep(self, key: str, deleted_at: str) -> None:
        """Delete what a contact did until then. Of an earlier day that is all, be it added meanwhile."""
        last_day = deleted_at[:DAY_CHARS]
        for item in self._query(f"seen#{key}#"):
            name = item["item"]["S"]
            day = name.split("#")[2]
            if day == UNKNOWN_DAY or day < last_day:
                self._client.delete_item(TableName=self._name, Key=self._key(name))
            elif day == last_day:
                self._uncount(name, [one for one in _messages(item) if _time(one) <= deleted_at])

    def profiles(self) -> Iterator[Profile]:
        """Yield all contacts, merged ones as one, ordered by what tells nothing; read page by page."""
        for item in self._query("contact#"):
            key, contact = item["item"]["S"].removeprefix("contact#"), _contact(item)
            if contact.contact_id is not None and self._is_root(key, contact):
                yield Profile.of(members_of(key, contact, self._read))

    def _is_root(self, key: str, contact: Contact) -> bool:
        """Whether a contact stands for itself, or for others in a circle, which each of them is merged into."""
        return contact.merged_into is None or (bool(contact.merged) and root_of(key, self._read) == key)

    def find(self, contact_id: str) -> Profile | None:
        """Return the contact that has an id, or of which that is a part."""
        key = key_of(self._customer, contact_id)
        if self._read(key).contact_id is None:
            return None
        root = root_of(key, self._read)
        return Profile.of(members_of(root, self._read(root), self._read))

    def to_json(self, profile: Profile) -> JsonObject:
        """Return a contact whole: with the traits of its accounts, and how often it did what."""
        return {
            "id": profile.contact_id,
            "traits": profile.traits,
            "groups": {group_id: self._account(group_id) for group_id in profile.groups},
            "last_seen": profile.last_seen,
            "events": self._events(profile),
            "merged": profile.merged,
        }

    def _account(self, group_id: str) -> JsonObject:
        return _contact(self._get(f"account#{key_of(self._customer, group_id)}")).values

    def _events(self, profile: Profile) -> dict[str, int]:
        """Count by event; what was erased is left out, though an interrupted message may not have swept it yet."""
        counts: Counter[str] = Counter()
        for key, contact in profile.members.items():
            for item in self._query(f"seen#{key}#"):
                counts[item["event"]["S"]] += sum(not contact.voids(_time(one)) for one in _messages(item))
        return {event: counts[event] for event in sorted(+counts)}

    def _read(self, key: str) -> Contact:
        return _contact(self._get(f"contact#{key}"))

    def _get(self, name: str) -> Item:
        """Return an item, an empty one where there is none."""
        answer = self._client.get_item(TableName=self._name, Key=self._key(name), ConsistentRead=True)
        return answer.get("Item", {})

    def _query(self, start: str) -> Iterator[Item]:
        """Yield the items whose names start with a text, as they are now."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            KeyConditionExpression="#customer = :customer AND begins_with(#item, :start)",
            ExpressionAttributeNames={"#customer": "customer", "#item": "item"},
            ExpressionAttributeValues={":customer": {"S": escape(self._customer)}, ":start": {"S": start}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]

    def _key(self, name: str) -> dict[str, Any]:
        return {"customer": {"S": escape(self._customer)}, "item": {"S": name}}


def _contact(item: Item) -> Contact:
    return Contact.from_json(read_json_attribute(item["facts"])) if item else Contact()


def _seen_item(key: str, event: str, message: JsonObject) -> str:
    day = event_time(message)[:DAY_CHARS] or UNKNOWN_DAY
    return f"seen#{key}#{day}#{sha256(escape(event))}"


def _counted(message: JsonObject) -> str:
    """Return what stands for a message in a set: the same whenever it comes."""
    return f"{event_time(message)}#{sha256(escape(message['message_id']))[:MESSAGE_HASH_CHARS]}"


def _messages(item: Item) -> list[str]:
    """Return the set of an item; none where it was emptied and is about to be deleted."""
    messages: list[str] = item.get("messages", {"SS": []})["SS"]
    return messages


def _time(counted: str) -> str:
    return counted.partition("#")[0]
