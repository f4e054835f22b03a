"""The points of a checklist, each with its check, and what is found for a point."""

from collections.abc import Callable
from dataclasses import dataclass

from destination.certification.examination import Examination
from destination.certification.findings import Outcome, Verdict

Check = Callable[[Examination], Outcome]
"""Judges a point; raises `NotCheckable`."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A requirement: `source` is who asks for it, `mend` what to do where it is not met."""

    id: str
    title: str
    source: str
    mend: str
    check: Check


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found for a point."""

    point: Point
    outcome: Outcome

    @property
    def verdict(self) -> Verdict:
        """The verdict."""
        return self.outcome.verdict
