"""Test `destination serve`: the deployed shape on this machine, with several settings."""

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from local_server import MAX_WAIT_SECONDS, in_background, make_checkout, run, serving, start, wait_until
from store_proxy import Fault, store_proxy

from destination.deployment import demo
from destination.deployment.key_table import KeyRecord
from destination.deployment.stack import Account
from destination.local.consumer_edits import place_of_error
from destination.local.embedded_aws import EmbeddedAws, HealthCheck
from destination.local.embedded_aws_process import CONTAINER_BRIDGE, DESKTOP_HOST
from destination.paths import ROOT
from handler.record import sha256, subject_key

pytest_plugins = ["servers"]

TRACK = {"type": "track", "userId": "serve-tester", "event": "Lamp Lit"}
KEY = "it's [/b] $HOME"
"""Markup for the terminal and variables for the shell. Both must be quoted."""


# Answers


def test_request_is_answered_by_the_function_and_logged(server):
    message_id = str(uuid.uuid4())
    reply = server.post({**TRACK, "messageId": message_id})
    assert (reply.status, reply.body["status"]) == (200, "stored")
    assert reply.headers["Content-Type"] == "application/json"
    wait_until(lambda: f"POST /segment 200 accepted track demo {message_id}" in server.output)
    server.post("no object")
    wait_until(lambda: "POST /segment 400 refused demo not_an_object" in server.output)


def test_concurrent_requests_are_all_stored(server):
    user = str(uuid.uuid4())
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(server.post, ({**TRACK, "userId": user, "messageId": f"m{n}"} for n in range(100))))
    assert {reply.status for reply in replies} == {200}
    listed = server.run("messages", "list", "--user", user, "--limit", "1000", "--json").stdout.splitlines()
    assert {json.loads(line)["message_id"] for line in listed} == {f"m{n}" for n in range(100)}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/segment"), ("PUT", "/segment"), ("POST", "/"), ("POST", "/segment/"), ("POST", "/health")],
)
def test_another_route_or_method_is_404(server, method, path):
    reply = server.request(method, path)
    assert (reply.status, reply.body) == (404, {"message": "Not Found"})
    wait_until(lambda: f"{method} {path} 404 no such route" in server.output)


@pytest.mark.parametrize("message_id", ["\ud800", "\x1b[31m", "a\nb", "[/red]"])
def test_message_id_cannot_break_the_console(server, message_id):
    for odd_or_not in (message_id, f"after-{uuid.uuid4()}"):
        assert server.post({**TRACK, "userId": str(uuid.uuid4()), "messageId": odd_or_not}).status == 200
    wait_until(lambda: odd_or_not in server.output)


def test_health_allows_only_get(server):
    reply = server.request("GET", "/health")
    assert (reply.status, reply.body) == (200, {"status": "healthy"})
    assert server.http.request("HEAD", f"{server.url}/health").status == 404
    wait_until(lambda: "HEAD /health 404 no such route" in server.output)


def test_a_body_over_ten_megabytes_is_413(server):
    reply = server.post(b" " * (10 * 1024 * 1024 + 1))
    assert (reply.status, reply.body) == (413, {"message": "Request Entity Too Large"})
    assert server.post(b" " * (10 * 1024 * 1024)).status == 400  # by the function, which has the lower limit


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 10485761\r\n", b""),
        ("Content-Length: 99999999999999\r\n", b"{"),
        ("Transfer-Encoding: chunked\r\n", b"100000\r\n" + b" " * 0x100000 + b"\r\n"),
    ],
    ids=["announced", "announced as very long", "in chunks without end"],
)
def test_oversized_body_is_refused_before_it_has_arrived(server, head, body):
    host, port = server.url.removeprefix("http://").split(":")
    request = f"POST /segment HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n{head}\r\n"
    with socket.create_connection((host, int(port)), timeout=MAX_WAIT_SECONDS) as connection:
        connection.sendall(request.encode() + body * (11 if "chunked" in head else 1))
        answer = connection.recv(65536)  # the request has not ended
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"the body is larger than 10 MB" not in answer
    wait_until(lambda: "POST /segment 413 the body is larger than 10 MB" in server.output)


