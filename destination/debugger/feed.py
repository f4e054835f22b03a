"""Keep the page's rows and numbers, and stream changes to each browser that follows."""

import asyncio
import json
import math
import time
import uuid
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from destination.debugger.rows import OUTCOMES, Row

MAX_ROWS = 10_000
KEPT_SECONDS = 300
TOLD_EVERY_SECONDS = 0.2
HEARTBEAT_SECONDS = 15.0
LATENCY_EDGES_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""The boundaries between the bins of the histogram; the last bin has no upper end."""


@dataclass(kw_only=True)
class Second:
    """The answers of one second; the second counts from 1970."""

    second: int
    counts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_EDGES_MS) + 1))

    def to_json(self) -> dict[str, Any]:
        """Return the form for the page."""
        return {"second": self.second, **_counted(self.counts), "latency": self.latency, "types": self.types}


def _counted(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in ("requests", *OUTCOMES)}


class Feed:
    """The latest rows, and numbers of all rows; for one event loop.

    A slow browser, or one that does not read at all, costs nothing: each one gets the changes since its last event,
    after it has read that event.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._run = str(uuid.uuid4())
        self._rows: deque[str] = deque(maxlen=MAX_ROWS)
        self._added = 0
        self._totals: Counter[str] = Counter()
        self._seconds: deque[Second] = deque(maxlen=KEPT_SECONDS)
        self._notice: str | None = None
        self._schemas = 0
        self._consumer_failures: dict[str, tuple[int, int]] = {}
        self._changes = 0
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, row: Row) -> None:
        """Add a row and count it."""
        self._added += 1
        self._rows.append(json.dumps({"number": self._added, **row.to_json()}))
        now = math.floor(self._clock())
        if not self._seconds or self._seconds[-1].second < now:
            self._seconds.append(Second(second=now))
        second = self._seconds[-1]
        for counts in (self._totals, second.counts):
            counts["requests"] += 1
            counts.update(row.counts)
        second.types.update(row.types)
        if row.ms is not None:
            second.latency[bisect_right(LATENCY_EDGES_MS, row.ms)] += 1
        self._wake()

    def notify(self, notice: str | None) -> None:
        """Set the notice that every browser shows, or remove it."""
        self._notice = notice
        self._wake()

    def note_consumer_failures(self, row_id: str, times: int) -> None:
        """Add the number of the consumer's failures to handle the messages of a row."""
        self._consumer_failures.pop(row_id, None)
        self._consumer_failures[row_id] = (self._changes, times)
        if len(self._consumer_failures) > MAX_ROWS:
            del self._consumer_failures[next(iter(self._consumer_failures))]
        self._wake()

    def note_schemas(self) -> None:
        """Announce to the browsers that other schemas are used from now on."""
        self._schemas += 1
        self._wake()

    def close(self) -> None:
        """End the streams of all browsers."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[str]:
        """Yield server-sent events: the current state, then the changes.

        https://html.spec.whatwg.org/multipage/server-sent-events.html
        """
        changes, told, since = self._changes, self._added, 0
        failed = {row_id: times for row_id, (_, times) in self._consumer_failures.items()}
        yield self._event("snapshot", self._rows, self._seconds, consumer_failures=failed, started=self._run)
        while not self._closed:
            if changes == self._changes and not await self._waited():
                yield ": still here\n\n"
                continue
            await asyncio.sleep(TOLD_EVERY_SECONDS)  # changes during the pause are part of the next event
            count = min(self._added - told, len(self._rows))
            rows = islice(self._rows, len(self._rows) - count, None)
            seconds = [second for second in self._seconds if second.second >= since]
            failed = {row_id: times for row_id, (at, times) in self._consumer_failures.items() if at >= changes}
            changes, told, since = self._changes, self._added, seconds[-1].second if seconds else 0
            yield self._event("more", rows, seconds, consumer_failures=failed)

    async def _waited(self) -> bool:
        """Wait for a change, and return whether one occurred."""
        try:
            async with asyncio.timeout(self._heartbeat_seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _event(self, name: str, rows: Iterable[str], seconds: Iterable[Second], **more: object) -> str:
        facts = {
            "totals": _counted(self._totals),
            "seconds": [second.to_json() for second in seconds],
            "notice": self._notice,
            "schemas": self._schemas,
            **more,
        }
        return f'event: {name}\ndata: {{"rows": [{", ".join(rows)}], {json.dumps(facts)[1:]}\n\n'
