"""Test the eraser's function with events in the form of the event table's stream."""

import hashlib
import json
import time
from dataclasses import dataclass

import pytest

from consumer import eraser
from consumer.eraser import LATEST_WRITE_SECONDS, SPARE_SECONDS, carry_out, lambda_handler, request_of, wait_seconds
from consumer.erasure.subject import Eraser, Scope
from consumer.erasure.table import ErasureTable
from consumer.runtime.batch import BatchFailed
from consumer.runtime.clients import background_client
from destination.deployment.stack import FUNCTION, load_template
from handler.settings import AfterErasure


@dataclass(frozen=True, kw_only=True)
class Context:
    """The context of a Lambda invocation."""

    seconds: float = 900

    def get_remaining_time_in_millis(self):
        return int(self.seconds * 1000)


def deletes(destination, *users, **fields):
    """Store `delete` messages, and return the stream event with them."""
    for user in users:
        destination.post({"type": "delete", "userId": user, "messageId": f"delete-{user}", **fields})
    table = destination.stack.stores.event_table
    items = destination.account.dynamodb().scan(TableName=table)["Items"]
    images = {item["user_id"]["S"]: item for item in items if item["type"]["S"] == "delete"}
    records = [
        {"eventName": "INSERT", "dynamodb": {"NewImage": images[user], "SequenceNumber": str(number)}}
        for number, user in enumerate(users, start=1)
    ]
    return {"Records": records}


def new_eraser(destination, *, clock=time.time):
    client, stores = background_client("dynamodb"), destination.stack.stores
    return Eraser(
        client,
        event_table=stores.event_table,
        rejects_table=stores.rejects_table,
        erasures=ErasureTable(client, stores.erasure_table),
        scope=Scope.USER,
        clock=clock,
    )


def receipts(destination):
    return list(ErasureTable(background_client("dynamodb"), destination.stack.stores.erasure_table).everything())


@pytest.fixture
def destination(deploy):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started, which other tests may have called
    return deploy()


def test_batch_of_deletes_is_carried_out(destination, lines):
    destination.post({"type": "page", "userId": "user-1"})
    event = deletes(destination, "user-1", "user-2")
    lines()
    assert lambda_handler(event, Context()) == {"batchItemFailures": []}
    assert destination.stored() == []
    assert sorted(receipt.messages for receipt in receipts(destination)) == [0, 1]
    facts = [{name: line[name] for name in ("outcome", "Erased", "customer_id", "messages")} for line in lines()]
    assert facts == [
        {"outcome": "erased", "Erased": [1.0], "customer_id": "demo", "messages": messages} for messages in (1, 0)
    ]


def test_redelivered_delete_is_not_erased_or_counted_again(destination, lines):
    event = deletes(destination, "user-1")
    lambda_handler(event, Context())
    destination.post({"type": "page", "userId": "user-1"})
    lines()
    lambda_handler(event, Context())
    assert (len(destination.stored()), lines()) == (1, [])


def test_a_line_names_nobody(destination, capsys):
    event = deletes(destination, "user-1")
    capsys.readouterr()
    lambda_handler(event, Context())
    assert "user-1" not in capsys.readouterr().out


def test_rest_of_a_batch_is_returned_when_the_time_is_over(destination, lines):
    event = deletes(destination, "user-1", "user-2", "user-3")
    lambda_handler({"Records": event["Records"][:1]}, Context())
    destination.post({"type": "page", "userId": "user-2"})
    short = Context(seconds=SPARE_SECONDS - 1)
    lines()
    assert lambda_handler(event, short) == {"batchItemFailures": [{"itemIdentifier": "2"}, {"itemIdentifier": "3"}]}
    postponed = [(line["level"], line["outcome"], line["error"]) for line in lines()]
    assert postponed == [("INFO", "postponed", "OutOfTimeError")] * 2
    lambda_handler(event, Context())
    assert destination.stored() == []


def test_batch_without_any_success_raises(destination):
    with pytest.raises(BatchFailed):
        lambda_handler(deletes(destination, "user-1"), Context(seconds=0))


@pytest.mark.parametrize(
    "image", [{}, {"customer_id": {"S": "demo"}, "subject": {"S": ""}, "stored_at": {"S": ""}}], ids=str
)
def test_failed_record_does_not_stop_other_deletes(image, destination, lines):
    event = deletes(destination, "user-1", "user-2")
    event["Records"].insert(1, {"eventName": "INSERT", "dynamodb": {"NewImage": image, "SequenceNumber": "7"}})
    lines()
    assert lambda_handler(event, Context()) == {"batchItemFailures": [{"itemIdentifier": "7"}]}
    assert destination.stored() == []
    assert [line["outcome"] for line in lines()] == ["erased", "erasure_failed", "erased"]


