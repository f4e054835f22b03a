"""The whole stack, deployed by `sam deploy` into an emulated AWS account that enforces IAM; run by `make e2e-deploy`.

The functions run from the built artifact, each with the permissions of its role. The tests share a stack and follow
each other: each begins with what the last one left. `deployed/gaps.py` names what the emulator does otherwise than
AWS, and docs/deploy.md what only AWS can show.
"""

import gzip
import json

import pytest
from deployed.stack import BUILT, DeployedStack, EmulatedAccount, eventually

pytestmark = pytest.mark.skipif(not (BUILT / "template.yaml").exists(), reason="nothing is built: make build")

IDENTIFY = {"type": "identify", "userId": "ada", "traits": {"email": "ada@example.com", "name": "Ada"}}


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
    assert {message["type"] for message in stored} == {"identify", "track", "page", "screen", "group", "alias"}


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
