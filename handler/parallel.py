"""Calls of a store for the messages of a batch: beside each other, since most of each is waiting, and once more."""

import random
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import TypeVar

from handler.errors import Unavailable

CALLS_AT_ONCE = 8
"""Of one function: a put takes about five milliseconds, a tenth of which is work of its processor."""

TRIES = 4
"""Of each call among many: else a store that throttles one in a hundred would never take a batch."""
FIRST_WAIT_SECONDS = 0.05
"""Before the second try; doubled for each further one, and by chance up to half more."""

_JITTER = random.SystemRandom()
"""Of the system, since functions that start from one snapshot would share the state of another."""

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_parallel(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> list[Result]:
    """Return the results of some work, in the order of the pieces.

    After an error no other piece is begun; it is raised when what was under way has ended.
    """
    if len(pieces) == 1:
        return [work(pieces[0])]
    results: dict[int, Result] = {}
    errors: list[BaseException] = []
    rest = enumerate(pieces)  # of which each thread takes the next one

    def run() -> None:
        for number, piece in rest:
            if errors:
                return
            try:
                results[number] = work(piece)
            except BaseException as error:  # noqa: BLE001 -- raised where all is waited for
                errors.append(error)

    threads = [Thread(target=run) for _ in range(min(CALLS_AT_ONCE, len(pieces)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(pieces))]


def patiently(call: Callable[[], Result], check_deadline: Callable[[], None]) -> Result:
    """Call a store, and again where it is unavailable, as long as there are tries and time left.

    `check_deadline` raises where there is no time for a call.
    """
    for number in range(TRIES - 1):
        check_deadline()
        try:
            return call()
        except Unavailable:
            time.sleep(FIRST_WAIT_SECONDS * 2**number * _JITTER.uniform(1, 1.5))
    check_deadline()
    return call()
