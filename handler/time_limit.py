"""Limit the processor time of a message's checks: a pattern of a schema can need hours for 40 letters.

A timer of the operating system (https://man7.org/linux/man-pages/man2/setitimer.2.html) sends a signal. The signal
handler raises an exception in the main thread; `re` checks for signals while it matches. The timer counts processor
time, so a cheap message is never refused because a process is slow or was paused.
"""

import re
import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

LIMIT_SECONDS = 0.2
"""Processor time for the first check. A usual check takes a thousandth of it."""
LEAST_SECONDS = 0.005
"""Processor time for any check. Linux measures it in steps of a few milliseconds."""
REPEAT_SECONDS = 0.1
"""Processor time after which a check is interrupted again. Python ignores an exception in a finalizer."""
TOTAL_SECONDS = 0.8
"""Processor time that all interrupted checks of one request may take."""
MAX_PATTERN_CHARS = 32 * 1024
"""A longer text is not matched with a pattern: `re` would check for the signal only after seconds.

A message from Segment has at most as many bytes.
"""

T = TypeVar("T")


class TooSlowError(Exception):
    """A check did not end in time, the time for slow checks is used up, or a text is too long for a pattern."""


class ShortTexts:
    """A compiled pattern that is tried only on texts up to `MAX_PATTERN_CHARS`."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern

    def search(self, text: str) -> re.Match[str] | None:
        """Return the first match in a text; raises `TooSlowError` for a longer text."""
        if len(text) > MAX_PATTERN_CHARS:
            raise TooSlowError
        return self._pattern.search(text)


class _TimeIsUp(BaseException):
    """Raised in the middle of a check. It is not an `Exception`, so libraries don't catch it."""


class CheckTime:
    """The time for the checks of one request.

    Each interrupted check halves the limit of the checks that follow, so that the other messages of a batch are still
    checked. Only the main thread has a limit, because Python runs the handlers of signals there; Lambda calls the
    function in it.
    """

    _is_running = False
    """For the process. A signal that arrives too late finds False and is ignored."""
    _has_handler = False

    def __init__(self) -> None:
        self._limit = LIMIT_SECONDS
        self._left = TOTAL_SECONDS

    def run(self, check: Callable[..., T], *arguments: object) -> T:
        """Call `check` within the time limit; raises `TooSlowError`."""
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
            # The signal may arrive after the check, but before the timer is stopped.
            self._stop()
            # `re` may check for the signal late.
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
