import hashlib
import json
import random
import re
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import SimpleNamespace

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber
from moto import mock_aws
from strict_aws import KEEP_SESSION

from handler.canonicalise import canonicalise
from handler.errors import DeadlineClose, EventStoreUnavailable, InternalError, MessageTooLarge
from handler.items import read_json_attribute
from handler.parallel import TRIES
from handler.record import Record
from handler.sinks import Outcome
from handler.sinks.dynamodb import EventTable
from handler.sinks.sqs import MAX_QUEUE_MESSAGE_BYTES, EventQueue

STORED_AT = 1_936_785_600.25  # 2031-05-17T12:00:00.250+00:00
LATE = "2031-05-17T12:00:00.000Z"
LATER = "2031-05-17T12:09:59.000Z"
LONG_CHARS = 64 * 1024
NASTY = "#%\x00\x1f\t\n\x7f\x85\u2028\ufffe\uffff\ud800é😀"


def record_of(payload, *, customer_id="acme", settings=None):
    [message] = canonicalise({"type": "track", "event": "Lamp Lit", **payload})
    return Record(customer_id=customer_id, message=message, settings=settings or {}, stored_at=STORED_AT)


def incompressible(length):
    return random.Random(17).randbytes(length // 2 + 1).hex()[:length]  # noqa: S311 -- no secret


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def dynamodb():
    with mock_aws(config=KEEP_SESSION):
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(TableName="events", **TABLE)
        yield client


TABLE = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": "subject", "AttributeType": "S"},
        {"AttributeName": "position", "AttributeType": "S"},
    ],
    "KeySchema": [
        {"AttributeName": "subject", "KeyType": "HASH"},
        {"AttributeName": "position", "KeyType": "RANGE"},
    ],
}


@pytest.fixture
def sqs():
    with mock_aws(config=KEEP_SESSION):
        yield boto3.client("sqs", region_name="us-east-1")


@pytest.fixture
def queue_url(sqs):
    attributes = {"MaximumMessageSize": str(MAX_QUEUE_MESSAGE_BYTES)}
    return sqs.create_queue(QueueName="events", Attributes=attributes)["QueueUrl"]


@pytest.fixture
def fifo_url(sqs):
    return sqs.create_queue(QueueName="events.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]


def put(client, record, *, retention_days=0):
    return EventTable(client, "events", retention_days=retention_days).write(record)


def items(client):
    return client.scan(TableName="events", ConsistentRead=True)["Items"]


def stored_item(client, record, **rest):
    put(client, record, **rest)
    [item] = items(client)
    return item


def receive(client, queue_url):
    answer = client.receive_message(
        QueueUrl=queue_url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["All"],
    )
    return answer.get("Messages", [])


def sent_message(client, queue_url, record):
    EventQueue(client, queue_url).write(record)
    [message] = receive(client, queue_url)
    return message


# Keys


LONG = "x" * 3000


def test_any_ids_have_distinct_table_keys(dynamodb):
    ids = ["u", "#", "%23", "\x00", "\n", "\ud800", "?", "\ufffd", "null", "\u00e9", "e\u0301", LONG, LONG + "x"]
    records = [record_of({"messageId": "m-1", kind: text}) for text in ids for kind in ("userId", "anonymousId")]
    assert {put(dynamodb, record) for record in records} == {Outcome.STORED}
    assert len(items(dynamodb)) == len(records)


# The times that every resend repeats


FIRST = {"userId": "keeper-17", "originalTimestamp": LATE, "timestamp": LATE, "sentAt": LATE, "receivedAt": LATE}
SHIFTED = {"timestamp": LATER, "sentAt": LATER, "receivedAt": LATER}


@pytest.mark.parametrize(
    ("payload", "shifted"),
    [
        ({"messageId": "m-1", **FIRST}, SHIFTED),
        ({"messageId": "m-1", **FIRST}, dict.fromkeys(SHIFTED)),
        (FIRST, SHIFTED),
        (FIRST, {"timestamp": LATER, "_metadata": {"nodeVersion": "1"}}),
        ({**FIRST, "originalTimestamp": "at dusk"}, SHIFTED),
        ({"messageId": "m-1", "userId": "keeper-17"}, {"sentAt": LATER, "receivedAt": LATER}),
        ({"userId": "keeper-17"}, {"sentAt": LATER, "receivedAt": LATER}),
        ({"type": "delete", "userId": "keeper-17", "timestamp": LATE}, {"sentAt": LATER, "receivedAt": LATER}),
        (FIRST, {"userId": None, "User ID": "keeper-17", "sentAt": None, "Sent At": LATER}),
        ({"sent_at": LATE, **FIRST}, {"sent_at": LATER}),
    ],
)
def test_resend_with_shifted_times_is_a_duplicate(dynamodb, payload, shifted):
    assert put(dynamodb, record_of(payload)) is Outcome.STORED
    assert put(dynamodb, record_of({**payload, **shifted})) is Outcome.DUPLICATE
    assert len(items(dynamodb)) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"messageId": "m-2"},
        {"userId": "keeper-18"},
        {"userId": None, "anonymousId": "keeper-17"},
        {"originalTimestamp": LATER},
    ],
)
def test_another_message_is_not_a_duplicate(dynamodb, other):
    payload = {"messageId": "m-1", **FIRST}
    assert put(dynamodb, record_of(payload)) is Outcome.STORED
    assert put(dynamodb, record_of({**payload, **other})) is Outcome.STORED


