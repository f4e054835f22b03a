"""Test the routes of the debugger page on a local server, called without a server."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from local_server import run
from request_lines import ACCEPTED, function_line
from starlette.applications import Starlette

from destination.debugger.local import LocalDebugger
from destination.debugger.site import HEADERS, MAX_BODY_BYTES, MAX_LABEL_CHARS
from destination.deployment.clients import LOCAL_REGION
from destination.deployment.stack import LOCAL_STACK, Account
from destination.deployment.target import Target
from destination.local.exchange import Exchange
from destination.paths import SCHEMAS
from handler.validate import Schemas

MOTO = f"https://dynamodb.{LOCAL_REGION}.amazonaws.com"
NOBODY = "http://127.0.0.1:1"
JSON = (("content-type", "application/json"),)


@pytest.fixture
def destination(deploy):
    return deploy()


@pytest.fixture
def debugger(destination):
    account = Account(endpoint_url=MOTO)  # a separate address, as a local server has
    debugger = LocalDebugger(Target(account=account, stores=destination.stack.stores), NOBODY)
    debugger.judge_by(Schemas.load(SCHEMAS))
    return debugger


@pytest.fixture
def call(debugger):
    """Return a function that calls a route of the page. It returns status, headers and body."""
    app = Starlette(routes=debugger.routes)

    def call(path, body=None, *, headers=JSON):
        sent = []
        pieces = iter([{"type": "http.request", "body": body or b"", "more_body": False}])

        async def receive():
            return next(pieces)

        async def send(message):
            sent.append(message)

        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8080),
        }
        asyncio.run(app(scope, receive, send))
        answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], answered, b"".join(part.get("body", b"") for part in sent[1:])

    return call


@pytest.fixture
def get(call):
    """Return a function that reads JSON from a route below `/_local`."""

    def get(path):
        status, _, body = call(f"/_local{path}")
        return status, json.loads(body)

    return get


@pytest.fixture
def post(call):
    """Return a function that posts JSON to a route below `/_local`."""

    def post(path, content):
        status, _, body = call(f"/_local{path}", json.dumps(content).encode())
        return status, json.loads(body)

    return post


def track(**fields):
    return {"type": "track", "event": "Lamp Lit", "userId": "ada", "messageId": "m-1", **fields}


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "text/html"), ("/_local/page/app.js", "javascript"), ("/_local/deployment", "json")]
)
def test_answers_forbid_other_sites_to_use_them(call, path, kind):
    status, headers, body = call(path)
    assert (status, kind in headers["content-type"], len(body) > 100) == (200, True, True)
    assert {name: headers[name.lower()] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("name", ["nothing.js", "..", "%2e%2e%2fsite.py", ""])
def test_page_files_are_served_and_no_others(call, name):
    assert call(f"/_local/page/{name}")[0] == 404


def test_the_page_knows_its_deployment(get, destination):
    status, deployment = get("/deployment")
    assert (status, deployment["read_only"], deployment["endpoint"]) == (200, False, f"{NOBODY}/segment")
    assert deployment["sink"] == destination.stack.stores.event_sink


def test_stored_messages_are_listed_and_shown(get, destination):
    assert destination.post(track()).status == 200
    status, found = get("/messages?customer=demo&user=ada")
    [message] = found["messages"]
    assert (status, message["who"], message["what"], found["more"]) == (200, "ada", "Lamp Lit", 0)
    assert get("/messages")[1]["messages"] == found["messages"]
    assert get("/messages?customer=demo&user=bob")[1]["messages"] == []
    address = f"subject={message['subject'].replace('#', '%23')}&position={message['position'].replace('#', '%23')}"
    status, shown = get(f"/message?{address}")
    assert (status, "Lamp Lit" in json.dumps(shown)) == (200, True)


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/messages?user=ada", 400, "Name the customer"),
        ("/message?subject=demo", 400, "position must be given"),
        ("/message?subject=demo&position=none", 404, "does not exist any more"),
        ("/rejects/no-key", 400, "not the key of a reject"),
        ("/requests/unknown", 404, "not kept any more"),
        ("/arrivals?limit=many", 400, "limit must be a number"),
    ],
)
def test_unavailable_content_is_explained(get, path, status, text):
    found = get(path)
    assert (found[0], text in found[1]["message"]) == (status, True)


def test_rejects_are_listed_shown_and_retried(get, post, destination):
    assert destination.post(track(event=None)).status == 400
    _, found = get("/rejects?customer=demo")
    [reject] = found["rejects"]
    assert (reject["who"], reject["passes"], found["more"]) == ("ada", False, 0)
    status, shown = get(f"/rejects/{reject['key']}")
    assert (status, shown["reject"]["answer"], shown["answer_today"]) == (200, reject["answer"], reject["answer"])
    status, retried = post("/rejects/retry", {"keys": [reject["key"]]})
    assert (status, [one["key"] for one in retried["results"]]) == (200, [reject["key"]])
    assert destination.stored() == []


def test_keys_are_created_shown_and_revoked(get, post, destination):
    status, created = post("/keys", {"customer_id": "acme", "label": "shop", "expires": "7d", "scopes": ["track"]})
    assert status == 200
    assert destination.post(track(), key=created["api_key"]).status == 200
    key_id = created["key"]["id"]
    assert key_id in [key["id"] for key in get("/keys")[1]["keys"]]
    status, revoked = post(f"/keys/{key_id}/revoke", {})
    assert (status, revoked["key"]["status"]) == (200, "revoked")
    listed = run("keys", "list", "--customer", "acme", "--json", "--stack", LOCAL_STACK)
    assert [key["status"] for key in json.loads(listed.stdout)] == ["revoked"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"customer_id": ""}, ""),
        ({"customer_id": 7}, "customer_id must be a string"),
        ({"customer_id": "acme", "label": "x" * (MAX_LABEL_CHARS + 1)}, "label must be at most"),
        ({"customer_id": "acme", "label": "\x1b"}, "printable characters"),
        ({"customer_id": "acme", "scopes": "track"}, "scopes must be an array of strings"),
        ({"customer_id": "acme", "scopes": ["visit"]}, "There is no call type visit"),
        ({"customer_id": "acme", "expires": "soon"}, ""),
    ],
)
def test_key_with_invalid_fields_is_not_created(post, get, content, text):
    before = get("/keys")
    status, answer = post("/keys", content)
    assert (status, text in answer["message"]) == (400, True)
    assert get("/keys") == before


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", (("content-type", "text/plain"),), 415),
        (b"{}", (), 415),
        (b"{", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b"[]", JSON, 400),
        (b" " * (MAX_BODY_BYTES + 1), JSON, 413),
    ],
    ids=["form", "no type", "cut", "deep", "array", "large"],
)
def test_body_that_is_not_an_object_changes_nothing(call, body, headers, status):
    answered, _, text = call("/_local/keys", body, headers=headers)
    assert (answered, "message" in json.loads(text)) == (status, True)


def test_a_draft_is_checked_by_the_schemas_of_the_function(post):
    draft = {"path": "/segment", "settings": "", "api_key": None}
    checks = {
        is_good: json.dumps(post("/check", {**draft, "text": json.dumps(track(event="Lit" if is_good else 7))})[1])
        for is_good in (True, False)
    }
    assert "event must be" in checks[False]
    assert "event must be" not in checks[True]


def test_draft_becomes_a_command_and_needs_an_address(post):
    draft = {"path": "/segment", "text": json.dumps(track()), "settings": "", "api_key": "demo-good"}
    status, answer = post("/curl", draft)
    assert (status, answer["curl"].startswith("curl ")) == (200, True)
    status, answer = post("/send", draft)
    assert (status, "does not answer" in answer["message"]) == (502, True)
    status, answer = post("/send", {**draft, "path": "/keys"})
    assert (status, "path must be" in answer["message"]) == (400, True)


def test_samples_are_offered(get):
    status, found = get("/samples")
    assert (status, len(found["samples"]) > 10) == (200, True)


def test_an_answered_request_is_listed_and_shown(get, debugger):
    body, line = json.dumps(track()), json.loads(function_line(ACCEPTED, message_id="m-1", customer_id="demo"))
    exchange = Exchange(
        id="r-1", time=datetime.now(UTC), method="POST", path="/segment", headers=[("authorization", "Basic eDo=")],
        body=body, status=200, answer_headers=[], answer="{}", lines=[line], milliseconds=1,
    )  # fmt: skip

    async def note():
        debugger.note(exchange)

    asyncio.run(note())
    status, shown = get("/requests/r-1?message=0")
    assert (status, shown["messages"][0]["outcome"]) == (200, "stored")
    assert "eDo=" not in json.dumps(shown)
    assert [key[0] for key in get("/arrivals?limit=5")[1]["keys"]] == ["demo#user#ada"]
