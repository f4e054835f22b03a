import base64
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from aws_lambda_powertools.utilities.batch.exceptions import UnexpectedBatchTypeError

from consumer import queue, stream
from consumer.errors import PermanentFailure
from consumer.runtime import forward
from consumer.runtime.batch import MAX_TRACEBACK_CHARS, MAX_TRACEBACK_PART_CHARS, BatchFailed
from consumer.runtime.stored import image_of
from consumer.stream import MESSAGE_SECONDS, Forwards
from destination.deployment.stack import load_template
from handler.canonicalise import canonicalise
from handler.errors import EventStoreUnavailable
from handler.observe import MAX_LOGGED_CHARS, NAMESPACE
from handler.record import Record, sha256
from handler.sinks.dynamodb import EventTable
from handler.sinks.sqs import MAX_QUEUE_MESSAGE_BYTES

STREAM_ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/events/stream/2031-05-17T00:00:00.000"
QUEUE_ARN = "arn:aws:sqs:us-east-1:123456789012:events"
STORED_AT = "2031-05-17T12:00:00.250000Z"


def message_of(user, message_id):
    times = {"timestamp": STORED_AT, "received_at": STORED_AT}
    return {"type": "track", "event": "Lamp Lit", "user_id": user, "message_id": message_id, **times}


def inserted(user, message_id, number=1, **changes):
    """Return a stream record, or one with other attributes. `number` is its sequence number."""
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
    """Return a queue record, or one with another body. `number` is its SQS id."""
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
QUEUES = pytest.mark.parametrize("record", [sent, fifo_sent], ids=["queue", "fifo queue"])


@dataclass
class Elsewhere:
    """Keeps the forwarded messages. While it is `down`, nothing can be forwarded."""

    down: bool = False
    retried: list = field(default_factory=list)
    given_up: list = field(default_factory=list)

    def consume(self, function, event, handle, **options):
        """Pass an event to a consumer that forwards its failures to this object."""
        if function is stream:
            forwards = Forwards(retry=self._into(self.retried), give_up=self._into(self.given_up))
            return stream.consume(event, handle, forwards, **options)
        return queue.consume(event, handle, self._into(self.given_up))

    def _into(self, kept):
        def send(message):
            if self.down:
                raise EventStoreUnavailable
            kept.append(message)

        return send

    @property
    def retried_ids(self):
        return [image["message_id"]["S"] for image in self.retried]


class Faulty(Exception):
    pass


class Consumer:
    """A partner's `handle` that fails for some messages, and records the order of its calls."""

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
def test_handle_gets_each_message_with_its_customer(function, record):
    consumer = Consumer()
    answer = function.consume(batch(record("a", "m-1"), record("b", "m-2", 2)), consumer)
    assert answer == failures()
    assert consumer.calls == [("m-1", "acme"), ("m-2", "acme")]


@QUEUES
def test_failed_queue_message_is_reported_and_others_are_handled(record):
    consumer = Consumer("m-1")
    answer = queue.consume(batch(record("a", "m-1", 1), record("b", "m-2", 2), record("c", "m-3", 3)), consumer)
    assert answer == failures(1)
    assert consumer.message_ids == ["m-1", "m-2", "m-3"]


def test_fifo_queue_holds_back_only_the_same_subject():
    consumer = Consumer("m-2")
    records = [("a", "m-1"), ("a", "m-2"), ("b", "m-3"), ("a", "m-4"), ("b", "m-5")]
    answer = queue.consume(batch(*(fifo_sent(*ids, n) for n, ids in enumerate(records))), consumer)
    assert answer == failures(1, 3)
    assert consumer.message_ids == ["m-1", "m-2", "m-3", "m-5"]


def test_standard_queue_holds_nothing_back():
    consumer = Consumer("m-1")
    assert queue.consume(batch(sent("a", "m-1", 1), sent("a", "m-2", 2)), consumer) == failures(1)
    assert consumer.message_ids == ["m-1", "m-2"]


