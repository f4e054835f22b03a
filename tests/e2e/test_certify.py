"""Test `destination certify`: its results for a good endpoint, and for endpoints that are broken in one way each."""

import json
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import b64decode
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import click
import pytest
import trustme
from endpoint import endpoint, response
from local_server import MAX_WAIT_SECONDS, run, serving, start, wait_until

from destination.certification.checklist import POINTS
from destination.certification.samples import Samples
from destination.certification.store_access import StoreAccess
from destination.certification.wire import MASKED, Wire
from destination.deployment import demo
from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import LOCAL_STACK
from destination.deployment.target import Target
from destination.paths import ROOT
from destination.segment.client import segment_headers
from handler.keys import hash_key, new_key
from handler.spec import CALL_TYPES

ALWAYS_UNCHECKED = {"answers.cold", "faults.store", "faults.bug", "faults.throttled", "errors.retry-after"}
"""No request fails here, so no answer can lack `Retry-After`."""
WITHOUT_TLS = {"transport.https", "transport.certificate", "transport.tls", "transport.old-tls"}
ON_THIS_MACHINE = {"transport.host"}


def certify(*args, exit_code):
    """Return verdict and text by point."""
    result = run("certify", "--json", *args)
    assert result.exit_code == exit_code, result.output
    report = json.loads(result.stdout)
    return {point["id"]: (point["verdict"], point["says"]) for point in report["points"]}, report


def having(verdict, points):
    return {name for name, (found, _) in points.items() if found == verdict}


def items(client, table):
    return client.scan(TableName=table)["Items"]


def left(server):
    """Return by table the items that belong to customers of certify runs."""
    client = server.account.dynamodb()
    tables = client.list_tables()["TableNames"]
    found = {
        table: [item for item in items(client, table) if customer_of(item).startswith("certify-")] for table in tables
    }
    return {table: several for table, several in found.items() if several}


def customer_of(item):
    return item.get("customer_id", item.get("customer"))["S"]


# A good endpoint


@pytest.fixture(scope="module")
def https_server(tmp_path_factory):
    options = ("--tls", "--processes", "1", "--parameter", "Consumer=off")
    with serving(tmp_path_factory.mktemp("https"), *options) as server:
        yield server


def trusting(server):
    return "--ca-file", str(server.checkout / ".local" / "ca.pem")


def test_local_server_with_tls_passes_every_checkable_point(https_server):
    points, _ = certify("--url", https_server.url, *trusting(https_server), exit_code=0)
    assert having("not checked", points) == ALWAYS_UNCHECKED | ON_THIS_MACHINE
    assert len(having("pass", points)) == len(POINTS) - len(ALWAYS_UNCHECKED | ON_THIS_MACHINE)
    assert left(https_server) == {}


def test_run_on_a_queue_leaves_no_items_in_the_tables(queue_server):
    points, report = certify("--url", queue_server.url, exit_code=0)
    unread = {point.id for point in POINTS if point.id.startswith("stored.")} - {"stored.no-id", "stored.rejects"}
    assert having("not checked", points) == (ALWAYS_UNCHECKED | ON_THIS_MACHINE | WITHOUT_TLS | unread | ERASED)
    assert "queue" in points["stored.accepted"][1]
    assert "stay in the queue" in report["notes"][0]
    assert left(queue_server) == {}


@pytest.fixture(scope="module")
def queue_server(tmp_path_factory):
    options = ("--processes", "1", "--parameter", "EventSink=sqs")
    with serving(tmp_path_factory.mktemp("queue"), *options) as server:
        yield server


def test_switched_off_call_type_is_answered_501(tmp_path):
    with serving(tmp_path, "--processes", "1", "--parameter", "SupportedCallTypes=identify,page") as server:
        points, _ = certify("--url", server.url, "--only", "calls", "--only", "auth.scope", exit_code=0)
    assert points["calls.track"] == ("pass", "not supported here, and answered 501: track calls are not supported")
    assert points["calls.delete"][0] == "warning"
    assert points["calls.identify"] == ("pass", "answered 200")
    assert points["auth.scope"][0] == "pass"


