"""A fast store: as much of DynamoDB and SQS as a destination needs, over HTTP/1.1 with persistent connections.

It runs in a process of its own, so its work does not count as work of the measured function. It stores nothing: every
put is the first one, except into `DUPLICATES_TABLE`, where a condition always fails.

DynamoDB: https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/
SQS: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/
"""

import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import ssl
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import click
import trustme

from handler.keys import hash_key

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

LOOPBACK = "127.0.0.1"
START_SECONDS = 30

DUPLICATES_TABLE = "duplicates"
"""A conditional put into this table fails."""
GOOD_KEY = "partner-key-that-is-known"
UNKNOWN_KEY = "partner-key-that-is-not-known"
CUSTOMER_ID = "acme"

Json = dict[str, Any]


class StoreError(Exception):
    """An error answer; its text is the type of the error."""


def get_item(request: Json) -> Json:
    """Find an API key by its hash, in any table."""
    [key] = request["Key"].values()
    if key["S"] != hash_key(GOOD_KEY):
        return _capacity(request)
    item = {**request["Key"], "customer_id": {"S": CUSTOMER_ID}, "status": {"S": "active"}}
    return {"Item": item, **_capacity(request)}


def batch_get_item(request: Json) -> Json:
    """Find none of the items."""
    [table] = request["RequestItems"]
    capacity = {name: [told] for name, told in _capacity({**request, "TableName": table}).items()}
    return {"Responses": {table: []}, "UnprocessedKeys": {}, **capacity}


def put_item(request: Json) -> Json:
    """Accept an item and forget it."""
    if request["TableName"] == DUPLICATES_TABLE and "ConditionExpression" in request:
        raise StoreError("com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException")
    return _capacity(request)


def _capacity(request: Json) -> Json:
    if request.get("ReturnConsumedCapacity", "NONE") == "NONE":
        return {}
    return {"ConsumedCapacity": {"TableName": request["TableName"], "CapacityUnits": 1.0}}


def send_message(request: Json) -> Json:
    """Accept a message and forget it; clients compare the hash with the hash of what they sent."""
    body_hash = hashlib.md5(request["MessageBody"].encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": "00000000-0000-4000-8000-000000000000", "MD5OfMessageBody": body_hash}


def send_message_batch(request: Json) -> Json:
    """Accept all messages and forget them."""
    return {"Successful": [{"Id": entry["Id"], **send_message(entry)} for entry in request["Entries"]]}


def unknown_operation(_: Json) -> Json:
    """Refuse an operation."""
    raise StoreError("com.amazon.coral.service#UnknownOperationException")


OPERATIONS: dict[str, Callable[[Json], Json]] = {
    "GetItem": get_item,
    "BatchGetItem": batch_get_item,
    "PutItem": put_item,
    "SendMessage": send_message,
    "SendMessageBatch": send_message_batch,
}


@dataclass(frozen=True, kw_only=True)
class Received:
    """How many requests of each operation came, and the body of the last one."""

    counts: Counter[str] = field(default_factory=Counter)
    last: dict[str, str] = field(default_factory=dict)

    def response(self, target: str, body: bytes) -> bytes:
        """Carry out the operation that an `X-Amz-Target` header names; return the HTTP response."""
        operation, text = target.rpartition(".")[2], body.decode()
        self.counts[operation] += 1
        self.last[operation] = text
        try:
            status, answer = "200 OK", OPERATIONS.get(operation, unknown_operation)(json.loads(text))
        except StoreError as error:
            status, answer = "400 Bad Request", {"__type": str(error)}
        content = json.dumps(answer, separators=(",", ":")).encode()
        head = (
            f"HTTP/1.1 {status}\r\n"
            "Server: Server\r\n"
            "Date: Thu, 12 Mar 2026 09:30:00 GMT\r\n"
            "Content-Type: application/x-amz-json-1.0\r\n"
            f"Content-Length: {len(content)}\r\n"
            "Connection: keep-alive\r\n"
            "x-amzn-RequestId: 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEF\r\n"
            f"x-amz-crc32: {zlib.crc32(content)}\r\n\r\n"
        )
        return head.encode() + content


class _Connection(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after another."""

    def __init__(self, received: Received, wait_seconds: float) -> None:
        self._received = received
        self._wait_seconds = wait_seconds
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        if not end or len(body) < int(headers.get("content-length", "0")):
            return
        self._buffer = b""  # clients wait for a response before the next request
        response = self._received.response(headers.get("x-amz-target", ""), body)
        asyncio.get_running_loop().call_later(self._wait_seconds, self._transport.write, response)


class StoreServer:
    """A running store; `authority` is the certificate to trust, in PEM, or None without TLS.

    It waits for `wait_seconds` before each response, as a service in another data centre does.
    """

    def __init__(self, *, tls: bool = False, wait_seconds: float = 0.0) -> None:
        """Start a store; raises `click.ClickException` if that fails."""
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_run, args=(child, tls, wait_seconds), daemon=True)
        self._process.start()
        child.close()
        try:
            port, self.authority = self._told()
        except (EOFError, TimeoutError):
            self.stop()
            raise click.ClickException(f"The store did not start within {START_SECONDS} seconds") from None
        self.url = f"{'https' if tls else 'http'}://{LOOPBACK}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.join()

    def received(self) -> Received:
        """Return the requests so far."""
        self._connection.send("received")
        received: Received = self._told()
        return received

    def _told(self) -> Any:  # noqa: ANN401 -- what the other process sends
        if not self._connection.poll(START_SECONDS):
            raise TimeoutError
        return self._connection.recv()


def _run(parent: "Connection[Any, Any]", tls: bool, wait_seconds: float) -> None:  # noqa: FBT001 -- an argument of spawn
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    asyncio.run(_serve(parent, tls=tls, wait_seconds=wait_seconds))


async def _serve(parent: "Connection[Any, Any]", *, tls: bool, wait_seconds: float) -> None:
    context, authority = None, None
    if tls:
        ca = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(LOOPBACK, "localhost").configure_cert(context)
        authority = ca.cert_pem.bytes()
    received = Received()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(received, wait_seconds), LOOPBACK, 0, ssl=context)
    parent.send((server.sockets[0].getsockname()[1], authority))

    def answer() -> None:
        with contextlib.suppress(EOFError):
            parent.recv()
            parent.send(received)
            return
        os._exit(0)  # the parent has ended

    loop.add_reader(parent.fileno(), answer)
    await server.serve_forever()