@QUEUES
def test_queue_batch_that_fails_completely_is_a_function_error(record):
    with pytest.raises(BatchFailed, match="Every message of the batch failed or was not tried"):
        queue.consume(batch(record("a", "m-1", 1), record("b", "m-2", 2)), Consumer("m-1", "m-2"))


def test_held_back_messages_count_as_failed():
    with pytest.raises(BatchFailed):
        queue.consume(batch(fifo_sent("a", "m-1", 1), fifo_sent("a", "m-2", 2)), Consumer("m-1"))


# Failed stream messages are forwarded, and hold up nothing


def test_failed_stream_message_is_forwarded_and_others_are_handled():
    elsewhere, consumer = Elsewhere(), Consumer("m-1")
    records = [inserted("a", "m-1", 1), inserted("a", "m-2", 2), inserted("b", "m-3", 3)]
    assert elsewhere.consume(stream, batch(*records), consumer) == failures()
    assert consumer.message_ids == ["m-1", "m-2", "m-3"]
    assert (elsewhere.retried, elsewhere.given_up) == ([records[0]["dynamodb"]["NewImage"]], [])


def test_stream_batch_that_fails_completely_is_forwarded_one_by_one():
    elsewhere, ids = Elsewhere(), [f"m-{number}" for number in range(100)]
    consumer = Consumer(*ids)
    answer = elsewhere.consume(stream, batch(*(inserted(name, name, n) for n, name in enumerate(ids))), consumer)
    assert (answer, elsewhere.retried_ids, consumer.message_ids) == (failures(), ids, ids)


def test_batch_ends_at_a_message_that_cannot_be_forwarded():
    elsewhere, consumer = Elsewhere(down=True), Consumer("m-2")
    records = [inserted("a", "m-1", 1), inserted("b", "m-2", 2), inserted("c", "m-3", 3)]
    assert elsewhere.consume(stream, batch(*records), consumer) == failures(2, 3)
    assert consumer.message_ids == ["m-1", "m-2"]


def test_batch_raises_if_its_first_message_cannot_be_forwarded():
    with pytest.raises(BatchFailed):
        Elsewhere(down=True).consume(stream, batch(inserted("a", "m-1", 1), inserted("b", "m-2", 2)), Consumer("m-1"))


def deliver(consume, records, *, retries):
    """Invoke a function as Lambda does for a stream: again from the first failure, and in halves after an error.

    Returns the records that were discarded.
    """
    waiting, given_up = [(records, 0)], []
    while waiting:
        part, tries = waiting.pop(0)
        try:
            failed = consume(batch(*part))["batchItemFailures"]
        except BatchFailed:
            middle = len(part) // 2
            if len(part) > 1:
                waiting[:0] = [(part[:middle], tries), (part[middle:], tries)]
            elif tries < retries:
                waiting.insert(0, (part, tries + 1))
            else:
                given_up += part
            continue
        if failed:
            numbers = [record["dynamodb"]["SequenceNumber"] for record in part]
            waiting.insert(0, (part[numbers.index(failed[0]["itemIdentifier"]) :], 0))
    return given_up


RETRIES = load_template()["Resources"]["StreamConsumerFunction"]["Properties"]["Events"]["Stored"]["Properties"][
    "MaximumRetryAttempts"
]


@pytest.mark.parametrize("down", [False, True], ids=["queue up", "queue down"])
@pytest.mark.parametrize("place", [0, 1, 49, 98, 99])
def test_batch_with_a_bad_message_is_handled_about_once(place, down):
    elsewhere, bad = Elsewhere(down=down), f"m-{place}"
    consumer = Consumer(bad)
    records = [inserted(f"user-{number}", f"m-{number}", number) for number in range(100)]
    given_up = deliver(lambda event: elsewhere.consume(stream, event, consumer), records, retries=RETRIES)
    calls = Counter(consumer.message_ids)
    assert {calls[f"m-{number}"] for number in range(100) if number != place} == {1}
    assert calls.total() <= 2 * len(records)
    assert given_up == ([records[place]] if down else [])
    assert elsewhere.retried_ids == ([] if down else [bad])


