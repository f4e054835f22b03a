"""The eraser: a Lambda function that carries out `delete` calls, from the stream of the event table.

The event source mapping hands it only those. A delete that fails, or that there was no time for, comes again with those
after it; what was finished is left alone then. What can't be done at all ends in a dead-letter queue with an alarm.

Before the eraser removes a `delete`, it hands it to the event queue. So the consumer gets it even if the stream has
forgotten it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import Metrics, MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from consumer.erasure.subject import Eraser, OutOfTimeError, Scope
from consumer.erasure.table import ErasureRequest, ErasureTable
from consumer.runtime.batch import BatchFailed
from consumer.runtime.clients import patient_client
from consumer.runtime.forward import ForwardQueue
from consumer.runtime.stored import Item
from handler.observe import NAMESPACE
from handler.record import sha256
from handler.settings import AfterErasure
from handler.sinks import sink_named

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

SPARE_SECONDS = 60
"""Kept of the function's time, for the call that is under way with all its tries and pauses."""
LATEST_WRITE_SECONDS = 10
"""A request that did not see a tombstone yet may write for so long: then the endpoint's function ends."""

_metrics = Metrics(namespace=NAMESPACE)


def lambda_handler(event: dict[str, Any], context: "LambdaContext") -> "PartialItemFailureResponse":
    """Carry out the deletes of one batch of the stream, and return which of them Lambda shall bring again."""
    return carry_out(event, context, _eraser(), wait_seconds=wait_seconds(AfterErasure(os.environ["AFTER_ERASURE"])))


def wait_seconds(after_erasure: AfterErasure) -> float:
    """Return how long requests may still be under way that write what is to be refused."""
    return LATEST_WRITE_SECONDS if after_erasure is AfterErasure.REFUSE else 0


def carry_out(
    event: dict[str, Any],
    context: "LambdaContext",
    eraser: Eraser,
    *,
    wait_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> "PartialItemFailureResponse":
    """Bury all, wait for requests that are under way, and erase sequentially; raises `BatchFailed`.

    A delete that fails does not keep the others from being carried out. The wait counts from the newest tombstone, so
    that the retry of a batch does not wait again.
    """
    until = time.time() + context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS
    not_buried: dict[str, Exception] = {}
    buried_at = float("-inf")
    for record in event["Records"]:
        try:
            buried_at = max(buried_at, _seconds(eraser.bury(request_of(record)).started_at))
        except Exception as error:  # noqa: BLE001 -- raised below, where it concerns this delete alone
            not_buried[record["dynamodb"]["SequenceNumber"]] = error
    sleep(min(wait_seconds, max(0, buried_at + wait_seconds - time.time())))

    def erase(record: "DynamoDBRecord") -> None:
        request = None
        began = time.time()
        try:
            request = request_of(record.raw_event)
            if error := not_buried.get(record["dynamodb"]["SequenceNumber"]):
                raise error  # noqa: TRY301 -- handled like an erasure that fails
            receipt = eraser.erase(request, until=until)
        except Exception as error:
            _write_failure(request, error)
            raise
        if receipt is not None:
            _write({**receipt.to_json(), "outcome": "erased", "milliseconds": round((time.time() - began) * 1000)})

    # Powertools' own error would repeat what has a line already.
    processor = BatchProcessor(EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)
    response = process_partial_response(event, erase, processor)
    if len(response["batchItemFailures"]) == len(event["Records"]):
        raise BatchFailed("No erasure of the batch was finished: each has a line of its own in the log")
    return response


def _seconds(sortable: str) -> float:
    """Return a time of a receipt in seconds since 1970."""
    return datetime.fromisoformat(sortable).timestamp()


def _write(facts: dict[str, Any]) -> None:
    """Print a line that is also the metric."""
    _metrics.add_metric("Erased", MetricUnit.Count, 1)
    for name, value in facts.items():
        _metrics.add_metadata(name, value)
    _metrics.flush_metrics()


def _write_failure(request: ErasureRequest | None, error: Exception) -> None:
    """Print what went wrong; the texts of these errors are AWS's, and name tables and not users.

    Without a request, the record is not a `delete` message.
    """
    is_late = isinstance(error, OutOfTimeError)
    line = {
        "level": "INFO" if is_late else "ERROR",
        "message": "erasure",
        "outcome": "postponed" if is_late else "erasure_failed",
        "customer_id": request and request.customer_id,
        "user_hash": request and request.user_hash,
        "requested_at": request and request.requested_at,
        "error": type(error).__name__,
        "text": str(error),
    }
    sys.stdout.write(f"{json.dumps(line)}\n")


def _write_unread(key: Item) -> None:
    """Print which item can't be read. Its subject names the user, so that its hash stands here."""
    line = {
        "level": "WARNING",
        "message": "erasure",
        "outcome": "unreadable_item",
        "user_hash": sha256(key["subject"]["S"]),
        "position": key["position"]["S"],
        "text": "This item was not written by the destination. It is erased, but the ids that it names are unknown",
    }
    sys.stdout.write(f"{json.dumps(line)}\n")


def request_of(record: dict[str, Any]) -> ErasureRequest:
    """Read the request that a `delete` message on the stream is."""
    image = record["dynamodb"]["NewImage"]
    return ErasureRequest(
        customer_id=image["customer_id"]["S"], subject=image["subject"]["S"], requested_at=image["stored_at"]["S"]
    )


@cache  # one for all invocations of an environment
def _eraser() -> Eraser:
    client = patient_client("dynamodb")
    queue = ForwardQueue(patient_client("sqs"), os.environ["EVENT_QUEUE_URL"])
    return Eraser(
        client,
        event_table=os.environ["EVENT_TABLE"],
        rejects_table=os.environ["REJECTS_TABLE"],
        erasures=ErasureTable(client, os.environ["ERASURE_TABLE"]),
        scope=Scope(os.environ["ERASURE_SCOPE"]),
        hand_over=queue.send_item if _has_queue_reader() else None,
        unread=_write_unread,
    )


def _has_queue_reader() -> bool:
    """Whether somebody reads the event queue: our consumer, or who uses the queue as the sink."""
    return os.environ["CONSUMER"] == "on" or sink_named(os.environ["EVENT_SINK"]).feeds_queue
