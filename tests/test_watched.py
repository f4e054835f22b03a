"""Test alarms, dashboard and runbook: they watch metrics that are emitted, and they refer to each other."""

import fnmatch
import json
import operator
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import combinations, product
from random import Random

import boto3
import click
import pytest
from request_lines import access_line
from searches import some
from test_docs import commands, refusals

from destination.deployment.stack import load_template
from destination.paths import ROOT
from handler.errors import Invalid, Unavailable
from handler.observe import Answered, RequestLine, write_health
from handler.settings import STORE_CALL_SECONDS
from handler.spec import CALL_TYPES

STREAM_HOURS = 24
"""DynamoDB keeps a stream for this long, https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html"""
SEGMENT_GIVES_UP_MILLISECONDS = 5000
SEGMENT_RETRIES_HOURS = 4
DAY_SECONDS = 86_400
MAX_METRICS_OF_AN_ALARM = 10
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Create-alarm-on-metric-math-expression.html"""
MAX_SEARCH_CHARS = 1024
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/search-expression-syntax.html"""
COLUMNS = 24
"""https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html"""

API = frozenset({"ApiId"})
ROUTE = frozenset({"ApiId", "Stage", "Method", "Resource"})
FUNCTION = frozenset({"FunctionName"})
ACCOUNT = frozenset()
CALL = frozenset({"TableName", "Operation"})
TABLE = frozenset({"TableName"})
QUEUE = frozenset({"QueueName"})
EMITTED_BY_AWS = {
    # https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html
    ("AWS/ApiGateway", "Count"): {API, ROUTE},
    ("AWS/ApiGateway", "4xx"): {API, ROUTE},
    ("AWS/ApiGateway", "5xx"): {API, ROUTE},
    ("AWS/ApiGateway", "Latency"): {API, ROUTE},
    # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
    ("AWS/Lambda", "Errors"): {FUNCTION},
    ("AWS/Lambda", "Throttles"): {FUNCTION},
    ("AWS/Lambda", "Duration"): {FUNCTION},
    ("AWS/Lambda", "ConcurrentExecutions"): {FUNCTION, ACCOUNT},
    ("AWS/Lambda", "IteratorAge"): {FUNCTION},
    # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
    ("AWS/DynamoDB", "ThrottledRequests"): {CALL},
    ("AWS/DynamoDB", "SuccessfulRequestLatency"): {CALL},
    ("AWS/DynamoDB", "ConsumedWriteCapacityUnits"): {TABLE},
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {QUEUE},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {QUEUE},
}
"""Namespace and name of a metric -> the sets of dimensions that AWS emits it with."""

RESOURCES = load_template()["Resources"]


def of_type(kind):
    return {name: resource for name, resource in RESOURCES.items() if resource["Type"] == kind}


def text_of(value):
    """Return a value of the template as text, with its references in angle brackets: `<EventQueue.QueueName>`."""
    match value:
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Fn::If": [_, met, _]}:
            return text_of(met)
        case {"Fn::Sub": [template, variables]}:
            texts = {name: text_of(variable) for name, variable in variables.items()}
            return text_of({"Fn::Sub": re.sub(r"\$\{(\w+)\}", lambda found: texts.get(found[1], found[0]), template)})
        case {"Fn::Sub": template}:
            return re.sub(r"\$\{!", "${", re.sub(r"\$\{([\w.:]+)\}", r"<\1>", template))
        case str():
            return value
    raise AssertionError(value)


def references(text):
    """Return the names that a text refers to."""
    return [name for name, _ in re.findall(r"<([\w:]+)(\.\w+)?>", text)]


