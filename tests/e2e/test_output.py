"""Test the output of all commands: no text can control a terminal, and no environment causes a traceback."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from threading import Event, Thread

import click
import pytest
from endpoint import endpoint, response
from local_server import MAX_WAIT_SECONDS, run
from rich.console import Console
from rich.text import Text

from destination import console
from destination.command_line import INTERRUPTED, main
from destination.console import Rows, print_document, standard_streams, stdout
from destination.paths import ROOT
from handler.errors import Refusal

pytest_plugins = ["servers"]

STEERING = [
    *range(0x09),
    *range(0x0B, 0x20),
    *range(0x7F, 0xA0),
    0x061C,
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0xD800,
    0xDFFF,
]
HOSTILE = "".join(map(chr, STEERING))
CLEAN = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}


def is_steering(text):
    return any(chr(code) in text for code in STEERING)


def shell(line, **environment):
    """Run a line of bash in which $D is `destination`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LC_", "LANG"))}
    return subprocess.run(
        ["/bin/bash", "-c", f"D='{sys.executable} -m destination'; {line}"],
        cwd=ROOT,
        env={**variables, **CLEAN, **environment},
        capture_output=True,
        check=False,
        timeout=120,
    )


# Output on a terminal


@pytest.mark.parametrize("code", STEERING, ids=hex)
def test_control_characters_are_escaped_by_the_stream(code, capsys):
    with standard_streams():
        click.echo(f"a{chr(code)}b")
        click.echo(f"a{chr(code)}b", err=True)
    assert capsys.readouterr() == (f"a\\u{code:04x}b\n", f"a\\u{code:04x}b\n")


@pytest.mark.parametrize("code", STEERING, ids=hex)
def test_control_characters_are_replaced_by_the_console(code, capsys):
    with standard_streams():
        stdout().print(f"a{chr(code)}b", soft_wrap=True)
        console.stderr().print(Text(f"a{chr(code)}b"))
    for printed in capsys.readouterr():  # rich omits some control characters
        assert printed in ("a\N{REPLACEMENT CHARACTER}b\n", "ab\n")


def test_json_output_keeps_its_content(capsys):
    hostile = "-".join(HOSTILE)  # two halves of a surrogate pair would be read as one character
    document = {"text": hostile, hostile: "ü \N{GRINNING FACE}"}
    with standard_streams():
        click.echo(json.dumps(document))
        click.echo(json.dumps(document, ensure_ascii=False))
        print_document(document)
    printed = capsys.readouterr().out
    assert not is_steering(printed)
    first, second, rest = printed.split("\n", 2)
    assert [json.loads(text) for text in (first, second, rest)] == [document] * 3


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_every_encoding(encoding):
    code = (
        "import click, json; from destination.console import standard_streams\n"
        "with standard_streams(): click.echo(json.dumps('ü \\u20ac \\U0001f600', ensure_ascii=False))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert json.loads(result.stdout.decode(encoding)) == "ü \u20ac \U0001f600"


def test_deeply_nested_documents_are_printed(capsys):
    document = json.loads("[" * 600 + "]" * 600)
    with standard_streams():
        print_document(document)
    assert json.loads(capsys.readouterr().out) == document


@pytest.mark.parametrize("text", ["[red]x[/red]", ":smile:", "[link=https://evil.example]x[/link]", "[/]"])
def test_markup_in_text_is_text(text, capsys):
    with standard_streams():
        stdout().print(text)
        rows = Rows(text)
        rows.add_row(text)
        stdout().print(rows)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [text] * 3


def test_cells_are_one_line(capsys):
    rows = Rows("First", "Second")
    rows.add_row("a\nb\tc", Text("d\re"))
    stdout().print(rows)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_consoles_are_made_by_one_module():
    makers = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "destination").rglob("*.py")
        if "Console(" in file.read_text("utf-8") and file.name != "console.py"
    ]
    assert makers == []


# Tables


def codes(error=Refusal):
    """Yield the codes of all refusals."""
    yield from filter(None, [getattr(error, "code", None)])
    for kind in error.__subclasses__():
        yield from codes(kind)


CODES = sorted(set(codes()))


def drawn(rows, columns):
    screen = Console(width=columns, force_terminal=True, color_system=None, highlight=False)
    with screen.capture() as captured:
        screen.print(rows)
    return captured.get()


def sample_rows(customer="acme"):
    rows = Rows("Customer", "Calls", "Code", "Refused", "Failed", right=(3, 4), folded=(0,))
    for code in CODES:
        rows.add_row(customer, "identify", code, "1,234,567", "0")
    return rows


@pytest.mark.parametrize("columns", [20, 40, 80, 120, 300])
@pytest.mark.parametrize("customer", ["acme", "c" * 128, "a customer of many words " * 5], ids=len)
def test_cells_are_never_cut(columns, customer):
    shown = drawn(sample_rows(customer), columns)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= columns
    together = "".join(shown.split())
    assert together.count("erasure_store_unavailable") >= (1 if columns > 20 or customer == "acme" else 0)
    assert together.count("1,234,567") == len(CODES)


