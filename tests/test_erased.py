"""Test messages that arrive after the erasure of their user, with the whole function."""

import pytest
from botocore.stub import Stubber

from consumer.erasure.table import ErasureRequest, ErasureTable
from handler.canonicalise import canonicalise
from handler.clients import connect
from handler.erased import Tombstones, tombstone_key
from handler.errors import ErasureStoreUnavailable, UserErased
from handler.parallel import call_with_retries

REQUESTED = "2031-05-17T12:00:00.000000Z"
BEFORE, AFTER = "2031-05-17T11:59:59.999Z", "2031-05-17T12:00:00.001Z"
TRACK = {"type": "track", "userId": "user-1", "event": "Lamp Lit", "timestamp": BEFORE}


@pytest.fixture
def erased(deploy):
    """Return a function that deploys a destination in which demo's user-1 was erased."""

    def erased(**parameters):
        destination = deploy(**parameters)
        table = ErasureTable(destination.account.dynamodb(), destination.stack.stores.erasure_table)
        table.leave_tombstone(ErasureRequest(customer_id="demo", subject="demo#user#user-1", requested_at=REQUESTED))
        return destination

    return erased


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_older_message_is_refused_and_not_kept(sink, erased):
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
def test_other_messages_are_stored(message, erased):
    destination = erased(AfterErasure="refuse")
    assert destination.post(message).status in (200, 202)
    assert len(destination.stored()) == 1


def test_message_without_an_id_is_left_to_its_schema(erased):
    answer = erased(AfterErasure="refuse").post({**TRACK, "userId": ["user-1"]})
    assert (answer.status, answer.body["code"]) == (400, "invalid_message")


def test_older_message_is_stored_by_default(erased):
    destination = erased()
    assert destination.post(TRACK).status == 200
    assert len(destination.stored()) == 1


def test_latest_of_several_requests_counts(erased):
    destination = erased(AfterErasure="refuse")
    table = ErasureTable(destination.account.dynamodb(), destination.stack.stores.erasure_table)
    for day in ("2031-05-19", "2031-05-18"):
        request = ErasureRequest(customer_id="demo", subject="demo#user#user-1", requested_at=f"{day}T00:00:00.000000Z")
        table.leave_tombstone(request)
    answers = [destination.post({**TRACK, "timestamp": f"2031-05-{day}T12:00:00Z"}) for day in (18, 19)]
    assert [answer.status for answer in answers] == [403, 200]


def at_once(call):
    call()


def messages_of(count, **fields):
    return [canonicalise({**TRACK, "userId": f"user-{number}", **fields})[0] for number in range(count)]


def without_deadline(call):
    call_with_retries(call, lambda: None)


TABLE = {"Keys": [tombstone_key("demo", "demo#user#user-0")]}
CAPACITY = {"TableName": "erasures", "CapacityUnits": 1}


@pytest.mark.parametrize(
    ("count", "operation", "answer"),
    [
        (1, "get_item", {}),
        (1, "get_item", "ResourceNotFoundException"),
        (2, "batch_get_item", {}),
        (2, "batch_get_item", {"Responses": {}}),
        (2, "batch_get_item", {"ConsumedCapacity": [CAPACITY]}),
        (2, "batch_get_item", {"ConsumedCapacity": [], "Responses": {"others": []}}),
        (2, "batch_get_item", "ProvisionedThroughputExceededException"),
        (
            *(2, "batch_get_item"),
            {
                "ConsumedCapacity": [CAPACITY],
                "Responses": {"erasures": []},
                "UnprocessedKeys": {"erasures": TABLE},
            },
        ),
    ],
)
def test_unreadable_tombstones_let_no_message_through(count, operation, answer, aws):  # noqa: ARG001 -- credentials
    client = connect("dynamodb")
    with Stubber(client) as stubber:
        if isinstance(answer, str):
            stubber.add_client_error(operation, answer)
        else:
            stubber.add_response(operation, answer)
        with pytest.raises(ErasureStoreUnavailable):
            Tombstones(client, "erasures").refusals("demo", messages_of(count), at_once)


