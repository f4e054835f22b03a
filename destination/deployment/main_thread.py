"""The main thread, in which alone the checks of messages have a time limit (`handler/time_limit.py`)."""

from collections.abc import Callable
from threading import current_thread, main_thread
from typing import TypeVar

from anyio import NoEventLoopError, from_thread

T = TypeVar("T")


def in_main_thread(check: Callable[[], T]) -> T:
    """Run a check, and let a worker thread of the page's server hand it to the event loop.

    Any other thread runs it itself, without a time limit.
    """
    if current_thread() is main_thread():
        return check()
    try:
        return from_thread.run_sync(check)
    except NoEventLoopError:
        return check()
