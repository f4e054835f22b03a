"""All points, in the order in which they are checked: what is judged over all answers comes after them."""

from collections.abc import Iterable, Iterator

from cli.certification import answers, requests, storage, transport
from cli.certification.examination import Examination
from cli.certification.findings import Finding, NotCheckable, Outcome, Point, Verdict
from handler.errors import STORE_ERRORS

POINTS: tuple[Point, ...] = (
    *transport.POINTS,
    *requests.POINTS,
    *storage.POINTS,
    *answers.POINTS,
    storage.ALL_ACCEPTED,
    *answers.FAULTS,
)


def chosen(names: Iterable[str]) -> list[Point]:
    """Return the points with these ids, or of these groups (`auth`); all without any. Raises `KeyError`."""
    wanted = list(names)
    for name in wanted:
        if not any(_is_meant(point, name) for point in POINTS):
            raise KeyError(name)
    return [point for point in POINTS if not wanted or any(_is_meant(point, name) for name in wanted)]


def _is_meant(point: Point, name: str) -> bool:
    return point.id == name or point.id.startswith(f"{name}.")


def findings(examination: Examination, points: Iterable[Point]) -> Iterator[Finding]:
    """Judge points, one after the other."""
    for point in points:
        try:
            outcome = point.check(examination)
        except NotCheckable as reason:
            outcome = Outcome(verdict=Verdict.NOT_CHECKED, says=str(reason))
        except STORE_ERRORS as error:
            outcome = Outcome(verdict=Verdict.NOT_CHECKED, says=f"the stores can't be read: {error}")
        yield Finding(point=point, outcome=outcome)
