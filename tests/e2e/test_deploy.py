"""Deploy the whole stack with `sam deploy` into an emulated AWS account that enforces IAM: `make e2e-deploy`.

The functions run from the built artifact, each with the permissions of its role. SAM has the permissions of
docs/deployer-policy.json, and the commands have the permissions of docs/operator-policy.json.

The tests share a stack and depend on each other: each begins with the state that the last one left. `deployed/gaps.py`
lists how the emulator differs from AWS, and docs/how-to/deploy.md what only AWS can show.
"""

import gzip
import json
import shutil

import pytest
from botocore.exceptions import ClientError
from deployed.release import previous_release
from deployed.stack import BUILT, REGION, DeployedStack, EmulatedAccount, eventually
from store_proxy import store_proxy

from destination.local.faults import Store, parse_orders
from handler.compile import compile_schemas, read_schemas
from handler.validate import SCHEMA_NAMES

pytestmark = pytest.mark.skipif(not (BUILT / "template.yaml").exists(), reason="nothing is built: make build")

IDENTIFY = {"type": "identify", "userId": "ada", "traits": {"email": "ada@example.com", "name": "Ada"}}
WITHOUT_EVENT = {"type": "track", "userId": "ada", "messageId": "without-event"}
SIMULATED = ("--messages", "30", "--customers", "2", "--concurrency", "2", "--duplicates", "0.2", "--invalid", "0.2")
FAULTS = "refused:0.01,reset:0.01,timeout:0.01,throttle:0.01,error:0.01"
"""The kinds of faults, without slow bytes, because the eraser waits 11 s for each of these."""


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


def test_all_outputs_have_a_value(stack):
    outputs = stack.outputs()
    assert all(outputs.values()), outputs


def test_ping_stores_a_message_of_each_call_type(stack, key):
    eventually(lambda: stack.health() == 200)
    stack.ran("ping", "all", "--url", stack.url, "--api-key", key)
    stored = stack.read("messages", "list", "--customer", "acme", "--scan")
    # The delete is stored until it is carried out.
    assert {message["type"] for message in stored} >= {"identify", "track", "page", "screen", "group", "alias"}


def test_delete_leaves_a_finished_receipt(stack):
    eventually(lambda: [receipt["finished_at"] for receipt in stack.read("erasures", "list", "--customer", "acme")])


def test_certify_finds_no_fault(stack):
    stack.certify()


def test_gzip_body_of_a_library_is_accepted(stack, key):
    body = gzip.compress(json.dumps({"batch": [{**IDENTIFY, "userId": "gzip"}]}).encode())
    status, answer = stack.post(key, body, "/v1/batch", **{"Content-Encoding": "gzip"})
    assert (status, answer["accepted"]) == (200, 1)


def test_erase_removes_the_messages_of_a_user(stack, key):
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


def test_status_counts_messages_and_metrics(stack, key):
    assert stack.post(key, WITHOUT_EVENT)[0] == 400
    [status] = stack.read("status")
    of_acme = {line["call_type"]: line for line in status["messages"] if line["customer_id"] == "acme"}
    assert of_acme["identify"]["accepted"] >= 2
    assert of_acme["track"]["refused"] == {"invalid_message": 1}
    beta = status["private_beta"]
    assert beta["customers_with_active_keys"] == 1
    assert beta["events"] >= sum(line["accepted"] for line in of_acme.values()) > 0


def test_operator_may_run_the_documented_commands_only(account, stack):
    outputs = stack.outputs()

    def client(service):
        return account.client(service, account.operator)

    # Not tested: GetAlias, because ministack asks for ListAliases, and message move tasks, because it does not see
    # their queue.
    client("sqs").purge_queue(QueueUrl=outputs["EventDeadLetterQueueUrl"])
    client("cloudformation").describe_stack_resource(StackName=stack.name, LogicalResourceId="Dashboard")
    client("cloudwatch").list_metrics(Namespace="DirectDestination")
    client("cloudwatch").describe_alarms(AlarmNamePrefix=stack.name)
    client("logs").filter_log_events(logGroupName=outputs["ApiLogGroupName"], limit=3)
    client("lambda").list_event_source_mappings()
    client("dynamodb").list_tables()
    with pytest.raises(ClientError, match="AccessDenied"):
        client("dynamodb").delete_table(TableName=outputs["EventTableName"])
    with pytest.raises(ClientError, match="AccessDenied"):
        client("lambda").invoke(FunctionName=outputs["FunctionName"], Payload=b"{}")


