"""A request as one line of the page."""

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
    """Return what the page is told of a request."""
    text = body if isinstance(body, str) else json.dumps(body)
    facts = {"id": "r", "time": datetime.fromtimestamp(1.5, UTC), "method": "POST", "headers": [], "answer_headers": []}
    exchange = Exchange(
        **{**facts, "path": path, "status": status, "body": text, "answer": "{}", "milliseconds": 3.21, **fields},
        lines=[json.loads(line) for line in lines],
    )
    return Row.of_exchange(exchange).to_json()


def test_a_stored_message_is_told_with_whom_and_what_it_is_about():
    told = row(TRACK, function_line())
    assert told == {
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
def test_what_a_message_is_about_depends_on_its_call_type(message, event):
    assert row(message, function_line())["event"] == event


def test_a_visitor_without_a_user_id_is_told_as_such():
    told = row({"type": "page", "anonymous_id": "a-1"}, function_line())
    assert (told["user"], told["user_kind"]) == ("a-1", "anonymous")


@pytest.mark.parametrize(
    ("value", "text"), [(["no", "text"], '["no", "text"]'), ({"ä": None}, '{"ä": null}'), (True, "true"), (1.5, "1.5")]
)
def test_an_id_that_is_not_a_string_is_told_as_json(value, text):
    told = row({**TRACK, "messageId": value, "userId": value}, function_line(REFUSED), status=400)
    assert (told["message_id"], told["user"]) == (text, text)


@pytest.mark.parametrize(
    ("answered", "status", "outcome"),
    [(DUPLICATE, 200, "duplicate"), (REFUSED, 400, "refused"), (FAILED, 503, "failed")],
    ids=lambda value: str(getattr(value, "metric", value)),
)
def test_an_outcome_is_told_with_its_reason(answered, status, outcome):
    told = row(TRACK, function_line(answered), status=status)
    assert (told["outcome"], told["counts"], told["code"], told["text"]) == (
        outcome,
        {outcome: 1},
        answered.code,
        answered.text,
    )


@pytest.mark.parametrize("body", ["no JSON", "[]", "\ud800", ""])
def test_a_body_that_can_not_be_read_is_told_without_what_is_in_it(body):
    told = row(body, function_line(REFUSED, call_type=None, customer_id=None), status=400)
    assert (told["outcome"], told["user"], told["event"], told["messages"]) == ("refused", None, None, 1)


def test_a_compressed_body_is_read():
    body = base64.b64encode(gzip.compress(json.dumps(TRACK).encode())).decode()
    assert row(body, function_line(), is_base64=True)["event"] == "Lamp Lit"


def test_a_batch_is_counted_by_its_messages_and_told_by_the_gravest():
    lines = [
        *function_lines(message_ids=["a", "b"]),
        *function_lines(DUPLICATE, message_ids=["c"], call_type="page"),
        *function_lines(REFUSED, message_ids=["d"]),
    ]
    told = row({"batch": [TRACK] * 4}, *lines, path="/v1/batch")
    assert (told["outcome"], told["counts"]) == ("refused", {"stored": 2, "duplicate": 1, "refused": 1})
    assert (told["messages"], told["batch"], told["call_type"], told["user"]) == (4, True, None, None)


@pytest.mark.parametrize(("body", "messages"), [({"batch": [TRACK] * 3}, 3), ("no JSON", 1)], ids=str)
def test_a_batch_that_was_not_answered_in_time_fails_with_all_of_its_messages(body, messages):
    told = row(body, path="/v1/batch", status=503, error="the function did not answer in time")
    assert (told["outcome"], told["counts"], told["by"]) == ("failed", {"failed": messages}, "API Gateway")
    assert told["text"] == "the function did not answer in time"


@pytest.mark.parametrize(
    ("method", "path", "status", "outcome"),
    [("GET", "/health", 200, "answered"), ("GET", "/health", 503, "failed"), ("GET", "/nowhere", 404, "refused")],
)
def test_what_concerns_no_message_counts_none(method, path, status, outcome):
    told = row("", method=method, path=path, status=status)
    assert (told["outcome"], told["counts"], told["messages"]) == (outcome, {}, 0)


def test_long_texts_are_cut():
    told = row({**TRACK, "event": "e" * 5000, "userId": "u" * 5000}, function_line())
    assert (len(told["event"]), len(told["user"])) == (MAX_CHARS, MAX_CHARS)


# Of a stack


def row_of(line):
    return Row.of_line(read_line(line), 7).to_json()


def test_a_line_of_the_function_tells_a_row():
    told = row_of(function_line(REFUSED, message_id="m", time=1500))
    assert (told["id"], told["time"], told["route"], told["status"]) == ("r-1.7", 1500, "/segment", 400)
    assert (told["outcome"], told["counts"], told["call_type"], told["customer"]) == (
        "refused",
        {"refused": 1},
        "track",
        "acme",
    )
    assert (told["user"], told["event"], told["message_id"], told["text"]) == (None, None, "m", REFUSED.text)


def test_a_line_of_the_api_tells_when_the_request_was_answered():
    begun = row_of(access_line(503, responseLatency="0"))["time"]
    assert row_of(access_line(503, responseLatency="4900"))["time"] == begun + 4900


def test_a_line_about_several_messages_is_told_as_a_batch():
    told = row_of(function_lines(message_ids=["a", "b", "c"])[0])
    assert (told["batch"], told["messages"], told["counts"], told["message_id"]) == (True, 3, {"stored": 3}, None)


@pytest.mark.parametrize(
    ("status", "route", "outcome", "counts", "text"),
    [
        (503, "POST /segment", "failed", {"failed": 1}, "the function did not answer in time"),
        (429, "POST /segment", "failed", {"failed": 1}, "there were more requests than the limit allows"),
        (404, "-", "refused", {}, "no such route"),
    ],
)
def test_a_line_of_the_api_tells_a_row(status, route, outcome, counts, text):
    line = access_line(status, routeKey=route, integrationStatus="-")
    told = row_of(line)
    assert (told["status"], told["outcome"], told["counts"], told["by"]) == (status, outcome, counts, "API Gateway")
    assert told["text"] == text
