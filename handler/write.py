"""Step 5: a durable record, in a DynamoDB table or an SQS queue; a message that was there already is a duplicate.

One conditional put is at once the write and the idempotency. `docs/storage.md` describes attributes and queue messages.
"""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from handler.errors import STORE_ERRORS, EventStoreUnavailable, MessageTooLarge
from handler.items import MAX_ITEM_BYTES, SECONDS_PER_DAY, item_bytes, json_attribute
from handler.record import Record, escape, sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

MAX_QUEUE_MESSAGE_BYTES = 1024 * 1024
"""SQS's limit of body and attributes together."""


class Outcome(StrEnum):
    """What became of a record."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUEUED = "queued"


class EventSink(Protocol):
    """Where records go. `write` returns only when the record is durable."""

    def write(self, record: Record) -> Outcome:
        """Store a record; raises `MessageTooLarge` before any write, or `EventStoreUnavailable`."""


class EventTable:
    """Writes records to a DynamoDB table; retention of 0 days means for ever."""

    def __init__(self, client: "DynamoDBClient", table: str, *, retention_days: int) -> None:
        self._client = client
        self._table = table
        self._retention_seconds = retention_days * SECONDS_PER_DAY

    def write(self, record: Record) -> Outcome:
        """Put a record, unless its key is there already."""
        item = self._item(record)
        # A message that is not compressed is too short for it, with all that is taken out of it beside it.
        if "B" in item["message"] and item_bytes(item) > MAX_ITEM_BYTES:
            raise MessageTooLarge
        try:
            answer = self._client.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression="attribute_not_exists(subject)",
                ReturnConsumedCapacity="TOTAL",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return Outcome.DUPLICATE
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        if "ConsumedCapacity" not in answer:
            raise EventStoreUnavailable  # botocore reads a garbled answer as an empty one, which confirms nothing
        return Outcome.STORED

    def _item(self, record: Record) -> "dict[str, AttributeValueTypeDef]":
        item: dict[str, AttributeValueTypeDef] = {
            "subject": {"S": record.subject},
            "position": {"S": record.position},
            **{name: {"S": text} for name, text in record.facts.items()},
            "message": json_attribute(record.message.body),
        }
        if record.settings:
            item["settings"] = json_attribute(record.settings)
        if self._retention_seconds:
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
        content = {
            "subject": record.subject,
            "position": record.position,
            **record.facts,
            "settings": record.settings,
            "message": record.message.body,
        }
        body = json.dumps(content, separators=(",", ":"))
        attributes: dict[str, MessageAttributeValueTypeDef] = {
            name: {"DataType": "String", "StringValue": escape(record.facts[name])}
            for name in ("customer_id", "type", "message_id")
        }
        if len(body) + _attribute_bytes(attributes) > MAX_QUEUE_MESSAGE_BYTES:
            raise MessageTooLarge
        try:
            answer = self._client.send_message(
                QueueUrl=self._queue_url,
                MessageBody=body,
                MessageAttributes=attributes,
                **(self._fifo_ids(record) if self._is_fifo else {}),
            )
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        if "MessageId" not in answer:
            raise EventStoreUnavailable  # botocore reads a garbled answer as an empty one, which confirms nothing
        return Outcome.QUEUED

    def _fifo_ids(self, record: Record) -> dict[str, Any]:
        """Order by subject and refuse repetitions; SQS takes at most 128 ASCII characters for either."""
        return {
            "MessageGroupId": sha256(record.subject),
            "MessageDeduplicationId": sha256(f"{record.subject}\n{record.position}"),
        }


def _attribute_bytes(attributes: "Mapping[str, MessageAttributeValueTypeDef]") -> int:
    return sum(
        len(name) + len(attribute["DataType"]) + len(attribute["StringValue"].encode())
        for name, attribute in attributes.items()
    )
