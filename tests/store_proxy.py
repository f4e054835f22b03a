"""A server before a store that passes requests on, until it is told to do worse."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import urllib3

DRIBBLE_SECONDS = 0.3
"""Between two bytes: less than a client's patience with a silent connection."""


class Fault(Enum):
    """What is wrong with the store."""

    NONE = auto()
    HANGS = auto()
    DRIBBLES = auto()
    HAS_NO_QUEUES = auto()


class StoreProxy(ThreadingHTTPServer):
    """A proxy for the store server at `target`."""

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Pass)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.target = target
        self.http = urllib3.PoolManager()
        self.fault = Fault.NONE
        self.over = Event()


class _Pass(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StoreProxy

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.server.fault
        if fault is Fault.HANGS:
            self.close_connection = self.server.over.wait()
            return
        if fault is Fault.HAS_NO_QUEUES and self.headers["X-Amz-Target"].startswith("AmazonSQS"):
            self._answer(400, b'{"__type": "UnknownOperationException"}')
            return
        url = self.server.target + self.path
        answer = self.server.http.request("POST", url, headers=dict(self.headers), body=body)
        self._answer(answer.status, answer.data, seconds_per_byte=DRIBBLE_SECONDS if fault is Fault.DRIBBLES else 0)

    def _answer(self, status: int, content: bytes, *, seconds_per_byte: float = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not seconds_per_byte:
            self.wfile.write(content)
            return
        with suppress(ConnectionError):
            for byte in content:
                self.wfile.write(bytes([byte]))
                if self.server.over.wait(seconds_per_byte):
                    break

    def log_message(self, *_args):
        pass


@contextmanager
def store_proxy(target: str) -> Iterator[StoreProxy]:
    """Run a proxy."""
    with StoreProxy(target) as proxy, proxy.http:
        thread = Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.over.set()
            proxy.shutdown()
            thread.join()
