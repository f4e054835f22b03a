import base64
import json

import pytest
from aws_lambda_powertools.utilities.batch.exceptions import UnexpectedBatchTypeError

from consumer import queue, stream
from consumer.batch import MAX_TRACEBACK_CHARS, MAX_TRACEBACK_PART_CHARS, BatchFailed
from handler.errors import EventStoreUnavailable
from handler.observe import MAX_LOGGED_CHARS, NAMESPACE

STREAM_ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/events/stream/2031-05-17T00:00:00.000"
QUEUE_ARN = "arn:aws:sqs:us-east-1:123456789012:events"
STORED_AT = "2031-05-17T12:00:00.250000Z"


def message_of(user, message_id):
    times = {"timestamp": STORED_AT, "received_at": STORED_AT}
    return {"type": "track", "event": "Lamp Lit", "user_id": user, "message_id": message_id, **times}


def inserted(user, message_id, number=1, **changes):
    """Return a stream record, or one with other attributes; `number` is its sequence number."""
    image = {
        "subject": {"S": f"acme#user#{user}"},
        "position": {"S": f"{STORED_AT}#{message_id}"},
        "customer_id": {"S": "acme"},
        "type": {"S": "track"},
        "message_id": {"S": message_id},
        "timestamp": {"S": STORED_AT},
        "stored_at": {"S": STORED_AT},
        "message": {"S": json.dumps(message_of(user, message_id))},
        **changes,
    }
    keys = {name: image[name] for name in ("subject", "position")}
    change = {"Keys": keys, "NewImage": image, "SequenceNumber": str(number), "StreamViewType": "NEW_IMAGE"}
    return {"eventName": "INSERT", "eventSourceARN": STREAM_ARN, "dynamodb": change}


def sent(user, message_id, number=1, *, fifo=False, **changes):
    """Return a message of the queue, or one with another body; `number` is SQS's id of it."""
    content = {
        "subject": f"acme#user#{user}",
        "customer_id": "acme",
        "type": "track",
        "message_id": message_id,
        "timestamp": STORED_AT,
        "stored_at": STORED_AT,
        "message": message_of(user, message_id),
    }
    arn, attributes = (f"{QUEUE_ARN}.fifo", {"MessageGroupId": user}) if fifo else (QUEUE_ARN, {})
    record = {"messageId": str(number), "attributes": attributes, "eventSourceARN": arn, "body": json.dumps(content)}
    return {**record, **changes}


def fifo_sent(user, message_id, number=1, **changes):
    return sent(user, message_id, number, fifo=True, **changes)


SOURCES = {"stream": (stream, inserted), "queue": (queue, sent), "fifo queue": (queue, fifo_sent)}
ANY = pytest.mark.parametrize(("function", "record"), SOURCES.values(), ids=SOURCES)
IN_ORDER = pytest.mark.parametrize(
    ("function", "record"), [SOURCES["stream"], SOURCES["fifo queue"]], ids=["stream", "fifo queue"]
)


class Faulty(Exception):
    pass


class Consumer:
    """A partner's `handle` that fails at some messages, and keeps the order in which it was called."""

    def __init__(self, *fails_at, text="out of oil"):
        self.fails_at = fails_at
        self.text = text
        self.calls = []

    def __call__(self, message, customer):
        self.calls.append((message["message_id"], customer))
        if message["message_id"] in self.fails_at:
            raise Faulty(self.text)

    @property
    def message_ids(self):
        return [message_id for message_id, _customer in self.calls]


def batch(*records):
    return {"Records": list(records)}


def failures(*numbers):
    return {"batchItemFailures": [{"itemIdentifier": str(number)} for number in numbers]}


@ANY
def test_each_message_is_handed_over_with_its_customer(function, record):
    consumer = Consumer()
    answer = function.consume(batch(record("a", "m-1"), record("b", "m-2", 2)), consumer)
    assert answer == failures()
    assert consumer.calls == [("m-1", "acme"), ("m-2", "acme")]


@ANY
def test_a_message_that_fails_is_reported_and_others_are_handed_over(function, record):
    consumer = Consumer("m-1")
    answer = function.consume(batch(record("a", "m-1", 1), record("b", "m-2", 2), record("c", "m-3", 3)), consumer)
    assert answer == failures(1)
    assert consumer.message_ids == ["m-1", "m-2", "m-3"]


@IN_ORDER
def test_a_message_that_fails_holds_back_the_later_ones_of_its_subject_only(function, record):
    consumer = Consumer("m-2")
    records = [("a", "m-1"), ("a", "m-2"), ("b", "m-3"), ("a", "m-4"), ("b", "m-5")]
    answer = function.consume(batch(*(record(*ids, n) for n, ids in enumerate(records))), consumer)
    assert answer == failures(1, 3)
    assert consumer.message_ids == ["m-1", "m-2", "m-3", "m-5"]


