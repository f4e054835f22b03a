"""Differences between ministack and AWS that matter for the stack, each with a reproduction.

`close_all` closes every gap. It reports a gap that ministack has closed, so that this file shrinks with each release of
ministack. docs/how-to/deploy.md lists the open points, which the first deployment on AWS verifies.
"""

import asyncio
import contextlib
import io
import json
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from ministack.core import iam_actions, iam_evaluator, lambda_runtime, responses
from ministack.services import apigateway, cloudwatch, cloudwatch_logs, dynamodb, lambda_svc, sqs
from ministack.services.cloudformation import provisioners

from deployed import stats

HANDLERS: dict[str, dict[str, Any]] = provisioners._RESOURCE_HANDLERS


class Gap(NamedTuple):
    """A difference from AWS: how to see it in an unchanged ministack, and how to close it."""

    name: str
    is_open: Callable[[], bool]
    close: Callable[[], None]


def close_all(python: str) -> list[str]:
    """Close each gap. Return the names of the gaps that ministack itself has closed."""
    with _account("000000000000", "us-east-1"):
        closed = [gap.name for gap in GAPS if not gap.is_open()]
    for gap in GAPS:
        gap.close()
    _run_functions_with(python)
    _limit_processes()
    return closed


# AWS::CodeDeploy::Application and DeploymentGroup: "Unsupported resource type". SAM makes both for each
# DeploymentPreference. Here they are names only: an alias moves at once, and no alarm stops a rollout.

CODEDEPLOY = ("AWS::CodeDeploy::Application", "AWS::CodeDeploy::DeploymentGroup")


def _has_no_codedeploy() -> bool:
    return not any(kind in HANDLERS for kind in CODEDEPLOY)


def _add_codedeploy() -> None:
    def create(logical_id: str, _properties: object, stack: str) -> tuple[str, dict[str, str]]:
        return f"{stack}-{logical_id}", {}

    def update(physical_id: str, *_rest: object) -> tuple[str, dict[str, str]]:
        return physical_id, {}

    for kind in CODEDEPLOY:
        HANDLERS[kind] = {"create": create, "update": update, "delete": lambda *_: None}


# AWS::CloudWatch::Alarm with Metrics: "metric math is not supported". Here it is stored and never evaluated.
# tests/test_watched.py evaluates the expressions of the template.

MATH = {"MetricName": "metric-math", "Namespace": "not-evaluated", "Period": 60}


def _refuses_metric_math() -> bool:
    alarm = {"Metrics": [{"Id": "a", "Expression": "1"}], "ComparisonOperator": "GreaterThanThreshold", "Threshold": 1}
    try:
        provisioners._cw_metric_alarm_record("probe", alarm)
    except ValueError as error:
        return "metric math" in str(error)
    return False


def _store_metric_math() -> None:
    original = provisioners._cw_metric_alarm_record

    def record(name: str, properties: dict[str, Any]) -> dict[str, Any]:
        if properties.get("Metrics"):
            properties = {key: value for key, value in properties.items() if key != "Metrics"} | MATH
        return original(name, properties)

    provisioners._cw_metric_alarm_record = record


# AWS::ApiGatewayV2::Api with Body: accepted, and no route is made. SAM writes all routes of an HttpApi there.

PROBE_BODY = {"paths": {"/probe": {"get": {"x-amazon-apigateway-integration": {"uri": "arn:aws:lambda:probe"}}}}}


def _ignores_body() -> bool:
    api, _ = provisioners._apigw_v2_api_create("Probe", {"Body": PROBE_BODY, "Name": "probe"}, "probe")
    has_routes = bool(apigateway._routes.get(api))
    provisioners._apigw_v2_api_delete(api, {})
    return not has_routes


def _import_bodies() -> None:
    handler = HANDLERS["AWS::ApiGatewayV2::Api"]
    create, update = handler["create"], handler["update"]

    def create_with_routes(logical_id: str, properties: dict[str, Any], stack: str) -> tuple[str, dict[str, Any]]:
        api, attributes = create(logical_id, properties, stack)
        _import_body(api, properties["Body"])
        return api, attributes

    def update_with_routes(physical_id: str, old: Any, new: Any, *rest: object) -> tuple[str, dict[str, Any]]:
        api, attributes = update(physical_id, old, new, *rest)
        _import_body(api, new["Body"])
        return api, attributes

    HANDLERS["AWS::ApiGatewayV2::Api"] = {**handler, "create": create_with_routes, "update": update_with_routes}