def test_a_bug_is_500_and_its_traceback_is_printed(queue_server):
    item = {**KeyRecord.of("broken-key", customer_id="demo").to_item(), "status": {"S": "no such status"}}
    queue_server.account.dynamodb().put_item(TableName=queue_server.stores.key_table, Item=item)
    reply = queue_server.post(TRACK, key="broken-key")
    assert (reply.status, reply.body) == (500, {"message": "Internal Server Error"})
    wait_until(lambda: "ValueError: 'no such status' is not a valid Status" in queue_server.output)
    assert '"code": "internal_error"' in queue_server.output
    assert queue_server.post(TRACK).status == 202


def test_parameter_chooses_the_queue(queue_server):
    message_id = str(uuid.uuid4())
    reply = queue_server.post({**TRACK, "messageId": message_id})
    assert (reply.status, reply.body["status"]) == (202, "queued")
    queue = {"QueueUrl": queue_server.stores.event_queue_url, "MaxNumberOfMessages": 10}
    received = queue_server.account.sqs().receive_message(**queue)["Messages"]
    assert message_id in {json.loads(message["Body"])["message"]["message_id"] for message in received}


def test_log_lines_of_the_functions_are_printed_raw(queue_server):
    message_id = str(uuid.uuid4())
    queue_server.post({**TRACK, "messageId": message_id})
    wait_until(lambda: message_id in queue_server.output)
    [line] = [line for line in queue_server.output.splitlines() if message_id in line]
    facts = json.loads(line)
    assert (facts["outcome"], facts["status"], facts["call_type"]) == ("accepted", 202, "track")


def test_welcome_shows_a_request_that_works(server):
    [command] = [part for part in server.output.split("\n\n") if part.startswith("  curl")]
    curl, include, *options, url = shlex.split(command.replace("\\\n", ""))
    assert (curl, include, url) == ("curl", "-i", f"{server.url}/segment")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given["-H"] == "Content-Type: application/json"
    assert server.post(given["-d"].encode(), key=given["-u"].removesuffix(":")).body["status"] == "stored"


# After the answer


def test_a_stored_message_reaches_the_consumer(server):
    user = str(uuid.uuid4())
    server.post({"type": "identify", "userId": user, "traits": {"plan": "pro"}})
    wait_until(lambda: server.run("contacts", "show", user).exit_code == 0)
    assert server.json("contacts", "show", user)["traits"] == {"plan": "pro"}


def test_delete_is_carried_out_and_logged(server):
    user = str(uuid.uuid4())
    server.post({**TRACK, "userId": user})
    assert server.post({"type": "delete", "userId": user}).status == 202
    wait_until(lambda: not server.run("messages", "list", "--user", user, "--json").stdout)
    user_hash = sha256(subject_key(demo.CUSTOMER, "user", user))
    line = f"EraserFunction erased customer_id=demo user_hash={user_hash} "
    wait_until(lambda: line in server.output)
    [told] = [told for told in server.output.splitlines() if line in told]
    assert " messages=1 rejects=0 " in told
    assert '"_aws"' not in server.output


def test_unreadable_queue_message_is_reported_in_one_line(server):
    server.account.sqs().send_message(QueueUrl=server.stores.event_queue_url, MessageBody="no JSON")
    wait_until(lambda: "Unreadable: The stored message can't be read: it is not JSON" in server.output)
    assert "QueueConsumerFunction consumer_failed record_id=" in server.output


def test_queued_messages_reach_the_consumer(tmp_path):
    options = ("--parameter", "EventSink=sqs", "--parameter", "EventQueueType=fifo", "--processes", "1", "--json")
    with serving(tmp_path, *options) as server:
        server.post({"type": "identify", "userId": "u", "traits": {"plan": "pro"}})
        wait_until(lambda: server.run("contacts", "show", "u").exit_code == 0)
        wait_until(lambda: '"Consumed"' in server.output)
        [line] = [line for line in server.output.splitlines() if '"Consumed"' in line]
    assert json.loads(line)["Consumed"] == [1.0]