def test_a_standard_queue_holds_nothing_back():
    consumer = Consumer("m-1")
    assert queue.consume(batch(sent("a", "m-1", 1), sent("a", "m-2", 2)), consumer) == failures(1)
    assert consumer.message_ids == ["m-1", "m-2"]


@IN_ORDER
def test_what_was_held_back_in_one_batch_is_handed_over_in_the_next(function, record):
    event = batch(record("a", "m-1", 1), record("a", "m-2", 2), record("b", "m-3", 3))
    function.consume(event, Consumer("m-1"))
    consumer = Consumer()
    assert function.consume(event, consumer) == failures()
    assert consumer.message_ids == ["m-1", "m-2", "m-3"]


@ANY
def test_a_batch_in_which_everything_fails_is_an_error_of_the_function(function, record):
    with pytest.raises(BatchFailed, match="Every message of the batch failed"):
        function.consume(batch(record("a", "m-1", 1), record("b", "m-2", 2)), Consumer("m-1", "m-2"))


@IN_ORDER
def test_messages_that_were_held_back_count_as_failed_for_that(function, record):
    with pytest.raises(BatchFailed):
        function.consume(batch(record("a", "m-1", 1), record("a", "m-2", 2)), Consumer("m-1"))


def test_message_that_replaced_an_expired_one_is_consumed():
    consumer = Consumer()
    replaced = {**inserted("a", "m-1"), "eventName": "MODIFY"}
    assert stream.consume(batch(replaced), consumer) == failures()
    assert len(consumer.calls) == 1


def test_removed_items_are_not_messages():
    consumer = Consumer()
    erased = {**inserted("a", "m-1"), "eventName": "REMOVE"}
    del erased["dynamodb"]["NewImage"]
    assert stream.consume(batch(erased), consumer) == failures()
    assert not consumer.calls


GARBAGE = {
    "stream": (stream, inserted, {"message": {"B": base64.b64encode(b"garbage").decode()}}),
    "queue": (queue, sent, {"body": "garbage"}),
    "fifo queue": (queue, fifo_sent, {"body": "garbage"}),
}


@pytest.mark.parametrize(("function", "record", "garbage"), GARBAGE.values(), ids=GARBAGE)
def test_what_cannot_be_read_fails(function, record, garbage, lines):
    answer = function.consume(batch(record("a", "m-1", 1, **garbage), record("b", "m-2", 2)), Consumer())
    assert answer == failures(1)
    [failed, _count] = lines()
    assert (failed["error"], failed["record_id"]) == ("Unreadable", "1")


def test_what_cannot_be_read_holds_back_the_later_messages_of_its_subject():
    consumer = Consumer()
    garbage = inserted("a", "m-1", 1, message={"S": "garbage"})
    answer = stream.consume(batch(garbage, inserted("a", "m-2", 2), inserted("b", "m-3", 3)), consumer)
    assert (answer, consumer.message_ids) == (failures(1, 2), ["m-3"])


def test_what_can_be_read_of_an_item_is_told(lines):
    stream.consume(batch(inserted("a", "m-1", message={"S": "garbage"}), inserted("b", "m-2", 2)), Consumer())
    failed = lines()[0]
    assert (failed["customer_id"], failed["message_id"], failed["call_type"]) == ("acme", "m-1", "track")


# What a batch leaves behind


@ANY
def test_a_failure_leaves_one_line_without_the_message(function, record, lines):
    function.consume(batch(record("keeper", "m-1", 17), record("b", "m-2", 2)), Consumer("m-1"))
    [failed, _count] = lines()
    trace = failed.pop("traceback")
    assert failed == {
        "level": "ERROR",
        "message": "consumer failed",
        "outcome": "consumer_failed",
        "customer_id": "acme",
        "message_id": "m-1",
        "call_type": "track",
        "record_id": "17",
        "error": "Faulty",
    }
    assert "in __call__" in trace
    assert trace.endswith("Faulty: out of oil\n")
    assert "Lamp Lit" not in trace
    assert "keeper" not in trace


