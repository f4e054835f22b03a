"""Test the tables and queues of template.yaml on other servers than AWS."""

import pytest
from botocore.parsers import ResponseParserError
from click import ClickException
from endpoint import endpoint, response
from store_proxy import Fault, store_proxy

from destination.deployment.stack import (
    FUNCTION,
    LOCAL_STACK,
    STORE_OUTPUTS,
    Account,
    copy_stores,
    create_local_stack,
    load_template,
    stack_outputs,
)

pytest_plugins = ["servers"]

TEMPLATE = load_template()
TABLES = {
    name: resource["Properties"]
    for name, resource in TEMPLATE["Resources"].items()
    if resource["Type"] == "AWS::DynamoDB::Table"
}


def tables_of(account):
    """Return the descriptions of a stack's tables, by their names in the template."""
    client = account.dynamodb()
    names = [name for name in client.list_tables()["TableNames"] if name.startswith(LOCAL_STACK)]
    return {name.rpartition("-")[2]: client.describe_table(TableName=name)["Table"] for name in names}


def queues_of(account):
    """Return the attributes of a stack's queues, by their names."""
    client = account.sqs()
    return {
        url.rpartition("/")[2]: client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        for url in client.list_queues(QueueNamePrefix=LOCAL_STACK).get("QueueUrls", [])
    }


def test_short_forms_are_read_as_long_ones():
    resources, outputs = TEMPLATE["Resources"], TEMPLATE["Outputs"]
    assert outputs["EventTableName"]["Value"] == {"Ref": "EventTable"}
    [condition, own, api] = outputs["EndpointUrl"]["Value"]["Fn::If"]
    assert (condition, own, api["Fn::Sub"][:16]) == (
        "DomainIsOwn",
        {"Fn::Sub": "https://${DomainName}/segment"},
        "https://${Api}.e",
    )
    assert TEMPLATE["Conditions"]["QueueIsFifo"] == {"Fn::Equals": [{"Ref": "EventQueueType"}, "fifo"]}
    assert resources[FUNCTION]["Properties"]["Role"] == {"Fn::GetAtt": ["DestinationRole", "Arn"]}


def test_tables_have_the_keys_and_streams_of_the_template(aws):
    create_local_stack(aws, {})
    made = tables_of(aws)
    assert set(made) == set(TABLES)
    for name, declared in TABLES.items():
        assert made[name]["KeySchema"] == declared["KeySchema"]
        assert made[name].get("StreamSpecification", {}).get("StreamViewType") == declared.get(
            "StreamSpecification", {}
        ).get("StreamViewType")


def test_queues_have_the_settings_of_the_template(aws):
    stack = create_local_stack(aws, {})
    queue = queues_of(aws)[stack.stores.event_queue_url.rpartition("/")[2]]
    declared = TEMPLATE["Resources"]["EventQueue"]["Properties"]
    names = ("MaximumMessageSize", "MessageRetentionPeriod", "VisibilityTimeout")
    assert {name: queue[name] for name in names} == {name: str(declared[name]) for name in names}
    assert "DeadLetterQueue" in queue["RedrivePolicy"]


def test_a_fifo_queue_is_chosen_by_a_parameter(aws):
    stack = create_local_stack(aws, {"EventSink": "sqs", "EventQueueType": "fifo"})
    assert stack.stores.event_queue_url.endswith("-EventFifoQueue.fifo")
    assert stack.environment["EVENT_QUEUE_URL"] == stack.stores.event_queue_url
    assert queues_of(aws)["direct-destination-local-EventFifoQueue.fifo"]["DeduplicationScope"] == "messageGroup"


def test_stack_outputs_name_its_stores(aws):
    stack = create_local_stack(aws, {})
    outputs = stack_outputs(aws.cloudformation(), "direct-destination-local")
    assert set(STORE_OUTPUTS.values()) <= set(outputs)
    assert stack.stores.event_table == outputs["EventTableName"]


