"""Test the debugger of a local server: the data that its page gets, and who may ask for it."""

import base64
import gzip
import json
import signal
import socket
import subprocess
import time
import uuid
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from local_server import MAX_WAIT_SECONDS, serving, wait_until

from destination.deployment import demo
from destination.paths import ROOT

pytest_plugins = ["servers"]

TRACK = {"type": "track", "userId": "debugged", "event": "Lamp Lit"}
PAGE_FILES = sorted(path.name for path in (ROOT / "destination" / "debugger" / "page").iterdir())


def fresh(**fields):
    """Return a new message with a unique id."""
    return {**TRACK, "messageId": str(uuid.uuid4()), "timestamp": "2026-03-12T09:30:00Z", **fields}


def get(server, path, **fields):
    """Return the JSON that the page gets."""
    reply = server.request("GET", f"/_local{path}", fields=fields)
    assert reply.status == 200, reply.body
    return reply.body


def post(server, where, **content):
    """Send a change, and return the answer."""
    reply = change(server, where, content)
    assert reply.status == 200, reply.body
    return reply.body


def change(server, path, content, **headers):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return server.request("POST", f"/_local{path}", headers={"Content-Type": "application/json", **headers}, body=body)


def send(server, message, *, path="/segment", key=demo.GOOD_KEY, settings=""):
    text = message if isinstance(message, str) else json.dumps(message)
    return post(server, "/send", path=path, text=text, api_key=key, settings=settings)


def inspect(server, sent, **fields):
    """Send a request from the event tester, and return all details that the page can show."""
    return get(server, f"/requests/{sent['request_id']}", **fields)


def marks(layout):
    """Return the marks by line, with the names of the lines."""
    return {line["name"]: mark for line in layout["lines"] for mark in [tuple(mark.values()) for mark in line["marks"]]}


def text_of(layout):
    return "".join(
        (line["name"] + ":" if line["name"] else "") + line["value"] + "," * line["comma"] for line in layout["lines"]
    )


@contextmanager
def following(server):
    """Follow the feed as a browser does. The context gets a function that reads the next event."""
    answer = server.http.request("GET", f"{server.url}/_local/live", preload_content=False)
    assert answer.headers["Content-Type"].startswith("text/event-stream")

    def read():
        lines = []
        while not lines or lines[-1] != b"\n":
            lines.append(answer.readline())
        return json.loads(lines[1].removeprefix(b"data: "))

    try:
        yield read
    finally:
        answer.close()


# The feed


def test_request_is_sent_to_followers(server):
    with following(server) as read:
        before = read()["totals"]
        message = fresh()
        server.post(message)
        more = read()
    [row] = [row for row in more["rows"] if row["message_id"] == message["messageId"]]
    assert (row["status"], row["outcome"], row["customer"], row["user"], row["event"]) == (
        *(200, "stored", "demo"),
        *("debugged", "Lamp Lit"),
    )
    assert more["totals"]["stored"] >= before["stored"] + 1
    assert sum(second["requests"] for second in more["seconds"]) >= 1


def test_answers_of_the_api_are_sent_too(server):
    with following(server) as read:
        read()
        server.request("GET", "/nowhere")
        [row] = [row for row in read()["rows"] if row["route"] == "/nowhere"]
    assert (row["status"], row["outcome"], row["by"], row["text"]) == (404, "refused", "API Gateway", "no such route")


def test_numbers_agree_with_a_simulation(server):
    options = (
        "--messages",
        "120",
        "--concurrency",
        "2",  # As many clients as function processes: no request waits for a process, and fails on a busy machine.
        "--customers",
        "3",
        "--duplicates",
        "0.2",
        "--invalid",
        "0.2",
        "--time-scale",
        "3600",
    )
    with following(server) as read:
        before = read()["totals"]
    report = server.json("simulate", *options)
    with following(server) as read:
        told = read()
    totals = {name: count - before[name] for name, count in told["totals"].items()}
    key_probes = sum(row["user"] == "key-probe" for row in told["rows"])  # refused, and not among the reported messages
    assert totals["stored"] == report["stored"] > 0
    assert totals["duplicate"] == report["duplicates_refused"] > 0
    assert totals["refused"] - key_probes == report["refused_as_expected"] > 0
    assert totals["failed"] == 0
    assert totals["requests"] == totals["stored"] + totals["duplicate"] + totals["refused"]


