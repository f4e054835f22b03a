"""What a store does that can't be reached or that babbles: always a fault of ours, and never a success or a 401."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread

import boto3
import pytest
from botocore.config import Config

from handler.canonicalise import canonicalise
from handler.errors import EventStoreUnavailable, KeyStoreUnavailable
from handler.keys import KeyStore
from handler.record import Record
from handler.write import EventQueue, EventTable

[MESSAGE] = canonicalise({"type": "track", "event": "Lamp Lit", "userId": "keeper-17"})
RECORD = Record(customer_id="acme", message=MESSAGE, settings={}, stored_at=0)
CONFIG = Config(connect_timeout=0.2, read_timeout=0.2, retries={"total_max_attempts": 1})
CREDENTIALS = {"region_name": "us-east-1", "aws_access_key_id": "local", "aws_secret_access_key": "local"}


def find_key(url):
    with connected("dynamodb", url) as client:
        store = KeyStore(client, "keys", cache_seconds=0, grace_seconds=0, accept_demo_keys=False, clock=lambda: 0.0)
        return store.find("a-key")


def put_item(url):
    with connected("dynamodb", url) as client:
        return EventTable(client, "events", retention_days=0).write(RECORD)


def send_message(url):
    with connected("sqs", url) as client:
        return EventQueue(client, f"{url}/0/events").write(RECORD)


@contextmanager
def connected(service, url) -> Iterator:
    client = boto3.client(service, endpoint_url=url, config=CONFIG, **CREDENTIALS)
    yield client
    client.close()


CALLS = [(find_key, KeyStoreUnavailable), (put_item, EventStoreUnavailable), (send_message, EventStoreUnavailable)]


@pytest.fixture
def listener():
    """Return a server that answers every request with `answer`, or, where that is None, not before the test ends."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.server.answer is None:
                self.server.over.wait()
                return
            status, body = self.server.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.over = Event()
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("call", "refusal"), CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        (200, b""),
        (200, b"{}"),
        (200, b"<html>Welcome</html>"),
        (200, b'{"ConsumedCapacity": null, "MessageId": null}'),
        (200, b'{"Item": {"customer_id": {"S": "ac'),
        (302, b""),
        (400, b""),
        (403, b'{"__type": "AccessDeniedException"}'),
        (404, b"Not Found"),
        (500, b"Oops"),
        (503, b""),
        None,
    ],
    ids=repr,
)
def test_an_answer_that_confirms_nothing_is_a_fault_of_the_store(listener, answer, call, refusal):
    listener.answer = answer
    with pytest.raises(refusal) as caught:
        call(f"http://127.0.0.1:{listener.server_port}")
    assert caught.value.status == 503


@pytest.mark.parametrize(("call", "refusal"), CALLS)
def test_a_store_that_cannot_be_reached_is_at_fault(call, refusal):
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    with pytest.raises(refusal):
        call(f"http://127.0.0.1:{port}")
