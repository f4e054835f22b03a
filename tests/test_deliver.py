"""Test how `destination simulate` delivers: its requests, its retries, and when it gives up."""

import asyncio
import base64
import gzip
import json
import time
from collections import Counter
from itertools import count
from random import Random

import pytest
from endpoint import endpoint, response

from destination.segment.due import Moments
from destination.segment.endpoint import Endpoint
from destination.simulation.deliver import RETRY_BUDGET_SECONDS, Sender, waits
from destination.simulation.ledger import NO_CONNECTION, TIMED_OUT, End
from destination.simulation.routes import NOBODYS_KEY, BatchDelivery, SegmentDelivery
from destination.simulation.traffic import Kind, Parcel, Sending, Traffic
from handler.canonicalise import canonicalise_batch
from handler.decode import MAX_BATCH_BYTES, decode_batch

FOUR_HOURS_SECONDS = 4 * 3600
TRAFFIC = Traffic(seed=1, customers=2)
KEYS = ["key-of-0", "key-of-1"]


def deliver(url, *, messages=1, timeout_seconds=5.0, traffic=TRAFFIC, batches_of=None, **options):
    """Deliver messages, with four hours compressed into a few milliseconds. Return the ledger."""
    sendings = [Sending(index=index) for index in range(messages)]
    endpoint = Endpoint(url, timeout_seconds=timeout_seconds)
    route = SegmentDelivery(traffic=traffic, endpoint=endpoint, api_keys=KEYS)
    if batches_of:
        route = BatchDelivery(traffic=traffic, endpoint=endpoint, api_keys=KEYS, most_messages=batches_of)
    sender = Sender(traffic, endpoint, route, **{"concurrency": 4, "rate": None, "time_scale": 1e6} | options)
    asyncio.run(sender.deliver(sendings))
    return sender.ledger


def test_request_equals_segments():
    with endpoint(lambda _request: response(200)) as server:
        deliver(server.url, messages=2)
    first, second = sorted(server.received, key=lambda request: len(request.head))
    assert first.head.split("\r\n") == [
        "POST /segment HTTP/1.1",
        f"Host: {server.url.split('/')[2]}",
        "Accept: */*",
        f"Authorization: Basic {base64.b64encode(b'key-of-0:').decode()}",
        "Cache-Control: no-cache",
        "Connection: Keep-Alive",
        "Content-Type: application/json",
        "User-Agent: Segment.io/1.0",
        f"Content-Length: {len(first.body)}",
        "",
        "",
    ]
    assert first.body == TRAFFIC.parcel(Sending(index=0)).body
    assert "\r\nX-Segment-Settings: " in second.head


RETRIED = [408, 423, 429, 500, 502, 503, 504, 505, 599]
FINAL = [301, 302, 400, 401, 403, 404, 405, 409, 410, 413, 415, 418, 422, 431, 501]


@pytest.mark.parametrize("status", RETRIED)
def test_a_retried_status_is_retried(status):
    with endpoint(lambda request: response(status if request.number < 3 else 200)) as server:
        ledger = deliver(server.url)
    assert (ledger.at_first_try, ledger.after_retries, ledger.refused) == (0, 1, 0)
    assert [request.body for request in server.received] == [TRAFFIC.parcel(Sending(index=0)).body] * 3
    assert ledger.tries.counts == {str(status): 2, "200": 1}


@pytest.mark.parametrize("status", FINAL)
def test_any_other_status_is_final(status):
    with endpoint(lambda _request: response(status, '{"message": "no", "code": "why"}', "Location: /else")) as server:
        ledger = deliver(server.url)
    assert len(server.received) == 1
    assert (ledger.refused, ledger.refusals) == (1, {f"{status} no": 1})
    assert list(ledger.messages.values()) == [End.REFUSED]
    assert ledger.tries.counts == {f"{status} why": 1}


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_any_2xx_is_final_success(status):
    with endpoint(lambda _request: response(status, '{"status": "stored"}')) as server:
        ledger = deliver(server.url)
    assert (ledger.at_first_try, list(ledger.messages.values())) == (1, [End.ACCEPTED])


BROKEN = {
    "nothing": [],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-Le"],
    "half a body": [b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"status"'],
    "half a chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"],
    "no HTTP": [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
    "no status": [b"HTTP/1.1\r\n\r\n"],
    "no number for a status": [b"HTTP/1.1 fine\r\nContent-Length: 0\r\n\r\n"],
    "no number for a length": [b"HTTP/1.1 200 OK\r\nContent-Length: long\r\n\r\n"],
    "no number for a chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nlong\r\n"],
    "a head without an end": [b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000],
}


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_retried(pieces):
    with endpoint(lambda request: response(200) if request.number > 1 else broken(request, pieces)) as server:
        ledger = deliver(server.url)
    assert ledger.tries.counts == {NO_CONNECTION: 1, "200": 1}
    assert ledger.after_retries == 1


