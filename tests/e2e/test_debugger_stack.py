"""Test `destination debug`: the page of a stack, on an embedded AWS."""

import json
import time
import uuid
from datetime import UTC, datetime

import pytest
from debugged_stack import debugged_stack
from local_server import run, wait_until
from request_lines import FAILED, REFUSED, access_line, function_line

from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from destination.deployment.key_table import KeyRecord, KeyTable
from handler.canonicalise import canonicalise
from handler.errors import InvalidMessage, Violation
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.sinks.dynamodb import EventTable

TRACK = {"type": "track", "userId": "u", "event": "Lamp Lit", "messageId": "m"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Return a stack with a running page."""
    with debugged_stack(tmp_path_factory.mktemp("debug")) as stack:
        yield stack


def test_request_is_shown_soon_after_its_line(stack):
    request_id = str(uuid.uuid4())
    stack.log("Function", function_line(REFUSED, request_id=request_id, message_id="m", kept=True))
    row = stack.row(request_id)
    assert (row["status"], row["outcome"], row["customer"], row["text"]) == (400, "refused", "acme", REFUSED.text)
    shown = stack.get(f"/requests/{row['id']}")
    assert (shown["row"]["id"], shown["request"]) == (row["id"], None)
    assert [one["message_id"] for one in shown["messages"]] == ["m"]
    assert any(line["name"] == '"request_id"' and request_id in line["value"] for line in shown["line"]["lines"])
    assert shown["now"] == ["Final: Segment does not send it again. It was kept among the rejects."]
    assert shown["total"] > 0


def test_stored_messages_are_found_by_customer_and_user(stack):
    request_id = str(uuid.uuid4())
    stack.log("Function", function_line(request_id=request_id, message_id="m"))
    assert stack.get(f"/requests/{stack.row(request_id)['id']}")["now"][1].startswith("Stored messages are found by")
    [message] = canonicalise(TRACK)
    table = EventTable(stack.account.dynamodb(), stack.stores.event_table, retention_days=0)
    table.write(Record(customer_id="acme", message=message, settings={}, stored_at=time.time()))
    [stored] = stack.get("/messages", customer="acme", user="u")["messages"]
    assert stored["what"] == "Lamp Lit"
    assert stack.get("/message", subject=stored["subject"], position=stored["position"])
    status, body = stack.ask("/messages", customer="acme")
    assert (status, body["message"].partition(":")[0]) == (400, "Name a customer, and a user or an anonymous id")


def test_answer_by_the_api_itself_is_shown(stack):
    request_id = str(uuid.uuid4())
    line = access_line(503, request_id=request_id, integrationStatus="-")
    stack.log("Api", line)
    row = stack.row(request_id)
    assert (row["status"], row["outcome"], row["by"]) == (503, "failed", "API Gateway")
    assert stack.get(f"/requests/{row['id']}")["now"] == [
        "API Gateway answered by itself: the function did not answer in time."
    ]


def test_failure_is_shown_with_the_retry_of_segment(stack):
    request_id = str(uuid.uuid4())
    stack.log("Function", function_line(FAILED, request_id=request_id))
    assert stack.get(f"/requests/{stack.row(request_id)['id']}")["now"] == [
        "Segment sends it again, for up to four hours."
    ]


def test_keys_are_listed(stack):
    KeyTable(stack.account.dynamodb(), stack.stores.key_table).put(KeyRecord.of("a-key-of-acme", customer_id="acme"))
    assert [key["customer_id"] for key in stack.get("/keys")["keys"]] == ["acme"]


def test_rejects_of_a_customer_are_listed_with_whether_they_would_pass(stack):
    table = RejectTable(stack.account.dynamodb(), stack.stores.rejects_table, retention_days=30)
    for event in ("", "Lamp Lit"):
        [message] = canonicalise({**TRACK, "event": event})
        refusal = InvalidMessage((Violation(pointer="/event", message="once it was wrong"),))
        body = json.dumps(message.body)
        facts = {"customer_id": "acme", "message": message, "refusal": refusal, "settings_header": "", "body": body}
        table.keep(Reject(**facts, rejected_at=datetime.now(UTC).timestamp()))
    rejects = stack.get("/rejects", customer="acme")["rejects"]
    assert sorted(reject["passes"] for reject in rejects) == [False, True]
    assert stack.ask("/rejects")[0] == 400


@pytest.mark.parametrize("path", ["send", "check", "curl", "keys", "keys/x/revoke", "rejects/retry"])
def test_page_of_a_stack_is_read_only(stack, path):
    headers = {"Content-Type": "application/json"}
    answer = stack.http.request("POST", f"{stack.url}/_local/{path}", headers=headers, body=b"{}")
    assert answer.status in (404, 405)
    assert stack.get("/deployment")["read_only"] is True


def test_other_host_names_are_refused(stack):
    assert stack.http.request("GET", stack.url + "/", headers={"Host": "evil"}).status == 403


def test_unreadable_log_is_reported(stack):
    stack.logs.delete_log_group(logGroupName="prod-Api")
    try:
        wait_until(lambda: stack.snapshot()["notice"])
        sentence = "The log can't be read. Trying again: The log group prod-Api does not exist: was it deleted?"
        assert stack.snapshot()["notice"] == sentence
    finally:
        stack.create_group("prod-Api")
    wait_until(lambda: stack.snapshot()["notice"] is None)


def test_requests_missed_during_a_log_outage_are_shown_later(stack):
    stack.logs.delete_log_group(logGroupName="prod-Api")
    wait_until(lambda: "can't be read" in (stack.snapshot()["notice"] or ""))
    request_id = str(uuid.uuid4())
    stack.log("Function", function_line(request_id=request_id))
    stack.create_group("prod-Api")
    assert stack.row(request_id)["outcome"] == "stored"
    wait_until(lambda: stack.snapshot()["notice"] is None)
    ids = [row["id"].partition(".")[0] for row in stack.rows()]
    assert ids.count(request_id) == 1


def test_used_port_is_an_error(stack, monkeypatch):
    for name, value in {**LOCAL_CREDENTIALS, "aws_default_region": LOCAL_REGION}.items():
        monkeypatch.setenv(name.upper(), value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stack.account.endpoint_url)
    result = run("debug", "--stack", "prod", "--port", stack.url.rpartition(":")[2])
    assert result.exit_code == 1
    assert "choose another --port" in result.stderr
