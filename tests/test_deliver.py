"""How `destination simulate` delivers: what is on the wire, what is retried, and when it gives up."""

import asyncio
import base64
import json
import time
from itertools import count
from random import Random

import pytest
from endpoint import endpoint, response

from cli.simulation.deliver import NO_CONNECTION, RETRY_BUDGET_SECONDS, TIMED_OUT, End, Endpoint, Segment, waits
from cli.simulation.traffic import Sending, Traffic

FOUR_HOURS_SECONDS = 4 * 3600
TRAFFIC = Traffic(seed=1, customers=2)
KEYS = ["key-of-0", "key-of-1"]


def deliver(url, *, messages=1, timeout_seconds=5.0, traffic=TRAFFIC, **options):
    """Deliver messages, with four hours gone in a few milliseconds; return the ledger."""
    segment = Segment(
        traffic,
        Endpoint(url, timeout_seconds=timeout_seconds),
        KEYS,
        **{"concurrency": 4, "rate": None, "time_scale": 1e6} | options,
    )
    asyncio.run(segment.deliver(Sending(index=index) for index in range(messages)))
    return segment.ledger


def test_a_request_is_as_segment_sends_it():
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
def test_any_2xx_is_final_and_good(status):
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


def test_no_connection_is_retried_until_four_hours_are_over():
    with endpoint(lambda _request: response(200)) as server:
        pass
    ledger = deliver(server.url)
    assert (ledger.given_up, list(ledger.messages.values())) == (1, [End.GIVEN_UP])
    assert set(ledger.tries.counts) == {NO_CONNECTION}
    assert 8 <= ledger.tries.counts[NO_CONNECTION] <= 13


def test_the_five_seconds_count_for_the_whole_request():
    def dribble(_request):
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
        for _ in range(100):
            time.sleep(0.02)
            yield b" "

    with endpoint(lambda request: dribble(request) if request.number == 1 else response(200)) as server:
        ledger = deliver(server.url, timeout_seconds=0.2)
    assert ledger.tries.counts == {TIMED_OUT: 1, "200": 1}
    assert 199 < ledger.tries.milliseconds[0] < 1500


CHUNKS = (b'8;x=1\r\n{"status\r\n', b'C\r\n": "stored"}\r\n0\r\nA: b\r\n\r\n')
WHOLE = {
    "by its length": response(200, '{"status": "stored"}'),
    "in chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *CHUNKS],
}


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE)
def test_an_answer_is_read_and_its_connection_kept(pieces):
    with endpoint(lambda _request: pieces) as server:
        ledger = deliver(server.url, messages=5, concurrency=1)
    assert ledger.tries.counts == {"200 stored": 5}
    assert len({request.connection for request in server.received}) == 1


def test_an_answer_may_end_with_its_connection():
    def answer(request):
        yield b'HTTP/1.0 200 OK\r\n\r\n{"status": "stored"}'
        request.connection.shutdown(2)

    with endpoint(answer) as server:
        ledger = deliver(server.url, messages=3, concurrency=1)
    assert ledger.tries.counts == {"200 stored": 3}


@pytest.mark.parametrize("body", ["", "nothing", "[]", '{"code": 7}', '{"code": "two words"}', "[" * 100_000])
def test_an_answer_with_any_body_counts_by_its_status(body):
    with endpoint(lambda _request: response(403, body)) as server:
        ledger = deliver(server.url)
    assert ledger.tries.counts == {"403": 1}


def test_the_waits_are_random_double_and_end_within_four_hours():
    assert RETRY_BUDGET_SECONDS == FOUR_HOURS_SECONDS
    schedules = [list(waits(Random(seed))) for seed in range(500)]  # noqa: S311 -- to spread retries
    for schedule in schedules:
        assert all(7.5 * 2**tries <= wait <= 22.5 * 2**tries for tries, wait in enumerate(schedule))
        assert FOUR_HOURS_SECONDS / 5 < sum(schedule) <= FOUR_HOURS_SECONDS
    assert len({schedule[0] for schedule in schedules}) == 500


def test_what_must_be_refused_is_counted_apart():
    replies = count()
    with endpoint(lambda _request: response(200 if next(replies) == 0 else 400)) as server:
        ledger = deliver(server.url, messages=3, traffic=Traffic(seed=1, customers=2, invalid=1.0))
    assert (ledger.accepted_though_invalid, ledger.refused_as_expected, ledger.refused) == (1, 2, 0)
    assert ledger.messages == {}


def test_the_rate_spreads_deliveries():
    with endpoint(lambda _request: response(200)) as server:
        ledger = deliver(server.url, messages=21, rate=50)
    assert max(ledger.tries.ended) > 0.39


def test_no_more_requests_are_under_way_than_allowed():
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


def test_the_keys_of_customers_go_with_their_messages():
    with endpoint(lambda _request: response(200)) as server:
        deliver(server.url, messages=10)
    for request in server.received:
        [index] = [at for at in range(10) if TRAFFIC.parcel(Sending(index=at)).body == request.body]
        key = base64.b64encode(f"{KEYS[index % 2]}:".encode()).decode()
        assert f"Authorization: Basic {key}\r\n" in request.head
        assert json.loads(request.body)
