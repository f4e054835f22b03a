"""The Lambda function on the event table's stream: hands each new message to `consumer/handle.py`.

Lambda brings the records of a subject in the order in which they were stored. It brings a batch again from the first
record that failed, and after that has failed for good it goes on with the next one.
"""

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType

from consumer.batch import Batch, Handle, process
from consumer.handle import handle
from consumer.stored import read_item
from handler.decode import JsonObject

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord


class HeldBack(Exception):
    """An earlier message of the same subject failed, and comes first."""


def lambda_handler(event: JsonObject, _context: object) -> "PartialItemFailureResponse":
    """Consume one batch of the stream."""
    return consume(event, handle)


def consume(event: JsonObject, handle: Handle) -> "PartialItemFailureResponse":
    """Hand over the messages of stream records, and return those that failed; raises `BatchFailed`."""
    batch = Batch(handle=handle)
    failed_subjects: set[Any] = set()

    def take(record: "DynamoDBRecord") -> None:
        if record["eventName"] != "INSERT":
            return  # items that expired or were erased
        change = record["dynamodb"]
        subject = change["Keys"]["subject"]["S"]
        if subject in failed_subjects:
            raise HeldBack
        try:
            batch.hand_over(change["SequenceNumber"], lambda: read_item(change["NewImage"]))
        except Exception:
            failed_subjects.add(subject)
            raise

    return process(event, BatchProcessor(EventType.DynamoDBStreams), take, batch)