def test_missing_queues_of_another_server_are_reported(tmp_path, other_aws):
    with store_proxy(other_aws.url) as proxy:
        proxy.fault = Fault.HAS_NO_QUEUES
        with serving(tmp_path, "--processes", "1", "--endpoint-url", proxy.url) as server:
            stored = server.post(TRACK)
    assert stored.status == 200
    missing = f"{proxy.url} has no queue EventQueue, queue EventFifoQueue"
    assert f"{missing}: QueueConsumerFunction can't read there.\n" in server.output


# Settings


@pytest.fixture(scope="module")
def https_server(tmp_path_factory):
    """Return a local server with HTTPS and one known key."""
    with serving(tmp_path_factory.mktemp("https"), "--tls", "--processes", "1", "--api-key", KEY) as server:
        yield server


def test_https_works_with_its_authority(https_server):
    assert https_server.url.startswith("https://")
    assert https_server.post(TRACK).status == 200
    authority = str(https_server.checkout / ".local" / "ca.pem")
    assert f"curl --cacert {authority}" in https_server.output
    trusting = https_server.run("ping", "--api-key", KEY, "--ca-file", authority)
    assert (trusting.exit_code, "HTTP 200" in trusting.stdout) == (0, True)


def test_commands_in_its_checkout_trust_it(https_server):
    https_server.post(TRACK)
    options = ("--user", TRACK["userId"], "--url", https_server.url)
    with start(https_server.checkout, "messages", "list", *options, stdout=subprocess.PIPE) as listing:
        assert TRACK["event"] in listing.communicate(timeout=MAX_WAIT_SECONDS)[0]


def test_chosen_key_works_and_is_shown_quoted(https_server):
    assert https_server.post(TRACK, key=KEY).status == 200
    assert f"API key: {KEY} " in https_server.output
    assert shlex.quote(f"{KEY}:") in https_server.output


def test_the_environment_for_sam_local_reaches_the_same_stores(server):
    environment = json.loads((server.checkout / ".local" / "env.json").read_text())["Parameters"]
    assert environment["EVENT_TABLE"] == server.stores.event_table
    host, port = environment["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
    assert port == server.account.endpoint_url.rpartition(":")[2]
    assert host in (CONTAINER_BRIDGE, DESKTOP_HOST)
    with socket.socket() as probe:
        probe.settimeout(1)
        assert probe.connect_ex((CONTAINER_BRIDGE, int(port))) != 0  # nothing listens there by default


def test_containers_reach_the_stores_with_the_docker_option(tmp_path):
    with serving(tmp_path, "--docker", "--processes", "1") as server:
        environment = json.loads((server.checkout / ".local" / "env.json").read_text())["Parameters"]
        host, port = environment["AWS_ENDPOINT_URL"].removeprefix("http://").split(":")
        if host == CONTAINER_BRIDGE:
            socket.create_connection((host, int(port)), MAX_WAIT_SECONDS).close()
        signed = {
            "Host": f"{host}:{port}",
            "Authorization": "AWS4-HMAC-SHA256 Credential=local/20260312/us-east-1/sqs/x",
        }
        ask = ("GET", f"{server.account.endpoint_url}/?Action=ListQueues")
        assert server.http.request(*ask, headers=signed).status == 200
        assert server.http.request(*ask, headers={"Host": f"{host}:{port}"}).status == 403


@pytest.mark.parametrize(
    ("options", "exit_code", "sentence"),
    [
        (["--parameter", "EventSink"], 2, "EventSink has no value: write EventSink=VALUE"),
        (["--parameter", "EventSink=kafka"], 1, "EventSink can't be kafka: it must be one of dynamodb, sqs"),
        (["--api-key", "some:key"], 2, "an API key is up to 256 printable ASCII characters without a colon"),
        (["--endpoint-url", "http://127.0.0.1:1"], 1, "http://127.0.0.1:1 does not answer as DynamoDB"),
        (["--host", "nowhere.invalid"], 1, "Can't listen on nowhere.invalid:0"),
        (["--allow-host", "https://abc.ngrok.app"], 2, "https://abc.ngrok.app is not a host name: write only the name"),
        (["--processes", "0"], 2, "0 is not in the range 1<=x<=100"),
    ],
)
def test_invalid_setting_is_an_error(options, exit_code, sentence):
    result = run("serve", "--port", "0", *options)
    assert (result.exit_code, sentence in result.stderr) == (exit_code, True), result.output


def test_used_port_is_an_error_and_changes_no_file(server):
    environment_file = server.checkout / ".local" / "env.json"
    written = environment_file.read_text()
    port = server.url.rpartition(":")[2]
    with start(server.checkout, "serve", "--port", port, stdout=subprocess.PIPE) as second:
        printed = second.communicate(timeout=MAX_WAIT_SECONDS)[0]
    assert second.returncode == 1
    assert printed == f"Error: Can't listen on 127.0.0.1:{port} (Address already in use): choose another --port\n"
    assert environment_file.read_text() == written


# Another server to store in


@pytest.fixture(scope="module")
def proxied(tmp_path_factory, other_aws):
    """Return a local server with one function, and the proxy in front of the server with its stores."""
    forgetful = ("--parameter", "KeyCacheSeconds=0", "--parameter", "KeyGraceSeconds=0")
    checkout = tmp_path_factory.mktemp("proxied")
    with (
        store_proxy(other_aws.url) as proxy,
        serving(checkout, *forgetful, "--processes", "1", "--endpoint-url", proxy.url) as server,
    ):
        yield server, proxy


def test_stores_can_be_on_another_server(proxied, other_aws):
    server, proxy = proxied
    message_id = str(uuid.uuid4())
    assert server.post({**TRACK, "messageId": message_id}).status == 200
    assert server.account.endpoint_url == proxy.url
    items = Account(endpoint_url=other_aws.url).dynamodb().scan(TableName=server.stores.event_table)["Items"]
    assert message_id in {item["message_id"]["S"] for item in items}


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (Fault.HANGS, {"code": "key_store_unavailable", "message": "API keys can't be checked at the moment"}),
        (Fault.DRIBBLES, {"message": "Service Unavailable"}),  # by the gateway, after the function's time was over
    ],
)
def test_faulty_store_is_503_until_it_recovers(proxied, fault, body):
    server, proxy = proxied
    proxy.fault = fault
    failed = server.post(TRACK)
    proxy.fault = Fault.NONE
    assert (failed.status, failed.body) == (503, body)
    wait_until(lambda: server.post(TRACK).status == 200)  # the function may still be busy


