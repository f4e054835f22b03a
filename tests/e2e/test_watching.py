"""`destination trace`, `tail` and `status`: on a local server, and on a stack of moto with a played Insights."""

import itertools
import json
import os
import pty
import re
import signal
import subprocess
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from endpoint import endpoint, response
from insights import insights
from local_server import PATIENCE_SECONDS, in_background, run, start, wait_until
from request_lines import ACCEPTED, DUPLICATE, FAILED, REFUSED, access_line, function_line

from cli import demo
from cli.key_table import KeyRecord, KeyTable
from cli.stack import STORE_OUTPUTS, create_local_stack, load_template
from cli.watching.request_log import SINCE
from cli.watching.status import BETA_CUSTOMERS, NAMESPACE, Progress
from handler.canonicalise import canonicalise
from handler.errors import InvalidMessage, Violation
from handler.record import Record
from handler.reject import Reject
from handler.reject import RejectTable as Keeper
from handler.write import EventTable

pytest_plugins = ["servers"]

TRACK = {"type": "track", "userId": "watched", "event": "Lamp Lit"}
EMPTY_EVENT = "event must not be empty"


def fresh(**fields):
    """Return a message of its own."""
    return {**TRACK, "messageId": str(uuid.uuid4()), "timestamp": "2026-03-12T09:30:00Z", **fields}


def post_batch(server, *messages):
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"writeKey": demo.GOOD_KEY, "batch": messages}).encode()
    return server.request("POST", "/v1/batch", headers=headers, body=body)


def log_of(server):
    """Return the file of a local server's request log."""
    return server.checkout / ".local" / f"requests-{server.url.rpartition(':')[2]}.jsonl"


def trace(server, *args):
    """Return the one history that is traced."""
    [history] = server.json("trace", *args)["customers"]
    return history


def outcomes(history):
    return [delivery["outcome"] for delivery in history["deliveries"]]


# A local server, whose log is whole


