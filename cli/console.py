"""How commands print: tables and texts for people on a terminal, whole lines where a program or a file reads."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

WIDE = 240
"""Columns where there is no terminal: nothing is cut."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def stdout() -> Console:
    """Return a console for what a command tells."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def printable(text: str) -> str:
    """Replace what would steer a terminal or end the line, and what UTF-8 can't hold: ids and names are anybody's."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


@contextmanager
def progress(doing: str, *, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show a bar while work goes on, where a terminal is; the body of the `with` calls what it gets for each piece."""
    console = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
