"""The whole stack, deployed by `sam deploy` into an emulated AWS account that enforces IAM; run by `make e2e-deploy`.

The functions run from the built artifact, each with the permissions of its role. The tests share a stack and follow
each other: each begins with what the last one left. `deployed/gaps.py` names what the emulator does otherwise than
AWS, and docs/how-to/deploy.md what only AWS can show.
"""

import gzip
import json
import shutil

import pytest
from deployed.stack import BUILT, DeployedStack, EmulatedAccount, edited_template, eventually

from destination.deployment.stack import ROOT
from handler.compile import compile_schemas, read_schemas
from handler.validate import SCHEMA_NAMES

pytestmark = pytest.mark.skipif(not (BUILT / "template.yaml").exists(), reason="nothing is built: make build")

IDENTIFY = {"type": "identify", "userId": "ada", "traits": {"email": "ada@example.com", "name": "Ada"}}
WITHOUT_EVENT = {"type": "track", "userId": "ada", "messageId": "without-event"}
SIMULATED = ("--messages", "30", "--customers", "2", "--concurrency", "2", "--duplicates", "0.2", "--invalid", "0.2")


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """Return an account with IAM enforced."""
    account = EmulatedAccount(tmp_path_factory.mktemp("account"))
    yield account
    account.stop()


@pytest.fixture(scope="module")
def stack(account):
    """Return the stack of the stage `dev`, deployed."""
    stack = DeployedStack(account)
    stack.deploy(KeyCacheSeconds="0")
    return stack


@pytest.fixture(scope="module")
def key(stack):
    """Return the API key of the customer acme."""
    return stack.create_key("acme")


def test_second_deployment_changes_nothing(stack):
    assert "No changes to deploy" in stack.deploy(KeyCacheSeconds="0")


def test_every_output_has_a_value(stack):
    outputs = stack.outputs()
    assert all(outputs.values()), outputs


def test_ping_stores_a_message_of_each_call_type(stack, key):
    eventually(lambda: stack.health() == 200)
    stack.ran("ping", "all", "--url", stack.url, "--api-key", key)
    stored = stack.read("messages", "list", "--customer", "acme", "--scan")
    # The delete is among them until it was carried out.
    assert {message["type"] for message in stored} >= {"identify", "track", "page", "screen", "group", "alias"}


def test_delete_leaves_a_finished_receipt(stack):
    eventually(lambda: [receipt["finished_at"] for receipt in stack.read("erasures", "list", "--customer", "acme")])


def test_certify_finds_no_fault(stack):
    stack.certify()


def test_gzip_body_of_a_library_is_accepted(stack, key):
    body = gzip.compress(json.dumps({"batch": [{**IDENTIFY, "userId": "gzip"}]}).encode())
    status, answer = stack.post(key, body, "/v1/batch", **{"Content-Encoding": "gzip"})
    assert (status, answer["accepted"]) == (200, 1)


def test_erase_removes_what_a_user_sent(stack, key):
    assert stack.post(key, {**IDENTIFY, "userId": "eve"})[0] == 200
    [receipt] = stack.read("erase", "--customer", "acme", "--user", "eve", "--yes")
    assert (receipt["messages"], bool(receipt["finished_at"])) == (1, True)
    assert stack.read("messages", "list", "--customer", "acme", "--user", "eve") == []


def test_trace_and_tail_find_a_message(stack, key):
    assert stack.post(key, {**IDENTIFY, "messageId": "traced"})[0] == 200
    [found] = stack.read("trace", "traced", "--customer", "acme", "--user", "ada")
    assert found
    with stack.started("tail", "--last", "5", "--json") as tail:
        assert stack.post(key, {**IDENTIFY, "messageId": "followed"})[0] == 200
        assert any('"followed"' in line for line in iter(tail.stdout.readline, ""))


def test_status_tells_customers_with_active_keys(stack):
    [status] = stack.read("status")
    assert status["private_beta"]["customers_with_active_keys"] == 1


def test_refused_message_is_kept_until_a_redeployed_schema_accepts_it(stack, key, tmp_path):
    assert stack.post(key, WITHOUT_EVENT)[0] == 400
    [reject] = stack.read("rejects", "list", "--customer", "acme")
    assert reject["code"] == "invalid_message"
    function = make_function_without_required_event(tmp_path)
    stack.deploy(edited_template(tmp_path, code={"DestinationFunction": function}), KeyCacheSeconds="0")
    assert stack.post(key, {**WITHOUT_EVENT, "messageId": "after-the-change"})[0] == 200
    [retried] = stack.read("rejects", "retry", "--customer", "acme", "--schemas", str(function / "schemas"))
    assert retried["tried"] == 1
    stored = stack.read("messages", "list", "--customer", "acme", "--user", "ada")
    assert {"without-event", "after-the-change"} <= {message["message_id"] for message in stored}
    assert stack.read("rejects", "list", "--customer", "acme") == []


