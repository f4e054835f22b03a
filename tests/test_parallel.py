from threading import Barrier, Event

import pytest

from handler.parallel import CALLS_AT_ONCE, in_parallel

PATIENCE_SECONDS = 30


@pytest.mark.parametrize("count", [0, 1, 2, CALLS_AT_ONCE, 10 * CALLS_AT_ONCE])
def test_results_come_in_the_order_of_the_pieces(count):
    assert in_parallel(lambda number: number * number, range(count)) == [number * number for number in range(count)]


def test_as_many_pieces_as_that_are_worked_on_at_once():
    together = Barrier(CALLS_AT_ONCE, timeout=PATIENCE_SECONDS)
    assert len(in_parallel(lambda _: together.wait(), range(CALLS_AT_ONCE))) == CALLS_AT_ONCE


def test_an_error_is_raised_after_what_was_under_way_and_nothing_more_is_begun():
    failed, begun, ended = Event(), [], []

    def work(number):
        begun.append(number)
        if number == 0:
            failed.set()
            raise ZeroDivisionError
        assert failed.wait(PATIENCE_SECONDS)
        ended.append(number)

    with pytest.raises(ZeroDivisionError):
        in_parallel(work, range(1000))
    assert len(begun) <= 2 * CALLS_AT_ONCE
    assert set(begun) - {0} == set(ended)
