"""template.yaml, before and after the transformation that CloudFormation applies to it."""

import json
import re

import pytest
from samtranslator.translator.transform import transform

import consumer.handle
from cli.stack import FUNCTION, LOCAL_REGION, ROOT, STORE_TYPES, load_template
from handler.request import HEALTH, ROUTES
from handler.settings import MAX_BACKOFF_SECONDS, STORE_CALL_SECONDS, Settings
from handler.spec import DELETE

SEGMENT_GIVES_UP_SECONDS = 5
STREAM_HOURS = 24
"""For so long DynamoDB keeps a stream, https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html"""


def of_type(resources, kind):
    return {name: resource for name, resource in resources.items() if resource["Type"] == kind}


def properties_of(kind):
    return {name: resource["Properties"] for name, resource in of_type(RESOURCES, kind).items()}


TEMPLATE = load_template()
RESOURCES = TEMPLATE["Resources"]
STORES = {name: resource for name, resource in RESOURCES.items() if resource["Type"] in STORE_TYPES}
TABLES = properties_of("AWS::DynamoDB::Table")
QUEUES = properties_of("AWS::SQS::Queue")
FUNCTIONS = properties_of("AWS::Serverless::Function")
ROLES = properties_of("AWS::IAM::Role")
SOURCES = {
    f"{function}{name}": source
    for function, properties in FUNCTIONS.items()
    for name, source in properties["Events"].items()
    if source["Type"] in ("DynamoDB", "SQS")
}
"""What brings batches to functions."""


def statements_of(role):
    """Return the statements of a role, those of either branch of a condition among them."""
    for policy in ROLES[role]["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            branches = statement["Fn::If"][1:] if "Fn::If" in statement else [statement]
            yield from (branch for branch in branches if branch != {"Ref": "AWS::NoValue"})


def names_in(statement):
    """Return the stores, logs or streams that a statement is about, as `EventTable.Arn`."""
    resource = statement["Resource"]
    branches = resource["Fn::If"][1:] if "Fn::If" in resource else [resource]
    return {branch["Fn::Sub"] if "Fn::Sub" in branch else ".".join(branch["Fn::GetAtt"]) for branch in branches}


def granted(role):
    """Return what a role may do, as pairs of action and resource."""
    return {
        (action, name)
        for statement in statements_of(role)
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
        for name in names_in(statement)
    }


@pytest.fixture(scope="module")
def transformed():
    class NoManagedPolicies:
        def load(self):
            return {}

    template = {**load_template(), "Parameters": TEMPLATE["Parameters"]}
    for function in of_type(template["Resources"], "AWS::Serverless::Function").values():
        function["Properties"]["CodeUri"] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", LOCAL_REGION)
        return transform(template, {}, NoManagedPolicies())["Resources"]


@pytest.mark.parametrize("name", STORES)
def test_a_store_survives_the_stack_and_any_change_of_the_sink(name):
    assert STORES[name]["DeletionPolicy"] == STORES[name]["UpdateReplacePolicy"] == "Retain"
    assert "Condition" not in STORES[name]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_paid_by_use_encrypted_and_backed_up(name):
    assert TABLES[name]["BillingMode"] == "PAY_PER_REQUEST"
    assert TABLES[name]["SSESpecification"] == {"SSEEnabled": True}
    assert TABLES[name]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_encrypted_and_takes_the_largest_message(name):
    assert QUEUES[name]["SqsManagedSseEnabled"] is True
    assert QUEUES[name]["MaximumMessageSize"] == 1024 * 1024


@pytest.mark.parametrize(
    ("queue", "dead_letters"),
    [("EventQueue", "EventDeadLetterQueue"), ("EventFifoQueue", "EventFifoDeadLetterQueue")],
)
def test_what_a_consumer_can_not_take_goes_to_a_queue_of_the_same_kind(queue, dead_letters):
    assert QUEUES[queue]["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": [dead_letters, "Arn"]}
    assert QUEUES[queue].get("FifoQueue") == QUEUES[dead_letters].get("FifoQueue")


def test_the_event_table_streams_new_items():
    assert TABLES["EventTable"]["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}


def test_nothing_has_a_physical_name():
    names = {"TableName", "QueueName", "FunctionName", "RoleName", "LogGroupName", "Name"}
    assert not [name for name, resource in RESOURCES.items() if names & set(resource["Properties"])]


@pytest.mark.parametrize("name", TEMPLATE["Parameters"])
def test_a_parameter_is_described_and_has_a_default(name):
    assert TEMPLATE["Parameters"][name]["Description"]
    assert "Default" in TEMPLATE["Parameters"][name]


# The functions


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_functions_are_built_from_one_artifact_and_run_it_alike(name):
    assert RESOURCES[name]["Metadata"] == {"BuildMethod": "makefile"}
    alike = ("CodeUri", "Runtime", "Architectures")
    assert [FUNCTIONS[name][part] for part in alike] == [FUNCTIONS[FUNCTION][part] for part in alike]
    assert f"build-{name}" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_handler_is_a_function_of_ours(name):
    module, _, function = FUNCTIONS[name]["Handler"].rpartition(".")
    source = ROOT / f"{module.replace('.', '/')}.py"
    assert f"\ndef {function}(" in source.read_text()


def test_every_environment_variable_is_a_setting_and_every_setting_a_variable():
    environment = FUNCTIONS[FUNCTION]["Environment"]["Variables"]
    read_by_boto3 = {"AWS_ENDPOINT_URL"}
    derived_from_it = {"ACCEPT_DEMO_KEYS"}
    settings = {name.upper() for name in Settings.__dataclass_fields__}
    assert set(environment) - read_by_boto3 == settings - derived_from_it


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("EraserFunction", ["eraser"]),
        ("StreamConsumerFunction", ["stream", "handle"]),
        ("QueueConsumerFunction", ["handle"]),
    ],
)
def test_a_function_beside_the_requests_has_the_environment_that_it_reads(name, readers):
    code = "".join((ROOT / "consumer" / f"{reader}.py").read_text() for reader in readers)
    read = re.findall(r'os\.environ\["(\w+)"\]', code)
    read_by_libraries = {"AWS_ENDPOINT_URL", "POWERTOOLS_SERVICE_NAME"}
    assert set(FUNCTIONS[name]["Environment"]["Variables"]) == {*read, *read_by_libraries}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_logs_where_its_role_may_write(name, transformed):
    [log] = transformed[name]["Properties"]["LoggingConfig"].values()
    [role, _arn] = transformed[name]["Properties"]["Role"]["Fn::GetAtt"]
    written = {(action, target) for action, target in granted(role) if action.startswith("logs:")}
    assert written == {(action, f"{log['Ref']}.Arn") for action in ("logs:CreateLogStream", "logs:PutLogEvents")}


