"""Test `destination trace`, `tail` and `status` on a local server.

`tests/test_watching_stack.py` tests them on a stack.
"""

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import uuid
from collections import Counter
from datetime import UTC, datetime

import pytest
from endpoint import endpoint, response
from local_server import MAX_WAIT_SECONDS, in_background, run, start, wait_until
from request_lines import access_line, function_line

from destination.deployment import demo
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.simulation.key_probes import CODES
from handler.canonicalise import canonicalise
from handler.record import Record
from handler.sinks.dynamodb import EventTable

pytest_plugins = ["servers"]

TRACK = {"type": "track", "userId": "watched", "event": "Lamp Lit"}
EMPTY_EVENT = "event must not be empty"


def fresh(**fields):
    """Return a new message with a unique id."""
    return {**TRACK, "messageId": str(uuid.uuid4()), "timestamp": "2026-03-12T09:30:00Z", **fields}


def post_batch(server, *messages):
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"writeKey": demo.GOOD_KEY, "batch": messages}).encode()
    return server.request("POST", "/v1/batch", headers=headers, body=body)


def log_of(server):
    """Return the file of a local server's request log."""
    return server.checkout / ".local" / f"requests-{server.url.rpartition(':')[2]}.jsonl"


def trace(server, *args):
    """Return the only history in the trace."""
    [history] = server.json("trace", *args)["customers"]
    return history


def outcomes(history):
    return [delivery["outcome"] for delivery in history["deliveries"]]


# A local server with a complete log


@pytest.mark.parametrize("route", ["segment", "batch"])
def test_figures_agree_with_the_simulation_and_with_the_store(server, route):
    options = (
        "--messages",
        "120",
        "--concurrency",
        "2",  # As many clients as function processes: no request waits for a process, and fails on a busy machine.
        "--customers",
        "3",
        "--duplicates",
        "0.2",
        "--invalid",
        "0.2",
        "--time-scale",
        "3600",
    )
    report = server.json("simulate", *options, "--route", route)
    prefix = f"simulated-{report['seed']}-"
    items = [item for item in items_of(server) if item["customer_id"]["S"].startswith(prefix)]
    figures = server.json("status", "--since", "1h")
    rows = [row for row in figures["messages"] if (row["customer_id"] or "").startswith(prefix)]
    assert sum(row["accepted"] for row in rows) == report["stored"] == len(items) > 0
    assert sum(row["duplicates"] for row in rows) == report["duplicates_refused"] > 0
    refused = sum(sum(row["refused"].values()) for row in rows)
    assert refused - key_probes(server, prefix) == report["refused_as_expected"] - whole_bodies(report, route) > 0
    assert {(row["customer_id"], row["call_type"]): row["accepted"] for row in rows if row["accepted"]} == Counter(
        (item["customer_id"]["S"], item["type"]["S"]) for item in items
    )
    for item in items[:5]:
        # Ids are unique only for a customer and a user, and simulate uses some twice on purpose.
        history = trace(server, item["message_id"]["S"], "--customer", item["customer_id"]["S"])
        stored = [(one["subject"], one["position"]) for one in history["stored"]]
        assert (item["subject"]["S"], item["position"]["S"]) in stored
        assert outcomes(history).count("accepted") == len(stored)
        assert set(outcomes(history)) <= {"accepted", "duplicate"}
        assert {delivery["answered"] for delivery in history["deliveries"]} == {200}


def whole_bodies(report, route):
    """Return how many refused requests the lines give to no customer: requests of a library with a wrong key."""
    return report["answers"].get("401 unknown_key", 0) if route == "batch" else 0


def key_probes(server, prefix):
    """Return how many requests with a wrong key were refused, and are not messages in the report."""
    lines = [json.loads(line) for line in log_of(server).read_text().splitlines() if prefix in line]
    return sum(
        line.get("outcome") == "refused" and (line["code"] in CODES.values() or "key-probe" in json.dumps(line))
        for line in lines
    )


def items_of(server):
    pages = server.account.dynamodb().get_paginator("scan").paginate(TableName=server.stores.event_table)
    return [item for page in pages for item in page["Items"]]


