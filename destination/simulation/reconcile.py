"""Compare the store with the messages that `destination simulate` sent: none may be missing, different or doubled."""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from destination.deployment.target import Target
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.ledger import End, Ledger
from destination.simulation.stored import Stored
from destination.simulation.traffic import Sending, Traffic

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_sqs import SQSClient

READERS = 8
"""Concurrent queries; botocore keeps ten connections."""
LOOKED_UP = 50
"""Messages of a seed whose users are looked up in a stack, to detect an earlier run with the same seed."""
QUEUE_BATCH = 10
"""SQS's limit of messages in one request."""
QUEUE_WAIT_SECONDS = 1
MAX_EMPTY_RECEIVES = 5
"""Empty receives in a row before a queue with missing messages counts as empty: SQS may not have asked all of its
hosts."""


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """The numbers of sent and stored messages, and of those that were lost, stored twice, or stored with other content.

    A message is lost if it is not in the store although its deliveries ended: it was accepted wrongly, was refused
    finally, or failed until Segment gave it up. `stored_twice` counts surplus items; `may_double` says that they are
    not faults, because the store is a queue, which can't prevent them. `stored_otherwise` counts items whose content is
    not the sent one. `stored_unsent` counts items that should not be stored at all, which is not a fault if earlier
    runs `may_have_sent` them. `others_seen` are messages of others in the queue.
    """

    messages: int
    stored: int
    lost_accepted: int
    lost_refused: int
    lost_given_up: int
    stored_twice: int
    stored_otherwise: int
    stored_unsent: int
    others_seen: int
    may_double: bool
    may_have_sent: bool
    refused: int
    accepted_though_invalid: int

    @property
    def lost(self) -> int:
        """Messages that are lost."""
        return self.lost_accepted + self.lost_refused + self.lost_given_up

    @property
    def others_may_hold(self) -> bool:
        """Return whether another consumer of the queue may have the missing accepted messages."""
        return bool(self.others_seen and self.lost_accepted)

    @property
    def failed(self) -> bool:
        """Return whether anything is wrong or unknown."""
        return bool(self.lost or self.is_wrong)

    @property
    def is_wrong(self) -> bool:
        """Whether anything is wrong but a loss. A message that was refused is, though a copy may have been stored."""
        doubled = self.stored_twice and not self.may_double
        unsent = self.stored_unsent and not self.may_have_sent
        return bool(doubled or unsent or self.stored_otherwise or self.refused or self.accepted_though_invalid)


def reconcile(
    ledger: Ledger,
    stored: Mapping[Fingerprint, int],
    *,
    may_double: bool = False,
    may_have_sent: bool = False,
    others_seen: int = 0,
) -> Reconciliation:
    """Compare the sent messages with the stored ones of these customers.

    A message that is found under another key is not lost: it is stored with other content, or a second time.
    """
    by_content = {fingerprint.content: fingerprint.identity for fingerprint in ledger.messages}
    sent = {fingerprint.identity for fingerprint in ledger.messages}
    times: Counter[bytes] = Counter()
    moved: Counter[bytes] = Counter()
    for fingerprint, count in stored.items():
        if fingerprint.identity in sent:
            times[fingerprint.identity] += count
        elif fingerprint.content in by_content:
            moved[by_content[fingerprint.content]] += count
    otherwise = sum(count for identity, count in moved.items() if identity not in times)
    times += moved
    found = [times[identity] for identity in sent if identity in times]
    lost = Counter(end for fingerprint, end in ledger.messages.items() if fingerprint.identity not in times)
    other = {
        fingerprint: count
        for fingerprint, count in stored.items()
        if fingerprint not in ledger.messages
        and (fingerprint.identity in sent or fingerprint.content not in by_content)
    }
    return Reconciliation(
        messages=len(ledger.messages),
        stored=len(found),
        lost_accepted=lost[End.ACCEPTED],
        lost_refused=lost[End.REFUSED],
        lost_given_up=lost[End.GIVEN_UP],
        stored_twice=sum(found) - len(found),
        stored_otherwise=otherwise + sum(count for fingerprint, count in other.items() if fingerprint.identity in sent),
        stored_unsent=sum(count for fingerprint, count in other.items() if fingerprint.identity not in sent),
        others_seen=others_seen,
        may_double=may_double,
        may_have_sent=may_have_sent,
        refused=ledger.refused,
        accepted_though_invalid=ledger.accepted_though_invalid,
    )


def read_table(target: Target, *, subjects: Collection[str], customer_ids: Collection[str]) -> Iterator[Stored]:
    """Yield the items of these customers in the table; raises `STORE_ERRORS`.

    On a local server it reads the whole table; in a stack, the items of the subjects.
    """
    client, table = target.account.dynamodb(), target.stores.event_table
    if target.is_local:
        yield from _scan(client, table, frozenset(customer_ids))
    else:
        yield from itertools.chain.from_iterable(read_subjects(client, table, subjects))


def read_everything(target: Target) -> Iterator[Stored]:
    """Yield the whole table of a local server, for all customers."""
    yield from _scan(target.account.dynamodb(), target.stores.event_table, None)


