"""Run a whole import: send batches concurrently, and count them in the order of the files.

So the state has one place in each file, and everything before it is durable. A batch that has to wait holds back the
others after a while, which limits the memory.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import FrameType

import click

from destination.importing.batches import ImportBatch
from destination.importing.deliver import BatchSender, Delivered
from destination.importing.pace import ImportPace, Stopped
from destination.importing.state import ImportState
from destination.importing.tally import ImportTally

BATCHES_PER_SENDER = 3
"""Batches that were read ahead, are being sent, or were answered before an earlier one."""
ENDINGS = (signal.SIGINT, signal.SIGTERM)
SHOWN_EVERY_SECONDS = 0.2

Told = Callable[[ImportState, ImportTally, ImportPace], None]
"""Shows the progress, if it is time to."""


class ImportRun:
    """Sends batches, and keeps the state and the tally of the results."""

    def __init__(
        self,
        sender: BatchSender,
        pace: ImportPace,
        state: ImportState,
        tally: ImportTally,
        *,
        concurrency: int,
        told: Told,
    ) -> None:
        self._sender = sender
        self._pace = pace
        self._state = state
        self._tally = tally
        self._concurrency = concurrency
        self._told = told
        self._is_reading = False
        self._pending: deque[tuple[ImportBatch, Future[Delivered]]] = deque()

    def run(self, batches: Iterator[ImportBatch]) -> Stopped | None:
        """Send all batches; return the reason if it ended early.

        The first Control-C or SIGTERM waits for running requests; another one ends at once.
        """
        stopped = None
        with self._ended_by_signals(), ThreadPoolExecutor(self._concurrency) as senders:
            try:
                while (batch := self._next(batches)) is not None:
                    self._pending.append((batch, senders.submit(self._sender.deliver, batch)))
                    while self._pending and (
                        len(self._pending) >= self._concurrency * BATCHES_PER_SENDER or self._pending[0][1].done()
                    ):
                        self._settle()
                while self._pending:
                    self._settle()
            except (Stopped, KeyboardInterrupt):
                self._pace.stop()
                self._save()
                with suppress(Stopped):
                    while self._pending:
                        self._settle()
                stopped = self._pace.failure or Stopped("Interrupted")
            finally:
                self._pace.stop()
        self._sender.close()
        self._save()
        return stopped

    def _next(self, batches: Iterator[ImportBatch]) -> ImportBatch | None:
        """Read the next batch. Signals interrupt only here, because standard input may pause for any time."""
        self._is_reading = True
        try:
            if self._pace.stopping.is_set():
                raise Stopped
            return next(batches, None)
        finally:
            self._is_reading = False

    def _settle(self) -> None:
        """Wait for the oldest batch, and count it."""
        batch, future = self._pending[0]
        while not future.done():
            wait([future], timeout=SHOWN_EVERY_SECONDS)
            self._told(self._state, self._tally, self._pace)
        delivered = future.result()
        self._pending.popleft()
        self._tally.add(batch, delivered)
        self._state.accepted += delivered.accepted
        self._state.duplicates += delivered.duplicates
        self._state.rejected.update(reject.code for reject in (*batch.rejects, *delivered.rejects))
        lines = 0
        for name, mark in batch.marks.items():
            lines += mark.line - self._state.files[name].mark.line
            self._state.files[name].mark = mark
            self._state.files[name].is_whole = name in batch.whole
        self._tally.lines += lines
        answered = delivered.accepted + delivered.duplicates + len(delivered.rejects)
        self._state.unaccounted += abs(lines - batch.blank - len(batch.rejects) - answered)
        if self._state.is_due:
            self._save()
        self._told(self._state, self._tally, self._pace)

    def _save(self) -> None:
        """Save the progress: the rejects first, so that none is missing if the state counts it."""
        if self._tally.rejects_file is not None:
            self._tally.rejects_file.flush()
        self._state.save()

    @contextmanager
    def _ended_by_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._end) for number in ENDINGS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._pace.stop()
        if self._pending:
            click.echo("Waiting for running requests; another Control-C ends at once.", err=True)
        if self._is_reading:
            raise KeyboardInterrupt
