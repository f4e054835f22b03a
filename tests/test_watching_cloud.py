"""Test the request log of a stack: the queries to CloudWatch, and the reading of its answers."""

import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import click
import pytest
from botocore.config import Config
from endpoint import endpoint, response
from insights import insights
from request_lines import ACCEPTED, DUPLICATE, FAILED, REFUSED, access_line, function_line

from destination.deployment.clients import local_client
from destination.deployment.stack import Account
from destination.deployment.target import StackLogs
from destination.watching.cloud_log import CLOCK_MARGIN, LATE, MAX_ROWS, PASSING_CODES, CloudLog
from destination.watching.lines import Wanted, read_line
from destination.watching.request_log import Period

LOGS = StackLogs(stack="prod", function_group="prod-Function", api_group="prod-Api")
WEEK = Period.last(timedelta(days=7), "the last 7 days")


def log_at(url):
    return log_of(local_client("logs", url, Config(retries={"total_max_attempts": 1})))


def log_of(client):
    return CloudLog(client, LOGS, poll_seconds=0.01, retry_seconds=0)


def no_rows(_group, _query):
    return []


# Insights


def test_a_message_is_searched_in_the_period_and_found_oldest_first():
    lines = [
        function_line(answered, message_id="m", time=time) for answered, time in ((DUPLICATE, 2000), (FAILED, 1000))
    ]
    with insights(lambda *_: [{"@message": line} for line in lines]) as played:
        found = log_at(played.url).lines_of("m", WEEK)
    assert [line.outcome for line in found] == ["failed", "duplicate"]
    [asked] = played.asked
    assert asked["logGroupName"] == "prod-Function"
    assert 0 <= WEEK.since.timestamp() - asked["startTime"] < 1
    assert 0 < asked["endTime"] - (WEEK.until + CLOCK_MARGIN).timestamp() <= 1
    query = 'fields @message | filter message = "request" and @message like /.m./ | sort @timestamp desc'
    assert asked["queryString"] == query


@pytest.mark.parametrize(
    "message_id",
    [
        "ajs-next-1700000000000-17e0",
        "delete-reg-x::job-1-p",
        "/ or true | fields @message #",
        '"] | stats count(*) by "',
        ".*",
        "a\\/b\\",
        "日本",
        "\x00\n\ud800",
        "x" * 101,
        "[" * 100,
    ],
)
def test_message_id_becomes_a_pattern_that_matches_its_log_form(message_id):
    with insights(no_rows) as played:
        log_at(played.url).lines_of(message_id, WEEK)
    [query] = played.queries
    [pattern] = re.findall(r"like /([A-Za-z0-9_:.-]*)/ \| sort @timestamp desc$", query)
    assert re.search(pattern, function_line(message_id=message_id))
    assert re.search(pattern, function_line(message_ids=["other", message_id]))


def test_similar_messages_are_left_out():
    lines = [function_line(message_id="a#b"), function_line(message_id="a-b"), "no JSON", function_line()[:-5]]
    with insights(lambda *_: [{"@message": line} for line in lines]) as played:
        found = log_at(played.url).lines_of("a#b", WEEK)
    assert [line.message_ids for line in found] == [("a#b",)]


def test_api_log_is_queried_around_the_time_of_the_lines():
    first, last = (
        read_line(function_line(request_id=name, time=time)) for name, time in (("r=1", 10**12), ("r-2", 10**12 + 5000))
    )
    with insights(lambda *_: [{"@message": access_line(503, request_id="r=1")}]) as played:
        answers = log_at(played.url).answers([first, last])
    assert {request_id: answer.status for request_id, answer in answers.items()} == {"r=1": 503}
    [asked] = played.asked
    assert (asked["logGroupName"], asked["queryString"]) == (
        "prod-Api",
        'fields @message | filter requestId in ["r-2", "r=1"]',
    )
    assert asked["startTime"] < 10**9 < 10**9 + 5 < asked["endTime"] < 10**9 + 100


def test_many_requests_need_several_queries():
    lines = [read_line(function_line(request_id=f"{number:0>20}")) for number in range(450)]
    with insights(no_rows) as played:
        log_at(played.url).answers(lines)
    assert len(played.queries) == 3
    assert max(map(len, played.queries)) < 10_000


def test_request_id_cannot_end_the_query():
    with insights(no_rows) as played:
        assert log_at(played.url).answers([read_line(function_line(request_id='r"]'))]) == {}
    assert not played.queries