def test_trace_shows_each_delivery_with_answer_and_consequences(server):
    message = fresh()
    for _ in range(2):
        server.post(message)
    history = trace(server, message["messageId"])
    assert outcomes(history) == ["accepted", "duplicate"]
    for delivery in history["deliveries"]:
        assert (delivery["status"], delivery["answered"], delivery["route"]) == (200, 200, "/segment")
        assert delivery["follows"] == 'Segment shows "Delivered".'
    assert [item["subject"] for item in history["stored"]] == ["demo#user#watched"]
    assert history["now"][0].startswith("Stored at ")


def test_trace_finds_a_refused_message_among_the_rejects(server):
    message = fresh(event="")
    server.post(message)
    history = trace(server, message["messageId"])
    [delivery] = history["deliveries"]
    assert (delivery["status"], delivery["code"], delivery["kept"]) == (400, "invalid_message", True)
    assert delivery["follows"].startswith("Final: ")
    [reject] = history["rejects"]
    shown = server.json("rejects", "show", reject["id"])
    assert json.loads(shown["body"])["messageId"] == message["messageId"]
    server.run("rejects", "purge", "--yes")
    result = server.run("trace", message["messageId"], "--json")
    [history] = json.loads(result.stdout)["customers"]
    assert (result.exit_code, history["missing"]) == (1, True)
    assert re.fullmatch("It is not among the rejects any more: .*it was purged, or it was lost.", history["now"][0])


def test_last_message_is_traced_without_an_id(server):
    server.post({"type": "track", "event": "First", "userId": "last-1", "messageId": "before-last"})
    server.post({"type": "track", "event": "Second", "userId": "last-1", "messageId": "last-of-all"})
    assert server.json("trace", "--last")["message_id"] == "last-of-all"


@pytest.mark.parametrize("options", [[], ["some-id", "--last"]])
def test_a_trace_needs_either_an_id_or_last(server, options):
    result = server.run("trace", *options)
    assert (result.exit_code, "Give either a MESSAGE_ID or --last" in result.stderr) == (2, True)


def test_each_message_of_a_batch_is_traced(server):
    good, bad = fresh(), fresh(event="")
    post_batch(server, good, bad, good)
    # they are written concurrently
    assert sorted(outcomes(trace(server, good["messageId"]))) == ["accepted", "duplicate"]
    history = trace(server, bad["messageId"])
    assert (history["deliveries"][0]["status"], history["deliveries"][0]["text"]) == (200, EMPTY_EVENT)
    assert len(history["rejects"]) == 1


@pytest.mark.parametrize("message_id", ['日本 "#%x', "\\u0041", "' or 1=1 --", "<b>[bold]", "-" * 100])
def test_message_with_any_id_is_traced(server, message_id):
    server.post(fresh(messageId=message_id, userId=str(uuid.uuid4())))
    result = run("trace", "--url", server.url, "--", message_id)
    assert f"Message {message_id} of customer demo\n" in result.stdout
    assert "/segment 200 accepted track" in result.stdout
    assert "Stored at " in result.stdout


def test_id_of_two_customers_is_traced_for_each(server):
    message = fresh()
    KeyTable(server.account.dynamodb(), server.stores.key_table).put(KeyRecord.of("watched-key", customer_id="other"))
    server.post(message)
    server.post(message, key="watched-key")
    both = server.json("trace", message["messageId"])["customers"]
    assert [(history["customer_id"], outcomes(history)) for history in both] == [
        ("demo", ["accepted"]),
        ("other", ["accepted"]),
    ]
    assert [len(history["stored"]) for history in both] == [1, 1]
    assert trace(server, message["messageId"], "--customer", "other")["customer_id"] == "other"
    shown = server.run("trace", message["messageId"]).stdout
    assert shown.count(f"Message {message['messageId']} of customer ") == 2