def test_server_ends_although_somebody_follows(tmp_path):
    with serving(tmp_path, "--processes", "1") as server, following(server) as read:
        read()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(MAX_WAIT_SECONDS) == 0


# One request


def test_request_is_shown_with_its_result_and_its_place(server):
    sent = send(server, fresh(userId=42, context=None))
    shown = inspect(server, sent)
    assert shown["row"]["id"] == sent["request_id"]
    assert shown["request"]["path"] == "/segment"
    assert dict(map(tuple, shown["request"]["headers"]))["authorization"] == "Basic …good"
    assert marks(shown["request"]["body"]) == {'"context"': ("left-out", "null counts as absent")}
    assert marks(shown["canonical"]) == {
        '"user_id"': ("changed", "was 42"),
        '"message_id"': ("renamed", "was messageId"),
    }
    assert shown["left_out"] == ["context: null counts as absent"]
    assert '"status":"stored"' in text_of(shown["answer"]["body"])
    assert [name for name, _ in shown["steps"]] == ["authenticate", "decode", "canonicalise", "validate", "write"]
    assert shown["total"] >= sum(milliseconds for _, milliseconds in shown["steps"]) * 0.99
    assert '"subject":"demo#user#42"' in text_of(shown["stored"])
    assert shown["now"][0] == 'Segment shows "Delivered".'
    assert shown["now"][1].startswith("Stored at ")


def test_refused_request_is_shown_with_the_place_of_each_violation(server):
    shown = inspect(server, send(server, fresh(userId={"id": 1}, event="")))
    places = {"/user_id": "userId must be a string, not an object", "/event": "event must not be empty"}
    assert {one["pointer"]: one["message"] for one in shown["violations"]} == places
    assert {text for kind, text in marks(shown["request"]["body"]).values() if kind == "violation"} == {
        *places.values()
    }
    assert {text for kind, text in marks(shown["canonical"]).values() if kind == "violation"} == {*places.values()}
    assert shown["stored"] is None
    assert shown["now"] == ["Final: Segment does not send it again. It was kept among the rejects."]


def test_wrong_settings_are_shown_apart_from_the_message(server):
    shown = inspect(server, send(server, fresh(), settings="[1]"))
    assert shown["violations"] == [{"pointer": "", "message": "X-Segment-Settings must be a JSON object, not an array"}]
    assert "violation" not in {kind for kind, _ in marks(shown["canonical"]).values()}


@pytest.mark.parametrize("body", ["no JSON", '{"type": "track"', "\ud800", "[1, 2]", ""], ids=ascii)
def test_body_that_is_not_a_message_is_shown_unchanged(server, body):
    shown = inspect(server, send(server, body))
    assert shown["answer"]["status"] == 400
    assert (shown["messages"], shown["canonical"]) == ([], None)
    if body == "[1, 2]":
        assert text_of(shown["request"]["body"]) == "[1,2]"
    else:
        assert shown["request"]["text"] in (body, None)


def test_the_messages_of_a_batch_are_shown_one_by_one(server):
    good, bad = fresh(), fresh(event="")
    sent = send(server, {"batch": [good, bad, good, 5], "context": {"ip": "192.0.2.1"}}, path="/v1/batch")
    shown = inspect(server, sent)
    assert [(one["index"], one["code"]) for one in shown["messages"]] == [
        *((0, None), (1, "invalid_message"), (2, None), (3, "not_an_object")),
    ]
    assert sorted(one["outcome"] for one in shown["messages"]) == ["duplicate", "refused", "refused", "stored"]
    assert shown["message"] == 1  # the first that went wrong
    shown = inspect(server, sent, message="0")
    assert (shown["message"], shown["violations"]) == (0, [])
    assert "192.0.2.1" in text_of(shown["canonical"])
    shown = inspect(server, sent, message="1")
    assert shown["violations"] == [{"pointer": "/event", "message": "event must not be empty"}]
    assert [text for kind, text in marks(shown["request"]["body"]).values() if kind == "violation"] == [
        "event must not be empty"
    ]
    assert inspect(server, sent, message="3")["canonical"] is None
    assert inspect(server, sent, message="99")["message"] is None


