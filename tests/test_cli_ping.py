"""Test `destination ping`: what it sends, and how it shows the answer."""

import base64
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from local_server import run

from handler.spec import CALL_TYPES

pytest_plugins = ["servers"]


@pytest.fixture
def endpoint():
    """Return an HTTP server that keeps the last request, and answers it with `answer`."""

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.headers = dict(self.headers)
            self.server.message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = self.server.answer
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    with HTTPServer(("127.0.0.1", 0), Keep) as server:
        server.answer = (200, b"{}")
        server.url = f"http://127.0.0.1:{server.server_port}/segment"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_message_of_each_call_type_is_accepted_and_stored(server):
    results = server.json("ping", "all")
    assert [(result["request"]["type"], result["status"]) for result in results] == [
        (call_type, 202 if call_type == "delete" else 200) for call_type in CALL_TYPES
    ]
    for result in results:
        assert result["answer"]["status"] == "stored"
        if result["request"]["type"] == "delete":
            continue  # of another user, and it is gone when it is carried out
        stored = server.json("messages", "show", result["request"]["messageId"])
        assert stored["type"] == result["request"]["type"]


def test_each_call_type_is_shown_as_one_line(server):
    result = server.run("ping", "all")
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines] == list(CALL_TYPES)
    assert max(map(len, lines)) <= 80
    for line in lines:
        status, _, _, _, message_id = line.split()
        assert (status, len(message_id)) == ("202" if "delete" in line else "200", len("ping-") + 36)


def test_line_of_a_refused_message_has_the_reason(server):
    result = server.run("ping", "all", "--api-key", "ddk_wrong")
    assert result.exit_code == 1
    assert all("401" in line and "key" in line.partition("ping-")[2] for line in result.stdout.splitlines())


def test_verbose_shows_all_requests_and_answers(server):
    result = server.run("ping", "all", "--verbose")
    assert result.stdout.count(f"POST {server.url}/segment") == len(CALL_TYPES)


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_request_and_answer_are_shown_side_by_side(server, call_type):
    result = server.run("ping", call_type)
    assert result.exit_code == 0
    for part in (f"POST {server.url}/segment", f'"type": "{call_type}"', "HTTP 20", '"status": "stored"'):
        assert part in result.stdout
    assert "Authorization: Basic …" in result.stdout


def test_repeated_ping_is_a_new_message(server):
    answers = [server.json("ping")[0]["answer"]["status"] for _ in range(2)]
    assert answers == ["stored", "stored"]


@pytest.mark.parametrize("path", ["", "/", "/segment"])
def test_local_server_gives_the_key_for_any_path(server, path):
    assert run("ping", "--url", server.url + path).exit_code == 0


def test_request_equals_segments(endpoint):
    run("ping", "identify", "--url", endpoint.url, "--api-key", "some-key", "--settings", '{"region": "eu"}')
    length = endpoint.headers.pop("Content-Length")
    assert endpoint.headers == {
        "Host": f"127.0.0.1:{endpoint.server_port}",
        "Accept": "*/*",
        "Authorization": "Basic " + base64.b64encode(b"some-key:").decode(),
        "Cache-Control": "no-cache",
        "Connection": "Keep-Alive",
        "Content-Type": "application/json",
        "User-Agent": "Segment.io/1.0",
        "X-Segment-Settings": base64.b64encode(b'{"region": "eu"}').decode(),
    }
    assert int(length) > 0
    assert endpoint.message["type"] == "identify"


def test_no_settings_means_no_header(endpoint):
    run("ping", "--url", endpoint.url, "--api-key", "some-key")
    assert "X-Segment-Settings" not in endpoint.headers


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (401, b'{"message": "API key is unknown"}', '"message": "API key is unknown"'),
        (503, b"<p>Down [/b]</p>", "<p>Down [/b]</p>"),
        (301, b"[]", "Location: /elsewhere"),
        (500, b"\xff", "�"),
    ],
)
def test_any_answer_except_acceptance_fails(endpoint, status, body, shown):
    endpoint.answer = (status, body)
    options = ("--url", endpoint.url, "--api-key", "some-key")
    result = run("ping", *options)
    assert result.exit_code == 1
    assert f"HTTP {status} in " in result.stdout
    assert shown in result.stdout
    result = run("ping", *options, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)[0]["status"] == status


def test_a_refused_key_fails(server):
    result = server.run("ping", "--api-key", "demo-key-expired")
    assert result.exit_code == 1
    assert '"message": "API key expired"' in result.stdout


def test_refused_first_message_does_not_stop_the_others(server):
    result = server.run("ping", "all", "--api-key", "demo-key-scoped", "--json")
    assert result.exit_code == 1
    statuses = {answer["request"]["type"]: answer["status"] for answer in json.loads(result.stdout)}
    assert statuses == {call_type: 200 if call_type == "identify" else 403 for call_type in CALL_TYPES}


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_printing_sends_nothing_and_needs_no_server(call_type):
    result = run("ping", call_type, "--print", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["type"] == call_type


def test_silent_endpoint_is_named():
    result = run("ping", "--url", "http://127.0.0.1:1", "--api-key", "some-key")
    assert result.exit_code == 1
    assert "Error: http://127.0.0.1:1/segment does not answer: " in result.stderr
    assert "Connection refused" in result.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--url", "example.com"], "example.com is not a URL: write https://host/segment"),
        (["--url", "ftp://example.com"], "ftp://example.com is not a URL"),
        (["--settings", "{region: eu}"], "not JSON: Expecting property name"),
        (["--settings", "[]"], "must be a JSON object"),
        (["sing"], "'sing' is not one of 'identify', 'track'"),
    ],
)
def test_ping_with_invalid_options_is_not_sent(options, sentence):
    result = run("ping", "--api-key", "some-key", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_lines_in_a_file_are_not_padded(server):
    result = server.run("ping", "track")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("POST http")
    assert any(line.startswith("HTTP 200 in ") for line in lines)
    assert all(line == line.rstrip() and "│" not in line for line in lines)
