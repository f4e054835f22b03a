import base64
import json
import zlib
from contextlib import suppress
from datetime import datetime

import pytest

from consumer.runtime import stored
from consumer.runtime.stored import Unreadable, read_item, read_queue_message
from destination.paths import ROOT
from handler.canonicalise import canonicalise
from handler.items import read_json_attribute
from handler.record import Record
from handler.sinks.dynamodb import EventTable
from handler.sinks.sqs import EventQueue

EVENTS = ROOT / "events"
TIMED = {"timestamp": "2031-05-17T12:00:00.000000Z", "receivedAt": "2031-05-17T12:00:00.125000Z"}
FILLED = {"timestamp": "2031-05-17T12:00:00.000000Z", "received_at": "2031-05-17T12:00:00.250000Z"}
NASTY = 'a\x00#%"\n\ud800灯😀'


def record_of(payload, **settings):
    [message] = canonicalise({"type": "track", "event": "Lamp Lit", "messageId": "m-1", "userId": "u", **payload})
    return Record(customer_id="acme", message=message, settings=settings, stored_at=1936785600.25)


class Recorder:
    """Replaces a client, and keeps what a sink sends."""

    def put_item(self, **sent):
        self.sent = sent
        return {"ConsumedCapacity": {}}

    def send_message(self, **sent):
        self.sent = sent
        return {"MessageId": "1"}


def streamed(record):
    """Return a record of the event table in the form of Lambda's event: JSON, with base64 for bytes."""
    recorder = Recorder()
    EventTable(recorder, "events", retention_days=0).write(record)
    image = {
        name: {kind: base64.b64encode(value).decode() if kind == "B" else value for kind, value in attribute.items()}
        for name, attribute in recorder.sent["Item"].items()
    }
    return json.loads(json.dumps(image))


def queued(record):
    recorder = Recorder()
    EventQueue(recorder, "https://queue").write(record)
    return recorder.sent["MessageBody"]


READERS = {
    "stream": lambda record: read_item(streamed(record)),
    "queue": lambda record: read_queue_message(queued(record)),
}
READ = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


@READ
@pytest.mark.parametrize("properties", [{NASTY: NASTY}, {"text": "x" * 2000}], ids=["nasty", "long"])
def test_a_message_is_read_back_exactly(read, properties):
    record = record_of({**TIMED, "userId": NASTY, "properties": properties}, region="eu")
    stored = read(record)
    assert stored.message == record.message.body
    assert (stored.customer_id, stored.subject) == ("acme", record.subject)


def test_a_long_message_is_compressed_on_the_stream():
    assert [*streamed(record_of({"properties": {"text": "x" * 2000}}))["message"]] == ["B"]


@READ
@pytest.mark.parametrize(
    ("payload", "times"),
    [
        (TIMED, {"timestamp": TIMED["timestamp"], "received_at": TIMED["receivedAt"]}),
        ({"timestamp": "2031-05-17T14:00:00+02:00", "receivedAt": "2031-05-17 12:00:00.25"}, FILLED),
        ({"timestamp": "2031-05-17T12:00:00Z"}, FILLED),
        ({"originalTimestamp": "2031-05-17T12:00:00Z"}, FILLED),
        ({"timestamp": "at dusk", "originalTimestamp": "2031-05-17T12:00:00Z", "receivedAt": "at dawn"}, FILLED),
        ({"timestamp": 7, "receivedAt": 7}, {**FILLED, "timestamp": FILLED["received_at"]}),
        ({}, {**FILLED, "timestamp": FILLED["received_at"]}),
    ],
)
def test_times_are_sortable_utc_with_the_records_time_as_default(read, payload, times):
    message = read(record_of(payload)).message
    assert {name: message[name] for name in ("timestamp", "received_at")} == times


