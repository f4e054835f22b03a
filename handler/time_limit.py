"""A limit on the time that the check of a message takes: a pattern of a schema can need hours for 40 letters.

A timer of the operating system (https://man7.org/linux/man-pages/man2/setitimer.2.html) sends a signal. The handler of
the signal raises an exception in the main thread; `re` looks for signals while it matches. The timer counts processor
time, so that a message that is cheap to check is never refused because a process is slow or was paused.
"""

import re
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_SECONDS = 0.2
"""Processor time for the first check. An ordinary one takes a thousandth of that."""
LEAST_SECONDS = 0.005
"""Processor time for any check. Linux measures it in steps of a few milliseconds."""
REPEAT_SECONDS = 0.1
"""Processor time after which a check is interrupted again. Python ignores an exception in a finalizer."""
TOTAL_SECONDS = 0.8
"""Processor time that the interrupted checks of one request may take together."""
MAX_PATTERN_CHARS = 32 * 1024
"""A longer text is not matched with a pattern: `re` would look for the signal only after seconds.

A message of Segment has at most as many bytes.
"""

T = TypeVar("T")


class TooSlowError(Exception):
    """A check did not end in time, nothing is left of the time for slow checks, or a text is too long for a pattern."""


class ShortTexts:
    """A compiled pattern that is only tried on texts up to `MAX_PATTERN_CHARS`."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first match in a text; raises `TooSlowError` for a longer text."""
        if len(text) > MAX_PATTERN_CHARS:
            raise TooSlowError
        return self._pattern.search(text)


class _TimeIsUp(BaseException):
    """Raised in the middle of a check. Libraries that handle every `Exception` do not handle it."""


class CheckTime:
    """The time for the checks of one request.

    Each interrupted check halves the limit of the checks that follow, so that the other messages of a batch are still
    checked. Only the main thread has a limit, because Python runs the handlers of signals there; Lambda calls the
    function in it.
    """

    _is_running = False
    """Of the process. A signal that arrives too late finds False and is ignored."""
    _has_handler = False

    def __init__(self) -> None:
        self._limit = LIMIT_SECONDS
        self._left = TOTAL_SECONDS

    def run(self, check: Callable[..., T], *arguments: object) -> T:
        """Return what a check returns; raises `TooSlowError`."""
        if threading.current_thread() is not threading.main_thread():
            return check(*arguments)
        if self._left <= 0:
            raise TooSlowError
        begun = time.process_time()
        if not CheckTime._has_handler:
            signal.signal(signal.SIGVTALRM, self._interrupt)
            CheckTime._has_handler = True
        try:
            try:
                CheckTime._is_running = True
                signal.setitimer(signal.ITIMER_VIRTUAL, self._limit, REPEAT_SECONDS)
                return check(*arguments)
            finally:
                self._stop()
        except _TimeIsUp:
            # The signal may have come after the check, before the timer was stopped.
            self._stop()
            # `re` may look for the signal late.
            self._left -= max(self._limit, time.process_time() - begun)
            self._limit = max(self._limit / 2, LEAST_SECONDS)
            raise TooSlowError from None

    @staticmethod
    def _stop() -> None:
        CheckTime._is_running = False
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    @staticmethod
    def _interrupt(_number: int, _frame: object) -> None:
        if CheckTime._is_running:
            raise _TimeIsUp