# A proxy that breaks the endpoint


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    def saying(self, **changes):
        """Return this reply with another body."""
        body = json.dumps({**self.json, **changes}).encode()
        return Reply(status=self.status, headers=self.headers, body=body)

    def pieces(self):
        head = {**self.headers, "Content-Length": len(self.body)}
        lines = [f"HTTP/1.1 {self.status} Whatever", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        return ["\r\n".join(lines).encode() + self.body]


JSON = {"Content-Type": "application/json"}
PASSED_ON = ("content-type", "www-authenticate", "retry-after")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that the proxy received, and the server behind it."""

    method: str
    path: str
    headers: dict
    body: bytes
    server: object

    @property
    def message(self):
        """Return the message of a request to /segment, or an empty object."""
        try:
            message = json.loads(self.body) if self.path == "/segment" else None
        except ValueError:
            message = None
        return message if isinstance(message, dict) else {}

    def answer(self, *, body=None, headers=None):
        """Ask the server behind the proxy."""
        sent = {name: value for name, value in (headers or self.headers).items() if name != "content-length"}
        url = self.server.url + self.path
        answer = self.server.http.request(
            self.method, url, headers=sent, body=self.body if body is None else body, redirect=False
        )
        kept = {name: value for name, value in answer.headers.items() if name.lower() in PASSED_ON}
        return Reply(status=answer.status, headers=kept, body=answer.data)


@contextmanager
def proxy(server, break_):
    """Run an endpoint. It answers each request with the result of `break_`."""

    def answer(received):
        line, *lines = received.head.strip().split("\r\n")
        method, path, _ = line.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        asked = Asked(method=method, path=path, headers=headers, body=received.body, server=server)
        if path == "/_local":
            return response(404, "this is no local server")
        reply = break_(asked)
        return reply.pieces() if reply else []

    with endpoint(answer) as running:
        yield running.url


NO_CONTENT = Reply(status=200, headers=JSON, body=b"{}")
PLAIN = {"Content-Type": "text/plain"}


def accepts_everything(_asked):
    return NO_CONTENT


def fails_at_an_unknown_type(asked):
    reply = asked.answer()
    return Reply(status=500, headers=JSON, body=b'{"message": "Error"}') if reply.status == 501 else reply


def stores_elsewhere(asked):
    """Answer as the server does, but store for another customer."""
    key = b64decode(asked.headers.get("authorization", "").partition(" ")[2] + "==").decode("utf-8", "replace")
    table = KeyTable(asked.server.account.dynamodb(), asked.server.stores.key_table)
    good = {record.key_hash for record in table if record.effective_status == "active" and not record.scopes}
    if hash_key(key.partition(":")[0].strip()) not in good:
        return asked.answer()
    return asked.answer(headers={**asked.headers, "authorization": segment_headers(demo.GOOD_KEY)["Authorization"]})


def forgetful():
    """Return a function that stores a resent message as another one."""
    seen = set()

    def stores_again(asked):
        message_id = asked.message.get("messageId")
        if message_id not in seen or not message_id:
            seen.add(message_id)
            return asked.answer()
        return asked.answer(body=json.dumps({**asked.message, "originalTimestamp": "2020-05-09T23:54:49Z"}).encode())

    return stores_again


def answers_401_without_json(asked):
    reply = asked.answer()
    return Reply(status=401, headers={**reply.headers, **PLAIN}, body=b"") if reply.status == 401 else reply


def shows_an_email_address(asked):
    reply = asked.answer()
    [*told] = re.findall(rb"ada\.[\w-]+@example\.com", asked.body)
    return reply.saying(message=f"No {told[0].decode()} here") if reply.status == 501 else reply


def shows_the_key(asked):
    reply = asked.answer()
    if reply.status != 403:
        return reply
    return Reply(status=403, headers={**reply.headers, "X-Debug": asked.headers["authorization"]}, body=reply.body)


def shows_the_request_id(asked):
    reply = asked.answer()
    return reply.saying(message=f"Not supported ({uuid.uuid4()})") if reply.status == 501 else reply


def is_slow(asked):
    time.sleep(0.6)
    return asked.answer()


def redirects(_asked):
    return Reply(status=307, headers={"Location": "https://elsewhere.example.com/"}, body=b"")


def answers_errors_in_html(asked):
    reply = asked.answer()
    if reply.status < 400:
        return reply
    return Reply(status=reply.status, headers={**reply.headers, "Content-Type": "text/html"}, body=b"<h1>Error</h1>")


def asks_for_nothing(asked):
    reply = asked.answer()
    return Reply(status=reply.status, headers=JSON, body=reply.body)


def crashes_at_arrays(asked):
    is_array = asked.path == "/segment" and asked.body.startswith(b"[")
    return Reply(status=500, headers=JSON, body=b'{"message": "Error"}') if is_array else asked.answer()


def answers_any_method(asked):
    return asked.answer() if asked.method == "POST" or asked.path == "/health" else NO_CONTENT


def shows_its_tables(asked):
    return asked.answer() if asked.path != "/health" else NO_CONTENT.saying(table=asked.server.stores.key_table)


def knows_one_casing(asked):
    if {"TYPE", "Type"} & asked.message.keys():
        return Reply(status=400, headers=JSON, body=b'{"message": "type is required", "code": "missing_type"}')
    return asked.answer()


def has_another_schema(asked):
    reply = asked.answer()
    if asked.message.get("type") != "identify" or reply.status != 200:
        return reply
    return Reply(status=400, headers=JSON, body=b'{"message": "Missing email address", "code": "invalid_message"}')


def is_in_maintenance(_asked):
    return Reply(status=503, headers=JSON, body=b'{"message": "Down for maintenance", "code": "maintenance"}')


def empties_traits(asked):
    emptied = {**asked.message, "traits": {}}
    return asked.answer(body=json.dumps(emptied).encode()) if "traits" in asked.message else asked.answer()


def loses_upper_case_fields(asked):
    kept = {name: value for name, value in asked.message.items() if name != "PROPERTIES"}
    return asked.answer(body=json.dumps(kept).encode()) if asked.message else asked.answer()


def renaming():
    """Return a function that stores a resent message under another id."""
    seen = set()

    def renames(asked):
        message_id = asked.message.get("messageId")
        if message_id in seen and message_id:
            return asked.answer(body=json.dumps({**asked.message, "messageId": f"{message_id}-again"}).encode())
        seen.add(message_id)
        return asked.answer()

    return renames


def drops_odd_deletes(asked):
    is_odd = asked.message.get("type") == "delete" and not asked.message.get("context")
    return NO_CONTENT if is_odd else asked.answer()


def drops_library_messages(asked):
    return NO_CONTENT.saying(accepted=1, duplicates=0, rejected=[]) if asked.path == "/v1/identify" else asked.answer()


def lacks_a_route(asked):
    return (
        Reply(status=404, headers=JSON, body=b'{"message": "Not Found"}') if "alias" in asked.path else asked.answer()
    )


def refuses_gzip(asked):
    is_gzip = asked.headers.get("content-encoding") == "gzip"
    return Reply(status=403, headers=JSON, body=b'{"message": "Forbidden"}') if is_gzip else asked.answer()


def tells_credentials(asked):
    reply = asked.answer()
    token = asked.headers.get("authorization", "").partition(" ")[2]
    return reply.saying(message=f"What is {token}?") if reply.json.get("code") == "no_colon" else reply


def tells_a_user_to_a_library(asked):
    reply = asked.answer()
    if not reply.json.get("rejected"):
        return reply
    [user_id] = {message["userId"] for message in json.loads(asked.body)["batch"] if "type" not in message}
    return reply.saying(rejected=[{**reply.json["rejected"][0], "message": f"{user_id} has no type"}])


CALLS = {point.id for point in POINTS if point.id.startswith("calls.")}
AUTH_401 = {"auth.missing", "auth.empty", "auth.not-basic", "auth.not-base64", "auth.no-colon", "auth.unknown"}
AUTH_401 |= {"auth.expired", "auth.revoked", "auth.nearly"}
BODIES = {point.id for point in POINTS if point.id.startswith("body.")}
REFUSED = AUTH_401 | BODIES | {"auth.suspended", "auth.scope", "settings.not-base64", "settings.not-json"}
REFUSED |= {"message.no-type", "message.unknown-type", "message.nobody", "message.schema"}
LIBRARIES = {point.id for point in POINTS if point.id.startswith("libraries.")}
ERASED = {"delete.carried-out", "delete.bystander", "delete.around"}
STORED = {point.id for point in POINTS if point.id.startswith("stored.")} | ERASED
ON_LIBRARY_ROUTES = {"auth.libraries", "auth.libraries-scope"}
REVOKED = {"auth.revoked-in-time"}


@pytest.mark.parametrize(
    ("break_", "failed"),
    [
        (accepts_everything, REFUSED | STORED | LIBRARIES | ON_LIBRARY_ROUTES | REVOKED | {"request.methods"}),
        (fails_at_an_unknown_type, {"message.unknown-type"}),
        (stores_elsewhere, STORED),
        (forgetful(), {"stored.duplicate", "stored.resend", "stored.identity", "stored.accepted"}),
        (answers_401_without_json, AUTH_401 | REVOKED | {"errors.json", "auth.libraries"}),
        (shows_an_email_address, {"errors.private"}),
        (shows_the_key, {"errors.private"}),
        (shows_the_request_id, {"errors.few"}),
        (redirects, {"transport.redirect"}),
        (answers_errors_in_html, REFUSED | ON_LIBRARY_ROUTES | REVOKED | {"errors.json", "stored.rejects"}),
        (asks_for_nothing, {"errors.challenge"}),
        (crashes_at_arrays, {"body.array"}),
        (answers_any_method, {"request.methods"}),
        (shows_its_tables, {"health.answers"}),
        (knows_one_casing, {"message.casing", "stored.casing", "message.alias"}),
        (has_another_schema, {"calls.identify"}),
        (
            is_in_maintenance,
            CALLS
            | REFUSED
            | ON_LIBRARY_ROUTES
            | {"transport.reachable", "stored.rejects", "request.methods", "health.answers", "errors.retry-after"},
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_broken_endpoint_fails_the_matching_points(https_server, break_, failed):
    groups = sorted({name.partition(".")[0] for name in failed})
    only = [word for group in groups for word in ("--only", group)]
    with proxy(https_server, break_) as url:
        stores = ("--stores", https_server.url, *trusting(https_server))
        points, _ = certify("--url", url, *stores, *only, exit_code=1)
    assert having("fail", points) == failed
    assert left(https_server) == {}


@dataclass(frozen=True, kw_only=True)
class AskedInFront(Asked):
    """A request to a broken endpoint behind another broken one."""

    behind: Callable[[Asked], Reply]

    def answer(self, *, body=None, headers=None):
        """Ask the endpoint behind this one."""
        passed_on = {"body": self.body if body is None else body, "headers": headers or self.headers}
        return self.behind(Asked(method=self.method, path=self.path, server=self.server, **passed_on))


def together(*breaks):
    """Combine breaking functions, from the first in front to the last behind."""
    if not breaks:
        return Asked.answer
    front, *others = breaks
    return lambda asked: front(AskedInFront(**vars(asked), behind=together(*others)))


def test_endpoint_broken_in_several_ways_fails_no_other_points(https_server):
    broken = {
        shows_the_key: "errors.private",
        asks_for_nothing: "errors.challenge",
        shows_the_request_id: "errors.few",
        crashes_at_arrays: "body.array",
        answers_any_method: "request.methods",
        shows_its_tables: "health.answers",
        has_another_schema: "calls.identify",
    }
    with proxy(https_server, together(*broken)) as url:
        points, _ = certify("--url", url, "--stores", https_server.url, *trusting(https_server), exit_code=1)
    assert having("fail", points) == set(broken.values())
    assert left(https_server) == {}


@pytest.mark.parametrize(
    ("break_", "only", "failed"),
    [
        (empties_traits, ["stored.accepted"], {"stored.accepted"}),
        (loses_upper_case_fields, ["message.casing", "stored"], {"stored.casing", "stored.accepted"}),
        (renaming(), ["stored.duplicate"], {"stored.duplicate"}),
        (drops_odd_deletes, ["delete"], ERASED),
        (drops_library_messages, ["libraries", "stored.accepted"], {"stored.accepted"}),
        (lacks_a_route, ["libraries"], {"libraries.single"}),
        (refuses_gzip, ["libraries"], {"libraries.gzip"}),
        (tells_credentials, ["errors"], {"errors.private"}),
        (tells_a_user_to_a_library, ["libraries", "errors.private"], {"errors.private"}),
        (lambda _: [], ["stored"], {"transport.reachable"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_small_fault_fails_only_its_own_point(https_server, break_, only, failed):
    chosen = [word for name in only for word in ("--only", name)]
    with proxy(https_server, break_) as url:
        stores = ("--stores", https_server.url, *trusting(https_server))
        points, _ = certify("--url", url, *stores, *chosen, exit_code=1)
    assert having("fail", points) == failed


def test_slow_endpoint_fails_only_the_points_about_time(https_server):
    only = ("--only", "answers", "--only", "calls", "--timeout", "0.5")
    with proxy(https_server, is_slow) as url:
        points, _ = certify("--url", url, "--stores", https_server.url, *trusting(https_server), *only, exit_code=1)
    assert having("fail", points) == {"answers.cold", "answers.warm", "answers.in-time"}


def test_schema_refusal_of_a_sample_is_quoted(https_server):
    with proxy(https_server, has_another_schema) as url:
        stores = ("--stores", https_server.url, *trusting(https_server))
        points, _ = certify("--url", url, *stores, "--only", "calls.identify", exit_code=1)
    [(_, says)] = points.values()
    assert says == "the endpoint's schema refuses the message of events/identify.json: Missing email address"


def test_closed_connections_are_only_a_warning(https_server):
    def closes(asked):
        reply = asked.answer()
        return Reply(status=reply.status, headers={**reply.headers, "Connection": "close"}, body=reply.body)

    stores = ("--stores", https_server.url, *trusting(https_server))
    with proxy(https_server, closes) as url:
        points, _ = certify("--url", url, *stores, "--only", "request.keep-alive", exit_code=0)
    assert points["request.keep-alive"][0] == "warning"


def dribbles(_request):
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    for _ in range(1000):
        yield b" "
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(lambda _: [], "broke off", id="closes the connection"),
        pytest.param(lambda _: [b"\0\xff garbage\r\n\r\n"], "is not HTTP", id="garbage"),
        pytest.param(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"], "longer than", id="huge"),
        pytest.param(
            lambda _: [b"HTTP/1.1 200 OK\r\n\r\n" + b"." * (16 * 1024 * 1024 + 1)], "longer than", id="endless"
        ),
        pytest.param(
            lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n"],
            "longer than",
            id="huge chunk",
        ),
        pytest.param(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], "longer than", id="less than none"),
        pytest.param(dribbles, "no whole answer within 4 s", id="dribbles"),
        pytest.param(
            lambda _: response(404, "<h1>Not Found</h1>"), "nothing accepts messages at /segment", id="no route"
        ),
    ],
)
def test_other_server_fails_one_point_and_skips_the_rest(answer, says):
    with endpoint(lambda asked: response(404) if "/_local" in asked.head else answer(asked)) as server:
        points, _ = certify("--url", server.url, "--api-key", new_key(), "--timeout", "2", exit_code=1)
    assert having("fail", points) == {"transport.reachable"}
    assert says in points["transport.reachable"][1]
    assert having("pass", points) <= {"transport.redirect"}


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:1", "Connect call failed"),
        ("https://127.0.0.1:1", "Connect call failed"),
        ("https://nowhere.invalid", "no answer"),
    ],
)
def test_unreachable_endpoint_cannot_be_checked(url, says):
    points, report = certify("--url", url, "--api-key", new_key(), exit_code=1)
    assert having("fail", points) == {"transport.reachable"}
    assert says in points["transport.reachable"][1]
    assert report["notes"] == []


def test_certificate_of_an_unknown_authority_is_not_trusted(https_server, other_authority):
    arguments = ("--url", https_server.url, "--stores", https_server.url, "--ca-file", other_authority)
    result = run("certify", *arguments)
    assert result.exit_code == 1  # for the server with the stores
    points, _ = certify("--url", https_server.url, "--api-key", new_key(), "--ca-file", other_authority, exit_code=1)
    assert having("fail", points) == {"transport.reachable", "transport.certificate"}
    assert "certificate" in points["transport.certificate"][1] or "issuer" in points["transport.certificate"][1]


@pytest.fixture
def other_authority(tmp_path):
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(file))
    return str(file)


def test_plain_http_behind_an_https_url_fails():
    with endpoint(lambda _: response(200)) as server:
        url = server.url.replace("http:", "https:")
        points, _ = certify("--url", url, "--api-key", new_key(), exit_code=1)
    assert having("fail", points) == {"transport.reachable", "transport.certificate"}


# Without access to the stores


@pytest.fixture(scope="module")
def with_a_key_alone(https_server):
    key = new_key()
    KeyTable(https_server.account.dynamodb(), https_server.stores.key_table).put(
        KeyRecord.of(key, customer_id="review")
    )
    with proxy(https_server, Asked.answer) as url:
        return certify("--url", url, "--api-key", key, exit_code=0)


KEYS_UNKNOWN = {"auth.expired", "auth.revoked", "auth.suspended", "auth.scope", "auth.libraries-scope"}
KEYS_UNKNOWN |= {"auth.revoke-in-use", "auth.revoked-in-time"}


def test_points_that_need_the_stores_are_skipped_with_only_a_key(with_a_key_alone):
    points, _ = with_a_key_alone
    unread = STORED - {"stored.no-id"}
    assert having("not checked", points) == ALWAYS_UNCHECKED | ON_THIS_MACHINE | WITHOUT_TLS | KEYS_UNKNOWN | unread
    assert all("--stack" in points[name][1] for name in unread | KEYS_UNKNOWN)
    assert having("fail", points) == set()


def test_with_only_a_key_the_messages_stay_and_are_marked(with_a_key_alone, https_server):
    _, report = with_a_key_alone
    assert "stay stored" in report["notes"][0]
    stored = items(https_server.account.dynamodb(), https_server.stores.event_table)
    ids = [item["message_id"]["S"] for item in stored if item["customer_id"]["S"] == "review"]
    assert len(ids) > 50
    assert all(re.match("certify-|derived-|delete-reg-certify-", message_id) for message_id in ids)


def test_refused_key_fails_the_first_call_and_skips_the_rest(https_server):
    with proxy(https_server, Asked.answer) as url:
        points, _ = certify("--url", url, "--api-key", new_key(), exit_code=1)
    assert having("fail", points) == {"calls.track", "transport.reachable"}
    assert points["message.casing"] == ("not checked", "a valid track call is not accepted (401 unknown_key)")


def supports_nothing(_asked):
    unsupported = b'{"message": "Not supported", "code": "unsupported_call_type"}'
    return Reply(status=501, headers=JSON, body=unsupported)


def supports_identify_only(asked):
    return supports_nothing(asked) if asked.message.get("type") not in ("identify", None) else asked.answer()


def apologises(_asked):
    return Reply(status=200, headers={"Content-Type": "text/html"}, body=b"<h1>Sorry</h1>")


def reports_a_time_out(_asked):
    return NO_CONTENT.saying(errorMessage="Task timed out", errorType="Sandbox.Timedout")


@pytest.mark.parametrize(
    ("break_", "failed"),
    [
        (supports_nothing, {"transport.reachable"}),
        (supports_identify_only, set()),
        (apologises, CALLS),
        (reports_a_time_out, CALLS),
    ],
)
def test_with_only_a_key_supported_calls_are_read_from_answers(https_server, break_, failed):
    only = ("--only", "calls", "--only", "message.casing")
    with proxy(https_server, break_) as url:
        points, _ = certify("--url", url, "--api-key", demo.GOOD_KEY, *only, exit_code=1 if failed else 0)
    assert having("fail", points) == failed
    assert (points["message.casing"][0] == "not checked") == (break_ is supports_nothing)


def test_run_that_checked_nothing_has_failed(https_server):
    points, report = certify("--url", https_server.url, *trusting(https_server), "--only", "faults", exit_code=1)
    assert (having("not checked", points), report["failed"]) == (points.keys(), True)


# Cleanup and output


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_removes_its_keys_and_messages(https_server, ending):
    stores = https_server.stores
    arguments = ("certify", "--url", https_server.url, *trusting(https_server))
    with start(https_server.checkout, *arguments, stdout=subprocess.PIPE) as running:
        wait_until(lambda: stores.event_table in left(https_server))
        running.send_signal(ending)
        printed = running.communicate(timeout=MAX_WAIT_SECONDS)[0]
    assert running.returncode == 130
    assert "Removing the data of certify-" in printed
    assert left(https_server) == {}


def test_failing_table_does_not_stop_the_cleanup_of_others(https_server):
    stores = replace(https_server.stores, rejects_table="nowhere")
    store_access = StoreAccess(Target(account=https_server.account, stores=stores), "certify-0")
    store_access.make_keys(scope="track")
    [sentence] = store_access.remove()
    assert sentence.startswith("Data of certify-0 in nowhere could not be removed: ")
    assert left(https_server) == {}


@pytest.mark.parametrize("key", ["schlüssel-geheim", 'with-"quotes"', "short"])
def test_key_is_masked_in_every_encoding(key):
    with Wire("https://x/segment", limit_seconds=1) as wire:
        wire.keep_secret(key)
        told = f"{key} {json.dumps(key)} {segment_headers(key)['Authorization']}"
        assert wire.masked(told) == f'{MASKED} "{MASKED}" Basic {MASKED}'


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("a1.execute-api.eu-central-1.amazonaws.com", "changes when"),
        ("a1.lambda-url.eu-central-1.on.aws", "changes when"),
        ("a1.cloudfront.net", "changes when"),
        ("a1.ngrok-free.app", "changes when"),
        ("192.0.2.1", "is an address"),
        ("intranet", "only your own network knows"),
    ],
)
def test_unstable_host_is_a_warning(host, says):
    points, _ = certify(
        *("--url", f"https://{host}", "--api-key", new_key(), "--timeout", "0.01"),
        *("--only", "transport.host"),
        exit_code=1,
    )
    assert points["transport.host"][0] == "warning"
    assert says in points["transport.host"][1]


def test_name_with_a_private_address_is_a_warning(monkeypatch):
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: answer)
    points, _ = certify(
        *("--url", "https://hooks.example.com", "--api-key", new_key(), "--timeout", "0.01"),
        *("--only", "transport.host"),
        exit_code=1,
    )
    assert points["transport.host"] == ("warning", "hooks.example.com leads to 127.0.0.2, which Segment can't reach")


def test_private_authority_is_a_warning_except_on_this_machine(tmp_path):
    options = ("--tls", "--host", "127.0.0.2", "--processes", "1", "--parameter", "Consumer=off")
    with serving(tmp_path, *options) as server:
        where = ("--url", server.url, "--stores", server.url, *trusting(server))
        points, _ = certify(*where, "--only", "transport.certificate", exit_code=0)
    verdict, says = points["transport.certificate"]
    assert verdict == "warning"
    assert says.endswith("Segment trusts public authorities only: certify it without --ca-file")


@pytest.fixture(scope="module")
def reports(https_server, tmp_path_factory):
    """Return every form of the report on an endpoint that puts hostile text into its errors."""

    def hostile(asked):
        reply = asked.answer()
        text = f"<script>alert(1)</script> `````` | [x](javascript:x) \x1b[31m {asked.headers.get('authorization', '')}"
        return reply.saying(message=text) if reply.status in (400, 401) else reply

    folder = tmp_path_factory.mktemp("reports")
    stores = ("--stores", https_server.url, *trusting(https_server))
    with proxy(https_server, hostile) as url:
        shown = run("certify", "--url", url, *stores, "--report", str(folder / "review.md"))
        assert shown.exit_code == 1
        only = ("--only", "auth", "--only", "errors")
        as_json = run("certify", "--url", url, *stores, *only, "--json", "--report", str(folder))
        assert as_json.exit_code == 1
    named = folder / "review"
    return {
        "terminal": shown.stdout,
        "json": as_json.stdout,
        "markdown": named.with_suffix(".md").read_text(),
        "html": named.with_suffix(".html").read_text(),
        "files": sorted(path.suffix for path in folder.iterdir()),
    }


@pytest.mark.parametrize("kind", ["terminal", "json", "markdown", "html"])
def test_reports_never_show_a_key(reports, kind):
    assert "ddk_" not in reports[kind]
    assert "ZGRrX" not in reports[kind]  # the same in base64
    assert "API key&gt;" in reports[kind] or "API key>" in reports[kind]


@pytest.mark.parametrize("kind", ["terminal", "markdown", "html"])
def test_reports_have_no_control_characters(reports, kind):
    assert "\x1b[31m" not in reports[kind]
    assert kind == "terminal" or "\n| fail | `errors.private`" in reports["markdown"]


def test_html_report_shows_answers_as_text(reports):
    class Elements(HTMLParser):
        def __init__(self):
            super().__init__()
            self.started, self.text = [], ""

        def handle_starttag(self, tag, attrs):
            self.started.append((tag, dict(attrs)))

        def handle_data(self, data):
            self.text += data

    page = Elements()
    page.feed(reports["html"])
    assert {"script", "img", "link", "iframe"}.isdisjoint(tag for tag, _ in page.started)
    assert not any(name in ("src", "onclick") for _, attributes in page.started for name in attributes)
    assert "<script>alert(1)</script>" in page.text
    ids = {attributes["id"] for tag, attributes in page.started if tag == "details"}
    assert ids == {point.id for point in POINTS}


def test_markdown_report_shows_answers_as_code(reports):
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", reports["markdown"], flags=re.MULTILINE | re.DOTALL)
    assert "<script>" not in outside
    assert not re.search(r"[^\\]\]\(javascript", outside)
    assert all(f"## {point.id}: " in outside for point in POINTS)


def test_report_in_a_folder_is_named_after_host_and_day(reports):
    assert reports["files"] == [".html", ".html", ".md", ".md"]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["--url", "https://example.com"], 2, "Name an --api-key to send with, or the stores behind the endpoint"),
        (["--url", "example.com", "--api-key", "k"], 2, "example.com is not a URL"),
        (["--url", "http://127.0.0.1:1"], 1, "No local server answers at http://127.0.0.1:1/"),
        (["--only", "nothing"], 2, "there is no point nothing: --list shows all points"),
        (["--stack", "a", "--stores", "http://127.0.0.1:1"], 2, "--stores and --stack exclude each other"),
        (["--url", "http://h", "--api-key", "k", "--ca-file", __file__], 2, "--ca-file is for https"),
        (
            ["--url", "https://h", "--api-key", "k", "--ca-file", __file__],
            1,
            "does not have the certificate of an authority",
        ),
        (["--url", "http://h", "--api-key", "k", "--report", "/nowhere/review"], 2, "there is no folder /nowhere"),
        (["--timeout", "nan"], 2, "nan is not a finite number"),
        (["--url", "https://me:secret@h", "--api-key", "k"], 2, "a URL with credentials would be shown"),
        (["--url", f"https://{'a' * 70}.example.com", "--api-key", "k"], 2, "is not a URL"),
        (["--url", "https://a..b", "--api-key", "k"], 2, "is not a URL"),
        (["--url", "https://bücher.example.com", "--api-key", "k"], 2, "write its host as xn--"),
        (["--url", "http://h", "--api-key", "k", "--report", "/proc/review"], 2, "/proc can't be written to"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, exit_code, sentence):
    result = run("certify", *arguments)
    assert (result.exit_code, sentence in result.stderr) == (exit_code, True), result.output


@pytest.fixture
def as_stack(https_server, monkeypatch):
    """Use the server's embedded AWS as AWS, and return the name of its stack."""
    access = {**LOCAL_CREDENTIALS, "aws_endpoint_url": https_server.account.endpoint_url, "aws_region": LOCAL_REGION}
    for name, value in access.items():
        monkeypatch.setenv(name.upper(), value)
    return LOCAL_STACK


def test_stack_is_certified_and_left_unchanged(https_server, as_stack):
    only = ("--only", "auth", "--only", "stored", "--only", "delete")
    points, _ = certify("--stack", as_stack, "--url", https_server.url, *trusting(https_server), *only, exit_code=0)
    assert having("pass", points) == points.keys()
    assert {name.partition(".")[0] for name in points} == {"auth", "stored", "delete"}
    assert left(https_server) == {}


def test_stack_without_an_endpoint_output_needs_the_url_option(as_stack):
    result = run("certify", "--stack", as_stack)
    assert (result.exit_code, "has no output EndpointUrl: name its endpoint with --url" in result.stderr) == (1, True)


def test_unneeded_key_is_not_used(https_server):
    arguments = ("--url", https_server.url, *trusting(https_server), "--only", "auth.missing", "--api-key", "k" * 20)
    result = run("certify", *arguments)
    assert (result.exit_code, "The --api-key is not used" in result.stderr) == (0, True)


@pytest.mark.usefixtures("aws")
def test_missing_stack_is_an_error():
    result = run("certify", "--stack", "nowhere")
    assert (result.exit_code, "The stack nowhere can't be read" in result.stderr) == (1, True)


def test_the_points_can_be_listed():
    result = run("certify", "--list")
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == [point.id for point in POINTS]


def test_ids_of_points_are_unique():
    assert len({point.id for point in POINTS}) == len(POINTS)


def test_docs_list_every_group_of_points():
    section = (ROOT / "docs" / "how-to" / "submission.md").read_text().split("## What certify checks")[1]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(documented) == sorted({point.id.partition(".")[0] for point in POINTS})


# Samples


@pytest.fixture
def edited(tmp_path):
    """Return a function that makes samples for the schemas, with one schema replaced."""

    def edit(name, schema):
        for path in (ROOT / "schemas").glob("*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        common = {"$schema": "http://json-schema.org/draft-07/schema#"}
        (tmp_path / f"{name}.json").write_text(json.dumps({**common, **schema}))
        return Samples(tmp_path)

    return edit


def restrict(path, schema):
    """Add a schema to the schema of a call type."""
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "allOf": [*document["allOf"], schema]}))


