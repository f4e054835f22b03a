"""Send requests to a store inside Lambda, over kept-alive connections and without botocore's HTTP layers.

A function serves one event at a time, so one connection to each service is enough; a batch uses one per thread
(`handler/parallel.py`). This is a handler of botocore's `before-send` event: its response replaces the response of
botocore's own session. Its errors are botocore's too, so retries work as usual. It implements the part of HTTP/1.1 (RFC
9112) that DynamoDB and SQS use.

https://boto3.amazonaws.com/v1/documentation/api/latest/guide/events.html
"""

import select
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)

RECEIVE_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 1024 * 1024
"""The longest response is an API key's record, of some hundred bytes."""

_PORTS = {"http": 80, "https": 443}


class Connections:
    """Sends the requests of one client, from several threads. Time-outs are in seconds, for each wait.

    `roots` are certificate files. Each file is loaded only if the files before it can't verify the server.
    """

    def __init__(self, *, connect_timeout: float, read_timeout: float, roots: Sequence[str]) -> None:
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._roots = roots
        self._kept: list[tuple[socket.socket, tuple[str, str]]] = []

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """Return the response to a request; raises the errors of botocore's own session."""
        origin = urlsplit(request.url)[:2]
        try:
            connection = self._take(origin) or self._connect(request.url)
        except TimeoutError as error:
            raise ConnectTimeoutError(endpoint_url=request.url, error=error) from error
        except ssl.SSLError as error:
            raise SSLError(endpoint_url=request.url, error=error) from error
        except OSError as error:
            raise EndpointConnectionError(endpoint_url=request.url, error=error) from error
        try:
            connection.sendall(_octets(request))
            response, is_last = _read(connection, request.url)
        except TimeoutError as error:
            self._close(connection)
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except (OSError, LookupError, ValueError) as error:
            self._close(connection)
            raise ConnectionClosedError(endpoint_url=request.url, error=error) from error
        if is_last:
            connection.close()
        else:
            self._kept.append((connection, origin))  # kept only now: the whole response has been read
        return response

    def _close(self, failed: socket.socket) -> None:
        """Close the failed connection and all idle ones: they may be dead too."""
        failed.close()
        self._close_kept()

    def _close_kept(self) -> None:
        """Close all idle connections."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._kept.pop()[0].close()

    def _take(self, origin: tuple[str, str]) -> socket.socket | None:
        """Return an idle connection that still works, or None."""
        while True:
            try:
                connection, its_origin = self._kept.pop()
            except IndexError:
                return None
            if origin == its_origin and not select.select([connection], [], [], 0)[0]:
                return connection
            connection.close()  # data to read means that the other side closed it

    def _connect(self, url: str) -> socket.socket:
        parts = urlsplit(url)
        roots = self._roots
        address = (parts.hostname, parts.port or _PORTS[parts.scheme])
        connection = socket.create_connection(address, self._connect_timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if parts.scheme == "https":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_verify_locations(roots[0])
                connection = context.wrap_socket(connection, server_hostname=parts.hostname)
            connection.settimeout(self._read_timeout)
        except OSError as error:
            connection.close()
            if isinstance(error, ssl.SSLCertVerificationError) and len(roots) > 1:
                self._roots = roots[1:]
                return self._connect(url)
            raise
        return connection


class _Body:
    """A stream from which botocore reads a body."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def _octets(request: AWSPreparedRequest) -> bytes:
    """Return a request as it is sent over the connection."""
    parts = urlsplit(request.url)
    host = parts.netloc.removesuffix(f":{_PORTS[parts.scheme]}")  # the signature has the host without a default port
    lines = [f"{request.method} {parts.path or '/'} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
    for name, value in request.headers.items():
        lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    head = "\r\n".join((*lines, "", "")).encode()
    body: Any = request.body or b""  # bytes or text, depending on the service
    return head + (body.encode() if isinstance(body, str) else bytes(body))


def _read(connection: socket.socket, url: str) -> tuple[AWSResponse, bool]:
    """Read a response, and return whether it is the connection's last one; raises `ValueError` if it is invalid."""
    received = bytearray()
    while (end_of_head := received.find(b"\r\n\r\n")) < 0:
        _receive_more(connection, received)
    status_line, *lines = received[:end_of_head].decode("latin-1").split("\r\n")
    version, status, *_ = status_line.split(None, 2)
    if not version.startswith("HTTP/1."):
        raise ValueError("the response is not HTTP/1.1")
    headers: Any = {}  # names in lower case
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    begin = end_of_head + len(b"\r\n\r\n")
    end = begin + int(headers["content-length"])
    if end < begin:
        raise ValueError("the response has a negative length")
    while len(received) < end:
        _receive_more(connection, received)
    is_last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close" or len(received) > end
    return AWSResponse(url, int(status), headers, _Body(bytes(received[begin:end]))), is_last


def _receive_more(connection: socket.socket, received: bytearray) -> None:
    more = connection.recv(RECEIVE_BYTES)
    if not more or len(received) > MAX_ANSWER_BYTES:
        raise ValueError("the response ends too early, or never")
    received += more
