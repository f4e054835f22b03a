"""The contact table: keeps contacts in DynamoDB while messages arrive concurrently, in any order, and repeatedly.

The items of one customer (partition key `customer`), by their sort key `item`, which has no readable ids:

- `contact#<key>` and `account#<key>`: a `Contact` as JSON in `facts`, compressed if it is long. Puts are conditional on
  `version`. The limits of `Contact` keep the item below DynamoDB's 400 KB.
- `part#<key of a user>#<key of a visitor>`: an alias made the visitor part of the user. `time` is the event time of the
  first such alias. `erased` is the last finished erasure of the visitor that an erasure of the user caused.
- `seen#<key>#<day>#<hash of the event>`: an event of a contact on one day (UTC, or `unknown`). It has the name of the
  `event`, and in the set `messages` one text per message. A full set is split by hashes of these texts: `…#<first
  digits>`.
"""

import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from consumer.contacts.contact import (
    Contact,
    Profile,
    account_in,
    account_of,
    claimed_time,
    contact_in,
    contact_key,
    erasure_time,
    event_of,
    event_time,
    key_of,
    previous_in,
    previous_of,
    shortened,
    visitor_key_of,
)
from consumer.errors import PermanentFailure
from handler.decode import JsonObject
from handler.items import read_json_attribute, read_text_attribute, save_units
from handler.record import escape, sha256, utf8
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

MAX_TRIES = 10
"""Tries to put an item that others change at the same time."""
MAX_PAUSE_SECONDS = 0.2
"""Longest pause between two tries; ten messages of a queue have 30 seconds."""
MAX_ERASING_SECONDS = 10
"""For one hand-over of a `delete`: the other messages of its batch need time too."""
MAX_SET_MESSAGES = 250
"""Limit for one item. DynamoDB charges each write by the size of the whole item. So a set is split long before 400
KB."""
BATCH_DELETES = 25
"""https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html"""
MESSAGE_HASH_CHARS = 12
"""Enough to distinguish the messages of one microsecond. Longer hashes would make items larger."""

UNKNOWN_DAY = "unknown"
DAY_CHARS = len("2020-05-09")

Item = Mapping[str, Any]
"""An item of the table, as DynamoDB returns it."""


class Conflict(Exception):
    """Others changed an item before each try to put it. The message must be handed over again."""


class Unfinished(Exception):
    """An erasure takes longer than one hand-over may. Erased data stays erased; the next hand-over continues."""


