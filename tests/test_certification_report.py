"""Test the output of `destination certify`."""

from datetime import UTC, datetime

import pytest
from rich.console import Console

from destination.certification.findings import CheckResult, NotCheckable, Verdict
from destination.certification.points import Finding, Point
from destination.certification.report import Report
from destination.certification.wire import Wire


def check(_):
    raise NotCheckable


def finding(point_id, verdict):
    point = Point(id=point_id, title=f"Title of {point_id}", source="a page", remedy="Change it.", check=check)
    return Finding(point=point, outcome=CheckResult(verdict=verdict, says=f"what was found of {point_id}"))


@pytest.fixture
def report():
    return Report(
        url="https://destination.example/segment",
        only=(),
        name="certify-1",
        began_at=datetime(2031, 5, 17, tzinfo=UTC),
        version="1.0",
        findings=(
            finding("auth.missing", Verdict.PASS),
            finding("auth.empty", Verdict.FAIL),
            finding("body.empty", Verdict.WARNING),
            finding("body.array", Verdict.PASS),
            finding("health.get", Verdict.NOT_CHECKED),
        ),
        notes=(),
        wire=Wire("https://destination.example/segment", limit_seconds=5),
    )


def shown(report, **options):
    console = Console(width=100)
    with console.capture() as captured:
        console.print(report.picture(**options))
    return captured.get()


def test_points_that_passed_are_only_counted(report):
    text = shown(report)
    lines = [line.split("\t") for line in text.splitlines()]
    assert ["Group", "Passed", "Failed", "Warning", "Not checked"] in lines
    for row in (["auth", "1", "1", "", ""], ["body", "1", "", "1", ""], ["health", "", "", "", "1"]):
        assert row in lines
    assert "auth.missing" not in text
    for point in ("auth.empty", "body.empty", "health.get"):
        assert f"Title of {point}" in text
    assert "2 passed, 1 failed, 1 with a warning, 1 not checked." in text


def test_points_are_all_listed_on_request(report):
    text = shown(report, all_points=True)
    for one in report.findings:
        assert f"{one.verdict}\t{one.point.id}" in text
