"""Step 5: a durable record, in a DynamoDB table or an SQS queue; a message that was there already is a duplicate.

One conditional put is at once the write and the idempotency; those of a batch go beside each other, since DynamoDB's
own batches know no conditions. `docs/reference/storage.md` describes attributes and queue messages.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from handler.decode import JsonObject
from handler.errors import (
    STORE_ERRORS,
    EventStoreUnavailable,
    InternalError,
    MessageTooLarge,
    Refusal,
    Unavailable,
)
from handler.items import MAX_ITEM_BYTES, SECONDS_PER_DAY, item_bytes, json_attribute
from handler.parallel import in_parallel, patiently
from handler.record import Record, escape, sha256
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

MAX_QUEUE_MESSAGE_BYTES = 1024 * 1024
"""SQS's limit of body and attributes together, of one message and of all that are sent at once."""
MAX_QUEUE_MESSAGES = 10
"""SQS's limit of what is sent at once."""


class Outcome(StrEnum):
    """What became of a record."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUEUED = "queued"


class EventSink(Protocol):
    """Where records go. What is returned is durable."""

    def write(self, record: Record) -> Outcome:
        """Store a record; raises `MessageTooLarge` before any write, or `EventStoreUnavailable`."""

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Store the records of a batch, and return what became of each.

        A record that is too large, or that causes an unexpected exception (`InternalError`), does not stop the others.
        `check_deadline` raises where there is no time for a call. After that, or `EventStoreUnavailable`, any of them
        may be stored.
        """

    def probe(self) -> None:
        """Ask whether the store answers, and leave it as it is; raises `EventStoreUnavailable`."""


