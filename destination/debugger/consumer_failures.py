"""Messages that the consumer of a local server failed to handle, and their requests."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from destination.watching.lines import ConsumerFailure

MAX_MESSAGES = 50_000
"""Limit for the messages whose request is known; each takes about 200 bytes."""
MAX_FAILED_MESSAGES = 10_000
MAX_FAILURES = 100
"""Limit for the failures of one message that are kept; earlier ones are forgotten."""

_Message = tuple[str | None, str]
"""Customer and message id, as the lines of the functions have them. They need not be unique."""


class ConsumerFailures:
    """Keeps the failures of each message, and calls `tell` with the id of a request and the number of its failures."""

    def __init__(self, tell: Callable[[str, int], None], *, max_messages: int = MAX_MESSAGES) -> None:
        self._tell = tell
        self._max_messages = max_messages
        self._requests: dict[_Message, str] = {}
        self._failures: dict[_Message, list[ConsumerFailure]] = {}
        self._counts: Counter[str] = Counter()

    def note_request(self, request_id: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Note which messages a request stored, by the lines of the function."""
        for message in _accepted(lines):
            self._requests[message] = request_id
            if message in self._failures:  # the consumer was faster
                self._count(request_id, len(self._failures[message]))
        while len(self._requests) > self._max_messages:
            del self._requests[next(iter(self._requests))]

    def note(self, failure: ConsumerFailure) -> None:
        """Note a failure."""
        for message_id in failure.message_ids:
            message = failure.customer_id, message_id
            failures = self._failures.setdefault(message, [])
            failures.append(failure)
            del failures[:-MAX_FAILURES]
            if len(self._failures) > MAX_FAILED_MESSAGES:
                del self._failures[next(iter(self._failures))]
            if message in self._requests:
                self._count(self._requests[message], 1)

    def _count(self, request_id: str, failures: int) -> None:
        self._counts[request_id] += failures
        self._tell(request_id, self._counts[request_id])
        if len(self._counts) > MAX_FAILED_MESSAGES:
            del self._counts[next(iter(self._counts))]

    def of(self, customer_id: str | None, message_id: str) -> Sequence[ConsumerFailure]:
        """Return the failures of a message, oldest first."""
        return self._failures.get((customer_id, message_id), ())


def _accepted(lines: Iterable[Mapping[str, Any]]) -> Iterator[_Message]:
    """Yield the messages that lines call accepted."""
    for line in lines:
        if line["outcome"] == "accepted":
            ids = [line["message_id"]] if "message_id" in line else line.get("message_ids", ())
            yield from ((line.get("customer_id"), message_id) for message_id in ids)
