"""Batches of records, handed to a function as Lambda's event source mappings do, and the calls that fetch them.

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
"""Of an event, https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
MAX_DOUBLINGS = 16
"""Of a wait; more would be longer than any, and at last no number."""
LOOKS_TO_DOUBLE = 2
"""After so many looks in vain the wait for the next is twice the first."""

Invoke = Callable[[JsonObject], Awaitable[Invocation]]
"""Hands an event to a function; raises `FunctionError` or `FunctionTimeoutError`."""
Tell = Callable[[str], None]
"""Tells people what happens, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class PollPace:
    """How long to wait, in seconds.

    `first_look` is after nothing came, and up to `last_look` as that goes on, so that an idle server costs less. A
    request that stores something ends the wait.
    `shards` is between two looks for new shards, which are rare, and `trouble` before a call that failed is made again.
    A batch comes again after `first_retry`, and each time later.
    """

    first_look: float = 0.5
    last_look: float = 5
    shards: float = 60
    trouble: float = 1
    first_retry: float = 0.2
    last_retry: float = 15

    def look(self, in_vain: int) -> float:
        """Return the wait after so many looks in vain."""
        return min(self.last_look, self.first_look * (1 + in_vain / LOOKS_TO_DOUBLE))

    def retry(self, failures: int) -> float:
        """Return the wait after so many failures before."""
        return min(self.last_retry, self.first_retry * 2.0 ** min(failures, MAX_DOUBLINGS))


PACE = PollPace()


class BatchError(Exception):
    """No record of a batch is known to be done."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """A function that takes batches, by its logical name."""

    name: str
    invoke: Invoke
    tell: Tell
    redelivers: Callable[[], bool] = lambda: False
    """Draws whether a batch that is done is handed over once more, as Lambda may do."""

    async def hand_over(self, records: Mapping[str, JsonObject], *, reports_failures: bool) -> frozenset[str]:
        """Hand over records by their identifiers, and return those of them that failed; raises `BatchError`.

        `reports_failures` is ReportBatchItemFailures: without it, what the function returns means nothing.
        """
        failed = await self._hand_over(records, reports_failures=reports_failures)
        if not failed and self.redelivers():
            return await self._hand_over(records, reports_failures=reports_failures)
        return failed

    async def _hand_over(self, records: Mapping[str, JsonObject], *, reports_failures: bool) -> frozenset[str]:
        try:
            invocation = await self.invoke({"Records": list(records.values())})
        except (FunctionError, FunctionTimeoutError) as error:
            self.tell(f"{error}: its batch comes again")
            raise BatchError from error
        if invocation.raised:
            raise BatchError
        if not reports_failures:
            return frozenset()
        try:
            return _reported(invocation.response, records)
        except (AttributeError, LookupError, TypeError) as error:
            self.tell("The function's answer is no list of its batch's own failures: its batch comes again")
            raise BatchError from error


def _reported(response: Any, records: Mapping[str, JsonObject]) -> frozenset[str]:  # noqa: ANN401 -- a function's
    failures = (response or {}).get("batchItemFailures") or ()
    identifiers = frozenset(failure["itemIdentifier"] for failure in failures)
    if unknown := identifiers - records.keys():
        raise LookupError(unknown)
    return identifiers


class Calls:
    """Calls AWS beside the event loop; that a call fails is told once, until it succeeds again."""

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
                self._tell(f"AWS answered: {error}. It is asked again")
            await asyncio.sleep(self._pace.trouble)
            raise
        self._failing.discard(call.__name__)
        return answer

    async def until_answered(self, call: Callable[..., Any], **parameters: object) -> Any:  # noqa: ANN401 -- the call's
        """Make a call as often as it takes."""
        while True:
            try:
                return await self.once(call, **parameters)
            except STORE_ERRORS:
                pass


def batches(records: Iterable[JsonObject], size: int) -> Iterator[list[JsonObject]]:
    """Yield batches of up to `size` records, which fit into one event."""
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


def to_json(value: Any) -> Any:  # noqa: ANN401 -- what a client returns
    """Spell what JSON can't hold as Lambda does: bytes as base64, a time as seconds since 1970."""
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
