"""Test `destination import`: what it sends and counts, and how it resumes."""

import gzip
import json
import os
import signal
import subprocess
import time
from collections import Counter
from threading import Event, Lock

import pytest
from endpoint import endpoint, response
from local_server import MAX_WAIT_SECONDS, make_checkout, run, start, wait_until

from destination.importing.batches import batches
from destination.importing.deliver import BatchSender
from destination.importing.pace import ImportPace
from destination.importing.play import ImportRun
from destination.importing.sources import STATE_SUFFIX, default_state_path, find_sources
from destination.importing.state import ImportState, Recipient
from destination.importing.tally import ImportTally
from destination.segment.client import deployment_url

KEY = ("--api-key", "some-key")
FEW_LINES = 20


class Destination:
    """Answers imports as a destination does, and stores each message once. `trouble` may answer instead."""

    def __init__(self, trouble=lambda _number, _messages: None):
        self.stored = Counter()
        self.batches = []
        self.singles = []
        self.trouble = trouble
        self._lock = Lock()

    def __call__(self, received):
        with self._lock:
            if received.head.startswith("GET"):
                return response(404)
            content = json.loads(gzip.decompress(received.body))
            if received.head.startswith("POST /segment "):
                self.singles.append(content)
                return response(200, json.dumps({"status": "stored"}))
            assert received.head.startswith("POST /v1/import ")
            self.batches.append(content["batch"])
            answer = self.trouble(len(self.batches), content["batch"])
            return self.answer(content["batch"]) if answer is None else answer

    def answer(self, messages):
        rejected = [
            {"index": index, "code": "invalid_message", "message": "Missing event"}
            for index, message in enumerate(messages)
            if message.get("invalid")
        ]
        ids = [message["messageId"] for message in messages if not message.get("invalid")]
        new = set(ids) - set(self.stored)
        self.stored.update(ids)
        counts = {"accepted": len(new), "duplicates": len(ids) - len(new), "rejected": rejected}
        if messages and len(rejected) == len(messages):
            return response(400, json.dumps({"code": "nothing_accepted", "message": "Nothing", **counts}))
        return response(200, json.dumps(counts))


def message(number, **fields):
    return {"type": "track", "event": "Past", "userId": "u", "messageId": f"m{number}", **fields}


def lines(count, first=0):
    return "".join(json.dumps(message(number)) + "\n" for number in range(first, first + count)).encode()


def ids(count):
    return {f"m{number}" for number in range(count)}