@ANY
def test_a_batch_leaves_one_line_that_counts(function, record, lines):
    records = [record("a", "m-1", 1), record("b", "m-2", 2), record("c", "m-3", 3)]
    function.consume(batch(*records), Consumer("m-1"))
    [_failed, count] = lines()
    assert (count["Consumed"], count["ConsumerFailed"]) == ([2.0], [1.0])
    [directive] = count["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (NAMESPACE, [["service"]])


def test_a_batch_that_failed_is_counted_too(lines):
    with pytest.raises(BatchFailed):
        queue.consume(batch(sent("a", "m-1")), Consumer("m-1"))
    assert [line.get("ConsumerFailed") for line in lines()] == [None, [1.0]]


def test_nothing_of_a_batch_is_left_for_the_next_count(lines):
    for _ in range(2):
        queue.consume(batch(sent("a", "m-1")), Consumer())
    assert [(line["Consumed"], line["ConsumerFailed"]) for line in lines()] == [([1.0], [0.0])] * 2


@IN_ORDER
def test_what_was_held_back_is_neither_counted_nor_told(function, record, lines):
    function.consume(batch(record("a", "m-1", 1), record("a", "m-2", 2), record("b", "m-3", 3)), Consumer("m-1"))
    [_failed, count] = lines()
    assert (count["Consumed"], count["ConsumerFailed"]) == ([1.0], [1.0])


@ANY
@pytest.mark.parametrize("text", ["a\nb\r\n{}", "\u2028\x85\x00", "\ud800", '"}\n{"status": 200'])
def test_no_text_can_break_a_line(function, record, text, lines):
    with pytest.raises(BatchFailed):
        function.consume(batch(record(text, text)), Consumer(text, text=text))
    assert lines()[0]["message_id"] == text


def test_long_texts_are_cut_short(lines):
    long = "m" * 1_000_000
    with pytest.raises(BatchFailed):
        queue.consume(batch(sent("a", long)), Consumer(long, text=long))
    failed = lines()[0]
    assert failed["message_id"] == "m" * MAX_LOGGED_CHARS
    assert "in __call__" in failed["traceback"]
    assert "m" * MAX_TRACEBACK_PART_CHARS not in failed["traceback"]


def test_a_long_chain_of_causes_is_cut_to_its_end(lines):
    def handle(_message, _customer):
        error = None
        for number in range(1000):
            cause, error = error, Faulty(f"number {number}" + "." * 500)
            error.__cause__ = cause
        raise error

    with pytest.raises(BatchFailed):
        queue.consume(batch(sent("a", "m-1")), handle)
    trace = lines()[0]["traceback"]
    assert len(trace) == MAX_TRACEBACK_CHARS
    assert "Faulty: number 999" in trace


def test_a_handler_may_change_the_message_that_it_was_given(lines):
    def handle(message, _customer):
        message.clear()
        raise Faulty

    with pytest.raises(BatchFailed):
        queue.consume(batch(sent("a", "m-1")), handle)
    assert lines()[0]["message_id"] == "m-1"


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"routeKey": "POST /segment"}])
@pytest.mark.parametrize("function", [stream, queue])
def test_an_event_of_another_kind_is_an_error(function, event):
    with pytest.raises(UnexpectedBatchTypeError, match="Unexpected batch event type"):
        function.consume(event, Consumer())


# A `delete` that fails on the stream, after which the eraser leaves nothing to replay


def delete_of(user, message_id, number):
    times = {"timestamp": STORED_AT, "received_at": STORED_AT}
    message = {"type": "delete", "user_id": user, "message_id": message_id, **times}
    return inserted(user, message_id, number, type={"S": "delete"}, message={"S": json.dumps(message)})


def consumed_with_deletes(consumer, *records):
    forwarded = []
    answer = stream.consume(batch(*records), consumer, lambda stored: forwarded.append(stored.message["message_id"]))
    return answer, forwarded


def test_one_that_succeeds_goes_nowhere_else():
    assert consumed_with_deletes(Consumer(), delete_of("a", "d-1", 1)) == (failures(), [])


def test_one_that_fails_is_forwarded_and_is_done_here():
    assert consumed_with_deletes(Consumer("d-1"), delete_of("a", "d-1", 1)) == (failures(), ["d-1"])


def test_one_that_is_held_back_is_forwarded():
    records = inserted("a", "m-1", 1), inserted("b", "m-2", 2), delete_of("a", "d-1", 3)
    assert consumed_with_deletes(Consumer("m-1"), *records) == (failures(1), ["d-1"])


def test_what_comes_after_it_waits_for_it_to_be_forwarded():
    records = delete_of("a", "d-1", 1), inserted("a", "m-1", 2), inserted("b", "m-2", 3)
    assert consumed_with_deletes(Consumer("d-1"), *records) == (failures(2), ["d-1"])


def test_one_that_can_not_be_forwarded_comes_again():
    def forward(_stored):
        raise EventStoreUnavailable

    answer = stream.consume(batch(delete_of("a", "d-1", 1), inserted("b", "m-2", 2)), Consumer("d-1"), forward)
    assert answer == failures(1)


@pytest.mark.parametrize("kind", ["standard", "fifo"])
def test_it_is_forwarded_to_the_queue_whose_consumer_takes_it(kind, deploy):
    destination = deploy(EventQueueType=kind)
    stream._queue.cache_clear()  # noqa: SLF001 -- a function that has just started
    stream.consume(batch(delete_of("a", "d-1", 1)), Consumer("d-1"))
    [queued] = destination.queued()
    consumer = Consumer()
    queue.consume(batch({**sent("a", "d-1"), "body": json.dumps(queued["Body"])}), consumer)
    assert (queued["Body"]["subject"], consumer.calls) == ("acme#user#a", [("d-1", "acme")])