class EventTable:
    """Writes records to a DynamoDB table; retention of 0 days means for ever.

    A `delete` does not expire: the eraser deletes it when it is carried out. It replaces a message of another type that
    has the same key, which it is to erase.
    """

    def __init__(self, client: "DynamoDBClient", table: str, *, retention_days: int) -> None:
        self._client = client
        self._table = table
        self._retention_seconds = retention_days * SECONDS_PER_DAY

    def write(self, record: Record, *, is_repeated: bool = False) -> Outcome:
        """Put a record, unless its key is there already. An expired item counts as absent; TTL deletes it later.

        Of a put that is repeated, by botocore or by the caller (`is_repeated`), the first try may have been stored
        although its answer was lost. The item in the table is then this record's own, so it is not a duplicate.
        """
        item = self._item(record)
        # A message that is not compressed is too short for it, with all that is taken out of it beside it.
        if "B" in item["message"] and item_bytes(item) > MAX_ITEM_BYTES:
            raise MessageTooLarge
        condition: JsonObject = {
            "ConditionExpression": "attribute_not_exists(subject) OR expires_at <= :now",
            "ExpressionAttributeValues": {":now": {"N": str(int(record.stored_at))}},
        }
        if record.message.type == DELETE:
            condition["ConditionExpression"] += " OR #type <> :delete"
            condition["ExpressionAttributeNames"] = {"#type": "type"}
            condition["ExpressionAttributeValues"][":delete"] = {"S": DELETE}
        try:
            answer = self._client.put_item(
                TableName=self._table,
                Item=item,
                ReturnConsumedCapacity="TOTAL",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            is_repeated = is_repeated or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            is_own = is_repeated and error.response.get("Item") == item
            return Outcome.STORED if is_own else Outcome.DUPLICATE
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        if "ConsumedCapacity" not in answer:
            raise EventStoreUnavailable  # botocore reads a garbled answer as an empty one, which confirms nothing
        return Outcome.STORED

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Put records beside each other."""

        def write(record: Record) -> Outcome | Refusal:
            tries = itertools.count()
            try:
                return patiently(lambda: self.write(record, is_repeated=next(tries) > 0), check_deadline)
            except MessageTooLarge as refusal:
                return refusal
            except Unavailable:
                raise
            except Exception as bug:  # noqa: BLE001 -- concerns this record alone; the outcome carries it on
                return InternalError(bug)

        return in_parallel(write, records)

    def probe(self) -> None:
        """Put an item on the condition that it is there already, which no item of this key ever is."""
        try:
            self._client.put_item(
                TableName=self._table,
                Item={"subject": {"S": "health"}, "position": {"S": "health"}},
                ConditionExpression="attribute_exists(subject)",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        raise EventStoreUnavailable  # a garbled answer, which confirms nothing

    def _item(self, record: Record) -> "dict[str, AttributeValueTypeDef]":
        item: dict[str, AttributeValueTypeDef] = {
            "subject": {"S": record.subject},
            "position": {"S": record.position},
            **{name: {"S": text} for name, text in record.facts.items()},
            "message": json_attribute(record.message.body),
        }
        if record.settings:
            item["settings"] = json_attribute(record.settings)
        if self._retention_seconds and record.message.type != DELETE:
            item["expires_at"] = {"N": str(int(record.stored_at) + self._retention_seconds)}
        return item


class EventQueue:
    """Sends records to an SQS queue, standard or FIFO."""

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._is_fifo = queue_url.endswith(".fifo")

    def write(self, record: Record) -> Outcome:
        """Send a record."""
        try:
            answer = self._client.send_message(QueueUrl=self._queue_url, **self._message(record))
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        if "MessageId" not in answer:
            raise EventStoreUnavailable  # botocore reads a garbled answer as an empty one, which confirms nothing
        return Outcome.QUEUED

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Send records, ten at once; to a FIFO queue one ten after the other, so that their order is kept.

        Where SQS takes only some of ten, the others come after them.
        """
        outcomes: list[Outcome | Refusal] = [Outcome.QUEUED] * len(records)
        messages = {}
        for number, record in enumerate(records):
            try:
                messages[str(number)] = self._message(record)
            except MessageTooLarge as refusal:
                outcomes[number] = refusal
            except Exception as bug:  # noqa: BLE001 -- concerns this record alone; the outcome carries it on
                outcomes[number] = InternalError(bug)

        def send(messages: JsonObject) -> None:
            patiently(lambda: self._send(messages), check_deadline)

        parts = list(_parts(messages))
        if self._is_fifo:
            for part in parts:
                send(part)
        else:
            in_parallel(send, parts)
        return outcomes

    def probe(self) -> None:
        """Ask for the queue's name."""
        try:
            answer = self._client.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        if "Attributes" not in answer:
            raise EventStoreUnavailable  # botocore reads a garbled answer as an empty one, which confirms nothing

    def _send(self, messages: JsonObject) -> None:
        """Send messages by their ids, and take those out that SQS confirms; raises where some are left."""
        entries: list[Any] = [{"Id": name, **message} for name, message in messages.items()]
        try:
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        for sent in answer.get("Successful", []):
            del messages[sent["Id"]]
        if messages:
            raise EventStoreUnavailable

    def _message(self, record: Record) -> JsonObject:
        """Return what SQS is told of a record, but for the queue."""
        content = {
            "subject": record.subject,
            "position": record.position,
            **record.facts,
            "settings": record.settings,
            "message": record.message.body,
        }
        message: JsonObject = {
            "MessageBody": json.dumps(content, separators=(",", ":")),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": escape(record.facts[name])}
                for name in ("customer_id", "type", "message_id")
            },
        }
        if _message_bytes(message) > MAX_QUEUE_MESSAGE_BYTES:
            raise MessageTooLarge
        return {**message, **(self._fifo_ids(record) if self._is_fifo else {})}

    def _fifo_ids(self, record: Record) -> JsonObject:
        """Order by subject and refuse repetitions; SQS takes at most 128 ASCII characters for either.

        A `delete` never counts as the repetition of a message of another type.
        """
        erasure = f"\n{DELETE}" if record.message.type == DELETE else ""
        return {
            "MessageGroupId": sha256(record.subject),
            "MessageDeduplicationId": sha256(f"{record.subject}\n{record.position}{erasure}"),
        }


def _parts(messages: JsonObject) -> Iterator[JsonObject]:
    """Yield as many messages at once, by their ids, as SQS takes."""
    part: JsonObject = {}
    part_bytes = 0
    for name, message in messages.items():
        message_bytes = _message_bytes(message)
        if len(part) == MAX_QUEUE_MESSAGES or part_bytes + message_bytes > MAX_QUEUE_MESSAGE_BYTES:
            yield part
            part, part_bytes = {}, 0
        part[name] = message
        part_bytes += message_bytes
    if part:
        yield part


def _message_bytes(message: JsonObject) -> int:
    """Count as SQS does: the body, which is ASCII, and the attributes."""
    attributes: dict[str, MessageAttributeValueTypeDef] = message["MessageAttributes"]
    return len(message["MessageBody"]) + sum(
        len(name) + len(attribute["DataType"]) + len(attribute["StringValue"].encode())
        for name, attribute in attributes.items()
    )
