"""Print safe text on any terminal: tables that cut nothing off, and whole lines for programs and files.

`standard_streams` guards standard output and standard error during a whole command. Text can't control the terminal,
and an encoding, a full disk or a closed pipe does not cause a traceback. Commands print with `click.echo`, or with a
console of this module, which also draws rich's objects. Text from outside needs care only in a single line or a table
cell: `printable` and `Rows` remove its line ends.
"""

import codecs
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.highlighter import JSONHighlighter
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

WIDE = 240
"""The width of a panel, a rule or a picture without a terminal. A table takes the width that it needs."""

GAP_COLUMNS = 2
"""The space between two columns of a table."""
FOLDED_COLUMNS = 12
"""The least width of a column that folds words."""

_BIDI_CONTROLS = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Characters that change the display order of text.
https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters"""
_CONTROLS = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_BIDI_CONTROLS}]")
"""C0 except tab and line feed, DEL, C1, line separators, lone surrogates, and bidirectional controls."""
_UNPRINTABLE = re.compile(rf"[\t\n]|{_CONTROLS.pattern}")


def printable(text: str) -> str:
    """Replace characters that could control the terminal or end the line, or that UTF-8 can't encode."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 message`, `2,000 messages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _escaped(text: str) -> str:
    r"""Write each character as `\\uXXXX`, which means the same character in JSON."""
    units = text.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _escaped(error.object[error.start : error.end]), error.end


ESCAPE = "destination.escape"
codecs.register_error(ESCAPE, _escape_unencodable)


class _Stream(io.TextIOBase):
    """Writes to a standard stream of the process; `fault` is the error that stopped it, if any.

    An error of standard output is raised, which ends the command. Standard error only accompanies the work, so its
    errors are ignored. After an error, all output is dropped.
    """

    def __init__(self, stream: "TextIO | _Stream", *, is_needed: bool) -> None:
        self._stream = stream
        self._is_needed = is_needed
        self.fault: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the wrapped stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The error handler of the wrapped stream."""
        return self._stream.errors

    def fileno(self) -> int:
        """Return the file descriptor of the wrapped stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether the wrapped stream is a terminal."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write a text unchanged."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush the wrapped stream."""
        self._attempt(self._stream.flush)

    def close(self) -> None:
        """Leave the stream below as it is: when Python 3.13 collects this object, that one may be closed already."""

    def _attempt(self, work: Callable[[], object]) -> None:
        if self.fault:
            return
        try:
            work()
        except OSError as error:
            self.fault = error
            # Python flushes the rest of the buffer at exit, and would report the same error again.
            with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a device
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if self._is_needed:
                raise


class _TextStream(_Stream):
    """Escapes text that could control the terminal; `drawn` is the same stream for a console's own control codes."""

    def __init__(self, drawn: _Stream) -> None:
        super().__init__(drawn, is_needed=True)
        self.drawn = drawn

    def write(self, text: str) -> int:
        """Write a text; escaping does not change the meaning of JSON."""
        super().write(_CONTROLS.sub(lambda found: _escaped(found[0]), text))
        return len(text)


_STANDARD = (("stdin", "r", os.O_WRONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_RDONLY))
"""The standard streams by their file descriptors, and the mode in which to open a replacement of a closed one."""


@contextmanager
def standard_streams() -> Iterator[_Stream]:
    """Guard standard output and error; yields standard output, whose `fault` is the error of a failed write."""
    with ExitStack() as after:
        _open_closed_ones(after)
        guarded = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                after.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors=ESCAPE)
            guarded[name] = _Stream(stream, is_needed=name == "stdout")
            after.callback(setattr, sys, name, stream)
            setattr(sys, name, _TextStream(guarded[name]))
        yield guarded["stdout"]


def _open_closed_ones(after: ExitStack) -> None:
    """Open closed standard streams: otherwise the next file or connection would get their file descriptors.

    Using such a stream is still an error, as in other programs.
    """
    for descriptor, (name, mode, flags) in enumerate(_STANDARD):
        if getattr(sys, name) is None:
            with suppress(OSError):
                os.fstat(descriptor)
                continue  # it is open, but Python was told not to use it
            opened = os.open(os.devnull, flags)
            os.dup2(opened, descriptor)
            if opened != descriptor:
                os.close(opened)
            after.callback(setattr, sys, name, None)
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


