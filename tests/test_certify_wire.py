"""Test the client of `destination certify`: concurrent requests, and an end if nothing answers."""

import threading
import time

import pytest
from endpoint import endpoint, response

from destination.certification.checklist import chosen, findings
from destination.certification.examination import Examination
from destination.certification.samples import Samples
from destination.certification.store_access import ApiKeys
from destination.certification.wire import AT_ONCE, MAX_SILENT, Sent, Wire
from destination.paths import SCHEMAS


def numbered(count):
    return [Sent(body=str(number).encode()) for number in range(count)]


def test_requests_are_sent_concurrently_and_answered_in_their_order():
    meeting = threading.Barrier(AT_ONCE)

    def answer(received):
        meeting.wait(20)  # the server answers 500 unless this many requests are in progress
        time.sleep(0.05 * (AT_ONCE - int(received.body)))
        return response(200, received.body.decode())

    with endpoint(answer) as server, Wire(server.url, limit_seconds=30) as wire:
        exchanges = wire.send_all(numbered(AT_ONCE))
    assert [exchange.reply.body for exchange in exchanges] == [one.body for one in numbered(AT_ONCE)]


def test_requests_that_are_sent_one_by_one_share_a_connection():
    with endpoint(lambda _received: response(200)) as server, Wire(server.url, limit_seconds=30) as wire:
        for sent in numbered(3):
            wire.send(sent)
    assert len({received.connection for received in server.received}) == 1


def test_number_of_connections_is_limited():
    with endpoint(lambda _received: response(200)) as server, Wire(server.url, limit_seconds=30) as wire:
        wire.send_all(numbered(40))
    assert len({received.connection for received in server.received}) <= AT_ONCE
    assert sorted(int(received.body) for received in server.received) == list(range(40))


def test_silent_endpoint_is_given_up():
    with endpoint(lambda _received: []) as server, Wire(server.url, limit_seconds=30) as wire:
        exchanges = wire.send_all(numbered(40))
    assert MAX_SILENT <= len(exchanges) < MAX_SILENT + AT_ONCE
    assert wire.is_silent


@pytest.mark.parametrize("only", ["auth", "errors", "message"])
def test_invalid_requests_are_sent_concurrently_before_the_first_point(only):
    """The first message shows whether the others are worth sending. The other requests of these points don't wait."""
    most, under_way, lock = 0, 0, threading.Lock()

    def answer(_received):
        nonlocal most, under_way
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return response(200)

    with endpoint(answer) as server, Wire(server.url, limit_seconds=30) as wire:
        keys, samples = ApiKeys(good="a-key-of-a-customer"), Samples(SCHEMAS)
        examination = Examination(wire, name="certify-test", keys=keys, samples=samples)
        list(findings(examination, chosen([only])))
    assert most == AT_ONCE
