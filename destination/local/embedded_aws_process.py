"""The process of the embedded AWS, started by `embedded_aws.py`: ministack behind a guard, served by uvicorn.

It prints its address as a line of JSON. It ends when its standard input closes, because then the parent has ended. It
imports little else, because its start is part of each start of the local server.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import TextIO

from starlette.types import ASGIApp, Receive, Scope, Send

from destination.web.addresses import is_loopback, parse_host

LOOPBACK = "127.0.0.1"
CONTAINER_BRIDGE = "172.17.0.1"
"""The default address of this machine for containers, https://docs.docker.com/engine/network/drivers/bridge/"""
DESKTOP_HOST = "host.docker.internal"
"""The address with Docker Desktop, whose bridge is not on this machine."""
FOR_CONTAINERS = "--for-containers"


def run(*, for_containers: bool) -> None:
    """Serve until standard input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # ministack may print something to standard output
    loopback = _listen(LOOPBACK, 0)
    port = loopback.getsockname()[1]
    listeners = [loopback]
    if for_containers:
        with contextlib.suppress(OSError):  # there is no such bridge on this machine
            listeners.append(_listen(CONTAINER_BRIDGE, port))
    # ministack reads this variable at import, and uses it in the URLs of queues.
    os.environ["GATEWAY_PORT"] = str(port)
    # Imported here because it is slow, and only the process itself needs it.
    import uvicorn  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    from destination.web.joined_writes import JoinedWritesProtocol  # noqa: PLC0415

    guard = _Guard(app=app, hosts=(CONTAINER_BRIDGE, DESKTOP_HOST) if for_containers else ())
    # Its lifespan starts parts that only other services need: schedulers, and a search for containers of an earlier
    # run.
    config = uvicorn.Config(
        guard, lifespan="off", http=JoinedWritesProtocol, ws="none", log_level="error", access_log=False
    )
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    out.write(json.dumps([port, len(listeners) > 1]) + "\n")
    out.flush()
    uvicorn.Server(config).run(listeners)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _end_with(parent: TextIO) -> None:
    parent.read()  # it sends nothing
    os._exit(0)


@dataclass(frozen=True, kw_only=True)
class _Guard:
    """An ASGI application that lets only clients of AWS use `app`, and no web site in a browser.

    A browser sends the origin with most requests, but not with a GET to an address such as Docker's bridge. All clients
    of AWS sign their requests, which a site can't do without a preflight request.
    """

    app: ASGIApp
    hosts: Collection[str]
    """The host names that clients may use, besides loopback names and addresses."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_of_client(scope):
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"No web site may use this AWS, and requests must be signed"})

    def _is_of_client(self, scope: Scope) -> bool:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = parse_host(headers.get(b"host", ""))
        is_of_site = b"origin" in headers or b"sec-fetch-site" in headers
        is_signed = headers.get(b"authorization", "").startswith("AWS4-HMAC-SHA256 ")
        return host is not None and (is_loopback(host) or host in self.hosts) and is_signed and not is_of_site


if __name__ == "__main__":
    run(for_containers=FOR_CONTAINERS in sys.argv[1:])