ALARMS = {name: resource["Properties"] for name, resource in of_type("AWS::CloudWatch::Alarm").items()}
FILTERS = {name: resource["Properties"] for name, resource in of_type("AWS::Logs::MetricFilter").items()}
FUNCTIONS = {name: resource["Properties"] for name, resource in of_type("AWS::Serverless::Function").items()}
[DASHBOARD] = of_type("AWS::CloudWatch::Dashboard").values()
BODY = json.loads(text_of(DASHBOARD["Properties"]["DashboardBody"]))
WIDGETS = {widget["properties"].get("title", "text"): widget for widget in BODY["widgets"]}
GRAPHS = {title: widget["properties"] for title, widget in WIDGETS.items() if widget["type"] == "metric"}
RUNBOOK = (ROOT / "docs" / "reference" / "alarms.md").read_text()


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric that is watched. References in its dimensions are texts such as `<EventTable>`."""

    namespace: str
    name: str
    dimensions: dict[str, str]

    def __str__(self) -> str:
        return " ".join((self.namespace, self.name, *self.dimensions.values()))


def metrics_of_alarm(alarm) -> Iterator[Metric]:
    queries = alarm.get("Metrics", [{"MetricStat": {"Metric": alarm}}])
    for metric in (query["MetricStat"]["Metric"] for query in queries if "MetricStat" in query):
        yield Metric(
            namespace=text_of(metric["Namespace"]),
            name=metric["MetricName"],
            dimensions={named["Name"]: text_of(named["Value"]) for named in metric.get("Dimensions", [])},
        )


def rows_of(graph):
    """Yield the rows of a graph, each with its options."""
    for row in graph["metrics"]:
        options = row[-1] if isinstance(row[-1], dict) else {}
        yield [part for part in row if part is not options], options


def metrics_of_graph(graph) -> Iterator[Metric]:
    for row, _ in rows_of(graph):
        if row:
            namespace, name, *dimensions = row
            pairs = zip(dimensions[::2], dimensions[1::2], strict=True)
            yield Metric(namespace=namespace, name=name, dimensions=dict(pairs))


WATCHED = {
    f"{place}: {metric}": metric
    for place, metrics in [
        *((name, metrics_of_alarm(alarm)) for name, alarm in ALARMS.items()),
        *((title, metrics_of_graph(graph)) for title, graph in GRAPHS.items()),
    ]
    for metric in metrics
}


def emitted_by_requests():
    """Write a log line for each answer, and yield the metrics in it: namespace, name and dimensions."""
    answers = [Answered(metric=metric, status=200) for metric in ("Accepted", "Duplicate")]
    answers += [Answered(metric="Failed", status=500, code="internal_error")]
    for kind in refusals():
        metric = "Failed" if issubclass(kind, Unavailable) else "Refused"
        answers.append(Answered(metric=metric, status=kind.status, code=kind.code))
    with redirect_stdout(StringIO()) as printed:
        for answered in answers:
            for call_type in (*CALL_TYPES, "other"):
                line = RequestLine("r-1", service="<AWS::StackName>", version="7")
                line.note(call_type=call_type)
                line.write(answered)
    for line in map(json.loads, printed.getvalue().splitlines()):
        [directive] = line["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]:
            for dimensions in directive["Dimensions"]:
                yield directive["Namespace"], metric["Name"], {name: line[name] for name in dimensions}


REQUEST_METRICS = list(emitted_by_requests())
SERVICE = {"service": "<AWS::StackName>"}
CONSUMER_METRICS = [
    ("DirectDestination", name, SERVICE)
    for path in (ROOT / "consumer").rglob("*.py")
    for name in re.findall(r'add_metric\((?:name=)?"(\w+)"', path.read_text())
]
FILTER_METRICS = [
    (text_of(transformation["MetricNamespace"]), transformation["MetricName"], {})
    for properties in FILTERS.values()
    for transformation in properties["MetricTransformations"]
]
EMITTED_BY_US = [*REQUEST_METRICS, *CONSUMER_METRICS, *FILTER_METRICS]


# Watched metrics are emitted


@pytest.mark.parametrize("metric", [pytest.param(metric, id=name) for name, metric in WATCHED.items()])
def test_watched_metric_is_emitted_with_these_dimensions(metric):
    if metric.namespace.startswith("AWS/"):
        assert frozenset(metric.dimensions) in EMITTED_BY_AWS[metric.namespace, metric.name]
    else:
        assert (metric.namespace, metric.name, metric.dimensions) in EMITTED_BY_US


KINDS = {
    "ApiId": ("AWS::Serverless::HttpApi", r"<(\w+)>"),
    "FunctionName": ("AWS::Serverless::Function", r"<(\w+)>"),
    "TableName": ("AWS::DynamoDB::Table", r"<(\w+)>"),
    "QueueName": ("AWS::SQS::Queue", r"<(\w+)\.QueueName>"),
}
"""Dimension -> the resource type that it names, and the form of the name."""


@pytest.mark.parametrize("metric", [pytest.param(metric, id=name) for name, metric in WATCHED.items()])
def test_dimension_names_a_resource_of_its_type(metric):
    for dimension in KINDS.keys() & metric.dimensions.keys():
        kind, spelling = KINDS[dimension]
        named = re.fullmatch(spelling, metric.dimensions[dimension])
        assert RESOURCES[named[1]]["Type"] == kind


@pytest.mark.parametrize(
    "metric", [pytest.param(metric, id=name) for name, metric in WATCHED.items() if "Operation" in metric.dimensions]
)
def test_watched_table_operations_are_permitted_to_a_function(metric):
    [table] = references(metric.dimensions["TableName"])
    policies = str([role["Properties"]["Policies"] for role in of_type("AWS::IAM::Role").values()])
    statements = re.findall(r"\{'Sid'.*?'Arn'\]\}\}", policies)
    granting = [statement for statement in statements if f"'{table}', 'Arn'" in statement]
    assert any(f"dynamodb:{metric.dimensions['Operation']}'" in statement for statement in granting)


def test_watched_route_emits_detailed_metrics():
    watched = {
        (metric.dimensions["Method"], metric.dimensions["Resource"])
        for metric in WATCHED.values()
        if metric.dimensions.keys() >= ROUTE
    }
    assert watched == {("POST", "/segment")}
    assert RESOURCES["Api"]["Properties"]["DefaultRouteSettings"]["DetailedMetricsEnabled"] is True
    stages = {metric.dimensions["Stage"] for metric in WATCHED.values() if "Stage" in metric.dimensions}
    assert stages == {"$default"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_names_its_stack_in_its_metrics(name):
    assert text_of(FUNCTIONS[name]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]) == "<AWS::StackName>"


# What the log filters count


def matches(pattern, facts):
    """Return whether a filter pattern matches a JSON line.

    Supports comparisons with texts, `&&`, `||` and parentheses.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
    """

    def compare(field, sign, text):
        is_equal = field in facts and fnmatch.fnmatchcase(str(facts[field]), text)
        return str(is_equal == (sign == "="))

    compared = re.sub(
        r'\$\.(\w+) (=|!=) "([^"]*)"', lambda found: compare(*found.groups()), pattern.strip().strip("{}").strip()
    )
    words = compared.replace("&&", "and").replace("||", "or")
    assert re.fullmatch(r"(True|False|and|or|[() ])+", words), pattern
    return eval(words)  # noqa: S307 -- of the words above


def counted(log_group, line):
    """Return the values that the filters of a log take from a line: metric name -> value."""
    facts = json.loads(line)
    values = {}
    for properties in FILTERS.values():
        if text_of(properties["LogGroupName"]) == log_group:
            [transformation] = properties["MetricTransformations"]
            pattern = text_of(properties["FilterPattern"])
            if matches(pattern, facts):
                value = transformation["MetricValue"]
                values[transformation["MetricName"]] = facts[value[2:]] if value.startswith("$.") else int(value)
    return values


NEW_VERSION = "<DestinationFunction.Version.Version>"


def answered_by(version, answered):
    """Return the log line of a request that was answered by a version."""
    with redirect_stdout(StringIO()) as printed:
        RequestLine("r-1", service="stack", version=version).write(answered)
    return printed.getvalue()


@pytest.mark.parametrize(("version", "which"), [(NEW_VERSION, "New"), ("6", "Old"), ("$LATEST", "Old")])
@pytest.mark.parametrize(
    ("answered", "counts"),
    [
        (Answered(metric="Accepted", status=200), "Accepted"),
        (Answered(metric="Duplicate", status=200), "Accepted"),
        (Answered(metric="Refused", status=400, code="invalid_message"), "Refused"),
        (Answered(metric="Refused", status=401, code="unknown_key"), "Refused"),
        (Answered(metric="Refused", status=501, code="unsupported_call_type"), "Refused"),
        (Answered(metric="Failed", status=503, code="deadline_close"), None),
    ],
)
def test_request_counts_for_the_version_that_answered_it(version, which, answered, counts):
    line = answered_by(version, answered)
    assert counted("<DestinationLogGroup>", line) == ({f"{which}Version{counts}": 1} if counts else {})


def test_batch_counts_as_one_request_of_its_version():
    line = RequestLine("r-1", service="stack", version=NEW_VERSION)
    line.note(messages=2500)
    with redirect_stdout(StringIO()) as printed:
        line.write_messages(Answered(metric="Accepted", status=200), "track", ["m"] * 500)
        line.write_messages(Answered(metric="Refused", status=200, code="invalid_message"), "track", ["m"] * 2000)
    sums = Counter()
    for written in printed.getvalue().splitlines():
        sums.update(counted("<DestinationLogGroup>", written))
    assert sums == {"NewVersionAccepted": pytest.approx(0.2), "NewVersionRefused": pytest.approx(0.8)}


def test_health_checks_count_for_no_version():
    with redirect_stdout(StringIO()) as printed:
        write_health("key_store_unavailable")
    assert counted("<DestinationLogGroup>", printed.getvalue()) == {}


@pytest.mark.parametrize(
    ("status", "route", "counts"),
    [
        (200, "POST /segment", {"Requests"}),
        (401, "POST /segment", {"Requests", "Unauthorized"}),
        (429, "POST /segment", {"Requests", "Throttled"}),
        (501, "POST /segment", {"Requests"}),
        (503, "POST /v1/batch", {"Requests", "ServerErrors"}),
        (404, "-", {"Requests"}),
        (503, "GET /health", set()),
        (429, "GET /health", set()),
    ],
)
def test_answer_counts_in_the_metrics_of_its_status(status, route, counts):
    line = access_line(status, routeKey=route)
    assert counted("<ApiLogGroup>", line) == dict.fromkeys(counts, 1)


def test_access_log_has_no_field_that_a_quote_could_break():
    """API Gateway puts values between the quotes of the format, and may not escape them."""
    free_text = {"Message", "error", "path", "userAgent", "domainName", "claims", "queryString", "header"}
    for variable in json.loads(RESOURCES["Api"]["Properties"]["AccessLogSettings"]["Format"]).values():
        assert not [word for word in free_text if word in variable]


# Each alarm


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_notifies_the_topic_when_it_starts_and_ends(name):
    told = {"Fn::If": ["AlarmsAreSent", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert ALARMS[name]["AlarmActions"] == ALARMS[name]["OKActions"] == told


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_describes_the_problem_and_links_to_its_section(name):
    assert re.fullmatch(rf"[A-Z].*[^.]\. docs/reference/alarms\.md#{name.lower()}", ALARMS[name]["AlarmDescription"])


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_is_silent_without_requests(name):
    keeps_its_state = name == "ErasuresMissingAlarm"
    assert ALARMS[name]["TreatMissingData"] == ("ignore" if keeps_its_state else "notBreaching")
    assert ALARMS[name]["ComparisonOperator"] == "GreaterThanThreshold"


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_has_the_condition_of_the_resource_that_it_watches(name):
    named = {resource for metric in metrics_of_alarm(ALARMS[name]) for resource in references(str(metric))}
    conditions = {RESOURCES[resource].get("Condition") for resource in named & RESOURCES.keys()}
    assert conditions - {None} <= {RESOURCES[name].get("Condition")}


@pytest.mark.parametrize("name", [name for name, alarm in ALARMS.items() if "Metrics" in alarm])
def test_alarm_expression_can_be_evaluated(name):
    [expression, *rest] = ALARMS[name]["Metrics"]
    stats = [query["MetricStat"] for query in rest]
    ids = {query["Id"] for query in rest}
    assert "ReturnData" not in expression
    assert all(query["ReturnData"] is False for query in rest)
    words = set(re.findall(r"[a-z]\w*", expression["Expression"]))
    assert words == ids
    # A metric without data in a period must not make the whole expression missing. Only a divisor may do so.
    assert set(re.findall(r"(?<!FILL\()\b[a-z]\w*", expression["Expression"])) <= {"requests"}
    assert all(re.fullmatch(r"[a-z]\w*", word) for word in {expression["Id"], *ids})
    assert len(ids) == len(rest) <= MAX_METRICS_OF_AN_ALARM
    assert len({stat["Period"] for stat in stats}) == 1
    assert all(stat["Stat"] == "Sum" for stat in stats)


@pytest.mark.parametrize("name", ALARMS)
def test_alarm_evaluates_at_most_one_day(name):
    alarm = ALARMS[name]
    period = alarm["Period"] if "Period" in alarm else alarm["Metrics"][1]["MetricStat"]["Period"]
    assert period % 60 == 0
    assert alarm["EvaluationPeriods"] * period <= DAY_SECONDS
    assert 1 <= alarm.get("DatapointsToAlarm", 1) <= alarm["EvaluationPeriods"]


def test_cloudwatch_accepts_alarms_filters_and_dashboard(aws):
    assert aws
    cloudwatch = boto3.client("cloudwatch")
    for name, alarm in ALARMS.items():
        properties = {key: value for key, value in alarm.items() if not key.endswith("Actions")}
        cloudwatch.put_metric_alarm(AlarmName=name, **resolved(properties))
    taken = cloudwatch.describe_alarms()["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in taken} == set(ALARMS)
    cloudwatch.put_dashboard(DashboardName="dashboard", DashboardBody=json.dumps(BODY))
    logs = boto3.client("logs")
    logs.create_log_group(logGroupName="access")
    for name, properties in FILTERS.items():
        transformations = [
            {key[0].lower() + key[1:]: re.sub("[<>:]", "", text_of(value)) for key, value in transformation.items()}
            for transformation in properties["MetricTransformations"]
        ]
        logs.put_metric_filter(
            logGroupName="access",
            filterName=name,
            filterPattern=re.sub("[<>]", "", text_of(properties["FilterPattern"])),
            metricTransformations=transformations,
        )


def resolved(value):
    """Return a value of the template with its references as texts."""
    match value:
        case {"Ref": _} | {"Fn::GetAtt": _} | {"Fn::Sub": _}:
            return text_of(value)
        case dict():
            return {name: resolved(part) for name, part in value.items()}
        case list():
            return [resolved(part) for part in value]
    return value


# When alarms go off

IDLE = {}


class Series:
    """Values of a metric by period, `None` where there is no value, with the arithmetic of CloudWatch.

    A division by 0 gives no value. AWS's pages disagree about an operation if only one side has a value.
    `missing_is_zero` chooses the reading, and no alarm may depend on it.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
    """

    missing_is_zero = False

    def __init__(self, values):
        self.values = list(values)

    def _with(self, other, operation):
        others = other.values if isinstance(other, Series) else [other] * len(self.values)
        return type(self)(self._one(*pair, operation) for pair in zip(self.values, others, strict=True))

    def _one(self, one, other, operation):
        if (one is None or other is None) and (not self.missing_is_zero or one is other):
            return None
        try:
            return operation(one or 0, other or 0)
        except ZeroDivisionError:
            return None

    def __add__(self, other):
        return self._with(other, operator.add)

    def __sub__(self, other):
        return self._with(other, operator.sub)

    def __mul__(self, other):
        return self._with(other, operator.mul)

    __rmul__ = __mul__

    def __truediv__(self, other):
        return self._with(other, operator.truediv)

    def __gt__(self, other):
        return self._with(other, operator.gt)


class SeriesOfZeros(Series):
    """The other reading of AWS's pages."""

    missing_is_zero = True


