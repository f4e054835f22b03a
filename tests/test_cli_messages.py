"""Test `destination messages`: the stored messages, as a table and as JSON."""

import json
import signal
import subprocess
import uuid
from threading import Timer

import pytest
from local_server import MAX_WAIT_SECONDS, run, start

from destination.deployment.stack import LOCAL_STACK, create_local_stack

pytest_plugins = ["servers"]


@pytest.fixture
def user():
    """Return a user that no other test uses."""
    return f"user-{uuid.uuid4()}"


@pytest.fixture
def send(server):
    """Store a message, and return its id."""

    def send(*, key=None, **message):
        reply = server.post({"type": "track", "event": "Lamp Lit", **message}, **({"key": key} if key else {}))
        assert reply.status == 200, reply
        return reply.body["message_id"]

    return send


@pytest.fixture
def listed(server):
    """Return the message ids of a list, in its order."""

    def listed(*options):
        lines = server.run("messages", "list", "--json", *options).stdout.splitlines()
        return [json.loads(line)["message_id"] for line in lines]

    return listed


def test_messages_of_a_user_are_newest_first(send, listed, user):
    ids = [
        send(userId=user, messageId=f"{user}-{year}", timestamp=f"{year}-05-17T12:00:00Z")
        for year in (2026, 2024, 2025)
    ]
    assert listed("--user", user) == [ids[0], ids[2], ids[1]]
    assert listed("--user", user, "--limit", "2") == [ids[0], ids[2]]


def test_anonymous_messages_are_separate_from_user_messages(send, listed, user):
    anonymous, known = send(anonymousId=user), send(userId=user)
    assert (listed("--anonymous", user), listed("--user", user)) == ([anonymous], [known])


def test_messages_can_be_listed_without_a_user(send, listed, server, user):
    key = server.json("keys", "create", "--customer", user)["api_key"]
    theirs, ours = [send(key=key, userId="u"), send(key=key, anonymousId="a")], send(userId=user)
    assert set(listed("--customer", user)) == set(theirs)
    assert listed("--customer", user, "--user", "u") == theirs[:1]
    assert {*theirs, ours} <= set(listed("--limit", "100000"))


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"event": "Lamp Lit"}, "track Lamp Lit"),
        ({"type": "page", "name": "Prices", "event": None}, "page Prices"),
        ({"type": "group", "groupId": "group-7"}, "group group-7"),
        ({"type": "alias", "previousId": "previous-7"}, "alias previous-7"),
        ({"type": "identify"}, "identify"),
        ({"event": "Größe → 7 💡"}, "track Größe → 7 💡"),
        ({"event": "[/b] \x1b[31m\n"}, "track [/b] �[31m�"),
        ({"type": "page", "name": "\ud800"}, "page �"),
    ],
)
def test_list_shows_user_action_and_time(server, user, message, shown):
    message = {"type": "track", "userId": user, "timestamp": "2026-05-17T12:00:00.250Z", **message}
    message_id = server.post(message).body["message_id"]
    [head, line] = server.run("messages", "list", "--user", user).stdout.splitlines()
    assert " ".join(head.split()) == "Time (UTC) Customer Type Who What Message id"
    call_type, _, what = shown.partition(" ")
    columns = ["2026-05-17 12:00:00.250", "demo", call_type, user, *([what] if what else []), message_id]
    assert line.split() == " ".join(columns).split()


def test_list_of_the_whole_table_says_how_much_it_read(send, server, user):
    send(userId=user)
    result = server.run("messages", "list", "--limit", "1")
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith("Read the whole table; 1 of ")


def test_unknown_user_has_no_messages(server, user):
    result = server.run("messages", "list", "--user", user, "--json")
    assert (result.exit_code, result.stdout) == (0, "")


def test_show_prints_the_whole_message(send, server, user):
    long = {"text": "ü" * 100_000, "\x9b": "\x1b\ud800"}
    message_id = send(userId=user, properties=long, writeKey="secret")
    shown = server.json("messages", "show", message_id, "--user", user)
    assert shown["message"]["properties"] == long
    assert (shown["subject"], shown["type"], shown["event"]) == (f"demo#user#{user}", "track", "Lamp Lit")
    for_people = server.run("messages", "show", message_id).stdout
    assert json.loads(for_people)["message"]["properties"] == long
    assert not {"\x1b", "\x9b", "\ud800"} & set(for_people)
    assert "secret" not in for_people