def test_messages_with_the_same_id_have_separate_verdicts(server):
    known, same = fresh(), fresh()
    server.post(known)
    batch = [{**fresh(), "event": ""}, same, {**same, "event": ""}, known, same]
    shown = inspect(server, send(server, {"batch": batch}, path="/v1/batch"))
    outcomes = [one["outcome"] for one in shown["messages"]]
    assert outcomes == ["refused", "stored", "refused", "duplicate", "duplicate"]


def test_wrong_settings_of_a_batch_are_shown_for_each_message(server):
    sent = send(server, {"batch": [fresh(), fresh(event="")]}, path="/v1/batch", settings="[1]")
    for index in ("0", "1"):
        [violation] = inspect(server, sent, message=index)["violations"]
        assert violation["message"] == "X-Segment-Settings must be a JSON object, not an array"


def test_compressed_batch_is_shown_decompressed(server):
    message = fresh()
    body = gzip.compress(json.dumps({"writeKey": demo.GOOD_KEY, "batch": [message]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with following(server) as read:
        read()
        server.request("POST", "/v1/batch", headers=headers, body=body)
        [row] = [row for row in read()["rows"] if row["message_id"] == message["messageId"]]
    shown = get(server, f"/requests/{row['id']}")
    assert shown["request"]["bytes"] == len(body)
    assert message["messageId"] in text_of(shown["request"]["body"])
    assert "…good" in text_of(shown["request"]["body"])


@pytest.mark.parametrize(
    "body",
    [
        '{"writeKey": "KEY"',
        '{"batch": [], "write_key" : "KEY"} and more',
        "writeKey=KEY&x=1",
        '{"writeKey": "KEY", "n": ' + "9" * 5000 + "}",
        '{"writeKey": "KEY", "deep": ' + "[" * 60_000 + "]" * 60_000 + "}",
        '[{"writeKey": "KEY"}]',
        '{"type": "page", "userId": "u", "context": {"a": {"writeKey": "KEY"}}, "_conflicts": {"writeKey": ["KEY"]}}',
    ],
    ids=lambda body: body[:40],
)
def test_keys_in_a_body_are_masked(server, body):
    text = body.replace("KEY", "a-secret-key-that-is-long")
    assert "a-secret-key" not in json.dumps(inspect(server, send(server, text, path="/v1/track")))


@pytest.mark.parametrize("name", ["X-Api-Key", "X-Write-Key", "Proxy-Authorization", "X-Amz-Security-Token", "Cookie"])
def test_headers_that_may_hold_a_key_are_hidden(server, name):
    with following(server) as read:
        read()
        server.request("POST", "/segment", headers={name: "a-secret-value"}, body=b"{}")
        [row] = read()["rows"]
    shown = get(server, f"/requests/{row['id']}")
    assert [name.lower(), "(not shown)"] in shown["request"]["headers"]
    assert "a-secret-value" not in json.dumps(shown)


@pytest.mark.parametrize("key", ["a-secret-key-that-is-long", "short"])
def test_keys_are_masked(server, key):
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}", "Cookie": f"session={key}"}
    with following(server) as read:
        read()
        server.request("POST", "/v1/track", headers=headers, body=json.dumps({**fresh(), "writeKey": key}).encode())
        [row] = read()["rows"]
    shown = json.dumps(get(server, f"/requests/{row['id']}"))
    assert key not in shown
    assert credentials not in shown


def test_queued_message_is_shown_as_queued(queue_server):
    shown = inspect(queue_server, send(queue_server, fresh()))
    assert shown["stored"] is None
    assert shown["now"][1].startswith("Queued in ")


def test_unknown_request_is_404(server):
    reply = server.request("GET", "/_local/requests/unknown")
    assert reply.status == 404
    assert "not kept any more" in reply.body["message"]


def test_a_large_body_is_shown_in_part(server):
    shown = inspect(server, send(server, fresh(properties={"numbers": [1] * 100_000})))
    assert shown["request"]["body"]["omitted"] > 90_000
    assert shown["row"]["outcome"] == "stored"


# The event tester


def test_verdict_on_each_sample_agrees_with_its_answer(server):
    samples = get(server, "/samples")["samples"]
    assert len(samples) > 25
    assert {sample["group"] for sample in samples} == {
        "Call types",
        "Unusual, but accepted",
        "Refused",
        "Batches and libraries",
    }
    for sample in samples:
        draft = {name: sample[name] for name in ("path", "text", "settings")}
        judged = post(server, "/check", **draft)
        answer = post(server, "/send", **draft, api_key=demo.GOOD_KEY)["answer"]
        assert judged["status"] == (200 if answer["status"] == 202 else answer["status"]), sample["title"]
        if judged["status"] != 200:
            assert json.dumps(judged["message"]) in text_of(answer["body"]), sample["title"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ('{\n "type": "track",\n "userId": "u",\n "event": ""\n}', [(4, "event must not be empty")]),
        ('{\n "type": "track",\n "userId": "u"\n}', [(1, "event is required for track calls")]),
        ('{\n "User ID": {},\n "Type": "identify"}', [(2, "userId must be a string, not an object")]),
        ('{\n\n "type": "sing"}', [(3, "Calls of this type are not supported")]),
        ('{"userId": "u"}', [(1, "type is required and must be a string, such as track")]),
        ('{\n "type": tr', [(2, "Request body is not valid JSON (line 2, column 10)")]),
        ("", [(1, "Request body is empty")]),
        ("[]", [(None, "Request body must be one JSON object, not an array")]),
    ],
    ids=ascii,
)
def test_problems_are_shown_with_their_lines(server, text, problems):
    judged = post(server, "/check", path="/segment", text=text, settings="")
    assert [(one["line"], one["message"]) for one in judged["problems"]] == problems


def test_problems_of_a_batch_name_the_message(server):
    text = json.dumps({"batch": [fresh(), fresh(event="")]}, indent=1)
    judged = post(server, "/check", path="/v1/batch", text=text, settings="")
    assert judged["status"] == 200
    [problem] = judged["problems"]
    assert problem["message"] == "At index 1: event must not be empty"
    assert text.splitlines()[problem["line"] - 1].strip().startswith('"event": ""')


def test_resent_draft_is_a_duplicate(server):
    message = fresh()
    assert [text_of(send(server, message)["answer"]["body"])[:20] for _ in range(2)] == [
        '{"status":"stored","',
        '{"status":"duplicate',
    ]


@pytest.mark.parametrize(
    ("label", "status"),
    [
        ("good", 200),
        ("expired", 401),
        ("revoked", 401),
        ("suspended", 403),
        ("scoped", 403),
        ("unknown", 401),
        ("none", 401),
    ],
)
def test_each_offered_key_is_answered_as_its_label_says(server, label, status):
    [key] = [key["api_key"] for key in get(server, "/deployment")["keys"] if key["label"] == label]
    assert send(server, fresh(), key=key)["answer"]["status"] == status


def test_draft_is_sent_as_segment_sends_it(server):
    sent = send(server, fresh(), settings='{"region": "eu"}')
    headers = dict(map(tuple, inspect(server, sent)["request"]["headers"]))
    assert headers["user-agent"] == "Segment.io/1.0"
    assert json.loads(base64.b64decode(headers["x-segment-settings"])) == {"region": "eu"}
    assert headers["content-type"] == "application/json"


def test_curl_command_sends_the_same_request(server, tmp_path):
    message = fresh(event='it\'s "quoted" $HOME `x`\n')
    send(server, message)
    command = post(server, "/curl", path="/segment", text=json.dumps(message), api_key=demo.GOOD_KEY, settings="")
    script = tmp_path / "curl.sh"
    script.write_text(command["curl"])
    answer = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=True, timeout=MAX_WAIT_SECONDS)
    assert '"status": "duplicate"' in answer.stdout


