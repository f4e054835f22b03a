"""template.yaml, before and after the transformation that CloudFormation applies to it."""

import re

import pytest
from samtranslator.translator.transform import transform

from cli.stack import FUNCTION, LOCAL_REGION, STORE_TYPES, load_template
from handler.settings import ANSWER_SECONDS, MAX_BACKOFF_SECONDS, STORE_CALL_SECONDS, Settings

SEGMENT_GIVES_UP_SECONDS = 5

TEMPLATE = load_template()
RESOURCES = TEMPLATE["Resources"]
STORES = {name: resource for name, resource in RESOURCES.items() if resource["Type"] in STORE_TYPES}
TABLES = {name: store["Properties"] for name, store in STORES.items() if store["Type"] == "AWS::DynamoDB::Table"}
QUEUES = {name: store["Properties"] for name, store in STORES.items() if store["Type"] == "AWS::SQS::Queue"}


@pytest.fixture(scope="module")
def transformed():
    class NoManagedPolicies:
        def load(self):
            return {}

    template = {**load_template(), "Parameters": TEMPLATE["Parameters"]}
    template["Resources"][FUNCTION]["Properties"]["CodeUri"] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", LOCAL_REGION)
        return transform(template, {}, NoManagedPolicies())["Resources"]


def of_type(resources, kind):
    return {name: resource for name, resource in resources.items() if resource["Type"] == kind}


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


def test_every_environment_variable_is_a_setting_and_every_setting_a_variable():
    environment = RESOURCES[FUNCTION]["Properties"]["Environment"]["Variables"]
    read_by_boto3 = {"AWS_ENDPOINT_URL"}
    derived_from_it = {"ACCEPT_DEMO_KEYS"}
    settings = {name.upper() for name in Settings.__dataclass_fields__}
    assert set(environment) - read_by_boto3 == settings - derived_from_it


def test_every_policy_names_one_action_and_one_resource(transformed):
    statements = []
    for role in of_type(transformed, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role["Properties"]
        for policy in role["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                statements += statement["Fn::If"][1:] if "Fn::If" in statement else [statement]
    assert {statement["Action"] for statement in statements} == {
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "sqs:SendMessage",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    assert "*" not in str(statements)


def test_the_function_logs_where_its_role_may_write(transformed):
    [function] = of_type(transformed, "AWS::Lambda::Function").values()
    assert function["Properties"]["LoggingConfig"] == {"LogGroup": {"Ref": "DestinationLogGroup"}}


def test_every_log_has_an_end():
    logs = of_type(RESOURCES, "AWS::Logs::LogGroup").values()
    assert [log["Properties"]["RetentionInDays"] for log in logs] == [{"Ref": "LogRetentionDays"}] * 2


def test_the_route_is_post_segment_with_payload_2_and_a_time_out_below_segments(transformed):
    [api] = of_type(transformed, "AWS::ApiGatewayV2::Api").values()
    paths = api["Properties"]["Body"]["paths"]
    assert {(path, method) for path, methods in paths.items() for method in methods} == {("/segment", "post")}
    integration = paths["/segment"]["post"]["x-amazon-apigateway-integration"]
    assert integration["payloadFormatVersion"] == "2.0"
    assert integration["timeoutInMillis"] <= 4_900


def test_the_function_answers_by_itself_before_the_route_and_the_route_before_segment():
    function = RESOURCES[FUNCTION]["Properties"]
    route_seconds = function["Events"]["Segment"]["Properties"]["TimeoutInMillis"] / 1000
    key_and_write_seconds = 2 * STORE_CALL_SECONDS
    assert key_and_write_seconds < ANSWER_SECONDS < route_seconds < SEGMENT_GIVES_UP_SECONDS
    assert STORE_CALL_SECONDS + MAX_BACKOFF_SECONDS < ANSWER_SECONDS
    assert function["Timeout"] > route_seconds


def test_the_api_accepts_what_the_parameter_pattern_promises():
    pattern = TEMPLATE["Parameters"]["SupportedCallTypes"]["AllowedPattern"]
    assert re.fullmatch(pattern, TEMPLATE["Parameters"]["SupportedCallTypes"]["Default"])
    assert not re.fullmatch(pattern, "identify,video")
