"""Test the reading of both logs' lines, their filters, and the sender's reaction to each."""

import json
from datetime import UTC, datetime

import pytest
from request_lines import ACCEPTED, DUPLICATE, FAILED, REFUSED, access_line, function_line, function_lines

from destination.watching import lines as lines_module
from destination.watching import status
from destination.watching.lines import AccessLine, FunctionLine, Wanted, read_line
from destination.watching.retries import describe_retry
from handler import observe
from handler.observe import MAX_LOGGED_MESSAGES, Answered

LINE = function_line(message_id="m", time=1_773_307_800_250)


def test_function_line_of_a_message_is_read():
    line = read_line(function_line(REFUSED, message_id="m", kept=True, time=1_773_307_800_250))
    assert isinstance(line, FunctionLine)
    assert line.time == datetime(2026, 3, 12, 9, 30, 0, 250_000, UTC)
    told = (line.request_id, line.route, line.customer_id, line.call_type, line.message_ids, line.messages)
    assert told == ("r-1", "/segment", "acme", "track", ("m",), 1)
    answered = (line.outcome, line.status, line.code, line.text, line.kept)
    assert answered == ("refused", 400, "invalid_message", "event is required", True)
    assert line.milliseconds >= 0


def test_function_line_of_a_batch_is_read():
    ids = [f"m-{number}" for number in range(MAX_LOGGED_MESSAGES + 1)]
    first, second = map(read_line, function_lines(message_ids=ids, route="/v1/batch", messages=len(ids)))
    assert (first.messages, second.messages) == (100, 1)
    assert first.message_ids + second.message_ids == tuple(ids)
    assert (first.route, first.kept) == ("/v1/batch", None)


def test_line_of_a_request_without_a_customer_is_read():
    line = read_line(function_line(FAILED, customer_id=None, call_type=None))
    assert (line.customer_id, line.call_type, line.message_ids, line.messages) == (None, None, (), 1)


def test_a_line_of_an_older_version_is_read():
    facts = json.loads(LINE)
    del facts["route"], facts["text"]
    line = read_line(json.dumps(facts))
    assert (line.route, line.text) == ("/segment", None)


def test_api_line_is_read():
    line = read_line(access_line(503, integrationStatus="-"))
    assert line == AccessLine(
        time=datetime(2026, 3, 12, 9, 30, tzinfo=UTC),
        request_id="r-1",
        route="POST /segment",
        status=503,
        milliseconds=12,
        error="the function did not answer in time",
        is_by_function=False,
        raw=line.raw,
    )


@pytest.mark.parametrize(
    ("status", "integration", "is_by_function"),
    [(200, 200, True), (503, 200, True), (500, 200, False), (503, "-", False), (503, 429, False), (404, "-", False)],
)
def test_api_line_shows_whether_the_function_answered(status, integration, is_by_function):
    assert read_line(access_line(status, integrationStatus=integration)).is_by_function is is_by_function


@pytest.mark.parametrize(
    ("status", "integration", "why"),
    [
        (200, 200, None),
        (503, 200, None),
        (500, 200, "the function failed"),
        (503, "-", "the function did not answer in time"),
        (503, 429, "Lambda answered 429"),
        (404, "-", "no such route"),
        (429, "-", "there were more requests than the limit allows"),
        (403, "-", None),
        ("-", "-", None),
    ],
)
def test_two_statuses_show_why_the_function_did_not_answer(status, integration, why):
    assert read_line(access_line(status, integrationStatus=integration)).error == why


def test_the_error_in_a_line_of_an_older_version_is_read():
    facts = json.loads(access_line(503, integrationStatus="-")) | {"integrationError": "timed out"}
    assert read_line(json.dumps(facts)).error == "timed out"


def test_missing_status_of_the_api_is_none():
    assert read_line(access_line("-")).status is None


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "START RequestId: 1 Version: $LATEST",
        "Traceback (most recent call last):",
        LINE[:-20],
        "[]",
        "7",
        '"request"',
        "null",
        "[" * 100_000,
        '{"message": "request"}',
        '{"message": "health", "level": "INFO", "code": null}',
        '{"message": "request", "_aws": {"Timestamp": 1e300}, "request_id": "r"}',
        '{"message": "request", "_aws": 5}',
        access_line(200, requestTime="-"),
    ],
    ids=lambda raw: raw[:30],
)
def test_other_lines_are_ignored(raw):
    assert read_line(raw) is None