def test_curl_command_never_sends_a_file(server, tmp_path):
    (tmp_path / "secret").write_text(json.dumps(fresh()))
    command = post(server, "/curl", path="/segment", text=f"@{tmp_path}/secret", api_key=demo.GOOD_KEY, settings="")
    (tmp_path / "curl.sh").write_text(command["curl"])
    run = subprocess.run(["/bin/sh", tmp_path / "curl.sh"], capture_output=True, text=True, check=True, timeout=60)
    assert "Request body is not valid JSON" in run.stdout


@pytest.mark.parametrize("text", ["\0", "\ud800", "x" * 200_000], ids=["NUL", "surrogate", "long"])
def test_text_that_fits_no_command_is_reported(server, text):
    reply = change(server, "/curl", {"path": "/segment", "text": text})
    assert reply.status == 400
    assert reply.body["message"].startswith("A command can't contain this text")


@pytest.mark.parametrize(
    ("path", "message", "settings"),
    [
        ("/segment", {"type": "sing"}, "[1]"),
        ("/segment", {"userId": "u"}, "[1]"),
        ("/v1/track", fresh(type="page"), "[1]"),
        ("/v1/batch", {"batch": []}, "[1]"),
        ("/v1/batch", {"batch": [fresh()]}, "[1]"),
        ("/segment", fresh(), "\ud800"),
        ("/segment", fresh(properties={"n": 10**400}), ""),
        ("/v1/batch", {"batch": [fresh(properties={"n": float("nan")})]}, ""),
    ],
    ids=[
        "unknown type",
        "no type",
        "other type",
        "no message",
        "settings of a batch",
        "settings no text",
        "too large a number",
        "no number",
    ],
)
def test_verdict_on_an_odd_draft_agrees_with_its_answer(server, path, message, settings):
    text = json.dumps(message)
    judged = post(server, "/check", path=path, text=text, settings=settings)
    answer = post(server, "/send", path=path, text=text, settings=settings, api_key=demo.GOOD_KEY)["answer"]
    assert judged["status"] == answer["status"]
    assert judged["status"] == 200 or json.dumps(judged["message"]) in text_of(answer["body"])