def test_every_log_has_an_end():
    for log in properties_of("AWS::Logs::LogGroup").values():
        assert log["RetentionInDays"] == {"Ref": "LogRetentionDays"}


# What they may do


def test_roles_are_only_those_of_the_template(transformed):
    assert set(of_type(transformed, "AWS::IAM::Role")) == set(ROLES)
    assert not [role for role in ROLES.values() if "ManagedPolicyArns" in role]


@pytest.mark.parametrize("role", ROLES)
def test_every_statement_of_a_role_names_one_resource(role):
    for statement in statements_of(role):
        assert not isinstance(statement["Resource"], list)
        assert "*" not in str(statement)


def test_the_endpoint_can_only_read_keys_and_tombstones_and_put_messages():
    stores = {pair for pair in granted("DestinationRole") if not pair[0].startswith("logs:")}
    assert stores == {
        ("dynamodb:GetItem", "KeyTable.Arn"),
        ("dynamodb:GetItem", "ErasureTable.Arn"),
        ("dynamodb:PutItem", "EventTable.Arn"),
        ("dynamodb:PutItem", "RejectsTable.Arn"),
        ("sqs:SendMessage", "EventQueue.Arn"),
        ("sqs:SendMessage", "EventFifoQueue.Arn"),
        ("sqs:GetQueueAttributes", "EventQueue.Arn"),
        ("sqs:GetQueueAttributes", "EventFifoQueue.Arn"),
    }