@pytest.mark.parametrize("message_id", ["m", "日本", '"\\', "\x00", "\ud800", "x" * 100, "x" * 101])
def test_line_with_any_message_id_is_read(message_id):
    single = read_line(function_line(message_id=message_id))
    batch = read_line(function_line(message_ids=["other", message_id]))
    assert single.names(message_id)
    assert batch.names(message_id)
    assert not single.names("other")


def test_constants_equal_the_functions():
    assert lines_module.LOGGED_ID_CHARS == observe.MAX_LOGGED_CHARS
    assert status.NAMESPACE == observe.NAMESPACE


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Wanted(), True),
        (Wanted(outcomes=frozenset({"refused", "failed"})), True),
        (Wanted(outcomes=frozenset({"accepted"})), False),
        (Wanted(customer_id="acme"), True),
        (Wanted(customer_id="acm"), False),
        (Wanted(call_type="track"), True),
        (Wanted(call_type="page"), False),
        (Wanted(code="invalid_message"), True),
        (Wanted(code="invalid_json"), False),
        (Wanted(status="400"), True),
        (Wanted(status="4xx"), True),
        (Wanted(status="401"), False),
        (Wanted(status="5xx"), False),
        (Wanted(outcomes=frozenset({"refused"}), status="5xx"), False),
    ],
)
def test_function_line_must_match_every_filter(wanted, takes):
    assert wanted.takes(read_line(function_line(REFUSED, message_id="m"))) is takes


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Wanted(), True),
        (Wanted(status="5xx"), True),
        (Wanted(status="4xx"), False),
        (Wanted(customer_id="acme"), False),
        (Wanted(outcomes=frozenset({"failed"})), False),
        (Wanted(call_type="track"), False),
        (Wanted(code="internal_error"), False),
    ],
)
def test_api_line_matches_only_without_message_filters(wanted, takes):
    assert wanted.takes(read_line(access_line(503, integrationStatus="-"))) is takes


def test_answer_of_the_function_is_not_shown_twice():
    assert not Wanted().takes(read_line(access_line(200)))


SEGMENT_AGAIN = "Segment sends it again, for up to four hours"
LIBRARY_AGAIN = "The library sends it again, as often as it is set to"
YET_TAKEN = ", although the message was stored: the retry is a duplicate."
GONE = " It was not kept among the rejects."
KEPT = " It was kept among the rejects."
UNSUPPORTED = Answered(metric="Refused", status=501, code="unsupported_call_type")


@pytest.mark.parametrize(
    ("line", "answered", "follows"),
    [
        (function_line(ACCEPTED), 200, 'Segment shows "Delivered".'),
        (function_line(DUPLICATE), None, 'Segment shows "Delivered".'),
        (function_line(ACCEPTED), 503, SEGMENT_AGAIN + YET_TAKEN),
        (function_line(FAILED), 503, SEGMENT_AGAIN + "."),
        (function_line(FAILED), None, SEGMENT_AGAIN + "."),
        (function_line(REFUSED, kept=True), 400, "Final: Segment does not send it again." + KEPT),
        (function_line(REFUSED, kept=False), 400, "Final: Segment does not send it again." + GONE),
        (function_line(REFUSED), 423, SEGMENT_AGAIN + "."),
        (function_line(UNSUPPORTED), 501, "Final: Segment does not send it again."),
        (function_line(ACCEPTED, route="/v1/track"), 200, "The library does not send it again."),
        (function_line(FAILED, route="/v1/batch"), 503, LIBRARY_AGAIN + "."),
        (function_line(ACCEPTED, route="/v1/import"), 200, "The import does not send it again."),
        (function_line(FAILED, route="/v1/import"), 503, "The import sends it again, until it gives up."),
        (function_line(ACCEPTED, route="/v1/batch"), 503, LIBRARY_AGAIN + YET_TAKEN),
        (
            function_line(Answered(metric="Refused", status=200, code="invalid_message"), route="/v1/batch"),
            200,
            "The library sees the refusal in a 200, and does not send it again.",
        ),
        (
            function_line(REFUSED, route="/v1/track", kept=True),
            400,
            "Final: The library does not send it again." + KEPT,
        ),
    ],
)
def test_reaction_of_the_sender_is_described(line, answered, follows):
    access = None if answered is None else read_line(access_line(answered))
    assert describe_retry(read_line(line), access) == follows


def test_answer_is_the_functions_without_a_status_of_the_api():
    assert describe_retry(read_line(function_line(FAILED)), read_line(access_line("-"))) == SEGMENT_AGAIN + "."