def test_same_message_of_another_customer_is_not_a_duplicate(dynamodb):
    assert put(dynamodb, record_of(FIRST)) is Outcome.STORED
    assert put(dynamodb, record_of(FIRST, customer_id="umbrella")) is Outcome.STORED


def test_duplicate_leaves_the_first_record_unchanged(dynamodb):
    first = stored_item(dynamodb, record_of({"messageId": "m-1", **FIRST}))
    put(dynamodb, record_of({"messageId": "m-1", **FIRST, **SHIFTED}))
    assert items(dynamodb) == [first]


# The event table


def test_item_has_the_message_and_the_attributes_for_queries(dynamodb):
    payload = {
        "messageId": "m-1",
        "userId": "keeper-17",
        "anonymousId": "5f0c",
        "groupId": "north",
        "timestamp": "2031-05-17T14:00:00+02:00",
        "properties": {"candela": 1},
    }
    item = stored_item(dynamodb, record_of(payload, settings={"region": "eu"}))
    message = json.loads(item.pop("message")["S"])
    settings = json.loads(item.pop("settings")["S"])
    assert {name: attribute["S"] for name, attribute in item.items()} == {
        "subject": "acme#user#keeper-17",
        "position": "2031-05-17T12:00:00.000000Z#m-1",
        "customer_id": "acme",
        "type": "track",
        "message_id": "m-1",
        "user_id": "keeper-17",
        "anonymous_id": "5f0c",
        "group_id": "north",
        "event": "Lamp Lit",
        "timestamp": "2031-05-17T12:00:00.000000Z",
        "stored_at": "2031-05-17T12:00:00.250000Z",
    }
    assert message == canonicalise({"type": "track", "event": "Lamp Lit", **payload})[0].body
    assert settings == {"region": "eu"}


@pytest.mark.parametrize("event", [None, "", 7, {"not": "a text"}])
def test_missing_fields_have_no_attribute(dynamodb, event):
    item = stored_item(dynamodb, record_of({"userId": "keeper-17", "event": event, "messageId": "m-1"}))
    names = {"subject", "position", "customer_id", "type", "message_id", "user_id", "timestamp", "stored_at", "message"}
    assert item.keys() == names


@pytest.mark.parametrize(("days", "expires_at"), [(0, None), (1, {"N": "1936872000"}), (30, {"N": "1939377600"})])
def test_a_record_expires_after_the_retention(dynamodb, days, expires_at):
    assert stored_item(dynamodb, record_of({"userId": "u"}), retention_days=days).get("expires_at") == expires_at


@pytest.mark.parametrize("days", [0, 1, 30])
@pytest.mark.parametrize("ids", [{"userId": "u"}, {"anonymousId": "5f0c"}], ids=str)
def test_a_delete_does_not_expire(dynamodb, ids, days):
    record = record_of({"type": "Delete", "messageId": "m-1", **ids})
    assert "expires_at" not in stored_item(dynamodb, record, retention_days=days)
    assert put(dynamodb, record, retention_days=days) is Outcome.DUPLICATE