def fill(series, value):
    """Do what FILL does. REPEAT repeats the previous value; leading gaps stay empty."""
    filled, before = [], None
    for number in series.values:
        before = number if number is not None else before
        filled.append(before if value == "REPEAT" else value if number is None else number)
    return type(series)(filled)


def choose(condition, met, otherwise):
    """Do what IF does, with a number as the alternative. A missing condition gives no value."""
    pairs = zip(condition.values, met.values, strict=True)
    return type(condition)(None if is_met is None else value if is_met else otherwise for is_met, value in pairs)


def evaluated(name, values, kind):
    """Evaluate the expression of an alarm.

    `values` has a list by period for each metric, or one value for one period.
    """
    expression, *metrics = ALARMS[name]["Metrics"]
    given = {key: value if isinstance(value, list) else [value] for key, value in values.items()}
    periods = max(map(len, given.values()), default=1)
    names = {query["Id"]: kind(given.get(query["Id"], [None] * periods)) for query in metrics}
    functions = {"IF": choose, "FILL": fill, "REPEAT": "REPEAT", "TIME_SERIES": lambda value: kind([value] * periods)}
    scope = names | functions | {"__builtins__": {}}
    return eval(expression["Expression"], scope).values  # noqa: S307 -- ours, of the template


def is_breaching(name, values, kind):
    """Return for each period whether the value is above the threshold, or None without data."""
    threshold = ALARMS[name]["Threshold"]
    return [None if value is None else value > threshold for value in evaluated(name, values, kind)]


