"""Test how an import waits for all its senders, and how it retries requests."""

import gzip
import json
import ssl

import pytest
import trustme
from endpoint import endpoint, response

from destination.importing.batches import ImportBatch, ImportedMessage
from destination.importing.deliver import BatchSender
from destination.importing.pace import FIRST_MESSAGES, LONGEST_PAUSE_SECONDS, SWIFT_SECONDS, ImportPace, Stopped
from destination.segment.client import deployment_url


def all_accepted(received):
    count = len(json.loads(gzip.decompress(received.body))["batch"])
    return response(200, json.dumps({"accepted": count, "duplicates": 0, "rejected": []}))


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def pace_of(clock, **options):
    return ImportPace(**{"size": 100, "give_up_after_seconds": 600, "clock": clock, **options})


def wait_of(pace, clock):
    """Return how long a request would wait now."""
    return pace.not_before - clock.now


def fail(pace, clock, *, times=1, **options):
    """Let requests fail in turn. Each begins as soon as it may."""
    for _ in range(times):
        clock.now = max(clock.now, pace.not_before)
        pace.slow_down(pace.begin(), "Down", **options)


def test_pauses_double_up_to_a_limit_with_jitter(clock):
    pace = pace_of(clock, give_up_after_seconds=10_000)
    for number in range(12):
        fail(pace, clock)
        middle = min(0.5 * 2**number, LONGEST_PAUSE_SECONDS)
        assert middle * 0.5 <= wait_of(pace, clock) <= middle * 1.5


@pytest.mark.parametrize(("retry_after", "least"), [("7", 7), ("Mon, 01 Jan 2001 00:00:00 GMT", 0), ("soon", 0)])
def test_retry_after_is_obeyed(clock, retry_after, least):
    pace = pace_of(clock)
    fail(pace, clock, retry_after=retry_after)
    assert max(least, 0.25) <= wait_of(pace, clock) <= max(least, 0.75)


def test_concurrent_failures_count_as_one(clock):
    pace = pace_of(clock)
    began = [pace.begin() for _ in range(4)]
    clock.now += 1
    for time in began:
        pace.slow_down(time, "Down", is_too_much=True)
    assert wait_of(pace, clock) <= 0.75
    assert pace.size == 50


def test_later_failure_does_not_shorten_a_pause(clock):
    pace = pace_of(clock)
    began = [pace.begin() for _ in range(2)]
    pace.slow_down(began[0], "Down", retry_after="60")
    pace.slow_down(began[1], "Down", retry_after="1")
    assert wait_of(pace, clock) == 60


def test_pause_is_reset_after_an_answer(clock):
    pace = pace_of(clock)
    fail(pace, clock, times=5)
    pace.go_on(clock.now, 1)
    assert pace.told == ""
    fail(pace, clock)
    assert wait_of(pace, clock) <= 0.75


def test_batch_size_is_halved_and_doubled_again(clock):
    pace = pace_of(clock)
    fail(pace, clock, times=10, is_too_much=True)
    assert pace.size == 1
    pace.go_on(clock.now, 1)
    assert pace.size == 2
    for _ in range(7):
        pace.go_on(clock.now, pace.size)
    assert pace.size == 100


def test_first_batches_are_small(clock):
    assert pace_of(clock, size=500).size == FIRST_MESSAGES


@pytest.mark.parametrize(
    ("seconds", "sent"),
    [pytest.param(SWIFT_SECONDS + 1, FIRST_MESSAGES, id="slow"), pytest.param(0, FIRST_MESSAGES - 1, id="small")],
)
def test_slow_or_small_batch_does_not_grow_the_size(clock, seconds, sent):
    pace = pace_of(clock, size=500)
    began = pace.begin()
    clock.now += seconds
    pace.go_on(began, sent)
    assert pace.size == FIRST_MESSAGES


def test_429_does_not_change_the_batch_size(clock):
    pace = pace_of(clock)
    fail(pace, clock, times=3)
    assert pace.size == 100


