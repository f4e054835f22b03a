"""An HTTP proxy that injects faults between the function and its stores.

It is a real server, so that faults occur on the function's own sockets. It supports plain HTTP/1.1 with persistent
connections, as far as the JSON protocols of DynamoDB and SQS need it.

`python -m destination.local.faults URL` runs such a proxy in front of the server at URL.
"""

import asyncio
import json
import random
import re
import socket
import struct
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter, Task
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

import click

LOOPBACK = "127.0.0.1"
REFUSED_SECONDS = 0.2
"""Time for which the port stays closed, for all clients: a client's next try comes within 0.05 s (botocore)."""
DRIBBLE_SECONDS = 0.2
"""Pause between two bytes: less than the read time-out of the function's clients, 0.6 s (handler/settings.py)."""
MAX_DRIBBLES = 55
"""Bytes in 11 s: an endpoint's function has ended by then, after 10 s. An eraser would wait for 15 minutes."""


class Store(StrEnum):
    """The stores that the function calls."""

    KEYS = "keys"
    EVENTS = "events"
    REJECTS = "rejects"
    ERASURES = "erasures"
    QUEUE = "queue"


TABLES = {
    "KeyTable": Store.KEYS,
    "EventTable": Store.EVENTS,
    "RejectsTable": Store.REJECTS,
    "ErasureTable": Store.ERASURES,
}
"""Logical name in template.yaml, which is also part of a deployed table's name -> store."""


class Fault(StrEnum):
    """The faults of a request. With a fault of `APPLIED`, the store carries out the request anyway."""

    REFUSED = "connection refused"
    RESET = "connection reset in mid-answer"
    HANGS_BEFORE = "time-out before the write"
    HANGS_AFTER = "time-out after the write"
    DRIBBLES = "slow bytes without an end"
    THROUGHPUT_EXCEEDED = "throughput exceeded"
    THROTTLED = "throttled"
    INTERNAL_ERROR = "500"
    UNAVAILABLE = "503"
    GARBLED = "200 with a garbled body"
    NULL = "200 with null"
    EMPTY = "200 with an empty body"
    EXPIRED_CREDENTIALS = "expired credentials"
    ACCESS_DENIED = "access denied"
    MISSING = "missing table or queue"


APPLIED = frozenset({Fault.RESET, Fault.HANGS_AFTER, Fault.DRIBBLES})


class BatchFault(StrEnum):
    """The faults of a part of a batch request: the store carries out the rest."""

    PARTIAL = "part of a batch fails"


AnyFault = Fault | BatchFault
ALL_FAULTS: tuple[AnyFault, ...] = (*Fault, *BatchFault)
KINDS: Mapping[str, tuple[AnyFault, ...]] = {
    "refused": (Fault.REFUSED,),
    "reset": (Fault.RESET,),
    "timeout": (Fault.HANGS_BEFORE, Fault.HANGS_AFTER),
    "slow": (Fault.DRIBBLES,),
    "throttle": (Fault.THROUGHPUT_EXCEEDED, Fault.THROTTLED),
    "error": (Fault.INTERNAL_ERROR, Fault.UNAVAILABLE),
    "garbled": (Fault.GARBLED, Fault.NULL, Fault.EMPTY),
    "denied": (Fault.EXPIRED_CREDENTIALS, Fault.ACCESS_DENIED),
    "missing": (Fault.MISSING,),
    "partial": (BatchFault.PARTIAL,),
}
"""The words of `serve --faults`, each with its faults; one of them is drawn at random."""
REDELIVERY = "redeliver"
"""The word of `serve --faults` that is not a store fault: a consumer gets a finished batch once more."""