READINGS = pytest.mark.parametrize("kind", [Series, SeriesOfZeros], ids=["missing", "zero"])


@pytest.mark.parametrize(
    ("name", "values", "goes_off"),
    [
        ("ServerErrorsAlarm", IDLE, False),
        ("ServerErrorsAlarm", {"requests": 100}, False),
        ("ServerErrorsAlarm", {"errors": 1, "requests": 100}, False),
        ("ServerErrorsAlarm", {"errors": 2, "requests": 100}, True),
        # A rollout sends a tenth of the requests to a new version that answers nothing correctly.
        ("ServerErrorsAlarm", {"errors": 10, "requests": 100}, True),
        # A rollout that switches maintenance on, or off, must finish.
        ("ServerErrorsAlarm", {"errors": 10, "requests": 100, "maintenance": 10}, False),
        ("ServerErrorsAlarm", {"errors": 90, "requests": 100, "maintenance": 90}, False),
        # Maintenance must not hide a new version that can't reach its stores.
        ("ServerErrorsAlarm", {"errors": 100, "requests": 100, "maintenance": 90}, True),
        # A bug with one message of a batch is not an error of the invocation.
        ("FunctionErrorsAlarm", IDLE, False),
        ("FunctionErrorsAlarm", {"errors": 1}, True),
        ("FunctionErrorsAlarm", {"bugs": 1}, True),
        ("NewVersionRefusesAlarm", IDLE, False),
        # There is no other version to compare with: after a rollout, or with an all-at-once deployment.
        ("NewVersionRefusesAlarm", {"new_refused": 1000}, False),
        ("NewVersionRefusesAlarm", {"old_accepted": 1000}, False),
        ("NewVersionRefusesAlarm", {"new_accepted": 100, "old_accepted": 900}, False),
        # A new version that refuses all messages, or most of them.
        ("NewVersionRefusesAlarm", {"new_refused": 10, "old_accepted": 90}, False),
        ("NewVersionRefusesAlarm", {"new_refused": 11, "old_accepted": 90}, True),
        ("NewVersionRefusesAlarm", {"new_accepted": 45, "new_refused": 55, "old_accepted": 900}, False),
        ("NewVersionRefusesAlarm", {"new_accepted": 44, "new_refused": 56, "old_accepted": 900}, True),
        # The same while strangers send many requests without a key, which reach both versions.
        ("NewVersionRefusesAlarm", {"new_refused": 520, "old_accepted": 180, "old_refused": 4500}, True),
        (
            "NewVersionRefusesAlarm",
            {"new_accepted": 20, "new_refused": 500, "old_accepted": 180, "old_refused": 4500},
            False,
        ),
        # Only strangers send requests.
        ("NewVersionRefusesAlarm", {"new_refused": 500, "old_refused": 4500}, False),
        # A partner that supports one call type, while customers send all.
        (
            "NewVersionRefusesAlarm",
            {"new_accepted": 20, "new_refused": 80, "old_accepted": 180, "old_refused": 720},
            False,
        ),
        ("NewVersionRefusesAlarm", {"new_refused": 100, "old_accepted": 180, "old_refused": 720}, True),
        # A new version that accepts messages that the old version refused.
        ("NewVersionRefusesAlarm", {"new_accepted": 100, "old_refused": 900}, False),
        ("HalfFailingAlarm", IDLE, False),
        ("HalfFailingAlarm", {"refused": 25, "failed": 25, "requests": 100}, False),
        ("HalfFailingAlarm", {"refused": 26, "failed": 25, "requests": 100}, True),
        ("HalfFailingAlarm", {"failed": 3, "requests": 3}, True),
        ("HalfFailingAlarm", {"refused": 3, "requests": 3}, True),
        ("TableThrottlesAlarm", IDLE, False),
        ("TableThrottlesAlarm", {"keys": 1}, True),
        ("TableThrottlesAlarm", {"events": 1, "rejects": 1, "tombstones": 1}, True),
        ("RejectsAlarm", IDLE, False),
        ("RejectsAlarm", {"accepted": 1000}, False),
        ("RejectsAlarm", {"settings": 21, "refused": 21}, True),
        ("RejectsAlarm", {"messages": 20, "refused": 20}, False),
        ("RejectsAlarm", {"messages": 21, "refused": 21}, True),
        ("RejectsAlarm", {"messages": 50, "settings": 50, "refused": 100, "accepted": 800, "duplicate": 100}, False),
        ("RejectsAlarm", {"messages": 51, "settings": 50, "refused": 101, "accepted": 800, "duplicate": 99}, True),
        *(
            (name, values, goes_off)
            for name in ("EraserFailingAlarm", "StreamConsumerFailingAlarm", "QueueConsumerFailingAlarm")
            for values, goes_off in [
                (IDLE, False),
                ({"errors": 0}, False),
                ({"errors": 1}, True),
                ({"throttles": 1}, True),
            ]
        ),
    ],
)
@READINGS
def test_alarm_goes_off_only_for_these_values(name, values, goes_off, kind):
    assert values.keys() <= {query["Id"] for query in ALARMS[name]["Metrics"]}
    [is_beyond] = is_breaching(name, values, kind)
    assert bool(is_beyond) is goes_off


