"""The erasure table: tombstones and receipts of erased users, with hashes instead of their ids.

The endpoint looks up tombstones (`handler/erased.py`); an auditor reads receipts. Both have a hash of the subject in
place of the user. `docs/explanation/privacy.md` describes the attributes.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Self

from handler.erased import tombstone_key
from handler.record import escape, sha256

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


MIN_NAMING_CHARS = 4
"""A shorter user id may be a part of a message id by chance."""

MAX_LINKED_IDS = 1000
"""Limit for the linked ids in an unfinished receipt, so that it stays small; further ids are not counted."""


@dataclass(frozen=True, kw_only=True)
class ErasureRequest:
    """The subject to erase (a partition key of the event table), and its customer.

    `requested_at` is the time when the `delete` was stored, in sortable UTC. It distinguishes two requests for a
    subject.
    `message_id` is the message id of the `delete`, by which Segment names its request.
    """

    customer_id: str
    subject: str
    requested_at: str
    message_id: str = ""

    @property
    def user_hash(self) -> str:
        """SHA-256 of the subject, in hexadecimal."""
        return sha256(self.subject)

    @property
    def nameless_message_id(self) -> str:
        """Return the message id for a receipt, which must name nobody: "" if it contains the user's id as text.

        Segment's ids of deletes do not contain the user's id, but a sender may choose any message id. Encoded forms of
        the user's id, and ids that are too short to be recognised, are not found.
        """
        user_id = self.subject.rpartition("#")[2].casefold()
        is_naming = len(user_id) >= MIN_NAMING_CHARS and user_id in escape(self.message_id).casefold()
        return "" if is_naming else self.message_id


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The result of a request; times are sortable UTC, and `finished_at` is "" until it is finished.

    `messages` and `rejects` count the erased items of the subject. `linked_messages` and `linked_rejects` count those
    of the linked ids; `linked_ids` is the number of these ids.
    `message_id` is the message id of the `delete`. It is "" in receipts of versions before 1.0.0, and if it contains
    the user's id.
    """

    customer_id: str
    user_hash: str
    requested_at: str
    started_at: str
    scope: str
    message_id: str = ""
    linked_ids: int = 0
    messages: int = 0
    rejects: int = 0
    linked_messages: int = 0
    linked_rejects: int = 0
    finished_at: str = ""

    @classmethod
    def from_item(cls, item: "Mapping[str, AttributeValueTypeDef]") -> Self:
        """Read a DynamoDB item."""
        values: dict[str, Any] = {
            field.name: int(item[field.name]["N"]) if "N" in item[field.name] else item[field.name]["S"]
            for field in fields(cls)
            if field.name in item or field.name != "message_id"
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return the form for auditors."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """An unfinished receipt, with hashes that keep its counts right after an interruption.

    `page` has the hashes of the keys that were counted last: their items may still exist. `earlier_pages` has the
    hashes from interrupted eraser runs. `links` has the hashes of the linked ids.
    """

    receipt: Receipt
    page: frozenset[str] = frozenset()
    earlier_pages: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()

    def linking(self, hashes: Iterable[str]) -> "Progress":
        """Return the progress with more linked ids, each counted once, up to `MAX_LINKED_IDS`."""
        links = frozenset(islice(chain(self.links, sorted(set(hashes) - self.links)), MAX_LINKED_IDS))
        return replace(self, links=links, receipt=replace(self.receipt, linked_ids=len(links)))

    def counting(self, count: str, page: frozenset[str]) -> "Progress":
        """Return the progress with the next page; a key that was counted before is not counted again."""
        total = getattr(self.receipt, count) + len(page - self.page - self.earlier_pages)
        return replace(self, page=page, receipt=replace(self.receipt, **{count: total}))


class FinishedElsewhereError(Exception):
    """Another eraser carried out the same request, and finished it."""


class ErasureTable:
    """Keeps tombstones and receipts. The client must treat an unconfirmed response as an error.

    Every write is idempotent, so a retry changes nothing.
    """

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self._name = name

    def leave_tombstone(self, request: ErasureRequest) -> None:
        """Write a tombstone, or move the existing one to a later time."""
        try:
            self._client.put_item(
                TableName=self._name,
                Item={
                    **tombstone_key(request.customer_id, request.subject),
                    "requested_at": {"S": request.requested_at},
                },
                ConditionExpression="attribute_not_exists(erasure) OR requested_at < :requested",
                ExpressionAttributeValues={":requested": {"S": request.requested_at}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return  # the tombstone of a later request exists

    def progress(self, request: ErasureRequest) -> Progress | None:
        """Return the progress of a request, None if it has not begun."""
        key = _receipt_key(request.customer_id, request.user_hash, request.requested_at)
        item = self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True).get("Item")
        if item is None:
            return None
        page, links = (frozenset(item[name]["SS"] if name in item else ()) for name in ("page", "links"))
        return Progress(receipt=Receipt.from_item(item), earlier_pages=page, links=links)

    def note(self, progress: Progress) -> None:
        """Write the progress of a request; raises `FinishedElsewhereError`."""
        receipt = progress.receipt
        item: dict[str, AttributeValueTypeDef] = {
            name: {"N": str(value)} if isinstance(value, int) else {"S": value}
            for name, value in asdict(receipt).items()
        }
        for name, hashes in (("page", progress.page | progress.earlier_pages), ("links", progress.links)):
            if hashes:
                item[name] = {"SS": sorted(hashes)}
        try:
            self._client.put_item(
                TableName=self._name,
                Item={**_receipt_key(receipt.customer_id, receipt.user_hash, receipt.requested_at), **item},
                ConditionExpression="attribute_not_exists(finished_at) OR finished_at = :open OR finished_at = :same",
                ExpressionAttributeValues={":open": {"S": ""}, ":same": {"S": receipt.finished_at}},
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            raise FinishedElsewhereError from error

    def begin(self, request: ErasureRequest, *, scope: str, now: str) -> Progress:
        """Open the receipt of a request; raises `FinishedElsewhereError`."""
        receipt = Receipt(
            customer_id=request.customer_id,
            user_hash=request.user_hash,
            requested_at=request.requested_at,
            started_at=now,
            scope=scope,
            message_id=request.nameless_message_id,
        )
        self.note(progress := Progress(receipt=receipt))
        return progress

    def finish(self, progress: Progress, *, now: str) -> Receipt:
        """Close the receipt of a request; raises `FinishedElsewhereError`."""
        receipt = replace(progress.receipt, finished_at=now)
        self.note(Progress(receipt=receipt))
        return receipt

    def receipts(self, customer_id: str, *, user_hash: str = "") -> Iterator[Receipt]:
        """Yield the receipts of a customer, in no particular order; `user_hash` may be the start of a hash."""
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            KeyConditionExpression="customer = :customer" + (" AND begins_with(erasure, :hash)" if user_hash else ""),
            ExpressionAttributeValues={
                ":customer": {"S": escape(customer_id)},
                **({":hash": {"S": user_hash}} if user_hash else {}),
            },
            ConsistentRead=True,
        )
        for page in pages:
            yield from _receipts(page["Items"])

    def everything(self) -> Iterator[Receipt]:
        """Yield all receipts, in no particular order."""
        for page in self._client.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True):
            yield from _receipts(page["Items"])


def _receipts(items: "list[dict[str, AttributeValueTypeDef]]") -> Iterator[Receipt]:
    return (Receipt.from_item(item) for item in items if "started_at" in item)  # the others are tombstones


def _receipt_key(customer_id: str, user_hash: str, requested_at: str) -> "dict[str, AttributeValueTypeDef]":
    return {"customer": {"S": escape(customer_id)}, "erasure": {"S": f"{user_hash}#{requested_at}"}}
