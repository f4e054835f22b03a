"""Test that each permission of each role is needed, and that other faults of a deployment are noticed: a scenario
fails.

The stack is deployed into an emulated account that enforces IAM. A test removes one action from the policy of a role.
Then it runs the scenario of that action with a new customer, and restores the action. `make privileges` tries all
actions, and `make e2e-privileges` one action of each statement.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from deployed.stack import BUILT, DeployedStack, EmulatedAccount

from destination.deployment.stack import FUNCTION, load_template
from handler.health import KEPT_SECONDS

pytestmark = pytest.mark.skipif(not (BUILT / "template.yaml").exists(), reason="nothing is built: make build")

IS_THOROUGH = os.environ.get("TEST_PRIVILEGES") == "all"
FAILS_WITHIN_SECONDS = 5
"""How long a scenario without a permission is watched. With the permission, each scenario takes a second or two."""
ROLES = [name for name, resource in load_template()["Resources"].items() if resource["Type"] == "AWS::IAM::Role"]
BY_LAMBDA = {("EraserRole", "SendDeadLetters"), ("ConsumerRole", "SendDeadLetters")}
"""Lambda itself uses these when it discards a batch. The emulator does not discard batches."""


# Scenarios: each returns whether a new customer got the expected result.


def accepts_a_message(stack, customer):
    return stack.once(customer.key, {"type": "identify", "userId": "ada"})[0] in {200, 202}


def accepts_a_dated_message(stack, customer):
    """Send a message with a time, because only such a message can be older than an erasure."""
    message = {"type": "identify", "userId": "ada", "timestamp": "2026-01-01T00:00:00Z"}
    return stack.once(customer.key, message)[0] == 200


def accepts_a_dated_batch(stack, customer):
    message = {"type": "track", "event": "E", "timestamp": "2026-01-01T00:00:00Z"}
    batch = [{**message, "userId": f"user-{number}"} for number in range(2)]
    _, answer = stack.once(customer.key, {"batch": batch}, "/v1/batch")
    return answer.get("accepted") == 2


def keeps_a_reject(stack, customer):
    return stack.once(customer.key, {"type": "track", "userId": "ada"})[1].get("kept") is True


def is_healthy(stack, _customer):
    time.sleep(KEPT_SECONDS + 1)  # /health answers with its last result for ten seconds
    return stack.health() == 200


def logs_a_request(stack, customer):
    accepts_a_message(stack, customer)
    return soon(lambda: stack.logged("DestinationLogGroup", customer.id))


def erases_a_user(stack, customer):
    """Erase a user with messages, linked messages and rejects, and expect a receipt."""
    stack.once(customer.key, {"type": "identify", "userId": "eve"})
    stack.once(customer.key, {"type": "track", "userId": "eve"})
    stack.once(customer.key, {"type": "delete", "userId": "eve"})
    return soon(
        lambda: (
            [receipt["finished_at"] for receipt in stack.read("erasures", "list", "--customer", customer.id)]
            and stack.items("EventTableName", customer.id) == []
            and stack.items("RejectsTableName", customer.id) == []
        )
    )


def logs_an_erasure(stack, customer):
    lines = stack.lines("EraserLogGroup")
    erases_a_user(stack, customer)
    return stack.lines("EraserLogGroup") > lines


def keeps_and_erases_a_contact(stack, customer):
    """Create and erase a contact with old and new events, and with a merged visitor."""
    for message in (
        {"type": "track", "anonymousId": "visitor", "event": "Seen"},
        {"type": "alias", "previousId": "visitor", "userId": "ada"},
        {"type": "track", "userId": "ada", "event": "Old", "timestamp": "2020-01-01T00:00:00Z"},
        {"type": "track", "userId": "ada", "event": "New"},
    ):
        stack.once(customer.key, message)
    if not soon(lambda: len(stack.seen(customer.id)) == 3):
        return False
    stack.once(customer.key, {"type": "delete", "userId": "ada"})
    return soon(lambda: stack.seen(customer.id) == [])


def keeps_a_contact(stack, customer):
    accepts_a_message(stack, customer)
    return soon(lambda: stack.items("ContactTableName", customer.id))


def logs_consumed_messages(stack, customer):
    lines = stack.lines("ConsumerLogGroup")
    keeps_a_contact(stack, customer)
    return stack.lines("ConsumerLogGroup") > lines


def sends_a_failure_to_the_queue(stack, customer):
    queue = stack.outputs()["EventQueueUrl"]
    before = stack.waiting(queue)
    accepts_a_message(stack, customer)
    return soon(lambda: stack.waiting(queue) > before)


def moves_unreadable_messages(stack, customer):
    outputs = stack.outputs()
    before = stack.waiting(outputs["EventDeadLetterQueueUrl"])
    item = {"subject": f"{customer.id}#user#ada", "position": "undated#broken", "type": "track", "message": "not JSON"}
    stack.account.client("dynamodb").put_item(
        TableName=outputs["EventTableName"], Item={name: {"S": value} for name, value in item.items()}
    )
    return soon(lambda: stack.waiting(outputs["EventDeadLetterQueueUrl"]) > before)


class Scenario(NamedTuple):
    """The purpose of a permission: a check, the parameters that the stack needs, and the scenario that must fail
    before.
    """

    check: Callable[[Any, Any], object]
    parameters: str = "table"
    without: tuple[tuple[str, str, str], ...] = ()


PARAMETERS = {
    "table": {"Consumer": "on"},
    "refuse": {"Consumer": "on", "AfterErasure": "refuse"},
    "queue": {"Consumer": "on", "EventSink": "sqs", "AfterErasure": "store"},
    "fifo": {"Consumer": "on", "EventSink": "sqs", "EventQueueType": "fifo"},
}
SCENARIOS = {
    ("DestinationRole", "ReadKeys"): Scenario(accepts_a_message),
    ("DestinationRole", "PutEvents"): Scenario(accepts_a_message),
    ("DestinationRole", "PutRejects"): Scenario(keeps_a_reject),
    ("DestinationRole", "ReadTombstones", "dynamodb:GetItem"): Scenario(accepts_a_dated_message, "refuse"),
    ("DestinationRole", "ReadTombstones", "dynamodb:BatchGetItem"): Scenario(accepts_a_dated_batch, "refuse"),
    ("DestinationRole", "SendEvents", "sqs:SendMessage"): Scenario(accepts_a_message, "queue"),
    ("DestinationRole", "SendEvents", "sqs:GetQueueAttributes"): Scenario(is_healthy, "queue"),
    ("DestinationRole", "SendEventsInOrder", "sqs:SendMessage"): Scenario(accepts_a_message, "fifo"),
    ("DestinationRole", "SendEventsInOrder", "sqs:GetQueueAttributes"): Scenario(is_healthy, "fifo"),
    ("DestinationRole", "OpenLog"): Scenario(logs_a_request),
    ("DestinationRole", "WriteLog"): Scenario(logs_a_request),
    ("EraserRole", "ReadStream"): Scenario(erases_a_user),
    ("EraserRole", "FindAndDeleteEvents"): Scenario(erases_a_user),
    ("EraserRole", "FindRejects"): Scenario(erases_a_user),
    ("EraserRole", "DeleteRejects"): Scenario(erases_a_user),
    ("EraserRole", "WriteReceipts"): Scenario(erases_a_user),
    ("EraserRole", "HandOverDeletes"): Scenario(erases_a_user),
    ("EraserRole", "OpenLog"): Scenario(logs_an_erasure),
    ("EraserRole", "WriteLog"): Scenario(logs_an_erasure),
    ("ConsumerRole", "ReadStream"): Scenario(keeps_a_contact),
    ("ConsumerRole", "TakeFromQueue"): Scenario(keeps_a_contact, "queue"),
    ("ConsumerRole", "TakeFromFifoQueue"): Scenario(keeps_a_contact, "fifo"),
    ("ConsumerRole", "KeepContacts"): Scenario(keeps_and_erases_a_contact),
    ("ConsumerRole", "SendFailuresToQueue"): Scenario(
        sends_a_failure_to_the_queue,
        without=(
            ("ConsumerRole", "KeepContacts", "dynamodb:PutItem"),
            ("ConsumerRole", "TakeFromQueue", "sqs:ReceiveMessage"),
        ),
    ),
    ("ConsumerRole", "GiveUp"): Scenario(moves_unreadable_messages),
    ("ConsumerRole", "GiveUpInOrder"): Scenario(moves_unreadable_messages, "fifo"),
    ("ConsumerRole", "OpenLog"): Scenario(logs_consumed_messages),
    ("ConsumerRole", "WriteLog"): Scenario(logs_consumed_messages),
}


def granted() -> list[tuple[str, str, str]]:
    """Return each permission of the template: role, statement and action."""
    permissions = []
    for role in ROLES:
        for policy in load_template()["Resources"][role]["Properties"]["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                actions = statement["Action"]
                permissions += [
                    (role, statement["Sid"], action) for action in ([actions] if isinstance(actions, str) else actions)
                ]
    return permissions


def scenario_of(role, statement, action) -> Scenario | None:
    """Return the scenario of a permission."""
    return SCENARIOS.get((role, statement, action)) or SCENARIOS.get((role, statement))


TRIED = [permission for permission in granted() if scenario_of(*permission)]
REPRESENTATIVE = [
    permission
    for number, permission in enumerate(TRIED)
    if permission[:2] not in {tried[:2] for tried in TRIED[:number]}
]
CASES = sorted(
    TRIED if IS_THOROUGH else REPRESENTATIVE, key=lambda case: [*PARAMETERS].index(scenario_of(*case).parameters)
)


def test_all_permissions_have_a_scenario():
    without = {permission[:2] for permission in granted() if scenario_of(*permission) is None}
    assert without == BY_LAMBDA


class Customer(NamedTuple):
    """A new customer."""

    id: str
    key: str


class PrivilegedStack(DeployedStack):
    """A deployed stack. Permissions can be removed from its roles."""

    def __init__(self, account, name):
        super().__init__(account, name)
        self.deployed = None
        self.customers = 0

    def become(self, parameters):
        """Deploy the stack with parameters, unless it has them already."""
        if self.deployed != parameters:
            deploy = self.update if self.deployed else self.deploy
            deploy(KeyCacheSeconds="0", **PARAMETERS[parameters])
            self.deployed = parameters

    def new_customer(self):
        """Return a customer that no function has seen."""
        self.customers += 1
        name = f"customer-{self.customers}"
        return Customer(name, self.create_key(name))

    def once(self, key, message, path="/segment"):
        """Send a message once. A missing permission fails every time."""
        return self.post(key, message, path, retries=False)

    def physical(self, name):
        """Return the physical name of a resource."""
        found = self.account.client("cloudformation").describe_stack_resource(
            StackName=self.name, LogicalResourceId=name
        )
        return found["StackResourceDetail"]["PhysicalResourceId"]

    @contextmanager
    def without(self, *permissions):
        """Remove permissions from the policies of roles until the end of the context."""
        iam = self.account.client("iam")
        originals = []
        for role, statement, action in permissions:
            names = {"RoleName": self.physical(role)}
            [names["PolicyName"]] = iam.list_role_policies(**names)["PolicyNames"]
            policy = iam.get_role_policy(**names)["PolicyDocument"]
            originals.append({**names, "PolicyDocument": json.dumps(policy)})
            iam.put_role_policy(**names, PolicyDocument=json.dumps(less(policy, statement, action)))
        try:
            yield
        finally:
            for original in reversed(originals):
                iam.put_role_policy(**original)

    def lines(self, group):
        """Return how many lines a log group has."""
        return len(self.account.client("logs").filter_log_events(logGroupName=self.physical(group))["events"])

    def logged(self, group, text):
        """Return whether a log group has a line with a text."""
        events = self.account.client("logs").filter_log_events(logGroupName=self.physical(group))["events"]
        return any(text in event["message"] for event in events)

    def items(self, table, customer):
        """Return the items of a customer in a table that an output names."""
        found = self.account.client("dynamodb").scan(TableName=self.outputs()[table])["Items"]
        return [item for item in found if f'"{customer}' in json.dumps(item, default=str)]

    def seen(self, customer):
        """Return the event counts of a customer's contacts."""
        items = self.items("ContactTableName", customer)
        return [item for item in items if item["item"]["S"].startswith("seen#")]


