"""Find the people who can be erased, count their stored data, and request erasures from the eraser."""

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from consumer.erasure.subject import Link, linked_subject, links_of, rejects_of, stored_of
from consumer.erasure.table import ErasureRequest, ErasureTable, Receipt
from consumer.runtime.stored import Item
from destination.console import printable
from destination.deployment.target import Target
from handler.canonicalise import canonicalise
from handler.errors import Refusal
from handler.items import read_json_attribute
from handler.record import Record, sha256, subject_key
from handler.sinks.dynamodb import EventTable
from handler.spec import DELETE

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Person:
    """The person to erase: a user or an anonymous visitor of a customer."""

    customer_id: str
    user: str | None
    anonymous: str | None

    @property
    def subject(self) -> str:
        """The partition key of the person's messages."""
        if self.user is not None:
            return subject_key(self.customer_id, "user", self.user)
        return subject_key(self.customer_id, "anonymous", self.anonymous or "")

    @property
    def ids(self) -> dict[str, str]:
        """The id fields of the person's messages."""
        ids = {"userId": self.user, "anonymousId": self.anonymous}
        return {name: value for name, value in ids.items() if value is not None}

    def __str__(self) -> str:
        """Return a description for output."""
        [(name, value)] = self.ids.items()
        return printable(f"{name} {value} of {self.customer_id}")


@dataclass(frozen=True, kw_only=True)
class StoredCounts:
    """Counts of a subject's stored items; `requests` are `delete` messages that are not carried out yet."""

    messages: int
    requests: int
    rejects: int


@dataclass(frozen=True, kw_only=True)
class Linked:
    """Another id in a person's messages, and the counts of the items stored under it."""

    link: Link
    stored: StoredCounts


def erasures_of(target: Target) -> ErasureTable:
    """Return the deployment's table of tombstones and receipts."""
    return ErasureTable(target.account.dynamodb(), target.stores.erasure_table)


def request_erasure(target: Target, person: Person, *, happened_at: str | None = None) -> ErasureRequest:
    """Store a `delete` message, which the eraser carries out and then passes to the consumer.

    `happened_at` is the time of the message if the request repeats an earlier `delete`.
    """
    stores, now = target.stores, time.time()
    moment = happened_at or datetime.fromtimestamp(now, UTC).isoformat()
    [message] = canonicalise({"type": DELETE, **person.ids, "messageId": f"erase-{uuid.uuid4()}", "timestamp": moment})
    record = Record(customer_id=person.customer_id, message=message, settings={}, stored_at=now)
    try:
        EventTable(
            target.account.dynamodb(), stores.event_table, retention_days=int(stores.event_retention_days)
        ).write(record)
    except Refusal as refusal:
        raise click.ClickException(f"The request can't be stored: {refusal.__cause__ or refusal}") from refusal
    return ErasureRequest(
        customer_id=person.customer_id,
        subject=record.subject,
        requested_at=record.facts["stored_at"],
        message_id=message.message_id,
    )


def wait_for_receipt(
    target: Target, request: ErasureRequest, wait_seconds: int, step: Callable[[], None]
) -> Receipt | None:
    """Poll for the receipt of a request, and call `step` at each poll; returns None if it does not appear in time."""
    table, deadline = erasures_of(target), time.monotonic() + wait_seconds
    while True:
        state = table.progress(request)
        if state is not None and state.receipt.finished_at:
            return state.receipt
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL_SECONDS)
        step()


def stored_under(target: Target, subject: str) -> StoredCounts:
    """Count the stored items of a subject."""
    client, stores = target.account.dynamodb(), target.stores
    types = Counter(item["type"]["S"] for item in stored_of(client, stores.event_table, subject))
    rejects = sum(1 for _ in rejects_of(client, stores.rejects_table, subject))
    return StoredCounts(messages=types.total() - types[DELETE], requests=types[DELETE], rejects=rejects)


def linked_ids(target: Target, person: Person, report_unread: Callable[[Item], None]) -> Iterator[Linked]:
    """Yield the other ids in a person's messages: visitors, or the previous ids in alias calls.

    `report_unread` is called with the key of each item that can't be read, so that its linked ids are unknown.
    """
    links = set(links_of(target.account.dynamodb(), target.stores.event_table, person.subject, report_unread))
    users = {Link("user", link.id) for link in links if link.kind == "previous"}
    for link in sorted(links | users):
        visitor, user = linked_subject(person.customer_id, link), subject_key(person.customer_id, "user", link.id)
        subject = user if link.kind == "user" else visitor
        if subject != person.subject:
            yield Linked(link=link, stored=stored_under(target, subject))


def done_later(receipts: Iterable[Receipt]) -> set[Receipt]:
    """Return the unfinished receipts whose user was erased by a later request; `receipts` has the newest first."""
    finished: set[tuple[str, str]] = set()
    done = set()
    for receipt in receipts:
        whose = receipt.customer_id, receipt.user_hash
        if receipt.finished_at:
            finished.add(whose)
        elif whose in finished:
            done.add(receipt)
    return done


def is_receipt_of(receipt: Receipt, who: str) -> bool:
    """Return whether a receipt belongs to an id, or to a hash or the beginning of one."""
    subjects = (subject_key(receipt.customer_id, kind, who) for kind in ("user", "anonymous"))
    is_hash = re.fullmatch("[0-9a-f]{4,64}", who) is not None
    return (is_hash and receipt.user_hash.startswith(who)) or receipt.user_hash in map(sha256, subjects)


def waiting_deletes(target: Target, limit: str) -> Iterator[tuple[Person, str]]:
    """Yield the people in `delete` messages that were stored before a time, and when those messages happened."""
    names = {f"#{name}": name for name in ("type", "customer_id", "message", "stored_at", "timestamp")}
    pages = target.account.dynamodb().get_paginator("scan").paginate(
        TableName=target.stores.event_table,
        FilterExpression="#type = :delete AND #stored_at <= :limit",
        ProjectionExpression=", ".join(names),
        ExpressionAttributeNames=names,
        ExpressionAttributeValues={":delete": {"S": DELETE}, ":limit": {"S": limit}},
        ConsistentRead=True,
    )  # fmt: skip
    for page in pages:
        for item in page["Items"]:
            message = read_json_attribute(item["message"])
            user = message.get("user_id")
            anonymous = message["anonymous_id"] if user is None else None
            person = Person(customer_id=item["customer_id"]["S"], user=user, anonymous=anonymous)
            yield person, item["timestamp"]["S"]
