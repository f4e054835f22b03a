"""Erase one subject: its stored messages, its rejects, and then the `delete` messages themselves.

An erasure may be interrupted anywhere and started again. A page of keys is counted and recorded before it is deleted,
so that nothing is counted twice. Linked ids of a page are erased before the page. At the end, each `delete` message is
sent to the consumer's queue and then deleted. So a `delete` that is still in the event table has not been carried out
yet.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from consumer.erasure.table import ErasureRequest, ErasureTable, FinishedElsewhereError, Progress, Receipt
from consumer.runtime.stored import UNREADABLE, Image, Item, image_of
from handler.errors import STORE_ERRORS
from handler.items import read_json_attribute
from handler.record import escape, sha256, subject_key
from handler.spec import DELETE
from handler.timestamps import sortable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import DeleteItemOutputTypeDef

WRITE_UNITS_PER_SECOND = 250
"""The capacity that an eraser uses: a quarter of one partition's, so that new messages can be written.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
"""
PAGE_KEYS = 100
MAX_DELETE_TRIES = 3
DELETE_RETRY_SECONDS = 0.2
HASH_CHARS = 16
REJECTS_INDEX = "by_subject"


T = TypeVar("T")


class Scope(StrEnum):
    """The scope of an erasure: messages of the user id, or also messages of the anonymous ids linked to it."""

    USER = "user"
    LINKED = "linked"


class OutOfTimeError(Exception):
    """The time of an erasure ran out between two items; when started again, it continues there."""


Key = dict[str, Any]
"""The key of an item, in DynamoDB's format."""
EVENT_KEY = ("subject", "position")
REJECT_KEY = ("customer_day_shard", "body_hash")


class Link(NamedTuple):
    """Another id in a user's messages: its kind is `anonymous`, or `previous` from an alias call."""

    kind: str
    id: str


Unread = Callable[[Item], None]
"""Gets the key of an item whose message can't be read, so that its linked ids are unknown."""