def test_cloudwatch_counts_the_figures():
    def rows(group, query):
        if group == "prod-Api":
            assert query == "stats count(*) as requests, min(@timestamp) as first by route, status, integrationStatus"
            return [
                {
                    "route": "POST /segment",
                    "status": "200",
                    "integrationStatus": "200",
                    "requests": "8",
                    "first": "1500",
                },
                {
                    "route": "-",
                    "status": "404",
                    "integrationStatus": "-",
                    "requests": "1",
                    "first": "2026-03-12 09:30:00.250",
                },
                {"requests": "1", "first": "1772323200000"},
            ]
        assert query.startswith('filter message = "request" | stats sum(Accepted.0) as accepted, ')
        assert query.endswith(" by `customer_id`, `call_type`, code, status")
        track = {"customer_id": "acme", "call_type": "track", "first": "1772323200000"}
        return [
            {
                **track,
                "status": "200",
                "requests": "4.75",
                "accepted": "5.0",
                "duplicate": "2",
                "refused": "",
                "failed": "NaN",
                "last": "1772323260000",
            },
            {**track, "code": "invalid_message", "accepted": "0", "refused": "3", "last": "1772323320000"},
            {"code": "key_store_unavailable", "failed": "4", "first": "1772323200000", "last": "1772323200000"},
        ]

    with insights(rows) as played:
        log = log_at(played.url)
        figures = log.figures(WEEK)
    tally = figures.tallies[("acme", "track")]
    assert (tally.accepted, tally.duplicates, tally.refused, tally.failed) == (5, 2, {"invalid_message": 3}, {})
    assert tally.last_seen == datetime.fromtimestamp(1772323320, UTC)
    assert figures.answered == {200: 4.75}
    assert figures.tallies[(None, None)].failed == {"key_store_unavailable": 4}
    assert figures.answers == {("POST /segment", 200, True): 8, ("-", 404, False): 1, ("-", None, False): 1}
    assert figures.first == datetime.fromtimestamp(1.5, UTC)
    assert log.remarks == ["CloudWatch Logs Insights scanned 5.0 MB."]


def test_query_sums_the_metrics_of_a_line():
    for answered, name in ((ACCEPTED, "Accepted"), (DUPLICATE, "Duplicate"), (REFUSED, "Refused"), (FAILED, "Failed")):
        assert json.loads(function_line(answered, messages=7))[name][0] == 7


def test_a_query_is_waited_for():
    with insights(no_rows, statuses=("Scheduled", "Running", "Complete")) as played:
        log_at(played.url).lines_of("m", WEEK)
    assert played.asked[0]["looks"] == 3
    assert not played.stopped


@pytest.mark.parametrize("status", ["Failed", "Cancelled", "Timeout"])
def test_failed_query_is_reported(status):
    ended = pytest.raises(click.ClickException, match=f"ended a query as {status.lower()}: try again")
    with insights(no_rows, statuses=(status,)) as played, ended:
        log_at(played.url).lines_of("m", WEEK)


def test_control_c_stops_the_query():
    def interrupt(**_):
        raise KeyboardInterrupt

    with insights(no_rows, statuses=("Running",)) as played:
        client = Account(endpoint_url=played.url).logs()
        client.meta.events.register("before-call.cloudwatch-logs.GetQueryResults", interrupt)
        with pytest.raises(KeyboardInterrupt):
            CloudLog(client, LOGS).lines_of("m", WEEK)
    assert played.stopped == ["0"]


def test_possible_further_rows_are_reported_once():
    with insights(lambda *_: [{"@message": ""}] * MAX_ROWS) as played:
        log = log_at(played.url)
        for _ in range(2):
            log.lines_of("m", WEEK)
    assert [remark for remark in log.remarks if "10,000" in remark] == [
        "There are more than the 10,000 rows that were read: ask for less by --since."
    ]
    assert played.asked[0]["limit"] == MAX_ROWS


def test_missing_log_group_is_named():
    missing = pytest.raises(click.ClickException, match="The log group prod-Function does not exist")
    with insights(no_rows, error="ResourceNotFoundException") as played, missing:
        log_at(played.url).lines_of("m", WEEK)


# Live lines


