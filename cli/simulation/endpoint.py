"""An HTTP/1.1 client that waits for a request as long as its sender does, and no longer."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What an endpoint answered."""

    status: int
    body: bytes


class Endpoint:
    """An HTTP/1.1 client (RFC 9112) for one URL, which keeps connections and counts the seconds of a request in all.

    The clients that boto3 brings count them anew for each byte that comes.
    """

    def __init__(self, url: str, *, timeout_seconds: float, ca_file: str | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        self._idle: list[_Connection] = []

    def head(self, headers: dict[str, str]) -> bytes:
        """Return all of a request's head but its last line, the length of the body."""
        return (self._head + "".join(f"{name}: {value}\r\n" for name, value in headers.items())).encode("latin-1")

    async def try_connection(self) -> None:
        """Connect, and leave it at that; raises `OSError`, of which `TimeoutError` is one."""
        async with asyncio.timeout(self._timeout_seconds):
            self._idle.append(await self._connect())
        await self.close()

    async def post(self, head: bytes, body: bytes) -> Reply:
        """Send a request and read the answer; raises `TimeoutError`, or `OSError` where no whole answer comes."""
        connection = None
        keep = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = self._kept() or await self._connect()
                connection.writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                await connection.writer.drain()
                reply, keep = await connection.read()
                return reply
        except (EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            raise ConnectionError("The answer broke off, or is not HTTP") from error
        finally:
            if connection and keep:
                self._idle.append(connection)
            elif connection:
                connection.writer.transport.abort()

    async def close(self) -> None:
        """End the connections that were kept."""
        while self._idle:
            connection = self._idle.pop()
            connection.writer.close()
            with suppress(OSError):
                await connection.writer.wait_closed()

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return None

    async def _connect(self) -> "_Connection":
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=MAX_HEAD_BYTES)
        return _Connection(reader, writer)


@dataclass(frozen=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> tuple[Reply, bool]:
        """Read an answer; tell too whether the connection can be used again."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        protocol, status, *_ = status_line.split(" ", 2)
        if not protocol.startswith("HTTP/1."):
            raise ValueError(status_line)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        keep = protocol != "HTTP/1.0" and headers.get("connection", "").lower() != "close"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = b"".join([chunk async for chunk in self._chunks()])
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body, keep = await self.reader.read(), False
        return Reply(status=int(status), body=body), keep

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self.reader.readline()).partition(b";")[0], 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()
        while (await self.reader.readline()).strip():
            """A trailer."""
