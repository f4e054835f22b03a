"""uvicorn's HTTP protocol, with one write for each response instead of two.

uvicorn writes the head and the body of a response separately. Each write is a system call and wakes the client, which
then waits for the body.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol


class JoinedWritesProtocol(H11Protocol):
    """Collects the writes of one turn of the event loop, and writes them together."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin a connection."""
        super().connection_made(cast("asyncio.Transport", _JoinedWrites(transport, self.loop)))


class _JoinedWrites:
    """A transport that delays writes until the end of the turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Add bytes to the next write."""
        if not data:
            return
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def close(self) -> None:
        """Close the connection after the pending writes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._pieces:
            self._transport.write(b"".join(self._pieces))
            self._pieces.clear()
