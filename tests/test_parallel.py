import itertools
import time
from threading import Barrier, Event

import pytest

from handler.errors import EventStoreUnavailable, MessageTooLarge
from handler.parallel import CALLS_AT_ONCE, call_with_retries, run_concurrently

MAX_WAIT_SECONDS = 30


@pytest.mark.parametrize("count", [0, 1, 2, CALLS_AT_ONCE, 10 * CALLS_AT_ONCE])
def test_results_have_the_order_of_the_pieces(count):
    assert run_concurrently(lambda number: number * number, range(count)) == [
        number * number for number in range(count)
    ]


def test_number_of_concurrent_pieces_is_limited():
    together = Barrier(CALLS_AT_ONCE, timeout=MAX_WAIT_SECONDS)
    assert len(run_concurrently(lambda _: together.wait(), range(CALLS_AT_ONCE))) == CALLS_AT_ONCE


def test_error_is_raised_after_running_calls_and_starts_no_more():
    failed, begun, ended = Event(), [], []

    def work(number):
        begun.append(number)
        if number == 0:
            failed.set()
            raise ZeroDivisionError
        assert failed.wait(MAX_WAIT_SECONDS)
        ended.append(number)

    with pytest.raises(ZeroDivisionError):
        run_concurrently(work, range(1000))
    assert len(begun) <= 2 * CALLS_AT_ONCE
    assert set(begun) - {0} == set(ended)


# call_with_retries


class Failing:
    """Fails a number of times, and then returns a result."""

    def __init__(self, times, error=None):
        self.left = times
        self.error = error or EventStoreUnavailable()
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "stored"


def test_store_call_has_four_tries():
    call = Failing(3)
    assert call_with_retries(call, lambda: None) == "stored"
    assert call.calls == 4
    call = Failing(4)
    with pytest.raises(EventStoreUnavailable):
        call_with_retries(call, lambda: None)
    assert call.calls == 4


@pytest.mark.parametrize("error", [ZeroDivisionError(), MessageTooLarge()])
def test_only_unavailable_stores_are_retried(error):
    call = Failing(1, error)
    with pytest.raises(type(error)):
        call_with_retries(call, lambda: None)
    assert call.calls == 1


def test_pauses_double_from_a_twentieth_of_a_second():
    pauses = []
    with pytest.raises(EventStoreUnavailable):
        call_with_retries(Failing(4), lambda: pauses.append(time.monotonic()))
    took = [later - earlier for earlier, later in itertools.pairwise(pauses)]
    assert all(pause >= least for pause, least in zip(took, (0.05, 0.1, 0.2), strict=True))


def test_eight_calls_run_at_once():
    assert CALLS_AT_ONCE == 8
