"""One batch of messages, each handed to `consumer/handle.py`, and what that leaves behind.

Each message that fails leaves one line of JSON, and each batch one line that is also its metric (CloudWatch embedded
metric format): Consumed and ConsumerFailed. Messages that were held back behind a failed one are neither.

No line holds a message's body. The traceback is the text of the partner's own code, though: an exception that quotes a
message brings that quotation into the log.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import Metrics, MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, process_partial_response

from consumer.stored import StoredMessage, Unreadable
from handler.decode import JsonObject
from handler.observe import MAX_LOGGED_CHARS, NAMESPACE

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse

Handle = Callable[[JsonObject, str], None]
"""Takes a canonical message, and the id of its customer."""

MAX_TRACEBACK_FRAMES = 20
MAX_TRACEBACK_PART_CHARS = 1000
"""Of one frame, or of the text of one exception."""
MAX_TRACEBACK_CHARS = 20_000

_metrics = Metrics(namespace=NAMESPACE)


class BatchFailed(Exception):
    """Every message of a batch failed."""


@dataclass(kw_only=True)
class Batch:
    """Hands messages over, and counts what became of them."""

    handle: Handle
    consumed: int = 0
    failed: int = 0

    def hand_over(self, record_id: str | None, read: Callable[[], StoredMessage]) -> None:
        """Read a message and hand it over; raises what either raises, after a line about it.

        `record_id` is the sequence number of a stream record, or SQS's id of a queue message.
        """
        facts: JsonObject = {}
        try:
            stored = read()
            facts = {**stored.message, "customer_id": stored.customer_id}
            self.handle(stored.message, stored.customer_id)
        except Exception as error:
            self.failed += 1
            _write_failure(record_id, error.facts if isinstance(error, Unreadable) else facts, error)
            raise
        self.consumed += 1


def process(
    event: JsonObject, processor: BatchProcessor, take: Callable[[Any], None], batch: Batch
) -> "PartialItemFailureResponse":
    """Let `take` hand each record of a Lambda event over, and return which of them Lambda shall bring again.

    Raises `BatchFailed` where that is all of them: so it counts among the function's errors, and a batch of the stream
    comes again in halves, which parts a message that can never be handled from the others.
    """
    processor.raise_on_entire_batch_failure = False  # its error repeats all tracebacks, of any length
    try:
        response = process_partial_response(event=event, record_handler=take, processor=processor)
    finally:
        _count(batch)
    if len(response["batchItemFailures"]) == len(event["Records"]):
        raise BatchFailed("Every message of the batch failed: each that was tried has a line of its own in the log")
    return response


def _count(batch: Batch) -> None:
    _metrics.add_metadata(key="message", value="batch")
    _metrics.add_metric(name="Consumed", unit=MetricUnit.Count, value=batch.consumed)
    _metrics.add_metric(name="ConsumerFailed", unit=MetricUnit.Count, value=batch.failed)
    _metrics.flush_metrics()


def _write_failure(record_id: str | None, facts: Any, error: Exception) -> None:  # noqa: ANN401 -- JSON
    line = {
        "level": "ERROR",
        "message": "consumer failed",
        "outcome": "consumer_failed",
        "customer_id": _short(facts.get("customer_id")),
        "message_id": _short(facts.get("message_id")),
        "call_type": _short(facts.get("type")),
        "record_id": record_id,
        "error": type(error).__name__,
        "traceback": _traceback(error),
    }
    # Plain json.dumps escapes all that is not ASCII, so that no text of a caller can break the line.
    sys.stdout.write(f"{json.dumps(line)}\n")


def _short(value: object) -> str | None:
    return value[:MAX_LOGGED_CHARS] if isinstance(value, str) else None


def _traceback(error: Exception) -> str:
    """Return a traceback, the last frames of it, with no long texts."""
    parts = traceback.format_exception(error, limit=-MAX_TRACEBACK_FRAMES)
    return "".join(part[:MAX_TRACEBACK_PART_CHARS] for part in parts)[-MAX_TRACEBACK_CHARS:]
