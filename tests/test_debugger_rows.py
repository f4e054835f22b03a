"""Test requests as rows of the page."""

import base64
import gzip
import json
from datetime import UTC, datetime

import pytest
from request_lines import DUPLICATE, FAILED, REFUSED, access_line, function_line, function_lines

from destination.debugger.rows import MAX_CHARS, Row
from destination.local.exchange import Exchange
from destination.watching.lines import read_line

TRACK = {"type": "track", "userId": "user-1", "event": "Lamp Lit", "messageId": "m"}


def row(body, *lines, path="/segment", status=200, **fields):
    """Return the row of a request that the page gets."""
    text = body if isinstance(body, str) else json.dumps(body)
    facts = {"id": "r", "time": datetime.fromtimestamp(1.5, UTC), "method": "POST", "headers": [], "answer_headers": []}
    exchange = Exchange(
        **{**facts, "path": path, "status": status, "body": text, "answer": "{}", "milliseconds": 3.21, **fields},
        lines=[json.loads(line) for line in lines],
    )
    return Row.of_exchange(exchange).to_json()


def test_row_of_a_stored_message_has_its_user_and_subject():
    shown = row(TRACK, function_line())
    assert shown == {
        "id": "r",
        "time": 1503,
        "method": "POST",
        "route": "/segment",
        "status": 200,
        "outcome": "stored",
        "counts": {"stored": 1},
        "messages": 1,
        "batch": False,
        "types": ["track"],
        "call_type": "track",
        "customer": "acme",
        "user": "user-1",
        "user_kind": "user",
        "event": "Lamp Lit",
        "message_id": "m",
        "code": None,
        "text": None,
        "ms": 3.2,
        "by": "function",
    }


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "page", "name": "Pricing"}, "Pricing"),
        ({"type": "group", "groupId": 5}, "group 5"),
        ({"type": "alias", "from": "old", "to": "new"}, "previous id old"),
        ({"type": "group", "groupId": "g", "event": "Lamp Lit"}, "group g"),
        ({"type": "track", "groupId": "g", "event": "Lamp Lit"}, "Lamp Lit"),
        ({"type": "identify"}, None),
        ({"type": "track", "event": {"odd": 1}}, '{"odd": 1}'),
        ({"type": "track", "event": True}, "true"),
    ],
    ids=str,
)
def test_subject_of_a_row_depends_on_the_call_type(message, event):
    assert row(message, function_line())["event"] == event


def test_row_of_a_visitor_says_so():
    shown = row({"type": "page", "anonymous_id": "a-1"}, function_line())
    assert (shown["user"], shown["user_kind"]) == ("a-1", "anonymous")


@pytest.mark.parametrize(
    ("value", "text"), [(["no", "text"], '["no", "text"]'), ({"ä": None}, '{"ä": null}'), (True, "true"), (1.5, "1.5")]
)
def test_id_that_is_not_a_string_is_shown_as_json(value, text):
    shown = row({**TRACK, "messageId": value, "userId": value}, function_line(REFUSED), status=400)
    assert (shown["message_id"], shown["user"]) == (text, text)


@pytest.mark.parametrize(
    ("answered", "status", "outcome"),
    [(DUPLICATE, 200, "duplicate"), (REFUSED, 400, "refused"), (FAILED, 503, "failed")],
    ids=lambda value: str(getattr(value, "metric", value)),
)
def test_outcome_is_shown_with_its_reason(answered, status, outcome):
    shown = row(TRACK, function_line(answered), status=status)
    assert (shown["outcome"], shown["counts"], shown["code"], shown["text"]) == (
        outcome,
        {outcome: 1},
        answered.code,
        answered.text,
    )


@pytest.mark.parametrize("body", ["no JSON", "[]", "\ud800", ""])
def test_unreadable_body_is_a_row_without_content(body):
    shown = row(body, function_line(REFUSED, call_type=None, customer_id=None), status=400)
    assert (shown["outcome"], shown["user"], shown["event"], shown["messages"]) == ("refused", None, None, 1)


