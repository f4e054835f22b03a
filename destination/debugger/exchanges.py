"""Keep the latest requests to a local server, so that their details can be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from destination.local.exchange import Exchange

MAX_EXCHANGES = 10_000
MAX_EXCHANGE_BYTES = 64 * 1024 * 1024
"""Limit for all kept requests."""


class Exchanges:
    """The latest requests, as many as fit; the page may ask for one that has been dropped."""

    def __init__(self, *, max_count: int = MAX_EXCHANGES, max_bytes: int = MAX_EXCHANGE_BYTES) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._kept: dict[str, Exchange] = {}
        self._bytes = 0

    def add(self, exchange: Exchange) -> None:
        """Keep a request; drop the oldest ones if there is no room."""
        self._kept[exchange.id] = exchange
        self._bytes += exchange.weight
        while len(self._kept) > self._max_count or (self._bytes > self._max_bytes and len(self._kept) > 1):
            oldest = self._kept.pop(next(iter(self._kept)))
            self._bytes -= oldest.weight

    def add_late(self, exchange_id: str, lines: Sequence[Mapping[str, Any]]) -> Exchange | None:
        """Add the function's lines about a request that was already answered. Return the request if it is kept."""
        if exchange := self._kept.get(exchange_id):
            exchange = self._kept[exchange_id] = replace(exchange, late=lines)
        return exchange

    def find(self, exchange_id: str) -> Exchange | None:
        """Return a request, None if it is not kept."""
        return self._kept.get(exchange_id)