@pytest.fixture(scope="module")
def proxy(account):
    """Return a proxy in front of the stores. It passes requests on until it gets rules."""
    with store_proxy(account.endpoint) as proxy:
        yield proxy


def test_consumer_keeps_contacts_and_accepts_replays(stack, key, proxy):
    stack.update(Consumer="on", edit=lambda template: use_endpoint(template, proxy.url))
    assert stack.post(key, {**IDENTIFY, "messageId": "for-contacts"})[0] == 200
    eventually(lambda: stack.run("contacts", "show", "ada", "--customer", "acme").returncode == 0)
    [replayed] = stack.read("replay", "--customer", "acme", "--restart", "--yes")
    assert replayed["queued"] > 0
    queue = stack.outputs()["EventQueueUrl"]
    eventually(lambda: stack.waiting(queue) == 0)
    assert stack.waiting(stack.outputs()["EventDeadLetterQueueUrl"]) == 0
    assert stack.waiting(stack.outputs()["StreamDeadLetterQueueUrl"]) == 0


def use_endpoint(template, url):
    """Change a template so that its functions reach their stores at a URL."""
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["Environment"]["Variables"]["AWS_ENDPOINT_URL"] = url


def test_simulation_loses_and_doubles_nothing_while_stores_fail(stack, proxy):
    proxy.rules = parse_orders(FAULTS).rules
    stack.ran("simulate", "--stack", stack.name, "--url", stack.url, "--contacts", "--deletes", "0.2", *SIMULATED)
    assert {*proxy.requests} >= {Store.KEYS, Store.EVENTS, Store.REJECTS, Store.ERASURES}


def test_refused_message_is_kept_until_a_redeployed_schema_accepts_it(stack, key, tmp_path):
    [reject] = stack.read("rejects", "list", "--customer", "acme")
    assert reject["code"] == "invalid_message"
    function = make_function_without_required_event(tmp_path)
    stack.update(code={"DestinationFunction": function})
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


@pytest.mark.parametrize("kind", ["standard", "fifo"])
def test_certify_finds_no_fault_with_a_queue(stack, key, kind):
    stack.update(EventSink="sqs", EventQueueType=kind, Consumer="off")
    eventually(lambda: stack.health() == 200)
    assert stack.post(key, {**IDENTIFY, "userId": kind})[0] == 202
    stack.certify()


def test_parameters_take_effect(stack, key):
    stack.update(EventSink="dynamodb", Maintenance="on")
    assert stack.post(key, IDENTIFY, retries=False)[1]["code"] == "maintenance"
    [receipt] = stack.read("erase", "--customer", "acme", "--user", "mallory", "--yes")
    assert receipt["finished_at"]
    stack.update(
        KeyCacheSeconds="30", Maintenance="off", SupportedCallTypes="track,identify,delete", AfterErasure="refuse"
    )
    assert stack.post(key, {"type": "page", "userId": "ada"})[0] == 501
    late = {**IDENTIFY, "userId": "mallory", "timestamp": "2020-01-01T00:00:00Z"}
    assert stack.post(key, late)[1]["code"] == "user_erased"
    assert stack.post(key, {**IDENTIFY, "userId": "grace"})[0] == 200