@pytest.fixture
def groups(aws):
    """Return a function that puts lines into the log groups, at a number of seconds before now."""
    client = aws.logs()
    for group in (LOGS.function_group, LOGS.api_group):
        client.create_log_group(logGroupName=group)
        client.create_log_stream(logGroupName=group, logStreamName="s")

    def put(group, *lines, seconds_ago=0.0):
        time = int((datetime.now(UTC).timestamp() - seconds_ago) * 1000)
        events = [{"timestamp": time, "message": line} for line in lines]
        client.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)

    return put


def polled(following):
    """Return the lines until no more arrive."""
    lines = []
    while (line := next(following)) is not None:
        lines.append(line)
    return lines


def ids(lines):
    return [line.message_ids[0] for line in lines]


def test_each_line_is_shown_once_even_if_late(aws, groups):
    groups(LOGS.function_group, function_line(message_id="before"), seconds_ago=60)
    following = log_of(aws.logs()).follow(Wanted(), 0)
    assert polled(following) == []
    groups(LOGS.function_group, "START", function_line(message_id="m-1"), function_line(message_id="m-2"))
    assert ids(polled(following)) == ["m-1", "m-2"]
    groups(LOGS.function_group, function_line(message_id="m-3"))
    groups(LOGS.function_group, function_line(message_id="late"), seconds_ago=0.005)
    assert sorted(ids(polled(following))) == ["late", "m-3"]
    assert polled(following) == []


def test_api_lines_are_shown_only_without_the_function(aws, groups):
    following = log_of(aws.logs()).follow(Wanted(), 0)
    assert polled(following) == []
    groups(LOGS.api_group, access_line(200), access_line(429, integrationStatus="-"))
    assert [line.status for line in polled(following)] == [429]


def test_api_log_is_not_queried_for_facts_of_the_function(aws, groups):
    aws.logs().delete_log_group(logGroupName=LOGS.api_group)
    following = log_of(aws.logs()).follow(Wanted(customer_id="acme"), 0)
    assert polled(following) == []
    groups(LOGS.function_group, function_line(message_id="m"), function_line(message_id="n", customer_id="other"))
    assert ids(polled(following)) == ["m"]


def test_missing_group_ends_tail(aws):
    with pytest.raises(click.ClickException, match="The log group prod-Function does not exist"):
        next(log_of(aws.logs()).follow(Wanted(), 0))


def stored(line, number):
    return {"eventId": str(number), "timestamp": int(datetime.now(UTC).timestamp() * 1000), "message": line}


def test_last_lines_are_shown_first_and_once():
    now = int(datetime.now(UTC).timestamp() * 1000)
    lines = [function_line(message_id=f"m-{number}", time=now - 10_000 + number) for number in range(4)]
    other = access_line(404, integrationStatus="-", requestTime=f"{datetime.now(UTC):%d/%b/%Y:%H:%M:%S +0000}")

    def rows(group, _query):
        return [{"@message": line} for line in ([other] if group == LOGS.api_group else lines[2::-1])]

    with insights(rows) as played:
        played.FilterLogEvents = lambda said: response(
            200,
            json.dumps(
                {
                    "events": [stored(line, n) for n, line in enumerate(lines)]
                    if "Function" in said["logGroupName"]
                    else []
                }
            ),
        )
        following = log_at(played.url).follow(Wanted(), 3)
        assert [line.raw for line in polled(following)] == [*lines[1:3], other, lines[0], lines[3]]
    function_query, api_query = played.queries
    assert function_query == 'fields @message | filter message = "request" | sort @timestamp desc'
    assert "| filter @message not like /integrationStatus.: .200/ or " in api_query


def test_last_lines_can_be_filtered_by_outcome():
    with insights(no_rows) as played:
        played.FilterLogEvents = lambda _said: response(200, '{"events": []}')
        following = log_at(played.url).follow(Wanted(outcomes=frozenset({"refused", "failed"})), 3)
        assert polled(following) == []
    [query] = played.queries
    assert 'filter message = "request" and outcome in ["failed", "refused"] |' in query


OF_API = "@message not like /integrationStatus.: .200/ or @message like /.status.: .500/"


