"""All points, in the order in which they are checked.

`stored.accepted` looks for all accepted messages before a user is erased. Points about all answers come later.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from destination.certification import answers, erasure, identity, keys, requests, storage, transport
from destination.certification.examination import Examination
from destination.certification.findings import CheckResult, NotCheckable, Verdict, failed
from destination.certification.points import Finding, Point
from handler.errors import STORE_ERRORS

POINTS: tuple[Point, ...] = (
    *transport.POINTS,
    *requests.POINTS,
    *keys.POINTS,
    *storage.POINTS,
    *identity.POINTS,
    *answers.POINTS,
    storage.ALL_ACCEPTED,
    *requests.DELETES,
    *erasure.POINTS,
    *answers.OVERALL,
    keys.REVOKED_IN_TIME,
    *answers.FAULTS,
)
BEGINNINGS = (keys.begin, erasure.begin, requests.begin)
"""Called with the ids of the wanted points before any point is judged."""


def chosen(names: Iterable[str]) -> list[Point]:
    """Return the points with these ids, or of these groups (`auth`); all without any. Raises `KeyError`."""
    wanted = list(names)
    for name in wanted:
        if not any(_is_meant(point, name) for point in POINTS):
            raise KeyError(name)
    return [point for point in POINTS if not wanted or any(_is_meant(point, name) for name in wanted)]


def _is_meant(point: Point, name: str) -> bool:
    return point.id == name or point.id.startswith(f"{name}.")


def findings(examination: Examination, points: Sequence[Point]) -> Iterator[Finding]:
    """Judge points one by one. That the endpoint accepts no messages is always reported, whatever was selected.

    Requests that take time, and that depend on nothing else, are sent first.
    """
    for begin in BEGINNINGS:
        with suppress(Exception):  # the check of the point tries it again, and judges the error
            begin(examination, [point.id for point in points])
    for point in points:
        yield _finding(examination, point)
    if transport.REACHABLE not in points:
        reachable = _finding(examination, transport.REACHABLE)
        if reachable.verdict is Verdict.FAIL:
            yield reachable


def _finding(examination: Examination, point: Point) -> Finding:
    try:
        outcome = point.check(examination)
    except NotCheckable as reason:
        outcome = CheckResult(verdict=Verdict.NOT_CHECKED, says=str(reason))
    except STORE_ERRORS as error:
        outcome = failed(f"the stores can't be read: {error}")
    except Exception as error:  # noqa: BLE001 -- a bug in one point must not cost what the others find
        outcome = failed(f"certify itself broke off ({type(error).__name__}: {error})")
    return Finding(point=point, outcome=outcome)
