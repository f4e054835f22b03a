"""Test `destination replay`: it sends stored messages through the event queue again."""

import itertools
import json
import random
import string
from contextlib import contextmanager

import boto3
import pytest
from botocore.exceptions import ClientError
from local_server import run
from searches import some

from destination.deployment.replay import RateLimit
from destination.deployment.stack import LOCAL_STACK

TRACK = {"type": "track", "event": "Lamp Lit"}
SETTINGS = {"x-segment-settings": "eyJyZWdpb24iOiAiZXUifQ=="}


@pytest.fixture
def replay(tmp_path):
    """Return a function that runs replay on the stack, with a private state file and without a question."""
    options = ("--stack", LOCAL_STACK, "--state", str(tmp_path / "state.json"), "--yes")
    return lambda *args: run("replay", *args, *options)


@pytest.fixture
def destination(deploy):
    destination = deploy(Consumer="on")
    destination.add_key("of-acme", customer_id="acme")
    return destination


def taken(destination):
    """Take all messages from the queue, and return their bodies."""
    return list(itertools.chain.from_iterable(iter(lambda: [one["Body"] for one in destination.queued()], [])))


def ids(bodies):
    return sorted(body["message_id"] for body in bodies)


def numbers(count):
    return [f"m-{number:04}" for number in range(count)]


def fill(destination, count):
    """Store messages of seven users, 60 KB each after compression: a page of DynamoDB's, 1 MB, holds 17."""
    text = "".join(random.Random(17).choices(f"{string.ascii_letters}{string.digits}-_", k=79_000))  # noqa: S311 -- no secret
    for number, message_id in enumerate(numbers(count)):
        destination.post({**TRACK, "userId": f"user-{number % 7}", "messageId": message_id, "x": text})


@pytest.fixture
def three_pages(destination, prepare):
    """Store 45 messages, which are three pages."""
    prepare("three pages", lambda: fill(destination, 45))


@contextmanager
def cutting_off(call):
    """Make the queue unreachable from a given call on."""
    calls = itertools.count(1)

    def cut(**_):
        if next(calls) >= call:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "SendMessage")

    events = boto3.DEFAULT_SESSION.events
    events.register_first("before-send.sqs.SendMessage", cut)
    yield
    events.unregister("before-send.sqs.SendMessage", cut)


@pytest.mark.parametrize(
    "message",
    [
        {**TRACK, "userId": "user-1", "timestamp": "2026-03-12T09:29:57.270Z", "receivedAt": "2026-03-12T09:30:00Z"},
        {**TRACK, "User ID": "user-2", "user_id": "user-3", "properties": {"": {"a.b": [1, None, "\ud83d"]}}},
        {"type": "identify", "anonymousId": "5f#0c", "traits": {"text": "ж" * 70_000}, "messageId": "m-1"},
        {"type": "alias", "from": "old", "to": "new", "originalTimestamp": "2020-05-09 23:54:49.2 +0000 UTC m=+7.2"},
        {"type": "delete", "userId": "user-1", "timestamp": "no time"},
    ],
)
def test_queued_messages_equal_the_stored_ones(message, destination, replay):
    assert destination.post(message, headers=SETTINGS).status in (200, 202)
    assert replay().output == "Queued 1 message for the consumer; read 1 item.\n"
    assert taken(destination) == destination.stored()


def test_fifo_queue_gets_the_messages_of_a_user_in_order(deploy, replay):
    destination = deploy(Consumer="on", EventQueueType="fifo")
    for minute in (3, 1, 2):
        moment = f"2026-03-12T09:0{minute}:00Z"
        destination.post({**TRACK, "userId": "user-1", "messageId": f"minute-{minute}", "timestamp": moment})
    replay()
    assert [body["message_id"] for body in taken(destination)] == ["minute-1", "minute-2", "minute-3"]


def test_messages_can_be_selected_by_either_time(destination, replay):
    for day in (11, 12, 13):
        moment = f"2026-03-{day}T00:00:00Z"
        destination.post({**TRACK, "userId": "user-1", "messageId": f"day-{day}", "timestamp": moment})
    replay("--by", "happened", "--from", "2026-03-12", "--to", "2026-03-13")
    assert ids(taken(destination)) == ["day-12"]
    replay("--from", "2026-03-12")
    assert ids(taken(destination)) == ["day-11", "day-12", "day-13"]
    replay("--to", "2026-03-13T00:00:00+01:00")
    assert taken(destination) == []