def test_messages_without_time_left_are_returned_untried():
    elsewhere, calls = Elsewhere(), []

    def handle(message, _customer):
        calls.append(message["message_id"])
        time.sleep(0.05)

    records = [inserted("a", f"m-{number}", number) for number in range(3)]
    answer = elsewhere.consume(stream, batch(*records), handle, until=time.monotonic() + 0.01)
    assert (answer, calls, elsewhere.retried) == (failures(1, 2), ["m-0"], [])


@dataclass(frozen=True)
class Context:
    seconds: float

    def get_remaining_time_in_millis(self):
        return int(self.seconds * 1000)


def test_message_is_not_begun_if_it_may_not_end_in_time():
    event = batch(inserted("a", "m-1", 1))
    with pytest.raises(BatchFailed):
        stream.lambda_handler(event, Context(seconds=MESSAGE_SECONDS - 1))


# Permanent failures


class Hopeless(PermanentFailure):
    pass


def refuse(message, _customer):
    if message["message_id"] == "bad":
        raise Hopeless("too large")


@ANY
def test_permanent_failure_goes_to_the_dead_letters_at_once(function, record, lines):
    elsewhere = Elsewhere()
    event = batch(record("a", "bad", 1), record("a", "m-2", 2), record("b", "m-3", 3))
    assert elsewhere.consume(function, event, refuse) == failures()
    assert (len(elsewhere.given_up), elsewhere.retried) == (1, [])
    failed, count = lines()
    assert (failed["sent_to"], failed["error"]) == ("dead_letters", "Hopeless")
    assert (count["Consumed"], count["ConsumerFailed"], count["ConsumerGaveUp"]) == ([2.0], [1.0], [1.0])


@ANY
def test_permanent_failure_that_cannot_be_moved_is_retried(function, record, lines):
    event = batch(record("b", "m-1", 1), record("a", "bad", 2))
    assert Elsewhere(down=True).consume(function, event, refuse) == failures(2)
    failed, count = lines()
    assert (failed["sent_to"], failed["error"], count["ConsumerGaveUp"]) == (None, "EventStoreUnavailable", [0.0])
    assert "Hopeless: too large" in failed["traceback"]


# Which records are messages


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
def test_unreadable_item_goes_to_the_dead_letters(function, record, garbage, lines):
    elsewhere, consumer = Elsewhere(), Consumer()
    event = batch(record("a", "m-1", 1, **garbage), record("a", "m-2", 2))
    assert elsewhere.consume(function, event, consumer) == failures()
    assert (len(elsewhere.given_up), consumer.message_ids) == (1, ["m-2"])
    [failed, _count] = lines()
    assert (failed["error"], failed["record_id"], failed["sent_to"]) == ("Unreadable", "1", "dead_letters")


def test_readable_attributes_of_a_damaged_item_are_logged(lines):
    Elsewhere().consume(stream, batch(inserted("a", "m-1", message={"S": "garbage"})), Consumer())
    failed = lines()[0]
    assert (failed["customer_id"], failed["message_id"], failed["call_type"]) == ("acme", "m-1", "track")


# Log lines of a batch


@ANY
def test_a_failure_leaves_one_line_without_the_message(function, record, lines):
    Elsewhere().consume(function, batch(record("keeper", "m-1", 17), record("b", "m-2", 2)), Consumer("m-1"))
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
        "sent_to": "queue" if function is stream else None,
        "error": "Faulty",
    }
    assert "in __call__" in trace
    assert trace.endswith("Faulty: out of oil\n")
    assert "Lamp Lit" not in trace
    assert "keeper" not in trace