RECEIVED = {
    "2031-05-17T12:00:00.249999Z": "2031-05-17T12:00:00.249999Z",
    "2031-05-17T12:00:00.250001Z": "2031-05-17T12:00:00.250000Z",
    "2031-05-17T12:00:50.000000Z": "2031-05-17T12:00:00.250000Z",
    "9999-12-31T23:59:59Z": "2031-05-17T12:00:00.250000Z",
}


@READ
@pytest.mark.parametrize(("said", "received_at"), RECEIVED.items(), ids=RECEIVED)
def test_received_time_is_not_after_the_stored_time(read, said, received_at):
    assert read(record_of({"receivedAt": said})).message["received_at"] == received_at


STORED = FILLED["received_at"]
YEARS = [f"{year}-01-01T00:00:00.000000Z" for year in (2020, 2026)]
DELETED = [
    ({"receivedAt": YEARS[0], "originalTimestamp": YEARS[0], "timestamp": YEARS[0]}, YEARS[0]),
    ({"receivedAt": YEARS[1], "originalTimestamp": YEARS[0]}, YEARS[1]),
    ({"receivedAt": YEARS[1], "timestamp": YEARS[0]}, YEARS[1]),
    ({"receivedAt": YEARS[0], "originalTimestamp": YEARS[1]}, STORED),
    ({"receivedAt": YEARS[0], "originalTimestamp": YEARS[0], "timestamp": YEARS[1]}, STORED),
    ({"receivedAt": YEARS[0], "timestamp": YEARS[1]}, STORED),
    ({"receivedAt": YEARS[0], "originalTimestamp": "9999-12-31T23:59:59.999999Z"}, STORED),
    ({"receivedAt": YEARS[0], "originalTimestamp": "at dusk"}, STORED),
    ({"receivedAt": YEARS[0]}, STORED),
    ({"receivedAt": "9999-12-31T23:59:59.999999Z", "timestamp": YEARS[0]}, STORED),
    ({"timestamp": YEARS[0]}, STORED),
    ({}, STORED),
]


@READ
@pytest.mark.parametrize(("times", "received_at"), DELETED, ids=[str(times) for times, _ in DELETED])
def test_received_time_of_a_delete_is_after_it_happened(read, times, received_at):
    record = record_of({"type": "delete", **times})
    assert read(record).message["received_at"] == received_at
    again = stored.record_of(streamed(record))  # in the forms of the eraser and of a replay
    assert read_queue_message(queued(again)).message["received_at"] == received_at


@READ
def test_only_the_times_are_changed(read):
    record = record_of({"originalTimestamp": "at dusk", "sentAt": None})
    assert read(record).message == {**record.message.body, **dict.fromkeys(FILLED, FILLED["received_at"])}


LIMITS = [
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.9999Z",
    "9999-12-31T23:59:59.999Z",
    "9999-12-31T23:59:60Z",
    "9999-12-31T23:59:59.999999-10:00",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00.000001Z",
    "0001-01-01T00:00:00+10:00",
    "1969-12-31T23:59:59.999999Z",
]


@pytest.mark.parametrize("field", ["timestamp", "originalTimestamp", "receivedAt", "sentAt"])
@pytest.mark.parametrize("time", LIMITS)
def test_record_of_an_item_has_the_times_of_the_item(time, field):
    image = streamed(record_of({field: time}))
    assert streamed(stored.record_of(image)) == image


@pytest.mark.parametrize("name", ["timestamp", "stored_at"])
@pytest.mark.parametrize("time", ["9999-12-31T23:59:59.999999-10:00", "0001-01-01T00:00:00+10:00", "at dusk", ""])
def test_item_with_an_invalid_time_is_unreadable(time, name):
    image = streamed(record_of({}))
    with pytest.raises(Unreadable):
        stored.record_of({**image, name: {"S": time}})


@pytest.mark.parametrize("message", ["[]", "null", "7", '"text"', "{}", '{"type": 7}', "NaN", "[" * 100_000])
@pytest.mark.parametrize("name", ["message", "settings"])
def test_item_with_other_json_is_a_record_or_unreadable(name, message):
    image = streamed(record_of({}, region="eu"))
    with suppress(Unreadable):
        record = stored.record_of({**image, name: {"S": message}})
        assert record.subject == image["subject"]["S"]
        json.loads(queued(record))


