"""The whole stack, deployed by `sam deploy` into an emulated AWS account that enforces IAM; run by `make e2e-deploy`.

The functions run from the built artifact, each with the permissions of its role. The tests share a stack and follow
each other: each begins with what the last one left. `deployed/gaps.py` names what the emulator does otherwise than AWS, and
docs/deploy.md what only AWS can show.
"""

import pytest
from deployed.stack import BUILT, DeployedStack, EmulatedAccount

pytestmark = pytest.mark.skipif(not (BUILT / "template.yaml").exists(), reason="nothing is built: make build")


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
    done = stack.run_here("ping", "all", "--url", stack.url, "--api-key", key)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stack.health() == 200
    stored = stack.read("messages", "list", "--customer", "acme", "--scan")
    assert {message["type"] for message in stored} >= {"identify", "track", "page", "screen", "group", "alias"}


def test_certify_finds_no_fault(stack):
    done = stack.run("certify", "--url", stack.url)
    assert done.returncode == 0, done.stdout + done.stderr
