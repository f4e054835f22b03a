"""An embedded AWS (ministack) in a process of its own, shared by function processes and commands.

Few of its services are reachable: those of `SERVICES`. It keeps everything in memory.

Run as `python -m cli.local.embedded_aws`, this module is that process. It prints where it listens as a line of JSON.
It ends when its standard input ends, which happens when the parent ends.
"""

import asyncio
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from subprocess import PIPE
from typing import TextIO

import click
from starlette.types import ASGIApp, Receive, Scope, Send

from cli.addresses import is_loopback, parse_host
from cli.local.environment import local_environment
from cli.stack import ROOT

LOOPBACK = "127.0.0.1"
CONTAINER_BRIDGE = "172.17.0.1"
"""Where containers find this machine by default, https://docs.docker.com/engine/network/drivers/bridge/"""
DESKTOP_HOST = "host.docker.internal"
"""Where they find it with Docker Desktop, whose bridge is not on this machine."""

START_SECONDS = 60
LOOK_SECONDS = 0.5
"""Between two looks whether the process still runs."""
FOR_CONTAINERS = "--for-containers"

SERVICES = ("cloudformation", "dynamodb", "dynamodbstreams", "sqs")


class EmbeddedAws:
    """A running server on loopback; `for_containers` opens it to containers on this machine too.

    `container_url` is its address as seen from a container.
    """

    def __init__(self, *, for_containers: bool = False, services: Sequence[str] = SERVICES) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- our own module
            [sys.executable, "-m", "cli.local.embedded_aws", *([FOR_CONTAINERS] if for_containers else [])],
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            env=local_environment({"SERVICES": ",".join(services), "LOG_LEVEL": "ERROR"}),
            process_group=0,  # Control-C is for the parent
        )
        try:
            port, reaches_containers = self._read_address()
        except BaseException:
            self.stop()
            raise
        self.url = f"http://{LOOPBACK}:{port}"
        self.container_url = f"http://{CONTAINER_BRIDGE if reaches_containers else DESKTOP_HOST}:{port}"

    def _read_address(self) -> tuple[int, bool]:
        out = self._process.stdout
        if out is None or not select.select([out], [], [], START_SECONDS)[0]:
            raise click.ClickException(f"The embedded AWS did not start within {START_SECONDS} seconds")
        try:
            port, reaches_containers = json.loads(out.readline())
        except ValueError as error:
            raise click.ClickException("The embedded AWS ended while it started") from error
        return port, reaches_containers

    async def watch(self) -> str:
        """Wait until its process ends, and say so."""
        while self._process.poll() is None:  # noqa: ASYNC110 -- Popen has no event
            await asyncio.sleep(LOOK_SECONDS)
        return f"The embedded AWS has ended (exit code {self._process.returncode}), and what it stored is gone"

    def stop(self) -> None:
        """End the server; what it holds is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def run(*, for_containers: bool) -> None:
    """Serve until standard input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # for whatever ministack may print
    loopback = _listen(LOOPBACK, 0)
    port = loopback.getsockname()[1]
    listeners = [loopback]
    if for_containers:
        with contextlib.suppress(OSError):  # there is no such bridge on this machine
            listeners.append(_listen(CONTAINER_BRIDGE, port))
    # ministack reads it when it is imported: it is part of the URLs of queues.
    os.environ["GATEWAY_PORT"] = str(port)
    # Slow, and only this process needs it.
    import uvicorn  # noqa: PLC0415
    from ministack.app import app  # noqa: PLC0415

    guard = _Guard(app=app, hosts=(CONTAINER_BRIDGE, DESKTOP_HOST) if for_containers else ())
    # Its lifespan starts what other services need: schedulers, and a search for containers that it left behind.
    config = uvicorn.Config(guard, lifespan="off", ws="none", log_level="error", access_log=False)
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
    """An ASGI application that lets only clients of AWS use `app`, and not web sites in a browser.

    A browser names the origin of most requests, but not of a GET to an address such as Docker's bridge. All clients of
    AWS sign their requests, which a site can't do without asking first.
    """

    app: ASGIApp
    hosts: Collection[str]
    """The host names that clients may use, apart from those of loopback addresses."""

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
