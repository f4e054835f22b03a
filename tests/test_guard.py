"""Test the guard of a local server: which requests it lets through, and which it refuses."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from destination.web.addresses import is_host_name, is_loopback, is_same, parse_host
from destination.web.guard import FORWARDED_BY_PROXY, Guard

API = "/segment"
PRIVATE = ("/", "/_local", "/_local/keys", "/nowhere", "/segment/", "//segment", "http://127.0.0.1/segment")
TUNNEL = "abc.ngrok.app"
LOCAL_HOST = ("host", "127.0.0.1:8080")


async def reached(scope, receive, send):
    await PlainTextResponse("reached")(scope, receive, send)


def status_of(*headers, path=API, method="POST", scheme="http", client="127.0.0.1", server="127.0.0.1", **scope):
    """Return the status and the headers of the answer to a request."""
    guard = Guard(app=reached, public_paths={API}, allowed_hosts={TUNNEL})
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        "client": (client, 50000),
        "server": (server, 8080),
        **scope,
    }
    asyncio.run(guard(scope, None, send))
    names = {name.decode() for name, _ in sent[0]["headers"]}
    assert not any(name.startswith("access-control-") for name in names)
    return sent[0]["status"]


# The host


OWN_HOSTS = (
    """127.0.0.1 127.0.0.1:8080 127.0.0.53:1 localhost LocalHost:65535 [::1] [::1]:8080 [::ffff:127.0.0.1]:8080"""
)


@pytest.mark.parametrize("host", OWN_HOSTS.split())
@pytest.mark.parametrize("path", [API, "/", "/_local/keys"])
def test_hosts_that_mean_only_this_machine_are_served(host, path):
    assert status_of(("host", host), path=path) == 200


FOREIGN_HOSTS = rf"""
evil.example a{{b}}.example:8080 localhost.evil.example 127.0.0.1.evil.example localhost. x.localhost
127.1 0 0.0.0.0 [::] 2130706433 0x7f.1 127.0.0.01 [127.0.0.1] ::1 [::1 [::1%lo] 127.0.0.1: 127.0.0.1:80:80
127.0.0.1:65536 127.0.0.1:-1 127.0.0.1:8o80 evil@127.0.0.1 127.0.0.1@evil.example 127.0.0.1/ 127.0.0.1# 127.0.0.1?
127.0.0.1\ %31 127.0.0.1,evil.example locälhost 192.0.2.1 172.17.0.1 host.docker.internal
{TUNNEL}.evil.example evil.{TUNNEL} {TUNNEL}.
"""


@pytest.mark.parametrize("host", [*FOREIGN_HOSTS.split(), "", "127.0.0.1 ", " localhost", "a" * 300])
@pytest.mark.parametrize("path", [API, "/", "/_local/keys"])
def test_other_hosts_are_refused(host, path):
    assert status_of(("host", host), path=path) == 403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "127.0.0.1"), ("host", "127.0.0.1")],
        [("host", "127.0.0.1"), ("host", "evil.example")],
        [("host", "evil.example"), ("host", "127.0.0.1")],
    ],
)
def test_a_request_must_have_exactly_one_host(headers):
    assert status_of(*headers) == 403
    assert status_of(*headers, path="/_local", method="GET", http_version="1.0") == 403


def test_address_of_the_server_is_served():
    assert status_of(("host", "192.0.2.7:8080"), server="192.0.2.7", client="192.0.2.99") == 200
    assert status_of(("host", "[2001:db8::7]:8080"), server="2001:db8:0::7", client="2001:db8::99") == 200
    assert status_of(("host", "192.0.2.8:8080"), server="192.0.2.7", client="192.0.2.99") == 403


# Sites


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "PUT"])
@pytest.mark.parametrize("path", [API, "/", "/_local", "/_local/live"])
@pytest.mark.parametrize(
    "header",
    [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", ""),
        ("origin", "http://127.0.0.1"),
        ("origin", "http://127.0.0.1:3000"),
        ("origin", "https://127.0.0.1:8080"),
        ("origin", "http://localhost:8080"),
        ("origin", "http://127.0.0.1:8080 http://evil.example"),
        ("origin", "http://127.0.0.1:8080.evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "same-origin, cross-site"),
        ("sec-fetch-site", ""),
    ],
)
def test_other_sites_reach_nothing(header, path, method):
    assert status_of(LOCAL_HOST, header, path=path, method=method) == 403


def test_one_foreign_header_is_enough_to_refuse():
    own = ("origin", "http://127.0.0.1:8080")
    assert status_of(LOCAL_HOST, own, ("origin", "http://evil.example")) == 403
    assert status_of(LOCAL_HOST, own, ("sec-fetch-site", "cross-site")) == 403
    assert status_of(LOCAL_HOST, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")) == 403


@pytest.mark.parametrize(
    ("scheme", "host"), [("http", "127.0.0.1:8080"), ("http", "LOCALHOST"), ("https", "[::1]:8443")]
)
def test_page_itself_may_do_everything(scheme, host):
    headers = [("host", host), ("origin", f"{scheme}://{host.lower()}"), ("sec-fetch-site", "same-origin")]
    assert status_of(*headers, scheme=scheme, path="/_local/keys") == 200


def test_a_person_may_type_the_address():
    assert status_of(LOCAL_HOST, ("sec-fetch-site", "none"), path="/", method="GET") == 200


def test_websockets_are_refused():
    with pytest.raises(RuntimeError, match="websocket is not served"):
        status_of(LOCAL_HOST, type="websocket")


# Tunnels


def test_allowed_name_reaches_only_the_api():
    headers = [("host", TUNNEL.upper()), ("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")]
    assert status_of(*headers) == 200
    assert {path: status_of(*headers, path=path, method="GET") for path in PRIVATE} == dict.fromkeys(PRIVATE, 403)


@pytest.mark.parametrize("path", PRIVATE[:-1])
@pytest.mark.parametrize("header", sorted(FORWARDED_BY_PROXY))
def test_tunnel_with_its_own_host_reaches_only_the_api(header, path):
    assert status_of(LOCAL_HOST, (header, "192.0.2.1")) == 200
    assert status_of(LOCAL_HOST, (header, "192.0.2.1"), path=path, method="GET") == 403


def test_other_machine_reaches_only_the_api():
    address = {"server": "192.0.2.7", "client": "192.0.2.99"}
    for host in ("192.0.2.7:8080", "127.0.0.1:8080"):
        assert status_of(("host", host), **address) == 200
        assert status_of(("host", host), path="/_local/keys", **address) == 403


def test_site_cannot_use_a_tunnel():
    assert status_of(("host", TUNNEL), ("origin", "https://evil.example")) == 403
    assert status_of(("host", TUNNEL), ("origin", f"https://{TUNNEL}")) == 403


@pytest.mark.parametrize(
    ("client", "status"),
    [("127.0.0.1", 200), ("::1", 200), ("::ffff:127.0.0.1", 200), ("192.0.2.1", 403), ("::ffff:192.0.2.1", 403)],
)
def test_a_private_path_is_for_clients_on_this_machine(client, status):
    assert status_of(LOCAL_HOST, path="/_local", client=client) == status


def test_a_client_without_an_address_is_not_on_this_machine():
    assert status_of(LOCAL_HOST, path="/_local", client=None) == 403


# Names


@pytest.mark.parametrize("name", ["abc.ngrok.app", "xn--bcher-kva.example", "my_box", "192.0.2.1", "2001:db8::1"])
def test_a_host_name_can_be_allowed(name):
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name", ["", "https://abc.ngrok.app", "abc.ngrok.app:443", "*.ngrok.app", "abc..app", ".app", "abc.app.", "a b"]
)
def test_only_host_names_can_be_allowed(name):
    assert not is_host_name(name)


def test_hosts_are_compared_as_addresses():
    assert is_same("::1", "0:0::1")
    assert is_same("::ffff:192.0.2.1", "192.0.2.1")
    assert not is_same("0", "0.0.0.0")  # noqa: S104 -- what is tested
    assert is_loopback("127.255.255.254")
    assert not is_loopback("128.0.0.1")
    assert parse_host("EXAMPLE.com:1") == "example.com"


def test_refusal_says_how_to_allow_the_request():
    guard = Guard(app=reached, public_paths={API})
    bodies = []

    async def send(message):
        bodies.append(message.get("body", b""))

    request = Request({"type": "http", "headers": []})
    scope = {**request.scope, "path": API, "raw_path": b"/segment", "scheme": "http", "server": ("127.0.0.1", 1)}
    asyncio.run(guard({**scope, "headers": [(b"host", b"t.example")]}, None, send))
    assert b"--allow-host t.example" in b"".join(bodies)