# Its end


@pytest.mark.parametrize(
    ("printed", "number", "exit_codes"),
    [
        pytest.param("Starting 1 function", signal.SIGINT, {0, 130}, id="Control-C while it starts"),
        pytest.param("Control-C ends it", signal.SIGINT, {0, 130}, id="Control-C"),
        pytest.param("Control-C ends it", signal.SIGTERM, {0, -signal.SIGTERM}, id="terminated"),
        pytest.param("Control-C ends it", signal.SIGKILL, {-signal.SIGKILL}, id="killed"),
    ],
)
def test_server_ends_without_a_traceback(tmp_path, printed, number, exit_codes):
    options = ("--port", "0", "--processes", "1")
    with start(make_checkout(tmp_path), "serve", *options, stdout=subprocess.PIPE) as process:
        assert any(printed in line for line in process.stdout)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # a terminal sends it to all processes
        else:
            process.send_signal(number)
        # communicate() returns when the last process has closed the pipe
        last_words = process.communicate(timeout=MAX_WAIT_SECONDS)[0]
        assert process.returncode in exit_codes
        assert "Traceback" not in last_words


@pytest.mark.parametrize("printed", ["Starting 1 function", "Control-C ends it"])
def test_control_c_ends_it_in_the_background_too(tmp_path, printed):
    options = ("--port", "0", "--processes", "1")
    with in_background():
        process = start(make_checkout(tmp_path), "serve", *options, stdout=subprocess.PIPE)
    with process:
        assert any(printed in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=MAX_WAIT_SECONDS)[0].endswith("Stopped.\n")
        assert process.returncode == 0


def children(pid):
    """Return the processes that a process has started, with their command lines."""
    command = ["ps", "-wweo", "pid=,ppid=,args="]
    listed = subprocess.check_output(command, text=True).splitlines()
    rows = [line.split(None, 2) for line in listed]
    return {int(child): args for child, parent, args in rows if int(parent) == pid}