@pytest.mark.parametrize("days", [0, 1, 30])
@pytest.mark.parametrize("time", [{}, {"originalTimestamp": "2031-05-17T12:00:00Z"}], ids=str)
def test_a_delete_is_not_a_duplicate_of_another_message(dynamodb, time, days):
    ids = {"userId": "u", "messageId": "const", **time}
    erasure = record_of({"type": "delete", **ids})
    assert put(dynamodb, record_of(ids), retention_days=days) is Outcome.STORED
    assert put(dynamodb, erasure, retention_days=days) is Outcome.STORED
    assert put(dynamodb, erasure, retention_days=days) is Outcome.DUPLICATE
    assert put(dynamodb, record_of(ids), retention_days=days) is Outcome.DUPLICATE
    assert [item["type"] for item in items(dynamodb)] == [{"S": "delete"}]


def test_fifo_queue_accepts_a_delete_with_the_id_of_another_message(sqs, fifo_url):
    ids = {"userId": "u", "messageId": "const"}
    for call_type in ("track", "delete", "track", "delete"):
        EventQueue(sqs, fifo_url).write(record_of({**ids, "type": call_type}))
    sent = [json.loads(message["Body"])["type"] for message in receive(sqs, fifo_url)]
    assert sent == ["track", "delete"]


@pytest.mark.parametrize("days", [0, 1, 30])
@pytest.mark.parametrize(
    ("expires_at", "outcome"),
    [
        (None, Outcome.DUPLICATE),
        ({"N": str(int(STORED_AT) + 1)}, Outcome.DUPLICATE),
        ({"N": str(int(STORED_AT))}, Outcome.STORED),
        ({"N": str(int(STORED_AT) - 86400)}, Outcome.STORED),
    ],
)
def test_expired_item_counts_as_absent(dynamodb, expires_at, outcome, days):
    record = record_of({"userId": "u", "messageId": "m-1"})
    old = {"subject": {"S": record.subject}, "position": {"S": record.position}, "event": {"S": "old"}}
    dynamodb.put_item(TableName="events", Item=old | ({"expires_at": expires_at} if expires_at else {}))
    assert put(dynamodb, record, retention_days=days) is outcome
    [item] = dynamodb.scan(TableName="events")["Items"]
    assert ("message" in item) is (outcome is Outcome.STORED)
    if outcome is Outcome.STORED:
        assert put(dynamodb, record, retention_days=days) is Outcome.DUPLICATE