@pytest.mark.parametrize("with_one_user", [("track",), CALL_TYPES], ids=["track", "all"])
def test_endpoint_with_strict_schemas_passes_every_possible_point(tmp_path, with_one_user):
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    strict = {"event": {"enum": ["Order Completed"]}}
    strict["properties"] = {"additionalProperties": False, "required": ["sku"], "properties": {"sku": {}, "plan": {}}}
    restrict(tmp_path / "schemas" / "track.json", {"required": ["user_id", "properties"], "properties": strict})
    for call_type in with_one_user:
        restrict(tmp_path / "schemas" / f"{call_type}.json", {"properties": {"user_id": {"maxLength": 20}}})
    with (
        serving(tmp_path, "--processes", "1", "--parameter", "Consumer=off") as server,
        start(server.checkout, "certify", "--url", server.url, "--json", stdout=subprocess.PIPE) as running,
    ):
        printed = running.communicate(timeout=MAX_WAIT_SECONDS * 2)[0]
    report, _ = json.JSONDecoder().raw_decode(printed)
    points = {point["id"]: point["verdict"] for point in report["points"]}
    assert [point for point in report["points"] if point["verdict"] == "fail"] == []
    assert {points["stored.verbatim"], points["message.large"]} == {"not checked"}
    assert {points["stored.accepted"], points["delete.carried-out"], points["message.casing"]} == {"pass"}