def test_a_customer_or_a_user_can_be_replayed_alone(destination, replay):
    destination.post({**TRACK, "userId": "user-1", "messageId": "demo-1"})
    destination.post({**TRACK, "userId": "user-2", "messageId": "demo-2"})
    destination.post({**TRACK, "userId": "user-1", "messageId": "acme-1"}, key="of-acme")
    replay("--customer", "demo")
    assert ids(taken(destination)) == ["demo-1", "demo-2"]
    assert json.loads(replay("--customer", "demo", "--user", "user-1", "--json").stdout)["read"] == 1
    assert ids(taken(destination)) == ["demo-1"]


def test_a_dry_run_only_counts(destination, replay):
    fill(destination, 3)
    assert replay("--dry-run").output == "Would queue 3 messages for the consumer; read 3 items.\n"
    assert taken(destination) == []


@pytest.mark.many_examples
@pytest.mark.parametrize("cut_at", some([25, 1, 5, 40]))
@pytest.mark.usefixtures("three_pages")
def test_interrupted_replay_resumes_at_its_last_page(cut_at, destination, replay):
    with cutting_off(cut_at):
        result = replay()
    assert (result.exit_code, "run the same command again to continue" in result.output) == (1, True)
    before = taken(destination)
    answer = json.loads(replay("--json").stdout)
    after = taken(destination)
    assert (answer["queued"], answer["read"]) == (45, 45)
    assert set(ids(before)) | set(ids(after)) == set(numbers(45))
    assert (len(after) < 45) is (cut_at > 17)


@pytest.mark.usefixtures("three_pages")
def test_restart_starts_over(destination, replay):
    with cutting_off(40):
        replay()
    taken(destination)
    replay("--restart")
    assert ids(taken(destination)) == numbers(45)


def test_messages_stored_after_the_start_are_not_replayed(destination, replay):
    fill(destination, 3)
    with cutting_off(1):
        replay()
    destination.post({**TRACK, "userId": "user-1", "messageId": "later"})
    replay()
    assert ids(taken(destination)) == numbers(3)


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z"])
def test_message_with_any_time_is_queued_unchanged(time, destination, replay):
    destination.post({**TRACK, "userId": "user-1", "timestamp": time}, headers=SETTINGS)
    assert replay().output == "Queued 1 message for the consumer; read 1 item.\n"
    assert taken(destination) == destination.stored()


def test_unreadable_item_does_not_stop_the_replay(destination, replay):
    for number in range(3):
        destination.post({**TRACK, "userId": "user-1", "messageId": f"m-{number}"})
    table, client = destination.stack.stores.event_table, destination.account.dynamodb()
    item = client.scan(TableName=table)["Items"][1]
    client.put_item(TableName=table, Item={**item, "message": {"S": "garbage"}})
    result = replay()
    unread = item["message_id"]["S"]
    assert (result.exit_code, f"Can't be read: {unread}" in result.output) == (1, True)
    assert ids(taken(destination)) == sorted({"m-0", "m-1", "m-2"} - {unread})
    answer = json.loads(replay("--json").stdout)
    assert (answer["queued"], answer["too_large"], answer["unreadable"]) == (2, [], [unread])


@pytest.mark.parametrize("options", [(), ("--by", "happened"), ("--customer", "demo"), ("--dry-run",)])
@pytest.mark.parametrize("edited", [{"customer_id": {"N": "7"}}, {"stored_at": {"N": "7"}, "timestamp": None}])
def test_edited_item_is_named_and_does_not_stop_the_replay(edited, options, destination, replay):
    for number in range(3):
        destination.post({**TRACK, "userId": "user-1", "messageId": f"m-{number}"})
    table, client = destination.stack.stores.event_table, destination.account.dynamodb()
    item = client.scan(TableName=table)["Items"][1]
    changed = {name: value for name, value in {**item, **edited}.items() if value is not None}
    client.put_item(TableName=table, Item=changed)
    result = replay(*options)
    assert (result.exit_code, f"Can't be read: {item['message_id']['S']}" in result.output) == (
        1 if options != ("--dry-run",) else result.exit_code,
        True,
    )
    assert " 2 messages for the consumer; read 3 items." in result.output