@READINGS
@pytest.mark.parametrize(
    ("deletes", "erased", "breaching"),
    [
        # There was never anything to erase.
        ([None, None, None], [None, None, None], [None, None, None]),
        # Every delete is carried out.
        ([3, None, 5], [3, None, 5], [False, False, False]),
        # The eraser stops. Periods without deletes change nothing.
        ([4, 1, None], [4, None, None], [False, True, True]),
        ([4, 1, 7], [4, None, 2], [False, True, True]),
        # A delete at the end of a period is carried out in the next one.
        ([1, None, None], [None, 1, None], [True, False, False]),
        # A burst takes longer.
        ([5000, None, None], [1000, 2500, 1500], [True, False, False]),
        # The eraser is repaired.
        ([1, None, None], [None, None, 1], [True, True, False]),
        # There are more erasures than deletes, because somebody resumed erasures.
        ([None, 1], [6, 1], [False, False]),
    ],
)
def test_accepted_deletes_are_compared_with_finished_erasures(deletes, erased, breaching, kind):
    assert is_breaching("ErasuresMissingAlarm", {"deletes": deletes, "erased": erased}, kind) == breaching


def test_missing_erasures_are_reported_while_the_stream_has_the_deletes():
    alarm = ALARMS["ErasuresMissingAlarm"]
    hours = alarm["EvaluationPeriods"] * alarm["Metrics"][1]["MetricStat"]["Period"] / 3600
    assert alarm["EvaluationPeriods"] > 1
    assert hours <= STREAM_HOURS / 2


