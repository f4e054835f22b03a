"""Test HTTP requests over a socket, and the Lambda events that they become."""

import base64
import json
import socket
from datetime import UTC, datetime
from http.client import HTTPConnection
from threading import Thread

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from destination.local.gateway import own_answer, to_event, to_response
from destination.paths import ROOT

NOW = datetime(2026, 3, 12, 9, 30, 0, 250_000, UTC)
MESSAGE = '{"event": "Tür auf"}'.encode()
HOST = ("Host", "destination.example.com:8443")
JSON = ("Content-Type", "application/json")


@pytest.fixture(scope="module")
def address():
    """A server that answers each request with its event."""

    async def tell_event(request):
        return JSONResponse(to_event(request, await request.body(), NOW))

    app = Starlette(routes=[Route("/{path:path}", tell_event, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="critical"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield address
        server.should_exit = True
        thread.join()


@pytest.fixture
def event_of(address):
    def event_of(*headers, body=b"", path="/segment"):
        connection = HTTPConnection(*address)
        connection.putrequest("POST", path, skip_host=True, skip_accept_encoding=True)
        for name, value in (HOST, *headers, ("Content-Length", str(len(body)))):
            connection.putheader(name, value)
        connection.endheaders(body)
        with connection.getresponse() as answer:
            event = json.load(answer)
        connection.close()
        return event

    return event_of


def test_event_has_the_form_of_the_sample_events(event_of):
    def shape(value):
        return {name: shape(part) for name, part in value.items()} if isinstance(value, dict) else type(value)

    sample = json.loads((ROOT / "events" / "track.json").read_text())
    event = event_of(JSON, body=MESSAGE)
    assert shape({**event, "headers": {}}) == shape({**sample, "headers": {}})
    assert (event["version"], event["routeKey"]) == ("2.0", "POST /segment")


def test_event_has_source_host_and_time(event_of):
    event = event_of(("User-Agent", "Segment.io/1.0"))
    context = event["requestContext"]
    assert (context["domainName"], context["domainPrefix"]) == ("destination.example.com", "destination")
    assert context["http"] == {
        "method": "POST",
        "path": "/segment",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "Segment.io/1.0",
    }
    assert (context["time"], context["timeEpoch"]) == ("12/Mar/2026:09:30:00 +0000", 1773307800250)
    forwarded = {name: event["headers"][f"x-forwarded-{name}"] for name in ("for", "port", "proto")}
    assert forwarded == {"for": "127.0.0.1", "port": "8443", "proto": "http"}


def test_header_names_become_lower_case_and_values_stay(event_of):
    headers = event_of(("X-Segment-Settings", "eyJhIjogMX0="), ("AUTHORIZATION", "Basic QWJj"))["headers"]
    assert (headers["x-segment-settings"], headers["authorization"]) == ("eyJhIjogMX0=", "Basic QWJj")


def test_several_values_of_a_header_are_joined_by_commas(event_of):
    event = event_of(("Authorization", "Basic QQ=="), ("X-Other", "1"), ("authorization", "Basic Qg=="))
    assert event["headers"]["authorization"] == "Basic QQ==,Basic Qg=="


def test_cookies_are_separate_from_the_headers(event_of):
    event = event_of(("Cookie", "a=1; b=2"))
    assert event["cookies"] == ["a=1", "b=2"]
    assert "cookie" not in event["headers"]
    assert "cookies" not in event_of()


def test_event_has_the_raw_and_the_decoded_query(event_of):
    event = event_of(path="/segment?a=1&b=x%20y&a=2&empty=")
    assert (event["rawPath"], event["rawQueryString"]) == ("/segment", "a=1&b=x%20y&a=2&empty=")
    assert event["queryStringParameters"] == {"a": "1,2", "b": "x y", "empty": ""}
    assert "queryStringParameters" not in event_of()


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=utf-8", "text/plain", "application/xml", "application/javascript"],
)
def test_text_arrives_as_text(event_of, content_type):
    event = event_of(("Content-Type", content_type), body=MESSAGE)
    assert (event["body"], event["isBase64Encoded"]) == (MESSAGE.decode(), False)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param([("Content-Type", "application/vnd.segment+json; charset=utf-8")], MESSAGE, id="vendor type"),
        pytest.param([("Content-Type", "application/x-www-form-urlencoded")], MESSAGE, id="form"),
        pytest.param([], MESSAGE, id="no type"),
        pytest.param([("Content-Type", "application/octet-stream")], MESSAGE, id="binary type"),
        pytest.param([JSON], b'{"event": "T\xfcr auf"}', id="not UTF-8"),
        pytest.param([JSON, ("Content-Encoding", "gzip")], MESSAGE, id="encoded"),
    ],
)
def test_other_content_arrives_as_base64(event_of, headers, body):
    event = event_of(*headers, body=body)
    assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (body, True)


@pytest.mark.parametrize("headers", [[JSON], []])
def test_empty_body_is_absent(event_of, headers):
    event = event_of(*headers)
    assert "body" not in event
    assert event["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("returned", "status", "body"),
    [
        ({"statusCode": 200, "body": '{"a": "ü"}', "headers": {"Content-Type": "application/json"}}, 200, '{"a": "ü"}'),
        ({"statusCode": 401, "body": "w7w=", "isBase64Encoded": True}, 401, "ü"),
        ({"statusCode": 204}, 204, ""),
    ],
)
def test_result_of_a_function_becomes_the_response(returned, status, body):
    response = to_response(returned)
    assert (response.status_code, response.body.decode()) == (status, body)
    assert response.headers.get("Content-Type") == returned.get("headers", {}).get("Content-Type")


def test_answers_of_the_gateway_itself_are_json():
    response = own_answer(404, "Not Found")
    assert (response.status_code, json.loads(response.body)) == (404, {"message": "Not Found"})