@pytest.mark.parametrize(
    ("wanted", "conditions"),
    [
        (Wanted(customer_id="acme"), ['`customer_id` = "acme"']),
        (Wanted(customer_id='a" or "日'), ['`customer_id` = "a\\" or \\"日"']),
        (Wanted(call_type="track", code="invalid_message"), ['`call_type` = "track" and `code` = "invalid_message"']),
        (
            Wanted(status="503"),
            [
                "status >= 503 and status <= 503",
                f"({OF_API}) and @message like /.status.: .503/",
            ],
        ),
        (
            Wanted(status="4xx"),
            [
                "status >= 400 and status <= 499",
                f"({OF_API}) and @message like /.status.: .4/",
            ],
        ),
    ],
)
def test_only_the_wanted_number_of_last_lines_is_queried(wanted, conditions):
    with insights(no_rows) as played:
        played.FilterLogEvents = lambda _said: response(200, '{"events": []}')
        assert polled(log_at(played.url).follow(wanted, 3)) == []
    of_function, *of_api = conditions
    assert played.queries == [
        f"fields @message | filter {condition} | sort @timestamp desc"
        for condition in (f'message = "request" and {of_function}', *of_api)
    ]
    assert {asked["limit"] for asked in played.asked} == {3}


def test_more_lines_than_the_last_ones_are_not_remarked():
    lines = [function_line(message_id=f"m-{number}") for number in range(MAX_ROWS)]
    with insights(lambda *_: [{"@message": line} for line in lines]) as played:
        played.FilterLogEvents = lambda _said: response(200, '{"events": []}')
        log = log_at(played.url)
        assert len(polled(log.follow(Wanted(customer_id="acme"), MAX_ROWS))) == MAX_ROWS
    assert log.remarks == ["CloudWatch Logs Insights scanned 2.5 MB."]


@pytest.mark.parametrize("ahead", [timedelta(minutes=-4), timedelta(), timedelta(minutes=4)])
@pytest.mark.parametrize("last", [0, 5])
def test_tail_uses_the_clock_of_aws(ahead, last):
    at_aws = datetime.now(UTC).replace(microsecond=0) - ahead
    events, starts = [], []

    def dated(body):
        return response(200, json.dumps(body), f"Date: {format_datetime(at_aws, usegmt=True)}")

    def event(message_id, time):
        line = function_line(message_id=message_id, time=int(time.timestamp() * 1000))
        return {"eventId": message_id, "timestamp": int(time.timestamp() * 1000), "message": line}

    def filter_events(said):
        starts.append(said["startTime"] / 1000)
        return dated({"events": [one for one in events if one["timestamp"] >= said["startTime"]]})

    with insights(no_rows) as played:
        played.StartQuery = lambda said: (
            played.asked.append({**said, "looks": 0}),
            dated({"queryId": str(len(played.asked) - 1)}),
        )[1]
        played.FilterLogEvents = filter_events
        following = log_at(played.url).follow(Wanted(customer_id="acme"), last)
        events.append(event("before", at_aws - timedelta(seconds=60)))
        assert polled(following) == []
        for number in range(1, 4):
            at_aws += timedelta(seconds=20)
            events.append(event(f"m-{number}", at_aws))
            assert ids(polled(following)) == [f"m-{number}"]
        assert polled(following) == []
    assert starts[-1] == (at_aws - LATE).timestamp()


def test_lines_during_a_failed_first_poll_are_shown():
    events = []

    def answer(_received):
        if not events:
            events.append(stored(function_line(message_id="m"), 1))
            return response(400, json.dumps({"__type": PASSING_CODES[0], "message": "later"}))
        return response(200, json.dumps({"events": events}))

    with endpoint(answer) as server:
        following = log_at(server.url.removesuffix("/segment")).follow(Wanted(customer_id="acme"), 0)
        assert polled(following) == []
        assert ids(polled(following)) == ["m"]


@pytest.mark.parametrize("code", PASSING_CODES)
def test_temporary_fault_loses_no_line(code, capsys):
    asked = []

    def answer(received):
        asked.append(json.loads(received.body))
        if len(asked) == 2:
            return response(400, json.dumps({"__type": code, "message": "later"}))
        return response(200, json.dumps({"events": [stored(function_line(message_id="m"), 1)]}))

    with endpoint(answer) as server:
        following = log_at(server.url.removesuffix("/segment")).follow(Wanted(customer_id="acme"), 0)
        assert ids(polled(following)) == ["m"]
        assert polled(following) == []
        assert polled(following) == []
    assert "CloudWatch does not answer. The call is repeated: " in capsys.readouterr().err
    assert asked[2]["startTime"] == asked[1]["startTime"]
