"""What a measurement found: tables of rows with figures and ratios, that can be printed, kept and compared."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from destination.paths import ROOT

FOLDER = ROOT / "build" / "bench"
"""What measurements need and keep from one run to the next."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure: `python` and `artifact` are where to look instead of the places that each measurement names."""

    quick: bool = False
    python: Path | None = None
    artifact: Path | None = None


class NotRunError(Exception):
    """What a measurement needs is not on this machine; the text says what, and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was measured: figures by column, in the unit that the column names, and ratios by column."""

    name: str
    figures: Mapping[str, float]
    ratios: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of one kind; `name` finds the same table of another run, `bar` is the column that is drawn."""

    name: str
    title: str
    rows: tuple[Row, ...]
    bar: str
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` made; raises `KeyError` or `TypeError` for anything else."""
        rows = tuple(Row(**row) for row in content["rows"])
        return cls(
            name=content["name"], title=content["title"], rows=rows, bar=content["bar"], notes=tuple(content["notes"])
        )


def median(values: Iterable[float]) -> float:
    """Return the median, rounded to four significant digits: more would be noise."""
    return float(f"{statistics.median(values):.4g}")