def test_the_endpoint_reads_tombstones_only_where_it_refuses_erased_users():
    [conditional] = [
        statement["Fn::If"]
        for statement in ROLES["DestinationRole"]["Policies"][0]["PolicyDocument"]["Statement"]
        if "ReadTombstones" in str(statement)
    ]
    assert (conditional[0], conditional[2]) == ("ErasedAreRefused", {"Ref": "AWS::NoValue"})


@pytest.mark.parametrize("table", ["EventTable.Arn", "RejectsTable.Arn"])
def test_only_the_eraser_may_change_or_delete_what_is_stored(table):
    harmless = {"dynamodb:GetItem", "dynamodb:Query"}
    for role in ROLES:
        actions = {action for action, target in granted(role) if target == table} - harmless
        allowed = {"EraserRole": {"dynamodb:DeleteItem"}, "DestinationRole": {"dynamodb:PutItem"}}
        assert actions == allowed.get(role, set())


def test_nobody_may_change_keys():
    assert {pair for role in ROLES for pair in granted(role) if pair[1] == "KeyTable.Arn"} == {
        ("dynamodb:GetItem", "KeyTable.Arn")
    }


def test_the_consumers_may_write_contacts_and_nothing_else_of_ours():
    read = {"ReadStream", "TakeFromQueue", "TakeFromFifoQueue", "OpenLog", "WriteLog"}
    rest = {statement["Sid"]: names_in(statement) for statement in statements_of("ConsumerRole")}
    assert {sid: names for sid, names in rest.items() if sid not in read} == {
        "KeepContacts": {"ContactTable.Arn"},
        "ForwardDeletes": {"EventQueue.Arn", "EventFifoQueue.Arn"},
        "SendDeadLetters": {"StreamDeadLetterQueue.Arn"},
    }


# What brings batches to them


@pytest.mark.parametrize("name", SOURCES)
def test_a_batch_comes_again_only_from_what_failed_in_it(name):
    assert SOURCES[name]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


@pytest.mark.parametrize(
    ("source", "function", "role", "dead_letters"),
    [
        ("EraserFunctionDeletes", "EraserFunction", "EraserRole", "ErasureDeadLetterQueue"),
        ("StreamConsumerFunctionStored", "StreamConsumerFunction", "ConsumerRole", "StreamDeadLetterQueue"),
    ],
)
def test_what_of_the_stream_is_given_up_goes_to_dead_letters(source, function, role, dead_letters):
    properties = SOURCES[source]["Properties"]
    assert properties["Stream"] == {"Fn::GetAtt": ["EventTable", "StreamArn"]}
    assert properties["StartingPosition"] == "TRIM_HORIZON"
    assert properties["BisectBatchOnFunctionError"] is True
    assert properties["MaximumRetryAttempts"] > 0
    assert properties["DestinationConfig"]["OnFailure"] == {"Destination": {"Fn::GetAtt": [dead_letters, "Arn"]}}
    assert FUNCTIONS[function]["Role"] == {"Fn::GetAtt": [role, "Arn"]}
    assert ("sqs:SendMessage", f"{dead_letters}.Arn") in granted(role)


def pattern_of(source):
    [criterion] = SOURCES[source]["Properties"]["FilterCriteria"]["Filters"]
    return json.loads(criterion["Pattern"])


def test_only_new_items_are_consumed_and_only_deletes_are_carried_out():
    assert pattern_of("StreamConsumerFunctionStored") == {"eventName": ["INSERT"]}
    delete = {"NewImage": {"type": {"S": [DELETE]}}}
    assert pattern_of("EraserFunctionDeletes") == {"eventName": ["INSERT"], "dynamodb": delete}


@pytest.mark.parametrize("queue", ["EventQueue", "EventFifoQueue"])
def test_either_queue_is_consumed_with_six_times_the_time_of_the_function(queue):
    arn = {"Fn::GetAtt": [queue, "Arn"]}
    [source] = [source for source in SOURCES.values() if source["Properties"].get("Queue") == arn]
    assert source in FUNCTIONS["QueueConsumerFunction"]["Events"].values()
    assert QUEUES[queue]["VisibilityTimeout"] >= 6 * FUNCTIONS["QueueConsumerFunction"]["Timeout"]
    needed = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
    assert {action for action, target in granted("ConsumerRole") if target == f"{queue}.Arn"} >= needed