_CONFIRMS_NOTHING = {Fault.GARBLED: b'{"Item": {"customer_id": {"S": "ac\xff', Fault.NULL: b"null", Fault.EMPTY: b""}

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-json-api-responses.html
_CORAL = "com.amazon.coral.service#"
_THROTTLING = "com.amazon.coral.availability#ThrottlingException"
_DYNAMODB = "com.amazonaws.dynamodb.v20120810#"
_SQS = "com.amazonaws.sqs#"
_ERRORS: Mapping[Fault, tuple[int, str, str]] = {
    Fault.THROUGHPUT_EXCEEDED: (400, f"{_DYNAMODB}ProvisionedThroughputExceededException", f"{_SQS}RequestThrottled"),
    Fault.THROTTLED: (400, _THROTTLING, _THROTTLING),
    Fault.INTERNAL_ERROR: (500, f"{_DYNAMODB}InternalServerError", f"{_CORAL}InternalFailure"),
    Fault.UNAVAILABLE: (503, f"{_CORAL}ServiceUnavailableException", f"{_CORAL}ServiceUnavailableException"),
    Fault.EXPIRED_CREDENTIALS: (400, f"{_CORAL}ExpiredTokenException", f"{_CORAL}ExpiredTokenException"),
    Fault.ACCESS_DENIED: (400, f"{_CORAL}AccessDeniedException", f"{_CORAL}AccessDeniedException"),
    Fault.MISSING: (400, f"{_DYNAMODB}ResourceNotFoundException", f"{_SQS}QueueDoesNotExist"),
}
"""Fault -> status, and `__type` in DynamoDB and in SQS."""
_QUERY_CODES = {f"{_SQS}QueueDoesNotExist": "AWS.SimpleQueueService.NonExistentQueue"}
"""SQS also names errors by the code of its older protocol; these have another name there."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """With `probability`, a request to one of `stores` meets one of `faults`, chosen by weight.

    Without `weights`, all faults are equally likely. A batch fault affects only requests with several entries.
    """

    probability: float = 1
    stores: frozenset[Store] = frozenset(Store)
    faults: tuple[AnyFault, ...] = tuple(Fault)
    weights: tuple[float, ...] | None = None

    def draw(self, chance: random.Random, *, is_batch: bool) -> AnyFault | None:
        """Return the fault for a request, or None."""
        if chance.random() >= self.probability:
            return None
        if self.weights is None:
            possible = [fault for fault in self.faults if is_batch or not isinstance(fault, BatchFault)]
            return chance.choice(possible) if possible else None
        [fault] = chance.choices(self.faults, self.weights)
        return fault if is_batch or not isinstance(fault, BatchFault) else None


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The faults that `serve --faults` requests: the rules of the proxy, and the probability of a redelivery."""

    rules: tuple[Rule, ...] = ()
    redelivery: float = 0.0


def parse_orders(text: str) -> Orders:
    """Parse `0.05`, or kinds with rates such as `throttle:0.1,partial:0.2`; raises `ValueError` with a text."""
    rates: dict[str, float] = {}
    for part in text.split(","):
        kind, colon, rate = part.strip().rpartition(":")
        name = kind.strip() if colon else "all"
        if name not in (*KINDS, REDELIVERY, "all"):
            raise ValueError(f"{name or part} is not a kind of fault: write {', '.join((*KINDS, REDELIVERY))}")
        if name in rates:
            raise ValueError(f"{name} is named twice")
        rates[name] = _rate(rate)
    redelivery = rates.pop(REDELIVERY, 0.0)
    faults: list[tuple[AnyFault, float]] = []
    for name, rate_of_kind in rates.items():
        kinds = ALL_FAULTS if name == "all" else KINDS[name]
        faults += [(fault, rate_of_kind / len(kinds)) for fault in kinds]
    probability = sum(rates.values())
    if probability > 1:
        raise ValueError("the rates add up to more than 1")
    if not probability:
        return Orders(redelivery=redelivery)
    if set(rates) == {"all"}:
        return Orders(rules=(Rule(probability=probability, faults=ALL_FAULTS),), redelivery=redelivery)
    names, weights = zip(*[(fault, weight) for fault, weight in faults if weight], strict=True)
    return Orders(rules=(Rule(probability=probability, faults=names, weights=weights),), redelivery=redelivery)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1
    if not 0 <= rate <= 1:
        raise ValueError(f"{text.strip() or 'nothing'} is not a rate: write a number from 0 to 1, such as 0.05")
    return rate