@pytest.fixture
def history(tmp_path):
    """Return a file with a few messages."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(lines(FEW_LINES))
    return path


def imported(destination, *args, exit_code=0, stdin=None):
    """Import into a destination, and return the JSON report."""
    with endpoint(destination) as server:
        result = run("import", *map(str, args), "--url", server.url, *KEY, "--json", stdin=stdin)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def counts(report):
    return {name: report[name] for name in ("accepted", "duplicates", "rejected")}


GZIP = gzip.compress(lines(FEW_LINES))
MEMBERS = gzip.compress(lines(10)) + gzip.compress(lines(10, first=10)) + b"\0" * 512


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lines(FEW_LINES), id="plain"),
        pytest.param(lines(FEW_LINES).rstrip(b"\n"), id="no end of the last line"),
        pytest.param(lines(FEW_LINES).replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\n  \n" + lines(FEW_LINES).replace(b"\n", b"\n\n"), id="blank lines"),
        pytest.param(b"\xef\xbb\xbf" + lines(FEW_LINES), id="byte order mark"),
        pytest.param(GZIP, id="gzip"),
        pytest.param(MEMBERS, id="gzip of two members, filled up"),
        pytest.param(gzip.compress(b"\xef\xbb\xbf" + lines(FEW_LINES)), id="gzip, byte order mark"),
    ],
)
@pytest.mark.parametrize("is_standard_input", [False, True], ids=["file", "standard input"])
def test_all_messages_arrive_unchanged(tmp_path, content, is_standard_input):
    path = tmp_path / "whatever-its-name"
    path.write_bytes(content)
    destination = Destination()
    options = {"stdin": content} if is_standard_input else {}
    report = imported(destination, "-" if is_standard_input else path, **options)
    assert counts(report) == {"accepted": FEW_LINES, "duplicates": 0, "rejected": 0}
    assert destination.batches == [[message(number) for number in range(FEW_LINES)]]


def test_folder_is_read_in_the_order_of_its_paths(tmp_path):
    archive = tmp_path / "segment-logs" / "source"
    for day, content in {"1582070400000": lines(3), "1581984000000": lines(3, first=3)}.items():
        (archive / day).mkdir(parents=True)
        (archive / day / "part.gz").write_bytes(gzip.compress(content))
    (archive / "_SUCCESS").write_text("done")
    destination = Destination()
    report = imported(destination, tmp_path / "segment-logs")
    assert [[each["messageId"] for each in batch] for batch in destination.batches] == [
        ["m3", "m4", "m5", "m0", "m1", "m2"]
    ]
    assert report["passed_over"] == [str(archive / "_SUCCESS")]
    assert (tmp_path / f"segment-logs{STATE_SUFFIX}").exists()


def test_shell_pipe_is_read(tmp_path):
    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "wb") as pipe:
        pipe.write(lines(FEW_LINES))
        pipe.close()
        report = imported(Destination(), f"/dev/fd/{reading}", "--state", tmp_path / "state.json")
    assert report["accepted"] == FEW_LINES


def test_pipe_needs_no_state(tmp_path, history):
    destination = Destination()
    for names in ((), (str(history),)):
        reading, writing = os.pipe()
        with os.fdopen(reading), os.fdopen(writing, "wb") as pipe, endpoint(destination) as server:
            pipe.write(lines(3, first=100))
            pipe.close()
            name = f"/dev/fd/{reading}"
            result = run("import", name, *names, "--url", server.url, *KEY)
        assert result.exit_code == 0, result.output
        assert f"A pipe can't be read again, so its state is not kept: {name}." in result.stderr
    assert len(destination.stored) == FEW_LINES + 3
    assert [*tmp_path.glob(f"*{STATE_SUFFIX}")] == [tmp_path / f"{history.name}{STATE_SUFFIX}"]


def test_rejects_files_of_an_earlier_import_are_skipped(tmp_path):
    folder = tmp_path / "history"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(2) + b"[1]\n")
    rejects = tmp_path / "rejects.jsonl"
    assert imported(Destination(), folder, "--rejects", rejects, exit_code=3)["rejected"] == 1
    rejects.rename(folder / "rejects.jsonl")
    report = imported(Destination(), folder, "--restart", exit_code=3)
    assert report["rejects_files"] == [str(folder / "rejects.jsonl")]
    assert counts(report) == {"accepted": 2, "duplicates": 0, "rejected": 1}
    with endpoint(Destination()) as server:
        told = run("import", str(folder), "--restart", "--url", server.url, *KEY).stdout
    assert f"Skipped because an earlier --rejects wrote it: 1 file, such as {folder / 'rejects.jsonl'}." in told


def test_file_named_twice_is_read_once(history):
    assert imported(Destination(), history, history.parent, history)["messages"] == FEW_LINES


def test_folder_without_messages_is_an_error(tmp_path):
    (tmp_path / "README").write_text("nothing")
    result = run("import", str(tmp_path), *KEY)
    assert result.exit_code == 1
    assert ": 1 file skipped" in result.stderr


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"{", "invalid_json", "The line is not JSON (column 2)"),
        (b'{"a": NaN}', "number_out_of_range", "The line is not JSON: NaN is not a number"),
        (b'{"a": %s}' % (b"9" * 5000), "number_out_of_range", "The line is not JSON: Exceeds the limit"),
        (b'{"a": "\xff"}', "invalid_encoding", "The line is not UTF-8"),
        (b"[1]", "not_an_object", "The line must be one JSON object, not an array"),
        (b'{"a":' * 200_000, "nested_too_deeply", "The line is nested too deeply"),
        (b'{"a": "' + b"x" * 1_048_576 + b'"}', "message_too_large", "The line is longer than 1,048,576 bytes"),
        (b'{"a": "' + b"x" * 3_000_000 + b'"}', "message_too_large", "The line is longer than 1,048,576 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_line_that_cannot_be_sent_is_reported_with_its_number(tmp_path, line, code, text):
    path = tmp_path / "history.jsonl"
    path.write_bytes(lines(2) + b"\n" + line + b"\n" + lines(1, first=2))
    destination = Destination()
    report = imported(destination, path, exit_code=3)
    [example] = report["examples"]
    assert (example["file"], example["line"], example["code"]) == (str(path), 4, code)
    assert example["message"].startswith(text)
    assert set(destination.stored) == ids(3)


def test_rejects_are_written_with_file_and_line(tmp_path):
    path, rejects = tmp_path / "history.jsonl", tmp_path / "rejects.jsonl"
    path.write_text(f"\n{json.dumps(message(1))}\n{json.dumps(message(2, invalid=True))}\nnonsense\n")
    rejects.write_text("of another import\n")
    report = imported(Destination(), path, "--rejects", rejects, exit_code=3)
    assert counts(report) == {"accepted": 1, "duplicates": 0, "rejected": 2}
    assert report["rejected_by_code"] == {"invalid_message": 1, "invalid_json": 1}
    first, *written = rejects.read_text().splitlines()
    assert first == "of another import"
    assert [json.loads(line) for line in written] == [
        {"file": str(path), "line": 3, "code": "invalid_message", "message": "Missing event"},
        {"file": str(path), "line": 4, "code": "invalid_json", "message": "The line is not JSON (column 1)"},
    ]


def test_fully_rejected_batch_does_not_end_the_import(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(message(number, invalid=number < 2)) + "\n" for number in range(4)))
    report = imported(Destination(), path, "--batch-size", 2, exit_code=3)
    assert counts(report) == {"accepted": 2, "duplicates": 0, "rejected": 2}


def test_output_names_the_rejected_lines(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(lines(1) + b"1\n" * 5)
    with endpoint(Destination()) as server:
        result = run("import", str(path), "--url", server.url, *KEY)
    assert result.exit_code == 3
    assert "1 accepted, 0 duplicates, 5 rejected, in " in result.stdout
    assert f"not_an_object\t{path}:2: The line must be one JSON object, not a number" in result.stdout


def test_file_in_another_format_is_reported_early(tmp_path, history):
    path = tmp_path / "a.csv"
    path.write_text("some,thing,else\n" * 1001)
    destination = Destination()
    report = imported(destination, path, history, exit_code=1)
    assert "none of 1,000 lines is a JSON object" in report["unreadable"][str(path)]
    assert set(destination.stored) == ids(FEW_LINES)


ARRAY = json.dumps([message(number) for number in range(3)], indent=1).encode()


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        pytest.param(ARRAY, "jq -c '.[]' FILE", id="indented"),
        pytest.param(b"\xef\xbb\xbf\n \r\n" + ARRAY, "jq -c '.[]' FILE", id="after blank lines"),
        pytest.param(
            b"[" + lines(3).rstrip().replace(b"\n", b",\n") + b"]", "jq -c '.[]' FILE", id="a message on a line"
        ),
        pytest.param(b"[\n" + lines(3), "jq -c '.[]' FILE", id="that never ends"),
        pytest.param(b'["' + b"x" * 2_000_000 + b'"]', "jq -c '.[]' FILE", id="on one line of 2 MB"),
        pytest.param(
            b"\xef\xbb\xbf[" + b" " * 2_000_000 + b"]\n1", "jq -c '.[]' FILE", id="on one line of 2 MB, with a mark"
        ),
        pytest.param(json.dumps(message(1), indent=1).encode(), "jq -c . FILE", id="an object"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_json_over_several_lines_is_reported_at_once(tmp_path, history, content, hint, pack):
    path = tmp_path / "a.json"
    path.write_bytes(pack(content))
    destination = Destination()
    report = imported(destination, path, history, exit_code=1)
    assert hint in report["unreadable"][str(path)]
    assert counts(report) == {"accepted": FEW_LINES, "duplicates": 0, "rejected": 0}


def test_array_converted_to_lines_is_imported_by_the_next_run(tmp_path, history):
    path = tmp_path / "a.json"
    path.write_bytes(ARRAY)
    destination = Destination()
    with endpoint(destination) as server:
        command = ("import", str(path), str(history), "--url", server.url, *KEY)
        assert run(*command).exit_code == 1
        path.write_bytes(lines(3, first=100))
        result = run(*command)
    assert result.exit_code == 0, result.output
    assert len(destination.stored) == FEW_LINES + 3


def test_array_on_one_line_is_rejected_with_the_same_hint(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"[1]\n" + lines(2))
    report = imported(Destination(), path, exit_code=3)
    assert [(example["line"], "jq -c '.[]' FILE" in example["message"]) for example in report["examples"]] == [
        (1, True)
    ]
    assert report["accepted"] == 2


def sent(destination):
    return [message for batch in destination.batches for message in batch]


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ("2020-04-22 10:00:00.123456 UTC", "2020-04-22T10:00:00.123456Z"),
        ("2020-04-22 10:00:00 UTC", "2020-04-22T10:00:00.000000Z"),
        ("2020-04-22 10:00:00 +0200", "2020-04-22T08:00:00.000000Z"),
        ("2020-04-22 10:00:00.1 -07", "2020-04-22T17:00:00.100000Z"),
        (1587549600, "2020-04-22T10:00:00.000000Z"),
        ("1587549600", "2020-04-22T10:00:00.000000Z"),
        (1587549600.25, "2020-04-22T10:00:00.250000Z"),
        ("1.5875496E9", "2020-04-22T10:00:00.000000Z"),
        (1587549600123, "2020-04-22T10:00:00.123000Z"),
        ("1587549600123", "2020-04-22T10:00:00.123000Z"),
        (1587549600123456, "2020-04-22T10:00:00.123456Z"),
        ("1587549600123456", "2020-04-22T10:00:00.123456Z"),
        (1587549600123456789, "2020-04-22T10:00:00.123456Z"),
        (100000000, "1973-03-03T09:46:40.000000Z"),
    ],
)
@pytest.mark.parametrize("name", ["timestamp", "originalTimestamp", "received_at", "Sent At"])
def test_common_time_formats_are_sent_as_iso_8601(tmp_path, name, written, time):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(message(1, **{name: written, "properties": {"at": written}})) + "\n")
    destination = Destination()
    report = imported(destination, path)
    assert sent(destination) == [message(1, **{name: time, "properties": {"at": written}})]
    assert report["rewritten_times"] == {"count": 1, "examples": [f"{path}:1: {written} is {time}"]}


@pytest.mark.parametrize("written", ["2020-04-22T10:00:00Z", "2020-04-22 10:00:00", "2020-04-22", None])
def test_time_that_the_endpoint_reads_is_sent_unchanged(tmp_path, written):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(message(1, timestamp=written)) + "\n")
    destination = Destination()
    report = imported(destination, path)
    assert sent(destination) == [message(1, timestamp=written)]
    assert report["rewritten_times"]["count"] == 0


@pytest.mark.parametrize(
    "written",
    [
        *("yesterday", "22/04/2020", "2020-04-22 10:00:00 PST", "2020-04-31 10:00:00 UTC", "UTC", "", " ", "NaN"),
        *(0, 7, -1587549600, 20200422, 20200422100000, "20200422100000", 99999999, 4102444800, 1e300, 10**300),
        *(True, [], {}, {"value": "2020-04-22"}),
        *("\u0661587549600", "158754960\u0660", "1587549600 UTC", "1_587_549_600"),
    ],
)
@pytest.mark.parametrize("name", ["timestamp", "original_timestamp"])
def test_message_with_an_unreadable_time_is_not_sent(tmp_path, name, written):
    path = tmp_path / "history.jsonl"
    path.write_bytes(lines(1) + json.dumps(message(2, **{name: written})).encode() + b"\n" + lines(1, first=3))
    destination = Destination()
    report = imported(destination, path, exit_code=3)
    assert report["rejected_by_code"] == {"unreadable_time": 1}
    text = f"{name} is not a time that can be read: write it in ISO 8601"
    assert report["examples"] == [{"file": str(path), "line": 2, "code": "unreadable_time", "message": text}]
    assert set(destination.stored) == {"m0", "m3"}


def test_file_with_only_unreadable_times_is_read_to_its_end(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text((json.dumps(message(1, timestamp="x")) + "\n") * 1100)
    assert imported(Destination(), path, exit_code=3)["rejected_by_code"] == {"unreadable_time": 1100}


def test_times_that_are_not_part_of_the_key_are_sent_unchanged(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(message(1, timestamp="2020-04-22", sentAt="x", receivedAt=7)) + "\n")
    destination = Destination()
    imported(destination, path)
    assert sent(destination) == [message(1, timestamp="2020-04-22", sentAt="x", receivedAt=7)]


def test_output_counts_rewritten_and_missing_times(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(message(number, timestamp=1587549600)) + "\n" for number in range(5)))
    with path.open("ab") as file:
        file.write(lines(1, first=5))
    with endpoint(Destination()) as server:
        result = run("import", str(path), "--url", server.url, *KEY)
    assert result.exit_code == 0
    assert (
        f"sent as ISO 8601 instead: 5 lines, such as {path}:1: 1587549600 is 2020-04-22T10:00:00.000000Z, "
        in result.stdout
    )
    assert f"Without a timestamp, so the time of the import counts: 1 line, such as {path}:6.\n" in result.stdout


def test_truncated_gzip_file_is_reported_and_others_are_read(tmp_path, history):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"".join(lines(1, first=100 + number) for number in range(50)))[:-30])
    destination = Destination()
    report = imported(destination, path, history, exit_code=1)
    assert report["unreadable"] == {str(path): "it ends too early: the gzip file is incomplete"}
    assert not report["complete"]
    assert ids(FEW_LINES) < set(destination.stored)


@pytest.mark.parametrize("size", [490_000, 1_000_000])
def test_message_too_large_for_a_batch_is_sent_alone(tmp_path, size):
    path = tmp_path / "history.jsonl"
    large = message(2, properties={"text": "x" * size})
    path.write_bytes(lines(2) + json.dumps(large).encode() + b"\n" + lines(1, first=3))
    destination = Destination()
    assert imported(destination, path)["accepted"] == 4
    assert destination.singles == [large]


def test_batches_stay_within_the_limits(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(message(number, text="ü" * 50_000)) + "\n" for number in range(20)))
    sizes = []

    def measure(_number, messages):
        sizes.append(len(json.dumps({"batch": messages}).encode()))

    assert imported(Destination(measure), path)["accepted"] == 20
    assert max(sizes) < 500_000
    report = imported(Destination(), path, "--batch-size", 1, "--restart")
    assert report["accepted"] == 20


def test_connections_are_reused_and_bodies_are_gzip(history):
    with endpoint(Destination()) as server:
        run("import", str(history), "--url", server.url, *KEY, "--batch-size", "1", "--concurrency", "2")
        posts = [received for received in server.received if received.head.startswith("POST")]
    assert len(posts) == FEW_LINES
    assert len({id(received.connection) for received in posts}) <= 2
    assert "Content-Type: application/octet-stream" in posts[0].head
    assert "Content-Encoding" not in posts[0].head
    assert all(received.body.startswith(b"\x1f\x8b") for received in posts)
    assert "Authorization: Basic c29tZS1rZXk6" in posts[0].head


@pytest.mark.parametrize("path", ["", "/", "/segment", "/v1/import", "/v1/batch", "/v1"])
def test_url_may_be_any_route_of_the_endpoint(history, path):
    with endpoint(Destination()) as server:
        result = run("import", str(history), "--url", server.url.removesuffix("/segment") + path, *KEY)
    assert result.exit_code == 0, result.output


def test_imported_messages_are_not_sent_again(history):
    imported(Destination(), history)
    destination = Destination()
    with endpoint(destination) as server:
        make_known(history, server)
        result = run("import", str(history), "--url", server.url, *KEY)
    assert result.exit_code == 0
    assert f"Already imported: 1 file of 1, by {history}{STATE_SUFFIX}." in result.stdout
    assert "Including earlier runs: 20 accepted, 0 duplicates, 0 rejected." in result.stdout
    assert destination.batches == []


def state_of(path):
    return path.with_name(path.name + STATE_SUFFIX)


def make_known(path, server):
    """Change the state to the URL of this endpoint, because each endpoint of these tests has another port."""
    state = json.loads(state_of(path).read_text())
    state["recipient"]["url"] = server.url.removesuffix("/segment")
    state_of(path).write_text(json.dumps(state))


def test_later_run_still_exits_with_1_for_earlier_rejects(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("1\n")
    with endpoint(Destination()) as server:
        codes = [run("import", str(path), "--url", server.url, *KEY).exit_code for _ in range(2)]
    assert codes == [3, 3]


def test_another_file_may_be_added_to_an_import(tmp_path, history):
    other = tmp_path / "other.jsonl"
    other.write_bytes(lines(2, first=100))
    destination = Destination()
    with endpoint(destination) as server:
        run("import", str(history), "--url", server.url, *KEY)
        result = run("import", str(history), str(other), "--url", server.url, *KEY, "--json")
    report = json.loads(result.stdout)
    assert (report["accepted"], report["already_imported"]) == (2, 1)


def refuse_after(batches):
    """Let the key expire after this number of batches."""

    def trouble(number, _messages):
        return None if number <= batches else response(401, '{"code": "revoked_key", "message": "API key was revoked"}')

    return trouble


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_next_run_resumes_where_the_last_one_ended(history, pack):
    history.write_bytes(pack(lines(FEW_LINES)))
    first, second = Destination(refuse_after(2)), Destination()
    report = imported(first, history, "--batch-size", 4, "--concurrency", 1, exit_code=1)
    assert report["accepted"] == 8
    with endpoint(second) as server:
        make_known(history, server)
        result = run("import", str(history), "--url", server.url, *KEY, "--json")
    assert set(second.stored) == ids(FEW_LINES) - ids(8)
    report = json.loads(result.stdout)
    assert report["accepted"] == 12
    assert report["in_all_runs"] == {"accepted": 20, "duplicates": 0, "rejected": 0}


def test_line_numbers_continue_in_the_next_run(history):
    history.write_bytes(lines(FEW_LINES) + b"nonsense\n")
    imported(Destination(refuse_after(2)), history, "--batch-size", 4, "--concurrency", 1, exit_code=1)
    with endpoint(Destination()) as server:
        make_known(history, server)
        report = json.loads(run("import", str(history), "--url", server.url, *KEY, "--json").stdout)
    assert report["examples"][0]["line"] == FEW_LINES + 1


def test_standard_input_is_resumed_with_a_named_state(tmp_path):
    state = tmp_path / "state.json"
    with endpoint(Destination(refuse_after(1))) as server:
        options = ("--url", server.url, *KEY, "--state", str(state), "--json")
        assert (
            run("import", "-", *options, "--batch-size", "4", "--concurrency", "1", stdin=lines(FEW_LINES)).exit_code
            == 1
        )
        server.answer = second = Destination()
        assert run("import", "-", *options, stdin=lines(FEW_LINES)).exit_code == 0
        assert set(second.stored) == ids(FEW_LINES) - ids(4)
        server.answer = third = Destination()
        assert run("import", "-", *options, stdin=lines(FEW_LINES + 1)).exit_code == 0
        assert set(third.stored) == {"m20"}


@pytest.mark.parametrize(
    ("stdin", "why"),
    [
        (lines(5, first=50), "it does not begin like the input that was imported before"),
        (lines(2), "it ends after "),
        (b"", "it is empty now"),
    ],
)
def test_changed_standard_input_is_an_error(tmp_path, stdin, why):
    state = tmp_path / "state.json"
    with endpoint(Destination()) as server:
        options = ("--url", server.url, *KEY, "--state", str(state), "--json")
        run("import", "-", *options, stdin=lines(5))
        result = run("import", "-", *options, stdin=stdin)
    assert result.exit_code == 1
    assert why in json.loads(result.stdout)["unreadable"]["-"]


def test_standard_input_without_a_state_is_sent_again():
    destination = Destination()
    with endpoint(destination) as server:
        results = [run("import", "-", "--url", server.url, *KEY, stdin=lines(5)) for _ in range(2)]
    assert "0 accepted, 5 duplicates" in results[1].stdout
    assert "Standard input can't be resumed without --state" in results[1].stderr


def test_changed_file_is_not_imported_without_an_option(history):
    destination = Destination()
    with endpoint(destination) as server:
        options = (str(history), "--url", server.url, *KEY)
        run("import", *options)
        history.write_bytes(lines(FEW_LINES + 5))
        result = run("import", *options)
        assert result.exit_code == 1
        assert f"{history} was changed since the import began" in result.stderr
        assert len(destination.batches) == 1
        result = run("import", *options, "--restart")
    assert "5 accepted, 20 duplicates" in result.stdout


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("url", "https://elsewhere.example.com", "to https://elsewhere.example.com"),
        ("key_hash", "0", "with another API key"),
        ("stores", "http://127.0.0.1:1", "to a local server that has ended"),
    ],
)
def test_state_of_another_import_is_refused(history, field, value, text):
    with endpoint(Destination()) as server:
        options = (str(history), "--url", server.url, *KEY)
        run("import", *options)
        state = json.loads(state_of(history).read_text())
        state["recipient"][field] = value
        state_of(history).write_text(json.dumps(state))
        result = run("import", *options)
        assert result.exit_code == 1
        assert f"is of an import {text}" in result.stderr
        assert run("import", *options, "--restart").exit_code == 0


def test_state_does_not_contain_the_key(history):
    imported(Destination(), history)
    assert "some-key" not in state_of(history).read_text()


@pytest.mark.parametrize("restart", [[], ["--restart"]], ids=["", "restart"])
@pytest.mark.parametrize("content", ["something dear", "{}", "[]", '{"kind": "x"}', "\xff"])
def test_file_that_is_not_a_state_is_never_overwritten(history, tmp_path, content, restart):
    precious = tmp_path / "precious"
    precious.write_text(content, encoding="latin-1")
    result = run("import", str(history), *KEY, "--url", "http://127.0.0.1:1", "--state", str(precious), *restart)
    assert result.exit_code == 1
    assert str(precious) in result.stderr
    assert precious.read_text(encoding="latin-1") == content


@pytest.mark.parametrize(
    ("name", "value"), [("accepted", "17"), ("duplicates", -1), ("rejected", {"x": "y"}), ("files", {"a": {}})]
)
def test_damaged_state_is_refused(history, name, value):
    with endpoint(Destination()) as server:
        assert run("import", str(history), *KEY, "--url", server.url).exit_code == 0
    state_of(history).write_text(json.dumps(json.loads(state_of(history).read_text()) | {name: value}))
    result = run("import", str(history), *KEY, "--url", server.url)
    assert (result.exit_code, "is not the state of an import" in result.stderr) == (1, True)


@pytest.mark.parametrize(("name", "value"), [("offset", "12"), ("offset", None), ("line", "x"), ("position", -1)])
def test_state_with_a_damaged_position_is_refused(history, name, value):
    with endpoint(Destination()) as server:
        assert run("import", str(history), *KEY, "--url", server.url).exit_code == 0
    state = json.loads(state_of(history).read_text())
    [progress] = state["files"].values()
    progress[name] = value
    state_of(history).write_text(json.dumps(state))
    result = run("import", str(history), *KEY, "--url", server.url)
    assert (result.exit_code, "is not the state of an import" in result.stderr) == (1, True)


def test_unwritable_state_is_reported_before_anything_is_sent(history):
    destination = Destination()
    with endpoint(destination) as server:
        result = run("import", str(history), *KEY, "--url", server.url, "--state", "/nowhere/state")
    assert result.exit_code == 1
    assert "The state can't be written to /nowhere/state" in result.stderr
    assert destination.batches == []


@pytest.mark.parametrize("option", ["--state", "--rejects"])
@pytest.mark.parametrize("name", ["history.jsonl", "new.jsonl"])
def test_output_file_must_not_be_an_input_file(history, option, name):
    result = run("import", str(history), str(history.parent), *KEY, option, str(history.parent / name))
    assert result.exit_code == 2
    assert f"{name} is among the files to import" in result.stderr
    assert history.read_bytes() == lines(FEW_LINES)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            response(401, '{"code": "unknown_key", "message": "API key is unknown"}'),
            "401 unknown_key API key is unknown",
        ),
        (response(403, '{"message": "Forbidden"}'), "403 Forbidden: name a valid key that may send all call types"),
        (response(404, '{"message": "Not Found"}'), "404 Not Found: it has no /v1/import"),
        (response(301, "", "Location: /elsewhere"), "301: check that --url belongs to a destination"),
        (response(400, '{"code": "missing_batch", "message": "No batch"}'), "400 missing_batch No batch"),
        (response(200, "<p>Welcome</p>"), "200: check that --url belongs to a destination"),
        (response(200, '{"accepted": 3, "duplicates": 0, "rejected": []}'), "without a result for each message"),
        (response(200, '{"accepted": "3", "duplicates": [], "rejected": {}}'), "without a result for each message"),
    ],
)
def test_permanent_refusal_ends_the_import_at_once(history, answer, text):
    report = imported(Destination(lambda _number, _messages: answer), history, exit_code=1)
    assert text in report["ended_because"]
    assert report["messages"] == 0


@pytest.mark.parametrize("answer", [response(401, '{"code": "unknown_key", "message": "API key is unknown"}')])
def test_wrong_key_or_url_leaves_no_state(history, answer):
    with endpoint(Destination(lambda _number, _messages: answer)) as server:
        result = run("import", str(history), "--url", server.url, "--api-key", "mistyped")
    assert (result.exit_code, state_of(history).exists()) == (1, False)
    assert "Nothing was accepted. Fix the cause, and run it again" in result.stderr
    assert counts(imported(Destination(), history))["accepted"] == FEW_LINES


def test_last_line_says_how_to_resume(history):
    with endpoint(Destination(refuse_after(1))) as server:
        result = run("import", str(history), "--url", server.url, "--batch-size", "1", "--concurrency", "1", *KEY)
    assert result.exit_code == 1
    assert f"Not all was sent. Run the same command again: {state_of(history)} has the progress" in result.stderr


TOO_LARGE = response(400, '{"code": "batch_too_large", "message": "Batch too large"}')
TOO_DEEP = response(400, '{"code": "nested_too_deeply", "message": "Nested too deeply"}')


def test_batch_too_large_for_the_endpoint_is_halved(history):
    destination = Destination(lambda _number, messages: TOO_LARGE if len(messages) > 3 else None)
    assert imported(destination, history)["accepted"] == FEW_LINES


def test_message_that_breaks_its_batch_is_isolated(history):
    def trouble(_number, messages):
        return TOO_DEEP if any(each["messageId"] == "m7" for each in messages) else None

    destination = Destination(trouble)
    report = imported(destination, history, exit_code=3)
    assert [(example["line"], example["code"]) for example in report["examples"]] == [(8, "nested_too_deeply")]
    assert set(destination.stored) == ids(FEW_LINES) - {"m7"}


BUSY = response(503, '{"code": "event_store_unavailable", "message": "Try again"}')


def test_output_says_what_the_import_waits_for(history):
    with endpoint(Destination(lambda number, _messages: BUSY if number == 1 else None)) as server:
        result = run("import", str(history), "--url", server.url, *KEY)
    assert "answers 503 event_store_unavailable Try again; continues in " in result.stderr
    assert result.exit_code == 0


def test_message_stored_despite_a_lost_answer_is_a_duplicate(history):
    destination = Destination(lambda number, messages: (destination.answer(messages), [])[1] if number == 1 else None)
    assert counts(imported(destination, history)) == {"accepted": 0, "duplicates": FEW_LINES, "rejected": 0}


def test_import_gives_up_an_unreachable_endpoint(history):
    result = run("import", str(history), *KEY, "--url", "http://127.0.0.1:1", "--give-up-after", "0")
    assert result.exit_code == 1
    assert "http://127.0.0.1:1: no answer (" in result.stderr
    assert "given up (--give-up-after)" in result.stderr
    assert not state_of(history).exists()


def is_half_way(history, destination, number):
    """Return whether enough was imported for the next run to resume there."""
    if number != signal.SIGKILL:
        return len(destination.batches) > FEW_LINES
    return '"offset": 0,' not in state_of(history).read_text() if state_of(history).exists() else False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_import_is_completed_by_the_next_run(tmp_path, number):
    history, printed, checkout = (tmp_path / name for name in ("history.jsonl", "printed", "checkout"))
    history.write_bytes(lines(3000))
    checkout.mkdir()
    signalled = Event()

    def delay(_number, _messages):
        """Answer slowly, and not at all between half-way and the signal, so that the import can't end before it."""
        if is_half_way(history, destination, number):
            assert signalled.wait(MAX_WAIT_SECONDS)
            time.sleep(0.1)
        time.sleep(0.01)

    destination = Destination(delay)
    with endpoint(destination) as server:
        options = ("import", str(history), "--url", server.url, *KEY, "--batch-size", "10", "--json")
        with printed.open("w") as output, start(make_checkout(checkout), *options, stdout=output) as process:
            wait_until(lambda: is_half_way(history, destination, number))
            process.send_signal(number)
            signalled.set()
            code = process.wait(MAX_WAIT_SECONDS)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 1)
        assert len(destination.stored) < 3000
        destination.trouble = lambda _number, _messages: None
        report = json.loads(run(*options).stdout)
    assert set(destination.stored) == ids(3000)
    assert report["complete"]
    assert report["messages"] < 3000
    if number != signal.SIGKILL:
        assert '"ended_because": "Interrupted"' in printed.read_text()