MESSAGE = {"allOf": [{"$ref": "common.json#/definitions/message"}]}
STRICT = {
    "plan": {"enum": ["gold", "silver"]},
    "born": {"type": "string", "format": "date"},
    "seats": {"type": "integer", "minimum": 7},
    "id": {"$ref": "common.json#/definitions/id"},
    "address": {"type": "object", "required": ["zip"], "properties": {"zip": {"type": "string", "minLength": 12}}},
    "tags": {"type": "array", "minItems": 2, "items": {"type": "boolean"}},
}


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_samples_pass_the_shipped_schemas(call_type):
    samples = Samples(ROOT / "schemas")
    message = samples.message(call_type, userId="somebody")
    assert (message["userId"], samples.refusal(message)) == ("somebody", None)


def test_sample_gets_the_fields_that_a_schema_requires(edited):
    traits = {"type": "object", "required": [*STRICT], "properties": STRICT}
    samples = edited("identify", {**MESSAGE, "required": ["traits"], "properties": {"traits": traits}})
    message = samples.message("identify", userId="somebody")
    assert samples.refusal(message) is None
    assert message["userId"] == "somebody"


def test_sample_keeps_its_ids_if_a_schema_accepts_no_others(edited):
    ids = {"user_id": {"type": "string", "pattern": "^user-[0-9]+$"}}
    samples = edited("identify", {**MESSAGE, "properties": ids})
    message = samples.message("identify", userId="somebody")
    assert samples.refusal(message) is None


def test_sample_that_cannot_be_valid_is_sent_unchanged(edited):
    traits = {"required": ["code"], "properties": {"code": {"pattern": "^[A-Z]{3}-[0-9]{4}$"}}}
    samples = edited("identify", {**MESSAGE, "properties": {"traits": traits}})
    message = samples.message("identify", userId="somebody")
    assert (message["userId"], message["traits"]["plan"]) == ("somebody", "pro")


def test_required_settings_are_generated(edited):
    settings = {"type": "object", "required": ["region"], "properties": {"region": {"enum": ["eu", "us"]}}}
    assert edited("settings", settings).settings == {"region": "eu"}


def test_faulty_schemas_are_reported(edited):
    with pytest.raises(click.ClickException, match="The schemas have faults"):
        edited("identify", {"type": "nothing"})