def rollout(chance, *, customers, strangers, share, refuses=0.0):
    """Yield for each minute of a gradual rollout what the versions count.

    Numbers of requests are per minute.

    Lambda sends each request to the new version with the probability `share`. That version refuses `refuses` of the
    requests that the old one accepts.
    """

    def count(requests, likely):
        """Draw how many of `many` are likely. Large numbers use the normal distribution."""
        if requests > 2000:
            return max(0, round(chance.gauss(requests * likely, (requests * likely * (1 - likely)) ** 0.5)))
        return sum(chance.random() < likely for _ in range(requests))

    for _ in range(10):
        of_customers, of_strangers = count(customers, share), count(strangers, share)
        refused = count(of_customers, refuses)
        yield {
            "new_accepted": of_customers - refused or None,
            "new_refused": of_strangers + refused or None,
            "old_accepted": customers - of_customers or None,
            "old_refused": strangers - of_strangers or None,
        }


def stops(minutes):
    """Return whether the alarm goes off: with two of three minutes above its threshold."""
    breaching = [bool(is_breaching("NewVersionRefusesAlarm", values, Series)[0]) for values in minutes]
    alarm = ALARMS["NewVersionRefusesAlarm"]
    within = alarm["EvaluationPeriods"]
    windows = [breaching[begin : begin + within] for begin in range(len(breaching) - within + 1)]
    return any(sum(window) >= alarm["DatapointsToAlarm"] for window in windows)


@pytest.mark.many_examples
@pytest.mark.parametrize(
    ("strangers", "customers"), some(list(product([0, 5, 60, 300, 1500, 60_000], [0, 5, 60, 120, 600])))
)
def test_requests_without_a_key_stop_no_rollout(customers, strangers):
    chance = Random(f"{customers} {strangers}")  # noqa: S311 -- the same traffic in each run
    for share in (0.1, 0.5):
        for _ in range(20):
            assert not stops(rollout(chance, customers=customers, strangers=strangers, share=share))


@pytest.mark.parametrize("strangers", [0, 300, 60_000])
@pytest.mark.parametrize(("customers", "refuses"), [(200, 1.0), (1200, 0.8)])
def test_wrongly_refusing_version_is_stopped_despite_strangers(customers, refuses, strangers):
    chance = Random(f"{customers} {strangers}")  # noqa: S311 -- the same traffic in each run
    for _ in range(20):
        assert stops(rollout(chance, customers=customers, strangers=strangers, share=0.1, refuses=refuses))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_errors_and_throttles_are_watched(function):
    watched = {
        metric.name: alarm
        for alarm in ALARMS.values()
        for metric in metrics_of_alarm(alarm)
        if metric.dimensions == {"FunctionName": f"<{function}>"}
    }
    for name in ("Errors", "Throttles"):
        assert watched[name]["Threshold"] == 0
        assert watched[name]["TreatMissingData"] == "notBreaching"