class _SafeConsole(Console):
    """Draws text as text, without markup, emoji codes or control characters."""

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:  # noqa: ANN401 -- rich's arguments
        stream = sys.stderr if stderr else sys.stdout
        drawn = stream.drawn if isinstance(stream, _TextStream) else stream
        super().__init__(file=cast("TextIO", drawn), highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Replace control characters in all drawn text; rich's own control codes are not text."""
        for segment in super().render(renderable, options):
            if segment.control or not _CONTROLS.search(segment.text):
                yield segment
            else:
                yield Segment(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", segment.text), segment.style)

    def on_broken_pipe(self) -> None:
        """Raise the error, as for other text that can't be written."""
        raise  # noqa: PLE0704 -- rich calls this while it handles the error


class _WholeLines(_SafeConsole):
    """Writes to programs and files."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 -- rich's arguments
        """Print like rich, but tables as wide as their contents."""
        fills_width = any(not isinstance(shown, Table | Rows) or getattr(shown, "expand", False) for shown in objects)
        super().print(*objects, **{"width": WIDE if fills_width else None, **options})


class _ServerConsole(_SafeConsole):
    """Ends a server, like Control-C, if nothing can be printed any more: a request must not fail because of that."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 -- rich's arguments
        """Print like rich."""
        try:
            super().print(*objects, **options)
        except OSError:
            signal.raise_signal(signal.SIGINT)


def stdout() -> Console:
    """Return a console for the results of a command."""
    return _SafeConsole() if sys.stdout.isatty() else _WholeLines(width=sys.maxsize)


def stderr() -> Console:
    """Return a console for text that accompanies the work, such as progress."""
    return _SafeConsole(stderr=True)


def server_stdout() -> Console:
    """Return a console for a server, which prints while it answers requests."""
    usual = _ServerConsole(soft_wrap=True)
    # rich would ask the terminal for its size for each line, although unwrapped lines don't depend on it.
    return _ServerConsole(soft_wrap=True, width=WIDE, height=1, force_terminal=usual.is_terminal)


def print_document(document: object) -> None:
    """Print a document as JSON for people; escaping keeps it valid JSON."""
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False)
    except RecursionError:  # the indenting encoder supports less nesting
        text = json.dumps(document)
    escaped = _CONTROLS.sub(lambda found: _escaped(found[0]), text)
    stdout().print(JSONHighlighter()(escaped), soft_wrap=True)


class Rows:
    """A table without lines that cuts nothing off. Programs and files get lines of tab-separated values.

    On a terminal that is too narrow for the longest word of each column, each row becomes lines of `Heading: value`.
    """

    def __init__(
        self,
        *headings: str,
        right: Sequence[int] = (),
        whole: Sequence[int] = (),
        folded: Sequence[int] = (),
        optional: Sequence[int] = (),
    ) -> None:
        """Take the headings, and the columns that are aligned right, never wrapped, or folded within words.

        Ids and other text from outside may be folded; codes and numbers may not. On a narrow terminal, `optional`
        columns are left out one by one, in the given order, until the table fits.
        """
        self._headings = headings
        self._right = right
        self._whole = whole
        self._folded = folded
        self._optional = optional
        self._rows: list[tuple[list[Text], str]] = []

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def add_row(self, *cells: str | Text, style: str = "") -> None:
        """Add a row; a cell is one line of text."""
        self._rows.append(([_one_line(cell) for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not options.is_terminal:
            for cells in (self._headings, *([cell.plain for cell in cells] for cells, _ in self._rows)):
                yield Segment("\t".join(cells) + "\n")
            return
        for left_out in range(len(self._optional) + 1):
            shown = self._without(self._optional[:left_out])
            room = options.max_width - GAP_COLUMNS * (len(shown._headings) - 1)  # noqa: SLF001 -- another table
            widths = shown._widths(room)  # noqa: SLF001 -- another table of this class
            if widths is not None:
                yield shown._table(widths)  # noqa: SLF001 -- another table of this class
                return
        yield self._list()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)

    def _without(self, left_out: Sequence[int]) -> "Rows":
        """Return the table without some columns."""
        places = [place for place in range(len(self._headings)) if place not in left_out]

        def renumbered(columns: Sequence[int]) -> list[int]:
            return [places.index(place) for place in columns if place in places]

        rows = Rows(
            *(self._headings[place] for place in places),
            right=renumbered(self._right),
            whole=renumbered(self._whole),
            folded=renumbered(self._folded),
        )
        rows._rows = [([cells[place] for place in places], style) for cells, style in self._rows]
        return rows

    def _widths(self, columns: int) -> list[int] | None:
        """Return the widths of the table's columns, None if they don't fit."""
        lines = [[Text(heading) for heading in self._headings], *(cells for cells, _ in self._rows)]
        longest = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
        for folded in ((), self._folded):  # a column is folded only if the table does not fit otherwise
            words = [
                self._least(place, wide, column, folded)
                for place, (wide, column) in enumerate(zip(longest, zip(*lines, strict=True), strict=True))
            ]
            if sum(words) <= columns:
                break
        else:
            return None
        widths = longest
        while (excess := sum(widths) - columns) > 0:
            place = max(range(len(widths)), key=lambda at: (widths[at] > words[at], widths[at]))
            others = [width for at, width in enumerate(widths) if at != place and width > words[at]]
            widths[place] = max(words[place], widths[place] - excess, min(max(others, default=0), widths[place] - 1))
        return widths

    def _least(self, place: int, longest: int, column: Sequence[Text], folded: Sequence[int]) -> int:
        """Return the least width of a column."""
        if place in self._whole:
            return longest
        heading, *words = map(_longest_word, column)
        word = max(words, default=0)
        return max(heading, min(word, FOLDED_COLUMNS) if place in folded else word)

    def _table(self, widths: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, GAP_COLUMNS, 0, 0))
        for place, (heading, width) in enumerate(zip(self._headings, widths, strict=True)):
            table.add_column(
                Text(heading), width=width, justify="right" if place in self._right else "left", overflow="fold"
            )
        for cells, style in self._rows:
            table.add_row(*cells, style=style)
        return table

    def _list(self) -> Text:
        lines = Text(overflow="fold")
        for cells, _ in self._rows:
            for heading, cell in zip(self._headings, cells, strict=True):
                if cell.plain:
                    lines.append(f"{heading}: ", "bold").append_text(cell).append("\n")
            lines.append("\n")
        lines.rstrip()
        return lines


def _one_line(cell: str | Text) -> Text:
    text = Text(cell) if isinstance(cell, str) else cell
    clean = Text(printable(text.plain), text.style)
    clean.spans = list(text.spans)
    return clean


def _longest_word(text: Text) -> int:
    return max((Text(word).cell_len for word in text.plain.split()), default=0)


@contextmanager
def progress(doing: str, *, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a progress bar on a terminal; the body of the `with` calls the yielded function for each piece."""
    console = stderr()
    columns = (TextColumn(doing, markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