def child(server, words):
    """Return the child process with these words in its command line."""
    return next(pid for pid, args in children(server.process.pid).items() if words in args)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_its_embedded_aws_has_ended(tmp_path, number):
    with serving(tmp_path, "--processes", "1") as server:
        os.kill(child(server, "embedded_aws"), number)
        assert server.process.wait(MAX_WAIT_SECONDS) == 1
    assert f"Error: The embedded AWS has ended (exit code {-number}), and its data is gone." in server.output
    assert "Traceback" not in server.output


def test_hanging_embedded_aws_is_declared_dead():
    others = children(os.getpid()).keys()
    embedded = EmbeddedAws()
    try:
        [pid] = [pid for pid, args in children(os.getpid()).items() if pid not in others and "embedded_aws" in args]
        os.kill(pid, signal.SIGSTOP)
        brief = HealthCheck(pause_seconds=0.1, first_seconds=0.5, second_seconds=0.5)
        said = asyncio.run(embedded.watch(brief))
    finally:
        embedded.stop()
    assert said.endswith("has not answered for 1 seconds, and its data is gone")


def test_answering_embedded_aws_is_not_declared_dead():
    embedded = EmbeddedAws()
    try:
        brief = HealthCheck(pause_seconds=0.01, first_seconds=MAX_WAIT_SECONDS, second_seconds=MAX_WAIT_SECONDS)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(embedded.watch(brief), 1))
    finally:
        embedded.stop()


def test_control_c_ends_it_while_edited_schemas_are_read(tmp_path):
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    with serving(tmp_path, "--processes", "1") as server:
        os.mkfifo(tmp_path / "schemas" / "own.json")  # nobody writes into it, so a reader waits forever
        time.sleep(2.5)  # until the server reads it
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(MAX_WAIT_SECONDS) == 0


HANDLE = """
def handle(message, context):
    print("VERSION")
"""


def test_edited_consumer_is_reloaded_and_nothing_is_lost(tmp_path):
    shutil.copytree(ROOT / "consumer", tmp_path / "consumer", ignore=shutil.ignore_patterns("__pycache__"))
    handle = tmp_path / "consumer" / "handle.py"
    handle.write_text(HANDLE.replace("VERSION", "this is the first one"))
    with serving(tmp_path, "--processes", "1") as server:
        assert server.post({**TRACK, "messageId": "m-1"}).status == 200
        wait_until(lambda: "this is the first one" in server.output)
        handle.write_text(HANDLE.replace("VERSION", "this is the second one"))
        wait_until(lambda: "consumer/ changed: the functions use the new code" in server.output)
        assert server.post({**TRACK, "messageId": "m-2"}).status == 200
        wait_until(lambda: "this is the second one" in server.output)
        handle.write_text("\n\ndef handle(message:\n")
        wait_until(lambda: "consumer/ can't be loaded" in server.output)
        [line] = [line for line in server.output.splitlines() if "consumer/ can't be loaded" in line]
        assert "so the functions keep the old code: consumer/handle.py, line 3: SyntaxError: " in line
        before = server.output.count("this is the second one")
        os.kill(child(server, "StreamConsumerFunction"), signal.SIGKILL)
        assert server.post({**TRACK, "messageId": "m-3"}).status == 200
        wait_until(lambda: server.output.count("this is the second one") > before)
        handle.write_text(HANDLE.replace("VERSION", "this is the third one"))
        assert server.post({**TRACK, "messageId": "m-4"}).status == 200
        wait_until(lambda: server.output.count("consumer/ changed") == 2)
        assert server.post({**TRACK, "messageId": "m-5"}).status == 200
        wait_until(lambda: "this is the third one" in server.output)
        assert "consumer_failed" not in server.output  # no function ran the broken version
        assert len(server.run("messages", "list", "--json").stdout.splitlines()) == 5


