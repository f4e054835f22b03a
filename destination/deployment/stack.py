"""The tables and queues of a deployment: of a CloudFormation stack, or created from template.yaml elsewhere.

template.yaml is the only place that declares a store. On this machine, an embedded CloudFormation creates only its
stores, so it need not support functions and APIs. The stack outputs are the function's environment.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import click
import yaml
from botocore.config import Config

from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION, aws_client, local_client
from destination.paths import ROOT
from handler.clients import require_confirmation
from handler.errors import STORE_ERRORS
from handler.sinks import Sink, sink_named

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import StreamSpecificationTypeDef, TableDescriptionTypeDef
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_sqs import SQSClient
TEMPLATE = ROOT / "template.yaml"

FUNCTION = "DestinationFunction"
STORE_TYPES = {"AWS::DynamoDB::Table": "TableName", "AWS::SQS::Queue": "QueueName"}
"""The resource types that a local server creates, and the property with the name."""

LOCAL_STACK = "direct-destination-local"

STORE_CONFIG = Config(connect_timeout=5, read_timeout=10)
"""In seconds, for each of botocore's tries: a page of a table arrives within one second, and a person is waiting."""
_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's loader is ten times as fast, but not every PyYAML has it."""


class _TemplateLoader(_SafeLoader):  # type: ignore[misc, valid-type]  # one of two
    """Reads CloudFormation's short forms: `!Ref Name` as `{"Ref": "Name"}`, `!Sub …` as `{"Fn::Sub": …}`."""


def _intrinsic(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    value: Any = (
        loader.construct_sequence(node, deep=True)
        if isinstance(node, yaml.SequenceNode)
        else loader.construct_scalar(node)  # type: ignore[arg-type]  # no short form takes a mapping
    )
    if tag == "GetAtt":
        value = value.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": value}


_TemplateLoader.add_multi_constructor("!", _intrinsic)


def load_template(file: Path = TEMPLATE) -> dict[str, Any]:
    """Return template.yaml with its intrinsic functions in their long form."""
    return deepcopy(_parse(file.read_text("utf-8")))


@cache
def _parse(template: str) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.load(template, _TemplateLoader)  # noqa: S506 -- a SafeLoader
    return parsed


STORE_OUTPUTS = {
    "event_sink": "EventSink",
    "event_table": "EventTableName",
    "event_queue_url": "EventQueueUrl",
    "key_table": "KeyTableName",
    "rejects_table": "RejectsTableName",
    "event_retention_days": "EventRetentionDays",
    "supported_call_types": "SupportedCallTypes",
    "erasure_table": "ErasureTableName",
    "erasure_scope": "ErasureScope",
    "contact_table": "ContactTableName",
    "consumer": "Consumer",
    "after_erasure": "AfterErasure",
    "key_cache_seconds": "KeyCacheSeconds",
    "rejects_retention_days": "RejectsRetentionDays",
}
"""Field of `Stores` -> output of the stack."""
LATER_OUTPUTS = {"after_erasure", "key_cache_seconds", "rejects_retention_days"}
"""Fields whose outputs are missing in a stack of an older version."""


@dataclass(frozen=True, kw_only=True)
class Stores:
    """The names of a deployment's stores, and its settings for stored data; as texts, like stack outputs.

    A field with a default is empty for a stack of an older version.
    """

    event_sink: str
    event_table: str
    event_queue_url: str
    key_table: str
    rejects_table: str
    event_retention_days: str
    supported_call_types: str
    erasure_table: str
    erasure_scope: str
    contact_table: str
    consumer: str
    after_erasure: str = ""
    key_cache_seconds: str = ""
    rejects_retention_days: str = ""

    @property
    def sink(self) -> type[Sink]:
        """The sink for messages, with its capabilities."""
        return sink_named(self.event_sink)

    @property
    def event_store(self) -> str:
        """The address of the sink's store, such as the name of the event table."""
        address: str = getattr(self, self.sink.variable.lower())
        return address

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, str]) -> Self:
        """Read stack outputs; raises `KeyError` for one that is missing."""
        texts = {
            field: outputs[output]
            for field, output in STORE_OUTPUTS.items()
            if output in outputs or field not in LATER_OUTPUTS
        }
        return cls(**texts)