def test_no_word_is_folded_where_another_column_can_be_wrapped():
    rows = Rows("Linked id", "Named as", "Messages", folded=(0,))
    rows.add_row("b2a7c1d0-6b9e-4e53-9f0e-3d1c8a5e7f21", "anonymous, previous", "0")
    assert "b2a7c1d0-6b9e-4e53-9f0e-3d1c8a5e7f21" in drawn(rows, 60).split()


@pytest.mark.parametrize("customer", ["acme", "a-customer-with-a-longer-id"])
def test_codes_stay_whole_in_80_columns(customer):
    shown = drawn(sample_rows(customer), 80)
    assert set(CODES) <= set(shown.split())
    assert shown.split()[:5] == ["Customer", "Calls", "Code", "Refused", "Failed"]


def test_table_too_wide_for_the_terminal_becomes_a_list():
    rows = Rows("Customer", "Code")
    rows.add_row("acme", "erasure_store_unavailable")
    rows.add_row("", "x")
    assert drawn(rows, 32).split("\n") == ["Customer: acme", "Code: erasure_store_unavailable", "", "Code: x", ""]


@contextmanager
def terminal(columns):
    """Yield the file descriptor of a terminal, and a function that closes it and returns the output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    pieces = []

    def read():
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux reports the closed other end with this error
                return
            pieces.append(piece)

    reader = Thread(target=read)
    reader.start()

    def written():
        os.close(theirs)
        reader.join()
        return b"".join(pieces).decode().replace("\r\n", "\n")

    yield theirs, written
    os.close(ours)


def on_terminal(*args, columns=80, **environment):
    """Run a command on a terminal without colours, and return its output. Progress bars are on standard error."""
    variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    with terminal(columns) as (descriptor, written):
        subprocess.run(
            [sys.executable, "-m", "destination", *args],
            cwd=ROOT,
            env={**variables, "TERM": "xterm", "NO_COLOR": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=120,
        )
        return re.sub(r"\x1b\[[01]m", "", written())  # bold headings


LABEL = "a label \x1b]0;title\x07 \x1b[2J of \u202emany\nwords [red]:smile:[/red] " * 3


@pytest.fixture(scope="module")
def used(server):
    """Return a server that has received accepted and refused messages of hostile customers."""
    created = server.json("keys", "create", "--customer", "a-customer-with-a-longer-id", "--label", LABEL)
    keys = (created["api_key"], "demo-key-good")
    for key in keys:
        hostile = {
            "userId": f"u{HOSTILE}",
            "messageId": "m\x1b[31m\x9b",
            "traits": {"name": HOSTILE, HOSTILE: [HOSTILE]},
        }
        server.post({"type": "identify", **hostile}, key=key)
        server.post({"type": "track", "event": f"[red]{HOSTILE}", "userId": "u"}, key=key)
        server.post({"type": "track", "event": "", "userId": f"u{HOSTILE}", "messageId": f"r{HOSTILE}"}, key=key)
        server.post({"userId": "u"}, key=key)
        server.post({"type": HOSTILE, "userId": "u"}, key=key)
    server.post({"type": "track"}, key="unknown\x1b")
    server.request("GET", "/%1b%5d0;x%07")
    return server


READING = [
    ("keys", "list"),
    ("messages", "list"),
    ("messages", "export", "--customer", "demo"),
    ("messages", "show", "m\x1b[31m\x9b"),
    ("contacts", "list"),
    ("rejects", "list"),
    ("erasures", "list"),
    ("status",),
    ("status", "--since", "all"),
    ("trace", "nothing"),
    ("ping", "all"),
    ("erase", "--user", "u", "--dry-run"),
]


@pytest.mark.parametrize("as_json", [False, True], ids=["people", "json"])
@pytest.mark.parametrize("command", READING, ids=lambda command: " ".join(command)[:20])
def test_stored_text_cannot_control_the_terminal(used, command, as_json):
    if as_json and command[:2] == ("messages", "export"):
        return
    result = used.run(*command, *(["--json"] if as_json else []))
    assert result.exit_code in (0, 1)
    assert not is_steering(result.stdout)
    assert not is_steering(result.stderr)


def test_server_prints_received_text_without_control_characters(used):
    assert not is_steering(used.output)


@pytest.mark.parametrize(
    "command",
    [("status",), ("keys", "list"), ("rejects", "list"), ("contacts", "list"), ("messages", "list")],
    ids=" ".join,
)
def test_tables_fit_into_80_columns_without_cutting(used, command):
    shown = on_terminal(*command, "--url", used.url)
    assert not is_steering(shown)
    assert max(map(len, shown.splitlines())) <= 80 or command == ("status",)
    assert "Traceback" not in shown
    words = shown.split()
    if command == ("status",):
        assert {"invalid_message", "missing_type", "unsupported_call_type", "unknown_key"} <= set(words)
        assert "Accepted" in words
        assert "…" not in shown


def test_pinged_server_cannot_control_the_terminal():
    body = f"\x1b]0;x\x07{HOSTILE[:-2]}".encode()
    answers = [
        response(200, "X", f"X-Evil: \x1b[2J{chr(0x9B)}31m", "Location: http://127.0.0.1:1/"),
        [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\xfe\x9b\x00"],
        [b'HTTP/1.1 400 No\r\nContent-Length: 31\r\n\r\n{"message": "\\u001b[31m\\u009b"}'],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"[" * 9999],
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"],
        [b"\x1b[31m\r\n\r\n"],
    ]
    for answer in answers:
        with endpoint(lambda _received, answer=answer: answer) as server:
            for options in ([], ["--json"]):
                result = run("ping", "--url", server.url, "--api-key", "k", *options)
                assert result.exit_code in (0, 1)
                assert not is_steering(result.output), (answer, result.output)


def test_endless_answer_to_a_ping_is_cut_off():
    def answer(_received):
        yield b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        while True:
            yield b"x" * 65536

    with endpoint(answer) as server:
        result = run("ping", "--url", server.url, "--api-key", "k")
    assert "1,048,576 characters" in " ".join(result.stdout.split())


# The environment


ENVIRONMENTS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
    {"COLUMNS": "20"},
    {"COLUMNS": "1"},
    {"COLUMNS": "no number"},
    {"TERM": "dumb"},
    {"TERM": ""},
    {"NO_COLOR": "1"},
    {"FORCE_COLOR": "1"},
]
REDIRECTIONS = {
    "": {0},
    ">/dev/full": {1},
    "2>/dev/full": {0},
    ">&-": {1},
    "2>&-": {0},
    "<&-": {0},
    "<&- >&- 2>&-": {1},
    "| head -c 1; (exit ${PIPESTATUS[0]})": {0, 1},
    "| true; (exit ${PIPESTATUS[0]})": {0, 1},
}


def leaves(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


CALLS = """
import sys
from destination.command_line import main
for call in {calls!r}:
    try:
        main(call, prog_name="destination")
    except SystemExit as end:
        assert end.code == 0, call
