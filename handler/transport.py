"""How requests get to a store inside Lambda: over connections that are kept alive, without layers between.

A function serves one event at a time, for which one connection to each service suffices; a batch uses as many as
there are threads (`handler/parallel.py`). This is a handler of botocore's `before-send` event, whose answer stands for
that of botocore's own session; its errors are botocore's too, so that retries go on as ever. It speaks as much of
HTTP/1.1 (RFC 9112) as DynamoDB and SQS do.

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
"""The longest one is an API key's record, of some hundred bytes."""

_PORTS = {"http": 80, "https": 443}


class Connections:
    """Sends the requests of one client, also of several threads. Time-outs are in seconds, and of each wait.

    `roots` are files of the certificates that are trusted; another one is read where the ones before do not suffice.
    """

    def __init__(self, *, connect_timeout: float, read_timeout: float, roots: Sequence[str]) -> None:
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._roots = roots
        self._kept: list[tuple[socket.socket, tuple[str, str]]] = []

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """Return the answer to a request; raises what botocore's own session would."""
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
            self._kept.append((connection, origin))  # now that an answer is there, whole
        return response

    def _close(self, failed: socket.socket) -> None:
        """Close a connection that failed, and the others with it: what ended one may have ended all, unseen."""
        failed.close()
        self._close_kept()

    def _close_kept(self) -> None:
        """Close all kept connections."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._kept.pop()[0].close()

    def _take(self, origin: tuple[str, str]) -> socket.socket | None:
        """Return a kept connection, if there is a good one."""
        while True:
            try:
                connection, its_origin = self._kept.pop()
            except IndexError:
                return None
            if origin == its_origin and not select.select([connection], [], [], 0)[0]:
                return connection
            connection.close()  # as the other side did, where there is something to read

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
    """What botocore reads a body from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


def _octets(request: AWSPreparedRequest) -> bytes:
    """Return a request as it is sent."""
    parts = urlsplit(request.url)
    host = parts.netloc.removesuffix(f":{_PORTS[parts.scheme]}")  # as it is signed
    lines = [f"{request.method} {parts.path or '/'} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
    for name, value in request.headers.items():
        lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    head = "\r\n".join((*lines, "", "")).encode()
    body: Any = request.body or b""  # bytes or text, as both services have it
    return head + (body.encode() if isinstance(body, str) else bytes(body))


def _read(connection: socket.socket, url: str) -> tuple[AWSResponse, bool]:
    """Read an answer, and tell whether it is the last one of its connection; raises `ValueError` for what is none."""
    received = bytearray()
    while (end_of_head := received.find(b"\r\n\r\n")) < 0:
        _receive_more(connection, received)
    status_line, *lines = received[:end_of_head].decode("latin-1").split("\r\n")
    version, status, *_ = status_line.split(None, 2)
    if not version.startswith("HTTP/1."):
        raise ValueError("the answer is no HTTP/1.1")
    headers: Any = {}  # names in lower case
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    begin = end_of_head + len(b"\r\n\r\n")
    end = begin + int(headers["content-length"])
    if end < begin:
        raise ValueError("the answer has less than no length")
    while len(received) < end:
        _receive_more(connection, received)
    is_last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close" or len(received) > end
    return AWSResponse(url, int(status), headers, _Body(bytes(received[begin:end]))), is_last


def _receive_more(connection: socket.socket, received: bytearray) -> None:
    more = connection.recv(RECEIVE_BYTES)
    if not more or len(received) > MAX_ANSWER_BYTES:
        raise ValueError("the answer ends too early, or never")
    received += more
