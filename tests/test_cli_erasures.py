"""Test `destination erase` and `erasures`: dry runs, receipts, and unfinished requests."""

import json
import subprocess

import pytest
from local_server import run
from test_eraser import Context

from consumer import eraser
from consumer.erasure.table import ErasureTable
from consumer.runtime.batch import BatchFailed
from destination.deployment.stack import LOCAL_STACK

pytest_plugins = ["servers"]


def erase(*args, stdin=None):
    """Run `destination erase` on the stack."""
    return run("erase", *args, "--stack", LOCAL_STACK, stdin=stdin)


def erasures(*args, stdin=None):
    """Run a command on the stack."""
    return run("erasures", *args, "--stack", LOCAL_STACK, stdin=stdin)


def as_json(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def listed(*options):
    result = erasures("list", "--json", *(options or ["--scan"]))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def carry_out(destination, *, but=None, seconds=900):
    """Pass the stored `delete` messages to the eraser, as the stream would, except the one stored at `but`."""
    items = destination.account.dynamodb().scan(TableName=destination.stack.stores.event_table)["Items"]
    records = [
        {"eventName": "INSERT", "dynamodb": {"NewImage": item, "SequenceNumber": str(number)}}
        for number, item in enumerate(items, start=1)
        if item["type"]["S"] == "delete" and item["stored_at"]["S"] != but
    ]
    if records:
        eraser.lambda_handler({"Records": records}, Context(seconds=seconds))


def subjects(destination):
    """Return the subjects of the stored messages."""
    return sorted(item["subject"] for item in destination.stored())


def track(**fields):
    return {"type": "track", "event": "Lamp Lit", **fields}


ADA = ("--customer", "demo", "--user", "ada")


@pytest.fixture
def destination(deploy, prepare):
    destination = deploy()
    messages = (
        track(userId="ada"),
        track(userId="ada", anonymousId="5f0c"),
        {"type": "track", "userId": "ada"},
        track(anonymousId="5f0c"),
        track(userId="bob"),
        track(userId="old-ada"),
        {"type": "alias", "userId": "ada", "previousId": "old-ada"},
    )
    prepare("messages of Ada", lambda: [destination.post(message) for message in messages])
    return destination


def test_dry_run_shows_stored_messages_and_linked_ids(destination):
    assert as_json(erase(*ADA, "--dry-run", "--json")) == {
        "messages": 3,
        "requests": 0,
        "rejects": 1,
        "scope": "user",
        "linked": [
            {"kind": "anonymous", "id": "5f0c", "messages": 1, "requests": 0, "rejects": 0},
            {"kind": "previous", "id": "old-ada", "messages": 0, "requests": 0, "rejects": 0},
            {"kind": "user", "id": "old-ada", "messages": 1, "requests": 0, "rejects": 0},
        ],
    }
    assert len(destination.stored()) == 6


@pytest.mark.parametrize(("scope", "then"), [("user", "stays, unless"), ("linked", "except users, is erased too")])
def test_dry_run_says_what_happens_to_linked_ids(scope, then, deploy):
    deploy(ErasureScope=scope).post(track(userId="ada", anonymousId="5f0c"))
    told = erase(*ADA, "--dry-run").output
    assert "Stored of userId ada of demo: 1 message, 0 rejects." in told
    assert ("5f0c" in told, then in told) == (True, True)


def test_dry_run_shows_unfinished_requests(destination):
    destination.post({"type": "delete", "userId": "ada"})
    assert "Not carried out yet: 1 delete messages." in erase(*ADA, "--dry-run").output


def test_erase_stores_a_delete_message_for_the_eraser(destination):
    result = erase(*ADA, "--yes", "--wait", "0")
    assert (result.exit_code, "Requested, but not finished after 0 s" in result.output) == (1, True)
    carry_out(destination)
    assert subjects(destination) == [
        "demo#anonymous#5f0c",
        "demo#user#bob",
        "demo#user#old-ada",
    ]
    [receipt] = listed()
    assert (receipt["messages"], receipt["rejects"], receipt["linked_ids"]) == (3, 1, 2)


def test_visitor_can_be_erased_too(destination):
    erase("--customer", "demo", "--anonymous", "5f0c", "--yes", "--wait", "0")
    carry_out(destination)
    assert "demo#anonymous#5f0c" not in subjects(destination)


def test_delete_is_also_sent_to_the_queue(deploy):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    destination = deploy(EventSink="sqs")
    destination.post({"type": "track", "userId": "ada"})
    erase(*ADA, "--yes", "--wait", "0")
    carry_out(destination)
    [queued] = destination.queued()
    assert queued["Body"]["message"].items() >= {"type": "delete", "user_id": "ada"}.items()
    assert [receipt["rejects"] for receipt in listed()] == [1]


@pytest.mark.usefixtures("destination")
def test_erase_asks_for_confirmation():
    result = erase(*ADA, "--wait", "0", stdin="n\n")
    assert (result.exit_code, "Erase 3 messages and 1 reject of userId ada of demo permanently?" in result.output) == (
        1,
        True,
    )
    assert as_json(erase(*ADA, "--dry-run", "--json"))["requests"] == 0


@pytest.mark.usefixtures("destination")
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--customer", "demo"), "Name either a --user or an --anonymous id"),
        ((*ADA, "--anonymous", "5f0c"), "Name either a --user or an --anonymous id"),
        (("--user", "ada"), "Name this user's customer with --customer"),
        (("--customer", "demo", "--user", ""), "Invalid value for '--user': it is empty"),
        (("--customer", "", "--user", "ada"), "Invalid value for '--customer': it is empty"),
    ],
)
def test_erase_needs_one_user(options, problem):
    result = erase(*options)
    assert (result.exit_code, problem in result.output) == (2, True)