def test_the_consumer_is_promised_the_tries_and_the_time_of_the_template():
    stream, queue = (
        SOURCES[name]["Properties"] for name in ("StreamConsumerFunctionStored", "QueueConsumerFunctionQueued")
    )
    seconds = {name: FUNCTIONS[name]["Timeout"] for name in ("StreamConsumerFunction", "QueueConsumerFunction")}
    promises = " ".join(consumer.handle.__doc__.split())
    assert f"up to {stream['MaximumRetryAttempts']} times from the event table" in promises
    assert f"{QUEUES['EventQueue']['RedrivePolicy']['maxReceiveCount']} times from a queue" in promises
    assert f"{seconds['StreamConsumerFunction']} seconds for up to {stream['BatchSize']} messages" in promises
    assert f"{seconds['QueueConsumerFunction']} seconds for up to {queue['BatchSize']} of a queue" in promises


@pytest.mark.parametrize("queue", [name for name in QUEUES if "DeadLetter" in name])
def test_somebody_learns_of_dead_letters(queue):
    named = {"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}
    [alarm] = [alarm for alarm in properties_of("AWS::CloudWatch::Alarm").values() if str(named) in str(alarm)]
    assert (alarm["Threshold"], alarm["ComparisonOperator"]) == (0, "GreaterThanThreshold")
    assert alarm["AlarmActions"]["Fn::If"][:2] == ["AlarmsAreSent", [{"Ref": "AlarmTopicArn"}]]


@pytest.mark.parametrize("function", ["EraserFunction", "StreamConsumerFunction"])
def test_somebody_learns_when_a_stream_is_not_read_in_time(function):
    named = [{"Name": "FunctionName", "Value": {"Ref": function}}]
    alarms = [alarm for alarm in properties_of("AWS::CloudWatch::Alarm").values() if alarm["Dimensions"] == named]
    [alarm] = alarms
    assert (alarm["MetricName"], alarm["Threshold"] < STREAM_HOURS * 3_600_000) == ("IteratorAge", True)
    assert alarm["AlarmActions"]["Fn::If"][:2] == ["AlarmsAreSent", [{"Ref": "AlarmTopicArn"}]]


# The endpoint


LIBRARIES_GIVE_UP_SECONDS = 10
"""Node's; Python's wait 15."""


def test_the_routes_are_those_of_the_code_with_payload_2_and_time_outs_below_those_of_who_calls(transformed):
    [api] = of_type(transformed, "AWS::ApiGatewayV2::Api").values()
    paths = api["Properties"]["Body"]["paths"]
    integrations = {
        f"{method.upper()} {path}": described["x-amazon-apigateway-integration"]
        for path, methods in paths.items()
        for method, described in methods.items()
    }
    assert set(integrations) == {*ROUTES, HEALTH}
    for route, integration in integrations.items():
        assert integration["payloadFormatVersion"] == "2.0"
        assert integration["timeoutInMillis"] == (4_900 if route in ("POST /segment", HEALTH) else 9_800)


EVENTS = {event["Properties"]["Path"]: event for event in FUNCTIONS[FUNCTION]["Events"].values()}


@pytest.mark.parametrize("route", ROUTES.values(), ids=lambda route: route.path)
def test_the_function_answers_by_itself_before_the_route_and_the_route_before_who_calls(route):
    event = EVENTS[route.path]
    route_seconds = event["Properties"]["TimeoutInMillis"] / 1000
    key_and_write_seconds = 2 * STORE_CALL_SECONDS
    they_give_up_seconds = LIBRARIES_GIVE_UP_SECONDS if route.is_library else SEGMENT_GIVES_UP_SECONDS
    assert key_and_write_seconds < route.answer_seconds < route_seconds < they_give_up_seconds
    assert route.answer_seconds > STORE_CALL_SECONDS + MAX_BACKOFF_SECONDS
    assert FUNCTIONS[FUNCTION]["Timeout"] > route_seconds


def test_the_api_accepts_what_the_parameter_pattern_promises():
    pattern = TEMPLATE["Parameters"]["SupportedCallTypes"]["AllowedPattern"]
    assert re.fullmatch(pattern, TEMPLATE["Parameters"]["SupportedCallTypes"]["Default"])
    assert not re.fullmatch(pattern, "identify,video")
