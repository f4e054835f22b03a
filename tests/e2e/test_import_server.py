"""Test `destination import` against a local server: the stored messages are the messages of the file."""

import gzip
import json

import pytest
from local_server import serving

pytest_plugins = ["servers"]

ARCHIVED = {
    "anonymousId": "23adfd82-aa0f-45a7-a756-24f2a7a4c895",
    "channel": "client",
    "context": {"ip": "203.0.113.7", "library": {"name": "analytics.js", "version": "2.11.1"}},
    "event": "Order Completed",
    "integrations": {},
    "originalTimestamp": "2020-02-18T19:11:04.123Z",
    "projectId": "Zzft38QJhB",
    "properties": {"total": 19.99, "note": "größer"},
    "receivedAt": "2020-02-18T19:11:05.456Z",
    "sentAt": None,
    "timestamp": "2020-02-18T19:11:04.321Z",
    "type": "track",
    "userId": "archived-user",
    "version": 2,
    "writeKey": None,
    "_metadata": {"bundled": ["Segment.io"], "unbundled": []},
}
"""A line of Segment's archive."""


def archived(number):
    return {**ARCHIVED, "messageId": f"archived-{number}"}


def write(path, messages, *, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(message) + end for message in messages).encode()))


def test_segments_archive_is_stored_as_it_was_received(server, tmp_path):
    folder = tmp_path / "segment-logs"
    write(folder / "source" / "1581984000000" / "a.gz", map(archived, range(3)))
    write(folder / "source" / "1582070400000" / "b.gz", map(archived, range(3, 5)))
    report = server.json("import", str(folder))
    assert (report["accepted"], report["duplicates"], report["rejected"]) == (5, 0, 0)
    stored = server.json("messages", "show", "archived-4")["message"]
    names = {"anonymousId": "anonymous_id", "originalTimestamp": "original_timestamp", "receivedAt": "received_at"}
    for name in (*names, "event", "timestamp", "context", "properties", "version", "_metadata"):
        assert stored[names.get(name, name)] == ARCHIVED[name]
    again = server.json("import", str(folder))
    assert (again["messages"], again["already_imported"]) == (0, 2)


def test_equal_lines_without_a_message_id_are_one_message(server, tmp_path):
    path = tmp_path / "history.gz"
    write(path, [ARCHIVED, ARCHIVED, {**ARCHIVED, "event": "Another"}])
    report = server.json("import", str(path))
    assert (report["accepted"], report["duplicates"]) == (2, 1)
    report = server.json("import", str(path), "--restart")
    assert (report["accepted"], report["duplicates"]) == (0, 3)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"type": "dance", "userId": "u"}, "unsupported_call_type"),
        ({"userId": "u"}, "missing_type"),
        ({"type": "track", "userId": "u"}, "invalid_message"),
        ({"batch": [archived(1)]}, "missing_type"),
    ],
    ids=str,
)
def test_refused_lines_are_reported_and_the_rest_is_stored(server, tmp_path, line, code):
    path = tmp_path / "history.gz"
    write(path, [{**ARCHIVED, "event": code}, line], end="\n\n")
    result = server.run("import", str(path), "--json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert [(reject["line"], reject["code"]) for reject in report["examples"]] == [(3, code)]
    assert report["accepted"] + report["duplicates"] == 1


def test_message_of_a_megabyte_is_stored(server, tmp_path):
    path = tmp_path / "history.gz"
    write(path, [{**archived("large"), "userId": "large", "properties": {"text": "x" * 900_000}}])
    report = server.json("import", str(path))
    assert report["accepted"] == 1


def test_expired_key_ends_the_import_at_once(server, tmp_path):
    path = tmp_path / "history.gz"
    write(path, [ARCHIVED])
    result = server.run("import", str(path), "--api-key", "demo-key-expired")
    assert result.exit_code == 1
    assert "The endpoint answered 401 expired_key API key expired: name a valid key" in result.stderr


def test_queue_gets_the_whole_history(tmp_path):
    history = tmp_path / "history.jsonl"
    history.write_text("".join(json.dumps(archived(number)) + "\n" for number in range(1500)))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    with serving(checkout, "--parameter", "EventSink=sqs", "--parameter", "Consumer=off") as server:
        report = server.json("import", str(history), "--give-up-after", "10")
    assert (report["complete"], report["accepted"]) == (True, 1500)
