"""An AWS of one's own (moto) in a process of its own, so that function processes and commands can share it.

moto loses acknowledged writes when threads use it at once, so requests are let in one by one.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import click
from werkzeug.serving import WSGIRequestHandler, make_server

from cli.addresses import is_here
from cli.stack import LOCAL_REGION

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOOPBACK = "127.0.0.1"
CONTAINER_BRIDGE = "172.17.0.1"
"""Where containers find this machine by default, https://docs.docker.com/engine/network/drivers/bridge/"""
DESKTOP_HOST = "host.docker.internal"
"""Where they find it with Docker Desktop, whose bridge is not on this machine."""

START_SECONDS = 60

COUNTED_SECONDS = 0.2
"""For how long the number of messages in a queue is not counted anew."""
MAX_SHARD_ITERATORS = 1000
"""Places in a stream that are remembered: the latest ones, which are a minute's at least."""


class EmbeddedAws:
    """A running moto server; `container_url` is its address as seen from a container."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_run, args=(child,), daemon=True)
        self._process.start()
        child.close()
        if not self._connection.poll(START_SECONDS):
            self.stop()
            raise click.ClickException(f"The embedded AWS did not start within {START_SECONDS} seconds")
        port, reaches_containers = self._connection.recv()
        self.url = f"http://{LOOPBACK}:{port}"
        self.container_url = f"http://{CONTAINER_BRIDGE if reaches_containers else DESKTOP_HOST}:{port}"

    def stop(self) -> None:
        """End the server; what it holds is gone."""
        self._process.terminate()
        self._process.join()


class _QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 -- werkzeug's name
        """Say nothing of single requests."""


class _Latest(dict[str, object]):
    """Forgets the oldest: moto makes a place in a stream for each look into it, and would keep them all."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, value)
        if len(self) > MAX_SHARD_ITERATORS:
            del self[next(iter(self))]


def _run(ready: "Connection[tuple[int, bool], None]") -> None:
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = _one_by_one(dispatcher(werkzeug_app.create_backend_app))
    loopback = make_server(LOOPBACK, 0, app, threaded=True, request_handler=_QuietHandler)
    servers = [loopback]
    if _is_own_address(CONTAINER_BRIDGE):
        servers.append(make_server(CONTAINER_BRIDGE, loopback.port, app, threaded=True, request_handler=_QuietHandler))
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    ready.send((loopback.port, len(servers) > 1))
    with contextlib.suppress(EOFError):
        ready.recv()  # nothing comes but the end of the parent
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


def _one_by_one(app: "WSGIApplication") -> "WSGIApplication":
    lock = threading.Lock()

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if _is_of_site(environ):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"No web site may use this AWS"]
        with lock:
            return app(environ, start_response)

    return serve


def _is_of_site(environ: "WSGIEnvironment") -> bool:
    """Whether a browser sends a request for a site that it has open, which moto would let in, or by a name of one."""
    host = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    return "HTTP_ORIGIN" in environ or not (is_here(host) or host in (CONTAINER_BRIDGE, DESKTOP_HOST))