@ANY
def test_a_batch_leaves_one_line_that_counts(function, record, lines):
    records = [record("a", "m-1", 1), record("b", "m-2", 2), record("c", "m-3", 3)]
    Elsewhere().consume(function, batch(*records), Consumer("m-1"))
    [_failed, count] = lines()
    assert (count["Consumed"], count["ConsumerFailed"]) == ([2.0], [1.0])
    [directive] = count["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == (NAMESPACE, [["service"]])


def test_a_batch_that_failed_is_counted_too(lines):
    with pytest.raises(BatchFailed):
        queue.consume(batch(sent("a", "m-1")), Consumer("m-1"))
    assert [line.get("ConsumerFailed") for line in lines()] == [None, [1.0]]


def test_counters_are_empty_after_a_batch(lines):
    for _ in range(2):
        queue.consume(batch(sent("a", "m-1")), Consumer())
    assert [(line["Consumed"], line["ConsumerFailed"]) for line in lines()] == [([1.0], [0.0])] * 2


@pytest.mark.parametrize(("function", "record"), [SOURCES["stream"], SOURCES["fifo queue"]], ids=["stream", "fifo"])
def test_untried_messages_are_neither_counted_nor_logged(function, record, lines):
    event = batch(record("b", "m-1", 1), record("a", "m-2", 2), record("a", "m-3", 3))
    Elsewhere(down=True).consume(function, event, Consumer("m-2"))
    [_failed, count] = lines()
    assert (count["Consumed"], count["ConsumerFailed"]) == ([1.0], [1.0])


@ANY
@pytest.mark.parametrize("text", ["a\nb\r\n{}", "\u2028\x85\x00", "\ud800", '"}\n{"status": 200'])
def test_text_cannot_break_a_line(function, record, text, lines):
    with pytest.raises(BatchFailed):
        Elsewhere(down=True).consume(function, batch(record(text, text)), Consumer(text, text=text))
    assert lines()[0]["message_id"] == text


def test_long_texts_are_cut_short(lines):
    long = "m" * 1_000_000
    with pytest.raises(BatchFailed):
        queue.consume(batch(sent("a", long)), Consumer(long, text=long))
    failed = lines()[0]
    assert failed["message_id"] == "m" * MAX_LOGGED_CHARS
    assert "in __call__" in failed["traceback"]
    assert "m" * MAX_TRACEBACK_PART_CHARS not in failed["traceback"]


def test_long_chain_of_causes_keeps_its_end(lines):
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
def test_event_of_another_kind_is_an_error(function, event):
    with pytest.raises(UnexpectedBatchTypeError, match="Unexpected batch event type"):
        function.consume(event, Consumer())


# Forwarded messages in the queues


NASTY = 'a\x00#%"\n\ud800灯😀'


@pytest.fixture(params=["standard", "fifo"])
def destination(request, deploy):
    deployment = deploy(EventQueueType=request.param)
    for cached in (stream._queues, forward.dead_letters):  # noqa: SLF001 -- functions that have just started
        cached.cache_clear()
    return deployment


def dead_letters(destination):
    name = "EVENT_FIFO_DEAD_LETTER_QUEUE_URL" if is_fifo(destination) else "EVENT_DEAD_LETTER_QUEUE_URL"
    url = destination.stack.environment[name]
    options = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"], "MaxNumberOfMessages": 10}
    return destination.account.sqs().receive_message(QueueUrl=url, **options).get("Messages", [])


def is_fifo(destination):
    return destination.stack.stores.event_queue_url.endswith(".fifo")


def stored(destination, **fields):
    """Store a message, and return its stream record."""
    [message] = canonicalise({"type": "track", "event": "Lamp Lit", "userId": "a", "messageId": "bad", **fields})
    record = Record(customer_id="acme", message=message, settings={"region": "eu"}, stored_at=1936785600.25)
    client, table = destination.account.dynamodb(), destination.stack.stores.event_table
    EventTable(client, table, retention_days=0).write(record)
    [item] = client.scan(TableName=table)["Items"]
    change = {"Keys": {name: item[name] for name in ("subject", "position")}, "SequenceNumber": "1"}
    return {**inserted("a", "bad"), "dynamodb": {**change, "NewImage": image_of(item)}}


def queue_event(destination, message):
    """Return a queue message in the form of a Lambda event."""
    texts = {
        name: {"stringValue": attribute["StringValue"], "dataType": "String"}
        for name, attribute in message.get("MessageAttributes", {}).items()
    }
    record = sent("a", "bad", fifo=is_fifo(destination), body=message["Body"], messageAttributes=texts)
    return batch({**record, "attributes": message.get("Attributes", {})})


def took(destination, message):
    """Return the message that the queue's consumer passes to `handle`."""
    taken = []
    queue.consume(queue_event(destination, message), lambda *call: taken.append(call))
    return taken


def test_forwarded_message_equals_the_stored_one(destination):
    record = stored(destination)
    assert stream.consume(batch(record), Consumer("bad")) == failures()
    [queued] = destination.queued()
    assert queued["Body"]["settings"] == {"region": "eu"}
    assert queued["Body"]["stored_at"] == record["dynamodb"]["NewImage"]["stored_at"]["S"]
    assert queued["MessageAttributes"]["message_id"]["StringValue"] == "bad"
    [(message, customer)] = took(destination, {**queued, "Body": json.dumps(queued["Body"])})
    expected = []
    stream.consume(batch(record), lambda *call: expected.append(call))
    assert [(message, customer)] == expected


def test_forwarded_message_too_large_for_json_is_sent_as_an_item(destination):
    record = stored(destination, properties={NASTY: "ü" * MAX_QUEUE_MESSAGE_BYTES})
    assert stream.consume(batch(record), Consumer("bad")) == failures()
    url = destination.stack.stores.event_queue_url
    [queued] = destination.account.sqs().receive_message(QueueUrl=url)["Messages"]
    [(message, customer)] = took(destination, queued)
    assert (message["properties"], customer) == ({NASTY: "ü" * MAX_QUEUE_MESSAGE_BYTES}, "acme")


def test_item_with_another_subject_is_forwarded_as_an_item(destination):
    record = inserted("a", "bad", subject={"S": "acme#user#earlier"})
    assert stream.consume(batch(record), Consumer("bad")) == failures()
    [queued] = destination.queued()
    assert queued["Body"] == record["dynamodb"]["NewImage"]
    assert [
        message["message_id"] for message, _customer in took(destination, {"Body": json.dumps(queued["Body"])})
    ] == ["bad"]


def test_unreadable_item_is_a_dead_letter_unchanged(destination):
    record = inserted("a", "bad", message={"S": "garbage"})
    assert stream.consume(batch(record), Consumer()) == failures()
    [letter] = dead_letters(destination)
    assert json.loads(letter["Body"]) == record["dynamodb"]["NewImage"]
    if is_fifo(destination):
        assert letter["Attributes"]["MessageGroupId"] == sha256("acme#user#a")


def test_dead_letter_of_the_stream_can_be_redriven(destination):
    assert stream.consume(batch(stored(destination)), refuse) == failures()
    [letter] = dead_letters(destination)
    [(message, customer)] = took(destination, letter)
    assert (message["message_id"], customer) == ("bad", "acme")


def test_dead_letter_of_the_queue_is_the_same_each_time(destination):
    """A FIFO queue would drop a dead letter that repeats one of the last five minutes. A redrive may cause that."""
    stream.consume(batch(stored(destination)), Consumer("bad"))
    url = destination.stack.stores.event_queue_url
    options = {"MessageAttributeNames": ["All"], "MessageSystemAttributeNames": ["All"]}
    [queued] = destination.account.sqs().receive_message(QueueUrl=url, **options)["Messages"]
    for _ in range(2):
        assert queue.consume(queue_event(destination, queued), refuse) == failures()
    letters = dead_letters(destination)
    assert [letter["Body"] for letter in letters] == [queued["Body"]] * 2
    assert letters[0]["MessageAttributes"] == queued["MessageAttributes"]
    groups = {letter["Attributes"].get("MessageGroupId") for letter in letters}
    assert groups == {queued["Attributes"].get("MessageGroupId")}