@pytest.mark.parametrize(
    "answer",
    [{"Responses": {"erasures": []}}, {"ConsumedCapacity": [CAPACITY], "Responses": {}}],
    ids=["table", "capacity"],
)
def test_valid_empty_response_means_nobody_was_erased(answer, aws):  # noqa: ARG001
    client = connect("dynamodb")
    with Stubber(client) as stubber:
        stubber.add_response("batch_get_item", answer)
        assert Tombstones(client, "erasures").refusals("demo", messages_of(2), at_once) == [None, None]


def test_throttled_keys_are_read_again(aws):  # noqa: ARG001 -- credentials
    client = connect("dynamodb")
    keys = [tombstone_key("demo", f"demo#user#user-{number}") for number in range(3)]
    items = [{**key, "requested_at": {"S": REQUESTED}} for key in keys]

    def expected(*keys):
        return {
            "RequestItems": {"erasures": {"Keys": list(keys), "ConsistentRead": True}},
            "ReturnConsumedCapacity": "TOTAL",
        }

    with Stubber(client) as stubber:
        unread = {"UnprocessedKeys": {"erasures": {"Keys": keys[1:]}}}
        first = {"ConsumedCapacity": [CAPACITY], "Responses": {"erasures": items[:1]}, **unread}
        second = {"ConsumedCapacity": [CAPACITY], "Responses": {"erasures": items[2:]}, "UnprocessedKeys": {}}
        stubber.add_response("batch_get_item", first, expected(*keys))
        stubber.add_response("batch_get_item", second, expected(*keys[1:]))
        refusals = Tombstones(client, "erasures").refusals("demo", messages_of(3), without_deadline)
    assert [type(refusal) for refusal in refusals] == [UserErased, type(None), UserErased]


# Batches


@pytest.mark.parametrize(
    ("users", "calls"), [(1, ["GetItem"]), (2, ["BatchGetItem"]), (101, ["BatchGetItem", "GetItem"])]
)
def test_tombstones_are_read_in_hundreds_and_once_per_user(users, calls, erased):
    destination = erased()
    client = connect("dynamodb")
    made = []
    for name in ("GetItem", "BatchGetItem"):
        client.meta.events.register(f"before-call.dynamodb.{name}", lambda model, **_rest: made.append(model.name))
    messages = [message for _ in range(3) for message in messages_of(users)]
    deletes = messages_of(users, type="delete") + messages_of(users, timestamp=None)
    tombstones = Tombstones(client, destination.stack.stores.erasure_table)
    refusals = tombstones.refusals("demo", [*messages, *deletes], at_once)
    assert sorted(made) == sorted(calls)
    wanted = [message.body["user_id"] == "user-1" for message in messages]
    assert [refusal is not None for refusal in refusals] == [*wanted, *([False] * len(deletes))]


def test_batch_without_anybody_reads_no_tombstone():
    assert Tombstones(None, "erasures").refusals("demo", messages_of(2, userId=None), at_once) == [None, None]


def test_older_messages_in_a_batch_are_refused_and_not_kept(erased):
    destination = erased(AfterErasure="refuse")
    batch = [TRACK, {**TRACK, "userId": "user-2"}, {**TRACK, "event": None}, {**TRACK, "type": 7}]
    answer = destination.post({"batch": batch}, path="/v1/batch")
    codes = [(each["index"], each["code"]) for each in answer.body["rejected"]]
    assert (answer.status, codes) == (200, [(0, "user_erased"), (2, "user_erased"), (3, "missing_type")])
    assert [record["user_id"] for record in destination.stored()] == ["user-2"]
    assert destination.account.dynamodb().scan(TableName=destination.stack.stores.rejects_table)["Items"] == []


def test_largest_batch_is_looked_up_in_twenty_five_calls(erased):
    destination = erased()
    client = connect("dynamodb")
    made = []
    client.meta.events.register("before-call.dynamodb.BatchGetItem", lambda model, **_rest: made.append(model.name))
    Tombstones(client, destination.stack.stores.erasure_table).refusals("demo", messages_of(2500), at_once)
    assert len(made) == 25
