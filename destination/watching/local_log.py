"""The log file of a local server, with the lines of its function and its API in the order of writing."""

import itertools
import json
import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from time import sleep

import click

from destination.watching.lines import (
    LOGGED_ID_CHARS,
    AccessLine,
    ConsumerFailure,
    FunctionLine,
    Line,
    Wanted,
    read_consumer_failure,
    read_line,
)
from destination.watching.log_file import older
from destination.watching.request_log import Figures, KeyUse, KeyUses, Period, note_use, oldest_first

POLL_SECONDS = 0.2
PIECE_BYTES = 64 * 1024
_REQUEST_ID = re.compile(r'"requestId": ("(?:[^"\\]|\\.)*")')
"""The request id in a line of the API; lines of the function have another name for it."""


class LocalLog:
    """Reads the file, and the older one, if any."""

    remarks = ()
    """No remarks: the log is complete and free of charge."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._all: Figures | None = None

    def __str__(self) -> str:
        return f"the local server's log, {self._file}"

    def lines_of(self, message_id: str, period: Period) -> Sequence[FunctionLine]:
        """Return the function's lines about a message."""
        written = json.dumps(message_id[:LOGGED_ID_CHARS])
        found = (read_line(raw) for raw in self._raw() if written in raw)
        return oldest_first(
            line
            for line in found
            if isinstance(line, FunctionLine) and line.names(message_id) and line.time >= period.since
        )

    def answers(self, lines: Collection[FunctionLine]) -> Mapping[str, AccessLine]:
        """Return the API's answers."""
        written = {json.dumps(line.request_id) for line in lines}
        asked = (raw for raw in self._raw() if (named := _REQUEST_ID.search(raw)) and named[1] in written)
        return {line.request_id: line for line in map(read_line, asked) if isinstance(line, AccessLine)}

    def consumer_failures(self, message_id: str, period: Period) -> Sequence[ConsumerFailure]:
        """Return the consumer's failures to handle a message."""
        found = filter(None, map(read_consumer_failure, self._raw()))
        logged_id = message_id[:LOGGED_ID_CHARS]
        return [failure for failure in found if logged_id in failure.message_ids and failure.time >= period.since]

    def key_uses(self, customer_id: str, period: Period) -> KeyUses:
        """Return when each key of a customer was last used."""
        written = json.dumps(customer_id)
        uses: KeyUses = {}
        for line in (read_line(raw) for raw in self._raw() if written in raw):
            if isinstance(line, FunctionLine) and line.customer_id == customer_id and line.time >= period.since:
                note_use(uses, line.key, KeyUse(time=line.time, status=line.status))
        return uses

    def figures(self, period: Period) -> Figures:
        """Count all lines of a period.

        The first call also counts everything in the log, so that this query does not read the file again.
        """
        since = period.since.replace(microsecond=0)  # the API's times have whole seconds
        if self._all is not None and (self._all.first is None or since <= self._all.first):
            return deepcopy(self._all)
        figures, everything = Figures(), Figures()
        failures: list[ConsumerFailure] = []
        for raw in self._raw():
            if failure := read_consumer_failure(raw):
                failures.append(failure)
                continue
            line = read_line(raw)
            if line is None:
                continue
            _count(line, everything)
            if line.time >= since:
                _count(line, figures)
        everything.consumer_failures = len(failures)
        figures.consumer_failures = sum(failure.time >= since for failure in failures)
        self._all = everything
        return figures

    def follow(self, wanted: Wanted, last: int) -> Iterator[Line | None]:
        """Yield the last lines and then new ones, also after the file has been replaced by a new one."""
        latest = deque[Line](maxlen=last)
        file = self._open(self._file)
        try:
            size = file.size
            if last:
                before = self._older_than(file)
                earlier = itertools.chain(before.lines() if before else (), file.lines(size))
                latest.extend(_wanted(earlier, wanted))
                if before:
                    before.close()
                yield from latest
            else:
                file.skip(size)
            while True:
                yield None
                sleep(POLL_SECONDS)
                is_over = file.is_cut or not file.is_at(self._file)
                yield from _wanted(file.lines(), wanted)
                if is_over and self._file.exists():
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
                f"The request log of the local server can't be read: {error}. A new one is written when the server "
                "starts again"
            ) from error

    def _older_than(self, file: "_Growing") -> "_Growing | None":
        """Return the older file, unless it is the opened one, which has just become the older file."""
        before = older(self._file)
        return self._open(before) if before.exists() and not file.is_at(before) else None


class _Growing:
    """A file that another process writes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._position = 0
        self._begun = b""

    @property
    def size(self) -> int:
        """The current size in bytes."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def is_cut(self) -> bool:
        """Return whether the file is shorter than the part already read: somebody truncated it."""
        return self.size < self._position

    def skip(self, size: int) -> None:
        """Skip the complete lines in the first bytes."""
        end = size
        while end:
            begin = max(0, end - PIECE_BYTES)
            self._file.seek(begin)
            whole = self._file.read(end - begin).rfind(b"\n") + 1
            end = begin
            if whole:
                self._position = begin + whole
                break
        self._file.seek(self._position)

    def lines(self, size: int | None = None) -> Iterator[str]:
        """Yield complete lines that were not yielded yet; only those that begin within the first bytes."""
        while (size is None or self._position < size) and (piece := self._file.readline()):
            self._position += len(piece)
            self._begun += piece
            if piece.endswith(b"\n"):
                yield self._begun.decode("utf-8", "replace")
                self._begun = b""

    def is_at(self, path: Path) -> bool:
        """Return whether a path still leads to this file."""
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


def _count(line: Line, figures: Figures) -> None:
    """Add a line to figures."""
    figures.begin(line.time)
    if isinstance(line, AccessLine):
        figures.answers[(line.route, line.status, line.is_by_function)] += 1
        return
    tally = figures.tallies[(line.customer_id, line.call_type)]
    tally.last_seen = max(tally.last_seen, line.time)
    is_accepted = line.outcome in ("accepted", "duplicate")
    figures.note_answer(line.status, line.requests, accepted=line.messages if is_accepted else 0)
    match line.outcome:
        case "accepted":
            tally.accepted += line.messages
        case "duplicate":
            tally.duplicates += line.messages
        case "refused":
            tally.refused[str(line.code)] += line.messages
        case _:
            tally.failed[str(line.code)] += line.messages