def test_key_that_is_not_unicode_is_sent_as_an_unknown_key(server):
    assert send(server, fresh(), key="\ud800")["answer"]["status"] == 401


# Keys, messages, rejects


def test_key_can_be_created_used_and_revoked(server):
    made = post(server, "/keys", customer_id=" acme ", label="for a test", expires="90d", scopes=["track"])
    assert (
        made["key"].items()
        >= {"customer_id": "acme", "label": "for a test", "scopes": ["track"], "status": "active"}.items()
    )
    assert send(server, fresh(), key=made["api_key"])["answer"]["status"] == 200
    assert send(server, fresh(type="page"), key=made["api_key"])["answer"]["status"] == 403
    assert made["key"] in get(server, "/keys")["keys"]
    revoked = post(server, f"/keys/{made['key']['id']}/revoke")["key"]
    assert revoked["status"] == "revoked"
    assert send(server, fresh(), key=made["api_key"])["answer"]["status"] == 401
    assert made["api_key"] not in json.dumps(get(server, "/keys"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "a customer id is 1 to 256 printable characters"),
        (
            {"customer_id": "a", "expires": "soon"},
            "soon is not a time: write 90d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z",
        ),
        ({"customer_id": "a", "scopes": ["sing"]}, "There is no call type sing"),
        ({"customer_id": 5}, "customer_id must be a string"),
        ({"customer_id": "a", "scopes": "track"}, "scopes must be an array of strings"),
    ],
    ids=str,
)
def test_key_that_cannot_be_created_is_refused_with_advice(server, content, sentence):
    reply = change(server, "/keys", content)
    assert (reply.status, reply.body["message"]) == (400, sentence)


def test_unknown_key_cannot_be_revoked(server):
    assert change(server, "/keys/000000/revoke", {}).status == 400


def test_stored_messages_are_found_by_user_visitor_and_customer(server):
    user, visitor = str(uuid.uuid4()), str(uuid.uuid4())
    for message in (fresh(userId=user), fresh(type="page", event=None, name="Home", userId=None, anonymousId=visitor)):
        server.post(message)
    [mine] = get(server, "/messages", customer="demo", user=user)["messages"]
    assert (mine["type"], mine["what"], mine["who"], mine["who_kind"]) == ("track", "Lamp Lit", user, "user")
    [other] = get(server, "/messages", customer="demo", anonymous=visitor)["messages"]
    assert (other["type"], other["what"], other["who"], other["who_kind"]) == ("page", "Home", visitor, "anonymous")
    everything = get(server, "/messages", customer="demo")["messages"]
    assert {mine["message_id"], other["message_id"]} <= {message["message_id"] for message in everything}
    assert [message["time"] for message in everything] == sorted(
        (message["time"] for message in everything), reverse=True
    )
    assert get(server, "/messages", customer="nobody")["messages"] == []
    by_stored = [message["stored"] for message in get(server, "/messages", by="stored")["messages"]]
    assert by_stored == sorted(by_stored, reverse=True)
    for scope in ({}, {"customer": "demo"}, {"customer": "demo", "user": user}):
        assert get(server, "/messages", message_id=mine["message_id"], **scope)["messages"] == [mine]
    assert get(server, "/messages", message_id=mine["message_id"], customer="nobody")["messages"] == []
    assert server.request("GET", "/_local/messages", fields={"by": "size"}).status == 400
    item = get(server, "/message", subject=mine["subject"], position=mine["position"])["item"]
    assert mine["message_id"] in text_of(item)