def broken(request, pieces):
    """Yield a part of an answer, and end the connection."""
    yield from pieces
    request.connection.shutdown(2)


def test_failed_connection_is_retried_for_four_hours():
    with endpoint(lambda _request: response(200)) as server:
        pass
    ledger = deliver(server.url)
    assert (ledger.given_up, list(ledger.messages.values())) == (1, [End.GIVEN_UP])
    assert set(ledger.tries.counts) == {NO_CONNECTION}
    assert 8 <= ledger.tries.counts[NO_CONNECTION] <= 13


def test_five_second_limit_covers_the_whole_request():
    def dribble(_request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
        for _ in range(100):
            time.sleep(0.1)
            yield b" "

    with endpoint(lambda request: dribble(request) if request.number == 1 else response(200)) as server:
        ledger = deliver(server.url, timeout_seconds=1)
    assert ledger.tries.counts == {TIMED_OUT: 1, "200": 1}
    assert 999 < ledger.tries.milliseconds[0] < 9000


CHUNKS = (b'8;x=1\r\n{"status\r\n', b'C\r\n": "stored"}\r\n0\r\nA: b\r\n\r\n')
WHOLE = {
    "by its length": response(200, '{"status": "stored"}'),
    "in chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *CHUNKS],
}


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
def test_answer_is_read_and_its_connection_reused(pieces):
    with endpoint(lambda _request: pieces) as server:
        ledger = deliver(server.url, messages=5, concurrency=1)
    assert ledger.tries.counts == {"200 stored": 5}
    assert len({request.connection for request in server.received}) == 1


def test_answer_may_end_with_its_connection():
    def answer(request):
        yield b'HTTP/1.0 200 OK\r\n\r\n{"status": "stored"}'
        request.connection.shutdown(2)

    with endpoint(answer) as server:
        ledger = deliver(server.url, messages=3, concurrency=1)
    assert ledger.tries.counts == {"200 stored": 3}


@pytest.mark.parametrize("body", ["", "nothing", "[]", '{"code": 7}', '{"code": "two words"}', "[" * 100_000])
def test_status_decides_whatever_the_body_is(body):
    with endpoint(lambda _request: response(403, body)) as server:
        ledger = deliver(server.url)
    assert ledger.tries.counts == {"403": 1}


def test_waits_are_random_double_and_end_within_four_hours():
    assert RETRY_BUDGET_SECONDS == FOUR_HOURS_SECONDS
    schedules = [list(waits(Random(seed))) for seed in range(500)]  # noqa: S311 -- to spread retries
    for schedule in schedules:
        assert all(7.5 * 2**tries <= wait <= 22.5 * 2**tries for tries, wait in enumerate(schedule))
        assert FOUR_HOURS_SECONDS / 5 < sum(schedule) <= FOUR_HOURS_SECONDS
    assert len({schedule[0] for schedule in schedules}) == 500


def test_expected_refusals_are_counted_separately():
    replies = count()
    with endpoint(lambda _request: response(200 if next(replies) == 0 else 400)) as server:
        ledger = deliver(server.url, messages=3, traffic=Traffic(seed=1, customers=2, invalid=1.0))
    assert (ledger.accepted_though_invalid, ledger.refused_as_expected, ledger.refused) == (1, 2, 0)
    assert ledger.messages == {}


def test_the_rate_spreads_deliveries():
    with endpoint(lambda _request: response(200)) as server:
        ledger = deliver(server.url, messages=21, rate=50)
    assert max(ledger.tries.ended) > 0.39


def test_concurrency_is_limited():
    under_way = []
    most = []

    def slow(request):
        under_way.append(request)
        most.append(len(under_way))
        time.sleep(0.01)
        under_way.remove(request)
        return response(200)

    with endpoint(slow) as server:
        deliver(server.url, messages=30, concurrency=3)
    assert max(most) == 3


def test_messages_are_sent_with_the_key_of_their_customer():
    with endpoint(lambda _request: response(200)) as server:
        deliver(server.url, messages=10)
    for request in server.received:
        [index] = [at for at in range(10) if TRAFFIC.parcel(Sending(index=at)).body == request.body]
        key = base64.b64encode(f"{KEYS[index % 2]}:".encode()).decode()
        assert f"Authorization: Basic {key}\r\n" in request.head
        assert json.loads(request.body)


# Batches

BATCHES = Traffic(seed=1, customers=2, in_batches=True)
SPOILT = Traffic(seed=1, customers=2, in_batches=True, invalid=1.0)


def unpacked(request):
    """Return the decompressed body of a request."""
    return gzip.decompress(request.body) if "Content-Encoding: gzip" in request.head else request.body


def key_of(request, batch):
    """Return the credentials of a request. They are in one place only."""
    _, is_there, rest = request.head.partition("Authorization: Basic ")
    assert bool(is_there) != ("writeKey" in batch)
    return base64.b64decode(rest.split()[0]).decode().removesuffix(":") if is_there else batch["writeKey"]


def counted(accepted, *rejected, duplicates=0, **more):
    told = {"accepted": accepted, "duplicates": duplicates, "rejected": [{"index": i, "code": c} for i, c in rejected]}
    return json.dumps(told | more)


def answer_in_full(request):
    return response(200, counted(len(json.loads(unpacked(request))["batch"])))


@pytest.fixture(scope="module")
def sent_batches():
    """Return the requests for many messages, and the ledger."""
    with endpoint(answer_in_full) as server:
        ledger = deliver(server.url, messages=1000, traffic=BATCHES, batches_of=20)
    return server.received, ledger


def test_batch_has_one_customer_and_a_limited_size(sent_batches):
    received, ledger = sent_batches
    assert (ledger.begun, ledger.requests, ledger.at_first_try) == (1000, len(received), 1000)
    for request in received:
        batch = json.loads(unpacked(request))
        assert 1 <= len(batch["batch"]) <= 20
        assert key_of(request, batch) in KEYS


def test_batches_contain_exactly_the_messages_to_store(sent_batches):
    stored = Counter()
    for request in sent_batches[0]:
        payload = decode_batch(base64.b64encode(request.body).decode(), is_base64=True)
        customer = KEYS.index(key_of(request, payload))
        stored.update((customer, without_sent_at(message)) for message in canonicalise_batch(payload))
    parcels = [BATCHES.parcel(Sending(index=index)) for index in range(1000)]
    assert stored == Counter((parcel.customer, without_sent_at(BATCHES.due(parcel))) for parcel in parcels)


def without_sent_at(message):
    """Return the part of a message that is the same in each batch."""
    return json.dumps({name: value for name, value in message.body.items() if name != "sent_at"}, sort_keys=True)


BATCH_SHAPES = {
    "compressed": lambda request, _: "Content-Encoding: gzip" in request.head,
    "not compressed": lambda request, _: request.body.startswith(b"{"),
    "with its key in the body": lambda _, batch: "writeKey" in batch,
    "with its key in a header": lambda request, _: "Authorization" in request.head,
    "with sentAt": lambda _, batch: "sentAt" in batch,
    "without sentAt": lambda _, batch: "sentAt" not in batch,
    "with context and integrations": lambda _, batch: {"context", "integrations"} <= batch.keys(),
    "with nothing for all": lambda _, batch: batch.keys() == {"batch"},
}


@pytest.mark.parametrize("shape", BATCH_SHAPES.values(), ids=BATCH_SHAPES)
def test_batches_have_every_shape(shape, sent_batches):
    assert any(shape(request, json.loads(unpacked(request))) for request in sent_batches[0])


def test_batches_stay_within_the_limits_of_the_destination():
    traffic = Traffic(seed=1, customers=1, in_batches=True)
    with endpoint(answer_in_full) as server:
        ledger = deliver(server.url, messages=1000, traffic=traffic, batches_of=1000)
    assert ledger.at_first_try == 1000
    assert MAX_BATCH_BYTES * 0.9 < max(len(unpacked(request)) for request in server.received) <= MAX_BATCH_BYTES


def test_message_too_long_with_escapes_is_sent_unescaped():
    message = {"type": "track", "userId": "u", "event": "e", "properties": {"text": "ж" * 200_000, "half": "\ud83d"}}
    moments = Moments(original=None, timestamp=None)
    body = json.dumps(message).encode()
    parcel = Parcel(customer=0, kind=Kind.LIVE, message=message, body=body, plain=message, moments=moments)
    route = BatchDelivery(traffic=BATCHES, endpoint=Endpoint("http://x/v1/batch", timeout_seconds=1), api_keys=KEYS)
    _, body = route.request((Sending(index=0),), [parcel])
    body = gzip.decompress(body) if body.startswith(b"\x1f") else body
    assert len(body) < MAX_BATCH_BYTES
    assert json.loads(body.decode())["batch"] == [message]


RETRIED_IN_BATCHES = [status for status in RETRIED if status != 423]


@pytest.mark.parametrize("status", RETRIED_IN_BATCHES)
def test_retry_sends_the_same_batch(status):
    with endpoint(lambda request: response(status) if request.number < 3 else answer_in_full(request)) as server:
        ledger = deliver(server.url, messages=10, traffic=BATCHES, batches_of=5, concurrency=1)
    assert ledger.tries.counts[str(status)] == 2
    assert ledger.retries == 2
    assert ledger.at_first_try + ledger.after_retries == 10
    assert len({(request.head, request.body) for request in server.received}) == 2


@pytest.mark.parametrize("status", [*FINAL, 423])
def test_any_other_answer_refuses_the_whole_batch(status):
    with endpoint(lambda _request: response(status, '{"message": "no"}')) as server:
        ledger = deliver(server.url, messages=8, traffic=BATCHES, batches_of=4)
    assert (len(server.received), ledger.refused, ledger.refusals) == (2, 8, {f"{status} no": 8})
    assert set(ledger.messages.values()) == {End.REFUSED}


def test_message_is_accepted_unless_its_index_is_rejected():
    with endpoint(lambda _request: response(200, counted(2, (1, "user_erased"), duplicates=1))) as server:
        ledger = deliver(server.url, messages=8, traffic=BATCHES, batches_of=4)
    assert (ledger.at_first_try, ledger.refused, ledger.duplicates, ledger.rejected) == (6, 2, 2, {"user_erased": 2})
    assert list(ledger.messages.values()) == [End.ACCEPTED, End.REFUSED, End.ACCEPTED, End.ACCEPTED] * 2
    assert ledger.tries.counts == {"200 some_rejected": 2}


def test_fully_refused_batch_has_a_reason_per_message():
    told = counted(0, (0, "missing_type"), (1, "wrong_type"), code="nothing_accepted", message="None")
    with endpoint(lambda _request: response(400, told)) as server:
        ledger = deliver(server.url, messages=4, traffic=BATCHES, batches_of=2)
    assert ledger.rejected == {"missing_type": 2, "wrong_type": 2}
    assert (ledger.refused, ledger.tries.counts) == (4, {"400 nothing_accepted": 2})


MISCOUNTED = {
    "one too few": counted(1),
    "one too many": counted(2, (0, "missing_type")),
    "an index that is none": counted(1, (2, "missing_type")),
    "an index twice": counted(0, (0, "missing_type"), (0, "missing_type")),
    "a text for an index": counted(1, ("1", "missing_type")),
    "a text for a count": counted("2"),
    "a single message's": '{"status": "stored"}',
    "no list": '{"accepted": 2, "duplicates": 0, "rejected": {"0": "missing_type"}, "duplicates": "0"}',
}


@pytest.mark.parametrize("told", MISCOUNTED.values(), ids=MISCOUNTED)
def test_answer_with_wrong_counts_accepts_no_message(told):
    with endpoint(lambda _request: response(200, told)) as server:
        ledger = deliver(server.url, messages=4, traffic=BATCHES, batches_of=2)
    assert ledger.refusals == {"200 (without details per message)": 4}


def test_invalid_json_is_never_sent_with_other_messages():
    with endpoint(lambda _request: response(400, '{"code": "invalid_json"}')) as server:
        ledger = deliver(server.url, messages=300, traffic=SPOILT, batches_of=20)
    assert ledger.refused_as_expected == 300
    alone = [request for request in server.received if not is_json(unpacked(request))]
    rest = [(request, json.loads(unpacked(request))) for request in server.received if request not in alone]
    assert len(alone) > 20
    assert len([batch for request, batch in rest if key_of(request, batch) == NOBODYS_KEY]) > 5
    assert max(len(batch["batch"]) for _, batch in rest) == 20


def is_json(body):
    try:
        return bool(json.loads(body.decode()))
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("code", "is_kept"),
    [
        ("invalid_message", True),
        ("number_out_of_range", True),
        ("message_too_large", False),
        ("user_erased", False),
        ("unsupported_call_type", False),
    ],
)
def test_readable_message_with_a_400_must_be_a_reject(code, is_kept):
    with endpoint(lambda request: refuse_all(request, code)) as server:
        ledger = deliver(server.url, messages=100, traffic=SPOILT, batches_of=20)
    assert 50 < len(ledger.rejects) < 90
    assert ledger.kept == (ledger.rejects.keys() if is_kept else set())


def refuse_all(request, code):
    if not is_json(unpacked(request)):
        return response(400)
    messages = len(json.loads(unpacked(request))["batch"])
    return response(400, counted(0, *[(index, code) for index in range(messages)], code="nothing_accepted"))
