"""How `destination simulate` delivers, which is how Segment does: one POST per message, five seconds, and retries.

What is retried, and for how long: https://segment.com/docs/connections/destinations/#retries
"""

import asyncio
import json
import ssl
import sys
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from random import Random
from urllib.parse import urlsplit

from cli.ping import SEGMENT_TIMEOUT_SECONDS, segment_headers
from cli.simulation.fingerprint import Fingerprint, fingerprint_of
from cli.simulation.traffic import Kind, Parcel, Sending, Traffic
from handler.write import Outcome

RETRIED_STATUSES = frozenset({408, 423, 429, *range(500, 600)} - {501})
"""Every other answer is final. Segment's open framework has 408, 423 and 501, its pages the others."""
RETRY_BUDGET_SECONDS = 4 * 60 * 60
FIRST_WAIT_SECONDS = 15
"""Doubled for each retry, and half more or less by chance: about ten tries in four hours. Segment tells no numbers."""

MAX_UNFINISHED = 10_000
"""Deliveries that may be under way or wait for a retry at once; beyond that no new ones begin, so that memory lasts."""
MAX_HEAD_BYTES = 64 * 1024

TIMED_OUT = "timed out"
NO_CONNECTION = "no connection"


class End(IntEnum):
    """What became of a message for its sender; of its deliveries the best one counts."""

    UNFINISHED = 0
    GIVEN_UP = 1
    REFUSED = 2
    ACCEPTED = 3


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What an endpoint answered."""

    status: int
    body: bytes


@dataclass(kw_only=True)
class Tries:
    """Every try: when it ended (seconds from the start), what it took (milliseconds), and what came of it."""

    ended: "array[float]" = field(default_factory=lambda: array("f"))
    milliseconds: "array[float]" = field(default_factory=lambda: array("f"))
    labels: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """How long they took in all."""
        return max(self.ended, default=0.0)

    @property
    def duplicates(self) -> int:
        """Answers that a message was stored already."""
        return sum(count for label, count in self.counts.items() if label.endswith(f" {Outcome.DUPLICATE}"))

    def add(self, ended: float, milliseconds: float, label: str) -> None:
        """Note a try."""
        self.ended.append(ended)
        self.milliseconds.append(milliseconds)
        self.labels.append(sys.intern(label))
        self.counts[label] += 1


@dataclass(kw_only=True)
class Ledger:
    """What was sent and what became of it: counts of deliveries, and the end of each valid message.

    `deletes` holds the messages that name users to erase, by the subjects of these.
    """

    tries: Tries = field(default_factory=Tries)
    messages: dict[Fingerprint, End] = field(default_factory=dict)
    deletes: dict[str, Fingerprint] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    begun: int = 0
    at_first_try: int = 0
    after_retries: int = 0
    given_up: int = 0
    refused: int = 0
    refused_as_expected: int = 0
    accepted_though_invalid: int = 0

    @property
    def retries(self) -> int:
        """Tries that were not the first one of a delivery."""
        return max(0, len(self.tries.labels) - self.begun)

    @property
    def accepted(self) -> int:
        """Deliveries that a 2xx ended."""
        return self.at_first_try + self.after_retries

    @property
    def finished(self) -> int:
        """Deliveries that came to an end."""
        return self.accepted + self.given_up + self.refused + self.refused_as_expected

    def settle(self, fingerprint: Fingerprint | None, end: End, *, tries: int, text: str = "") -> None:
        """Note the end of a delivery; a message without a fingerprint is one that must be refused."""
        if fingerprint is not None:
            self.messages[fingerprint] = max(self.messages[fingerprint], end)
        if end is End.GIVEN_UP:
            self.given_up += 1
        elif end is End.ACCEPTED:
            self.at_first_try += tries == 1
            self.after_retries += tries > 1
            self.accepted_though_invalid += fingerprint is None
        elif fingerprint is None:
            self.refused_as_expected += 1
        else:
            self.refused += 1
            self.refusals[text] += 1


def waits(chance: Random) -> Iterator[float]:
    """Yield the seconds to wait before each retry, until the budget is spent."""
    wait, left = float(FIRST_WAIT_SECONDS), float(RETRY_BUDGET_SECONDS)
    while (seconds := wait * chance.uniform(0.5, 1.5)) <= left:
        yield seconds
        wait, left = wait * 2, left - seconds


class Endpoint:
    """An HTTP/1.1 client (RFC 9112) for one URL, which keeps connections and counts the seconds of a request in all.

    The clients that boto3 brings count them anew for each byte that comes.
    """

    def __init__(
        self, url: str, *, ca_file: str | None = None, timeout_seconds: float = SEGMENT_TIMEOUT_SECONDS
    ) -> None:
        self._timeout_seconds = timeout_seconds
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc.rpartition('@')[2]}\r\n"
        self._idle: list[_Connection] = []

    def head(self, headers: dict[str, str]) -> bytes:
        """Return all of a request's head but its last line, the length of the body."""
        return (self._head + "".join(f"{name}: {value}\r\n" for name, value in headers.items())).encode("latin-1")

    async def try_connection(self) -> None:
        """Connect, and leave it at that; raises `OSError`, of which `TimeoutError` is one."""
        async with asyncio.timeout(self._timeout_seconds):
            self._idle.append(await self._connect())
        await self.close()

    async def post(self, head: bytes, body: bytes) -> Reply:
        """Send a request and read the answer; raises `TimeoutError`, or `OSError` where no whole answer comes."""
        connection = None
        keep = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = self._kept() or await self._connect()
                connection.writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                await connection.writer.drain()
                reply, keep = await connection.read()
                return reply
        except (EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            raise ConnectionError("The answer broke off, or is not HTTP") from error
        finally:
            if connection and keep:
                self._idle.append(connection)
            elif connection:
                connection.writer.transport.abort()

    async def close(self) -> None:
        """End the connections that were kept."""
        while self._idle:
            connection = self._idle.pop()
            connection.writer.close()
            with suppress(OSError):
                await connection.writer.wait_closed()

    def _kept(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return None

    async def _connect(self) -> "_Connection":
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=MAX_HEAD_BYTES)
        return _Connection(reader, writer)


@dataclass(frozen=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> tuple[Reply, bool]:
        """Read an answer; tell too whether the connection can be used again."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        protocol, status, *_ = status_line.split(" ", 2)
        if not protocol.startswith("HTTP/1."):
            raise ValueError(status_line)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        keep = protocol != "HTTP/1.0" and headers.get("connection", "").lower() != "close"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = b"".join([chunk async for chunk in self._chunks()])
        elif "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        else:
            body, keep = await self.reader.read(), False
        return Reply(status=int(status), body=body), keep

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self.reader.readline()).partition(b";")[0], 16):
            yield await self.reader.readexactly(size)
            await self.reader.readline()
        while (await self.reader.readline()).strip():
            """A trailer."""


class Segment:
    """Delivers traffic to an endpoint, with an API key per customer; the ledger is kept while it goes.

    `rate` is in deliveries begun per second, None for as many as `concurrency` requests at once allow. The waits
    between tries are divided by `time_scale`; the five seconds of a request are not.
    """

    def __init__(
        self,
        traffic: Traffic,
        endpoint: Endpoint,
        api_keys: Sequence[str],
        *,
        concurrency: int,
        rate: float | None,
        time_scale: float,
    ) -> None:
        self.ledger = Ledger()
        self._traffic = traffic
        self._endpoint = endpoint
        self._concurrency = concurrency
        keyed = enumerate(api_keys)
        self._heads = [endpoint.head(segment_headers(key, traffic.settings(customer))) for customer, key in keyed]
        self._rate = rate
        self._time_scale = time_scale
        self._chance = Random(traffic.seed)  # noqa: S311 -- to spread retries
        self._began = time.monotonic()

    async def deliver(self, sendings: Iterable[Sending]) -> None:
        """Make all deliveries, to their end; what is delivered later goes on in the same ledger."""
        began = time.monotonic()
        self._slots = asyncio.Semaphore(self._concurrency)
        self._unfinished = asyncio.Semaphore(MAX_UNFINISHED)
        try:
            async with asyncio.TaskGroup() as deliveries:
                for number, sending in enumerate(sendings):
                    if self._rate:
                        await asyncio.sleep(max(0, began + number / self._rate - time.monotonic()))
                    await self._unfinished.acquire()
                    await self._slots.acquire()
                    deliveries.create_task(self._deliver(sending))
                    self.ledger.begun += 1
        finally:
            await self._endpoint.close()

    async def _deliver(self, sending: Sending) -> None:
        """Make one delivery; it has a slot for its first try already."""
        parcel: Parcel | None
        fingerprint = self._enter(parcel := self._traffic.parcel(sending))
        for tries, wait in enumerate((*waits(self._chance), None), start=1):
            try:
                reply = await self._try(parcel or self._traffic.parcel(sending))
            finally:
                self._slots.release()
            if reply is not None and reply.status not in RETRIED_STATUSES:
                end = End.ACCEPTED if 200 <= reply.status < 300 else End.REFUSED  # noqa: PLR2004 -- RFC 9110: 2xx
                self.ledger.settle(fingerprint, end, tries=tries, text=_text(reply))
                break
            if wait is None:
                self.ledger.settle(fingerprint, End.GIVEN_UP, tries=tries)
                break
            parcel = None  # made anew for the next try, so that waiting costs no memory
            await asyncio.sleep(wait / self._time_scale)
            await self._slots.acquire()
        self._unfinished.release()

    def _enter(self, parcel: Parcel) -> Fingerprint | None:
        """Write a message into the ledger before it is sent; None for one that must be refused."""
        if parcel.kind is Kind.INVALID:
            return None
        record = self._traffic.record(parcel)
        fingerprint = fingerprint_of(record)
        self.ledger.messages.setdefault(fingerprint, End.UNFINISHED)
        self.ledger.subjects.add(record.subject)
        if parcel.kind is Kind.DELETE:
            self.ledger.deletes[record.subject] = fingerprint
        return fingerprint

    async def _try(self, parcel: Parcel) -> Reply | None:
        """Post a message once; None where no answer came."""
        began = time.monotonic()
        reply = None
        try:
            reply = await self._endpoint.post(self._heads[parcel.customer], parcel.body)
            label = _label(reply)
        except TimeoutError:
            label = TIMED_OUT
        except OSError:
            label = NO_CONNECTION
        now = time.monotonic()
        self.ledger.tries.add(now - self._began, (now - began) * 1000, label)
        return reply


def _content(reply: Reply) -> dict[str, object]:
    try:
        content = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _label(reply: Reply) -> str:
    """Name an answer by its status and our word for it: `200 stored`, `503 event_store_unavailable`."""
    content = _content(reply)
    word = content.get("code", content.get("status"))
    is_ours = isinstance(word, str) and word.isidentifier() and len(word) <= len("reject_store_unavailable")
    return f"{reply.status} {word}" if is_ours else str(reply.status)


def _text(reply: Reply) -> str:
    return f"{reply.status} {_content(reply).get('message', '')}".strip()
