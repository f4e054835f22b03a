"""Run many slow store calls concurrently."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from threading import Event
from typing import Any, TypeVar

CALLS_AT_ONCE = 8
"""botocore keeps ten connections."""

T = TypeVar("T")


def in_parallel(work: Callable[[Any], T], pieces: Iterable[Any]) -> Iterator[T]:
    """Yield the result of some work for each piece, in the order of completion.

    After an error no further piece is started. The error is raised after the results of the running work were yielded.
    """
    stopped = Event()

    def work_on(piece: object) -> T:
        if stopped.is_set():
            raise CancelledError
        try:
            return work(piece)
        except BaseException:
            stopped.set()
            raise

    failure: BaseException | None = None
    workers = ThreadPoolExecutor(CALLS_AT_ONCE)
    try:
        for ended in as_completed([workers.submit(work_on, piece) for piece in pieces]):
            error = ended.exception()
            if error is None:
                yield ended.result()
            elif not isinstance(error, CancelledError):
                failure = failure or error
    finally:
        stopped.set()
        workers.shutdown()
    if failure is not None:
        raise failure
