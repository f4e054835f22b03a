"""Test `destination trace`, `tail` and `status` on a moto stack, with a replaced CloudWatch Logs Insights."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from endpoint import endpoint, response
from insights import insights
from local_server import run
from request_lines import ACCEPTED, DUPLICATE, FAILED, REFUSED, access_line, function_line

from destination.commands.options import SINCE
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import STORE_OUTPUTS, create_local_stack, load_template
from destination.watching.status import BETA_CUSTOMERS, NAMESPACE, BetaProgress
from handler.canonicalise import canonicalise
from handler.errors import InvalidMessage, Violation
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.sinks.dynamodb import EventTable

TRACK = {"type": "track", "userId": "watched", "event": "Lamp Lit", "timestamp": "2026-03-12T09:30:00Z"}
EMPTY_EVENT = "event must not be empty"


LOG_GROUPS = {"FunctionLogGroupName": "prod-Function", "ApiLogGroupName": "prod-Api"}


@pytest.fixture
def stack(aws):
    """Return a function that creates a stack with all outputs of template.yaml. Its log groups are replaced."""

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


def stored_record(**fields):
    """Return the record of a message of the customer acme."""
    [message] = canonicalise({**TRACK, **fields})
    return Record(customer_id="acme", message=message, settings={}, stored_at=0)


@pytest.fixture
def played(monkeypatch):
    """Return Insights for the commands. A test sets its rows: lines by group."""
    lines = {"prod-Function": [], "prod-Api": []}
    with insights(lambda group, _query: [{"@message": line} for line in lines[group]]) as insights_:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", insights_.url)
        insights_.lines = lines
        yield insights_


def test_template_outputs_the_log_groups():
    outputs = load_template()["Outputs"]
    declared = {name: outputs[name]["Value"]["Ref"] for name in LOG_GROUPS}
    assert declared == {"FunctionLogGroupName": "DestinationLogGroup", "ApiLogGroupName": "ApiLogGroup"}


def traced(*args):
    result = run("trace", *args, "--stack", "prod", "--json")
    assert result.exit_code == 0, result.output
    [history] = json.loads(result.stdout)["customers"]
    return history


def test_stack_message_is_traced_by_its_logs(stack, played):
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
    assert sentence.startswith("The event table was not searched")


@pytest.mark.parametrize(
    "options", [("--user", "watched"), ("--user", "watched", "--customer", "acme"), ("--scan",)], ids=" ".join
)
def test_stored_message_is_found_by_user_or_scan(stack, played, aws, options):
    stores = stack()
    EventTable(aws.dynamodb(), stores.event_table, retention_days=0).write(stored_record(messageId="m"))
    played.lines["prod-Function"] = [function_line(message_id="m")]
    assert [item["subject"] for item in traced("m", *options)["stored"]] == ["acme#user#watched"]


def test_user_needs_a_customer_if_no_line_is_found(stack, played):
    stack()
    result = run("trace", "m", "--user", "watched", "--stack", "prod")
    assert result.exit_code == 2
    assert "name this user's customer with --customer" in result.stderr
    assert len(played.queries) == 1


def test_reject_is_found_on_the_days_of_its_lines(stack, played, aws):
    stores = stack()
    table = RejectTable(aws.dynamodb(), stores.rejects_table, retention_days=30)
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    refusal = InvalidMessage((Violation(pointer="/event", message=EMPTY_EVENT),))
    for message_id, when in (("m", midnight - timedelta(seconds=1)), ("other", midnight)):
        [message] = canonicalise({**TRACK, "event": "", "messageId": message_id}, call_type=None)
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


def test_queued_message_is_shown_as_queued(stack, played):
    stores = stack(EventSink="sqs")
    played.lines["prod-Function"] = [function_line(message_id="m")]
    assert traced("m")["now"][0].startswith(f"Queued in {stores.event_queue_url} ")


def test_deliveries_are_shown_if_the_tables_are_unreadable(stack, played, aws):
    stores = stack()
    played.lines["prod-Function"] = [function_line(ACCEPTED, message_id="m", request_id="r-1")]
    aws.dynamodb().delete_table(TableName=stores.event_table)
    result = run("trace", "m", "--user", "u", "--stack", "prod", "--json")
    assert result.exit_code == 1
    [history] = json.loads(result.stdout)["customers"]
    assert len(history["deliveries"]) == 1
    assert history["now"][0].startswith("Its current place can't be read: AWS answered: ")


def test_output_shows_how_much_was_scanned(stack, played):
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
        ("ResourceNotFoundException", "Error: The log group prod-Function does not exist"),
    ],
)
@pytest.mark.parametrize("command", [("trace", "m"), ("status",)], ids=" ".join)
def test_refusal_by_aws_is_reported(stack, played, command, error, sentence):
    stack()
    played.error = error
    result = run(*command, "--stack", "prod")
    assert (result.exit_code, sentence in result.stderr) == (1, True), result.output


def test_figures_come_from_the_logs_and_the_metric(stack, played, aws):
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
        else [
            {"customer_id": "acme", "call_type": "track", "accepted": "5", "status": "200", "requests": "5", **moment}
        ]
    )
    result = run("status", "--since", "7d", "--stack", "prod", "--json")
    assert result.exit_code == 0
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
    "options", [(), ("--json",), ("--customer", "acme"), ("--customer", "acme", "--json")], ids=str
)
def test_figures_that_contradict_each_other_end_with_exit_code_1(stack, played, options):
    stack()
    played.rows = lambda group, _query: (
        [{"route": "POST /segment", "status": "401", "integrationStatus": "200", "requests": "49"}]
        if group == "prod-Api"
        else [{"customer_id": "acme", "call_type": "track", "accepted": "7", "status": "400", "requests": "7"}]
    )
    result = run("status", "--stack", "prod", *options)
    is_compared = "--customer" not in options
    assert result.exit_code == is_compared
    assert ("have 7 requests that it answered 4xx, and the API's have 49" in result.stdout) is is_compared
    assert ("7 messages are counted as accepted or duplicates" in result.stdout) is is_compared


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
def test_failed_query_is_an_error(stack, played, command, status):
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


def test_figures_are_shown_without_the_metric(stack, played, monkeypatch):
    stack()
    denied = response(
        403, "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    )
    with endpoint(lambda _received: denied) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", server.url.removesuffix("/segment"))
        result = run("status", "--stack", "prod")
    assert result.exit_code == 0
    assert "The progress towards Segment's private beta is unknown: An error occurred" in result.stdout
    assert len(played.queries) == 2


def test_a_stack_may_be_named_by_its_arn(stack, played, aws):
    stack()
    arn = aws.cloudformation().describe_stacks(StackName="prod")["Stacks"][0]["StackId"]
    result = run("trace", "m", "--stack", arn)
    assert "the logs of the stack prod, " in result.stderr
    assert len(played.queries) == 1


def test_scanned_amount_is_shown_after_the_last_lines(stack, played):
    stack()
    played.lines["prod-Function"] = [function_line(message_id="m")]
    looks = iter([response(200, '{"events": []}'), response(400, '{"__type": "ResourceNotFoundException"}')])
    played.FilterLogEvents = lambda _said: next(looks)
    result = run("tail", "--stack", "prod", "--last", "1", "--customer", "acme")
    assert " accepted track acme m " in result.stdout
    cost, end = result.stderr.splitlines()
    assert cost == "CloudWatch Logs Insights scanned 2.5 MB."
    assert "The log group prod-Function does not exist" in end


# The last use of a key


@pytest.fixture
def two_keys(stack, aws):
    """Return a stack with two keys of a customer, and the first key."""
    keys = KeyTable(aws.dynamodb(), stack().key_table)
    records = [
        KeyRecord(key_hash=digits * 16, last_four="aaaa", customer_id='a"c', created_at=None)
        for digits in ("3f1c", "77aa")
    ]
    for record in records:
        keys.put(record)
    return keys, records[0]


def shown_key(record, *options):
    result = run("keys", "show", record.key_id, "--stack", "prod", *options)
    assert result.exit_code == 0, result.output
    return result


def test_last_use_of_a_key_is_read_from_the_stacks_log(two_keys, played):
    _, record = two_keys
    played.rows = lambda _group, _query: [
        {"key": "3f1c", "status": "200", "last": "1772323200000"},
        {"key": "3f1c", "status": "401", "last": "1772323260000"},
        {"key": "77aa", "status": "200", "last": "1772323999000"},
    ]
    shown = shown_key(record, "--since", "30d")
    assert "last used: 2026-03-01 00:01:00 UTC, answered 401\n" in shown.stdout
    assert "scanned 2.5 MB" in shown.stderr
    assert json.loads(shown_key(record, "--json").stdout)["last_used_at"] == "2026-03-01T00:01:00.000+00:00"
    [query, _] = played.queries
    assert 'message = "request" and `customer_id` = "a\\"c"' in query


def test_key_without_a_line_is_unused(two_keys, played):
    played.rows = lambda _group, _query: [{"key": "77aa", "status": "200", "last": "1772323999000"}]
    assert "last used: not in the last 30 days\n" in shown_key(two_keys[1], "--since", "30d").stdout


def test_lines_without_a_key_are_reported(two_keys, played):
    played.rows = lambda _group, _query: [{"status": "200", "last": "1772323200000"}, {"last": ""}]
    told = "not in the last 7 days; lines until 2026-03-01 00:00:00 UTC are of a version that does not log keys"
    assert f"last used: {told}\n" in shown_key(two_keys[1]).stdout


def test_keys_with_the_same_hash_prefix_are_reported(two_keys, played):
    keys, record = two_keys
    keys.put(KeyRecord(key_hash="3f1c" + "0" * 60, last_four="bbbb", customer_id='a"c'))
    keys.put(KeyRecord(key_hash="77aa" + "0" * 60, last_four="cccc", customer_id="other"))
    played.rows = lambda _group, _query: [{"key": "3f1c", "last": "1772323200000"}]
    assert "answered (unknown) (or another key of this customer, " in shown_key(record).stdout
    other = json.loads(run("keys", "list", "--customer", 'a"c', "--stack", "prod", "--json").stdout)[1]["id"]
    assert "or another key" not in run("keys", "show", other, "--stack", "prod").stdout


def test_key_is_shown_if_the_log_is_unreadable(two_keys, played):
    played.error = "AccessDeniedException"
    shown = shown_key(two_keys[1])
    assert "last four: aaaa\n" in shown.stdout
    assert "last used: (unknown: An error occurred (AccessDeniedException)" in shown.stdout


# Failures of the consumer


@pytest.fixture
def consumer_stack(stack, aws):
    """Return a stack whose outputs name the log group of the consumers."""
    stores = stack()
    template = {
        "Resources": {"Any": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {
            name: {"Value": value}
            for name, value in (
                {output: getattr(stores, name) for name, output in STORE_OUTPUTS.items()}
                | LOG_GROUPS
                | {"ConsumerLogGroupName": "prod-Consumer"}
            ).items()
        },
    }
    aws.cloudformation().update_stack(StackName="prod", TemplateBody=json.dumps(template))


def consumer_line(message_id, **facts):
    return json.dumps(
        {
            "message": "consumer failed",
            "outcome": "consumer_failed",
            "customer_id": "acme",
            "message_id": message_id,
            "sent_to": None,
            "error": "ValueError",
            **facts,
        }
    )


@pytest.mark.usefixtures("consumer_stack")
def test_failures_of_the_consumer_of_a_stack_are_traced(played):
    rows = {
        "prod-Consumer": [
            {"@timestamp": "2026-03-01 00:00:00.000", "@message": consumer_line("m", sent_to="queue")},
            {"@timestamp": "2026-03-01 00:01:00.000", "@message": consumer_line("m", sent_to="dead_letters")},
            {"@timestamp": "2026-03-01 00:02:00.000", "@message": consumer_line("m-2")},
            {"@timestamp": "2026-03-01 00:03:00.000", "@message": consumer_line("m", customer_id="other")},
            {"@timestamp": "", "@message": consumer_line("m")},
            {"@message": "START RequestId: r"},
        ],
        "prod-Function": [{"@message": function_line(message_id="m")}],
        "prod-Api": [],
    }
    played.rows = lambda group, _query: rows[group]
    assert [failure["sent_to"] for failure in traced("m")["consumer_failures"]] == ["queue", "dead_letters"]
    told = run("trace", "m", "--stack", "prod").stdout
    assert "The consumer failed 2 times, last at 00:01:00 UTC: ValueError. The message is a dead letter.\n" in told
    assert not told.endswith("\n\n")
    [query] = {query for query in played.queries if "consumer_failed" in query}
    assert query.startswith('fields @timestamp, @message | filter outcome = "consumer_failed" and @message like /.m./ ')


@pytest.mark.usefixtures("consumer_stack")
def test_failures_of_the_consumer_of_a_stack_are_counted(played):
    played.rows = lambda group, _query: [{"failures": "487"}] if group == "prod-Consumer" else []
    assert json.loads(run("status", "--stack", "prod", "--json").stdout)["consumer_failures"] == 487
    assert "The consumer failed 487 times to handle a message" in run("status", "--stack", "prod").stdout


def test_stack_without_a_consumer_counts_no_consumer_failures(stack, played):
    stack()
    assert json.loads(run("status", "--stack", "prod", "--json").stdout)["consumer_failures"] is None
    assert {query["logGroupName"] for query in played.asked} == {"prod-Function", "prod-Api"}


# Unsupported stacks and options


@pytest.mark.parametrize("command", [("trace", "m"), ("tail",), ("status",)], ids=" ".join)
def test_stack_of_an_older_version_is_reported(aws, command):
    create_local_stack(aws, {})
    result = run(*command, "--stack", "direct-destination-local")
    assert (result.exit_code, "This stack is of an older version" in result.stderr) == (1, True)


@pytest.mark.parametrize("command", [("trace", "m"), ("tail",), ("status",)], ids=" ".join)
def test_error_without_a_server_says_how_to_start_it(command):
    result = run(*command, "--url", "http://127.0.0.1:1")
    assert (result.exit_code, "start one with `make run`" in result.stderr) == (1, True)


# Parts


@pytest.mark.parametrize(
    ("customers", "events", "is_reached"),
    [(9, 19_999_999, False), (BETA_CUSTOMERS, 0, True), (0, 20_000_000, True)],
)
def test_customers_or_events_reach_the_threshold(customers, events, is_reached):
    progress = BetaProgress(events=events, since=None, source="", customers=customers, period="", holders=0)
    assert progress.is_reached is is_reached


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


def test_period_may_be_the_whole_log():
    assert SINCE.convert("all", None, None).since < datetime(2020, 1, 1, tzinfo=UTC)