def test_signal_ends_the_wait_for_standard_input(tmp_path):
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    with endpoint(Destination()) as server, (tmp_path / "printed").open("w") as printed:
        options = ("import", "-", "--url", server.url, *KEY)
        with start(make_checkout(checkout), *options, stdin=subprocess.PIPE, stdout=printed) as process:
            wait_until(lambda: "resumed" in (tmp_path / "printed").read_text())
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            assert process.wait(MAX_WAIT_SECONDS) == 1
    assert "Interrupted. Nothing was accepted." in (tmp_path / "printed").read_text()


# The counts must add up


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_each_line_is_accepted_duplicate_rejected_or_blank(tmp_path, pack):
    path = tmp_path / "history.jsonl"
    path.write_bytes(pack(lines(4) + b"\n" + lines(2) + b"  \nnot JSON\n" + json.dumps(message(9, invalid=1)).encode()))
    report = imported(Destination(), path, "--batch-size", "2", exit_code=3)
    assert counts(report) == {"accepted": 4, "duplicates": 2, "rejected": 2}
    assert (report["lines"], report["blank"], report["unaccounted"]) == (10, 2, 0)


def lose_one(found):
    """Yield batches like a faulty reader that loses a message of the second batch."""
    for number, batch in enumerate(found):
        if number == 1:
            batch.messages.pop()
        yield batch


