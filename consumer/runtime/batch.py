"""Hand over one batch of messages to `consumer/handle.py`, and move the failed ones out of the way.

Each failed message writes one line of JSON. Each batch writes one line that is also its metrics (CloudWatch embedded
metric format): Consumed, ConsumerFailed and ConsumerGaveUp. A message that was not tried is not counted.

No line has a message's body. But the traceback has text of the partner's own code: if an exception quotes a message,
the quotation gets into the log.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import Metrics, MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, process_partial_response

from consumer.errors import PermanentFailure
from consumer.runtime.stored import StoredMessage, Unreadable
from handler.decode import JsonObject
from handler.observe import MAX_LOGGED_CHARS, NAMESPACE

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse

Handle = Callable[[JsonObject, str], None]
"""Takes a canonical message, and the id of its customer."""

MAX_TRACEBACK_FRAMES = 20
MAX_TRACEBACK_PART_CHARS = 1000
"""Limit for one frame, or for the text of one exception."""
MAX_TRACEBACK_CHARS = 20_000

_metrics = Metrics(namespace=NAMESPACE)


class BatchFailed(Exception):
    """Every message of a batch failed."""


Move = Callable[[], None]
"""Sends the failed message to another queue, durably."""


@dataclass(kw_only=True)
class Batch:
    """Hands messages over, and counts the results."""

    handle: Handle
    consumed: int = 0
    failed: int = 0
    given_up: int = 0

    def hand_over(
        self, record_id: str | None, read: Callable[[], StoredMessage], *, give_up: Move, retry: Move | None = None
    ) -> None:
        """Read a message and hand it over; a failure is logged, and the message is sent on.

        `give_up` sends on a message with a permanent failure, `retry` any other one. Without a `retry`, or if sending
        on fails, this raises the error: then Lambda delivers the message again.

        `record_id` is the sequence number of a stream record, or SQS's id of a queue message.
        """
        facts: JsonObject = {}
        try:
            stored = read()
            facts = {**stored.message, "customer_id": stored.customer_id}
            self.handle(stored.message, stored.customer_id)
        except Exception as error:  # noqa: BLE001 -- of the partner's code; it is logged, and the message is kept
            self.failed += 1
            known = error.facts if isinstance(error, Unreadable) else facts
            is_permanent = isinstance(error, PermanentFailure)
            move = give_up if is_permanent else retry
            try:
                if move is None:
                    raise
                move()
            except Exception as last:
                _write_failure(record_id, known, last, sent_to=None)
                raise
            self.given_up += is_permanent
            _write_failure(record_id, known, error, sent_to="dead_letters" if is_permanent else "queue")
        else:
            self.consumed += 1


def process(
    event: JsonObject, processor: BatchProcessor, take: Callable[[Any], None], batch: Batch
) -> "PartialItemFailureResponse":
    """Let `take` hand over each record of a Lambda event, and return those that Lambda must deliver again.

    Raises `BatchFailed` if these are all records. Then it counts among the function's errors, and Lambda splits a batch
    of the stream in two, until the failing record is alone.
    """
    processor.raise_on_entire_batch_failure = False  # its error repeats all tracebacks, of any length
    try:
        response = process_partial_response(event=event, record_handler=take, processor=processor)
    finally:
        _count(batch)
    if len(response["batchItemFailures"]) == len(event["Records"]):
        raise BatchFailed(
            "Every message of the batch failed or was not tried. Each failure has its own line in the log"
        )
    return response


def _count(batch: Batch) -> None:
    _metrics.add_metadata(key="message", value="batch")
    _metrics.add_metric(name="Consumed", unit=MetricUnit.Count, value=batch.consumed)
    _metrics.add_metric(name="ConsumerFailed", unit=MetricUnit.Count, value=batch.failed)
    _metrics.add_metric(name="ConsumerGaveUp", unit=MetricUnit.Count, value=batch.given_up)
    _metrics.flush_metrics()


def _write_failure(record_id: str | None, facts: Any, error: Exception, *, sent_to: str | None) -> None:  # noqa: ANN401 -- JSON
    line = {
        "level": "ERROR",
        "message": "consumer failed",
        "outcome": "consumer_failed",
        "customer_id": _short(facts.get("customer_id")),
        "message_id": _short(facts.get("message_id")),
        "call_type": _short(facts.get("type")),
        "record_id": record_id,
        "sent_to": sent_to,
        "error": type(error).__name__,
        "traceback": _traceback(error),
    }
    # Plain json.dumps escapes everything except ASCII, so text of a caller can't break the line.
    sys.stdout.write(f"{json.dumps(line)}\n")


def _short(value: object) -> str | None:
    return value[:MAX_LOGGED_CHARS] if isinstance(value, str) else None


def _traceback(error: Exception) -> str:
    """Return the last frames of a traceback, without long texts."""
    parts = traceback.format_exception(error, limit=-MAX_TRACEBACK_FRAMES)
    return "".join(part[:MAX_TRACEBACK_PART_CHARS] for part in parts)[-MAX_TRACEBACK_CHARS:]
