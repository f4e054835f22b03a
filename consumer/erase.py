"""Erasing one subject: what is stored of it, what was rejected of it, and then the `delete` messages themselves.

It may end anywhere and begin again. What a receipt counts is noted before it is deleted, page by page, together with
the page, so that nothing is counted twice; and a `delete` message is deleted last, so that one which is still in the
event table is one that is not carried out.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from consumer.erasures import ErasureRequest, ErasureTable, Progress, Receipt
from handler.erased import DELETE
from handler.items import read_json_attribute
from handler.record import sha256, subject_key
from handler.timestamps import sortable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

WRITE_UNITS_PER_SECOND = 250
"""What an eraser takes of a table: a quarter of what one partition can, so that new messages find their place.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
"""
PAGE_KEYS = 100
KEY_HASH_CHARS = 16
REJECTS_INDEX = "by_subject"


class Scope(StrEnum):
    """What is erased: what is stored under the id, or also under ids that the user's own messages name."""

    USER = "user"
    LINKED = "linked"


class OutOfTimeError(Exception):
    """An erasure stopped between two items, because its time was over; begun again, it goes on there."""


Key = dict[str, Any]
"""The key of an item, as DynamoDB writes it."""
Item = Mapping[str, Any]
"""An item of the event table, likewise."""
EVENT_KEY = ("subject", "position")
REJECT_KEY = ("customer_day_shard", "body_hash")


class Link(NamedTuple):
    """Another id that a user's messages name: its kind is `anonymous`, or `previous` of an alias call."""

    kind: str
    id: str


