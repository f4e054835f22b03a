"""Messages that the consumer failed to take, and the rows of the page that brought them."""

from datetime import UTC, datetime

import pytest

from destination.debugger.consumer_failures import ConsumerFailures
from destination.watching.lines import ConsumerFailure


def failure(message_id, customer_id="acme"):
    return ConsumerFailure(
        time=datetime.now(UTC), customer_id=customer_id, message_ids=(message_id,), error="ValueError", sent_to=None
    )


def line(outcome="accepted", customer_id="acme", **ids):
    return {"outcome": outcome, "customer_id": customer_id, **ids}


@pytest.fixture
def told():
    return []


@pytest.fixture
def failures(told):
    return ConsumerFailures(lambda row_id, times: told.append((row_id, times)), max_messages=3)


def test_a_failure_belongs_to_the_request_that_stored_the_message(failures, told):
    failures.note_request("r-1", [line(message_id="m"), line("refused", message_id="n")])
    failures.note_request("r-2", [line("duplicate", message_id="m"), line(customer_id="other", message_id="m")])
    for message_id in ("m", "n", "m"):
        failures.note(failure(message_id))
    assert told == [("r-1", 1), ("r-1", 2)]
    assert len(failures.of("acme", "m")) == 2
    assert failures.of("other", "m") == ()


def test_each_message_of_a_batch_is_known(failures, told):
    failures.note_request("r-1", [line(message_ids=["a", "b"]), line()])
    for message_id in ("b", "a", "b"):
        failures.note(failure(message_id))
    assert told == [("r-1", 1), ("r-1", 2), ("r-1", 3)]


def test_failure_logged_before_its_request_is_shown_with_the_request(failures, told):
    failures.note(failure("m"))
    assert told == []
    failures.note_request("r-1", [line(message_id="m")])
    assert told == [("r-1", 1)]


def test_the_oldest_requests_are_forgotten(failures, told):
    for number in range(4):
        failures.note_request(f"r-{number}", [line(message_id=f"m-{number}")])
    failures.note(failure("m-0"))
    failures.note(failure("m-3"))
    assert told == [("r-3", 1)]