def _import_body(api: str, body: dict[str, Any]) -> None:
    """Make the routes of an OpenAPI document, in place of the routes of an earlier one."""
    integrations, routes = {}, {}
    for path, methods in body["paths"].items():
        for method, operation in methods.items():
            declared = operation["x-amazon-apigateway-integration"]
            number = f"{len(routes):08x}"
            integrations[number] = {
                "integrationId": number,
                **provisioners._apigw_v2_integration_props(
                    {
                        "IntegrationUri": declared["uri"],
                        "PayloadFormatVersion": declared.get("payloadFormatVersion", "2.0"),
                        "TimeoutInMillis": declared.get("timeoutInMillis", 30000),
                    }
                ),
            }
            route = {"RouteKey": f"{method.upper()} {path}", "Target": f"integrations/{number}"}
            routes[number] = {"routeId": number, **provisioners._apigw_v2_route_props(route)}
    apigateway._integrations[api] = integrations
    apigateway._routes[api] = routes


# A function with an empty variable AWS_ENDPOINT_URL. botocore treats it as unset, as the template intends. ministack
# passes it on and leaves out its own address, so the function would call AWS itself.

SHOW_ENDPOINT = "import os\ndef handler(event, context):\n    return os.environ['AWS_ENDPOINT_URL']\n"


def _passes_empty_endpoint() -> bool:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("probe.py", SHOW_ENDPOINT)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:probe"
    variables = {"AWS_ENDPOINT_URL": ""}
    config = {"FunctionName": "probe", "FunctionArn": arn, "Handler": "probe.handler", "Runtime": "python3.13"}
    worker = lambda_runtime.Worker("probe", {**config, "Environment": {"Variables": variables}}, packed.getvalue())
    try:
        return worker.invoke({}, "probe").get("result") == ""
    finally:
        worker.kill()


def _leave_out_empty_endpoint() -> None:
    class Worker(lambda_runtime.Worker):
        def __init__(self, name: str, config: dict[str, Any], code: bytes) -> None:
            environment = config.get("Environment", {})
            variables = dict(environment.get("Variables", {}))
            if not variables.get("AWS_ENDPOINT_URL"):
                variables.pop("AWS_ENDPOINT_URL", None)
            super().__init__(name, {**config, "Environment": {**environment, "Variables": variables}}, code)

    lambda_runtime.Worker = Worker


# A body that is compressed, or otherwise not UTF-8, with a JSON content type. ministack decodes its bytes as UTF-8 and
# replaces invalid ones. API Gateway passes it on as base64, as the function and destination/local/gateway.py expect
# (docs/how-to/deploy.md: the first point to verify on AWS).

_has_binary_body: ContextVar[bool] = ContextVar("has_binary_body", default=False)


def _garbles_binary_bodies() -> bool:
    events: list[dict[str, Any]] = []

    def execute(_function: object, event: dict[str, Any]) -> dict[str, Any]:
        events.append(event)
        return {"body": {"statusCode": 200}}

    with (
        patch.object(lambda_svc, "_get_func_record_for_ref_in_scope", lambda *_, **__: ({}, {}, "probe")),
        patch.object(lambda_svc, "_execution_record_for_config", lambda *_: {}),
        patch.object(lambda_svc, "_execute_function_with_config_scope", execute),
    ):
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        asyncio.run(apigateway._invoke_lambda_proxy({}, "a", "$default", "/", "POST", headers, b"\x1f\x8b\xff", {}))
    return not events[0]["isBase64Encoded"]


def _encode_binary_bodies() -> None:
    is_text, handle = apigateway._v2_request_body_is_text, apigateway.handle_execute

    def is_plain_text(content_type: str | None) -> bool:
        return not _has_binary_body.get() and is_text(content_type)

    async def handle_body(*args: Any, **named: Any) -> Any:
        _api, _stage, _path, _method, headers, body, *_ = args
        token = _has_binary_body.set(bool(headers.get("content-encoding")) or not _is_utf8(body))
        try:
            return await handle(*args, **named)
        finally:
            _has_binary_body.reset(token)

    apigateway._v2_request_body_is_text = is_plain_text
    apigateway.handle_execute = handle_body


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


# sqs:SendMessageBatch and similar calls are not IAM actions: sqs:SendMessage permits the call
# (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html).


def _asks_for_batch_actions() -> bool:
    headers = {"x-amz-target": "AmazonSQS.SendMessageBatch"}
    action = iam_actions.extract_iam_action("sqs", "POST", "/", headers, b"{}", {})
    return bool(action == "sqs:SendMessageBatch")