@pytest.mark.parametrize("route", ["segment", "batch"])
def test_figures_agree_with_the_simulation_and_with_the_store(server, route):
    options = (
        "--messages",
        "120",
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
    assert refused == report["refused_as_expected"] - whole_bodies(report, route) > 0
    assert {(row["customer_id"], row["call_type"]): row["accepted"] for row in rows if row["accepted"]} == Counter(
        (item["customer_id"]["S"], item["type"]["S"]) for item in items
    )
    for item in items[:5]:
        # Ids are unique for a customer and a user only, and simulate sees to it that some are used twice.
        history = trace(server, item["message_id"]["S"], "--customer", item["customer_id"]["S"])
        stored = [(one["subject"], one["position"]) for one in history["stored"]]
        assert (item["subject"]["S"], item["position"]["S"]) in stored
        assert outcomes(history).count("accepted") == len(stored)
        assert set(outcomes(history)) <= {"accepted", "duplicate"}
        assert {delivery["answered"] for delivery in history["deliveries"]} == {200}


def whole_bodies(report, route):
    """Return how many refused requests a line does not give to a customer: of a library, those with a wrong key."""
    return report["answers"].get("401 unknown_key", 0) if route == "batch" else 0


def items_of(server):
    pages = server.account.dynamodb().get_paginator("scan").paginate(TableName=server.stores.event_table)
    return [item for page in pages for item in page["Items"]]


def test_each_delivery_is_traced_with_its_answer_and_what_followed(server):
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


def test_a_refused_message_is_found_among_the_rejects(server):
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


def test_messages_of_a_batch_are_traced_each(server):
    good, bad = fresh(), fresh(event="")
    post_batch(server, good, bad, good)
    assert sorted(outcomes(trace(server, good["messageId"]))) == ["accepted", "duplicate"]  # they are written at once
    history = trace(server, bad["messageId"])
    assert (history["deliveries"][0]["status"], history["deliveries"][0]["text"]) == (200, EMPTY_EVENT)
    assert len(history["rejects"]) == 1


@pytest.mark.parametrize("message_id", ['日本 "#%x', "\\u0041", "' or 1=1 --", "<b>[bold]", "-" * 100])
def test_a_message_is_traced_whatever_its_id_holds(server, message_id):
    server.post(fresh(messageId=message_id, userId=str(uuid.uuid4())))
    result = run("trace", "--url", server.url, "--", message_id)
    assert f"Message {message_id} of customer demo\n" in result.stdout
    assert "/segment 200 accepted track" in result.stdout
    assert "Stored at " in result.stdout


def test_an_id_that_two_customers_use_is_traced_for_each(server):
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


def test_a_message_of_a_user_is_found_by_the_user(server):
    message = fresh()
    server.post(message)
    assert len(trace(server, message["messageId"], "--user", "watched")["stored"]) == 1
    result = server.run("trace", message["messageId"], "--anonymous", "watched", "--json")
    [history] = json.loads(result.stdout)["customers"]
    assert (result.exit_code, history["stored"], history["missing"]) == (1, [], True)
    assert "it is of another user than the one that was named" in history["now"][0]


def test_a_message_that_was_erased_is_not_there_any_more(server):
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


def test_what_is_stored_without_a_line_is_told(server):
    message = fresh()
    table = EventTable(server.account.dynamodb(), server.stores.event_table, retention_days=0)
    table.write(record_of(message))
    history = trace(server, message["messageId"])
    assert history["deliveries"] == []
    assert history["now"][1].startswith("No line of the last 7 days tells that it was accepted: ")


def record_of(message, customer_id=demo.CUSTOMER):
    [read] = canonicalise(message, call_type=None)
    return Record(customer_id=customer_id, message=read, settings={}, stored_at=datetime.now(UTC).timestamp())


def test_what_api_gateway_answered_by_itself_is_told(server):
    message_id = str(uuid.uuid4())
    request_id = str(uuid.uuid4())
    with log_of(server).open("a") as file:
        file.write(access_line(503, request_id=request_id, integrationStatus="-") + "\n")
        file.write(function_line(message_id=message_id, request_id=request_id, customer_id="late") + "\n")
    shown = server.run("trace", message_id).stdout
    assert "/segment 200 accepted track" in shown
    assert "API Gateway had answered 503 by itself: the function did not answer in time." in shown
    assert "Segment sends it again, for up to four hours, although the message was taken" in shown


def test_a_message_that_nobody_knows_is_an_error_that_says_what_was_searched(server):
    result = server.run("trace", "no-such-message", "--customer", "acme")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Nothing is known of a message no-such-message of acme. Searched: ")
    for place in ("the local server's log, ", "the last 7 days until ", "the event table ", "the rejects"):
        assert place in result.stderr


def test_a_queued_message_is_told_as_such(queue_server):
    message = fresh()
    queue_server.post(message)
    history = trace(queue_server, message["messageId"])
    assert (history["stored"], history["deliveries"][0]["answered"]) == (None, 202)
    assert history["now"][0].startswith(f"Queued in {queue_server.stores.event_queue_url} until a consumer takes it")


def test_answers_without_the_function_are_in_the_log_and_in_the_figures(server):
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


def test_figures_are_shown_with_the_way_to_the_private_beta(server):
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


@pytest.mark.parametrize(
    ("customers", "events", "is_reached"),
    [(9, 19_999_999, False), (BETA_CUSTOMERS, 0, True), (0, 20_000_000, True)],
)
def test_either_of_customers_and_events_reaches_the_bar(customers, events, is_reached):
    progress = Progress(events=events, since=None, source="", customers=customers, period="", holders=0)
    assert progress.is_reached is is_reached


# Live


def tailing(server, *options, **more):
    """Start a process that shows requests, and wait until it does."""
    marker = fresh()
    server.post(marker)
    process = start(
        server.checkout, "tail", "--url", server.url, "--last", "10000", *options, stdout=subprocess.PIPE, **more
    )
    assert any(marker["messageId"] in line for line in process.stdout)
    return process


def test_requests_are_shown_as_they_come_until_control_c(server):
    with tailing(server) as process:
        message = fresh()
        server.post(message)
        server.request("PUT", "/nowhere")
        seen = list(itertools.islice(process.stdout, 2))
        os.killpg(process.pid, signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert f"/segment 200 accepted track demo {message['messageId']}" in seen[0]
    assert "404 by API Gateway: no such route" in seen[1]
    assert (process.returncode, rest) == (0, "")


def test_control_c_ends_it_in_the_background_of_a_script_too(server):
    with in_background():
        process = tailing(server)
    with process:
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 0


def test_for_programs_lines_are_as_they_were_written(server):
    with tailing(server, "--json") as process:
        post_batch(server, fresh(), fresh())
        facts = json.loads(next(process.stdout))
        process.send_signal(signal.SIGINT)
    assert (facts["messages"], facts["outcome"], len(facts["message_ids"])) == (2, "accepted", 2)
    assert process.returncode == 0


def test_only_what_is_asked_for_is_shown(server):
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


def test_a_closed_pipe_ends_it_without_a_word(server):
    with tailing(server) as process:
        process.stdout.close()
        assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize(("environment", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_is_shown_colours_unless_it_wants_none(server, environment, is_coloured, monkeypatch):
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


# A stack


LOG_GROUPS = {"FunctionLogGroupName": "prod-Function", "ApiLogGroupName": "prod-Api"}


@pytest.fixture
def stack(aws):
    """Return what makes a stack with all that template.yaml gives out, of which the log groups are played."""

    def make(**parameters):
        stores = create_local_stack(aws, parameters).stores
        outputs = {output: getattr(stores, name) for name, output in STORE_OUTPUTS.items()} | LOG_GROUPS
        template = {
            "Resources": {"Any": {"Type": "AWS::SQS::Queue"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        aws.cloudformation().create_stack(StackName="prod", TemplateBody=json.dumps(template))
        return stores

    return make


@pytest.fixture
def played(monkeypatch):
    """Return Insights for the commands, whose rows a test sets: lines by group."""
    lines = {"prod-Function": [], "prod-Api": []}
    with insights(lambda group, _query: [{"@message": line} for line in lines[group]]) as insights_:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", insights_.url)
        insights_.lines = lines
        yield insights_


def test_the_template_gives_out_the_log_groups():
    outputs = load_template()["Outputs"]
    declared = {name: outputs[name]["Value"]["Ref"] for name in LOG_GROUPS}
    assert declared == {"FunctionLogGroupName": "DestinationLogGroup", "ApiLogGroupName": "ApiLogGroup"}


def traced(*args):
    result = run("trace", *args, "--stack", "prod", "--json")
    assert result.exit_code == 0, result.output
    [history] = json.loads(result.stdout)["customers"]
    return history


def test_a_message_of_a_stack_is_traced_by_its_logs(stack, played):
    stack()
    played.lines["prod-Function"] = [
        function_line(answered, message_id="m", request_id=request_id, time=time)
        for time, (answered, request_id) in enumerate([(FAILED, "r-1"), (ACCEPTED, "r-2"), (DUPLICATE, "r-3")], 10**12)
    ]
    played.lines["prod-Api"] = [access_line(503, request_id="r-1"), access_line(503, request_id="r-2")]
    history = traced("m")
    assert [(one["outcome"], one["answered"]) for one in history["deliveries"]] == [
        ("failed", 503),
        ("accepted", 503),
        ("duplicate", None),
    ]
    assert history["stored"] is None
    [sentence] = history["now"]
    assert sentence.startswith("Whether it is in the event table was not looked up")


@pytest.mark.parametrize(
    "options", [("--user", "watched"), ("--user", "watched", "--customer", "acme"), ("--scan",)], ids=" ".join
)
def test_a_stored_message_of_a_stack_is_found_by_its_user_or_a_scan(stack, played, aws, options):
    stores = stack()
    EventTable(aws.dynamodb(), stores.event_table, retention_days=0).write(record_of(fresh(messageId="m"), "acme"))
    played.lines["prod-Function"] = [function_line(message_id="m")]
    assert [item["subject"] for item in traced("m", *options)["stored"]] == ["acme#user#watched"]


def test_without_a_line_the_customer_of_a_user_must_be_named(stack, played):
    stack()
    result = run("trace", "m", "--user", "watched", "--stack", "prod")
    assert result.exit_code == 2
    assert "name the --customer whose user this is" in result.stderr
    assert len(played.queries) == 1


def test_a_reject_of_a_stack_is_found_on_the_days_of_its_lines(stack, played, aws):
    stores = stack()
    table = Keeper(aws.dynamodb(), stores.rejects_table, retention_days=30)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    refusal = InvalidMessage((Violation(pointer="/event", message=EMPTY_EVENT),))
    for message_id, when in (("m", midnight - timedelta(seconds=1)), ("other", midnight)):
        [message] = canonicalise(fresh(event="", messageId=message_id), call_type=None)
        table.keep(
            Reject(
                customer_id="acme",
                message=message,
                body=message_id,
                settings_header="",
                refusal=refusal,
                rejected_at=when.timestamp(),
            )
        )
    line = function_line(REFUSED, message_id="m", kept=True, time=int(midnight.timestamp() * 1000) + 500)
    played.lines["prod-Function"] = [line]
    assert [reject["message_id"] for reject in traced("m")["rejects"]] == ["m"]


def test_a_queued_message_of_a_stack_is_told_as_such(stack, played):
    stores = stack(EventSink="sqs")
    played.lines["prod-Function"] = [function_line(message_id="m")]
    assert traced("m")["now"][0].startswith(f"Queued in {stores.event_queue_url} ")


def test_deliveries_are_told_although_the_tables_can_not_be_read(stack, played, aws):
    stores = stack()
    played.lines["prod-Function"] = [function_line(ACCEPTED, message_id="m", request_id="r-1")]
    aws.dynamodb().delete_table(TableName=stores.event_table)
    result = run("trace", "m", "--user", "u", "--stack", "prod", "--json")
    assert result.exit_code == 1
    [history] = json.loads(result.stdout)["customers"]
    assert len(history["deliveries"]) == 1
    assert history["now"][0].startswith("Where it is now can't be told: AWS answered: ")


def test_what_was_read_is_told_beside_what_was_found(stack, played):
    stack()
    result = run("trace", "m", "--stack", "prod")
    assert result.exit_code == 1
    assert "CloudWatch Logs Insights scanned 2.5 MB." in result.stderr
    assert "Searched: the logs of the stack prod, the last 7 days until " in result.stderr
    assert "CloudWatch shows lines some seconds late" in result.stderr
    assert len(played.queries) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            "AccessDeniedException",
            "Error: AWS answered: An error occurred (AccessDeniedException) when calling the StartQuery",
        ),
        ("ResourceNotFoundException", "Error: The log group prod-Function is not there"),
    ],
)
@pytest.mark.parametrize("command", [("trace", "m"), ("status",)], ids=" ".join)
def test_what_aws_refuses_is_told(stack, played, command, error, sentence):
    stack()
    played.error = error
    result = run(*command, "--stack", "prod")
    assert (result.exit_code, sentence in result.stderr) == (1, True), result.output


def test_the_figures_of_a_stack_are_of_its_logs_and_its_metric(stack, played, aws):
    stores = stack()
    keys = KeyTable(aws.dynamodb(), stores.key_table)
    for key, customer_id, status in (("a", "acme", "active"), ("b", "acme", "active"), ("c", "other", "revoked")):
        keys.put(KeyRecord.of(key, customer_id=customer_id, status=status))
    days = [datetime.now(UTC) - timedelta(days=days) for days in (0, 3, 3)]
    for day in days:
        data = {"MetricName": "Accepted", "Timestamp": day, "Value": 7.0}
        for service in ("prod", "staging"):
            dimensions = [{"Name": "service", "Value": service}]
            aws.cloudwatch().put_metric_data(Namespace=NAMESPACE, MetricData=[{**data, "Dimensions": dimensions}])
    moment = {"first": "1772323200000", "last": "1772323260000"}
    played.rows = lambda group, _query: (
        [{"route": "POST /segment", "status": "200", "integrationStatus": "200", "requests": "5", **moment}]
        if group == "prod-Api"
        else [{"customer_id": "acme", "call_type": "track", "accepted": "5", **moment}]
    )
    result = run("status", "--since", "7d", "--stack", "prod", "--json")
    told = json.loads(result.stdout)
    assert told["total"] == {"accepted": 5, "duplicates": 0, "refused": {}, "failed": {}}
    assert told["requests"] == [{"route": "POST /segment", "status": 200, "by_function": True, "requests": 5}]
    assert told["private_beta"] == {
        "events": 21,
        "events_since": str(min(days).date()),
        "customers": 1,
        "customers_period": "the last 7 days",
        "customers_with_active_keys": 1,
        "reached": False,
    }
    assert "scanned 5.0 MB" in result.stderr


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"customer_id": "acme"},
        {"customer_id": "acme", "accepted": "1", "first": "1772323200000"},
        {"customer_id": "acme", "accepted": "1", "last": "1772323200000"},
        {"first": "", "last": ""},
        {"first": "-", "last": "never"},
        {"first": "NaN", "last": "1e999"},
        {"first": "99999999999999999999", "last": "-99999999999999999999"},
        {"accepted": "-", "refused": "NaN", "failed": "Infinity", "requests": "many"},
        {"refused": "3", "failed": "2"},
        {"status": "-", "integrationStatus": "-", "requests": "1"},
        {"status": "9" * 5000, "requests": "1"},
        {"status": "٤٠٤", "route": "\x1b[31m", "requests": "1"},
    ],
    ids=str,
)
@pytest.mark.parametrize("as_json", [False, True], ids=["people", "json"])
def test_a_row_of_insights_may_lack_any_field(stack, played, row, as_json):
    stack()
    played.rows = lambda _group, _query: [row]
    result = run("status", "--stack", "prod", *(["--json"] if as_json else []))
    assert (result.exit_code, "\x1b" in result.output) == (0, False)
    if as_json:
        [messages] = json.loads(result.stdout)["messages"]
        assert (messages["last_seen"] is None) == (row.get("last") != "1772323200000")


@pytest.mark.parametrize("status", ["Failed", "Cancelled", "Timeout", "SomethingNew"])
@pytest.mark.parametrize("command", [("trace", "m"), ("status",)], ids=" ".join)
def test_a_query_that_ends_otherwise_is_an_error(stack, played, command, status):
    stack()
    played.statuses = ("Unknown", status)
    result = run(*command, "--stack", "prod")
    assert result.exit_code == 1
    assert f"Error: CloudWatch Logs Insights ended a query as {status.lower()}: try again" in result.stderr


@pytest.mark.parametrize("error", ["ThrottlingException", "LimitExceededException", "ServiceUnavailableException"])
@pytest.mark.parametrize("command", [("trace", "m"), ("status",)], ids=" ".join)
def test_a_throttled_query_is_an_error_in_a_sentence(stack, played, command, error, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    stack()
    played.error = error
    result = run(*command, "--stack", "prod")
    assert (result.exit_code, f"Error: AWS answered: An error occurred ({error})" in result.stderr) == (1, True)


def test_figures_are_told_although_the_metric_is_not(stack, played, monkeypatch):
    stack()
    denied = response(
        403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    )
    with endpoint(lambda _received: denied) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", server.url.removesuffix("/segment"))
        result = run("status", "--stack", "prod")
    assert result.exit_code == 0
    assert "How near Segment's private beta is can't be told: An error occurred" in result.stdout
    assert len(played.queries) == 2


def test_a_stack_may_be_named_by_its_arn(stack, played, aws):
    stack()
    arn = aws.cloudformation().describe_stacks(StackName="prod")["Stacks"][0]["StackId"]
    result = run("trace", "m", "--stack", arn)
    assert "the logs of the stack prod, " in result.stderr
    assert len(played.queries) == 1


def test_what_the_lines_of_before_cost_is_told_after_them(stack, played):
    stack()
    played.lines["prod-Function"] = [function_line(message_id="m")]
    looks = iter([response(200, '{"events": []}'), response(400, '{"__type": "ResourceNotFoundException"}')])
    played.FilterLogEvents = lambda _said: next(looks)
    result = run("tail", "--stack", "prod", "--last", "1", "--customer", "acme")
    assert " accepted track acme m " in result.stdout
    cost, end = result.stderr.splitlines()
    assert cost == "CloudWatch Logs Insights scanned 2.5 MB."
    assert "The log group prod-Function is not there" in end


# What can't be asked


@pytest.mark.parametrize("command", [("trace", "m"), ("tail",), ("status",)], ids=" ".join)
def test_a_stack_of_an_older_version_is_told(aws, command):
    create_local_stack(aws, {})
    result = run(*command, "--stack", "direct-destination-local")
    assert (result.exit_code, "This stack is of an older version" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", [("trace", "m"), ("tail",), ("status",)], ids=" ".join)
def test_a_server_of_an_older_version_is_told(server, command):
    about = server.request("GET", "/_local").body
    del about["request_log"]
    with endpoint(lambda _received: response(200, json.dumps(about))) as older:
        result = run(*command, "--url", older.url.removesuffix("/segment"))
    assert (result.exit_code, "This local server is of an older version" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", [("trace", "m"), ("tail",), ("status",)], ids=" ".join)
def test_without_a_server_one_is_told_how_to_start_it(command):
    result = run(*command, "--url", "http://127.0.0.1:1")
    assert (result.exit_code, "start one with `make run`" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("trace", ""), "it is empty"),
        (("trace", "m", "--user", "u", "--anonymous", "a"), "--user and --anonymous exclude each other"),
        (("trace", "m", "--since", "7w"), "7w is no time: write 30m, 24h, 7d, or all"),
        (("status", "--since", "0h"), "0h is no time"),
        (("status", "--since", "99999d"), "99999d is no time"),
        (("tail", "--status", "4x"), "4x is no status: write 503, or 5xx"),
        (("tail", "--outcome", "lost"), "'lost' is not one of"),
    ],
)
def test_options_that_make_no_sense_are_told(server, args, sentence):
    result = server.run(*args)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.output


@pytest.mark.parametrize(
    ("text", "hours", "words"),
    [
        ("30m", 0.5, "the last 30 minutes"),
        ("1h", 1, "the last hour"),
        ("24h", 24, "the last 24 hours"),
        ("7d", 168, "the last 7 days"),
    ],
)
def test_a_period_is_written_short(text, hours, words):
    period = SINCE.convert(text, None, None)
    assert (period.until - period.since, period.words) == (timedelta(hours=hours), words)
    assert SINCE.convert(period, None, None) is period


def test_a_period_may_be_all_that_there_is():
    assert SINCE.convert("all", None, None).since < datetime(2020, 1, 1, tzinfo=UTC)
