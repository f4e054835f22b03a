"""An HTTP server for this machine. At shutdown it ends endless responses, which would otherwise keep it running."""

import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from destination.web.joined_writes import JoinedWritesProtocol

SHUTDOWN_SECONDS = 10
"""For running requests at the end; none takes longer."""


class Server(uvicorn.Server):
    """Serves an application; `close` ends responses that have no end of their own."""

    def __init__(self, app: ASGIApp, close: Callable[[], None], **options: Any) -> None:  # noqa: ANN401 -- uvicorn's
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_level="critical",
                proxy_headers=False,  # no proxy is trusted to name another client
                # It uses h11, which leaves `Host` and the target of a request unchanged, for the guard.
                http=JoinedWritesProtocol,
                ws="none",
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                **options,
            )
        )
        self._close = close

    def end(self) -> None:
        """Begin the shutdown."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down after running requests."""
        self._close()
        await super().shutdown(sockets)