def _ask_for_single_actions() -> None:
    original = iam_actions.extract_iam_action

    def extract(service: str, *rest: Any, **named: Any) -> Any:
        action = original(service, *rest, **named)
        return action.removesuffix("Batch") if service == "sqs" and action else action

    iam_actions.extract_iam_action = extract


# ministack reads an event source whatever the role of the function permits. Lambda reads it with that role
# (https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html#events-dynamodb-permissions,
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html#events-sqs-permissions).

SOURCE_ACTIONS = {
    "dynamodb": ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"),
    "sqs": ("sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
}


STRANGER: dict[str, Any] = {
    "FunctionName": "stranger",
    "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:stranger",
    "Role": "arn:aws:iam::000000000000:role/that-does-not-exist",
    "LoggingConfig": {"LogGroup": "probe"},
}
"""The configuration of a function without permissions."""


def _reads_without_permission() -> bool:
    sqs._act_create_queue({"QueueName": "probe"}, "")
    url = sqs._queue_url("probe")
    sqs._act_send_message({"QueueUrl": url, "MessageBody": "probe"}, url)
    mapping = {
        "UUID": "probe",
        "FunctionName": "stranger",
        "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:probe",
    }
    batches: list[object] = []
    with (
        patch.object(lambda_svc, "_iter_all_esms", lambda: iter([("000000000000", "us-east-1", mapping)])),
        patch.object(lambda_svc, "_get_func_record_for_qualifier", lambda *_: ({"config": STRANGER}, STRANGER)),
        patch.object(lambda_svc, "_dispatch_esm_batch", lambda *batch: batches.append(batch)),
    ):
        lambda_svc._poll_sqs()
    sqs._act_delete_queue({"QueueUrl": url}, url)
    return bool(batches)


def _read_with_role() -> None:
    original = lambda_svc._iter_all_esms

    def permitted() -> Iterator[tuple[str, str, dict[str, Any]]]:
        for account, region, mapping in original():
            arn = mapping.get("EventSourceArn", "")
            actions = SOURCE_ACTIONS.get(arn.split(":")[2] if arn.count(":") > 2 else "", ())
            with _account(account, region):
                record, config = lambda_svc._get_func_record_for_qualifier(
                    mapping["FunctionName"], mapping.get("Qualifier")
                )
                is_permitted = record is not None and all(
                    _may(config or record["config"], action, arn) for action in actions
                )
            if is_permitted:
                yield account, region, mapping

    lambda_svc._iter_all_esms = permitted


# A batch of a DynamoDB stream counts as done when the function reports that some of its records failed. Lambda retries
# the batch from the first failed record
# (https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html).

RETRIES = 20
"""As in the template for the eraser."""


def _forgets_failed_records() -> bool:
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/probe/stream/2026-01-01T00:00:00.000"
    mapping = {
        "UUID": "probe",
        "FunctionName": "stranger",
        "EventSourceArn": arn,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "StartingPosition": "TRIM_HORIZON",
    }
    record = {"eventSource": "aws:dynamodb", "dynamodb": {"SequenceNumber": "1"}}
    failed = {"body": {"batchItemFailures": [{"itemIdentifier": "1"}]}}
    with (
        patch.object(lambda_svc, "_iter_all_esms", lambda: iter([("000000000000", "us-east-1", mapping)])),
        patch.object(lambda_svc, "_get_func_record_for_qualifier", lambda *_: ({"config": STRANGER}, STRANGER)),
        patch.object(lambda_svc, "_execute_function", lambda *_: failed),
        patch.object(dynamodb, "_tables", {"probe": {"LatestStreamArn": arn}}),
        patch.object(dynamodb, "stream_start_position", lambda _table: 0),
        patch.object(dynamodb, "stream_end_position", lambda _table: 1),
        patch.object(dynamodb, "stream_records_since", lambda *_: [record]),
    ):
        lambda_svc._poll_dynamodb_streams()
    return bool(lambda_svc._dynamodb_stream_positions.pop("probe") == 1)


def _retry_failed_records() -> None:
    original = lambda_svc._execute_function

    def execute(function: dict[str, Any], event: dict[str, Any], *rest: Any, **named: Any) -> Any:
        result = original(function, event, *rest, **named)
        for _ in range(RETRIES):
            records = _from_first_failure(event, result)
            if not records:
                break
            time.sleep(0.2)
            event = {"Records": records}
            result = original(function, event, *rest, **named)
        return result

    lambda_svc._execute_function = execute


def _from_first_failure(event: dict[str, Any], result: dict[str, Any]) -> list[dict[str, Any]]:
    records = event.get("Records", [])
    body = result.get("body")
    failures = body.get("batchItemFailures", []) if isinstance(body, dict) else []
    failed = {failure["itemIdentifier"] for failure in failures}
    places = [
        place
        for place, record in enumerate(records)
        if record.get("eventSource") == "aws:dynamodb" and record["dynamodb"]["SequenceNumber"] in failed
    ]
    return records[places[0] :] if places else []


# ministack keeps the lines of a function whatever its role permits. Lambda writes them with that role
# (https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html).


def _logs_without_permission() -> bool:
    lambda_svc._emit_lambda_logs({"config": STRANGER}, "probe", "a line", error=False, duration_ms=1)
    return cloudwatch_logs._log_groups.pop("probe", None) is not None


def _log_with_role() -> None:
    original = lambda_svc._emit_lambda_logs

    def emit(function: dict[str, Any], *rest: Any, **named: Any) -> None:
        config = function.get("config") or function
        group = (config.get("LoggingConfig") or {}).get("LogGroup", "")
        arn = f"arn:aws:logs:{responses.get_region()}:{responses.get_account_id()}:log-group:{group}:log-stream:any"
        if all(_may(config, action, arn) for action in ("logs:CreateLogStream", "logs:PutLogEvents")):
            original(function, *rest, **named)

    lambda_svc._emit_lambda_logs = emit


# Events of FilterLogEvents have no eventId, which `destination tail` uses to distinguish them
# (https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilteredLogEvent.html).


def _leaves_out_event_ids() -> bool:
    [(event, _stream)] = cloudwatch_logs._stream_event_range([{"message": "probe"}], "stream", 0, 1)
    return "eventId" not in event


def _add_event_ids() -> None:
    def events(
        history: list[dict[str, Any]], stream: str, start: int, end: int
    ) -> Iterator[tuple[dict[str, Any], str]]:
        for index in range(start, end):
            yield {**history[index], "eventId": f"{stream}-{index}"}, stream

    cloudwatch_logs._stream_event_range = events


# A log group without an explicit name is not named after its stack, as the policies of docs/ expect
# (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-name.html).


def _names_log_groups_otherwise() -> bool:
    name, _ = provisioners._cwlogs_create("Probe", {}, "probe")
    provisioners._cwlogs_delete(name, {})
    return not name.startswith("probe-Probe")


def _name_log_groups() -> None:
    handler = HANDLERS["AWS::Logs::LogGroup"]
    create, update = handler["create"], handler["update"]

    def create_named(logical_id: str, properties: dict[str, Any], stack: str) -> Any:
        return create(logical_id, {"LogGroupName": provisioners._physical_name(stack, logical_id), **properties}, stack)

    def update_named(physical_id: str, old: Any, new: Any, *rest: Any) -> Any:
        named = {"LogGroupName": physical_id}
        return update(physical_id, {**named, **old}, {**named, **new}, *rest)

    HANDLERS["AWS::Logs::LogGroup"] = {**handler, "create": create_named, "update": update_named}


# Insights ignores `stats`: it returns lines, and not groups.

COUNT = "stats count(*) as requests by route"


def _counts_nothing() -> bool:
    cloudwatch_logs._create_log_group({"logGroupName": "probe"})
    cloudwatch_logs._create_log_stream({"logGroupName": "probe", "logStreamName": "probe"})
    now = int(time.time())
    line = {"timestamp": now * 1000, "message": '{"route": "GET /health"}'}
    cloudwatch_logs._put_log_events({"logGroupName": "probe", "logStreamName": "probe", "logEvents": [line]})
    asked = {"logGroupName": "probe", "startTime": now, "endTime": now + 1, "queryString": COUNT}
    answer = cloudwatch_logs._start_query(asked)
    [row] = cloudwatch_logs._queries[json.loads(answer[2])["queryId"]]["results"]
    cloudwatch_logs._delete_log_group({"logGroupName": "probe"})
    return "requests" not in {field["field"] for field in row}


def _count() -> None:
    original = cloudwatch_logs._start_query

    def start_query(data: dict[str, Any]) -> Any:
        answer = original(data)
        if "stats " in data["queryString"] and answer[0] == HTTPStatus.OK:
            groups = cloudwatch_logs._resolve_query_log_groups(data)
            records = cloudwatch_logs._collect_query_records(groups, data["startTime"], data["endTime"])
            query = cloudwatch_logs._queries[json.loads(answer[2])["queryId"]]
            query["results"] = stats.rows_of(data["queryString"], records)
        return answer

    cloudwatch_logs._start_query = start_query


# Log lines in the Embedded Metric Format become no metrics
# (https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html).

EMF = {
    "_aws": {"CloudWatchMetrics": [{"Namespace": "Probe", "Dimensions": [["service"]], "Metrics": [{"Name": "Any"}]}]},
    "service": "probe",
    "Any": [1],
}


def _makes_no_metrics() -> bool:
    lambda_svc._emit_lambda_logs({"config": STRANGER}, "probe", json.dumps(EMF), error=False, duration_ms=1)
    cloudwatch_logs._log_groups.pop("probe", None)
    return not any(namespace == "Probe" for namespace, _name, _dimensions in cloudwatch._metrics)


def _make_metrics() -> None:
    original = lambda_svc._emit_lambda_logs

    def emit(function: dict[str, Any], request_id: str, text: str, *rest: Any, **named: Any) -> None:
        original(function, request_id, text, *rest, **named)
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                _record_metrics(json.loads(line))

    lambda_svc._emit_lambda_logs = emit


def _record_metrics(line: Any) -> None:
    told = line.get("_aws", {}).get("CloudWatchMetrics", []) if isinstance(line, dict) else []
    for metrics in told:
        for names in metrics["Dimensions"]:
            dimensions = {name: line[name] for name in names}
            for metric in metrics["Metrics"]:
                values = line[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    cloudwatch.record_metric(metrics["Namespace"], metric["Name"], value, dimensions=dimensions)


# ministack runs functions with its own Python. The packages there would hide a package that is missing in the artifact.
# This is a choice of ministack rather than a gap: the interpreter must have no packages.


def _run_functions_with(python: str) -> None:
    asked = "import importlib.util; print(bool(importlib.util.find_spec('boto3')))"
    found = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True)
    if found.stdout.strip() != "False":
        raise ValueError(f"{python} has packages of its own, which would hide that the artifact lacks one")
    original = lambda_runtime._detect_runtime_binary

    def detect(runtime: str) -> tuple[str, str]:
        _, script = original(runtime)
        return str(Path(python)), script

    lambda_runtime._detect_runtime_binary = detect


# ministack starts a process for each request that finds no free one, and unpacks the artifact for it, which takes a
# second. This is a choice too: here a request waits for a free process when a function has MAX_PROCESSES processes.

MAX_PROCESSES = 3


def _limit_processes() -> None:
    original = lambda_svc.acquire_worker

    def acquire(*args: Any, **named: Any) -> Any:
        while True:
            worker, how = original(*args, **{**named, "max_concurrency": MAX_PROCESSES})
            if worker is not None:
                return worker, how
            time.sleep(0.01)

    lambda_svc.acquire_worker = acquire


def _may(config: dict[str, Any], action: str, resource: str) -> bool:
    """Return whether the role of a function permits an action."""
    key = lambda_runtime.execution_credentials(config)["AWS_ACCESS_KEY_ID"]
    region = responses.get_region()
    return iam_evaluator.enforce(key, action, action.split(":", maxsplit=1)[0], region, resource_arn=resource) is None


@contextlib.contextmanager
def _account(account: str, region: str) -> Iterator[None]:
    account_token = responses._request_account_id.set(account)
    region_token = responses._request_region.set(region)
    try:
        yield
    finally:
        responses._request_account_id.reset(account_token)
        responses._request_region.reset(region_token)


GAPS = (
    Gap("CodeDeploy's resource types", _has_no_codedeploy, _add_codedeploy),
    Gap("alarms with metric math", _refuses_metric_math, _store_metric_math),
    Gap("Body of an HTTP API", _ignores_body, _import_bodies),
    Gap("an empty AWS_ENDPOINT_URL", _passes_empty_endpoint, _leave_out_empty_endpoint),
    Gap("bodies that are not text", _garbles_binary_bodies, _encode_binary_bodies),
    Gap("actions of batches of SQS", _asks_for_batch_actions, _ask_for_single_actions),
    Gap("the role that reads an event source", _reads_without_permission, _read_with_role),
    Gap("failed records of a stream", _forgets_failed_records, _retry_failed_records),
    Gap("the role that writes log lines", _logs_without_permission, _log_with_role),
    Gap("ids of log events", _leaves_out_event_ids, _add_event_ids),
    Gap("names of log groups", _names_log_groups_otherwise, _name_log_groups),
    Gap("stats of Insights", _counts_nothing, _count),
    Gap("metrics of log lines", _makes_no_metrics, _make_metrics),
)
