"""Test `docs/deployer-policy.json` and `docs/operator-policy.json`: the permissions for deployers and operators.

CloudFormation publishes which permissions it uses for a resource type, and cfn-lint ships that list:
https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html (`handlers`)

tests/e2e/test_deploy.py deploys the stack and runs the commands with only these permissions.
"""

import fnmatch
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_template import deployed

from destination.paths import ROOT

POLICIES = {name: json.loads((ROOT / "docs" / f"{name}-policy.json").read_text()) for name in ("deployer", "operator")}
SCHEMAS = Path(find_spec("cfnlint").origin).parent / "data" / "schemas" / "resources"
"""Found without importing cfn-lint, because the import takes more than a second."""
MAX_POLICY_CHARS = 6144
"""Limit of a managed policy, without spaces: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
"""
OTHER_FEATURES = {
    "AWS::ApiGatewayV2::Api": ("s3:*",),  # a definition in a bucket
    "AWS::ApiGatewayV2::DomainName": ("s3:*",),  # mutual TLS
    "AWS::CodeDeploy::DeploymentGroup": ("codedeploy:RegisterOnPremisesInstance",),
    # Replicas, imports, exports to Kinesis, customer-managed keys, resource policies.
    "AWS::DynamoDB::Table": (
        "dynamodb:*Item",
        "dynamodb:*Kinesis*",
        "dynamodb:*Replica",
        "dynamodb:ImportTable",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:DeleteResourcePolicy",
        "dynamodb:PutResourcePolicy",
        "iam:CreateServiceLinkedRole",
        "kinesis:*",
        "kms:*",
        "logs:*",
        "s3:*",
    ),
    "AWS::IAM::Role": ("iam:*PermissionsBoundary",),
    "AWS::Lambda::EventSourceMapping": ("kms:*",),
    # Networks, file systems, customer-managed keys, signed code, layers, capacity providers.
    "AWS::Lambda::Function": (
        "ec2:*",
        "elasticfilesystem:*",
        "kms:*",
        "lambda:*CodeSigningConfig",
        "lambda:AssociateRuntimeAlias",
        "lambda:GetLayerVersion",
        "lambda:PassCapacityProvider",
        "s3files:*",
    ),
    "AWS::Lambda::Alias": ("lambda:PutProvisionedConcurrencyConfig",),
    "AWS::Lambda::Version": ("lambda:PutProvisionedConcurrencyConfig",),
    # Customer-managed keys, data policies, indexes and tokens, protection.
    "AWS::Logs::LogGroup": (
        "firehose:*",
        "logs:*KmsKey",
        "logs:*BearerTokenAuthentication",
        "logs:DeleteDataProtectionPolicy",
        "logs:DeleteIndexPolicy",
        "logs:DeleteResourcePolicy",
        "logs:PutDataProtectionPolicy",
        "logs:PutIndexPolicy",
        "logs:PutLogGroupDeletionProtection",
        "s3:REST.PUT.OBJECT",
    ),
}
"""Permissions for features of a type that the template does not use."""


SERVICES = {"deploy": "codedeploy"}
"""Service of the AWS CLI -> prefix of its actions in IAM, where they differ."""
BY_OTHERS = {
    "cloudformation:DetectStackDrift",  # it reads every resource with that resource's permission
    "iam:AddUserToGroup",
    "iam:AttachGroupPolicy",
    "iam:CreateGroup",
    "iam:CreatePolicy",
    "iam:CreatePolicyVersion",
    "s3:Sync",  # the partner's own files
    "sts:GetCallerIdentity",  # everybody may call it
}
"""Commands of the docs that are not for a deployer or an operator."""
OTHER_NAMES = {"logs:Tail": "logs:FilterLogEvents"}
"""Commands of the AWS CLI that are not operations."""


def allowed_actions(name):
    """Return the actions that a policy allows, as patterns."""
    actions = [statement["Action"] for statement in POLICIES[name]["Statement"]]
    return [action for some in actions for action in ([some] if isinstance(some, str) else some)]


def is_one_of(action, patterns):
    """Return whether an action matches one of the patterns. IAM ignores case."""
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


def types():
    """Return the types of all resources of the stack."""
    return sorted({resource["Type"] for resource in deployed().values()})


@pytest.fixture(scope="module")
def handlers():
    """Return the API calls of CloudFormation for each resource type."""
    found = {}
    for file in SCHEMAS.glob("*.json"):
        schema = json.loads(file.read_text("utf-8"))
        found.setdefault(schema["typeName"], schema.get("handlers", {}))
    return found


@pytest.mark.parametrize("kind", types())
def test_deployer_has_cloudformations_permissions_for_a_type(handlers, kind):
    called = {
        permission
        for name, handler in handlers[kind].items()
        if name != "list"
        for permission in handler["permissions"]
    }
    assert called
    needed = {action for action in called if not is_one_of(action, OTHER_FEATURES.get(kind, ()))}
    missing = sorted(action for action in needed if not is_one_of(action, allowed_actions("deployer")))
    assert not missing, (
        f"docs/deployer-policy.json must allow {', '.join(missing)} for {kind}, or OTHER_FEATURES names it"
    )


@pytest.mark.parametrize(
    "action",
    [
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:GetRecords",
        "sqs:SendMessage",
        "sqs:ReceiveMessage",
        "sqs:PurgeQueue",
        "lambda:InvokeFunction",
        "logs:FilterLogEvents",
        "iam:CreateUser",
        "iam:CreatePolicyVersion",
    ],
)
def test_deployer_reads_and_writes_no_data_and_makes_no_users(action):
    assert not is_one_of(action, allowed_actions("deployer"))


@pytest.mark.parametrize(
    "action",
    ["cloudformation:UpdateStack", "dynamodb:DeleteTable", "iam:PassRole", "lambda:InvokeFunction", "sqs:DeleteQueue"],
)
def test_operator_changes_no_resources(action):
    assert not is_one_of(action, allowed_actions("operator"))


def commands_of_docs():
    """Return the actions of all commands of the AWS CLI in the docs, as IAM names them."""
    pages = "".join(page.read_text() for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
    found = re.findall(r"\baws ([a-z0-9]+) ([a-z]+(?:-[a-z]+)*)", pages)
    return {f"{SERVICES.get(service, service)}:{command.title().replace('-', '')}" for service, command in found}


def test_deployer_or_operator_may_run_each_command_of_the_docs():
    commands = {OTHER_NAMES.get(action, action) for action in commands_of_docs()} - BY_OTHERS
    assert "sqs:PurgeQueue" in commands
    allowed = [*allowed_actions("deployer"), *allowed_actions("operator")]
    assert {action for action in commands if not is_one_of(action, allowed)} == set()


@pytest.mark.parametrize("name", POLICIES)
def test_policy_fits_into_a_managed_policy(name):
    assert len("".join(json.dumps(POLICIES[name]).split())) <= MAX_POLICY_CHARS
