"""Control the speed of an import: if one sender has to wait, all wait, and they give up together."""

import time
from collections.abc import Callable
from random import Random
from threading import Event, Lock

import urllib3

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Doubled after each failure in a row, with jitter of a half; longer only if the endpoint asks for it."""
FIRST_MESSAGES = 100
"""The size of the first requests; it doubles up to the requested size."""
SWIFT_SECONDS = 2.0
"""Only an answer within this time doubles the size: the endpoint ends a request after 9.8 seconds, and then all of
it is sent again."""


class Stopped(Exception):
    """The import can't continue; the text is for a person. Without a text, the user stopped it."""


class ImportPace:
    """When the next request may start, and how many messages it may have (`size`); shared by threads.

    `told` is a message for the user while it waits, otherwise empty.
    """

    def __init__(
        self,
        *,
        size: int,
        give_up_after_seconds: float,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stopping = Event()
        self.size = min(size, FIRST_MESSAGES)
        self.told = ""
        self._largest = size
        self._give_up_after_seconds = give_up_after_seconds
        self._first_pause_seconds = first_pause_seconds
        self._clock = clock
        self._chance = Random()  # noqa: S311 -- to spread requests
        self._lock = Lock()
        self.not_before = self._slowed_at = clock()
        self._failed_since: float | None = None
        self._failures = 0
        self._failure: Stopped | None = None

    @property
    def failure(self) -> Stopped | None:
        """The reason of the end, unless the user stopped it."""
        return self._failure

    def stop(self, reason: Stopped | None = None) -> None:
        """Stop all senders; the first reason counts."""
        with self._lock:
            if not self.stopping.is_set():
                self._failure = reason
            self.stopping.set()

    def begin(self) -> float:
        """Wait until a request may start, and return the time; raises `Stopped`."""
        while True:
            if self.stopping.is_set():
                raise Stopped
            now = self._clock()
            if now >= self.not_before:
                return now
            self.stopping.wait(self.not_before - now + self._chance.uniform(0, self._first_pause_seconds))

    def go_on(self, began: float, sent: int) -> None:
        """Note that a request was answered: its start, and its number of messages."""
        with self._lock:
            is_swift = self._clock() - began <= SWIFT_SECONDS
            self._failed_since = None
            self._failures = 0
            self.told = ""
            if is_swift and sent >= self.size:
                self.size = min(self._largest, self.size * 2)

    def slow_down(self, began: float, why: str, *, retry_after: str | None = None, is_too_much: bool = False) -> None:
        """Make all senders wait after a failed request; raises `Stopped` when it is time to give up.

        Requests that ran concurrently fail for one reason, and count as one failure. A request that was too large is
        halved.
        """
        with self._lock:
            now = self._clock()
            wait = _seconds(retry_after)
            if began >= self._slowed_at:
                self._slowed_at = now
                self._failures += 1
                self._failed_since = began if self._failed_since is None else self._failed_since
                longest = min(self._first_pause_seconds * 2 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
                wait = max(wait, longest * self._chance.uniform(0.5, 1.5))
                if is_too_much:
                    self.size = max(1, self.size // 2)
            self.not_before = max(self.not_before, now + wait)
            self.told = f"{why}; continues in {max(1, self.not_before - now):.0f} s"
            failed_since = now if self._failed_since is None else self._failed_since
            is_enough = self.not_before - failed_since > self._give_up_after_seconds
        if is_enough:
            raise Stopped(
                f"{why}, for {now - failed_since:.0f} s now, and the next try would be in "
                f"{self.not_before - now:.0f} s: given up (--give-up-after)"
            )


def _seconds(retry_after: str | None) -> float:
    """Return the seconds of a `Retry-After` header (RFC 9110: a number or a date), 0 if it can't be read."""
    try:
        return urllib3.Retry().parse_retry_after(retry_after or "0")
    except urllib3.exceptions.InvalidHeader:
        return 0.0