def make_function_without_required_event(folder):
    """Copy the built function, with a compiled schema in which a track call needs no event."""
    function = folder / "DestinationFunction"
    shutil.copytree(BUILT / "DestinationFunction", function)
    track = function / "schemas" / "track.json"
    schema = json.loads(track.read_text())
    schema["required"].remove("event")
    track.write_text(json.dumps(schema))
    for compiled in (function / "handler" / "__pycache__").glob("compiled.*"):
        compiled.unlink()
    (function / "handler" / "compiled.py").write_text(compile_schemas(read_schemas(track.parent), SCHEMA_NAMES))
    return function


def test_consumer_keeps_contacts_and_takes_replays(stack, key):
    stack.deploy(KeyCacheSeconds="0", Consumer="on")
    assert stack.post(key, {**IDENTIFY, "messageId": "for-contacts"})[0] == 200
    eventually(lambda: stack.run("contacts", "show", "ada", "--customer", "acme").returncode == 0)
    [replayed] = stack.read("replay", "--customer", "acme", "--restart", "--yes")
    assert replayed["queued"] > 0
    queue = stack.outputs()["EventQueueUrl"]
    eventually(lambda: stack.waiting(queue) == 0)
    assert stack.waiting(stack.outputs()["EventDeadLetterQueueUrl"]) == 0
    assert stack.waiting(stack.outputs()["StreamDeadLetterQueueUrl"]) == 0


def test_simulation_loses_and_doubles_nothing(stack):
    stack.ran("simulate", "--stack", stack.name, "--url", stack.url, "--contacts", "--deletes", "0.2", *SIMULATED)


@pytest.mark.parametrize("kind", ["standard", "fifo"])
def test_certify_finds_no_fault_with_a_queue(stack, key, kind):
    stack.deploy(KeyCacheSeconds="0", EventSink="sqs", EventQueueType=kind, Consumer="off")
    eventually(lambda: stack.health() == 200)
    assert stack.post(key, {**IDENTIFY, "userId": kind})[0] == 202
    stack.certify()


def test_parameters_take_effect(stack, key):
    stack.deploy(KeyCacheSeconds="0", EventSink="dynamodb", Maintenance="on")
    assert stack.post(key, IDENTIFY, retries=False)[1]["code"] == "maintenance"
    [receipt] = stack.read("erase", "--customer", "acme", "--user", "mallory", "--yes")
    assert receipt["finished_at"]
    stack.deploy(
        KeyCacheSeconds="30", Maintenance="off", SupportedCallTypes="track,identify,delete", AfterErasure="refuse"
    )
    assert stack.post(key, {"type": "page", "userId": "ada"})[0] == 501
    late = {**IDENTIFY, "userId": "mallory", "timestamp": "2020-01-01T00:00:00Z"}
    assert stack.post(key, late)[1]["code"] == "user_erased"
    assert stack.post(key, {**IDENTIFY, "userId": "grace"})[0] == 200


def test_update_that_fails_leaves_the_old_version_in_service(stack, key, tmp_path):
    counted = {"MetricName": "Any", "MetricNamespace": "Any", "MetricValue": "1"}
    broken = {"LogGroupName": "does-not-exist", "FilterPattern": "", "MetricTransformations": [counted]}
    added = {"Broken": {"Type": "AWS::Logs::MetricFilter", "DependsOn": "EraserFunction", "Properties": broken}}
    template = edited_template(tmp_path, add=added)
    printed = stack.deploy(template, succeeds=False, Maintenance="on")
    assert "UPDATE_ROLLBACK" in printed
    eventually(lambda: stack.health() == 200)
    assert stack.post(key, {**IDENTIFY, "userId": "after-rollback"})[0] == 200


def test_two_stacks_of_one_account_share_nothing(account, stack, key):
    other = DeployedStack(account, "direct-destination-staging")
    other.deploy(credentials=make_deployer(account))
    assert other.post(key, IDENTIFY)[0] == 401
    others_key = other.create_key("acme")
    assert other.post(others_key, IDENTIFY)[0] == 200
    assert stack.post(others_key, IDENTIFY)[0] == 401


def make_deployer(account):
    """Return credentials of a user who may do what docs/deployer-policy.json allows, and nothing else."""
    iam = account.client("iam")
    document = (ROOT / "docs" / "deployer-policy.json").read_text()
    policy = iam.create_policy(PolicyName="deployer", PolicyDocument=document)["Policy"]["Arn"]
    iam.create_user(UserName="deployer")
    iam.attach_user_policy(UserName="deployer", PolicyArn=policy)
    made = iam.create_access_key(UserName="deployer")["AccessKey"]
    return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}


def test_deleted_stack_leaves_its_tables_and_queues(account, stack):
    outputs = stack.outputs()
    stack.delete()
    tables = account.client("dynamodb").list_tables()["TableNames"]
    queues = account.client("sqs").list_queues()["QueueUrls"]
    assert len([name for name in tables if name.startswith(stack.name + "-")]) == 5
    assert len([url for url in queues if f"/{stack.name}-" in url]) == 6
    assert outputs["EventTableName"] in tables
    functions = account.client("lambda").list_functions()["Functions"]
    assert not [function for function in functions if function["FunctionName"].startswith(stack.name + "-")]
