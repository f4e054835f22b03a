"""Run a batch's store calls concurrently, because they mostly wait, and retry those that fail."""

import random
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import TypeVar

from handler.errors import Unavailable

CALLS_AT_ONCE = 8
"""Per function environment. A put takes about five milliseconds; a tenth of that is processor time."""

TRIES = 4
"""Tries of each call. With one try, a store that throttles one call in a hundred would never take a whole batch."""
FIRST_WAIT_SECONDS = 0.05
"""The wait before the second try. It doubles for each further try, and jitter adds up to half of it."""

_JITTER = random.SystemRandom()
"""Uses the system's random source: functions that start from one snapshot would share the state of any other one."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def run_concurrently(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """Run some work on each piece, in threads, and return the results in the order of the pieces.

    After an error no further piece is started. The error is raised when the running work has ended.
    """
    if len(pieces) == 1:
        return [work(pieces[0])]
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    rest = enumerate(pieces)  # each thread takes the next one

    def run() -> None:
        for number, piece in rest:
            if errors:
                return
            try:
                results[number] = work(piece)
            except BaseException as error:  # noqa: BLE001 -- raised below, after all threads have ended
                errors.append(error)

    threads = [Thread(target=run) for _ in range(min(CALLS_AT_ONCE, len(pieces)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(pieces))]


def call_with_retries(call: Callable[[], Result], check_deadline: Callable[[], None]) -> Result:
    """Call a store, and retry while it is unavailable and there are tries and time left.

    `check_deadline` raises if there is no time for a call.
    """
    for number in range(TRIES - 1):
        check_deadline()
        try:
            return call()
        except Unavailable:
            time.sleep(FIRST_WAIT_SECONDS * 2**number * _JITTER.uniform(1, 1.5))
    check_deadline()
    return call()