def test_search_for_a_user_needs_a_customer(server):
    reply = server.request("GET", "/_local/messages", fields={"user": "u"})
    assert (reply.status, reply.body["message"]) == (400, "Name the customer of this user")


def test_deleted_message_is_404(server):
    assert server.request("GET", "/_local/message", fields={"subject": "s", "position": "p"}).status == 404
    for fields, missing in (({}, "subject and position"), ({"subject": "s", "position": ""}, "position")):
        reply = server.request("GET", "/_local/message", fields=fields)
        words = f"{missing} must be given: /_local/message?subject=…&position=…"
        assert (reply.status, reply.body) == (400, {"message": words})
    for fields in ({"subject": "s" * 3000, "position": "p"}, {"subject": "s", "position": "p" * 3000}):
        reply = server.request("GET", "/_local/message", fields=fields)
        assert (reply.status, "An error occurred" in reply.body["message"]) == (400, False)
    nobody = base64.urlsafe_b64encode(b'["", ""]').decode()
    assert server.request("GET", f"/_local/rejects/{nobody}").status == 400
    for label in ("\ud800", "l" * 500_000, "a\x1b[2J"):
        body = json.dumps({"customer_id": "acme", "label": label})
        reply = server.request("POST", "/_local/keys", body=body, headers={"Content-Type": "application/json"})
        assert (reply.status, reply.body) == (400, {"message": "label must be at most 1000 printable characters"})


def test_reject_can_be_retried_after_its_schema_is_fixed(tmp_path):
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    for path in (ROOT / "schemas").iterdir():
        (schemas / path.name).write_bytes(path.read_bytes())
    original = (schemas / "track.json").read_text()
    strict = {**json.loads(original), "required": ["event", "properties"]}
    (schemas / "track.json").write_text(json.dumps(strict))
    with serving(tmp_path, "--processes", "2") as server:
        message = fresh()
        assert send(server, message)["answer"]["status"] == 400
        [reject] = get(server, "/rejects")["rejects"]
        assert (reject["passes"], reject["answer"]) == (False, "properties is required for track calls")
        assert post(server, "/rejects/retry", keys=[reject["key"]])["results"][0]["fate"] == "refused"

        (schemas / "track.json").write_text("{")  # while the developer edits
        wait_until(lambda: "schemas/ has a fault" in server.output)
        with following(server) as read:
            assert "track.json" in read()["notice"]
        assert get(server, "/rejects")["rejects"][0]["passes"] is None
        assert change(server, "/rejects/retry", {"keys": [reject["key"]]}).status == 400
        assert send(server, fresh())["answer"]["status"] == 400

        (schemas / "track.json").write_text(original)
        wait_until(lambda: "schemas/ changed" in server.output)
        with following(server) as read:
            assert read()["notice"] is None
        assert post(server, "/check", path="/segment", text=json.dumps(fresh()), settings="")["status"] == 200
        assert {send(server, fresh())["answer"]["status"] for _ in range(6)} == {200}
        [reject] = get(server, "/rejects", customer="demo")["rejects"][1:]
        whole = get(server, f"/rejects/{reject['key']}")
        assert (reject["passes"], whole["answer_today"]) == (True, None)
        assert message["messageId"] in text_of(whole["body"])
        [result] = post(server, "/rejects/retry", keys=[reject["key"]])["results"]
        assert result == {"key": reject["key"], "fate": "stored", "answer": ""}
        assert post(server, "/rejects/retry", keys=[reject["key"]])["results"][0]["fate"] == "gone"
        assert server.request("GET", f"/_local/rejects/{reject['key']}").status == 404
        stored = get(server, "/messages", customer="demo", user="debugged")["messages"]
        assert message["messageId"] in {one["message_id"] for one in stored}