def test_request_that_cannot_be_stored_is_an_error(destination):
    destination.account.dynamodb().delete_table(TableName=destination.stack.stores.event_table)
    result = erase(*ADA, "--yes")
    assert (result.exit_code, "The request can't be stored: " in result.output) == (1, True)


# Receipts


@pytest.fixture
def erased(destination):
    """Return a destination that erased ada, then bob, then ada again."""
    for user in ("ada", "bob", "ada"):
        erase("--customer", "demo", "--user", user, "--yes", "--wait", "0")
        carry_out(destination)
    return destination


@pytest.mark.usefixtures("erased")
def test_receipts_are_newest_first():
    receipts = listed()
    assert [receipt["messages"] for receipt in receipts] == [0, 1, 3]
    assert listed("--customer", "demo") == receipts
    assert listed("--customer", "demo", "--limit", "1") == receipts[:1]
    assert listed("--customer", "acme") == []


@pytest.mark.usefixtures("erased")
def test_table_of_receipts_counts_and_says_if_there_are_more():
    result = erasures("list", "--customer", "demo", "--limit", "2")
    assert "2 of 3 receipts; --limit shows more." in result.output
    assert "ada" not in result.output


def test_erasure_in_progress_is_shown(erased):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    erased.post(track(userId="eve"))
    erase("--customer", "demo", "--user", "eve", "--yes", "--wait", "0")
    erased.account.dynamodb().delete_table(TableName=erased.stack.stores.rejects_table)
    with pytest.raises(BatchFailed):
        carry_out(erased)
    assert [receipt["finished_at"] for receipt in listed("--customer", "demo", "--unfinished")] == [""]
    assert "under way" in erasures("list", "--customer", "demo").output


@pytest.mark.usefixtures("erased")
def test_receipts_of_a_user_are_found_by_id_or_hash():
    by_id = as_json(erasures("show", *ADA))
    assert [receipt["messages"] for receipt in by_id] == [0, 3]
    assert as_json(erasures("show", by_id[0]["user_hash"][:12], "--customer", "demo")) == by_id
    assert as_json(erasures("show", "ada", "--customer", "demo")) == by_id


@pytest.mark.usefixtures("erased")
@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        (("--customer", "demo", "--user", "nobody"), 1, "There is no receipt for "),
        (("abcd", "--user", "ada", "--customer", "demo"), 2, "and not both"),
        (("abcd",), 2, "Name this user's customer with --customer"),
        (("nobody", "--customer", "demo"), 1, "There is no receipt for nobody here"),
        (("ad", "--customer", "demo"), 1, "There is no receipt for ad here"),
        ((), 2, "Name either a --user"),
    ],
)
def test_show_needs_one_receipt(options, status, problem):
    result = erasures("show", *options)
    assert (result.exit_code, problem in result.output) == (status, True)


def test_all_receipts_of_a_stack_need_the_scan_option(destination):  # noqa: ARG001 -- the stack
    assert "--scan" in erasures("list").output


# Unfinished requests


def test_unfinished_erasure_is_requested_again(destination):
    for message_id in ("delete-1", "delete-2"):
        destination.post({"type": "delete", "userId": "ada", "messageId": message_id})
    erase("--customer", "demo", "--anonymous", "5f0c", "--yes", "--wait", "0")
    assert as_json(erasures("resume", "--scan", "--older-than", "0", "--yes", "--json")) == {"requested": 2}
    deletes = [item for item in destination.stored() if item["type"] == "delete"]
    assert sorted(item["subject"] for item in deletes) == [*["demo#anonymous#5f0c"] * 2, *["demo#user#ada"] * 3]
    carry_out(destination)
    assert subjects(destination) == ["demo#user#bob", "demo#user#old-ada"]


