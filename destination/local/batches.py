"""Pass batches of records to a function like Lambda's event source mappings, and call the services that supply them.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventsourcemapping.html
"""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from destination.local.background import in_background
from destination.local.function_process import Invocation
from destination.local.functions import FunctionError, FunctionTimeoutError
from handler.decode import JsonObject
from handler.errors import STORE_ERRORS

MAX_BATCH_BYTES = 6 * 1024 * 1024
"""Limit for an event, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
MAX_DOUBLINGS = 16
"""Limit for the back-off's exponent; a larger one would exceed any wait, and finally the range of floats."""
POLLS_TO_DOUBLE = 2
"""Empty polls after which the poll interval has doubled."""

Invoke = Callable[[JsonObject], Awaitable[Invocation]]
"""Passes an event to a function; raises `FunctionError` or `FunctionTimeoutError`."""
Tell = Callable[[str], None]
"""Reports an event to the user, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class PollPace:
    """Poll intervals and waits, in seconds.

    `first_wait` is the wait after an empty poll. It grows up to `last_wait`, so that an idle server costs less. A
    request that stores something ends the wait. `shards` is the wait between two polls for new shards, which are rare.
    `trouble` is the wait before a failed call is repeated. A batch is retried after `first_retry`, and after longer
    waits each time.
    """

    first_wait: float = 0.5
    last_wait: float = 5
    shards: float = 60
    trouble: float = 1
    first_retry: float = 0.2
    last_retry: float = 15

    def wait(self, empty_polls: int) -> float:
        """Return the wait after a number of empty polls."""
        return min(self.last_wait, self.first_wait * (1 + empty_polls / POLLS_TO_DOUBLE))

    def retry(self, failures: int) -> float:
        """Return the wait after a number of failures."""
        return min(self.last_retry, self.first_retry * 2.0 ** min(failures, MAX_DOUBLINGS))


PACE = PollPace()


class BatchError(Exception):
    """The function did not confirm any record of a batch."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A function that takes batches, by its logical name."""

    name: str
    invoke: Invoke
    tell: Tell
    redelivers: Callable[[], bool] = lambda: False
    """Decides at random whether a finished batch is delivered once more, as Lambda may do."""

    async def hand_over(self, records: Mapping[str, JsonObject], *, reports_failures: bool) -> frozenset[str]:
        """Pass records to the function by their identifiers, and return the failed ones; raises `BatchError`.

        `reports_failures` is ReportBatchItemFailures: without it, the function's return value is ignored.
        """
        failed = await self._hand_over(records, reports_failures=reports_failures)
        if not failed and self.redelivers():
            return await self._hand_over(records, reports_failures=reports_failures)
        return failed

    async def _hand_over(self, records: Mapping[str, JsonObject], *, reports_failures: bool) -> frozenset[str]:
        try:
            invocation = await self.invoke({"Records": list(records.values())})
        except (FunctionError, FunctionTimeoutError) as error:
            self.tell(f"{error}: its batch is retried")
            raise BatchError from error
        if invocation.raised:
            raise BatchError
        if not reports_failures:
            return frozenset()
        try:
            return _reported(invocation.response, records)
        except (AttributeError, LookupError, TypeError) as error:
            self.tell("The function's response is not a list of failures of its batch: the batch is retried")
            raise BatchError from error


def _reported(response: Any, records: Mapping[str, JsonObject]) -> frozenset[str]:  # noqa: ANN401 -- from a function
    failures = (response or {}).get("batchItemFailures") or ()
    identifiers = frozenset(failure["itemIdentifier"] for failure in failures)
    if unknown := identifiers - records.keys():
        raise LookupError(unknown)
    return identifiers


class Calls:
    """Calls AWS without blocking the event loop; a failure is reported once, until a call succeeds again."""

    def __init__(self, tell: Tell, pace: PollPace) -> None:
        self._tell = tell
        self._pace = pace
        self._failing: set[str] = set()

    async def once(self, call: Callable[..., Any], **parameters: object) -> Any:  # noqa: ANN401 -- the call's
        """Make a call; raises `STORE_ERRORS` after a while."""
        try:
            answer = await in_background(call, **parameters)
        except STORE_ERRORS as error:
            if call.__name__ not in self._failing:
                self._failing.add(call.__name__)
                self._tell(f"AWS answered: {str(error).rstrip('.')}. The call is repeated")
            await asyncio.sleep(self._pace.trouble)
            raise
        self._failing.discard(call.__name__)
        return answer

    async def until_answered(self, call: Callable[..., Any], **parameters: object) -> Any:  # noqa: ANN401 -- the call's
        """Repeat a call until it succeeds."""
        while True:
            try:
                return await self.once(call, **parameters)
            except STORE_ERRORS:
                pass


def batches(records: Iterable[JsonObject], size: int) -> Iterator[list[JsonObject]]:
    """Yield batches of up to `size` records that fit into one event."""
    batch: list[JsonObject] = []
    batch_bytes = 0
    for record in records:
        record_bytes = len(json.dumps(record))
        if batch and (len(batch) == size or batch_bytes + record_bytes > MAX_BATCH_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(record)
        batch_bytes += record_bytes
    if batch:
        yield batch


def to_json(value: Any) -> Any:  # noqa: ANN401 -- a value from a boto3 client
    """Convert values that JSON can't represent, as Lambda does: bytes to base64, times to seconds since 1970."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return int(value.timestamp())
        case dict():
            return {name: to_json(member) for name, member in value.items()}
        case list():
            return [to_json(member) for member in value]
    return value