DOCUMENTS = {
    "numbers": {"big": 10**300, "small": 5e-324, "exact": 9007199254740993, "zero": -0.0, "float": 1.0},
    "depth": json.loads("[" * 90 + "]" * 90),
    "empty": {"": {"": [None, "", [], {}]}},
    "texts": {"nasty": NASTY, NASTY: 1},
    "just long": {"text": "x" * LONG_CHARS},
    "long and incompressible": {"text": incompressible(300 * 1024)},
    "long with a lone surrogate": {"text": "\ud800" * LONG_CHARS},
    "long in another script": {"text": "灯" * LONG_CHARS},
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_message_and_settings_are_read_back_exactly(dynamodb, document):
    record = record_of({"userId": "u", "properties": document}, settings={"document": document})
    item = stored_item(dynamodb, record)
    # compare by repr, because in Python 1 == 1.0 == True and 0 == -0.0
    assert repr(read_json_attribute(item["message"])) == repr(record.message.body)
    assert repr(read_json_attribute(item["settings"])) == repr(record.settings)


@pytest.mark.parametrize(
    "payload",
    [
        {"userId": "u", "properties": {"text": incompressible(900 * 1024)}},
        {"userId": incompressible(300 * 1024)},
        {"userId": "u", "event": incompressible(300 * 1024)},
        {"userId": "u", "event": "灯" * 130 * 1024},
        {"anonymousId": "😀" * 100 * 1024},
    ],
    ids=["properties", "user id", "event", "event in another script", "anonymous id"],
)
def test_message_too_large_for_the_table_is_not_written(dynamodb, payload):
    with Stubber(dynamodb), pytest.raises(MessageTooLarge, match=r"^Message is too large$"):
        put(dynamodb, record_of(payload))


@pytest.mark.parametrize(
    "payload",
    [
        {"properties": {"text": incompressible(650 * 1024)}},
        {"properties": {"text": "." * 1024 * 1024}},
        {"event": incompressible(200 * 1024)},
    ],
    ids=["incompressible", "a megabyte", "event"],
)
def test_a_message_that_fits_in_an_item_is_stored(dynamodb, payload):
    assert put(dynamodb, record_of({"userId": "u", **payload})) is Outcome.STORED


def test_settings_count_towards_the_size_of_an_item(dynamodb):
    record = record_of({"userId": "u", "event": incompressible(200 * 1024)}, settings={"x": incompressible(200 * 1024)})
    with Stubber(dynamodb), pytest.raises(MessageTooLarge):
        put(dynamodb, record)


# The event queue


SQS_TEXT = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""The characters that SQS accepts in a body or an attribute. moto does not check them."""


def test_queued_message_contains_the_record(sqs, queue_url):
    record = record_of({"userId": "keeper-17", "messageId": "m-1", "timestamp": LATE}, settings={"region": "eu"})
    assert EventQueue(sqs, queue_url).write(record) is Outcome.QUEUED
    [message] = receive(sqs, queue_url)
    assert json.loads(message["Body"]) == {
        "subject": "acme#user#keeper-17",
        "position": "2031-05-17T12:00:00.000000Z#m-1",
        "customer_id": "acme",
        "type": "track",
        "message_id": "m-1",
        "user_id": "keeper-17",
        "event": "Lamp Lit",
        "timestamp": "2031-05-17T12:00:00.000000Z",
        "stored_at": "2031-05-17T12:00:00.250000Z",
        "settings": {"region": "eu"},
        "message": record.message.body,
    }
    assert {name: attribute["StringValue"] for name, attribute in message["MessageAttributes"].items()} == {
        "customer_id": "acme",
        "type": "track",
        "message_id": "m-1",
    }


def test_queued_message_has_only_accepted_characters_and_loses_nothing(sqs, queue_url):
    nasty = {"userId": NASTY, "messageId": NASTY, "event": NASTY, "properties": {NASTY: NASTY}}
    record = record_of(nasty, customer_id="a\x00#", settings={NASTY: NASTY})
    message = sent_message(sqs, queue_url, record)
    assert message["Body"].isascii()
    assert json.loads(message["Body"])["message"] == record.message.body
    assert json.loads(message["Body"])["settings"] == record.settings
    for text in (message["Body"], *(value["StringValue"] for value in message["MessageAttributes"].values())):
        assert SQS_TEXT.fullmatch(text)


@pytest.mark.parametrize("character", [".", "é", "😀", "\x00"])
def test_queue_size_limit_counts_escaped_body_and_attributes(sqs, queue_url, character):
    def record(filling):
        return record_of({"userId": "u", "messageId": "m-1", "x": filling})

    empty = sent_message(sqs, queue_url, record(""))
    attributes = empty["MessageAttributes"].items()
    taken = len(empty["Body"]) + sum(len(f"{name}String{value['StringValue']}") for name, value in attributes)
    times, rest = divmod(MAX_QUEUE_MESSAGE_BYTES - taken, len(json.dumps(character)) - 2)
    queue = EventQueue(sqs, queue_url)
    assert queue.write(record(character * times + "." * rest)) is Outcome.QUEUED
    with Stubber(sqs), pytest.raises(MessageTooLarge):
        queue.write(record(character * times + "." * (rest + 1)))


def test_fifo_queue_deduplicates_a_resend(sqs, fifo_url):
    queue = EventQueue(sqs, fifo_url)
    queue.write(record_of(FIRST))
    queue.write(record_of({**FIRST, **SHIFTED}))
    assert len(receive(sqs, fifo_url)) == 1


def test_a_fifo_queue_orders_the_messages_of_a_subject(sqs, fifo_url):
    queue = EventQueue(sqs, fifo_url)
    for user_id, message_id in (("a", "m-1"), ("b", "m-1"), ("a", "m-2")):
        queue.write(record_of({"userId": user_id, "messageId": message_id}))
    received = [(message["Attributes"], json.loads(message["Body"])) for message in receive(sqs, fifo_url)]
    groups = {(attributes["MessageGroupId"], body["subject"]) for attributes, body in received}
    assert groups == {(sha256(f"acme#user#{user_id}"), f"acme#user#{user_id}") for user_id in ("a", "b")}
    assert len({attributes["MessageDeduplicationId"] for attributes, _body in received}) == 3


@pytest.mark.parametrize("payload", [{"userId": NASTY, "messageId": NASTY}, {"userId": LONG, "messageId": "m" * 100}])
def test_fifo_ids_are_accepted_by_sqs(sqs, fifo_url, payload):
    attributes = sent_message(sqs, fifo_url, record_of(payload))["Attributes"]
    for name in ("MessageGroupId", "MessageDeduplicationId"):
        assert re.fullmatch(r"[!-~]{1,128}", attributes[name])


def test_standard_queue_gets_no_fifo_ids(sqs, queue_url):
    attributes = sent_message(sqs, queue_url, record_of(FIRST))["Attributes"]
    assert not {"MessageGroupId", "MessageDeduplicationId"} & attributes.keys()


# Stores that fail


@pytest.mark.parametrize(
    "code", ["ProvisionedThroughputExceededException", "InternalServerError", "ResourceNotFoundException", "Odd"]
)
def test_table_error_is_our_fault(dynamodb, code):
    with Stubber(dynamodb) as stub:
        stub.add_client_error("put_item", code)
        with pytest.raises(EventStoreUnavailable):
            put(dynamodb, record_of(FIRST))


@pytest.mark.parametrize(
    "code", ["AWS.SimpleQueueService.NonExistentQueue", "RequestThrottled", "InvalidMessageContents"]
)
def test_queue_error_is_our_fault(sqs, queue_url, code):
    with Stubber(sqs) as stub:
        stub.add_client_error("send_message", code)
        with pytest.raises(EventStoreUnavailable):
            EventQueue(sqs, queue_url).write(record_of(FIRST))


def test_put_of_a_record_is_conditional(dynamodb):
    with Stubber(dynamodb) as stub:
        stub.add_client_error("put_item", "ConditionalCheckFailedException")
        assert put(dynamodb, record_of(FIRST)) is Outcome.DUPLICATE


# Puts with a lost response


@contextmanager
def losing_answers(client, *, count=1):
    """Let the store carry out the next puts of a client, and lose the responses."""
    left = iter(range(count))
    store = boto3.client("dynamodb", region_name="us-east-1")

    def lose(request, **_):
        if next(left, None) is None:
            return
        wanted = json.loads(request.body)
        with suppress(store.exceptions.ConditionalCheckFailedException):
            store.put_item(**{name: wanted[name] for name in CONDITIONAL_PUT if name in wanted})
        raise ReadTimeoutError(endpoint_url=request.url)

    client.meta.events.register_first("before-send.dynamodb.PutItem", lose)
    yield
    client.meta.events.unregister("before-send.dynamodb.PutItem", lose)


CONDITIONAL_PUT = (
    *("TableName", "Item", "ConditionExpression"),
    *("ExpressionAttributeNames", "ExpressionAttributeValues"),
)


def test_put_retried_by_botocore_is_not_its_own_duplicate():
    with mock_aws():  # dynalite does not return the old item
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(TableName="events", **TABLE)
        with losing_answers(client):
            assert put(client, record_of(FIRST)) is Outcome.STORED
        assert len(items(client)) == 1


def test_put_retried_in_a_batch_is_not_its_own_duplicate():
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1", config=Config(retries={"total_max_attempts": 1}))
        client.create_table(TableName="events", **TABLE)
        with losing_answers(client):
            assert put_all(client, records_of("m-1")) == [Outcome.STORED]
        [again] = records_of("m-1")
        with losing_answers(client):
            assert put_all(client, [replace(again, stored_at=STORED_AT + 1)]) == [Outcome.DUPLICATE]


def test_retried_put_of_an_older_record_is_a_duplicate(dynamodb):
    put(dynamodb, record_of(FIRST))
    with losing_answers(dynamodb):
        assert put(dynamodb, replace(record_of(FIRST), stored_at=STORED_AT + 1)) is Outcome.DUPLICATE


def test_retried_request_is_a_duplicate_of_the_first(dynamodb):
    assert [put(dynamodb, record_of(FIRST)) for _ in range(2)] == [Outcome.STORED, Outcome.DUPLICATE]


# Batches


def in_time():
    """A deadline that is never reached."""


def records_of(*message_ids, **payload):
    return [record_of({"userId": "u", "messageId": message_id, **payload}) for message_id in message_ids]


def put_all(client, records, check_deadline=in_time):
    return EventTable(client, "events", retention_days=0).write_all(records, check_deadline)


def test_each_of_many_records_is_stored_or_a_duplicate(dynamodb):
    put(dynamodb, *records_of("m-2"))
    assert put_all(dynamodb, records_of("m-1", "m-2", "m-3")) == [Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED]
    assert len(items(dynamodb)) == 3


def test_oversized_record_does_not_affect_others(dynamodb):
    records = [*records_of("m-1"), *records_of("m-2", x=incompressible(900_000)), *records_of("m-3")]
    first, too_large, third = put_all(dynamodb, records)
    assert (first, type(too_large), third) == (Outcome.STORED, MessageTooLarge, Outcome.STORED)
    assert len(items(dynamodb)) == 2


def test_empty_batch_makes_no_call(dynamodb, sqs):
    with Stubber(dynamodb), Stubber(sqs):
        assert put_all(dynamodb, []) == EventQueue(sqs, "https://queue").write_all([], in_time) == []


def test_failed_put_of_a_batch_is_retried(dynamodb):
    with Stubber(dynamodb) as stub:
        for _ in range(TRIES - 1):
            stub.add_client_error("put_item", "ThrottlingException")
        stub.add_response("put_item", {"ConsumedCapacity": {}})
        assert put_all(dynamodb, records_of("m-1")) == [Outcome.STORED]


def test_put_that_always_fails_is_our_fault(dynamodb):
    with Stubber(dynamodb) as stub:
        for _ in range(TRIES):
            stub.add_client_error("put_item", "ThrottlingException")
        with pytest.raises(EventStoreUnavailable):
            put_all(dynamodb, records_of("m-1"))
        stub.assert_no_pending_responses()


@pytest.mark.parametrize("tries", range(TRIES))
def test_no_retry_begins_after_the_deadline(dynamodb, tries):
    left = iter(range(tries))

    def check_deadline():
        if next(left, None) is None:
            raise DeadlineClose

    with Stubber(dynamodb) as stub:
        for _ in range(tries):
            stub.add_client_error("put_item", "ThrottlingException")
        with pytest.raises(DeadlineClose):
            put_all(dynamodb, records_of("m-1"), check_deadline)
        stub.assert_no_pending_responses()


def test_queue_gets_each_message_once(sqs, queue_url):
    names = [f"m-{number}" for number in range(25)]
    records = records_of(*names)
    assert EventQueue(sqs, queue_url).write_all(records, in_time) == [Outcome.QUEUED] * 25
    received = [json.loads(message["Body"]) for _ in range(5) for message in receive(sqs, queue_url)]
    assert sorted(body["message_id"] for body in received) == sorted(names)
    single = json.loads(sent_message(sqs, queue_url, records[0])["Body"])
    assert next(body for body in received if body["message_id"] == "m-0") == single


def test_a_fifo_queue_keeps_the_order_of_a_batch(sqs, fifo_url):
    names = [f"m-{number:02}" for number in range(35)]
    EventQueue(sqs, fifo_url).write_all(records_of(*names), in_time)
    received = []
    while messages := receive(sqs, fifo_url):
        received += [json.loads(message["Body"])["message_id"] for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=fifo_url, ReceiptHandle=message["ReceiptHandle"])
    assert received == names


def sent_at_once(sqs, records):
    """Return how many messages each call would send."""
    calls = []

    def answer(params, **_):
        calls.append([entry["Id"] for entry in params["Entries"]])
        return SimpleNamespace(status_code=200), {"Successful": [{"Id": name} for name in calls[-1]]}

    sqs.meta.events.register("before-call.sqs.SendMessageBatch", lambda params, **_: capture(params, answer))
    EventQueue(sqs, "https://queue").write_all(records, in_time)
    return sorted(map(len, calls), reverse=True)


def capture(params, answer):
    return answer({"Entries": json.loads(params["body"])["Entries"]})


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([1] * 10, [10]),
        ([1] * 11, [10, 1]),
        ([400_000] * 3, [2, 1]),
        ([MAX_QUEUE_MESSAGE_BYTES - 1000, 1], [2]),
        ([MAX_QUEUE_MESSAGE_BYTES - 1000, 1000], [1, 1]),
    ],
)
def test_queue_batches_are_as_large_as_allowed(sqs, sizes, calls):
    records = [record_of({"userId": "u", "messageId": "m", "x": "x" * size}) for size in sizes]
    assert sent_at_once(sqs, records) == calls


def test_message_too_large_for_a_queue_does_not_affect_others(sqs, queue_url):
    records = [*records_of("m-1"), *records_of("m-2", x="x" * MAX_QUEUE_MESSAGE_BYTES), *records_of("m-3")]
    first, too_large, third = EventQueue(sqs, queue_url).write_all(records, in_time)
    assert (first, type(too_large), third) == (Outcome.QUEUED, MessageTooLarge, Outcome.QUEUED)
    assert len(receive(sqs, queue_url)) == 2


def test_unconfirmed_queue_message_is_sent_again_alone(sqs):
    sent = []

    def answer(params, **_):
        names = [entry["Id"] for entry in json.loads(params["body"])["Entries"]]
        sent.append(names)
        return SimpleNamespace(status_code=200), {"Successful": [{"Id": name} for name in names[:2]], "Failed": []}

    sqs.meta.events.register("before-call.sqs.SendMessageBatch", answer)
    EventQueue(sqs, "https://queue").write_all(records_of("m-0", "m-1", "m-2", "m-3", "m-4"), in_time)
    assert sent == [["0", "1", "2", "3", "4"], ["2", "3", "4"], ["4"]]


@pytest.mark.parametrize("answer", [{}, {"Successful": []}])
def test_queue_that_confirms_nothing_is_our_fault(sqs, answer):
    sqs.meta.events.register(
        "before-call.sqs.SendMessageBatch", lambda **_: (SimpleNamespace(status_code=200), dict(answer))
    )
    with pytest.raises(EventStoreUnavailable):
        EventQueue(sqs, "https://queue").write_all(records_of("m-1"), in_time)


def test_failing_queue_is_our_fault(sqs):
    with Stubber(sqs) as stub:
        for _ in range(TRIES):
            stub.add_client_error("send_message_batch", "RequestThrottled")
        with pytest.raises(EventStoreUnavailable):
            EventQueue(sqs, "https://queue").write_all(records_of("m-1"), in_time)


def failing(records):
    """Return records. The second one raises an error when it is written."""
    first, second, *others = records
    return [first, replace(second, settings={"x": object()}), *others]


def test_bug_with_one_record_does_not_affect_others_in_a_table(dynamodb):
    table = EventTable(dynamodb, "events", retention_days=0)
    first, failed, third = table.write_all(failing(records_of("m-1", "m-2", "m-3")), in_time)
    assert (first, type(failed), third) == (Outcome.STORED, InternalError, Outcome.STORED)
    assert isinstance(failed.__cause__, TypeError)
    assert failed.__cause__.__traceback__ is not None


def test_bug_with_one_record_does_not_affect_others_in_a_queue(sqs, queue_url):
    first, failed, third = EventQueue(sqs, queue_url).write_all(failing(records_of("m-1", "m-2", "m-3")), in_time)
    assert (first, type(failed), third) == (Outcome.QUEUED, InternalError, Outcome.QUEUED)
    assert isinstance(failed.__cause__, TypeError)
    assert len(receive(sqs, queue_url)) == 2
