"""Test `destination subject export`: everything that is stored of a person, as `destination erase` would delete it."""

import json
import stat

import pytest
from local_server import run
from test_cli_erasures import carry_out, erase, listed, track

from consumer import eraser
from consumer.contacts.table import ContactTable
from destination.deployment.stack import LOCAL_STACK

pytest_plugins = ["servers"]

ADA = ("--customer", "demo", "--user", "ada")
NO_EVENT = {"type": "track", "userId": "ada", "messageId": "without-event"}


def export(*args):
    """Return the documents of an export, and its messages on standard error."""
    result = run("subject", "export", *args, "--stack", LOCAL_STACK)
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def kinds(documents):
    return [document["kind"] for document in documents]


@pytest.fixture(params=["user", "linked"])
def scope(request):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    return request.param


@pytest.fixture
def destination(deploy, scope):
    destination = deploy(ErasureScope=scope, Consumer="on")
    for message in (
        track(userId="ada", messageId="first"),
        track(userId="ada", anonymousId="5f0c", messageId="second", properties={"text": "x" * 100_000}),
        NO_EVENT,
        track(anonymousId="5f0c", messageId="visit"),
        {"type": "track", "anonymousId": "5f0c"},
        {"type": "alias", "userId": "ada", "previousId": "old-ada", "messageId": "alias"},
        track(anonymousId="old-ada"),
        track(userId="bob"),
        track(userId="ADA"),
    ):
        destination.post(message)
    return destination


def test_export_has_every_item_that_an_erasure_then_counts(destination, scope):
    documents, _ = export(*ADA)
    summary = documents[-1]
    erase(*ADA, "--yes", "--wait", "0")
    carry_out(destination)
    [receipt] = listed()
    assert receipt["scope"] == scope
    counted = {name: summary.get(name.removesuffix("s"), 0) for name in ("messages", "rejects", "linked_messages")}
    assert counted == {name: receipt[name] for name in counted}
    assert summary.get("linked_reject", 0) == receipt["linked_rejects"]
    assert counted == {"messages": 3, "rejects": 1, "linked_messages": 2 if scope == "linked" else 0}


def test_export_after_an_erasure_has_only_the_receipt(destination):
    erase(*ADA, "--yes", "--wait", "0")
    carry_out(destination)
    documents, told = export(*ADA)
    assert kinds(documents) == ["receipt", "summary"]
    assert "0 messages, 0 rejects, 0 contacts, 1 receipt." in told


@pytest.mark.usefixtures("destination")
def test_messages_are_whole_and_in_order():
    documents, _ = export(*ADA)
    messages = {document["message_id"]: document for document in documents if document["kind"] == "message"}
    assert set(messages) == {"first", "second", "alias"}
    assert messages["second"]["message"]["properties"] == {"text": "x" * 100_000}
    assert list(messages) == sorted(messages, key=lambda name: messages[name]["position"])


@pytest.mark.usefixtures("destination")
def test_exported_reject_has_the_original_body():
    documents, _ = export(*ADA)
    [reject] = [document for document in documents if document["kind"] == "reject"]
    assert json.loads(reject["body"])["messageId"] == "without-event"
    assert reject["answer"] == "event is required for track calls"


@pytest.mark.usefixtures("destination")
def test_items_of_linked_ids_are_marked(scope):
    documents, told = export(*ADA)
    linked = {document["subject"] for document in documents if document["kind"] == "linked_message"}
    if scope == "linked":
        assert linked == {"demo#anonymous#5f0c", "demo#anonymous#old-ada"}
        assert "Under 2 linked anonymous ids: 2 messages, 1 reject." in told
    else:
        assert linked == set()
        assert "2 linked anonymous ids not exported, because ErasureScope=user" in told


def test_the_contact_is_exported(destination):
    table = ContactTable(destination.account.dynamodb(), destination.stack.stores.contact_table, customer="demo")
    noon = "2031-05-17T12:00:00.000000Z"
    table.take({"type": "identify", "user_id": "ada", "message_id": "i-1", "timestamp": noon, "received_at": noon,
                "traits": {"name": "Ada"}})  # fmt: skip
    documents, _ = export(*ADA)
    [contact] = [document for document in documents if document["kind"] == "contact"]
    assert (contact["id"], contact["traits"]) == ("ada", {"name": "Ada"})


def test_unfinished_delete_is_exported_as_a_request(destination):
    destination.post({"type": "delete", "userId": "ada", "messageId": "delete-1"})
    documents, told = export(*ADA)
    assert kinds(documents).count("erasure_request") == 1
    assert "Not carried out yet: 1 delete message." in told


def test_edited_message_is_exported_unchanged(destination):
    client, table = destination.account.dynamodb(), destination.stack.stores.event_table
    [item] = [item for item in client.scan(TableName=table)["Items"] if item["message_id"]["S"] == "first"]
    client.put_item(TableName=table, Item={**item, "message": {"B": b"not compressed"}})
    documents, _ = export(*ADA)
    [unreadable] = [document["unreadable"] for document in documents if "unreadable" in document]
    assert unreadable["message"] == {"B": "bm90IGNvbXByZXNzZWQ="}
    assert documents[-1]["message"] == 3


def test_more_items_than_one_call_returns_are_all_exported(deploy):
    destination = deploy()
    for number in range(250):
        destination.post(track(userId="ada", messageId=f"m-{number}"))
    documents, _ = export(*ADA)
    assert {document["message_id"] for document in documents[:-1]} == {f"m-{number}" for number in range(250)}


@pytest.mark.usefixtures("destination")
def test_a_file_is_for_its_owner_only_and_never_overwritten(tmp_path):
    path = tmp_path / "ada.jsonl"
    documents, _ = export(*ADA, "--output", str(path))
    assert documents == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text().splitlines()[-1])["kind"] == "summary"
    again = run("subject", "export", *ADA, "--output", str(path), "--stack", LOCAL_STACK)
    assert again.exit_code == 1
    assert "exists already. Name a new file, or delete it first." in again.stderr


def test_export_says_that_queues_are_not_included(deploy):
    destination = deploy(EventSink="sqs")
    destination.post(track(userId="ada"))
    destination.post(NO_EVENT)
    documents, told = export(*ADA)
    assert kinds(documents) == ["reject", "summary"]
    assert "Messages go to a queue, which can't be searched: ask the systems that read it." in told


@pytest.mark.parametrize("options", [[], ["--user", "a", "--anonymous", "b"], ["--user", "a"]])
def test_a_person_must_be_named(options, deploy):
    deploy()
    result = run("subject", "export", *options, "--stack", LOCAL_STACK)
    assert result.exit_code == 2
