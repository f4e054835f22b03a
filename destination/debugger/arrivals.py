"""Keep the latest messages of a local server by arrival, so that the page need not scan the event table."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from destination.deployment.target import Key
from destination.local.exchange import Exchange, Reading
from handler.record import Record, subject_of

MAX_ARRIVALS = 50_000
"""Number of messages kept; each takes about 400 bytes."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    customer_id: str
    message_id: str
    key: Key


class ArrivalOrder:
    """The latest accepted messages in their order of arrival; for one event loop."""

    def __init__(self, *, max_count: int = MAX_ARRIVALS) -> None:
        self._arrivals: deque[_Arrival] = deque(maxlen=max_count)
        self._reading: set[asyncio.Task[None]] = set()

    def note(self, exchange: Exchange, reading: Reading | None = None) -> None:
        """Keep the messages of a request. Without a `reading`, as for many messages, a thread reads it."""
        accepted = _accepted(exchange)
        if not accepted:
            return
        if reading is not None:
            self._arrivals.extend(_arrivals(accepted[0]["customer_id"], reading))
            return
        task = asyncio.create_task(asyncio.to_thread(self._read, accepted[0]["customer_id"], exchange))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    def _read(self, customer_id: str, exchange: Exchange) -> None:
        self._arrivals.extend(list(_arrivals(customer_id, exchange.read())))

    def latest(self, customer_id: str | None, message_id: str | None, limit: int) -> list[Key]:
        """Return up to `limit` keys of the event table, latest arrival first, each once.

        A message may have left the table since, or may have arrived again as a duplicate.
        """
        keys: dict[Key, None] = {}
        for arrival in reversed(self._arrivals.copy()):
            if len(keys) == limit:
                break
            if customer_id in (None, arrival.customer_id) and message_id in (None, arrival.message_id):
                keys.setdefault(arrival.key)
        return list(keys)


def _accepted(exchange: Exchange) -> Sequence[Mapping[str, Any]]:
    """Return the lines about stored messages."""
    return [line for line in (*exchange.lines, *exchange.late) if line["outcome"] == "accepted"]


def _arrivals(customer_id: str, reading: Reading) -> Iterator[_Arrival]:
    for message in reading.messages:
        message_id = message.body.get("message_id")
        if isinstance(message_id, str) and subject_of(customer_id, message.body) is not None:
            record = Record(customer_id=customer_id, message=message, settings={}, stored_at=0)
            yield _Arrival(customer_id, message_id, (record.subject, record.position))
