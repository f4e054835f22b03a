"""An HTTP/1.1 client with the senders' time-outs for a whole request."""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
"""More than any answer of a destination to a message."""
BODILESS = (204, 304)
"""Statuses of answers without a body, whatever their headers say."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer of an endpoint; the names in `headers` are lower case.

    `is_reused` says that the connection carried an earlier request.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    is_reused: bool = False


class Endpoint:
    """An HTTP/1.1 client (RFC 9112) for one URL, with persistent connections and a time-out for the whole request.

    The clients that boto3 brings restart their time-out for each byte that arrives.
    """

    def __init__(self, url: str, *, timeout_seconds: float, ca_file: str | None = None) -> None:
        self._timeout_seconds = timeout_seconds
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authority = parts.netloc.rpartition("@")[2]
        self._idle: list[_Connection] = []
        self.last_was_reused = False
        """Whether the connection of the last request had carried another request, whatever the result was."""

    def head(self, headers: Mapping[str, str], *, method: str = "POST", target: str | None = None) -> bytes:
        """Return a request's head without its last line, the length of the body; by default for the URL's target."""
        lines = [f"{method} {target or self._target} HTTP/1.1", f"Host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "".join(f"{line}\r\n" for line in lines).encode("latin-1")

    async def try_connection(self) -> None:
        """Connect without a request; raises `OSError`, which includes `TimeoutError`."""
        async with asyncio.timeout(self._timeout_seconds):
            self._idle.append(await self._connect())
        await self.close()

    async def post(self, head: bytes, body: bytes) -> Reply:
        """Send a request and read the answer; raises `TimeoutError`, or `OSError` if no whole answer arrives."""
        connection = None
        keep = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = self._kept()
                self.last_was_reused = connection is not None
                connection = connection or await self._connect()
                connection.writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                await connection.writer.drain()
                reply, keep = await connection.read(has_body=not head.startswith(b"HEAD "))
                return reply
        except ssl.SSLError:
            raise
        except (EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            raise ConnectionError("The answer broke off, or is not HTTP") from error
        finally:
            if connection and keep:
                connection.is_reused = True
                self._idle.append(connection)
            elif connection:
                connection.writer.transport.abort()

    async def close(self) -> None:
        """Close the idle connections."""
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


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_reused: bool = False

    async def read(self, *, has_body: bool) -> tuple[Reply, bool]:
        """Read an answer, and return whether the connection can be used again."""
        protocol, status, headers = await self._head()
        while 100 <= status < 200:  # noqa: PLR2004 -- informational responses
            protocol, status, headers = await self._head()
        keep = protocol != "HTTP/1.0" and headers.get("connection", "").lower() != "close"
        if not has_body or status in BODILESS:
            body = b""
        elif "chunked" in headers.get("transfer-encoding", "").lower():
            body = await self._chunks()
        elif "content-length" in headers:
            body = await self.reader.readexactly(_checked(int(headers["content-length"])))
        else:
            body, keep = await self._rest(), False
        return Reply(status=status, body=body, headers=headers, is_reused=self.is_reused), keep

    async def _head(self) -> tuple[str, int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        protocol, status, *_ = status_line.split(" ", 2)
        if not protocol.startswith("HTTP/1."):
            raise ValueError(status_line)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return protocol, int(status), headers

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readline()).partition(b";")[0], 16):
            _checked(len(body) + size)
            body += await self.reader.readexactly(size)
            await self.reader.readline()
        while (await self.reader.readline()).strip():
            """Read a trailer."""
        return body

    async def _rest(self) -> bytes:
        body = b""
        while piece := await self.reader.read(MAX_HEAD_BYTES):
            body += piece
            _checked(len(body))
        return body


def _checked(length: int) -> int:
    """Return a length if it is valid."""
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ConnectionError(f"The answer is longer than {MAX_BODY_BYTES:,} bytes")
    return length