def test_message_can_be_traced_by_user(server):
    message = fresh()
    server.post(message)
    assert len(trace(server, message["messageId"], "--user", "watched")["stored"]) == 1
    result = server.run("trace", message["messageId"], "--anonymous", "watched", "--json")
    [history] = json.loads(result.stdout)["customers"]
    assert (result.exit_code, history["stored"], history["missing"]) == (1, [], True)
    assert "it belongs to another user than the given one" in history["now"][0]


def test_erased_message_is_not_found(server):
    message, delete = fresh(userId=str(uuid.uuid4())), fresh(type="delete")
    delete["userId"] = message["userId"]
    server.post(message)
    server.post(delete)
    user = ("--user", message["userId"])
    wait_until(lambda: not trace(server, delete["messageId"], *user)["stored"])
    [sentence] = trace(server, message["messageId"], *user)["now"]
    assert "its user was erased after it was accepted" in sentence
    result = server.run("trace", message["messageId"])
    assert (result.exit_code, "or it was lost." in result.stdout) == (1, True)
    [sentence] = trace(server, delete["messageId"], *user)["now"]
    assert "was carried out" in sentence


def test_stored_message_without_a_log_line_is_shown(server):
    message = fresh()
    table = EventTable(server.account.dynamodb(), server.stores.event_table, retention_days=0)
    table.write(record_of(message))
    history = trace(server, message["messageId"])
    assert history["deliveries"] == []
    assert history["now"][1].startswith("No line of the last 7 days says that it was accepted: ")


def record_of(message, customer_id=demo.CUSTOMER):
    [read] = canonicalise(message, call_type=None)
    return Record(customer_id=customer_id, message=read, settings={}, stored_at=datetime.now(UTC).timestamp())


def test_answer_by_api_gateway_itself_is_shown(server):
    message_id = str(uuid.uuid4())
    request_id = str(uuid.uuid4())
    with log_of(server).open("a") as file:
        file.write(access_line(503, request_id=request_id, integrationStatus="-") + "\n")
        file.write(function_line(message_id=message_id, request_id=request_id, customer_id="late") + "\n")
    shown = server.run("trace", message_id).stdout
    assert "/segment 200 accepted track" in shown
    assert "API Gateway had answered 503 by itself: the function did not answer in time." in shown
    assert "Segment sends it again, for up to four hours, although the message was stored" in shown


def test_unknown_message_is_an_error_that_names_the_searched_places(server):
    result = server.run("trace", "no-such-message", "--customer", "acme")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Nothing is known of a message no-such-message of acme. Searched: ")
    for place in ("the local server's log, ", "the last 7 days until ", "the event table ", "the rejects"):
        assert place in result.stderr


def test_queued_message_is_shown_as_queued(queue_server):
    message = fresh()
    queue_server.post(message)
    history = trace(queue_server, message["messageId"])
    assert (history["stored"], history["deliveries"][0]["answered"]) == (None, 202)
    assert history["now"][0].startswith(f"Queued in {queue_server.stores.event_queue_url} until a consumer receives it")


def test_answers_of_the_gateway_are_logged_and_counted(server):
    before = requests_of(server)
    server.request("PUT", "/nowhere")
    server.post(b" " * (10 * 1024 * 1024 + 1))
    server.post(fresh())
    since = requests_of(server) - before
    assert since == {("-", 404, False): 1, ("POST /segment", 413, False): 1, ("POST /segment", 200, True): 1}
    [line] = [json.loads(line) for line in log_of(server).read_text().splitlines() if '"413"' in line][-1:]
    assert line["integrationStatus"] == "-"
    assert line["sourceIp"] == "127.0.0.1"


def requests_of(server):
    rows = server.json("status")["requests"]
    return Counter({(row["route"], row["status"], row["by_function"]): row["requests"] for row in rows})


def test_status_shows_progress_to_the_private_beta(server):
    server.post(fresh())
    server.post(fresh(event=""))
    shown = server.run("status", "--since", "all").stdout
    assert "All that the log holds: " in shown
    assert "invalid_message" in shown
    assert "Segment's private beta asks for 10 customers or 20,000,000 events" in shown
    beta = server.json("status")["private_beta"]
    assert beta["customers"] >= 1
    assert beta["events"] >= 1
    assert beta["customers_period"] == "all that the log holds"


