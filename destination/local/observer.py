"""Who sees the requests of a local server, such as its page."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from starlette.routing import Route

from destination.local.exchange import Exchange
from handler.validate import Schemas


class Observer(Protocol):
    """Sees each request of a local server, and the schemas by which its functions judge."""

    @property
    def routes(self) -> Sequence[Route]:
        """What the server answers for it, such as a page."""

    def judge_by(self, schemas: Schemas) -> None:
        """Note which schemas the functions judge by from now on."""

    def note(self, exchange: Exchange) -> None:
        """Note a request that was answered."""

    def note_late(self, exchange_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Note what the function wrote of a request that was answered without it."""

    def notify(self, text: str | None) -> None:
        """Note what is wrong with the server; None when nothing is wrong any more."""

    def close(self) -> None:
        """End what clients follow, since the server ends."""


class NoObserver:
    """Sees nothing."""

    routes = ()

    def judge_by(self, schemas: Schemas) -> None:
        """Do nothing."""

    def note(self, exchange: Exchange) -> None:
        """Do nothing."""

    def note_late(self, exchange_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Do nothing."""

    def notify(self, text: str | None) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