@dataclass(frozen=True, kw_only=True)
class _Request:
    """An HTTP request; `head` is everything before the body."""

    head: bytes
    body: bytes

    @property
    def store(self) -> Store | None:
        """The store that is called, None if the function does not use it."""
        target = re.search(rb"\r\nX-Amz-Target: *(\w+)\.", self.head, re.IGNORECASE)
        if target is None:
            return None
        if target[1] == b"AmazonSQS":
            return Store.QUEUE
        said = json.loads(self.body)
        table = str(said.get("TableName") or [*said.get("RequestItems", ())])  # a BatchGetItem
        return next((store for name, store in TABLES.items() if name in table), None)

    @property
    def operation(self) -> str:
        """The operation that is called, "" if the request has none."""
        target = re.search(rb"\r\nX-Amz-Target: *\w+\.(\w+)", self.head, re.IGNORECASE)
        return target[1].decode() if target else ""

    @property
    def is_batch(self) -> bool:
        """Return whether the request has several entries, so that a part of them can fail."""
        return self.operation in ("SendMessageBatch", "BatchGetItem", "BatchExecuteStatement")


class FaultProxy:
    """A proxy in front of the server at `target_url`; it runs in the event loop of its `async with`.

    The first of its `rules` for a request's store applies. The rules may be replaced at any time, and the port may be
    closed and opened. `requests` counts requests by store. The same `seed` draws the same faults in the same order.
    """

    def __init__(
        self,
        target_url: str,
        rules: Iterable[Rule] = (),
        *,
        seed: int | None = None,
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        target = urlsplit(target_url)
        self._target = (target.hostname or LOOPBACK, target.port or 80)
        self.rules = tuple(rules)
        self.requests: Counter[Store] = Counter()
        self._random = random.Random(seed)  # noqa: S311 -- faults are not secrets
        self._host = host
        self._reservation = _reserve_port(host, port)
        self._port: int = self._reservation.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._opening = asyncio.Lock()
        self._connections: dict[Task[None] | None, StreamWriter] = {}

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        await self.open_port()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close_port()
        while self._connections:
            for writer in self._connections.values():
                writer.transport.abort()
            await asyncio.wait([task for task in self._connections if task])
        await self.close_port()  # a refused connection may have opened it again
        self._reservation.close()

    async def open_port(self) -> None:
        """Start listening."""
        async with self._opening:
            if self._server is None:
                self._server = await asyncio.start_server(self._serve, self._host, self._port)

    async def close_port(self) -> None:
        """Refuse new connections; existing ones stay."""
        server, self._server = self._server, None
        if server is not None:
            for listener in server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
            await asyncio.sleep(0)  # the server does not know a just accepted connection yet
            server.close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections[task] = writer
        try:
            while True:
                await self._answer(await _read(reader), reader, writer)
        except (ConnectionError, IncompleteReadError):
            pass  # the client, or a fault, has ended the connection
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(self, request: _Request, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer a request, or apply a fault to it; raises `ConnectionError` if that ends the connection."""
        fault = self._draw(request)
        if fault is BatchFault.PARTIAL:
            writer.write(await self._answer_partly(request))
            await writer.drain()
            return
        answer = await self._forward(request) if fault is None or fault in APPLIED else b""
        match fault:
            case None:
                writer.write(answer)
            case Fault.REFUSED:
                await self.close_port()
                _reset(writer)
                await asyncio.sleep(REFUSED_SECONDS)
                await self.open_port()
            case Fault.RESET:
                writer.write(answer[: len(answer) - 2])
                _reset(writer)
            case Fault.HANGS_BEFORE | Fault.HANGS_AFTER:
                await reader.read()  # until the client gives up
            case Fault.DRIBBLES:
                await _dribble(writer)
            case Fault.GARBLED | Fault.NULL | Fault.EMPTY:
                writer.write(_response(200, _CONFIRMS_NOTHING[fault]))
            case _:
                assert isinstance(fault, Fault)  # noqa: S101 -- the other kind is answered above
                writer.write(_error(fault, is_queue=request.store is Store.QUEUE))
        await writer.drain()

    def _draw(self, request: _Request) -> AnyFault | None:
        store = request.store
        if store is None:
            return None
        self.requests[store] += 1
        rule = next((rule for rule in self.rules if store in rule.stores), None)
        return None if rule is None else rule.draw(self._random, is_batch=request.is_batch)

    async def _answer_partly(self, request: _Request) -> bytes:
        """Let the store carry out a part of a batch, at least one entry, and answer that the rest failed."""
        content = json.loads(request.body)
        split = _PARTIAL[request.operation]
        part, fail = split(content, self._random)
        body = json.dumps(part).encode()
        length = b"\r\nContent-Length: %d" % len(body)
        head = re.sub(rb"\r\nContent-Length:[^\r]*", length, request.head, flags=re.IGNORECASE)
        answer = await self._forward(_Request(head=head, body=body))
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status != HTTPStatus.OK:
            return answer
        return _response(status, json.dumps(fail(json.loads(body))).encode())

    async def _forward(self, request: _Request) -> bytes:
        """Return the server's response, ready to be passed on."""
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            writer.write(_with_connection(request.head, b"close") + request.body)
            head, end, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        return _with_connection(head + end, b"keep-alive") + body


Content = dict[str, Any]
Split = Callable[[Content, random.Random], tuple[Content, Callable[[Content], Content]]]
"""Returns the part of a request to carry out, and a function that adds the failures of the rest to the response."""


def _failing(count: int, chance: random.Random) -> set[int]:
    """Choose at random which of several entries fail: at least one, but not all of several."""
    return set(chance.sample(range(count), chance.randint(1, max(1, count - 1))))


def _split_queue(content: Content, chance: random.Random) -> tuple[Content, Callable[[Content], Content]]:
    """Send some of the messages. The server can't send an empty batch, so a single message is always sent."""
    entries = content["Entries"]
    failing = _failing(len(entries), chance) if len(entries) > 1 else set()
    failed = [
        {"Id": entries[place]["Id"], "SenderFault": False, "Code": "InternalError", "Message": "A fault to order"}
        for place in sorted(failing)
    ]
    part = [entry for place, entry in enumerate(entries) if place not in failing]
    return {**content, "Entries": part}, lambda answer: {**answer, "Failed": [*answer.get("Failed", []), *failed]}


def _split_read(content: Content, chance: random.Random) -> tuple[Content, Callable[[Content], Content]]:
    """Read some of the items, and answer that the others were not processed."""
    [(table, asked)] = content["RequestItems"].items()
    keys = asked["Keys"]
    failing = _failing(len(keys), chance) if len(keys) > 1 else set()
    unread = {table: {**asked, "Keys": [keys[place] for place in sorted(failing)]}} if failing else {}
    part = {table: {**asked, "Keys": [key for place, key in enumerate(keys) if place not in failing]}}
    return {**content, "RequestItems": part}, lambda answer: {**answer, "UnprocessedKeys": unread}


def _split_statements(content: Content, chance: random.Random) -> tuple[Content, Callable[[Content], Content]]:
    """Execute some of the statements, and answer an error in place of the others."""
    statements = content["Statements"]
    failing = _failing(len(statements), chance) if len(statements) > 1 else set()
    error = {"Error": {"Code": "ThrottlingError", "Message": "A fault to order"}}

    def fail(answer: Content) -> Content:
        responses = iter(answer.get("Responses", []))
        whole = [error if place in failing else next(responses, {}) for place in range(len(statements))]
        return {**answer, "Responses": whole}

    part = [statement for place, statement in enumerate(statements) if place not in failing]
    return {**content, "Statements": part}, fail


_PARTIAL: Mapping[str, Split] = {
    "SendMessageBatch": _split_queue,
    "BatchGetItem": _split_read,
    "BatchExecuteStatement": _split_statements,
}
"""By operation."""


def _reserve_port(host: str, port: int) -> socket.socket:
    """Bind a port, or any free one for 0, without listening, so that no other process gets it while it is closed."""
    reservation = socket.socket()
    # Lets the server listen on the same port.
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind((host, port))
    if sys.platform != "linux":  # two sockets can't share a port there
        reservation.close()
    return reservation


async def _read(reader: StreamReader) -> _Request:
    """Read a request; raises `IncompleteReadError` if the client has left."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\nContent-Length: *(\d+)", head, re.IGNORECASE)
    return _Request(head=head, body=await reader.readexactly(int(length[1])) if length else b"")


def _with_connection(head: bytes, connection: bytes) -> bytes:
    """Set the `Connection` header in a head."""
    rest = re.sub(rb"\r\nConnection:[^\r]*", b"", head.removesuffix(b"\r\n\r\n"), flags=re.IGNORECASE)
    return rest + b"\r\nConnection: " + connection + b"\r\n\r\n"


def _response(status: int, body: bytes, *, headers: str = "", length: int | None = None) -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/x-amz-json-1.0\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n{headers}\r\n"
    )
    return head.encode() + body


def _error(fault: Fault, *, is_queue: bool) -> bytes:
    """Return an error in the service's own format."""
    status, dynamodb_type, sqs_type = _ERRORS[fault]
    kind = sqs_type if is_queue else dynamodb_type
    body = json.dumps({"__type": kind, "message": f"A fault to order: {fault}"}).encode()
    code = _QUERY_CODES.get(kind, kind.partition("#")[2])
    whose = "Sender" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "Receiver"
    return _response(status, body, headers=f"x-amzn-query-error: {code};{whose}\r\n" if is_queue else "")


def _reset(writer: StreamWriter) -> None:
    """End a connection by RST, as a host does that does not know the connection."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _dribble(writer: StreamWriter) -> None:
    """Send white space, which JSON may begin with, byte by byte; raises `ConnectionError` when that ends."""
    writer.write(_response(200, b"", length=2**31))
    for _ in range(MAX_DRIBBLES):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(DRIBBLE_SECONDS)
    raise ConnectionAbortedError


@click.command()
@click.argument("url")
@click.option("--host", default=LOOPBACK, show_default=True, help="The address to listen on.")
@click.option("--port", default=0, help="The port to listen on; a free one without this.")
@click.option("--rate", default=0.1, show_default=True, type=click.FloatRange(0, 1), help="How likely a fault is.")
@click.option("--seed", type=int, help="Draws the same faults in the same order.")
@click.option(
    "--fault", "faults", multiple=True, type=click.Choice(list(ALL_FAULTS)), help="Only this fault; repeatable."
)
@click.option("--store", "stores", multiple=True, type=click.Choice(list(Store)), help="Only this store; repeatable.")
def run(
    *, url: str, host: str, port: int, rate: float, seed: int | None, faults: tuple[str, ...], stores: tuple[str, ...]
) -> None:
    """Run a proxy with faults before the DynamoDB/SQS-compatible server at URL."""
    rule = Rule(
        probability=rate,
        stores=frozenset(map(Store, stores or Store)),
        faults=tuple(fault for fault in ALL_FAULTS if not faults or fault in faults),
    )

    async def serve() -> None:
        async with FaultProxy(url, [rule], seed=seed, host=host, port=port) as proxy:
            click.echo(proxy.url)
            await asyncio.get_running_loop().create_future()  # until the process is ended

    try:
        asyncio.run(serve())
    except OSError as error:
        raise click.ClickException(f"{host}:{port} can't be used: {error.strerror}. Choose another --port") from error


if __name__ == "__main__":
    run()