def test_item_stored_at_the_end_of_time_is_unreadable():
    image = streamed(record_of({}))
    with pytest.raises(Unreadable):
        stored.record_of({**image, "stored_at": {"S": "9999-12-31T23:59:59.999999Z"}})


def packed(text):
    return base64.b64encode(zlib.compress(text.encode())).decode()


@pytest.mark.parametrize(
    ("attribute", "problem"),
    [
        ({"S": "{"}, "its message is not JSON"),
        ({"S": "[" * 100_000}, "its message is not JSON"),
        ({"B": "*"}, "badly compressed"),
        ({"B": base64.b64encode(b"{}").decode()}, "badly compressed"),
        ({"B": packed("{}")[:-8]}, "badly compressed"),
        ({"B": packed("{")}, "its message is not JSON"),
        ({"N": "7"}, "its message is not JSON"),
        ({"S": "[]"}, "its message is missing, or of another type"),
        ({"S": "null"}, "its message is missing, or of another type"),
    ],
)
def test_garbage_in_an_item_is_unreadable(attribute, problem):
    image = streamed(record_of({}))
    with pytest.raises(Unreadable, match=problem) as caught:
        read_item({**image, "message": attribute})
    assert caught.value.facts["message_id"] == "m-1"


@pytest.mark.parametrize("name", ["message", "customer_id", "subject", "timestamp", "stored_at"])
def test_incomplete_item_is_unreadable(name):
    image = streamed(record_of({}))
    image.pop(name)
    with pytest.raises(Unreadable, match=f"its {name} is missing|its message is not JSON"):
        read_item(image)
    content = json.loads(queued(record_of({})))
    for other in ({key: value for key, value in content.items() if key != name}, {**content, name: 7}):
        with pytest.raises(Unreadable, match=f"its {name} is missing, or of another type"):
            read_queue_message(json.dumps(other))


@pytest.mark.parametrize(
    ("body", "problem"), [("", "not JSON"), ("{", "not JSON"), ("[" * 100_000, "not JSON"), ("[]", "not a JSON object")]
)
def test_garbage_in_a_queue_is_unreadable(body, problem):
    with pytest.raises(Unreadable, match=problem):
        read_queue_message(body)


# The samples


def record_in(facts, body):
    """Return the record that the handler makes of a stored message."""
    [message] = canonicalise(body)
    stored_at = datetime.fromisoformat(facts["stored_at"]).timestamp()
    return Record(customer_id=facts["customer_id"], message=message, settings={}, stored_at=stored_at)


def body_of(image):
    [(kind, value)] = image["message"].items()
    return read_json_attribute({kind: base64.b64decode(value) if kind == "B" else value})


@pytest.mark.parametrize("path", sorted(EVENTS.glob("stream-*.json")), ids=lambda path: path.name)
def test_stream_sample_equals_the_handlers_item(path):
    for change in json.loads(path.read_text())["Records"]:
        image = change["dynamodb"]["NewImage"]
        facts = {name: attribute.get("S") for name, attribute in image.items()}
        written = streamed(record_in(facts, body_of(image)))
        assert (body_of(written), [*written["message"]]) == (body_of(image), [*image["message"]])
        assert {**written, "message": image["message"]} == image  # versions of zlib write other bytes
        assert change["dynamodb"]["Keys"] == {name: image[name] for name in ("subject", "position")}


@pytest.mark.parametrize("path", sorted(EVENTS.glob("queue-*.json")), ids=lambda path: path.name)
def test_queue_sample_equals_the_handlers_message(path):
    for message in json.loads(path.read_text())["Records"]:
        content = json.loads(message["body"])
        assert message["body"] == queued(record_in(content, content["message"]))