def count_twice(found):
    """Yield batches like a faulty reader that sends a message of the second batch twice."""
    for number, batch in enumerate(found):
        if number == 1:
            batch.messages.append(batch.messages[0])
        yield batch


@pytest.mark.parametrize("spoil", [lose_one, count_twice])
def test_line_without_an_answer_is_noticed_and_remembered(history, spoil):
    [source] = find_sources([str(history)]).sources
    with endpoint(Destination()) as server:
        url = deployment_url(server.url)
        recipient = Recipient.of(url, KEY[1], None)
        state = ImportState.load(default_state_path(str(history)), recipient, restart=False)
        start = state.progress_of(source).mark
        pace = ImportPace(size=5, give_up_after_seconds=0)
        sender = BatchSender(url, KEY[1], pace, connections=1)
        play = ImportRun(sender, pace, state, ImportTally(), concurrency=1, told=lambda *_: None)
        assert play.run(spoil(batches([(source, start)], most_messages=lambda: 5))) is None
        assert state.unaccounted == 1
        again = run("import", str(history), "--url", server.url, *KEY)
        assert again.exit_code == 1
        assert "1 of the lines that were read are neither blank nor accepted, duplicate or rejected" in again.stderr
        assert run("import", str(history), "--url", server.url, *KEY, "--restart").exit_code == 0


@pytest.mark.parametrize(("accepted", "duplicates"), [(-1, FEW_LINES + 1), (FEW_LINES + 1, -1), (FEW_LINES - 1, 0)])
def test_answer_with_wrong_counts_ends_the_import(history, accepted, duplicates):
    told = {"accepted": accepted, "duplicates": duplicates, "rejected": []}
    report = imported(lambda _: response(200, json.dumps(told)), history, exit_code=1)
    assert "without a result for each message" in report["ended_because"]
    assert counts(report) == {"accepted": 0, "duplicates": 0, "rejected": 0}