@pytest.mark.parametrize("key", ["!!!", base64.b64encode(b"5").decode(), base64.b64encode(b"[" * 5000).decode()])
def test_invalid_key_of_a_reject_is_an_error(server, key):
    assert server.request("GET", f"/_local/rejects/{key}").body["message"] == "This is not the key of a reject"


def test_edits_at_the_worst_moments_stop_nothing(tmp_path):
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    for path in (ROOT / "schemas").iterdir():
        (schemas / path.name).write_bytes(path.read_bytes())
    file = schemas / "track.json"
    good = file.read_text()
    with serving(tmp_path, "--processes", "1") as server:
        for number in range(30):
            file.write_text(good + " " * number if number % 2 else "{")
            assert server.post(fresh()).status == 200
            time.sleep(0.11)
        file.unlink()
        file.mkdir()
        wait_until(lambda: "track.json: the file is missing" in server.output)
        assert server.post(fresh()).status == 200
        with following(server) as read:
            assert "track.json: the file is missing" in read()["notice"]
        file.rmdir()
        file.write_text(json.dumps({**json.loads(good), "required": ["event", "properties"]}))
        wait_until(lambda: server.post(fresh()).status == 400)


# Who may ask


SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=local/20260312/us-east-1/sqs/aws4_request, SignedHeaders=host"}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example.com"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "evil.example.com"},
        {"Host": "a{b}.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::]"},
        {"Host": "172.17.0.1"},
        {"Host": "host.docker.internal"},
        {"Authorization": ""},
        {"Authorization": "Basic QWxhZGRpbg=="},
    ],
    ids=str,
)
def test_sites_cannot_use_the_embedded_aws(server, headers, method):
    url = f"{server.account.endpoint_url}/?Action=ListQueues"
    answer = server.http.request(method, url, headers={**SIGNED, **headers})
    assert (answer.status, answer.data) == (403, b"No web site may use this AWS, and requests must be signed")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert server.http.request(method, url, headers=SIGNED).status == 200


WEBSOCKET = """Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13"""
PREFLIGHT = """Access-Control-Request-Method: POST
Access-Control-Request-Private-Network: true"""