def test_the_environment_has_every_variable_of_all_functions(aws):
    environment = create_local_stack(aws, {"KeyCacheSeconds": "7"}).environment
    functions = [
        resource["Properties"]
        for resource in TEMPLATE["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    variables = {name for function in functions for name in function["Environment"]["Variables"]}
    access = {"AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(environment) == variables | access
    assert environment["KEY_CACHE_SECONDS"] == "7"
    assert environment["KEY_GRACE_SECONDS"] == str(TEMPLATE["Parameters"]["KeyGraceSeconds"]["Default"])
    assert environment["AWS_ENDPOINT_URL"] == ""


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("EventSync", "sqs", r"template.yaml has no parameter EventSync: it has EventSink, "),
        ("EventSink", "kafka", r"EventSink can't be kafka: it must be one of dynamodb, sqs"),
        ("LogRetentionDays", "2", r"LogRetentionDays can't be 2: it must be one of 1, 3, 5, "),
        ("KeyCacheSeconds", "3601", r"KeyCacheSeconds can't be 3601: it must be a whole number from 0 to 3600$"),
        ("KeyCacheSeconds", "-1", r"KeyCacheSeconds can't be -1: it must be a whole number from 0 to 3600$"),
        ("KeyCacheSeconds", "a minute", r"can't be a minute: it must be a whole number from 0 to 3600$"),
        ("MemorySize", "64", r"MemorySize can't be 64: it must be a whole number from 128 to 10240$"),
        ("SupportedCallTypes", "track,sing", r"can't be track,sing: it must be call types with commas between"),
    ],
)
def test_template_that_cloudformation_refuses_is_refused(aws, name, value, sentence):
    with pytest.raises(ClickException, match=sentence):
        create_local_stack(aws, {name: value})
    assert aws.dynamodb().list_tables()["TableNames"] == []


def test_stores_can_be_made_on_another_server(aws, other_aws):
    stack = create_local_stack(aws, {"EventSink": "sqs"})
    other = Account(endpoint_url=other_aws.url)
    copies = [copy_stores(stack, aws, other) for _ in range(2)]  # the second account finds them
    made = tables_of(other)
    assert {name: table["KeySchema"] for name, table in made.items()} == {
        name: table["KeySchema"] for name, table in TABLES.items()
    }
    assert set(queues_of(other)) == set(queues_of(aws))
    for copy in copies:
        assert copy.stores.event_queue_url.startswith(other_aws.url)
        assert copy.environment["EVENT_QUEUE_URL"] == copy.stores.event_queue_url
        urls = {name: value for name, value in copy.environment.items() if name.endswith("_QUEUE_URL")}
        assert len(urls) == 3
        assert all(url.startswith(other_aws.url) for url in urls.values())
        assert copy.environment["AWS_ENDPOINT_URL"] == other_aws.url


def test_server_without_queues_suffices_for_tables(aws, other_aws):
    with store_proxy(other_aws.url) as proxy:
        proxy.fault = Fault.HAS_NO_QUEUES
        stack = copy_stores(create_local_stack(aws, {"Consumer": "on"}), aws, Account(endpoint_url=proxy.url))
    assert stack.environment["AWS_ENDPOINT_URL"] == proxy.url
    assert stack.environment["CONSUMER"] == "off"  # so the eraser looks for no queue
    assert stack.stores.event_table == "direct-destination-local-EventTable"


def test_queue_needs_a_server_with_queues(aws, other_aws):
    with store_proxy(other_aws.url) as proxy:
        proxy.fault = Fault.HAS_NO_QUEUES
        with pytest.raises(ClickException, match=f"{proxy.url} does not answer as SQS"):
            copy_stores(create_local_stack(aws, {"EventSink": "sqs"}), aws, Account(endpoint_url=proxy.url))


@pytest.mark.parametrize("body", ["{}", "null", "<html>", ""], ids=repr)
def test_a_server_of_another_kind_is_named(body, aws):
    with endpoint(lambda _: response(200, body)) as server, pytest.raises(ClickException) as caught:
        copy_stores(create_local_stack(aws, {}), aws, Account(endpoint_url=server.url))
    assert caught.value.message.startswith(f"{server.url} does not answer as DynamoDB: ")


def test_unreachable_server_is_named(aws):
    with pytest.raises(ClickException, match=r"http://127\.0\.0\.1:1 does not answer as DynamoDB"):
        copy_stores(create_local_stack(aws, {}), aws, Account(endpoint_url="http://127.0.0.1:1"))


KEY = {"key_hash": {"S": "3f1c"}}


@pytest.mark.parametrize("body", ["", "{}", "null", "[]", '{"Item": {"cust', '{"ConsumedCapacity": null}'], ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        lambda account: account.dynamodb().get_item(TableName="keys", Key=KEY),
        lambda account: account.dynamodb().put_item(TableName="keys", Item=KEY),
        lambda account: account.dynamodb().delete_item(TableName="keys", Key=KEY),
        lambda account: account.dynamodb().update_item(TableName="keys", Key=KEY),
        lambda account: list(account.dynamodb().get_paginator("scan").paginate(TableName="keys")),
        lambda account: list(account.dynamodb().get_paginator("query").paginate(TableName="keys")),
        lambda account: account.dynamodb().list_tables(),
        lambda account: account.sqs().get_queue_url(QueueName="events"),
    ],
    ids=["get", "put", "delete", "update", "scan", "query", "tables", "queue"],
)
def test_response_without_confirmation_is_a_store_error(call, body):
    with endpoint(lambda _: response(200, body)) as server, pytest.raises(ResponseParserError):
        call(Account(endpoint_url=server.url))


def test_store_error_says_where_to_look():
    with endpoint(lambda _: response(200, "")) as server, pytest.raises(ResponseParserError) as caught:
        Account(endpoint_url=server.url).dynamodb().get_item(TableName="keys", Key=KEY)
    assert str(caught.value).startswith(
        f"{server.url} answered GetItem without ConsumedCapacity, which confirms nothing. "
    )


def test_command_waits_at_most_half_a_minute_for_a_silent_store():
    account = Account(endpoint_url="http://127.0.0.1:1")
    for client in (account.dynamodb(), account.sqs()):
        config = client.meta.config
        assert config.read_timeout * config.retries.get("total_max_attempts", 3) <= 30