def test_throttling_of_every_call_before_an_answer_is_watched():
    called = {
        (text_of(statement["Resource"]), action.removeprefix("dynamodb:"))
        for statement in RESOURCES["DestinationRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        if action.startswith("dynamodb:")
    }
    watched = [metric.dimensions for metric in metrics_of_alarm(ALARMS["TableThrottlesAlarm"])]
    assert called == {(f"{of['TableName'][:-1]}.Arn>", of["Operation"]) for of in watched}


def test_table_alarm_always_has_data():
    """CloudWatch keeps the state of an alarm on a DynamoDB metric while data is missing, regardless of the alarm's
    settings.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    """
    on_tables = [
        name for name, alarm in ALARMS.items() if any(of.namespace == "AWS/DynamoDB" for of in metrics_of_alarm(alarm))
    ]
    assert on_tables
    for name in on_tables:
        assert evaluated(name, IDLE, Series) == evaluated(name, IDLE, SeriesOfZeros) == [0]


def test_surge_of_rejects_counts_schema_refusals():
    codes = {metric.dimensions.get("Code") for metric in metrics_of_alarm(ALARMS["RejectsAlarm"])}
    assert codes - {None} == {kind.code for kind in refusals(Invalid)}


def test_rollback_alarms_are_unconditional_and_fast():
    alarms = FUNCTIONS["DestinationFunction"]["DeploymentPreference"]["Alarms"]["Fn::If"][1]
    assert [alarm["Ref"] for alarm in alarms] == ["ServerErrorsAlarm", "FunctionErrorsAlarm", "NewVersionRefusesAlarm"]
    for alarm in (ALARMS[alarm["Ref"]] for alarm in alarms):
        period = alarm["Period"] if "Period" in alarm else alarm["Metrics"][1]["MetricStat"]["Period"]
        assert alarm["DatapointsToAlarm"] * period <= 120
        assert "Condition" not in alarm


def test_slow_answers_threshold_is_between_two_store_calls_and_segments_limit():
    slow = ALARMS["SlowAnswersAlarm"]
    assert slow["ExtendedStatistic"] == "p99"
    assert 2 * STORE_CALL_SECONDS * 1000 <= slow["Threshold"] < SEGMENT_GIVES_UP_MILLISECONDS


def test_long_maintenance_is_reported_before_messages_are_lost():
    alarm = ALARMS["MaintenanceAlarm"]
    assert alarm["Period"] * alarm["EvaluationPeriods"] <= SEGMENT_RETRIES_HOURS * 3600 / 2


@pytest.mark.parametrize("queue", [name for name in of_type("AWS::SQS::Queue") if "DeadLetter" in name])
def test_every_dead_letter_queue_is_watched(queue):
    named = {"QueueName": f"<{queue}.QueueName>"}
    alarms = [alarm for alarm in ALARMS.values() if [of.dimensions for of in metrics_of_alarm(alarm)] == [named]]
    [alarm] = alarms
    assert (alarm["MetricName"], alarm["Threshold"]) == ("ApproximateNumberOfMessagesVisible", 0)


@pytest.mark.parametrize("queue", [name for name in of_type("AWS::SQS::Queue") if "DeadLetter" not in name])
def test_old_messages_are_reported_long_before_they_expire(queue):
    named = {"QueueName": f"<{queue}.QueueName>"}
    [alarm] = [alarm for alarm in ALARMS.values() if [of.dimensions for of in metrics_of_alarm(alarm)] == [named]]
    assert alarm["MetricName"] == "ApproximateAgeOfOldestMessage"
    assert alarm["Threshold"] < RESOURCES[queue]["Properties"]["MessageRetentionPeriod"] / 10


@pytest.mark.parametrize(
    "queue", [name for name, queue in of_type("AWS::SQS::Queue").items() if "RedrivePolicy" in queue["Properties"]]
)
def test_dead_letter_is_kept_for_at_least_a_week(queue):
    """A message that moves from a standard queue keeps its age.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    """
    properties = RESOURCES[queue]["Properties"]
    dead_letters = RESOURCES[properties["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]]["Properties"]
    assert dead_letters["MessageRetentionPeriod"] - properties["MessageRetentionPeriod"] >= 7 * DAY_SECONDS


def test_texts_name_the_retention_of_a_queue():
    days = {
        RESOURCES[queue]["Properties"]["MessageRetentionPeriod"] / DAY_SECONDS
        for queue in ("EventQueue", "EventFifoQueue")
    }
    [told] = {
        re.search(r"after (\d+) days it is gone", ALARMS[name]["AlarmDescription"])[1]
        for name in ("QueueAgeAlarm", "FifoQueueAgeAlarm")
    }
    assert days == {int(told)}
    assert f"a queue is not read | messages, after {told} days |" in RUNBOOK


@pytest.mark.parametrize("function", ["EraserFunction", "StreamConsumerFunction"])
def test_slow_stream_readers_are_watched(function):
    named = {"FunctionName": f"<{function}>"}
    [alarm] = [alarm for alarm in ALARMS.values() if [of.dimensions for of in metrics_of_alarm(alarm)] == [named]]
    assert (alarm["MetricName"], alarm["Threshold"] < STREAM_HOURS * 3_600_000) == ("IteratorAge", True)


# The dashboard


def test_dashboard_names_only_existing_resources():
    named = set(references(json.dumps(BODY))) - {"restored"}
    pseudo = {"AWS::StackName", "AWS::Region"}
    assert named - pseudo <= RESOURCES.keys()
    unconditional = set(references(text_of({"Fn::Sub": DASHBOARD["Properties"]["DashboardBody"]["Fn::Sub"][0]})))
    variables = DASHBOARD["Properties"]["DashboardBody"]["Fn::Sub"][1].keys()
    assert not [name for name in unconditional & RESOURCES.keys() if "Condition" in RESOURCES[name]]
    assert variables <= unconditional


def test_conditional_parts_of_the_dashboard_have_that_condition():
    for variable in DASHBOARD["Properties"]["DashboardBody"]["Fn::Sub"][1].values():
        condition, shown, _ = variable["Fn::If"]
        assert {RESOURCES[name]["Condition"] for name in references(text_of(shown))} == {condition}


@pytest.mark.parametrize("title", WIDGETS)
def test_widget_is_complete_and_within_the_columns(title):
    widget = WIDGETS[title]
    needed = {"metric": {"metrics", "region"}, "log": {"query", "region"}, "alarm": {"alarms"}, "text": {"markdown"}}
    assert widget.keys() == {"type", "x", "y", "width", "height", "properties"}
    assert needed[widget["type"]] <= widget["properties"].keys()
    assert widget["properties"].get("region", "<AWS::Region>") == "<AWS::Region>"
    assert 0 <= widget["x"] < widget["x"] + widget["width"] <= COLUMNS
    assert widget["y"] >= 0
    assert widget["height"] > 0


def test_widget_titles_are_unique():
    assert len(WIDGETS) == len(BODY["widgets"])


def test_widgets_do_not_overlap():
    def is_apart(one, other):
        return (
            one["x"] + one["width"] <= other["x"]
            or other["x"] + other["width"] <= one["x"]
            or one["y"] + one["height"] <= other["y"]
            or other["y"] + other["height"] <= one["y"]
        )

    assert all(is_apart(one, other) for one, other in combinations(BODY["widgets"], 2))


@pytest.mark.parametrize("title", GRAPHS)
def test_graph_has_a_statistic_and_a_period_in_minutes(title):
    graph = GRAPHS[title]
    for row, options in rows_of(graph):
        if row:
            assert "stat" in options or "stat" in graph
            assert graph["period"] % 60 == 0


@pytest.mark.parametrize("title", GRAPHS)
def test_graph_expressions_name_existing_rows(title):
    rows = list(rows_of(GRAPHS[title]))
    ids = [options["id"] for _, options in rows if "id" in options]
    assert len(ids) == len(set(ids))
    for row, options in rows:
        assert bool(row) != ("expression" in options)
        if "expression" in options and "SEARCH" not in options["expression"]:
            named = set(re.findall(r"\b[a-z]\w*", options["expression"]))
            assert named <= set(ids) - {options["id"]}


SEARCHES = [
    options["expression"]
    for graph in GRAPHS.values()
    for _, options in rows_of(graph)
    if "SEARCH" in options.get("expression", "")
]


@pytest.mark.parametrize("search", SEARCHES)
def test_search_expression_finds_request_metrics(search):
    [(namespace, dimensions, metric, service, period)] = re.findall(
        r"""^SEARCH\('\{(\w+),([\w,]+)\} MetricName="(\w+)" service="([^"]+)"', 'Sum', (\d+)\)$""", search
    )
    found = [
        told
        for emitted, name, told in REQUEST_METRICS
        if (emitted, name, told.keys(), told["service"]) == (namespace, metric, set(dimensions.split(",")), service)
    ]
    assert found
    assert int(period) % 60 == 0
    assert len(search) < MAX_SEARCH_CHARS / 2


def test_found_metrics_are_labelled_by_their_dimension():
    labelled = {
        (re.search(r",service,(\w+)\}", options["expression"])[1], options["label"])
        for graph in GRAPHS.values()
        for _, options in rows_of(graph)
        if "SEARCH" in options.get("expression", "")
    }
    assert labelled == {(dimension, f"${{PROP('Dim.{dimension}')}}") for dimension in ("Code", "CallType")}


def test_dashboard_has_every_alarm():
    shown = [name for alarm in WIDGETS["Alarms"]["properties"]["alarms"] for name in references(alarm)]
    assert not set(ALARMS) - set(shown), "The widget Alarms of the dashboard in template.yaml must have each alarm"
    assert sorted(shown) == sorted(ALARMS)


def test_graph_line_is_the_threshold_of_its_alarm():
    lines = [line for graph in GRAPHS.values() for line in graph.get("annotations", {}).get("horizontal", [])]
    named = [(name, line["value"]) for line in lines for name in line["label"].split(", ") if name in ALARMS]
    assert len(named) > 3
    assert named == [(name, ALARMS[name]["Threshold"]) for name, _ in named]


def test_cold_starts_are_read_from_a_plain_text_log():
    query = WIDGETS["Cold starts in five minutes, and the longest"]["properties"]["query"]
    assert query.startswith("SOURCE '<DestinationLogGroup>' | filter @type = 'REPORT'")
    assert FUNCTIONS["DestinationFunction"]["LoggingConfig"] == {"LogGroup": {"Ref": "DestinationLogGroup"}}


# The runbook


def section(name):
    return RUNBOOK.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_alarms_and_sections_correspond():
    sections = re.findall(r"^## (\w+Alarm)$", RUNBOOK, re.MULTILINE)
    assert not set(ALARMS) - set(sections), "docs/reference/alarms.md needs a section for each alarm"
    assert sorted(sections) == sorted(ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_each_section_has_the_four_parts(name):
    told = section(name)
    if told.startswith("\nAs ["):
        assert re.match(r"\nAs \[(\w+)\]", told)[1] in ALARMS
    else:
        parts = ["Means", "Segment meanwhile", "Do", "Over", "Why"]
        assert re.findall(r"^\*\*(Means|Segment meanwhile|Do|Over|Why)\b", told, re.MULTILINE) == parts


def test_first_table_links_to_every_alarm():
    table = RUNBOOK.split("\n## ")[0]
    linked = re.findall(r"\[(\w+Alarm)\]", table)
    assert not set(ALARMS) - set(linked), "The first table of docs/reference/alarms.md needs a link to each alarm"
    assert sorted(linked) == sorted(ALARMS)


def test_anchors_within_the_runbook_exist():
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", RUNBOOK)) <= headings


def test_graphs_named_in_the_runbook_are_on_the_dashboard():
    labels = [options.get("label", "") for graph in GRAPHS.values() for _, options in rows_of(graph)]
    quoted = set(re.findall(r'"([^"\n]+)"', re.sub(r"```.*?```|`[^`]*`", "", RUNBOOK, flags=re.DOTALL)))
    shown = [*WIDGETS, *labels]
    assert quoted
    assert not [name for name in quoted if not any(title.endswith(name) or title.startswith(name) for title in shown)]


def test_codes_named_in_the_runbook_exist():
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", RUNBOOK)) - {"consumer_failed", "erasure_failed"}
    assert named <= {kind.code for kind in refusals()} | {"internal_error"}
    table = section("ServerErrorsAlarm")
    assert {kind.code for kind in refusals(Unavailable)} - {"maintenance"} <= set(re.findall(r"`(\w+)`", table))


COMMANDS = dict(commands())


@pytest.mark.parametrize("called", sorted(set(re.findall(r"(?:^|`)(destination [a-z][^`\n]*)", RUNBOOK, re.MULTILINE))))
def test_commands_in_the_runbook_exist_with_their_options(called):
    [name] = [name for name in COMMANDS if called == name or called.startswith(f"{name} ")]
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert set(re.findall(r"--[a-z-]+", called)) <= options
    assert isinstance(COMMANDS[name], click.Command)


def test_runbook_states_the_cost_of_the_alarms():
    metrics = Counter()
    for name, alarm in ALARMS.items():
        metrics[RESOURCES[name].get("Condition")] += len(list(metrics_of_alarm(alarm)))
    always, stored, consumed = (metrics.pop(condition) for condition in (None, "MessagesAreStored", "ConsumerIsOn"))
    assert not metrics
    more = f"{stored} more with `EventSink=dynamodb`, {consumed} more with `Consumer=on`"
    dollars = f"${always / 10:.2f} to ${(always + stored + consumed) / 10:.2f}"
    row = f"| alarms: {always} metrics at $0.10 each, {more} | {dollars} |"
    assert row in RUNBOOK, f"The table of costs in docs/reference/alarms.md needs the row {row}"
    assert f"metrics from the logs: {len(FILTERS)} at $0.30" in RUNBOOK
