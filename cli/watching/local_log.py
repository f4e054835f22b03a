"""The file of a local server, which has the lines of its function and of its API in the order in which they came."""

import itertools
import json
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import sleep

import click

from cli.local.request_log import older
from cli.watching.lines import LOGGED_ID_CHARS, AccessLine, FunctionLine, Line, Wanted, read_line
from cli.watching.request_log import Figures, Period, oldest_first

LOOK_SECONDS = 0.2


class LocalLog:
    """Reads the file, and the older one where there is one."""

    remarks = ()
    """All is told, and for nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __str__(self) -> str:
        return f"the local server's log, {self._file}"

    def lines_of(self, message_id: str, period: Period) -> Sequence[FunctionLine]:
        """Return what the function wrote of a message."""
        written = json.dumps(message_id[:LOGGED_ID_CHARS])
        found = (read_line(raw) for raw in self._raw() if written in raw)
        return oldest_first(
            line
            for line in found
            if isinstance(line, FunctionLine) and line.names(message_id) and line.time >= period.since
        )

    def answers(self, lines: Collection[FunctionLine]) -> Mapping[str, AccessLine]:
        """Return what the API answered."""
        ids = {line.request_id for line in lines}
        found = (read_line(raw) for raw in self._raw() if any(request_id in raw for request_id in ids))
        return {line.request_id: line for line in found if isinstance(line, AccessLine) and line.request_id in ids}

    def figures(self, period: Period) -> Figures:
        """Count all lines of a period."""
        figures = Figures()
        for line in map(read_line, self._raw()):
            if line is None or line.time < period.since.replace(microsecond=0):  # the API tells whole seconds
                continue
            figures.begin(line.time)
            if isinstance(line, AccessLine):
                figures.answers[(line.route, line.status, line.is_by_function)] += 1
                continue
            tally = figures.tallies[(line.customer_id, line.call_type)]
            tally.last_seen = max(tally.last_seen, line.time)
            match line.outcome:
                case "accepted":
                    tally.accepted += line.messages
                case "duplicate":
                    tally.duplicates += line.messages
                case "refused":
                    tally.refused[str(line.code)] += line.messages
                case _:
                    tally.failed[str(line.code)] += line.messages
        return figures

    def follow(self, wanted: Wanted, last: int) -> Iterator[Line | None]:
        """Yield the last lines and those that are written from now on, also into a file that begins anew."""
        latest = deque[Line](maxlen=last)
        file = self._open(self._file)
        try:
            before = self._older_than(file)
            latest.extend(_wanted(itertools.chain(before.lines() if before else (), file.lines()), wanted))
            if before:
                before.close()
            yield from latest
            while True:
                yield None
                sleep(LOOK_SECONDS)
                is_full = not file.is_at(self._file)
                yield from _wanted(file.lines(), wanted)
                if is_full and self._file.exists():
                    file.close()
                    file = self._open(self._file)
        finally:
            file.close()

    def _raw(self) -> Iterator[str]:
        """Yield all lines, oldest first."""
        with ExitStack() as opened:
            file = self._open(self._file)
            opened.callback(file.close)
            if before := self._older_than(file):
                opened.callback(before.close)
                yield from before.lines()
            yield from file.lines()

    def _open(self, file: Path) -> "_Growing":
        try:
            return _Growing(file)
        except OSError as error:
            raise click.ClickException(
                f"The request log of the local server can't be read: {error}. It is written anew when the server "
                "starts again"
            ) from error

    def _older_than(self, file: "_Growing") -> "_Growing | None":
        """Return the older file, unless that is the one that was opened, which was full just then."""
        before = older(self._file)
        return self._open(before) if before.exists() and not file.is_at(before) else None


class _Growing:
    """A file that somebody else writes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._begun = b""

    def lines(self) -> Iterator[str]:
        """Yield the lines that are whole and were not yielded yet."""
        while piece := self._file.readline():
            self._begun += piece
            if piece.endswith(b"\n"):
                yield self._begun.decode("utf-8", "replace")
                self._begun = b""

    def is_at(self, path: Path) -> bool:
        """Whether a path still leads to it."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close it."""
        self._file.close()


def _wanted(raw: Iterable[str], wanted: Wanted) -> Iterator[Line]:
    for line in map(read_line, raw):
        if line is not None and wanted.takes(line):
            yield line
