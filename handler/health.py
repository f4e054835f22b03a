"""`GET /health`: check that all stores answer that a message may need. For monitors of the endpoint.

It writes nothing and reveals nothing else. Anybody may call it, so each function environment caches the result.
"""

from collections.abc import Callable, Sequence
from typing import Self

from handler.destination import Destination
from handler.errors import Maintenance, Unavailable
from handler.observe import write_health
from handler.parallel import run_concurrently
from handler.respond import Response, healthy, refused

KEPT_SECONDS = 10


class Health:
    """Checks stores by their probes, which raise an `Unavailable`; `clock` returns seconds."""

    def __init__(self, probes: Sequence[Callable[[], None]], *, clock: Callable[[], float]) -> None:
        self._probes = probes
        self._clock = clock
        self._response: Response = {}
        self._fresh_until = float("-inf")

    @classmethod
    def of(cls, destination: Destination) -> Self:
        """Return the health check of a destination; during maintenance it always fails."""
        if destination.settings.maintenance:
            return cls([_refuse], clock=destination.clock)
        probes = [destination.keys.probe, destination.sink.probe, destination.erasures.probe]
        if destination.settings.rejects_retention_days:
            probes.append(destination.rejects.probe)
        return cls(probes, clock=destination.clock)

    def answer(self) -> Response:
        """Answer 200, or 503 with the code of a store that does not answer."""
        now = self._clock()
        if now >= self._fresh_until:
            self._response = self._ask()
            self._fresh_until = now + KEPT_SECONDS
        return self._response

    def _ask(self) -> Response:
        try:
            run_concurrently(lambda probe: probe(), self._probes)
        except Unavailable as unavailable:
            write_health(unavailable.code)
            return refused(unavailable)
        write_health(None)
        return healthy()


def _refuse() -> None:
    raise Maintenance
