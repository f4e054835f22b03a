"""How commands print: tables and texts for people on a terminal, whole lines where a program or a file reads."""

import sys

from rich.console import Console

WIDE = 240
"""Columns where there is no terminal: nothing is cut."""


def stdout() -> Console:
    """Return a console for what a command tells."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
