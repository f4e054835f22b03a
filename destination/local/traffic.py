"""Let requests go first: readers of streams and queues on this machine wait while requests are processed.

In Lambda they don't compete for a processor. Here they share a few processors.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_SECONDS_PER_RECORD = 0.02
"""Upper bound for the time that a record waits for requests. Under steady load, 50 records a second are delivered."""
GATHER_SECONDS = 0.1
"""Pause between a request and the next read, so that one read gets the records of several requests."""


class ServerTraffic:
    """The requests of a server, for one event loop; `served` counts the requests that stored something."""

    def __init__(self) -> None:
        self.served = 0
        self._under_way = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._has_served = asyncio.Event()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while it is served."""
        self._under_way += 1
        self._is_quiet.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._is_quiet.set()

    def note_served(self) -> None:
        """Wake the readers: there are new records."""
        self.served += 1
        self._has_served.set()

    async def give_way(self, records: int) -> None:
        """Wait until no request is running, or until the records have waited long enough."""
        await _wait(self._is_quiet, records * WAIT_SECONDS_PER_RECORD)

    async def next_poll(self, seconds: float, *, served: int) -> None:
        """Wait some seconds, or less if more requests were served than `served`."""
        if self.served == served:
            self._has_served.clear()
            if not await _wait(self._has_served, seconds):
                return
        await asyncio.sleep(min(seconds, GATHER_SECONDS))


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, and return whether it came in time."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