def test_a_compressed_body_is_read():
    body = base64.b64encode(gzip.compress(json.dumps(TRACK).encode())).decode()
    assert row(body, function_line(), is_base64=True)["event"] == "Lamp Lit"


def test_row_of_a_batch_has_counts_and_the_worst_outcome():
    lines = [
        *function_lines(message_ids=["a", "b"]),
        *function_lines(DUPLICATE, message_ids=["c"], call_type="page"),
        *function_lines(REFUSED, message_ids=["d"]),
    ]
    shown = row({"batch": [TRACK] * 4}, *lines, path="/v1/batch")
    assert (shown["outcome"], shown["counts"]) == ("refused", {"stored": 2, "duplicate": 1, "refused": 1})
    assert (shown["messages"], shown["batch"], shown["call_type"], shown["user"]) == (4, True, None, None)


@pytest.mark.parametrize(("body", "messages"), [({"batch": [TRACK] * 3}, 3), ("no JSON", 1)], ids=str)
def test_all_messages_of_a_timed_out_batch_fail(body, messages):
    shown = row(body, path="/v1/batch", status=503, error="the function did not answer in time")
    assert (shown["outcome"], shown["counts"], shown["by"]) == ("failed", {"failed": messages}, "API Gateway")
    assert shown["text"] == "the function did not answer in time"


@pytest.mark.parametrize(
    ("method", "path", "status", "outcome"),
    [("GET", "/health", 200, "answered"), ("GET", "/health", 503, "failed"), ("GET", "/nowhere", 404, "refused")],
)
def test_other_requests_count_no_message(method, path, status, outcome):
    shown = row("", method=method, path=path, status=status)
    assert (shown["outcome"], shown["counts"], shown["messages"]) == (outcome, {}, 0)


def test_long_texts_are_cut():
    shown = row({**TRACK, "event": "e" * 5000, "userId": "u" * 5000}, function_line())
    assert (len(shown["event"]), len(shown["user"])) == (MAX_CHARS, MAX_CHARS)


# Rows of a stack


def row_of(line):
    return Row.of_line(read_line(line), 7).to_json()


def test_log_line_of_the_function_becomes_a_row():
    shown = row_of(function_line(REFUSED, message_id="m", time=1500))
    assert (shown["id"], shown["time"], shown["route"], shown["status"]) == ("r-1.7", 1500, "/segment", 400)
    assert (shown["outcome"], shown["counts"], shown["call_type"], shown["customer"]) == (
        "refused",
        {"refused": 1},
        "track",
        "acme",
    )
    assert (shown["user"], shown["event"], shown["message_id"], shown["text"]) == (None, None, "m", REFUSED.text)


def test_log_line_of_the_api_adds_the_time_of_the_answer():
    begun = row_of(access_line(503, responseLatency="0"))["time"]
    assert row_of(access_line(503, responseLatency="4900"))["time"] == begun + 4900


def test_log_line_of_several_messages_is_a_batch():
    shown = row_of(function_lines(message_ids=["a", "b", "c"])[0])
    assert (shown["batch"], shown["messages"], shown["counts"], shown["message_id"]) == (True, 3, {"stored": 3}, None)


@pytest.mark.parametrize(
    ("status", "route", "outcome", "counts", "text"),
    [
        (503, "POST /segment", "failed", {"failed": 1}, "the function did not answer in time"),
        (429, "POST /segment", "failed", {"failed": 1}, "there were more requests than the limit allows"),
        (404, "-", "refused", {}, "no such route"),
    ],
)
def test_log_line_of_the_api_becomes_a_row(status, route, outcome, counts, text):
    line = access_line(status, routeKey=route, integrationStatus="-")
    shown = row_of(line)
    assert (shown["status"], shown["outcome"], shown["counts"], shown["by"]) == (status, outcome, counts, "API Gateway")
    assert shown["text"] == text