# Live


def tailing(server, *options, **more):
    """Start a process that shows requests, and wait until it shows the first."""
    marker = fresh()
    server.post(marker)
    process = start(
        server.checkout, "tail", "--url", server.url, "--last", "10000", *options, stdout=subprocess.PIPE, **more
    )
    assert any(marker["messageId"] in line for line in process.stdout)
    return process


def test_tail_shows_requests_until_control_c(server):
    with tailing(server) as process:
        message = fresh()
        server.post(message)
        server.request("PUT", "/nowhere")
        seen = list(itertools.islice(process.stdout, 2))
        os.killpg(process.pid, signal.SIGINT)
        rest = process.communicate(timeout=MAX_WAIT_SECONDS)[0]
    assert f"/segment 200 accepted track demo {message['messageId']}" in seen[0]
    assert "404 by API Gateway: no such route" in seen[1]
    assert (process.returncode, rest) == (0, "")


def test_control_c_ends_tail_in_the_background_too(server):
    with in_background():
        process = tailing(server)
    with process:
        process.send_signal(signal.SIGINT)
        assert process.wait(MAX_WAIT_SECONDS) == 0


def test_json_option_prints_lines_unchanged(server):
    with tailing(server, "--json") as process:
        post_batch(server, fresh(), fresh())
        facts = json.loads(next(process.stdout))
        process.send_signal(signal.SIGINT)
    assert (facts["messages"], facts["outcome"], len(facts["message_ids"])) == (2, "accepted", 2)
    assert process.returncode == 0


def test_tail_filters_requests(server):
    wanted = fresh(event="")
    for message in (fresh(), fresh(type="page"), wanted):
        server.post(message)
    server.request("PUT", "/nowhere")
    options = (
        "--outcome",
        "refused",
        "--customer",
        "demo",
        "--call-type",
        "track",
        "--status",
        "4xx",
        "--code",
        "invalid_message",
    )
    arguments = ("tail", "--url", server.url, "--last", "1", *options)
    with start(server.checkout, *arguments, stdout=subprocess.PIPE) as process:
        assert wanted["messageId"] in next(process.stdout)
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_closed_pipe_ends_tail_silently(server):
    with tailing(server) as process:
        process.stdout.close()
        assert process.wait(MAX_WAIT_SECONDS) == 0


@pytest.mark.parametrize(("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_terminal_gets_colours_unless_disabled(server, environment, is_coloured, monkeypatch):
    server.post(fresh(event=""))
    for name, value in {"TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    terminal, shell = pty.openpty()
    with start(server.checkout, "tail", "--url", server.url, "--last", "1", stdout=shell) as process:
        shown = b""
        while b"invalid_message" not in shown:
            shown += os.read(terminal, 10_000)
        process.send_signal(signal.SIGINT)
    os.close(shell)
    os.close(terminal)
    assert (b"\x1b[33m400" in shown) is is_coloured


# Unsupported servers and options


@pytest.mark.parametrize("command", [("trace", "m"), ("tail",), ("status",)], ids=" ".join)
def test_server_of_an_older_version_is_reported(server, command):
    about = server.request("GET", "/_local").body
    del about["request_log"]
    with endpoint(lambda _received: response(200, json.dumps(about))) as older:
        result = run(*command, "--url", older.url.removesuffix("/segment"))
    assert (result.exit_code, "This local server is of an older version" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("trace", ""), "it is empty"),
        (("trace", "m", "--user", "u", "--anonymous", "a"), "--user and --anonymous exclude each other"),
        (("trace", "m", "--since", "7w"), "7w is not a period: write 30m, 24h, 7d, or all"),
        (("status", "--since", "0h"), "0h is not a period"),
        (("status", "--since", "99999d"), "99999d is not a period"),
        (("tail", "--status", "4x"), "4x is not a status: write 503, or 5xx"),
        (("tail", "--outcome", "lost"), "'lost' is not one of"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(server, args, sentence):
    result = server.run(*args)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.output