def test_import_gives_up_when_the_time_is_over(clock):
    pace = pace_of(clock, give_up_after_seconds=60)
    with pytest.raises(Stopped, match=r"^Down, for \d+ s now, and the next try would be in \d+ s: given up"):
        fail(pace, clock, times=100)
    assert clock.now <= 1060


def test_any_answer_restarts_the_time(clock):
    pace = pace_of(clock, give_up_after_seconds=60)
    for _ in range(100):
        fail(pace, clock, times=3)
        clock.now = pace.not_before
        pace.go_on(clock.now, 1)
    assert clock.now > 1060


def test_retry_after_beyond_the_limit_gives_up_at_once(clock):
    with pytest.raises(Stopped, match="the next try would be in 3600 s"):
        fail(pace_of(clock), clock, retry_after="3600")


def test_first_reason_is_reported(clock):
    pace = pace_of(clock)
    pace.stop(Stopped("first"))
    pace.stop(Stopped("second"))
    assert str(pace.failure) == "first"
    with pytest.raises(Stopped):
        pace.begin()


@pytest.mark.parametrize("base", ["https://x.example.com", "https://x.example.com/prod"])
@pytest.mark.parametrize("path", ["", "/", "/segment", "/v1", "/v1/import", "/v1/batch", "/segment/", "/segment?a=b"])
def test_a_deployment_is_known_by_any_of_its_routes(base, path):
    assert deployment_url(base + path) == base


def batch_of(count):
    return ImportBatch(messages=[ImportedMessage("file", number, b'{"n": %d}' % number) for number in range(count)])


@pytest.fixture
def impatient():
    """Create a sender that waits only a moment."""
    senders = []

    def make(server, *, size=4):
        pace = ImportPace(size=size, give_up_after_seconds=60, first_pause_seconds=0.001)
        url = server.url.removesuffix("/segment")
        senders.append(BatchSender(url, "some-key", pace, connections=1, answer_seconds=0.1))
        return senders[-1]

    yield make
    for sender in senders:
        sender.close()


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\n"], id="hangs in its head"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"], id="hangs in its body"),
        pytest.param([b"nonsense\r\n\r\n"], id="is no HTTP"),
    ],
)
def test_truncated_answer_is_retried(impatient, pieces):
    def answer(received):
        return pieces if received.number == 1 else all_accepted(received)

    with endpoint(answer) as server:
        assert impatient(server).deliver(batch_of(4)).accepted == 4


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_temporary_failures_are_retried(impatient, status):
    def answer(received):
        if received.number == 1:
            return response(status, "<html>", "Retry-After: 0")
        return [] if received.number == 2 else all_accepted(received)

    with endpoint(answer) as server:
        assert impatient(server).deliver(batch_of(4)).accepted == 4


def test_slow_endpoint_gets_smaller_batches(impatient):
    sizes = []

    def answer(received):
        sizes.append(len(json.loads(gzip.decompress(received.body))["batch"]))
        return [b" "] if sizes[-1] > 5 else all_accepted(received)

    with endpoint(answer) as server:
        assert impatient(server, size=20).deliver(batch_of(20)).accepted == 20
    assert sizes[:3] == [20, 10, 5]


def test_untrusted_certificate_ends_the_import_at_once(tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with endpoint(all_accepted) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http:", "https:").removesuffix("/segment")
        for known in (other, authority):
            known.cert_pem.write_to_path(tmp_path / "ca.pem")
            pace = ImportPace(size=4, give_up_after_seconds=60)
            sender = BatchSender(url, "some-key", pace, connections=1, ca_file=str(tmp_path / "ca.pem"))
            if known is authority:
                assert sender.deliver(batch_of(4)).accepted == 4
            else:
                with pytest.raises(Stopped, match=r"can't be trusted: .*Name the authority of its certificate"):
                    sender.deliver(batch_of(4))
            sender.close()
