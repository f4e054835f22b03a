"""The Lambda function on the event queue, standard or FIFO: passes each message to `consumer/handle.py`.

SQS delivers a failed message again after the queue's visibility time-out. In a FIFO queue, the later messages of the
same subject wait for it, because the subject is the message group. A message with a permanent failure goes to the
dead-letter queue at once.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, SqsFifoPartialProcessor

from consumer.handle import handle
from consumer.runtime.batch import Batch, Handle, process
from consumer.runtime.forward import dead_letters
from consumer.runtime.stored import read_queue_message
from handler.decode import JsonObject

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

GiveUp = Callable[["SQSRecord"], None]
"""Sends a message to a queue of its own, durably."""


def lambda_handler(event: JsonObject, _context: object) -> "PartialItemFailureResponse":
    """Process one batch of a queue."""
    return consume(event, handle)


def to_dead_letters(record: "SQSRecord") -> None:
    """Move a message to its queue's dead-letter queue; raises one of `STORE_ERRORS`."""
    dead_letters(is_fifo=_is_fifo(record)).send_copy(record)


def consume(event: JsonObject, handle: Handle, give_up: GiveUp = to_dead_letters) -> "PartialItemFailureResponse":
    """Hand over the messages of a queue, and return the failed ones; raises `BatchFailed`.

    A message with a permanent failure is passed to `give_up`.
    """
    batch = Batch(handle=handle)

    def take(record: "SQSRecord") -> None:
        batch.hand_over(record.message_id, lambda: read_queue_message(record.body), give_up=lambda: give_up(record))

    # All records of a batch come from one queue.
    in_order = any(map(_is_fifo, event.get("Records", [])))
    processor = SqsFifoPartialProcessor(skip_group_on_error=True) if in_order else BatchProcessor(EventType.SQS)
    return process(event, processor, take, batch)


def _is_fifo(record: "SQSRecord | JsonObject") -> bool:
    return bool(record["eventSourceARN"].endswith(".fifo"))
