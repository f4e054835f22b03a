"""Messages that come after their user was erased, by the whole function."""

import pytest
from botocore.stub import Stubber

from consumer.erasures import ErasureRequest, ErasureTable
from handler.canonicalise import canonicalise
from handler.clients import connect
from handler.erased import Tombstones
from handler.errors import ErasureStoreUnavailable

REQUESTED = "2031-05-17T12:00:00.000000Z"
BEFORE, AFTER = "2031-05-17T11:59:59.999Z", "2031-05-17T12:00:00.001Z"
TRACK = {"type": "track", "userId": "user-1", "event": "Lamp Lit", "timestamp": BEFORE}


@pytest.fixture
def erased(deploy):
    """Return what deploys a destination where demo's user-1 was erased."""

    def erased(**parameters):
        destination = deploy(**parameters)
        table = ErasureTable(destination.account.dynamodb(), destination.stack.stores.erasure_table)
        table.bury(ErasureRequest(customer_id="demo", subject="demo#user#user-1", requested_at=REQUESTED))
        return destination

    return erased


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_what_happened_before_is_refused_and_kept_nowhere(sink, erased):
    destination = erased(EventSink=sink, AfterErasure="refuse")
    answers = [destination.post(message) for message in (TRACK, {**TRACK, "event": None})]
    assert [(answer.status, answer.body["code"]) for answer in answers] == [(403, "user_erased")] * 2
    assert destination.records() == []
    assert destination.account.dynamodb().scan(TableName=destination.stack.stores.rejects_table)["Items"] == []


@pytest.mark.parametrize(
    "message",
    [
        {**TRACK, "timestamp": AFTER},
        {**TRACK, "timestamp": None},
        {**TRACK, "userId": "user-2"},
        {**TRACK, "userId": None, "anonymousId": "user-1"},
        {"type": "delete", "userId": "user-1", "timestamp": BEFORE},
    ],
)
def test_all_else_is_stored(message, erased):
    destination = erased(AfterErasure="refuse")
    assert destination.post(message).status in (200, 202)
    assert len(destination.stored()) == 1


def test_a_message_of_nobody_is_a_matter_of_its_schema(erased):
    answer = erased(AfterErasure="refuse").post({**TRACK, "userId": ["user-1"]})
    assert (answer.status, answer.body["code"]) == (400, "invalid_message")


def test_by_default_it_is_stored_again(erased):
    destination = erased()
    assert destination.post(TRACK).status == 200
    assert len(destination.stored()) == 1


def test_of_several_requests_the_latest_counts(erased):
    destination = erased(AfterErasure="refuse")
    table = ErasureTable(destination.account.dynamodb(), destination.stack.stores.erasure_table)
    for day in ("2031-05-19", "2031-05-18"):
        request = ErasureRequest(customer_id="demo", subject="demo#user#user-1", requested_at=f"{day}T00:00:00.000000Z")
        table.bury(request)
    answers = [destination.post({**TRACK, "timestamp": f"2031-05-{day}T12:00:00Z"}) for day in (18, 19)]
    assert [answer.status for answer in answers] == [403, 200]


@pytest.mark.parametrize("answer", [{}, "ResourceNotFoundException"])
def test_a_tombstone_that_can_not_be_read_lets_nothing_through(answer, aws):  # noqa: ARG001 -- credentials
    client = connect("dynamodb")
    [message] = canonicalise(TRACK)
    with Stubber(client) as stubber:
        if isinstance(answer, str):
            stubber.add_client_error("get_item", answer)
        else:
            stubber.add_response("get_item", answer)
        with pytest.raises(ErasureStoreUnavailable):
            Tombstones(client, "erasures").check("demo", message)
