"""Test `destination contacts`: the contacts of the consumer, as a table and as JSON."""

import json
import uuid

import boto3
import pytest
from local_server import run

from consumer.contacts.table import ContactTable
from destination.deployment.stack import LOCAL_STACK

pytest_plugins = ["servers"]

NOON = "2031-05-17T12:00:00.000000Z"


def contacts(*args):
    """Run `destination contacts` on the stack."""
    return run("contacts", *args, "--stack", LOCAL_STACK)


def listed(*options):
    """Return the JSON objects that a list prints."""
    result = contacts("list", "--customer", "acme", "--json", *options)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def message(call_type, user="user-1", **fields):
    times = {"timestamp": NOON, "received_at": NOON}
    return {"type": call_type, "user_id": user, "message_id": "m-1", **times, **fields}


@pytest.fixture
def keep(deploy):
    """Return a function that adds messages to the contacts of a deployment with the consumer on."""
    destination = deploy(Consumer="on")

    def keep(*messages, customer="acme"):
        table = ContactTable(destination.account.dynamodb(), destination.stack.stores.contact_table, customer=customer)
        for one in messages:
            table.take(one)

    return keep


ADA = (
    message("identify", traits={"name": "Ada", "plan": "pro"}),
    message("group", group_id="north", traits={"employees": 7}),
    message("track", event="Lamp Lit"),
    message("track", event="Lamp Lit", message_id="m-2"),
    message("page", None, anonymous_id="visitor-1"),
    message("alias", previous_id="visitor-1"),
)
SHOWN = {
    "id": "user-1",
    "traits": {"name": "Ada", "plan": "pro"},
    "groups": {"north": {"employees": 7}},
    "last_seen": NOON,
    "events": {"Lamp Lit": 2},
    "merged": ["visitor-1"],
}


@pytest.mark.parametrize("contact_id", ["user-1", "visitor-1"])
def test_contact_can_be_shown_by_each_of_its_ids(contact_id, keep):
    keep(*ADA)
    for options in ([], ["--json"]):
        result = contacts("show", contact_id, "--customer", "acme", *options)
        assert (result.exit_code, json.loads(result.stdout)) == (0, SHOWN)


def test_omitted_parts_of_a_contact_are_shown(keep):
    keep(message("identify", traits={"plan": "pro", "bio": "x" * 2000}))
    for options in ([], ["--json"]):
        shown = json.loads(contacts("show", "user-1", "--customer", "acme", *options).stdout)
        assert (shown["traits"], shown["left_out"]) == (
            {"plan": "pro"},
            {"traits": ["bio"], "groups": [], "more": False},
        )


def test_json_list_has_the_content_of_show(keep):
    keep(*ADA)
    assert listed() == [SHOWN]


def test_table_has_a_line_for_each_contact(keep):
    keep(*ADA, message("identify", "user-2", traits={"email": "bo@example.com"}), message("page", "user-3"))
    result = contacts("list", "--customer", "acme")
    lines = sorted(" ".join(line.split()) for line in result.stdout.splitlines())
    assert lines == [
        "Contact Name Groups Last seen (UTC)",
        "user-1 Ada north 2031-05-17 12:00:00",
        "user-2 bo@example.com 2031-05-17 12:00:00",
        "user-3 2031-05-17 12:00:00",
    ]
    assert result.stderr == "3 contacts of acme.\n"


def test_unknown_last_seen_is_shown_as_unknown(keep):
    keep(message("page", original_timestamp="at dusk"))
    assert contacts("list", "--customer", "acme").stdout.split()[-1] == "unknown"


def test_list_ends_at_its_limit_and_says_if_there_are_more(keep):
    keep(*(message("page", f"user-{number}") for number in range(3)))
    assert len(listed("--limit", "2")) == 2
    result = contacts("list", "--customer", "acme", "--limit", "2")
    assert result.stderr == "2 contacts of acme; --limit shows more.\n"


def test_json_list_reads_no_further_than_its_limit(keep):
    keep(*(message("page", f"user-{number}") for number in range(20)))
    asked = []
    events = boto3.DEFAULT_SESSION.events

    def count(request, **_):
        asked.append(request)

    events.register("before-send.dynamodb.Query", count)
    listed("--limit", "1")
    events.unregister("before-send.dynamodb.Query", count)
    assert len(asked) == 2  # a page of contacts, and the events of one contact


def test_the_contacts_of_another_customer_are_not_shown(keep):
    keep(message("page"), customer="umbrella")
    assert listed() == []
    result = contacts("show", "user-1", "--customer", "acme")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: No contact of acme has the id user-1\n"


def test_erased_contact_is_not_shown(keep):
    keep(*ADA, message("delete"))
    assert listed() == []
    assert contacts("show", "user-1", "--customer", "acme").exit_code == 1


def test_control_characters_are_not_printed(keep):
    keep(message("identify", "\x1b[31m", traits={"name": "[/b]\n\ud800"}))
    assert "�[31m\t[/b]��" in contacts("list", "--customer", "acme").stdout
    for result in (contacts("show", "\x1b[31m", "--customer", "acme"), contacts("show", "\x1b", "--customer", "acme")):
        assert "\x1b" not in result.output


OFF = "the consumer of this deployment is off. Deploy it with Consumer=on to keep contacts"


def test_empty_list_explains_that_the_consumer_is_off(deploy):
    deploy(Consumer="off")
    assert contacts("list", "--customer", "acme").stderr == f"0 contacts of acme: {OFF}.\n"
    assert contacts("show", "u", "--customer", "acme").stderr == f"Error: No contact of acme has the id u: {OFF}\n"


@pytest.mark.parametrize("command", [["list"], ["show", "user-1"]], ids=lambda words: words[0])
def test_stack_needs_the_customer_option(command, deploy):
    deploy()
    result = contacts(*command)
    assert result.exit_code == 2
    assert "Name the customer with --customer" in result.stderr


def test_customer_on_a_local_server_is_demo_by_default(server):
    user = f"user-{uuid.uuid4()}"
    table = ContactTable(server.account.dynamodb(), server.stores.contact_table, customer="demo")
    table.take(message("page", user))
    assert server.json("contacts", "show", user)["id"] == user
    assert server.run("contacts", "show", user, "--customer", "acme").exit_code == 1
