"""Show the progress of an import on standard error: a bar on a terminal, otherwise a line from time to time."""

import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TextColumn

from destination.console import counted, printable, stderr
from destination.importing.pace import ImportPace
from destination.importing.sources import InputFile
from destination.importing.state import ImportState
from destination.importing.tally import ImportTally

SHOWN_EVERY_SECONDS = 0.25
LINE_EVERY_SECONDS = 10.0
"""The pause between two lines without a terminal."""


class Display:
    """Shows the progress; `total_bytes` is None for standard input, whose length is unknown."""

    def __init__(self, sources: Sequence[InputFile]) -> None:
        sizes = [source.size for source in sources]
        self._total_bytes = None if None in sizes else sum(size or 0 for size in sizes)
        self._sources = sources
        self._first_bytes: int | None = None
        self._told = ""
        self._console = stderr()
        self._is_terminal = self._console.is_terminal
        self._next_at = time.monotonic() + (0 if self._is_terminal else LINE_EVERY_SECONDS)
        columns = (BarColumn(), TextColumn("{task.description}", markup=False))
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._is_terminal)
        self._task = self._bar.add_task("", total=self._total_bytes)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, state: ImportState, tally: ImportTally, pace: ImportPace) -> None:
        """Show the progress, if it is time to; a wait is shown at once."""
        now = time.monotonic()
        is_news = bool(pace.told) and not self._told
        if now < self._next_at and not is_news:
            return
        self._told = pace.told
        self._next_at = now + (SHOWN_EVERY_SECONDS if self._is_terminal else LINE_EVERY_SECONDS)
        done = self._done_bytes(state)
        text = self._text(done, tally, pace)
        if self._is_terminal:
            self._bar.update(self._task, completed=done, description=text)
        else:
            self._console.print(text, soft_wrap=True)

    def _done_bytes(self, state: ImportState) -> int:
        done = 0
        for source in self._sources:
            progress = state.files[source.name]
            mark = progress.mark  # in an unpacked file, more was read than is done
            done += (source.size or 0) if progress.is_whole else min(mark.position, mark.offset)
        if self._first_bytes is None:
            self._first_bytes = done
        return done

    def _text(self, done: int, tally: ImportTally, pace: ImportPace) -> str:
        parts = [counted(tally.messages, "message"), f"{tally.rate:,.0f}/s"]
        if self._total_bytes:
            parts.insert(0, f"{done / self._total_bytes:.0%}")
            gained = done - (self._first_bytes or 0)
            if gained > 0:
                left = tally.seconds / gained * max(0, self._total_bytes - done)
                parts.append(f"{timedelta(seconds=round(left))} left")
        if tally.duplicates:
            parts.append(f"{tally.duplicates:,} duplicates")
        if tally.rejected:
            parts.append(f"{tally.rejected.total():,} rejected")
        if pace.told:
            parts.append(printable(pace.told))
        return ", ".join(parts)