def less(policy, statement, action):
    """Return a policy without an action of a statement."""
    statements = []
    for kept in policy["Statement"]:
        actions = [kept["Action"]] if isinstance(kept["Action"], str) else kept["Action"]
        if kept["Sid"] == statement:
            assert action in actions
            actions = [other for other in actions if other != action]
        if actions:
            statements.append({**kept, "Action": actions})
    return {**policy, "Statement": statements}


limit_seconds = FAILS_WITHIN_SECONDS


def soon(check):
    """Wait some seconds for a check to hold. Return whether it did."""
    deadline = time.monotonic() + limit_seconds
    while not (holds := check()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return bool(holds)


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Return the stack, deployed on demand."""
    account = EmulatedAccount(tmp_path_factory.mktemp("account"))
    yield PrivilegedStack(account, "direct-destination-dev")
    account.stop()


PROVEN = set()
"""Scenarios that succeeded with all permissions."""


def prove(stack, scenario):
    """Assert once that a scenario succeeds with all permissions."""
    global limit_seconds  # noqa: PLW0603 -- the time that a success may take on a busy machine
    if scenario not in PROVEN:
        limit_seconds = 60
        with stack.without(*scenario.without):
            succeeds = soon(lambda: scenario.check(stack, stack.new_customer()))
            assert succeeds, f"{scenario} fails although nothing is taken away"
        limit_seconds = FAILS_WITHIN_SECONDS
        PROVEN.add(scenario)


@pytest.mark.parametrize("permission", CASES, ids=lambda case: "-".join(case).replace(":", "-"))
def test_scenario_fails_without_a_permission(stack, permission):
    scenario = scenario_of(*permission)
    stack.become(scenario.parameters)
    prove(stack, scenario)
    customer = stack.new_customer()
    with stack.without(*scenario.without, permission):
        assert not scenario.check(stack, customer), f"{scenario.check.__name__} succeeds without {permission}"


def ignore_deletes(template):
    """Change the eraser's event source so that it passes on no `delete`."""
    source = template["Resources"]["EraserFunction"]["Properties"]["Events"]["Deletes"]["Properties"]
    [pattern] = source["FilterCriteria"]["Filters"]
    assert '"delete"' in pattern["Pattern"]
    pattern["Pattern"] = pattern["Pattern"].replace('"delete"', '"deleted"')


def ignore_insertions(template):
    """Change the consumer's event source so that it passes on removed items."""
    source = template["Resources"]["StreamConsumerFunction"]["Properties"]["Events"]["Stored"]["Properties"]
    [pattern] = source["FilterCriteria"]["Filters"]
    assert '"INSERT"' in pattern["Pattern"]
    pattern["Pattern"] = pattern["Pattern"].replace('"INSERT"', '"REMOVE"')


def rename_an_output(template):
    """Rename the output with the name of the key table."""
    template["Outputs"]["KeyTable"] = template["Outputs"].pop("KeyTableName")


def lists_keys(stack, _customer):
    return stack.run("keys", "list").returncode == 0


@pytest.mark.parametrize(
    ("edit", "check"),
    [(ignore_deletes, erases_a_user), (ignore_insertions, keeps_a_contact), (rename_an_output, lists_keys)],
    ids=lambda function: function.__name__,
)
def test_scenario_fails_with_a_fault_of_the_template(stack, edit, check):
    stack.become("table")
    prove(stack, Scenario(check))
    customer = stack.new_customer()
    stack.update(edit=edit, KeyGraceSeconds="299")  # a changed output alone is not a change for CloudFormation
    try:
        assert not check(stack, customer)
    finally:
        stack.update(KeyGraceSeconds="300")


@pytest.mark.parametrize(
    ("package", "check"),
    [
        ("urllib3", accepts_a_message),
        ("jsonschema", keeps_a_reject),
        ("rpds", keeps_a_reject),
    ],
)
def test_scenario_fails_without_a_package(stack, package, check, tmp_path):
    stack.become("table")
    prove(stack, Scenario(check))
    customer = stack.new_customer()
    folder = tmp_path / FUNCTION
    shutil.copytree(BUILT / FUNCTION, folder)
    shutil.rmtree(folder / package)
    stack.update(code={FUNCTION: folder})
    try:
        assert not check(stack, customer)
    finally:
        stack.update()