def test_new_request_keeps_the_time_of_the_delete(destination):
    happened_at = "2026-03-12T09:29:57.270000Z"
    destination.post({"type": "delete", "userId": "ada", "timestamp": happened_at})
    erasures("resume", "--scan", "--older-than", "0", "--yes")
    assert {item["timestamp"] for item in destination.stored() if item["type"] == "delete"} == {happened_at}


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+10:00"])
def test_delete_with_any_time_is_requested_again(deploy, time):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    destination = deploy(Consumer="on")
    destination.post({"type": "delete", "userId": "ada", "timestamp": time})
    assert as_json(erasures("resume", "--scan", "--older-than", "0", "--yes", "--json")) == {"requested": 1}
    carry_out(destination)
    assert destination.stored() == []


def test_requests_do_not_expire_before_they_are_carried_out(deploy):
    destination = deploy(EventRetentionDays="1")
    destination.post(track(userId="ada"))
    destination.post({"type": "delete", "userId": "ada"})
    erasures("resume", "--scan", "--older-than", "0", "--yes")
    erase("--customer", "demo", "--user", "ada", "--yes", "--wait", "0")
    items = destination.account.dynamodb().scan(TableName=destination.stack.stores.event_table)["Items"]
    assert sorted((item["type"]["S"], "expires_at" in item) for item in items) == [
        *[("delete", False)] * 3,
        ("track", True),
    ]


def test_erasure_finished_by_a_later_request_is_not_unfinished(destination):
    destination.post({"type": "delete", "userId": "ada"})
    with pytest.raises(BatchFailed):
        carry_out(destination, seconds=eraser.SPARE_SECONDS)
    assert len(listed("--customer", "demo", "--unfinished")) == 1
    table = ErasureTable(destination.account.dynamodb(), destination.stack.stores.erasure_table)
    [given_up] = table.everything()
    erasures("resume", "--scan", "--older-than", "0", "--yes")
    carry_out(destination, but=given_up.requested_at)
    assert listed("--customer", "demo", "--unfinished") == []
    assert "by a later one" in erasures("list", "--customer", "demo").output


def test_recent_request_is_not_resumed(destination):
    destination.post({"type": "delete", "userId": "ada"})
    assert "Nothing to resume" in erasures("resume", "--scan").output


def test_resume_asks_for_confirmation(destination):
    destination.post({"type": "delete", "userId": "ada"})
    result = erasures("resume", "--scan", "--older-than", "0", stdin="n\n")
    assert (result.exit_code, "Request 1 erasure again?" in result.output) == (1, True)
    assert len(destination.stored()) == 7


@pytest.mark.usefixtures("destination")
def test_impossible_age_is_refused():
    assert erasures("resume", "--scan", "--older-than", "99999999999").exit_code == 2


@pytest.mark.usefixtures("destination")
def test_resume_on_a_stack_needs_the_scan_option():
    assert "Use --scan" in erasures("resume").output


# The local server


def test_local_server_erases_within_the_command(server):
    server.post(track(userId="ada-of-the-server"))
    receipt = server.json("erase", "--user", "ada-of-the-server", "--yes")
    assert (receipt["messages"], bool(receipt["finished_at"])) == (1, True)
    assert server.json("erase", "--user", "ada-of-the-server", "--dry-run")["messages"] == 0
    told = server.run("erase", "--user", "ada-of-the-server", "--yes").output
    assert "Erased 0 messages and 0 rejects of userId ada-of-the-server of demo" in told
    assert receipt["user_hash"] in server.run("erasures", "show", receipt["user_hash"][:12]).output
    assert server.run("erasures", "resume", "--yes").exit_code == 0


def test_dry_run_lists_each_linked_id_once(destination):  # noqa: ARG001
    told = erase(*ADA, "--dry-run").stdout
    assert [line.split("\t") for line in told.splitlines() if "\t" in line] == [
        ["Linked id", "Named as", "Messages", "Rejects", "As a user"],
        ["5f0c", "anonymous", "1", "0", ""],
        ["old-ada", "previous", "0", "0", "1"],
    ]


def test_a_proof_has_the_shell_line_that_computes_the_hash(destination):
    erase(*ADA, "--yes", "--wait", "0")
    carry_out(destination)
    result = erasures("show", *ADA, "--proof")
    [receipt] = as_json(result)
    assert f"user_hash {receipt['user_hash']}." in result.stderr
    command = result.stderr.partition("Anyone can compute it: ")[2]
    made = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True, text=True)
    assert made.stdout.split()[0] == receipt["user_hash"]


def test_a_proof_needs_the_kind_of_the_id(destination):  # noqa: ARG001
    result = erasures("show", "ada", "--customer", "demo", "--proof")
    assert (result.exit_code, "--proof needs a --user or an --anonymous id" in result.stderr) == (2, True)