def page_row(server):
    """Return the page's facts about the last request; a snapshot of all requests names it."""
    events = server.http.request("GET", f"{server.url}/_local/live", preload_content=False)
    try:
        _, data = events.readline(), events.readline()  # the stream has no end
    finally:
        events.close()
    snapshot = json.loads(data.removeprefix(b"data: "))
    [(row_id, times)] = snapshot["consumer_failures"].items()
    assert (snapshot["rows"][-1]["id"], times >= 1) == (row_id, True)
    return server.request("GET", f"/_local/requests/{row_id}").body


def test_consumer_that_can_not_be_loaded_is_named_in_one_line(tmp_path):
    shutil.copytree(ROOT / "consumer", tmp_path / "consumer", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "consumer" / "handle.py").write_text('"""Handle."""\n\ndef handle(message, customer_id:\n    pass\n')
    server = start(make_checkout(tmp_path), "serve", "--port", "0", "--processes", "1", stdout=subprocess.PIPE)
    output, _ = server.communicate(timeout=MAX_WAIT_SECONDS)
    assert server.returncode == 1
    assert output.splitlines()[-1].endswith(
        "did not start: consumer/handle.py, line 3: SyntaxError: '(' was never closed"
    )
    assert "Traceback" not in output


def test_consumer_failure_is_shown_by_every_command(tmp_path):
    shutil.copytree(ROOT / "consumer", tmp_path / "consumer", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "consumer" / "handle.py").write_text(
        "def handle(message, customer_id):\n    raise ValueError(f\"no plan {message['message_id']}\")\n"
    )
    with serving(tmp_path, "--processes", "1") as server:
        assert server.post({**TRACK, "messageId": "m-1"}).status == 200
        wait_until(lambda: "consumer_failed" in server.output)
        [line, *_] = [line for line in server.output.splitlines() if "consumer_failed" in line]
        assert "ValueError: no plan m-1 (traceback: .local/requests-" in line
        wait_until(lambda: server.output.count("consumer_failed") > 1)  # the second time from the queue
        assert "Traceback (most recent call last)" not in server.output
        [history] = server.json("trace", "m-1")["customers"]
        assert {failure["error"] for failure in history["consumer_failures"]} == {"ValueError"}
        assert "The consumer failed" in server.run("trace", "m-1").stdout
        assert "The consumer failed" in page_row(server)["now"][-1]
        assert server.json("status")["consumer_failures"] >= 1
        assert "The consumer failed" in server.run("status").stdout


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("", "it printed nothing"),
        ("ValueError: no", "ValueError: no"),
        (
            'Traceback:\n  File "/usr/lib/a.py", line 7, in b\n    c\nKeyError: 1\n',
            "/usr/lib/a.py, line 7: KeyError: 1",
        ),
        (
            '  File "/x/consumer/handle.py", line 2, in <module>\n  File "/usr/lib/a.py", line 7, in b\nKeyError: 1\n',
            "consumer/handle.py, line 2: KeyError: 1",
        ),
    ],
)
def test_consumer_error_is_one_line(log, words):
    assert place_of_error(log, Path("/x")) == words


def test_server_ends_if_a_function_cannot_be_restarted(tmp_path):
    (tmp_path / "handler").mkdir()
    for path in (ROOT / "handler").iterdir():
        (tmp_path / "handler" / path.name).symlink_to(path)
    with serving(tmp_path, "--processes", "1") as server:
        (tmp_path / "handler" / "timestamps.py").unlink()
        (tmp_path / "handler" / "timestamps.py").write_text("raise ValueError('not today')")
        os.kill(child(server, "EraserFunction"), signal.SIGKILL)
        # the server finds that the process is gone
        wait_until(lambda: server.post({"type": "delete", "userId": "u"}).status == 202)
        assert server.process.wait(MAX_WAIT_SECONDS) == 1
    assert server.output.endswith("Error: EraserFunction could not be started again 10 times. Start the server again\n")


def test_server_with_other_stores_starts_no_embedded_aws(proxied):
    server, _ = proxied
    assert not any("embedded_aws" in args for args in children(server.process.pid).values())


# On AWS


def test_demo_keys_work_on_local_servers_only(deploy):
    answer = deploy(environment={"AWS_ENDPOINT_URL": ""}).post(TRACK, key=demo.GOOD_KEY)
    assert (answer.status, answer.body["code"]) == (401, "unknown_key")
