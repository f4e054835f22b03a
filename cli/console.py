"""How commands print: tables and texts for people on a terminal, whole lines where a program or a file reads."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDE = 240
"""Columns of what fills a terminal, where there is none. A table has there as many as it needs: nothing is cut."""

_BIDI_CONTROLS = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""They show text in another order than it has. https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters"""
_UNPRINTABLE = re.compile(rf"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_BIDI_CONTROLS}]")


class _WholeLines(Console):
    """Writes to programs and files."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 -- rich's
        """Print as rich does, tables as wide as what they hold."""
        fills_width = any(not isinstance(shown, Table) or shown.expand for shown in objects)
        super().print(*objects, **{"width": WIDE if fills_width else None, **options})


def stdout() -> Console:
    """Return a console for what a command tells."""
    return Console(highlight=False) if sys.stdout.isatty() else _WholeLines(highlight=False, width=sys.maxsize)


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