"""


def call_all(calls, **environment):
    """Run commands in one process, because each would need a second to start. Return the output."""
    code = CALLS.format(calls=[list(call) for call in calls])
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**CLEAN, **environment}, capture_output=True, check=False
    )
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False), result.stderr
    return result.stdout


@pytest.mark.parametrize("environment", [{}, *ENVIRONMENTS], ids=str)
def test_commands_print_no_traceback_in_any_environment(used, environment):
    helps = [(*path, "--help") for path in leaves()]
    reading = [(*command, "--url", used.url) for command in READING if command[:2] != ("trace", "nothing")]
    printed = call_all([*helps, *reading, ("ping", "--print"), ("schemas", "check")], **environment)
    assert printed.count(b"Usage: ") == len(helps)


@pytest.mark.parametrize("command", ["status --help", "keys list --url $URL"])
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_redirected_commands_print_no_traceback(used, command, redirection):
    result = shell(f"$D {command} {redirection}", URL=used.url)
    assert result.returncode in REDIRECTIONS[redirection]
    assert b"Traceback" not in result.stderr
    assert b"Exception ignored" not in result.stderr
    if redirection in (">/dev/full", ">&-"):
        assert result.stderr.startswith(b"Error: Standard output can't be written: ")
    elif redirection.startswith("|"):
        assert result.stderr == b""


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| head -1"])
def test_server_that_cannot_print_ends(redirection):
    result = shell(f"timeout 60 $D serve --port 0 {redirection}; (exit ${{PIPESTATUS[0]}})")
    assert (result.returncode, b"Traceback" in result.stderr) == (0 if "head" in redirection else 1, False)


KEYS_LIST = ("-m", "destination", "keys", "list", "--url")


@pytest.mark.parametrize("loaded", ["click", "botocore.session", "destination.commands.trace"])
def test_control_c_during_the_start_prints_no_traceback(loaded):
    command = [sys.executable, "-X", "importtime", *KEYS_LIST, "http://127.0.0.1:1"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert any(line.rpartition("|")[2].strip() == loaded for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode in (INTERRUPTED, -signal.SIGINT)


def test_control_c_during_a_wait_prints_no_traceback():
    asked, ended = Event(), Event()

    def never(_received):
        asked.set()
        ended.wait(MAX_WAIT_SECONDS)
        return []

    with endpoint(never) as server:
        command = [sys.executable, *KEYS_LIST, server.url]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert asked.wait(MAX_WAIT_SECONDS)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=MAX_WAIT_SECONDS)
        ended.set()
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in out + err


def test_paths_in_errors_are_escaped(tmp_path):
    result = run("import", str(tmp_path / "\x1b[31m.jsonl"))
    assert result.exit_code == 2
    assert "\x1b" not in result.output