def test_delete_without_a_tombstone_does_not_stop_the_others(destination, lines):
    event = deletes(destination, "user-1", "user-2")
    image = event["Records"][0]["dynamodb"]["NewImage"]
    event["Records"][0]["dynamodb"]["NewImage"] = {**image, "customer_id": {"S": "x" * 3000}}
    lines()
    assert lambda_handler(event, Context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert [item["user_id"] for item in destination.stored()] == ["user-1"]
    failure, erased = lines()
    assert erased["outcome"] == "erased"
    assert failure == {
        "level": "ERROR",
        "message": "erasure",
        "outcome": "erasure_failed",
        "customer_id": "x" * 3000,
        "user_hash": hashlib.sha256(image["subject"]["S"].encode()).hexdigest(),
        "requested_at": image["stored_at"]["S"],
        "error": "RefusedByAws",
        "text": "key customer takes 3,000 bytes",
    }


LIMITS = [
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.9999Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+10:00",
]
KEPT = ("subject", "position", "timestamp", "stored_at", "message")


@pytest.mark.parametrize("time", LIMITS)
def test_a_delete_with_any_time_is_carried_out(deploy, time):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    destination = deploy(Consumer="on")
    event = deletes(destination, "user-1", "user-2", timestamp=time)
    images = {item["user_id"]: item for item in destination.stored()}
    assert lambda_handler(event, Context()) == {"batchItemFailures": []}
    assert destination.stored() == []
    assert all(receipt.finished_at for receipt in receipts(destination))
    bodies = {body["user_id"]: body for body in (message["Body"] for message in destination.queued())}
    assert bodies.keys() == images.keys()
    for user, body in bodies.items():
        assert {name: body[name] for name in KEPT} == {name: images[user][name] for name in KEPT}


def test_eraser_waits_for_requests_in_progress_with_refuse(deploy):
    destination = deploy(AfterErasure="refuse")
    event = deletes(destination, "user-1")
    seen = []

    def sleep(seconds):
        answer = destination.post({"type": "page", "userId": "user-1", "timestamp": "2020-01-01T00:00:00Z"})
        seen.append((seconds, answer.status, len(destination.stored())))

    carry_out(event, Context(), new_eraser(destination), wait_seconds=LATEST_WRITE_SECONDS, sleep=sleep)
    assert seen == [(pytest.approx(LATEST_WRITE_SECONDS, abs=5), 403, 1)]
    assert destination.stored() == []


@pytest.mark.parametrize(("buried", "seconds"), [(["user-1", "user-2"], 0), (["user-1"], LATEST_WRITE_SECONDS)])
def test_it_waits_only_after_new_tombstones(deploy, buried, seconds):
    destination = deploy(AfterErasure="refuse")
    event = deletes(destination, "user-1", "user-2")
    early = new_eraser(destination, clock=lambda: time.time() - LATEST_WRITE_SECONDS)
    for record in event["Records"][: len(buried)]:
        early.leave_tombstone(request_of(record))
    waits = []
    carry_out(event, Context(), new_eraser(destination), wait_seconds=LATEST_WRITE_SECONDS, sleep=waits.append)
    assert waits == [pytest.approx(seconds, abs=5)]
    assert destination.stored() == []


def test_a_clock_that_is_ahead_does_not_prolong_the_wait(deploy):
    destination = deploy(AfterErasure="refuse")
    event = deletes(destination, "user-1")
    new_eraser(destination, clock=lambda: time.time() + 3600).leave_tombstone(request_of(event["Records"][0]))
    waits = []
    carry_out(event, Context(), new_eraser(destination), wait_seconds=LATEST_WRITE_SECONDS, sleep=waits.append)
    assert waits == [LATEST_WRITE_SECONDS]


@pytest.mark.parametrize(
    ("parameters", "queued"),
    [
        ({"Consumer": "off"}, []),
        ({"Consumer": "on"}, ["user-1"]),
        ({"Consumer": "on", "EventQueueType": "fifo"}, ["user-1"]),
    ],
    ids=str,
)
def test_delete_is_sent_to_the_queue_with_a_consumer(deploy, parameters, queued):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    destination = deploy(**parameters)
    event = deletes(destination, "user-1")
    lambda_handler(event, Context())
    assert destination.stored() == []
    bodies = [message["Body"] for message in destination.queued()]
    assert [body["message"]["user_id"] for body in bodies] == queued
    images = [record["dynamodb"]["NewImage"] for record in event["Records"]]
    assert [body["stored_at"] for body in bodies] == [image["stored_at"]["S"] for image in images if queued]


def test_a_delete_stays_while_the_queue_does_not_answer(deploy, monkeypatch):
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    destination = deploy(Consumer="on")
    queue_url = destination.stack.stores.event_queue_url
    monkeypatch.setenv("EVENT_QUEUE_URL", f"{queue_url}-missing")
    event = deletes(destination, "user-1")
    with pytest.raises(BatchFailed):
        lambda_handler(event, Context())
    assert [item["type"] for item in destination.stored()] == ["delete"]
    monkeypatch.setenv("EVENT_QUEUE_URL", queue_url)
    eraser._eraser.cache_clear()  # noqa: SLF001 -- a function that has just started
    lambda_handler(event, Context())
    assert (destination.stored(), len(destination.queued())) == ([], 1)


@pytest.mark.parametrize(("after", "seconds"), [(AfterErasure.STORE, 0), (AfterErasure.REFUSE, LATEST_WRITE_SECONDS)])
def test_eraser_waits_only_with_refuse(after, seconds):
    assert wait_seconds(after) == seconds


def test_wait_is_as_long_as_a_request_can_take():
    assert load_template()["Resources"][FUNCTION]["Properties"]["Timeout"] == LATEST_WRITE_SECONDS


def test_waiting_erasure_is_logged(destination, lines):
    event = deletes(destination, "user-1", "user-2")
    lambda_handler({"Records": event["Records"][:1]}, Context())
    lines()
    lambda_handler(event, Context(seconds=0))
    facts = [(line["level"], line["outcome"], line["customer_id"]) for line in lines()]
    assert facts == [("INFO", "postponed", "demo")]


def test_failed_erasure_logs_its_reason(destination, lines):
    event = deletes(destination, "user-1")
    destination.account.dynamodb().delete_table(TableName=destination.stack.stores.rejects_table)
    lines()
    with pytest.raises(BatchFailed):
        lambda_handler(event, Context())
    [line] = lines()
    assert (line["outcome"], line["error"]) == ("erasure_failed", "ResourceNotFoundException")
    assert "user-1" not in str(line)
    assert len(destination.stored()) == 1


def test_delete_with_the_id_of_another_message_is_carried_out(destination):
    ids = {"userId": "user-1", "messageId": "delete-user-1", "timestamp": "2026-01-01T00:00:00Z"}
    destination.post({"type": "track", "event": "Lamp Lit", **ids})
    event = deletes(destination, "user-1", timestamp=ids["timestamp"])
    assert lambda_handler(event, Context()) == {"batchItemFailures": []}
    assert destination.stored() == []


def test_line_names_an_unreadable_item_by_position(destination, lines):
    destination.post({"type": "alias", "userId": "user-1", "previousId": "old", "messageId": "m-1"})
    table, client = destination.stack.stores.event_table, destination.account.dynamodb()
    [item] = client.scan(TableName=table)["Items"]
    client.put_item(TableName=table, Item={**item, "message": {"S": "garbage"}})
    event = deletes(destination, "user-1")
    lines()
    assert lambda_handler(event, Context()) == {"batchItemFailures": []}
    [warning] = [line for line in lines() if line["outcome"] == "unreadable_item"]
    assert warning == {
        "level": "WARNING",
        "message": "erasure",
        "outcome": "unreadable_item",
        "user_hash": hashlib.sha256(b"demo#user#user-1").hexdigest(),
        "position": item["position"]["S"],
        "text": "This item was not written by the destination. It is erased, but its linked ids are unknown",
    }
    assert destination.stored() == []


@pytest.mark.parametrize(
    ("consumer_setting", "sink", "count"), [("off", "dynamodb", 0), ("off", "sqs", 1), ("on", "dynamodb", 1)]
)
def test_delete_goes_to_the_event_queue_if_something_reads_it(destination, monkeypatch, consumer_setting, sink, count):
    event = deletes(destination, "user-1")
    monkeypatch.setenv("CONSUMER", consumer_setting)
    monkeypatch.setenv("EVENT_SINK", sink)
    lambda_handler(event, Context())
    queue_url = destination.stack.stores.event_queue_url
    messages = destination.account.sqs().receive_message(QueueUrl=queue_url).get("Messages", [])
    assert [json.loads(message["Body"])["user_id"] for message in messages] == ["user-1"] * count
