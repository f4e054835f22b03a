"""Calls of a store beside each other: most of what one takes is waiting."""

from collections.abc import Callable, Sequence
from threading import Thread
from typing import TypeVar

CALLS_AT_ONCE = 8
"""Of one function: a put takes about five milliseconds, a tenth of which is work of its processor."""

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