class Eraser:
    """Erases subjects; `clock` gives seconds since 1970.

    The client lets pass no answer that confirms nothing: see `consumer/clients.py`.
    """

    def __init__(  # noqa: PLR0913 -- each is one setting, and all are named at the only call
        self,
        client: "DynamoDBClient",
        *,
        event_table: str,
        rejects_table: str,
        erasures: ErasureTable,
        scope: Scope,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._event_table = event_table
        self._rejects_table = rejects_table
        self._erasures = erasures
        self._scope = scope
        self._clock = clock
        self._sleep = sleep

    def bury(self, request: ErasureRequest) -> None:
        """Leave a tombstone, by which the endpoint knows who was erased; raises `STORE_ERRORS`."""
        self._erasures.bury(request)

    def erase(self, request: ErasureRequest, *, until: float) -> Receipt | None:
        """Carry out a request, or the rest of it, and return its receipt; None where it was finished before.

        Raises `OutOfTimeError` when the clock passes `until`, and `STORE_ERRORS`.
        """
        progress = self._erasures.progress(request)
        if progress is not None and progress.receipt.finished_at:
            return None
        links = set(links_of(self._client, self._event_table, request.subject))
        if progress is None:
            linked_ids = len({link.id for link in links})
            progress = self._erasures.begin(request, scope=self._scope, linked_ids=linked_ids, now=self._now())
        if self._scope is Scope.LINKED:
            linked = {subject for link in links for subject in linked_subjects(request.customer_id, link)}
            for subject in sorted(linked - {request.subject}):
                progress = self._erase_subject(progress, subject, until=until, prefix="linked_")
        progress = self._erase_subject(progress, request.subject, until=until)
        return self._erasures.finish(progress, now=self._now())

    def _erase_subject(self, progress: Progress, subject: str, *, until: float, prefix: str = "") -> Progress:
        rejects = rejects_of(self._client, self._rejects_table, subject)
        progress = self._sweep(progress, f"{prefix}rejects", self._rejects_table, rejects, until=until)
        deletes: list[Key] = []
        messages = _but_deletes(stored_of(self._client, self._event_table, subject), deletes)
        progress = self._sweep(progress, f"{prefix}messages", self._event_table, messages, until=until)
        for key in deletes:
            self._delete(self._event_table, key, until)
        return progress

    def _sweep(self, progress: Progress, count: str, table: str, keys: Iterable[Key], *, until: float) -> Progress:
        """Delete items page by page, each of which is counted first."""
        for page in _pages(keys):
            hashes = frozenset(_key_hash(key) for key in page)
            fresh = len(hashes - progress.page)
            receipt = replace(progress.receipt, **{count: getattr(progress.receipt, count) + fresh})
            progress = Progress(receipt=receipt, page=hashes)
            self._erasures.note(progress)
            for key in page:
                self._delete(table, key, until)
        return progress

    def _delete(self, table: str, key: Key, until: float) -> None:
        """Delete an item, at a pace that leaves the table to others."""
        began = self._clock()
        if began > until:
            raise OutOfTimeError
        answer = self._client.delete_item(TableName=table, Key=key)
        pause = answer["ConsumedCapacity"]["CapacityUnits"] / WRITE_UNITS_PER_SECOND - (self._clock() - began)
        if pause > 0:
            self._sleep(pause)

    def _now(self) -> str:
        return sortable(datetime.fromtimestamp(self._clock(), UTC))


def stored_of(client: "DynamoDBClient", event_table: str, subject: str) -> Iterator[Item]:
    """Yield what is stored of a subject: key, call type, and anonymous id; raises `STORE_ERRORS`."""
    names = (*EVENT_KEY, "type", "anonymous_id")
    pages = client.get_paginator("query").paginate(
        TableName=event_table,
        KeyConditionExpression="#subject = :subject",
        ExpressionAttributeValues={":subject": {"S": subject}},
        ProjectionExpression=", ".join(f"#{name}" for name in names),
        ExpressionAttributeNames={f"#{name}": name for name in names},
        ConsistentRead=True,
    )
    for page in pages:
        yield from page["Items"]


def _but_deletes(items: Iterable[Item], deletes: list[Key]) -> Iterator[Key]:
    """Yield the keys of messages, and put those of `delete` messages aside."""
    for item in items:
        if item["type"]["S"] == DELETE:
            deletes.append(_key(item))
        else:
            yield _key(item)


def links_of(client: "DynamoDBClient", event_table: str, subject: str) -> Iterator[Link]:
    """Yield the other ids that a subject's messages name, some of them often; raises `STORE_ERRORS`."""
    for item in stored_of(client, event_table, subject):
        if item["type"]["S"] == "alias":
            yield from _link(client, event_table, _key(item), "previous")
        if "anonymous_id" in item and item["type"]["S"] != DELETE:
            anonymous_id = item["anonymous_id"]["S"]
            if "?" in anonymous_id:  # which may stand for what UTF-8 can't hold
                yield from _link(client, event_table, _key(item), "anonymous")
            else:
                yield Link("anonymous", anonymous_id)


def _link(client: "DynamoDBClient", event_table: str, key: Key, kind: str) -> Iterator[Link]:
    """Read an id that a message names from its JSON."""
    item = client.get_item(
        TableName=event_table, Key=key, ConsistentRead=True, ProjectionExpression="message"
    ).get("Item")  # fmt: skip
    if item is not None:
        yield Link(kind, read_json_attribute(item["message"])[f"{kind}_id"])


def linked_subjects(customer_id: str, link: Link) -> list[str]:
    """Return the subjects that a linked id may have: a previous id may be a user's or an anonymous one."""
    anonymous = subject_key(customer_id, "anonymous", link.id)
    return [anonymous] if link.kind == "anonymous" else [anonymous, subject_key(customer_id, "user", link.id)]


def rejects_of(client: "DynamoDBClient", rejects_table: str, subject: str) -> Iterator[Key]:
    """Yield the keys of the rejects that name a subject; raises `STORE_ERRORS`."""
    pages = client.get_paginator("query").paginate(
        TableName=rejects_table,
        IndexName=REJECTS_INDEX,
        KeyConditionExpression="subject = :subject",
        ExpressionAttributeValues={":subject": {"S": subject}},
    )
    for page in pages:
        for item in page["Items"]:
            yield {name: item[name] for name in REJECT_KEY}


def _key(item: Item) -> Key:
    return {name: item[name] for name in EVENT_KEY}


def _pages(keys: Iterable[Key]) -> Iterator[list[Key]]:
    remaining = iter(keys)
    while page := list(islice(remaining, PAGE_KEYS)):
        yield page


def _key_hash(key: Key) -> str:
    return sha256("\n".join(value["S"] for value in key.values()))[:KEY_HASH_CHARS]