def test_message_too_large_for_the_queue_is_reported(destination, replay):
    fill(destination, 2)
    large = {"type": "identify", "userId": "user-1", "messageId": "large", "traits": {"text": "ж" * 400_000}}
    assert destination.post(json.dumps(large, ensure_ascii=False)).status == 200
    result = replay()
    assert (result.exit_code, "Too large for the queue: large" in result.output) == (1, True)
    assert ids(taken(destination)) == numbers(2)


@pytest.mark.parametrize(("rate", "slept"), [(100, [0, 0.01, 0.02, 0.03]), (None, [0, 0, 0, 0])])
def test_rate_spreads_messages_over_time(rate, slept):
    pauses = []
    pace = RateLimit(rate, clock=lambda: 17.0, sleep=pauses.append)
    for _ in slept:
        pace.wait()
    assert pauses == pytest.approx(slept)


def test_unused_time_allows_no_burst():
    pauses, times = [], iter([0.0, 60.0, 60.0])
    pace = RateLimit(100, clock=lambda: next(times), sleep=pauses.append)
    pace.wait()
    pace.wait()
    assert pauses == pytest.approx([0, 0.01])


def test_replay_that_ended_after_its_last_page_is_complete(destination, replay, tmp_path):
    fill(destination, 3)
    with cutting_off(2):
        replay()
    taken(destination)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**state, "is_done": True, "queued": 3}))
    assert replay().output.endswith("Queued 3 messages for the consumer; read 0 items.\n")
    assert taken(destination) == []
    replay()
    assert ids(taken(destination)) == numbers(3)


def test_state_of_another_replay_is_refused(destination, replay):
    fill(destination, 3)
    with cutting_off(1):
        replay("--customer", "demo")
    result = replay("--customer", "acme")
    assert (result.exit_code, "is the state of another replay" in result.output) == (1, True)


@pytest.mark.parametrize("path", ["/nonexistent/folder/state.json", "/dev/null/state.json"])
def test_unwritable_state_is_an_error(path, destination):  # noqa: ARG001 -- the stack
    result = run("replay", "--stack", LOCAL_STACK, "--state", path, "--yes")
    assert (result.exit_code, "can't be written" in result.output) == (1, True)


@pytest.mark.parametrize(
    ("options", "status", "problem"),
    [
        (("--from", "yesterday"), 2, "yesterday is not a time"),
        (("--user", "user-1"), 2, "Name this user's customer with --customer"),
        (("--by", "chance"), 2, "'chance' is not one of"),
        (("--rate", "0"), 2, "0"),
        (("--rate", "nan"), 2, "not a number"),
        (("--customer", ""), 2, "Invalid value for '--customer': it is empty"),
    ],
)
def test_options_that_select_nothing_clear_are_refused(options, status, problem, destination, replay):  # noqa: ARG001 -- the stack
    result = replay(*options)
    assert (result.exit_code, problem in result.output) == (status, True)


def test_replay_of_everything_asks_for_confirmation(destination, tmp_path):
    destination.post({**TRACK, "userId": "user-1"})
    command = ("replay", "--stack", LOCAL_STACK, "--state", str(tmp_path / "state.json"))
    refused = run(*command, stdin="n\n")
    assert (refused.exit_code, taken(destination)) == (1, [])
    assert "Pass all messages of all customers to the consumer again? [y/N]: " in refused.stderr
    assert run(*command, stdin="y\n").exit_code == 0
    assert len(taken(destination)) == 1


@pytest.mark.parametrize("options", [("--customer", "demo"), ("--to", "2099-01-01"), ("--dry-run",)], ids=" ".join)
def test_selected_replay_does_not_ask(options, destination, tmp_path):
    destination.post({**TRACK, "userId": "user-1"})
    result = run("replay", *options, "--stack", LOCAL_STACK, "--state", str(tmp_path / "state.json"))
    assert (result.exit_code, result.stderr) == (0, "")


def test_replay_without_a_consumer_is_refused(deploy, replay):
    deploy(Consumer="off")
    result = replay()
    assert (result.exit_code, "Consumer=off" in result.output) == (1, True)


@pytest.mark.parametrize("text", ["", "[]", '{"history": {}}'])
def test_file_that_is_not_a_state_is_refused(text, destination, replay, tmp_path):  # noqa: ARG001 -- the stack
    (tmp_path / "state.json").write_text(text)
    result = replay()
    assert (result.exit_code, "is not the state of a replay: use --restart" in result.output) == (1, True)
