"""Test the details of requests with an unusual end. The others are in e2e/test_debugger.py."""

import json
from datetime import UTC, datetime

import pytest
from request_lines import ACCEPTED, DUPLICATE, FAILED, REFUSED, function_line, function_lines

from destination.debugger.inspect import Inspector
from destination.deployment.stack import create_local_stack
from destination.deployment.target import Target
from destination.local.exchange import Exchange
from destination.paths import SCHEMAS
from handler.canonicalise import canonicalise
from handler.judge import Judge
from handler.record import Record
from handler.sinks.dynamodb import EventTable
from handler.spec import CALL_TYPES
from handler.validate import Schemas

TRACK = {"type": "track", "userId": "u", "event": "Lamp Lit", "messageId": "m", "timestamp": "2026-03-12T09:30:00Z"}
TOO_LATE = "the function did not answer in time"


@pytest.fixture
def inspector(aws):
    target = Target(account=aws, stores=create_local_stack(aws, {}).stores)
    judge = Judge(schemas=Schemas.load(SCHEMAS), supported_call_types=frozenset(CALL_TYPES))
    return Inspector(
        target=target, dynamodb=aws.dynamodb(), judge=judge, consumer_failures=lambda _customer, _message: ()
    )


def exchange(body, *lines, path="/segment", status=200, **fields):
    facts = {"method": "POST", "headers": [], "answer_headers": [], "answer": "{}", "milliseconds": 1.0}
    return Exchange(
        id="r",
        time=datetime.now(UTC),
        path=path,
        status=status,
        body=body if isinstance(body, str) else json.dumps(body),
        lines=[json.loads(line) for line in lines],
        **{**facts, **fields},
    )


def test_timed_out_request_is_explained(inspector):
    shown = inspector.inspect(exchange(TRACK, status=503, error=TOO_LATE))
    assert shown["now"] == [f"API Gateway answered 503 by itself: {TOO_LATE}."]
    assert (shown["messages"][0]["outcome"], shown["stored"], shown["steps"]) == ("failed", None, [])
    assert shown["canonical"] is not None


def test_late_result_of_a_timed_out_request_is_shown(inspector):
    [message] = canonicalise(TRACK)
    table = EventTable(inspector.dynamodb, inspector.target.stores.event_table, retention_days=0)
    table.write(Record(customer_id="acme", message=message, settings={}, stored_at=0))
    late = [json.loads(function_line(ACCEPTED, message_id="m"))]
    shown = inspector.inspect(exchange(TRACK, status=503, error=TOO_LATE, late=late))
    assert shown["now"][1] == "The function continued, and ended with: accepted."
    assert shown["now"][2].startswith("Segment sends it again, for up to four hours, although the message was stored")
    assert shown["now"][3].startswith("Stored at ")
    assert shown["stored"] is not None


def test_failed_request_is_shown_with_the_retry_of_segment(inspector):
    shown = inspector.inspect(exchange(TRACK, function_line(FAILED), status=503))
    assert shown["now"] == ["Segment sends it again, for up to four hours."]


def test_failed_message_that_a_retry_stored_is_explained(inspector):
    [message] = canonicalise(TRACK)
    table = EventTable(inspector.dynamodb, inspector.target.stores.event_table, retention_days=0)
    table.write(Record(customer_id="acme", message=message, settings={}, stored_at=0))
    shown = inspector.inspect(exchange(TRACK, function_line(FAILED, message_id="m"), status=503))
    assert shown["now"][1].startswith("It is stored now: ")
    assert shown["stored"] is not None


def test_duplicate_is_shown_without_a_write(inspector):
    shown = inspector.inspect(exchange(TRACK, function_line(DUPLICATE, message_id="m")))
    assert shown["now"][1] == "It was stored already: nothing was written this time."


@pytest.mark.parametrize(
    "message", [{"type": "track"}, {"type": "track", "userId": {}}, {"messageId": {}, "userId": "u"}], ids=str
)
def test_message_that_failed_early_is_shown_without_an_item(inspector, message):
    shown = inspector.inspect(exchange(message, function_line(FAILED), status=503))
    assert shown["stored"] is None
    assert shown["now"] == ["Segment sends it again, for up to four hours."]


def test_invalid_json_is_shown_with_the_reaction_of_segment(inspector):
    shown = inspector.inspect(exchange("{oops", function_line(REFUSED), status=400))
    assert shown["now"] == ["Final: Segment does not send it again."]


def test_unknown_route_is_shown_with_the_known_ones(inspector):
    shown = inspector.inspect(exchange("", path="/nowhere", status=404, error="no such route"))
    assert shown["now"][1] == "Messages go to POST /segment, those of libraries to routes below /v1/."


def test_stored_message_that_is_gone_is_explained(inspector):
    shown = inspector.inspect(exchange(TRACK, function_line(ACCEPTED, message_id="m")))
    assert shown["stored"] is None
    assert shown["now"][1].startswith("It was accepted and is not in the event table: its user was erased")


def test_unreadable_table_is_explained(inspector, aws):
    aws.dynamodb().delete_table(TableName=inspector.target.stores.event_table)
    shown = inspector.inspect(exchange(TRACK, function_line(ACCEPTED, message_id="m")))
    assert shown["now"][1].startswith("Its current place can't be read: ")


def test_batch_messages_are_distinguished_without_unique_ids(inspector):
    batch = [{**TRACK, "messageId": None}, TRACK, {**TRACK, "messageId": 5.5}, TRACK]
    derived = canonicalise(batch[0])[0].message_id
    lines = [
        *function_lines(ACCEPTED, message_ids=["m", derived]),
        *function_lines(FAILED, message_ids=["m", ""]),
    ]
    shown = inspector.inspect(exchange({"batch": batch}, *lines, path="/v1/batch"))
    assert [one["outcome"] for one in shown["messages"]] == ["stored", "stored", "failed", "failed"]
    assert [one["message_id"] for one in shown["messages"]] == [derived, "m", "5.5", "m"]
