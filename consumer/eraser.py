"""The eraser: a Lambda function that carries out `delete` calls from the stream of the event table.

The event source mapping passes only `delete` calls. If a delete fails, or there is no time for it, Lambda delivers it
again, with those after it; a finished erasure is then left alone. A delete that always fails ends in a dead-letter
queue with an alarm.

Before the eraser removes a `delete`, it sends it to the event queue. So the consumer gets it even if the stream has
dropped it.
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
from consumer.runtime.clients import background_client
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
"""Reserved at the end of the function's time, for a running call with all its tries and pauses."""
LATEST_WRITE_SECONDS = 10
"""A request that has not seen a tombstone may write for this long: then the endpoint's function times out."""

_metrics = Metrics(namespace=NAMESPACE)


def lambda_handler(event: dict[str, Any], context: "LambdaContext") -> "PartialItemFailureResponse":
    """Carry out the deletes of a stream batch, and return the records that Lambda must deliver again."""
    return carry_out(event, context, _eraser(), wait_seconds=wait_seconds(AfterErasure(os.environ["AFTER_ERASURE"])))


def wait_seconds(after_erasure: AfterErasure) -> float:
    """Return how long running requests may still write messages that must be refused."""
    return LATEST_WRITE_SECONDS if after_erasure is AfterErasure.REFUSE else 0


def carry_out(
    event: dict[str, Any],
    context: "LambdaContext",
    eraser: Eraser,
    *,
    wait_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> "PartialItemFailureResponse":
    """Write all tombstones, wait for running requests, and erase one by one; raises `BatchFailed`.

    A delete that fails does not prevent the others. The wait counts from the newest tombstone, so the retry of a batch
    does not wait again.
    """
    until = time.time() + context.get_remaining_time_in_millis() / 1000 - SPARE_SECONDS
    without_tombstone: dict[str, Exception] = {}
    tombstone_at = float("-inf")
    for record in event["Records"]:
        try:
            tombstone_at = max(tombstone_at, _seconds(eraser.leave_tombstone(request_of(record)).started_at))
        except Exception as error:  # noqa: BLE001 -- raised below, where it affects this delete alone
            without_tombstone[record["dynamodb"]["SequenceNumber"]] = error
    sleep(min(wait_seconds, max(0, tombstone_at + wait_seconds - time.time())))

    def erase(record: "DynamoDBRecord") -> None:
        request = None
        began = time.time()
        try:
            request = request_of(record.raw_event)
            if error := without_tombstone.get(record["dynamodb"]["SequenceNumber"]):
                raise error  # noqa: TRY301 -- handled like an erasure that fails
            receipt = eraser.erase(request, until=until)
        except Exception as error:
            _write_failure(request, error)
            raise
        if receipt is not None:
            _write({**receipt.to_json(), "outcome": "erased", "milliseconds": round((time.time() - began) * 1000)})

    # Powertools' own error would repeat texts that are already in the log.
    processor = BatchProcessor(EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)
    response = process_partial_response(event, erase, processor)
    if len(response["batchItemFailures"]) == len(event["Records"]):
        raise BatchFailed("No erasure of the batch was finished. Each has its own line in the log")
    return response


def _seconds(sortable: str) -> float:
    """Return a time in a receipt as seconds since 1970."""
    return datetime.fromisoformat(sortable).timestamp()


def _write(facts: dict[str, Any]) -> None:
    """Print a log line that is also the metric."""
    _metrics.add_metric("Erased", MetricUnit.Count, 1)
    for name, value in facts.items():
        _metrics.add_metadata(name, value)
    _metrics.flush_metrics()


def _write_failure(request: ErasureRequest | None, error: Exception) -> None:
    """Print the error of an erasure. The texts of these errors come from AWS, and name tables but not users.

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
    """Print the key of an item that can't be read, with a hash in place of the subject, which names the user."""
    line = {
        "level": "WARNING",
        "message": "erasure",
        "outcome": "unreadable_item",
        "user_hash": sha256(key["subject"]["S"]),
        "position": key["position"]["S"],
        "text": "This item was not written by the destination. It is erased, but its linked ids are unknown",
    }
    sys.stdout.write(f"{json.dumps(line)}\n")


def request_of(record: dict[str, Any]) -> ErasureRequest:
    """Return the request in a `delete` message on the stream."""
    image = record["dynamodb"]["NewImage"]
    return ErasureRequest(
        customer_id=image["customer_id"]["S"],
        subject=image["subject"]["S"],
        requested_at=image["stored_at"]["S"],
        message_id=image["message_id"]["S"],
    )


@cache  # shared by all invocations of an environment
def _eraser() -> Eraser:
    client = background_client("dynamodb")
    queue = ForwardQueue(background_client("sqs"), os.environ["EVENT_QUEUE_URL"])
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
    """Return whether something reads the event queue: our consumer, or the partner's if the queue is the sink."""
    return os.environ["CONSUMER"] == "on" or sink_named(os.environ["EVENT_SINK"]).feeds_queue
