"""Run checks in the main thread, because only there they have a time limit (`handler/time_limit.py`)."""

from collections.abc import Callable
from threading import current_thread, main_thread
from typing import TypeVar

from anyio import NoEventLoopError, from_thread

T = TypeVar("T")


def in_main_thread(check: Callable[[], T]) -> T:
    """Run a check in the main thread if a worker thread of the page's server calls this.

    Any other thread runs the check itself, without a time limit.
    """
    if current_thread() is main_thread():
        return check()
    try:
        return from_thread.run_sync(check)
    except NoEventLoopError:
        return check()
