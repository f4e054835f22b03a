"""The Lambda function on the event table's stream: passes each new message to `consumer/handle.py`.

A failed message never holds up the stream. It is sent at once to the event queue, whose consumer retries it alone, or
to the dead letters if its failure is permanent. So Lambda delivers a record again only if it could not be sent on, or
if there was no time for it.
"""

import math
import os
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType

from consumer.runtime.batch import Batch, Handle, process
from consumer.runtime.clients import background_client
from consumer.runtime.forward import ForwardQueue, dead_letters
from consumer.runtime.stored import Image, read_item
from handler.decode import JsonObject

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

MESSAGE_SECONDS = 30
"""Time for one message: none is started if less is left of the function's time."""

Send = Callable[[Image], None]
"""Sends a message to a queue, durably."""


class Forwards(NamedTuple):
    """The queues for failed messages."""

    retry: Send
    give_up: Send


class HeldBack(Exception):
    """The message was not tried: the batch ended at an earlier one, and Lambda delivers the rest again."""


def lambda_handler(event: JsonObject, context: "LambdaContext") -> "PartialItemFailureResponse":
    """Process one batch of the stream."""
    until = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - MESSAGE_SECONDS
    return consume(event, _handle, until=until)


def _handle(message: JsonObject, customer: str) -> None:
    """Call the partner's function; if it can't be loaded, that counts as a failure of the message."""
    from consumer.handle import handle  # noqa: PLC0415 -- if the import fails, the message is sent on

    handle(message, customer)


def consume(
    event: JsonObject, handle: Handle, forwards: Forwards | None = None, *, until: float = math.inf
) -> "PartialItemFailureResponse":
    """Hand over the messages of stream records, and return those that Lambda must deliver again; raises `BatchFailed`.

    A failed message is sent on; by default, `forwards` are the queues in the environment. The batch ends at the first
    message that can't be sent on, and when `time.monotonic()` passes `until`. Later records are not tried, so that no
    message is handed over again because of another one.
    """
    batch = Batch(handle=handle)
    has_ended = False

    def take(record: "DynamoDBRecord") -> None:
        nonlocal has_ended
        change = record["dynamodb"]
        if "NewImage" not in change:
            return  # a REMOVE: the item expired or was erased
        if has_ended or time.monotonic() > until:
            has_ended = True
            raise HeldBack
        image = change["NewImage"]
        try:
            batch.hand_over(
                change["SequenceNumber"],
                lambda: read_item(image),
                retry=lambda: (forwards or _queues()).retry(image),
                give_up=lambda: (forwards or _queues()).give_up(image),
            )
        except Exception:
            has_ended = True
            raise

    return process(event, BatchProcessor(EventType.DynamoDBStreams), take, batch)


@cache
def _queues() -> Forwards:
    url = os.environ["EVENT_QUEUE_URL"]
    return Forwards(
        retry=ForwardQueue(background_client("sqs"), url).send_item,
        give_up=dead_letters(is_fifo=url.endswith(".fifo")).send_item,
    )
