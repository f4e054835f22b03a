"""Observers of a local server's requests, such as its page."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.routing import Route

from destination.local.exchange import Exchange
from destination.watching.lines import ConsumerFailure
from handler.validate import Schemas


class Observer(Protocol):
    """Sees each request of a local server, and the schemas that its functions use."""

    @property
    def routes(self) -> Sequence[Route]:
        """The routes that the server adds for it, such as a page."""

    def judge_by(self, schemas: Schemas) -> None:
        """Note the schemas that the functions use from now on."""

    def note(self, exchange: Exchange) -> None:
        """Note an answered request."""

    def note_late(self, exchange_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Note the function's lines about a request that was answered without it."""

    def note_consumer_failure(self, failure: ConsumerFailure) -> None:
        """Note that the consumer failed to handle a message."""

    def notify(self, text: str | None) -> None:
        """Note a fault of the server; None when there is none any more."""

    def close(self) -> None:
        """End the streams that clients follow, because the server ends."""


class NoObserver:
    """Ignores everything."""

    routes = ()

    def judge_by(self, schemas: Schemas) -> None:
        """Do nothing."""

    def note(self, exchange: Exchange) -> None:
        """Do nothing."""

    def note_late(self, exchange_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def note_consumer_failure(self, failure: ConsumerFailure) -> None:
        """Do nothing."""

    def notify(self, text: str | None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
