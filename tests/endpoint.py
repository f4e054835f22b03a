"""An HTTP endpoint that returns any answer that a test wants, byte by byte."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request: its raw head, and the numbers of its connection and of the request."""

    head: str
    body: bytes
    connection: object
    number: int


Answer = Callable[[Received], Iterable[bytes]]
"""The pieces of an answer. An answer without pieces closes the connection."""


class Endpoint(ThreadingTCPServer):
    """A server that records the requests."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.received: list[Received] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/segment"


class _Handler(StreamRequestHandler):
    server: Endpoint

    def handle(self):
        with suppress(ConnectionError):
            while self.handle_request():
                pass

    def handle_request(self) -> bool:
        head = ""
        while not head.endswith("\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return False
            head += line.decode()
        length = head.lower().partition("content-length:")[2].split()
        body = self.rfile.read(int(length[0]) if length else 0)
        received = Received(head=head, body=body, connection=self.request, number=len(self.server.received) + 1)
        self.server.received.append(received)
        pieces = 0
        for piece in self.server.answer(received):
            self.wfile.write(piece)
            pieces += 1
        return pieces > 0


def response(status: int, body: str = "{}", *headers: str) -> list[bytes]:
    """Return an HTTP/1.1 answer."""
    lines = (f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body.encode())}", *headers, "", body)
    return ["\r\n".join(lines).encode()]


@contextmanager
def endpoint(answer: Answer) -> Iterator[Endpoint]:
    """Run an endpoint."""
    with Endpoint(answer) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
