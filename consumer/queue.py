"""The Lambda function on the event queue, standard or FIFO: hands each message to `consumer/handle.py`.

SQS brings a message that failed again after the queue's visibility time-out. On a FIFO queue the later messages of the
same subject, which is their message group, wait for it.
"""

from typing import TYPE_CHECKING

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, SqsFifoPartialProcessor

from consumer.batch import Batch, Handle, process
from consumer.handle import handle
from consumer.stored import read_queue_message
from handler.decode import JsonObject

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord


def lambda_handler(event: JsonObject, _context: object) -> "PartialItemFailureResponse":
    """Consume one batch of a queue."""
    return consume(event, handle)


def consume(event: JsonObject, handle: Handle) -> "PartialItemFailureResponse":
    """Hand over the messages of a queue, and return those that failed; raises `BatchFailed`."""
    batch = Batch(handle=handle)

    def take(record: "SQSRecord") -> None:
        batch.hand_over(record.message_id, lambda: read_queue_message(record.body))

    # All records of a batch come from one queue.
    is_fifo = any(record["eventSourceARN"].endswith(".fifo") for record in event.get("Records", []))
    processor = SqsFifoPartialProcessor(skip_group_on_error=True) if is_fifo else BatchProcessor(EventType.SQS)
    return process(event, processor, take, batch)