@dataclass(frozen=True, kw_only=True)
class Account:
    """The AWS account of a deployment: AWS with the user's credentials, or a server with the same protocols."""

    endpoint_url: str | None = None

    def dynamodb(self) -> "DynamoDBClient":
        """Return a client for tables."""
        return cast("DynamoDBClient", self.store_client("dynamodb"))

    def sqs(self) -> "SQSClient":
        """Return a client for queues."""
        return cast("SQSClient", self.store_client("sqs"))

    def store_client(self, service: str) -> Any:  # noqa: ANN401 -- a boto3 client
        """Return a client of the service of a store, which treats an unconfirmed response as an error."""
        return require_confirmation(self.client(service, STORE_CONFIG))

    def cloudformation(self) -> "CloudFormationClient":
        """Return a client for stacks."""
        return cast("CloudFormationClient", self.client("cloudformation"))

    def logs(self) -> "CloudWatchLogsClient":
        """Return a client for logs."""
        return cast("CloudWatchLogsClient", self.client("logs"))

    def cloudwatch(self) -> "CloudWatchClient":
        """Return a client for metrics."""
        return cast("CloudWatchClient", self.client("cloudwatch"))

    def client(self, service: str, config: Config | None = None) -> Any:  # noqa: ANN401 -- a boto3 client
        """Return a client of a service by its name, such as `dynamodb`."""
        if self.endpoint_url is None:
            return aws_client(service, config)
        return local_client(service, self.endpoint_url, config)


@dataclass(frozen=True, kw_only=True)
class LocalStack:
    """The stores of template.yaml outside AWS, and the environment with which functions reach them."""

    stores: Stores
    environment: dict[str, str]


def create_local_stack(account: Account, parameters: Mapping[str, str]) -> LocalStack:
    """Create the stores of template.yaml with the CloudFormation of an embedded AWS.

    Raises `click.ClickException` for a parameter that the template refuses.
    """
    template = _parse(TEMPLATE.read_text("utf-8"))  # nothing changes it, and a copy takes time
    check_parameters(template["Parameters"], parameters)
    variables = _variables(template["Resources"])
    variable_outputs = {f"Environment{name.replace('_', '')}": name for name, value in variables.items() if value != ""}
    stores = {
        "Parameters": template["Parameters"],
        "Conditions": template["Conditions"],
        "Resources": dict(_named_stores(template["Resources"])),
        "Outputs": {
            **{name: template["Outputs"][name] for name in STORE_OUTPUTS.values()},
            **{output: {"Value": variables[name]} for output, name in variable_outputs.items()},
        },
    }
    cloudformation = account.cloudformation()
    cloudformation.create_stack(
        StackName=LOCAL_STACK,
        TemplateBody="\t"
        + json.dumps(stores),  # moto parses JSON as YAML, which is slow; a tab makes it use the JSON parser
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )
    outputs = stack_outputs(cloudformation, LOCAL_STACK)
    environment = {name: outputs[output] for output, name in variable_outputs.items()}
    return LocalStack(
        stores=Stores.from_outputs(outputs),
        environment={**dict.fromkeys(variables, ""), **environment, **_access(account)},
    )