class ContactTable:
    """The contacts of one customer.

    The client must treat an unconfirmed response as an error. `sleep` and `clock` use seconds. Reads are complete when
    all messages were handled. Until then, an alias or an erasure may be visible in part.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        name: str,
        *,
        customer: str,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._name = name
        self._customer = customer
        self._sleep = sleep
        self._clock = clock

    def take(self, message: JsonObject) -> None:
        """Store the facts of a message.

        Raises `PermanentFailure`. Raises `Conflict`, `Unfinished` or one of `STORE_ERRORS` if the message must be
        handed over again.

        The order of the steps allows concurrent messages, and interruptions anywhere. An erasure is first recorded and
        then sweeps. An event is first counted, and an alias is first recorded as a part of the user; then both look for
        an erasure. So at least one of the two sees the other.
        """
        key = contact_key(message, self._customer)
        account, event, previous = account_of(message), event_of(message), previous_of(message)
        if account is not None:
            self._join(f"account#{key_of(self._customer, account)}", account_in(message))
        if event is not None:
            self._count(key, event, message)
        if previous is not None:
            self._note_part(key, visitor_key_of(self._customer, previous), event_time(message))
        contact = self._join(f"contact#{key}", contact_in(message))
        if event is not None and contact.voids(event_time(message)):
            self._uncount(key, event, message)
        if previous is not None:
            self._take_alias(key, previous, contact, message)
        if message["type"] == DELETE:
            self._erase(key, erasure_time(message))

    def _take_alias(self, key: str, previous: str, contact: Contact, message: JsonObject) -> None:
        """Merge a visitor into a user, and erase the visitor if the user was erased after that."""
        visitor = visitor_key_of(self._customer, previous)
        self._join(f"contact#{visitor}", previous_in(message, self._customer))
        if contact.deleted_at is not None and contact.voids(event_time(message)):
            self._erase_part(key, visitor, contact.deleted_at, self._deadline())

    def _join(self, name: str, said: Contact) -> Contact:
        """Add facts to a contact or an account, and return all of its facts."""
        for _ in range(MAX_TRIES):
            item = self._get(name)
            contact = _contact(item).join(said)
            facts = _json_text(contact.to_json())
            if item and read_text_attribute(item["facts"]) == facts:
                return contact
            read = item.get("version", {"N": "0"})
            changed: dict[str, AttributeValueTypeDef] = {
                **self._key(name),
                "version": {"N": str(int(read["N"]) + 1)},
                "facts": {"S": facts},
            }
            save_units(changed, "facts")
            try:
                self._client.put_item(
                    TableName=self._name,
                    Item=changed,
                    ConditionExpression="attribute_not_exists(#version) OR #version = :read",
                    ExpressionAttributeNames={"#version": "version"},
                    ExpressionAttributeValues={":read": read},
                )
            except self._client.exceptions.ConditionalCheckFailedException:
                self._pause()
            else:
                return contact
        raise Conflict(f"{name} was changed by others {MAX_TRIES} times in a row")

    def _pause(self) -> None:
        self._sleep(random.uniform(0, MAX_PAUSE_SECONDS))  # noqa: S311 -- not a secret

    def _count(self, key: str, event: str, message: JsonObject) -> None:
        """Add a message to the set of counted messages; no effect if it is there already.

        If the set had no room at first, a message that is handed over again may get into two items. A read counts it
        once. Raises `PermanentFailure` if all sets for the message are full.
        """
        # Messages that share an id must be split too, so the text has more than the id.
        digest = sha256(_counted(message))
        for digits in range(len(digest) + 1):
            split = f"#{digest[:digits]}" if digits else ""
            with suppress(self._client.exceptions.ConditionalCheckFailedException):
                self._client.update_item(
                    TableName=self._name,
                    Key=self._key(_seen_item(key, event, message) + split),
                    UpdateExpression="SET #event = :event ADD #messages :messages",
                    ConditionExpression=(
                        "attribute_not_exists(#messages) OR size(#messages) < :full OR contains(#messages, :message)"
                    ),
                    ExpressionAttributeNames={"#event": "event", "#messages": "messages"},
                    ExpressionAttributeValues={
                        ":event": {"S": utf8(shortened(event))},
                        ":messages": {"SS": [_counted(message)]},
                        ":message": {"S": _counted(message)},
                        ":full": {"N": str(MAX_SET_MESSAGES)},
                    },
                )
                return
        raise PermanentFailure("The sets of the messages of this user, event and day are full")

    def _uncount(self, key: str, event: str, message: JsonObject) -> None:
        """Remove a message from the sets that may contain it."""
        counted = _counted(message)
        for item in self._query(_seen_item(key, event, message)):
            self._remove(item["item"]["S"], {counted}.intersection(_messages(item)))

    def _remove(self, name: str, counted: Iterable[str]) -> None:
        """Remove messages from their set, if any, and delete the item if the set is empty.

        Without the condition, DynamoDB would create an item again that was deleted meanwhile.
        """
        messages = sorted(counted)
        if messages:
            with suppress(self._client.exceptions.ConditionalCheckFailedException):
                self._client.update_item(
                    TableName=self._name,
                    Key=self._key(name),
                    UpdateExpression="DELETE #messages :messages",
                    ConditionExpression="attribute_exists(#messages)",
                    ExpressionAttributeNames={"#messages": "messages"},
                    ExpressionAttributeValues={":messages": {"SS": messages}},
                )
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.delete_item(
                TableName=self._name,
                Key=self._key(name),
                ConditionExpression="attribute_not_exists(#messages)",
                ExpressionAttributeNames={"#messages": "messages"},
            )

    def _note_part(self, key: str, visitor: str, moment: str) -> None:
        """Record that a visitor is part of a user, since the earliest alias that says so."""
        with suppress(self._client.exceptions.ConditionalCheckFailedException):
            self._client.update_item(
                TableName=self._name,
                Key=self._key(f"part#{key}#{visitor}"),
                UpdateExpression="SET #time = :time",
                ConditionExpression="attribute_not_exists(#time) OR #time > :time",
                ExpressionAttributeNames={"#time": "time"},
                ExpressionAttributeValues={":time": {"S": moment}},
            )

    def _erase(self, key: str, deleted_at: str) -> None:
        """Sweep a contact, and erase the visitors that were part of it at the erasure; raises `Unfinished`."""
        deadline = self._deadline()
        self._sweep(key, deleted_at, deadline)
        for part in self._query(f"part#{key}#"):
            is_erased = part.get("erased", {"S": ""})["S"] >= deleted_at
            if part["time"]["S"] <= deleted_at and not is_erased:
                self._erase_part(key, part["item"]["S"].split("#")[2], deleted_at, deadline)

    def _erase_part(self, key: str, visitor: str, deleted_at: str, deadline: float) -> None:
        """Erase a visitor with the user. Repeat an erasure that has begun, because it may have been interrupted."""
        self._join(f"contact#{visitor}", Contact(deleted_at=deleted_at))
        self._sweep(visitor, deleted_at, deadline)
        self._client.update_item(
            TableName=self._name,
            Key=self._key(f"part#{key}#{visitor}"),
            UpdateExpression="SET #erased = :erased",
            ExpressionAttributeNames={"#erased": "erased"},
            ExpressionAttributeValues={":erased": {"S": deleted_at}},
        )

    def _sweep(self, key: str, deleted_at: str, deadline: float) -> None:
        """Delete the events of a contact until an erasure; raises `Unfinished`.

        The items of earlier days are deleted as a whole, with messages that are added meanwhile.
        """
        day = deleted_at[:DAY_CHARS]
        self._delete(self._query(f"seen#{key}#{UNKNOWN_DAY}#"), deadline)
        self._delete(self._query(f"seen#{key}#", before=f"seen#{key}#{day}"), deadline)
        for item in self._query(f"seen#{key}#{day}#"):
            self._check(deadline)
            self._remove(item["item"]["S"], (one for one in _messages(item) if _time(one) <= deleted_at))

    def _delete(self, items: Iterator[Item], deadline: float) -> None:
        """Delete items in groups; raises `Unfinished` between two calls."""
        while names := [item["item"] for item in itertools.islice(items, BATCH_DELETES)]:
            requests: Any = {
                self._name: [{"DeleteRequest": {"Key": {**self._key(""), "item": name}}} for name in names]
            }
            while requests:
                self._check(deadline)
                requests = self._client.batch_write_item(RequestItems=requests)["UnprocessedItems"]
                if requests:
                    self._pause()

    def _deadline(self) -> float:
        return self._clock() + MAX_ERASING_SECONDS

    def _check(self, deadline: float) -> None:
        if self._clock() > deadline:
            raise Unfinished(f"The erasure took longer than {MAX_ERASING_SECONDS} seconds, and continues next time")

    def profiles(self) -> Iterator[Profile]:
        """Yield all contacts, merged ones as one, in no particular order, page by page."""
        for item in self._query("contact#"):
            contact = _contact(item)
            if contact.contact_id is not None and contact.merged_into is None:
                yield self._profile(item["item"]["S"].removeprefix("contact#"), contact)

    def find(self, contact_id: str) -> Profile | None:
        """Return the user with an id; otherwise the visitor with that id, or the user whom the visitor is part of."""
        for key in (key_of(self._customer, contact_id), visitor_key_of(self._customer, contact_id)):
            contact = self._read(key)
            if contact.merged_into is not None:
                key = contact.merged_into.value  # noqa: PLW2901 -- the user stands for the visitor
                contact = self._read(key)
            if contact.contact_id is not None:
                return self._profile(key, contact)
        return None

    def _profile(self, key: str, contact: Contact) -> Profile:
        return Profile.of({key: contact, **(dict(self._visitors(key)) if contact.has_parts else {})})

    def _visitors(self, key: str) -> Iterator[tuple[str, Contact]]:
        """Yield the visitors that are part of a contact now.

        A visitor that is known only from aliases is skipped if its id is the id of another user: nothing was merged.
        """
        for part in self._query(f"part#{key}#"):
            visitor = part["item"]["S"].split("#")[2]
            contact = self._read(visitor)
            is_part = contact.merged_into is not None and contact.merged_into.value == key
            if is_part and not (contact.updated is None and self._is_user(contact.contact_id or "")):
                yield visitor, contact

    def _is_user(self, contact_id: str) -> bool:
        return self._read(key_of(self._customer, contact_id)).contact_id is not None

    def to_json(self, profile: Profile) -> JsonObject:
        """Return a contact for display: its accounts' traits, its events, and the names of traits that are left out."""
        accounts = {group_id: self._account(group_id) for group_id in profile.groups}
        left_out = {
            "traits": profile.whole.left_out,
            "groups": [group_id for group_id, account in accounts.items() if not account.is_whole],
            "more": profile.whole.cut_at is not None,
        }
        return {
            "id": profile.contact_id,
            "traits": profile.traits,
            "groups": {group_id: account.values for group_id, account in accounts.items()},
            "last_seen": profile.last_seen,
            "events": self._events(profile),
            "merged": profile.merged,
            **({"left_out": left_out} if any(left_out.values()) else {}),
        }

    def _account(self, group_id: str) -> Contact:
        return _contact(self._get(f"account#{key_of(self._customer, group_id)}"))

    def _events(self, profile: Profile) -> dict[str, int]:
        """Return the number of messages by event. Erased ones don't count, even if they have not been swept yet."""
        seen: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for key, contact in profile.contacts.items():
            for item in self._query(f"seen#{key}#"):
                counted = (one for one in _messages(item) if not contact.voids(_time(one)))
                seen[item["event"]["S"]].update((key, _identity(one)) for one in counted)
        return {event: len(seen[event]) for event in sorted(seen) if seen[event]}

    def _read(self, key: str) -> Contact:
        return _contact(self._get(f"contact#{key}"))

    def _get(self, name: str) -> Item:
        """Return an item, an empty one if it does not exist."""
        answer = self._client.get_item(TableName=self._name, Key=self._key(name), ConsistentRead=True)
        return answer.get("Item", {})

    def _query(self, start: str, *, before: str = "") -> Iterator[Item]:
        """Yield the current items whose names start with a text; with `before`, those from that text to `before`."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            KeyConditionExpression="#customer = :customer AND "
            + ("#item BETWEEN :start AND :before" if before else "begins_with(#item, :start)"),
            ExpressionAttributeNames={"#customer": "customer", "#item": "item"},
            ExpressionAttributeValues={
                ":customer": {"S": escape(self._customer)},
                ":start": {"S": start},
                **({":before": {"S": before}} if before else {}),
            },
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]

    def _key(self, name: str) -> dict[str, Any]:
        return {"customer": {"S": escape(self._customer)}, "item": {"S": name}}


def _contact(item: Item) -> Contact:
    return Contact.from_json(read_json_attribute(item["facts"])) if item else Contact()


def _json_text(document: JsonObject) -> str:
    """Return JSON that escapes only what UTF-8 can't encode: escaping more would exceed the size limits."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace").decode()


def _seen_item(key: str, event: str, message: JsonObject) -> str:
    day = event_time(message)[:DAY_CHARS] or UNKNOWN_DAY
    return f"seen#{key}#{day}#{sha256(escape(event))}"


def _counted(message: JsonObject) -> str:
    """Return the text that represents a message in a set. It has the values that every resend repeats.

    If the sender's clock is ahead, the event time follows, because erasures compare it.
    """
    claimed, moment = claimed_time(message), event_time(message)
    identity = f"{claimed}#{sha256(escape(message['message_id']))[:MESSAGE_HASH_CHARS]}"
    return identity if moment == claimed else f"{identity}#{moment}"


def _messages(item: Item) -> list[str]:
    """Return the set of an item; empty if the set was emptied and the item is about to be deleted."""
    messages: list[str] = item.get("messages", {"SS": []})["SS"]
    return messages


def _identity(counted: str) -> str:
    return "#".join(counted.split("#")[:2])


def _time(counted: str) -> str:
    claimed, _, *moment = counted.split("#")
    return moment[0] if moment else claimed
