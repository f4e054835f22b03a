import pytest

from handler.request import MAX_AGE_SECONDS, Request
from handler.routes import ROUTES, BatchRoute, CallRoute, SegmentRoute
from handler.spec import CALL_TYPES, DELETE

NOW = 1_936_785_600.5


def request_of(event, **context):
    return Request.from_event({"requestContext": {"requestId": "r-1", **context}, **event}, NOW)


@pytest.mark.parametrize(
    ("key", "path", "call_type", "is_library", "is_batch"),
    [
        ("POST /segment", "/segment", None, False, False),
        ("POST /v1/track", "/v1/track", "track", True, False),
        ("POST /v1/batch", "/v1/batch", None, True, True),
        ("POST /v1/import", "/v1/import", None, True, True),
        ("$default", "/segment", None, False, False),
    ],
)
def test_a_request_knows_its_route(key, path, call_type, is_library, is_batch):
    route = request_of({"routeKey": key}).route
    kind = BatchRoute if is_batch else CallRoute if is_library else SegmentRoute
    assert (type(route), route.path, route.call_type) == (kind, path, call_type)


def test_each_call_type_except_delete_has_a_route():
    assert {route.call_type for route in ROUTES.values()} == {*CALL_TYPES, None} - {DELETE}


def test_the_parts_of_an_event_that_are_used_are_read():
    event = {
        "version": "2.0",
        "rawPath": "/segment",
        "headers": {"authorization": "Basic c2VnbWVudDo=", "content-type": "application/vnd.x+json; charset=utf-8"},
        "body": "e30=",
        "isBase64Encoded": True,
    }
    assert request_of(event, timeEpoch=1_936_785_600_000) == Request(
        id="r-1", headers=event["headers"], body="e30=", is_base64=True, received_at=1_936_785_600.0
    )


@pytest.mark.parametrize("name", ["authorization", "Authorization", "AUTHORIZATION"])
def test_header_names_are_always_lower_case(name):
    assert request_of({"headers": {name: "Basic eDo="}}).headers == {"authorization": "Basic eDo="}


@pytest.mark.parametrize("event", [{}, {"body": None}, {"body": ""}, {"headers": {}, "isBase64Encoded": False}])
def test_a_request_may_have_no_body_and_no_headers(event):
    request = request_of(event)
    assert (request.headers, request.body, request.is_base64) == ({}, "", False)


@pytest.mark.parametrize(
    ("context", "received_at"),
    [
        ({"timeEpoch": 1_936_785_600_500}, NOW),
        ({"timeEpoch": 1_936_785_598_250}, NOW - 2.25),
        ({"timeEpoch": int((NOW - MAX_AGE_SECONDS) * 1000)}, NOW - MAX_AGE_SECONDS),
        ({"timeEpoch": int((NOW - MAX_AGE_SECONDS) * 1000) - 1}, NOW),
        ({"timeEpoch": 1_936_785_600_501}, NOW),
        ({"timeEpoch": 1_936_785_600}, NOW),
        ({"timeEpoch": 0}, NOW),
        ({}, NOW),
    ],
)
def test_received_time_is_the_gateways_if_plausible(context, received_at):
    assert request_of({}, **context).received_at == received_at
