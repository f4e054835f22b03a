"""The Lambda function on the event table's stream: hands each new message to `consumer/handle.py`.

A new message is an INSERT, or a MODIFY where it replaces an expired item that DynamoDB has not deleted yet.
Nothing else changes an item of the event table.

Lambda brings the records of a subject in the order in which they were stored. It brings a batch again from the first
record that failed, and after that has failed for good it goes on with the next one.

What was given up is still in the event table, but for a `delete`: the eraser carries it out and deletes it. So one that
failed, or is held back, goes on to the event queue at once, whose consumer tries it again and whose dead letters are
whole.
"""

import os
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType

from consumer.batch import Batch, Handle, process
from consumer.clients import patient_client
from consumer.stored import StoredMessage, read_item
from handler.canonicalise import canonicalise
from handler.decode import JsonObject
from handler.record import Record
from handler.spec import DELETE
from handler.write import EventQueue

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord

Forward = Callable[[StoredMessage], None]
"""Makes a message durable elsewhere."""


class HeldBack(Exception):
    """An earlier message of the same subject failed, and comes first."""


def lambda_handler(event: JsonObject, _context: object) -> "PartialItemFailureResponse":
    """Consume one batch of the stream."""
    return consume(event, _handle)


def _handle(message: JsonObject, customer: str) -> None:
    """Call the partner's function; one that can't be loaded fails like one that raises."""
    from consumer.handle import handle  # noqa: PLC0415 -- so that what is to be forwarded then is

    handle(message, customer)


def to_queue(stored: StoredMessage) -> None:
    """Queue a message; raises a `Refusal` where that can't be confirmed."""
    [message] = canonicalise(stored.message)
    _queue().write(Record(customer_id=stored.customer_id, message=message, settings={}, stored_at=time.time()))


def consume(event: JsonObject, handle: Handle, forward: Forward = to_queue) -> "PartialItemFailureResponse":
    """Hand over the messages of stream records, and return those that failed; raises `BatchFailed`.

    A `delete` that failed is handed to `forward`.
    """
    batch = Batch(handle=handle)
    failed_subjects: set[Any] = set()

    def hand_over(change: JsonObject) -> None:
        if change["Keys"]["subject"]["S"] in failed_subjects:
            raise HeldBack
        batch.hand_over(change["SequenceNumber"], lambda: read_item(change["NewImage"]))

    def take(record: "DynamoDBRecord") -> None:
        change = record["dynamodb"]
        if "NewImage" not in change:
            return  # a REMOVE: the item expired or was erased
        try:
            hand_over(change)
        except Exception:
            failed_subjects.add(change["Keys"]["subject"]["S"])
            if change["NewImage"].get("type") != {"S": DELETE}:
                raise
            forward(read_item(change["NewImage"]))

    return process(event, BatchProcessor(EventType.DynamoDBStreams), take, batch)


@cache
def _queue() -> EventQueue:
    return EventQueue(patient_client("sqs"), os.environ["EVENT_QUEUE_URL"])
