"""The function's signatures are botocore's."""

from datetime import UTC, datetime

import botocore.auth
import pytest
from botocore.auth import AUTH_TYPE_MAPS, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from searches import search

from handler.clients import connect
from handler.sign import QuickAuth

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
NAMES = ("Content-Type", "X-Amz-Target", "User-Agent", "X-Amzn-Trace-Id", "X-Amz-Date", "Authorization", "Host", "x-b")
URLS = (
    "https://dynamodb.eu-west-1.amazonaws.com/",
    "https://DynamoDB.eu-west-1.amazonaws.com:443/a//b/../c?z=1&a=%20",
    "http://127.0.0.1:8123",
    "http://[::1]:8123/",
    "https://user@sqs.eu-west-1.amazonaws.com/?b",
)


REQUESTS = st.fixed_dictionaries(
    {
        "method": st.just("POST"),
        "url": st.sampled_from(URLS),
        "headers": st.dictionaries(st.sampled_from(NAMES), TEXT, max_size=6),
        "data": st.binary(max_size=100),
    }
)
SIGNERS = st.tuples(
    st.builds(Credentials, st.text(min_size=1), st.text(min_size=1), st.none() | TEXT),
    st.sampled_from(["dynamodb", "sqs"]),
    st.sampled_from(["eu-west-1", "us-gov-west-1"]),
)
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds have none


@search(500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=REQUESTS, signer=SIGNERS, moments=st.tuples(MOMENTS, MOMENTS))
def test_headers_are_those_of_botocore(monkeypatch, request, signer, moments):
    ours, expected = AWSRequest(**request), AWSRequest(**request)
    for moment in moments:  # the second one is a retry
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda moment=moment: moment)
        QuickAuth(*signer).add_auth(ours)
        SigV4Auth(*signer).add_auth(expected)
        assert ours.headers.items() == expected.headers.items()


def test_key_of_another_day_is_another_key(monkeypatch):
    url = "https://dynamodb.eu-west-2.amazonaws.com/"
    signatures = set()
    for day in (9, 10, 9):
        request = AWSRequest(method="POST", url=url, headers={"X-Amz-Target": "DynamoDB_20120810.PutItem"}, data=b"{}")
        expected = AWSRequest(method="POST", url=url, headers={**request.headers}, data=b"{}")
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda day=day: datetime(2020, 5, day, tzinfo=UTC))
        for auth, each in ((QuickAuth, request), (SigV4Auth, expected)):
            auth(Credentials("id", "secret", "token"), "dynamodb", "eu-west-1").add_auth(each)
        assert request.headers["Authorization"] == expected.headers["Authorization"]
        signatures.add(request.headers["Authorization"])
    assert len(signatures) == 2


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
@pytest.mark.parametrize(("is_direct", "auth"), [(True, QuickAuth), (False, SigV4Auth)])
def test_only_a_direct_client_signs_quickly(service, is_direct, auth):
    client = connect(service, direct=is_direct)
    said = {"signing_name": service, "region_name": "us-east-1", "signature_version": "v4", "context": {}}
    _, version = client.meta.events.emit_until_response(f"choose-signer.{service}.Any", **said)
    assert AUTH_TYPE_MAPS[version or "v4"] is auth
