"""A point of the checklist with its check, and the finding for a point."""

from collections.abc import Callable
from dataclasses import dataclass

from destination.certification.examination import Examination
from destination.certification.findings import CheckResult, Verdict

Check = Callable[[Examination], CheckResult]
"""Judges a point; raises `NotCheckable`."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A requirement: `source` is the page that requires it, `remedy` is what to do if it is not met."""

    id: str
    title: str
    source: str
    remedy: str
    check: Check


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The finding for a point."""

    point: Point
    outcome: CheckResult

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.outcome.verdict