def _variables(resources: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the environment variables of all functions; a variable has the same value in each."""
    variables: dict[str, Any] = {}
    for resource in resources.values():
        if resource["Type"] == "AWS::Serverless::Function":
            variables |= resource["Properties"]["Environment"]["Variables"]
    return variables


def check_parameters(declared: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, str]) -> None:
    """Refuse parameters that CloudFormation would refuse, and an embedded one would not."""
    for name, value in parameters.items():
        if name not in declared:
            raise click.ClickException(f"template.yaml has no parameter {name}: it has {', '.join(declared)}")
        if rule := _broken_rule(declared[name], value):
            raise click.ClickException(f"{name} can't be {value}: it {rule}")


def _broken_rule(declared: Mapping[str, Any], value: str) -> str | None:
    """Return the rule that a parameter's value breaks, as the second half of a sentence."""
    allowed = [str(choice) for choice in declared.get("AllowedValues", [value])]
    if value not in allowed:
        return f"must be one of {', '.join(allowed)}"
    if declared["Type"] == "Number":
        lowest, highest = declared.get("MinValue", 0), declared.get("MaxValue", sys.maxsize)
        if not value.isdecimal() or not lowest <= int(value) <= highest:
            return f"must be a whole number from {lowest} to {highest}"
    if "AllowedPattern" in declared and not re.fullmatch(declared["AllowedPattern"], value):
        return str(declared["ConstraintDescription"])
    return None


def _named_stores(resources: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the stores with their local names."""
    for name, resource in resources.items():
        if resource["Type"] in STORE_TYPES:
            properties = {**resource["Properties"], STORE_TYPES[resource["Type"]]: local_store_name(name, resource)}
            # an embedded AWS would create an RSA key for it, and encrypts nothing
            properties.pop("SSESpecification", None)
            yield name, {**resource, "Properties": properties}


def local_store_name(name: str, resource: Mapping[str, Any]) -> str:
    """Return the name of a store of template.yaml outside AWS.

    The name is constant, so that an external server keeps its data when the local server restarts.
    """
    return f"{LOCAL_STACK}-{name}" + (".fifo" if resource["Properties"].get("FifoQueue") else "")


def stack_outputs(cloudformation: "CloudFormationClient", stack: str) -> dict[str, str]:
    """Return the outputs of a stack by name."""
    stacks = cloudformation.describe_stacks(StackName=stack).get("Stacks", [])
    outputs = [output for found in stacks[:1] for output in found.get("Outputs", [])]
    return {
        output["OutputKey"]: str(output["OutputValue"])
        for output in outputs
        if {"OutputKey", "OutputValue"} <= output.keys()
    }


def _access(account: Account) -> dict[str, str]:
    """Return the variables with which boto3 reaches a server that stands in for AWS."""
    return {
        "AWS_ENDPOINT_URL": account.endpoint_url or "",
        "AWS_DEFAULT_REGION": LOCAL_REGION,
        **{name.upper(): value for name, value in LOCAL_CREDENTIALS.items()},
    }


def copy_stores(stack: LocalStack, source: Account, target: Account) -> LocalStack:
    """Create the missing stores of an embedded AWS on another server too, and return the stores there.

    A server without SQS is enough for the DynamoDB sink. Raises `click.ClickException` if the server does not answer.
    """
    environment = {**stack.environment, **_access(target)}
    try:
        copy_tables(source.dynamodb(), target.dynamodb())
    except STORE_ERRORS as error:
        raise click.ClickException(f"{target.endpoint_url} does not answer as DynamoDB: {error}") from error
    try:
        urls = _copy_queues(source.sqs(), target.sqs())
    except STORE_ERRORS as error:
        if stack.stores.sink.feeds_queue:
            raise click.ClickException(f"{target.endpoint_url} does not answer as SQS: {error}") from error
        # Without a queue, the eraser can't pass deletes to the consumer, which gets them only from the stream.
        return LocalStack(stores=stack.stores, environment={**environment, "CONSUMER": "off"})
    queue_urls = {name: urls[_queue_name(url)] for name, url in environment.items() if name.endswith("_QUEUE_URL")}
    return LocalStack(
        stores=replace(stack.stores, event_queue_url=urls[_queue_name(stack.stores.event_queue_url)]),
        environment={**environment, **queue_urls},
    )


def copy_tables(source: "DynamoDBClient", target: "DynamoDBClient") -> None:
    """Create the missing tables of one server on another."""
    existing = target.list_tables()["TableNames"]
    for name in source.list_tables()["TableNames"]:
        if name not in existing:
            table = source.describe_table(TableName=name)["Table"]
            no_stream: StreamSpecificationTypeDef = {"StreamEnabled": False}
            target.create_table(
                TableName=name,
                AttributeDefinitions=table["AttributeDefinitions"],
                KeySchema=table["KeySchema"],
                BillingMode="PAY_PER_REQUEST",
                StreamSpecification=table.get("StreamSpecification", no_stream),
                **_indexes(table),
            )
            target.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})


def _indexes(table: "TableDescriptionTypeDef") -> dict[str, Any]:
    described = table.get("GlobalSecondaryIndexes", [])
    indexes = [{name: index[name] for name in ("IndexName", "KeySchema", "Projection")} for index in described]
    return {"GlobalSecondaryIndexes": indexes} if indexes else {}


_QUEUE_ATTRIBUTES = (
    "FifoQueue",
    "DeduplicationScope",
    "FifoThroughputLimit",
    "VisibilityTimeout",
    "MaximumMessageSize",
)


def _copy_queues(source: "SQSClient", target: "SQSClient") -> dict[str, str]:
    """Create the missing queues of one server on another; return their new URLs by name."""
    urls = {}
    for url in source.list_queues()["QueueUrls"]:
        attributes = source.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        copied = {name: attributes[name] for name in _QUEUE_ATTRIBUTES if name in attributes}
        name = _queue_name(url)
        try:
            urls[name] = target.get_queue_url(QueueName=name)["QueueUrl"]
        except target.exceptions.QueueDoesNotExist:
            urls[name] = target.create_queue(QueueName=name, Attributes=copied)["QueueUrl"]
    return urls


def _queue_name(url: str) -> str:
    return url.rpartition("/")[2]
