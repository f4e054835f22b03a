"""What the clients of the stores take for an answer."""

import pytest
from botocore.parsers import ResponseParserError

from handler.clients import CONFIG, check_answer, connect
from handler.settings import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, STORE_TRIES


def answer(body, *, status=200, headers=None):
    return {"status_code": status, "body": body, "headers": headers or {}}


@pytest.mark.parametrize("body", [b"null", b"[]", b"5", b'"x"', b"\xff", b"<html>", b"[" * 100_000, b"{"], ids=repr)
def test_an_answer_that_is_no_object_is_a_fault_of_the_store(body):
    with pytest.raises(ResponseParserError):
        check_answer(answer(body))


@pytest.mark.parametrize("body", [b"{}", b'{"Item": {}}', b""])
def test_an_object_or_nothing_is_an_answer(body):
    check_answer(answer(body))


@pytest.mark.parametrize("status", [302, 400, 500, 503])
def test_botocore_judges_errors_by_itself(status):
    check_answer(answer(b"Oops", status=status))


def test_a_pause_that_a_store_asks_for_is_passed_over():
    asked = answer(b"", status=503, headers={"x-amz-retry-after": "5000", "content-length": "0"})
    check_answer(asked)
    assert asked["headers"] == {"content-length": "0"}


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
def test_a_client_waits_as_the_settings_say(service):
    config = connect(service).meta.config
    assert (config.connect_timeout, config.read_timeout) == (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    assert config.retries["total_max_attempts"] == STORE_TRIES == CONFIG.retries["total_max_attempts"]
