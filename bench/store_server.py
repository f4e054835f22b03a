"""A store that costs next to nothing: as much of DynamoDB and SQS as a destination needs, over HTTP/1.1, kept alive.

Where it is told so, it waits before it answers, as a service in another place does.

It runs in a process of its own, so that its work is not counted as that of the function that is measured. It holds
nothing: each put is the first one, except into `DUPLICATES_TABLE`, where a condition always fails. API keys that it
knows are those of `API_KEYS`. `GET /` tells how often each operation came, and what the last request of each was.

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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import click
import trustme
import urllib3

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
API_KEYS = {hash_key(GOOD_KEY): CUSTOMER_ID}

Answer = tuple[int, dict[str, Any]]

_CONDITION_FAILED: Answer = (
    400,
    {
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    },
)
_UNKNOWN_OPERATION: Answer = (
    400,
    {
        "__type": "com.amazon.coral.service#UnknownOperationException",
        "message": "This store has GetItem, BatchGetItem, PutItem, SendMessage and SendMessageBatch",
    },
)
_REASONS = {200: "OK", 400: "Bad Request"}


def get_item(request: dict[str, Any]) -> Answer:
    """Find an API key by its hash, in whatever table."""
    answer: dict[str, Any] = {}
    customer_id = API_KEYS.get(next(iter(request["Key"].values()))["S"])
    if customer_id is not None:
        answer["Item"] = {**request["Key"], "customer_id": {"S": customer_id}, "status": {"S": "active"}}
    return 200, answer | _consumed_capacity(request)


def batch_get_item(request: dict[str, Any]) -> Answer:
    """Find none of the items."""
    [table] = request["RequestItems"]
    consumed = _consumed_capacity({**request, "TableName": table})
    answer: dict[str, Any] = {"Responses": {table: []}, "UnprocessedKeys": {}}
    return 200, answer | {name: [capacity] for name, capacity in consumed.items()}


def put_item(request: dict[str, Any]) -> Answer:
    """Take an item, and forget it."""
    if request["TableName"] == DUPLICATES_TABLE and "ConditionExpression" in request:
        return _CONDITION_FAILED
    return 200, _consumed_capacity(request)


def _consumed_capacity(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("ReturnConsumedCapacity", "NONE") == "NONE":
        return {}
    return {"ConsumedCapacity": {"TableName": request["TableName"], "CapacityUnits": 1.0}}


def send_message(request: dict[str, Any]) -> Answer:
    """Take a message, and forget it; clients compare the hash with that of what they sent."""
    return 200, _receipt(request)


def send_message_batch(request: dict[str, Any]) -> Answer:
    """Take all messages, and forget them."""
    return 200, {"Successful": [{"Id": entry["Id"], **_receipt(entry)} for entry in request["Entries"]]}


def _receipt(message: dict[str, Any]) -> dict[str, str]:
    body_hash = hashlib.md5(message["MessageBody"].encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": "00000000-0000-4000-8000-000000000000", "MD5OfMessageBody": body_hash}


OPERATIONS = {
    "GetItem": get_item,
    "BatchGetItem": batch_get_item,
    "PutItem": put_item,
    "SendMessage": send_message,
    "SendMessageBatch": send_message_batch,
}


@dataclass(frozen=True, kw_only=True)
class Received:
    """What the store was asked, by operation."""

    counts: Counter[str] = field(default_factory=Counter)
    last: dict[str, str] = field(default_factory=dict)

    def answer(self, target: str, body: bytes) -> Answer:
        """Carry out the operation that an `X-Amz-Target` header names."""
        operation = target.rpartition(".")[2]
        if operation not in OPERATIONS:
            return _UNKNOWN_OPERATION
        text = body.decode()
        self.counts[operation] += 1
        self.last[operation] = text
        return OPERATIONS[operation](json.loads(text))

    def told(self) -> Answer:
        """Tell what was received."""
        return 200, {"counts": self.counts, "last": self.last}


class _Connection(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self, received: Received, wait_seconds: float) -> None:
        self._received = received
        self._wait_seconds = wait_seconds
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            request_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", "0"))
            if len(rest) < length:
                return
            body, self._buffer = rest[:length], rest[length:]
            if request_line.startswith("GET "):
                self._send(self._received.told())
            else:
                answer = self._received.answer(headers.get("x-amz-target", ""), body)
                if self._wait_seconds:
                    asyncio.get_running_loop().call_later(self._wait_seconds, self._send, answer)
                else:
                    self._send(answer)

    def _send(self, answer: Answer) -> None:
        status, content = answer
        body = json.dumps(content, separators=(",", ":")).encode()
        self._transport.write(
            (
                f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
                "Server: Server\r\n"
                "Date: Thu, 12 Mar 2026 09:30:00 GMT\r\n"
                "Content-Type: application/x-amz-json-1.0\r\n"
                f"Content-Length: {len(body)}\r\n"
                "Connection: keep-alive\r\n"
                "x-amzn-RequestId: 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEF\r\n"
                f"x-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
            ).encode()
            + body
        )


class StoreServer:
    """A running store; `authority` is the certificate to trust, in PEM, None without TLS.

    It waits for so long before each answer of an operation.
    """

    def __init__(self, *, tls: bool = False, wait_seconds: float = 0.0) -> None:
        """Start a store; raises `click.ClickException` where that fails."""
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_run, args=(child, tls, wait_seconds), daemon=True)
        self._process.start()
        child.close()
        told = self._told()
        if told is None:
            self.stop()
            raise click.ClickException(f"The store did not start within {START_SECONDS} seconds")
        port, self.authority = told
        self.url = f"{'https' if tls else 'http'}://{LOOPBACK}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.join()

    def _told(self) -> tuple[int, bytes | None] | None:
        """Wait for the port and the authority, None where they do not come."""
        try:
            return self._connection.recv() if self._connection.poll(START_SECONDS) else None
        except EOFError:
            return None

    def received(self) -> Received:
        """Ask what came so far."""
        context = ssl.create_default_context(cadata=self.authority.decode()) if self.authority else None
        with urllib3.PoolManager(ssl_context=context) as http:
            told = http.request("GET", self.url, timeout=START_SECONDS, retries=False).json()
        return Received(counts=Counter(told["counts"]), last=told["last"])


def _run(ready: "Connection[tuple[int, bytes | None], None]", tls: bool, wait_seconds: float) -> None:  # noqa: FBT001 -- an argument of spawn
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    asyncio.run(_serve(ready, tls=tls, wait_seconds=wait_seconds))


async def _serve(ready: "Connection[tuple[int, bytes | None], None]", *, tls: bool, wait_seconds: float) -> None:
    context, authority = None, None
    if tls:
        ca = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ca.issue_cert(LOOPBACK, "localhost").configure_cert(context)
        authority = ca.cert_pem.bytes()
    received = Received()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(received, wait_seconds), LOOPBACK, 0, ssl=context)
    ready.send((server.sockets[0].getsockname()[1], authority))
    loop.add_reader(ready.fileno(), lambda: _end_with_parent(ready))
    await server.serve_forever()


def _end_with_parent(ready: "Connection[tuple[int, bytes | None], None]") -> None:
    with contextlib.suppress(EOFError):
        ready.recv()  # nothing comes but the end of the parent
    os._exit(0)