def raw_status(server, head):
    """Send a request byte by byte, and return the status of the answer."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), MAX_WAIT_SECONDS) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
        return int(connection.recv(1000).split()[1])


@pytest.mark.parametrize(
    "head",
    [
        "GET /_local HTTP/1.1\nHost: a{b}.example:8080",
        "GET /_local HTTP/1.1\nHost: u@127.0.0.1",
        "GET /_local HTTP/1.1\nHost:",
        "GET /_local HTTP/1.1",
        "GET /_local HTTP/1.0",
        "GET /_local HTTP/1.1\nHost: 127.0.0.1\nHost: evil.example",
        "GET /_local HTTP/1.0\nHost: evil.example\nHost: 127.0.0.1",
        "GET http://evil.example/_local HTTP/1.1\nHost: 127.0.0.1",
        "GET http://127.0.0.1/_local HTTP/1.1\nHost: 127.0.0.1",
        "GET [ HTTP/1.1\nHost: evil.example",
        "GET /_local/live HTTP/1.1\nHost: 127.0.0.1\nOrigin: http://evil.example",
        f"GET /_local/live HTTP/1.1\nHost: 127.0.0.1\nOrigin: http://evil.example\n{WEBSOCKET}",
        f"OPTIONS /v1/batch HTTP/1.1\nHost: 127.0.0.1\nOrigin: http://evil.example\n{PREFLIGHT}",
    ],
)
def test_odd_request_is_refused_on_the_wire(server, head):
    assert raw_status(server, head) in (400, 403)
    assert raw_status(server, "GET /_local HTTP/1.1\nHost: 127.0.0.1") == 200
    assert "Traceback" not in server.output


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}], ids=str)
@pytest.mark.parametrize(
    "path", ["/segment", "/v1/batch", "/v1/track", "/health", "/_local", "/_local/send", "/", "/no"]
)
def test_every_route_refuses_other_sites(server, path, headers):
    request = {"headers": {**headers, "Content-Type": "text/plain"}, "body": json.dumps({"batch": [fresh()]})}
    reply = server.request("POST", path, **request)
    assert (reply.status, [name for name in reply.headers if name.startswith("Access-")]) == (403, [])
    assert server.request("GET", path, headers=headers).status == 403


def test_answer_to_a_refused_host_names_the_option_that_allows_it(server):
    reply = server.request("POST", "/segment", headers={"Host": "abc.ngrok.app"})
    assert reply.body["message"].endswith("start the server with --allow-host abc.ngrok.app")
    wait_until(lambda: "POST /segment 403 The host abc.ngrok.app is not allowed." in server.output)


def test_tunnelled_request_does_not_reach_the_page(server):
    reply = server.request("GET", "/_local/deployment", headers={"X-Forwarded-For": "127.0.0.1"})
    assert reply.status == 403


def test_page_and_its_files_have_their_types(server):
    answer = server.http.request("GET", server.url + "/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for name in PAGE_FILES:
        answer = server.http.request("GET", f"{server.url}/_local/page/{name}")
        assert (answer.status, answer.data) == (200, (ROOT / "destination" / "debugger" / "page" / name).read_bytes())
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("name", ["..%2fsite.py", "..", "%2e%2e%2fsite.py", "nothing.js", "index.html%00"])
def test_other_files_are_not_served(server, name):
    assert server.http.request("GET", f"{server.url}/_local/page/{name}").status == 404


PATHS = ("/", "/_local/deployment", "/_local/live", "/_local/keys", "/_local/page/index.html")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example.com", "127.0.0.1.evil.example.com", "192.0.2.1", "localhost.evil"])
def test_another_name_of_this_machine_is_refused(server, path, host):
    answer = server.http.request("GET", server.url + path, headers={"Host": host})
    assert answer.status == 403
    assert b"is not allowed" in answer.data


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "127.0.0.53"])
def test_names_that_stay_with_this_machine_are_served(server, host):
    assert server.http.request("GET", f"{server.url}/_local/deployment", headers={"Host": f"{host}:80"}).status == 200


@pytest.mark.parametrize("path", ["/send", "/keys", "/keys/x/revoke", "/rejects/retry", "/check", "/curl"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_sites_cannot_change_anything(server, path, headers):
    reply = change(server, path, {}, **headers)
    assert reply.status == 403
    assert reply.body["message"].startswith("No other web site may use this server")


def test_forms_of_other_sites_cannot_change_anything(server):
    reply = change(server, "/keys", b'{"customer_id": "x"}', **{"Content-Type": "text/plain"})
    assert reply.status == 415


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000], ids=ascii)
def test_body_that_is_not_an_object_is_refused(server, body):
    assert change(server, "/send", body).status == 400


def test_draft_for_a_path_without_messages_is_refused(server):
    reply = change(server, "/send", {"path": "/_local/keys", "text": "{}"})
    assert reply.status == 400


def test_server_on_all_addresses_shows_its_page_locally_only(tmp_path):
    with serving(tmp_path, "--host", "0.0.0.0", "--processes", "1") as server:  # noqa: S104 -- what is tested
        assert server.url.startswith("http://127.0.0.1:")
        assert server.request("GET", "/_local/deployment").status == 200
        assert server.request("GET", "/_local/deployment", headers={"Host": "evil"}).status == 403
        assert server.request("GET", "/health", headers={"Host": "[::]"}).status == 403
        assert send(server, fresh())["answer"]["status"] == 200


def test_allowed_host_name_reaches_only_the_api(tmp_path):
    with serving(tmp_path, "--allow-host", "ABC.ngrok.app", "--processes", "1") as server:
        tunnelled = {"Host": "abc.ngrok.app", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"}
        assert server.request("GET", "/health", headers=tunnelled).status == 200
        assert server.request("POST", "/segment", headers=tunnelled).status == 401
        for path in ("/", "/_local", "/_local/keys", "/_local/live"):
            assert server.request("GET", path, headers=tunnelled).status == 403
        assert server.request("GET", "/health", headers={**tunnelled, "Host": "other.ngrok.app"}).status == 403
        assert send(server, fresh())["answer"]["status"] == 200
