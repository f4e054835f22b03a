"""What the store holds against what `destination simulate` sent: nothing may be missing, nothing be there twice."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.deliver import End, Ledger
from cli.target import Target
from cli.traffic import Identity, identity_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

READERS = 8
"""Queries at once; botocore keeps ten connections."""
QUEUE_BATCH = 10
"""SQS's limit of messages in one request."""
QUEUE_WAIT_SECONDS = 1
MAX_EMPTY_RECEIVES = 5
"""In sequence, before a queue counts as empty while messages are missing: it may not have asked all of its hosts."""


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """How many messages were sent and stored, and how many of them were lost or stored twice.

    A message is lost that is not in the store although its deliveries ended: it was accepted, which is a lie, or was
    refused for good, or no try succeeded until Segment gave it up. `stored_twice` counts superfluous items;
    `may_double` says that they are no fault, because the store is a standard queue.
    """

    messages: int
    stored: int
    lost_accepted: int
    lost_refused: int
    lost_given_up: int
    stored_twice: int
    may_double: bool
    refused: int
    accepted_though_invalid: int

    @property
    def lost(self) -> int:
        """Messages that are gone for good."""
        return self.lost_accepted + self.lost_refused + self.lost_given_up

    @property
    def failed(self) -> bool:
        """Whether anything is wrong. A valid message that was refused is, though a copy of it may have been stored."""
        doubled = self.stored_twice and not self.may_double
        return bool(self.lost or doubled or self.refused or self.accepted_though_invalid)


def reconcile(ledger: Ledger, stored: Mapping[Identity, int], *, may_double: bool) -> Reconciliation:
    """Compare what was sent with what is stored, which may hold more: messages of earlier runs."""
    lost = Counter(end for identity, end in ledger.messages.items() if identity not in stored)
    found = [stored[identity] for identity in ledger.messages if identity in stored]
    return Reconciliation(
        messages=len(ledger.messages),
        stored=len(found),
        lost_accepted=lost[End.ACCEPTED],
        lost_refused=lost[End.REFUSED],
        lost_given_up=lost[End.GIVEN_UP],
        stored_twice=sum(found) - len(found),
        may_double=may_double,
        refused=ledger.refused,
        accepted_though_invalid=ledger.accepted_though_invalid,
    )


def read_table(target: Target, *, subjects: Collection[str], customer_ids: Collection[str]) -> Counter[Identity]:
    """Read how often the table holds each message of these customers; raises `STORE_ERRORS`."""
    client, table = target.account.dynamodb(), target.stores.event_table
    items = _scan(client, table) if target.is_local else _query(client, table, subjects)
    facts = ({name: value["S"] for name, value in item.items()} for item in items)
    return Counter(identity_of(fact) for fact in facts if fact["customer_id"] in customer_ids)


_READ: dict[str, Any] = {
    "ProjectionExpression": "customer_id, user_id, anonymous_id, message_id",
    "ConsistentRead": True,
}


def _scan(client: "DynamoDBClient", table: str) -> Iterator[Mapping[str, Any]]:
    """Read the whole table: an embedded AWS does that for every query anyway."""
    for page in client.get_paginator("scan").paginate(TableName=table, **_READ):
        yield from page["Items"]


def _query(client: "DynamoDBClient", table: str, subjects: Collection[str]) -> Iterator[Mapping[str, Any]]:
    """Read the records of each subject: that costs what the simulation stored, not what the table holds."""

    def query(subject: str) -> list[Mapping[str, Any]]:
        pages = client.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="subject = :subject",
            ExpressionAttributeValues={":subject": {"S": subject}},
            **_READ,
        )
        return [item for page in pages for item in page["Items"]]

    with ThreadPoolExecutor(READERS) as readers:
        for items in readers.map(query, subjects):
            yield from items


class QueueDrain:
    """Takes the messages of these customers from a queue; those of others stay there, hidden until it has finished.

    A queue may hand out a message again, so each is counted once by SQS's own id for it. `wait_seconds` is how long the
    queue looks for more at the end.
    """

    def __init__(
        self,
        client: "SQSClient",
        url: str,
        customer_ids: Collection[str],
        *,
        wait_seconds: int = QUEUE_WAIT_SECONDS,
    ) -> None:
        self.stored: Counter[Identity] = Counter()
        self._client = client
        self._url = url
        self._customer_ids = customer_ids
        self._wait_seconds = wait_seconds
        self._taken: set[str] = set()
        self._others: dict[str, str] = {}

    def take(self, *, wait_seconds: int = 0) -> bool:
        """Take some messages; tell whether there were any. Raises `STORE_ERRORS`."""
        messages = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=QUEUE_BATCH,
            WaitTimeSeconds=wait_seconds,
            MessageAttributeNames=["customer_id"],
        ).get("Messages", [])
        own = [message for message in messages if _customer_id(message) in self._customer_ids]
        self._others |= {message["MessageId"]: message["ReceiptHandle"] for message in messages if message not in own}
        for message in own:
            if message["MessageId"] not in self._taken:
                self._taken.add(message["MessageId"])
                self.stored[identity_of(json.loads(message["Body"]))] += 1
        if own:
            entries = _entries(message["ReceiptHandle"] for message in own)
            self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        return bool(messages)

    def finish(self, expected: AbstractSet[Identity]) -> Counter[Identity]:
        """Take all that is left, and let others see their messages again. Raises `STORE_ERRORS`."""
        empty_receives = 0
        while empty_receives < MAX_EMPTY_RECEIVES:
            empty_receives = 0 if self.take(wait_seconds=self._wait_seconds) else empty_receives + 1
            if empty_receives and expected <= self.stored.keys():
                break
        handles = list(self._others.values())
        for start in range(0, len(handles), QUEUE_BATCH):
            entries = _entries(handles[start : start + QUEUE_BATCH], VisibilityTimeout=0)
            self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        return self.stored


def _customer_id(message: Mapping[str, Any]) -> str | None:
    value: str | None = message.get("MessageAttributes", {}).get("customer_id", {}).get("StringValue")
    return value


def _entries(receipt_handles: Iterable[str], **fields: int) -> list[Any]:
    return [{"Id": str(number), "ReceiptHandle": handle, **fields} for number, handle in enumerate(receipt_handles)]
