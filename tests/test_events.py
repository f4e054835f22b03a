"""Test every file in events/: it is answered or carried out as events/README.md says."""

import importlib
import json
import re
from dataclasses import dataclass

import pytest

from consumer.contacts.table import ContactTable
from consumer.erasure.table import ErasureTable
from consumer.runtime.clients import background_client
from destination.deployment import demo
from destination.deployment.stack import load_template
from destination.paths import ROOT

EVENTS = ROOT / "events"
TABLES = (EVENTS / "README.md").read_text()
ROW = re.compile(
    r"^\| `(?P<file>[\w-]+\.json)` \| .+ \| (?P<status>\d+) \| `(?P<code>\w+)` \| (?P<message>.*?) ?\|$", re.MULTILINE
)
ROWS = {row["file"]: row for row in ROW.finditer(TABLES)}
COUNTED = re.findall(r"^\| `([\w-]+\.json)` \| .+ \| (\d+) \| (\d+) \| ?([`\w ]*?) ?\|$", TABLES, re.MULTILINE)
"""The files for the library routes, each with status, number of accepted messages, and the codes of the others."""
HANDED_OVER = re.findall(r"^\| `([\w-]+\.json)` \| .+ \| `(\w+Function)` \| .+ \|$", TABLES, re.MULTILINE)
"""The files for other functions, each with its function."""
RESOURCES = load_template()["Resources"]


def read(file):
    return json.loads((EVENTS / file).read_text())


def test_the_tables_name_every_file():
    named = {*ROWS, *(file for file, *_ in COUNTED), *(file for file, _ in HANDED_OVER)}
    files = {path.name for path in EVENTS.glob("*.json")}
    assert not files - named, "events/README.md needs a row for each file"
    assert named == files


@pytest.mark.parametrize("file", ROWS)
def test_event_is_answered_as_its_row_says(file, deploy):
    answer = deploy().send(read(file))
    said = answer.body.get("code", answer.body.get("status"))
    assert (str(answer.status), said) == (ROWS[file]["status"], ROWS[file]["code"])
    if answer.status not in (200, 202):
        assert answer.body["message"] == ROWS[file]["message"]


@pytest.mark.parametrize("file", ROWS)
def test_queue_answers_202_instead_of_200(file, deploy):
    destination = deploy(EventSink="sqs")
    answer = destination.send(read(file))
    accepted = ROWS[file]["status"] in ("200", "202")
    assert str(answer.status) == ("202" if accepted else ROWS[file]["status"])
    assert len(destination.queued()) == accepted


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
@pytest.mark.parametrize("row", COUNTED, ids=lambda row: row[0])
def test_library_event_is_counted_as_its_row_says(row, sink, deploy):
    file, status, accepted, codes = row
    destination = deploy(EventSink=sink)
    for stored in (0, int(accepted)) if sink == "dynamodb" else (0, 0):
        answer = destination.send(read(file))
        assert str(answer.status) == status
        assert (answer.body["accepted"], answer.body["duplicates"]) == (int(accepted) - stored, stored)
        assert [refused["code"] for refused in answer.body["rejected"]] == codes.replace("`", "").split()


# Events for other functions


@dataclass(frozen=True, kw_only=True)
class Context:
    """The context of a Lambda invocation."""

    function_name: str

    def get_remaining_time_in_millis(self):
        return RESOURCES[self.function_name]["Properties"]["Timeout"] * 1000


def hand_over(function, file):
    """Invoke the function of a sample event with it."""
    module, _, name = RESOURCES[function]["Properties"]["Handler"].rpartition(".")
    return getattr(importlib.import_module(module), name)(read(file), Context(function_name=function))


@pytest.fixture
def destination(deploy):
    return deploy(Consumer="on")


@pytest.fixture
def contacts(destination):
    """Return a function that reads the contacts: id -> contact."""

    def contacts():
        name = destination.stack.stores.contact_table
        table = ContactTable(background_client("dynamodb"), name, customer=demo.CUSTOMER)
        return {profile.contact_id: table.to_json(profile) for profile in table.profiles()}

    return contacts


@pytest.mark.usefixtures("destination")
@pytest.mark.parametrize(("file", "function"), HANDED_OVER)
def test_repeated_batch_succeeds_without_effect(file, function, contacts):
    assert hand_over(function, file) == {"batchItemFailures": []}
    once = contacts()
    assert hand_over(function, file) == {"batchItemFailures": []}
    assert contacts() == once


@pytest.mark.parametrize(
    ("function", "file", "kept"),
    [
        ("StreamConsumerFunction", "stream-identify.json", {"user-4711": {}}),
        ("QueueConsumerFunction", "queue-identify.json", {"user-4711": {}}),
        (
            "StreamConsumerFunction",
            "stream-batch.json",
            {"user-4711": {"Order Completed": 1}, "user-4712": {"Report Exported": 1, "Signed Out": 1}},
        ),
        ("QueueConsumerFunction", "queue-batch.json", {"user-4711": {"Order Completed": 1}, "user-4712": {}}),
        (
            "QueueConsumerFunction",
            "queue-fifo-batch.json",
            {"user-4711": {"Order Completed": 1, "Order Shipped": 1}, "user-4712": {"Signed Out": 1}},
        ),
    ],
)
def test_the_users_of_a_batch_are_contacts(function, file, kept, contacts):
    hand_over(function, file)
    assert {contact_id: contact["events"] for contact_id, contact in contacts().items()} == kept


@pytest.mark.parametrize(
    ("function", "file"),
    [("StreamConsumerFunction", "stream-identify.json"), ("QueueConsumerFunction", "queue-identify.json")],
)
def test_consumed_messages_give_the_user_a_profile(function, file, contacts):
    hand_over(function, file)
    assert contacts()["user-4711"]["traits"]["email"] == "jördis@example.com"


def test_stored_delete_removes_a_contact(contacts):
    for file, function in HANDED_OVER:
        if function != "EraserFunction":
            hand_over(function, file)
    hand_over("StreamConsumerFunction", "stream-delete.json")
    assert [*contacts()] == ["user-4712"]


def test_stored_delete_erases_the_user_and_leaves_a_receipt(destination):
    for file in ("identify.json", "track.json", "delete.json"):
        destination.send(read(file))
    hand_over("EraserFunction", "stream-delete.json")
    # The stored delete is newer than the delete in the sample.
    assert [item["type"] for item in destination.stored()] == ["delete"]
    erasures = ErasureTable(background_client("dynamodb"), destination.stack.stores.erasure_table)
    assert [(receipt.customer_id, receipt.messages) for receipt in erasures.everything()] == [(demo.CUSTOMER, 2)]
