"""An AWS of one's own (moto) in a process of its own, so that function processes and commands can share it.

moto loses acknowledged writes when threads use it at once, so requests are let in one by one.

Run as `python -m cli.local.embedded_aws`, this module is that process: it prints where it listens as a line of JSON,
and ends when its standard input ends, which it does with the parent.
"""

import asyncio
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable
from functools import cache
from subprocess import PIPE
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import click
from werkzeug.serving import WSGIRequestHandler, make_server

from cli.addresses import is_loopback, parse_host
from cli.clients import LOCAL_REGION
from cli.local.environment import local_environment
from cli.stack import ROOT

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK = "127.0.0.1"
CONTAINER_BRIDGE = "172.17.0.1"
"""Where containers find this machine by default, https://docs.docker.com/engine/network/drivers/bridge/"""
DESKTOP_HOST = "host.docker.internal"
"""Where they find it with Docker Desktop, whose bridge is not on this machine."""

START_SECONDS = 60
LOOK_SECONDS = 0.5
"""Between two looks whether the process still runs."""
FOR_CONTAINERS = "--for-containers"

COUNTED_SECONDS = 0.2
"""For how long the number of messages in a queue is not counted anew."""
MAX_SHARD_ITERATORS = 1000
"""Places in a stream that are remembered: the latest ones, which are a minute's at least."""


class EmbeddedAws:
    """A running moto server on loopback; `for_containers` opens it to containers on this machine too.

    `container_url` is its address as seen from a container.
    """

    def __init__(self, *, for_containers: bool = False) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- our own module
            [sys.executable, "-m", "cli.local.embedded_aws", *([FOR_CONTAINERS] if for_containers else [])],
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            env=local_environment(),
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


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 -- werkzeug's name
        """Say nothing of single requests."""


class _Latest(dict[str, object]):
    """Forgets the oldest: moto makes a place in a stream for each look into it, and would keep them all."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        if len(self) > MAX_SHARD_ITERATORS:
            del self[next(iter(self))]


def run(*, for_containers: bool) -> None:
    """Serve until standard input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # for whatever moto may print
    # Slow, and only this process needs it.
    import moto.core.responses  # noqa: PLC0415
    from moto.core.models import DEFAULT_ACCOUNT_ID  # noqa: PLC0415
    from moto.dynamodbstreams.models import dynamodbstreams_backends  # noqa: PLC0415
    from moto.moto_server import werkzeug_app  # noqa: PLC0415
    from moto.sqs.models import Queue  # noqa: PLC0415

    streams: Any = dynamodbstreams_backends[DEFAULT_ACCOUNT_ID][LOCAL_REGION]
    streams.shard_iterators = _Latest()
    # Both look for the same in files and classes with each request, which is a fifth of the time that one takes.
    dispatcher: Any = werkzeug_app.DomainDispatcherApplication
    responses: Any = moto.core.responses
    dispatcher.get_backend_for_host = cache(dispatcher.get_backend_for_host)
    responses.method_names_from_class = cache(responses.method_names_from_class)
    # Each message that is sent or received asks for all of these numbers, for which all in the queue are counted.
    for name in ("", "_delayed", "_not_visible"):
        _count_seldom(Queue, f"approximate_number_of_messages{name}")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    hosts = (CONTAINER_BRIDGE, DESKTOP_HOST) if for_containers else ()
    app = _one_by_one(dispatcher(werkzeug_app.create_backend_app), hosts)
    loopback = make_server(LOOPBACK, 0, app, threaded=True, request_handler=_QuietHandler)
    servers = [loopback]
    if for_containers and _is_own_address(CONTAINER_BRIDGE):
        servers.append(make_server(CONTAINER_BRIDGE, loopback.port, app, threaded=True, request_handler=_QuietHandler))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    out.write(json.dumps([loopback.port, len(servers) > 1]) + "\n")
    out.flush()
    sys.stdin.read()  # nothing comes but the end of the parent
    os._exit(0)


def _count_seldom(kind: type, name: str) -> None:
    """Let a property, which is an approximate number in SQS too, be some moments old."""
    count = getattr(kind, name).fget
    known: WeakKeyDictionary[object, tuple[float, int]] = WeakKeyDictionary()

    def number(queue: object) -> int:
        until, value = known.get(queue, (0.0, 0))
        if time.monotonic() >= until:
            value = count(queue)
            known[queue] = (time.monotonic() + COUNTED_SECONDS, value)
        return value

    setattr(kind, name, property(number))


def _is_own_address(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _one_by_one(app: "WSGIApplication", hosts: Collection[str]) -> "WSGIApplication":
    lock = threading.Lock()

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _is_of_client(environ, hosts):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"No web site may use this AWS, and requests must be signed"]
        with lock:
            return app(environ, start_response)

    return serve


def _is_of_client(environ: "WSGIEnvironment", hosts: Collection[str]) -> bool:
    """Whether a client of AWS sends a request, and not a browser for a site, by its own origin or by a name of its own.

    A browser tells the origin of most requests, but not of a GET to an address such as Docker's bridge. All clients of
    AWS sign their requests, which a site can't do without asking first.
    """
    host = parse_host(environ.get("HTTP_HOST", ""))
    is_of_site = "HTTP_ORIGIN" in environ or "HTTP_SEC_FETCH_SITE" in environ
    is_signed = environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4-HMAC-SHA256 ")
    return host is not None and (is_loopback(host) or host in hosts) and is_signed and not is_of_site


if __name__ == "__main__":
    run(for_containers=FOR_CONTAINERS in sys.argv[1:])