def test_show_prints_the_settings(server):
    [sent] = server.json("ping", "track", "--settings", '{"region": "eu"}')
    assert server.json("messages", "show", sent["request"]["messageId"])["settings"] == {"region": "eu"}


def test_unknown_message_is_an_error(send, server, user):
    send(userId=user)
    result = server.run("messages", "show", "no-such-message", "--user", user)
    assert (result.exit_code, result.stderr) == (1, "Error: No stored message has the id no-such-message here\n")


def test_follow_shows_later_messages(send, server, user):
    first = send(userId=user)
    options = ("--user", user, "--url", server.url, "--json")
    with start(server.checkout, "messages", "list", "--follow", *options, stdout=subprocess.PIPE) as process:
        deadline = Timer(MAX_WAIT_SECONDS, process.kill)
        deadline.start()
        assert json.loads(process.stdout.readline())["message_id"] == first
        later = [send(userId=user, timestamp=f"2024-05-17T12:00:0{second}Z") for second in (1, 2)]
        assert [json.loads(process.stdout.readline())["message_id"] for _ in later] == later
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.wait(MAX_WAIT_SECONDS)) == ("", 0)
        deadline.cancel()


def test_messages_in_a_queue_are_for_its_consumers(queue_server):
    for command in (["list"], ["show", "some-id"]):
        result = queue_server.run("messages", *command)
        assert result.exit_code == 1
        assert f"sends messages to a queue, {queue_server.stores.event_queue_url}: read them" in result.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--user", "u", "--anonymous", "a"], "--user and --anonymous exclude each other"),
        (["--limit", "0"], "0 is not in the range x>=1"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(server, options, sentence):
    result = server.run("messages", "list", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "Name a --user or an --anonymous id, or use --scan to read the whole table"),
        (["--customer", "acme"], "Name a --user or an --anonymous id, or use --scan"),
        (["--user", "u"], "Name this user's customer with --customer"),
    ],
)
def test_stack_is_not_scanned_without_the_scan_option(aws, options, sentence):
    create_local_stack(aws, {})
    result = run("messages", "list", "--stack", LOCAL_STACK, *options)
    assert result.exit_code == 2
    assert sentence in result.stderr
    scanned = run("messages", "list", "--stack", LOCAL_STACK, "--scan")
    assert scanned.stderr == "Read the whole table; 0 of 0 messages shown.\n"


def test_messages_on_a_stack_are_found_by_customer_and_user(deploy):
    destination = deploy()
    destination.post({"type": "track", "userId": "u", "event": "Lamp Lit", "messageId": "m"})
    result = run("messages", "show", "m", "--stack", LOCAL_STACK, "--customer", "demo", "--user", "u", "--json")
    assert json.loads(result.stdout)["event"] == "Lamp Lit"


def test_imported_export_gives_the_same_messages(server, send, user, tmp_path):
    made = server.json("keys", "create", "--customer", user)
    ids = {
        send(key=made["api_key"], userId="u", properties={"ключ": [1.5, None, {"": "😀"}]}),
        send(key=made["api_key"], anonymousId="a", originalTimestamp="2020-05-09 23:54:49.2 +0000 UTC m=+70366.29"),
        send(key=made["api_key"], type="page", userId="u", timestamp="2019-01-01T00:00:00Z", context={"ip": "::1"}),
    }
    exported = server.run("messages", "export", "--customer", user)
    assert (exported.exit_code, exported.stderr) == (0, "3 messages.\n")
    assert {json.loads(line)["message_id"] for line in exported.stdout.splitlines()} == ids
    file = tmp_path / "messages.jsonl"
    file.write_text(exported.stdout)
    report = run("import", str(file), "--url", server.url, "--api-key", made["api_key"], "--json")
    assert json.loads(report.stdout)["duplicates"] == 3, report.output


def test_export_can_be_limited_to_one_user(server, send, user):
    message_id = send(userId=user)
    send(userId=f"{user}-2")
    [line] = server.run("messages", "export", "--user", user).stdout.splitlines()
    assert json.loads(line)["message_id"] == message_id


def test_messages_of_several_customers_are_not_exported_together(server):
    result = server.run("messages", "export")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Name the --customer" in result.stderr