def test_update_that_fails_leaves_the_old_version_in_service(stack, key):
    counted = {"MetricName": "Any", "MetricNamespace": "Any", "MetricValue": "1"}
    broken = {"LogGroupName": "does-not-exist", "FilterPattern": "", "MetricTransformations": [counted]}
    added = {"Broken": {"Type": "AWS::Logs::MetricFilter", "DependsOn": "EraserFunction", "Properties": broken}}
    printed = stack.update(add=added, succeeds=False, Maintenance="on")
    assert "UPDATE_ROLLBACK" in printed
    eventually(lambda: stack.health() == 200)
    assert stack.post(key, {**IDENTIFY, "userId": "after-rollback"})[0] == 200


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Return the previous release, or None if the checkout has no history."""
    return previous_release(tmp_path_factory.mktemp("previous"))


@pytest.fixture(scope="module")
def other(account, release):
    """Return a second stack in the same account, with the previous release."""
    other = DeployedStack(account, "direct-destination-staging")
    parameters = {"KeyCacheSeconds": "0", "Consumer": "on"}
    if release:
        other.deploy_template(release.template(), **parameters)
    else:
        other.update(**parameters)
    return other


@pytest.fixture(scope="module")
def others_key(other, release):
    """Return a key of the second stack, created by the commands of its release."""
    return release.create_key(other, "acme") if release else other.create_key("acme")


def test_two_stacks_of_one_account_share_nothing(stack, key, other, others_key):
    assert other.post(key, IDENTIFY)[0] == 401
    assert other.post(others_key, IDENTIFY)[0] == 200
    assert stack.post(others_key, IDENTIFY)[0] == 401


def test_upgrade_reads_everything_the_previous_release_stored(release, other, others_key):
    if release is None:
        pytest.skip("there is no previous release: this clone has no history")
    message = {**IDENTIFY, "messageId": "before-the-upgrade"}
    assert other.post(others_key, message)[0] == 200
    assert other.post(others_key, WITHOUT_EVENT)[0] == 400
    assert other.post(others_key, {"type": "delete", "userId": "eve", "messageId": "erase-eve"})[0] == 202
    eventually(lambda: [one["finished_at"] for one in other.read("erasures", "list", "--customer", "acme")])
    eventually(lambda: other.run("contacts", "show", "ada", "--customer", "acme").returncode == 0)
    other.update()
    assert other.post(others_key, message) == (200, {"status": "duplicate", "message_id": "before-the-upgrade"})
    [[key]] = other.read("keys", "list")
    assert key["status"] == "active"
    stored = other.read("messages", "list", "--customer", "acme", "--user", "ada")
    assert "before-the-upgrade" in {message["message_id"] for message in stored}
    [reject] = other.read("rejects", "list", "--customer", "acme")
    assert reject["code"] == "invalid_message"
    [receipt] = other.read("erasures", "list", "--customer", "acme")
    assert receipt["finished_at"]
    [contact] = other.read("contacts", "show", "ada", "--customer", "acme")
    assert contact["traits"]["email"] == IDENTIFY["traits"]["email"]


def test_undeploy_removes_the_leftovers_that_plan_names(account):
    printed = account.make("plan", "prod")
    assert "AWS::DynamoDB::Table" in printed
    assert "Month 1 at 10 messages/s" in printed
    assert "an empty stack in the state REVIEW_IN_PROGRESS" in printed
    cloudformation = account.client("cloudformation")
    [planned] = cloudformation.describe_stacks(StackName="direct-destination")["Stacks"]
    assert planned["StackStatus"] == "REVIEW_IN_PROGRESS"
    assert cloudformation.list_stack_resources(StackName="direct-destination")["StackResourceSummaries"] == []
    account.make("undeploy", "prod", "--no-prompts", "--region", REGION)
    assert "direct-destination" not in {found["StackName"] for found in cloudformation.describe_stacks()["Stacks"]}
    bucket, _, artifact = account.code.removeprefix("s3://").partition("/")
    account.client("s3").head_object(Bucket=bucket, Key=artifact)  # another stage may need it for a rollback


def test_undeployed_stack_leaves_its_tables_and_queues(account, stack):
    outputs = stack.outputs()
    printed = account.make("undeploy", "dev", "--no-prompts", "--region", REGION)
    assert "Tables and queues stay" in printed
    tables = account.client("dynamodb").list_tables()["TableNames"]
    queues = account.client("sqs").list_queues()["QueueUrls"]
    assert len([name for name in tables if name.startswith(stack.name + "-")]) == 5
    assert len([url for url in queues if f"/{stack.name}-" in url]) == 6
    assert outputs["EventTableName"] in tables
    functions = account.client("lambda").list_functions()["Functions"]
    assert not [function for function in functions if function["FunctionName"].startswith(stack.name + "-")]