def holds_some(target: Target, traffic: Traffic) -> bool:
    """Return whether an earlier run with the same seed may have left something; raises `STORE_ERRORS`.

    A queue does not show messages that were already received from it.
    """
    if not target.stores.sink.is_queryable:
        return True
    client, table = target.account.dynamodb(), target.stores.event_table
    if target.is_local:
        return any(True for _ in _scan(client, table, frozenset(traffic.customer_ids)))
    parcels = (traffic.parcel(Sending(index=index)) for index in range(LOOKED_UP))
    subjects = {traffic.due(parcel).subject for parcel in parcels if parcel.refusal is None}
    return any(read_subjects(client, table, subjects))


def is_stored(client: "DynamoDBClient", table: str, subject: str, position: str) -> bool:
    """Return whether the table has an item; raises `STORE_ERRORS`."""
    key = {"subject": {"S": subject}, "position": {"S": position}}
    answer = client.get_item(
        TableName=table,
        Key=key,
        ConsistentRead=True,
        ProjectionExpression="#position",
        ExpressionAttributeNames={"#position": "position"},
    )
    return "Item" in answer


def _scan(client: "DynamoDBClient", table: str, customer_ids: Collection[str] | None) -> Iterator[Stored]:
    """Read the whole table: an embedded AWS does that for every query anyway."""
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        for item in page["Items"]:
            if customer_ids is None or item.get("customer_id", {}).get("S") in customer_ids:
                yield Stored.from_item(item)


def read_subjects(client: "DynamoDBClient", table: str, subjects: Iterable[str]) -> Iterator[list[Stored]]:
    """Read the items of each subject in turn: the cost depends on their items, not on the table's size."""

    def query(subject: str) -> list[Stored]:
        pages = client.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="#subject = :subject",
            ExpressionAttributeValues={":subject": {"S": subject}},
            ExpressionAttributeNames={"#subject": "subject"},
            ConsistentRead=True,
        )
        return [Stored.from_item(item) for page in pages for item in page["Items"]]

    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(query, subjects)


class QueueDrain:
    """Receives the messages of these customers from a queue; other messages stay there, hidden until it has finished.

    A queue may deliver a message again, so each is counted once by SQS's own id. A FIFO queue of an embedded AWS
    `forgets` deleted messages, and accepts duplicates of them; then the deduplication id counts. `wait_seconds` is how
    long the queue waits for more at the end. `audit` gets each counted message.
    """

    def __init__(
        self,
        client: "SQSClient",
        url: str,
        customer_ids: Collection[str],
        *,
        forgets: bool = False,
        wait_seconds: int = QUEUE_WAIT_SECONDS,
    ) -> None:
        self.stored: Counter[Fingerprint] = Counter()
        self.audit: Callable[[Stored, Fingerprint], object] = lambda _stored, _fingerprint: None
        self._client = client
        self._url = url
        self._customer_ids = customer_ids
        self._forgets = forgets
        self._wait_seconds = wait_seconds
        self._taken: set[str] = set()
        self._others: dict[str, str] = {}

    @property
    def is_fifo(self) -> bool:
        """Return whether the queue drops duplicates."""
        return self._url.endswith(".fifo")

    @property
    def others_seen(self) -> int:
        """The messages of others that were received."""
        return len(self._others)

    def take(self, *, wait_seconds: int = 0) -> bool:
        """Receive some messages; return whether there were any. Raises `STORE_ERRORS`."""
        messages = self._client.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=QUEUE_BATCH,
            WaitTimeSeconds=wait_seconds,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["MessageDeduplicationId", "MessageGroupId"],
        ).get("Messages", [])
        own = [message for message in messages if _customer_id(message) in self._customer_ids]
        self._others |= {message["MessageId"]: message["ReceiptHandle"] for message in messages if message not in own}
        for message in own:
            known_by = message["MessageId"]
            if self.is_fifo and self._forgets:
                known_by = message["Attributes"]["MessageDeduplicationId"]
            if known_by not in self._taken:
                self._taken.add(known_by)
                stored = Stored.from_queue(message["Body"], _envelope(message))
                fingerprint = Fingerprint.of_stored(stored)
                self.stored[fingerprint] += 1
                self.audit(stored, fingerprint)
        if own:
            entries = _entries(message["ReceiptHandle"] for message in own)
            self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)
        return bool(messages)

    def finish(self, expected: AbstractSet[Fingerprint]) -> Counter[Fingerprint]:
        """Receive the rest, and make others' messages visible again. Raises `STORE_ERRORS`."""
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


def _envelope(message: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes of a queue message, and its FIFO ids."""
    attributes = message.get("MessageAttributes", {})
    system = message.get("Attributes", {})
    return {
        **{name: str(attribute.get("StringValue")) for name, attribute in attributes.items()},
        **{name: system[name] for name in ("MessageGroupId", "MessageDeduplicationId") if name in system},
    }


def _customer_id(message: Mapping[str, Any]) -> str | None:
    value: str | None = message.get("MessageAttributes", {}).get("customer_id", {}).get("StringValue")
    return value


def _entries(receipt_handles: Iterable[str], **fields: int) -> list[Any]:
    return [{"Id": str(number), "ReceiptHandle": handle, **fields} for number, handle in enumerate(receipt_handles)]