class Eraser:
    """Erases subjects; `clock` returns seconds since 1970. `unread` is called for each item that can't be read.

    The client must treat an unconfirmed response as an error. `hand_over` stores a `delete` message durably for the
    consumer; it is None for a deployment without a consumer.
    """

    def __init__(  # noqa: PLR0913 -- each parameter is one setting, named at the only call
        self,
        client: "DynamoDBClient",
        *,
        event_table: str,
        rejects_table: str,
        erasures: ErasureTable,
        scope: Scope,
        hand_over: Callable[[Image], None] | None = None,
        unread: Unread = lambda _: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._event_table = event_table
        self._rejects_table = rejects_table
        self._erasures = erasures
        self._scope = scope
        self._hand_over = hand_over
        self._unread = unread
        self._clock = clock
        self._sleep = sleep

    def leave_tombstone(self, request: ErasureRequest) -> Receipt:
        """Write a tombstone, by which the endpoint knows who was erased, and return the receipt; open it if it is new.

        The tombstone is at least as old as the receipt's `started_at`. Raises `STORE_ERRORS`, and
        `FinishedElsewhereError` if two erasers do so at once.
        """
        self._erasures.leave_tombstone(request)
        return self._open(request).receipt

    def erase(self, request: ErasureRequest, *, until: float) -> Receipt | None:
        """Carry out a request, or the rest of it, and return its receipt; None if it was finished before.

        Raises `OutOfTimeError` when the clock passes `until`, and `STORE_ERRORS`.
        """
        progress = self._open(request)
        if progress.receipt.finished_at:
            return None
        try:
            progress = self._erase_messages(progress, request, until)
            progress = self._erase_rejects(progress, request.subject, until)
            carried_out = [_key(item) for item in self._stored(request.subject) if _is_carried_out(item, request)]
            # Erase once more: it also removes messages stored before one of these deletes, or imported from the
            # rejects.
            progress = self._erase_messages(progress, request, until)
            for key in carried_out:
                self._close(key, until)
            return self._erasures.finish(progress, now=self._now())
        except FinishedElsewhereError:
            return None

    def _open(self, request: ErasureRequest) -> Progress:
        """Return the progress of a request, and open its receipt if it is new."""
        progress = self._erasures.progress(request)
        return progress or self._erasures.begin(request, scope=self._scope, now=self._now())

    def _erase_messages(self, progress: Progress, request: ErasureRequest, until: float) -> Progress:
        """Erase the messages of a subject, and with the scope `linked` the linked ids of each page first."""
        seen: set[Link] = set()
        for page in _pages(item for item in self._stored(request.subject) if not _is_delete(item)):
            self._check_time(until)
            links = set(links_in(self._client, self._event_table, page, self._unread)) - seen
            seen |= links
            links = {link for link in links if linked_subject(request.customer_id, link) != request.subject}
            progress = progress.linking(sha256(escape(link.id))[:HASH_CHARS] for link in links)
            if self._scope is Scope.LINKED:
                for subject in sorted({linked_subject(request.customer_id, link) for link in links}):
                    progress = self._erase_linked(progress, subject, until)
            progress = self._sweep(progress, "messages", self._event_table, map(_key, page), until=until)
        return progress

    def _erase_linked(self, progress: Progress, subject: str, until: float) -> Progress:
        """Erase the messages of a linked subject, except its own `delete`, which gets its own receipt.

        Rejects go first: `destination rejects retry` turns a reject into a message, but never the reverse.
        """
        rejects = rejects_of(self._client, self._rejects_table, subject)
        progress = self._sweep(progress, "linked_rejects", self._rejects_table, rejects, until=until)
        keys = (_key(item) for item in self._stored(subject) if not _is_delete(item))
        return self._sweep(progress, "linked_messages", self._event_table, keys, until=until)

    def _erase_rejects(self, progress: Progress, subject: str, until: float) -> Progress:
        rejects = rejects_of(self._client, self._rejects_table, subject)
        return self._sweep(progress, "rejects", self._rejects_table, rejects, until=until)

    def _stored(self, subject: str) -> Iterator[Item]:
        return stored_of(self._client, self._event_table, subject)

    def _sweep(self, progress: Progress, count: str, table: str, keys: Iterable[Key], *, until: float) -> Progress:
        """Delete items page by page; each page is counted before it is deleted."""
        for page in _pages(keys):
            progress = progress.counting(count, frozenset(map(_key_hash, page)))
            self._erasures.note(progress)
            for key in page:
                self._delete(table, key, until)
        return progress

    def _close(self, key: Key, until: float) -> None:
        """Send a `delete` message to the consumer, and then delete it."""
        self._check_time(until)
        if self._hand_over is not None:
            item = self._client.get_item(TableName=self._event_table, Key=key, ConsistentRead=True).get("Item")
            if item is not None:  # otherwise another eraser closed it
                self._hand_over(image_of(item))
        self._delete(self._event_table, key, until)

    def _check_time(self, until: float) -> None:
        if self._clock() > until:
            raise OutOfTimeError

    def _delete(self, table: str, key: Key, until: float) -> None:
        """Delete an item, at a pace that leaves capacity for others."""
        self._check_time(until)
        began = self._clock()
        answer = self._delete_item(table, key, until)
        pause = answer["ConsumedCapacity"]["CapacityUnits"] / WRITE_UNITS_PER_SECOND - (self._clock() - began)
        if pause > 0:
            self._sleep(pause)

    def _delete_item(self, table: str, key: Key, until: float) -> "DeleteItemOutputTypeDef":
        """Delete an item. Retries errors that botocore does not retry, such as a garbled response.

        Without that, a user with many messages uses up Lambda's retries if the store fails often.
        """
        for _ in range(MAX_DELETE_TRIES - 1):
            with suppress(*STORE_ERRORS):
                return self._client.delete_item(TableName=table, Key=key)
            self._sleep(DELETE_RETRY_SECONDS)
            self._check_time(until)
        return self._client.delete_item(TableName=table, Key=key)

    def _now(self) -> str:
        return sortable(datetime.fromtimestamp(self._clock(), UTC))


def stored_of(client: "DynamoDBClient", event_table: str, subject: str) -> Iterator[Item]:
    """Yield the stored items of a subject: key, call type, anonymous id, and time; raises `STORE_ERRORS`."""
    names = (*EVENT_KEY, "type", "anonymous_id", "stored_at")
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


def _is_delete(item: Item) -> bool:
    return _text(item, "type") == DELETE


def _text(item: Item, name: str) -> str:
    """Return a text of an item, "" if somebody has edited it to another type."""
    text: str = item.get(name, {}).get("S", "")
    return text


def _is_carried_out(item: Item, request: ErasureRequest) -> bool:
    """Return whether an item is the request's `delete` or an earlier one; a later one has its own erasure."""
    return _is_delete(item) and _text(item, "stored_at") <= request.requested_at


def links_of(client: "DynamoDBClient", event_table: str, subject: str, unread: Unread) -> Iterator[Link]:
    """Yield the other ids in a subject's messages, possibly repeated; raises `STORE_ERRORS`."""
    yield from links_in(client, event_table, stored_of(client, event_table, subject), unread)


def links_in(client: "DynamoDBClient", event_table: str, items: Iterable[Item], unread: Unread) -> Iterator[Link]:
    """Yield the other ids in messages, possibly repeated; raises `STORE_ERRORS`."""
    for item in items:
        if _text(item, "type") == "alias":
            yield from _link(client, event_table, _key(item), "previous", unread)
        anonymous_id = _text(item, "anonymous_id")
        if anonymous_id and not _is_delete(item):
            if "?" in anonymous_id:  # "?" may replace something that UTF-8 can't encode
                yield from _link(client, event_table, _key(item), "anonymous", unread)
            else:
                yield Link("anonymous", anonymous_id)


def _link(client: "DynamoDBClient", event_table: str, key: Key, kind: str, unread: Unread) -> Iterator[Link]:
    """Yield an id from a message's JSON; an edited schema may accept messages without it."""
    item = client.get_item(
        TableName=event_table, Key=key, ConsistentRead=True, ProjectionExpression="message"
    ).get("Item")  # fmt: skip
    if item is None:
        return
    try:
        linked_id = read_json_attribute(item["message"]).get(f"{kind}_id")
    except UNREADABLE:  # somebody has edited it; it is erased like the others
        unread(key)
        return
    if isinstance(linked_id, str):
        yield Link(kind, linked_id)


def linked_subject(customer_id: str, link: Link) -> str:
    """Return the subject of a linked id: always a visitor's, because anybody could name another user."""
    return subject_key(customer_id, "anonymous", link.id)


def rejects_of(client: "DynamoDBClient", rejects_table: str, subject: str) -> Iterator[Key]:
    """Yield the keys of a subject's rejects; raises `STORE_ERRORS`."""
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


def _pages(pieces: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(pieces)
    while page := list(islice(remaining, PAGE_KEYS)):
        yield page


def _key_hash(key: Key) -> str:
    return sha256("\n".join(value["S"] for value in key.values()))[:HASH_CHARS]
