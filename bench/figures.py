"""The result of a measurement: tables of rows with figures, which can be printed, saved and compared."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from destination.console import progress
from destination.paths import ROOT

FOLDER = ROOT / "build" / "bench"
"""Files that measurements keep for the next run."""
RATIO = "/ "
"""A column with this in its name holds ratios, which are compared between runs."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure; `python` measures the packages with this Python, instead of the checkout."""

    quick: bool = False
    python: Path | None = None


class NotRunError(Exception):
    """This machine lacks what a measurement needs; the text says what, and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows by name, each with figures by column."""

    name: str
    title: str
    rows: Mapping[str, Mapping[str, float]]
    notes: Sequence[str] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read a saved table; raises `KeyError`, `TypeError` or `AttributeError` for anything else."""
        return cls(**{**content, "rows": {name: dict(row) for name, row in content["rows"].items()}})

    @property
    def columns(self) -> list[str]:
        """The columns of all rows, in the order in which they appear first."""
        return list(dict.fromkeys(column for row in self.rows.values() for column in row))


def median(values: Iterable[float]) -> float:
    """Return the median, rounded to four significant digits: more would be noise."""
    return float(f"{statistics.median(values):.4g}")


def median_ratio(values: Iterable[float], references: Iterable[float]) -> float:
    """Return the median of the ratios within each round, so that a slow moment of the machine counts for both."""
    return median(value / reference for value, reference in zip(values, references, strict=True))


def take_turns(label: str, runs: Mapping[str, Callable[[int], Result]], rounds: int) -> dict[str, list[Result]]:
    """Run everything once per round, each second round in reverse; return the results by name.

    A run gets the number of its round. Round 0 warms up, and its results are dropped.
    """
    results: dict[str, list[Result]] = {name: [] for name in runs}
    with progress(label, total=(rounds + 1) * len(runs)) as advance:
        for number in range(rounds + 1):
            for name in list(runs)[:: 1 if number % 2 else -1]:
                results[name].append(runs[name](number))
                advance()
    return {name: found[1:] for name, found in results.items()}
