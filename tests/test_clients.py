"""Test which responses the clients of the stores accept."""

import pytest
from botocore.parsers import ResponseParserError
from endpoint import endpoint, response

from destination.deployment.clients import local_client
from handler.clients import CONFIG, check_answer, connect, require_confirmation
from handler.settings import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, STORE_TRIES


def answer(body, *, status=200, headers=None):
    return {"status_code": status, "body": body, "headers": headers or {}}


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"x"', b"\xff", b"<html>", b"[" * 100_000, b"{"], ids=repr)
def test_response_that_is_not_an_object_is_a_store_error(body):
    with pytest.raises(ResponseParserError):
        check_answer(answer(body))


@pytest.mark.parametrize("body", [b"{}", b'{"Item": {}}', b""])
def test_object_or_empty_body_is_a_response(body):
    check_answer(answer(body))


@pytest.mark.parametrize("status", [302, 400, 500, 503])
def test_error_responses_are_left_to_botocore(status):
    check_answer(answer(b"Oops", status=status))


def test_retry_after_of_a_store_is_ignored():
    asked = answer(b"", status=503, headers={"x-amz-retry-after": "5000", "content-length": "0"})
    check_answer(asked)
    assert asked["headers"] == {"content-length": "0"}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
def test_client_has_the_time_outs_of_the_settings(service):
    config = connect(service).meta.config
    assert (config.connect_timeout, config.read_timeout) == (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    assert config.retries["total_max_attempts"] == STORE_TRIES == CONFIG.retries["total_max_attempts"]


@pytest.mark.parametrize(
    ("operation", "parameters", "field"),
    [
        ("put_record", {"StreamName": "events", "Data": b"{}", "PartitionKey": "a"}, "ShardId"),
        ("remove_tags_from_stream", {"StreamName": "events", "TagKeys": ["a"]}, None),
    ],
)
def test_other_services_confirm_by_a_required_field(operation, parameters, field):
    with endpoint(lambda _request: response(200, "{}")) as store:
        client = require_confirmation(local_client("kinesis", store.url))
        call = getattr(client, operation)
        if field is None:
            assert call(**parameters)["ResponseMetadata"]["HTTPStatusCode"] == 200
        else:
            with pytest.raises(ResponseParserError, match=f"without {field}, which confirms nothing"):
                call(**parameters)
        client.close()
