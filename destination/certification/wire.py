"""Requests and answers, one by one, as evidence: what was sent, what came back, how long it took.

A key is never shown, whoever repeats it.
"""

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from destination.segment.contract import RETRIED_BY_SEGMENT, STATUS_BY_CODE
from destination.segment.endpoint import Endpoint, Reply

PATIENCE = 2
"""An answer is waited for as many times longer than it may take, so that one that comes too late is judged too."""
RETRY_WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""Before the second try of a request that failed, the third, and so on: a function that was killed starts meanwhile."""
MAX_GIVEN_UP = 3
"""Requests in a row that failed each time, after which no other one waits."""
MAX_SILENT = 3
"""Requests in a row without an answer, after which nobody waits for more."""
AT_ONCE = 5
"""Requests of `send_all` at a time, each on a connection of its own."""
MASKED = "<API key>"
NO_ROUTE = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
"""An HTTP API answers 404, `sam local start-api` and a REST API 403."""
MAX_CODE_CHARS = 64
"""Of an answer: what is longer is no code."""
MIN_SECRET_CHARS = 8
"""A shorter text stands in answers by chance."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request; `target` is its path where that is not the endpoint's own."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    method: str = "POST"
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and its answer; without one, `fault` says why there is none."""

    sent: Sent
    reply: Reply | None
    fault: str | None
    milliseconds: float
    was_reused: bool = False
    """Whether its connection had carried another request, and so may have been closed meanwhile."""
    failures: int = 0
    """How many times the same request was sent before, and failed."""
    has_tls_fault: bool = False
    """Whether no TLS connection was made, which the same request will not change."""

    @property
    def status(self) -> int | None:
        """The status of the answer, None where none came."""
        return self.reply.status if self.reply else None

    @property
    def is_accepted(self) -> bool:
        """Whether Segment takes the message for delivered."""
        return self.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED)

    @property
    def is_failure(self) -> bool:
        """Whether Segment sends the same request again; during maintenance that is useless within seconds."""
        return self.status is None or (self.status in RETRIED_BY_SEGMENT and self.answer.get("code") != "maintenance")

    @property
    def is_redirect(self) -> bool:
        """Whether the answer sends elsewhere."""
        return self.reply is not None and self.reply.status // 100 == HTTPStatus.MULTIPLE_CHOICES // 100

    @property
    def is_no_route(self) -> bool:
        """Whether a gateway answers by itself that it has no such route; what a function answers has a `code`."""
        return self.status in NO_ROUTE and "code" not in self.answer

    @property
    def is_error(self) -> bool:
        """Whether the answer is an error."""
        return self.reply is not None and self.reply.status >= HTTPStatus.BAD_REQUEST

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object of the answer, an empty one where there is none."""
        try:
            content = json.loads(self.reply.body) if self.reply else None
        except (ValueError, RecursionError):
            content = None
        return content if isinstance(content, dict) else {}

    @property
    def message(self) -> str:
        """The text that the customer reads."""
        message = self.answer.get("message")
        return message if isinstance(message, str) else ""

    @property
    def came(self) -> str:
        """What came back, in a few words: `400 invalid_json`, `no answer within 10 s`."""
        if self.reply is None:
            return self.fault or "no answer"
        code = self.answer.get("code")
        return f"{self.reply.status} {code[:MAX_CODE_CHARS]}" if isinstance(code, str) else str(self.reply.status)


class Wire:
    """A client of one endpoint that keeps what came of each request.

    An answer may take `limit_seconds`; `secrets` are what must never be shown.
    """

    def __init__(self, url: str, *, limit_seconds: float, ca_file: str | None = None) -> None:
        self.url = url
        self.ca_file = ca_file
        self.limit_seconds = limit_seconds
        self.exchanges: list[Exchange] = []
        timeout_seconds = limit_seconds * PATIENCE
        self._endpoints = [Endpoint(url, timeout_seconds=timeout_seconds, ca_file=ca_file) for _ in range(AT_ONCE)]
        """Clients with one connection each. Requests that are sent one by one all use the first."""
        self._runner = asyncio.Runner()
        self._is_over = False
        self.unanswered = 0
        """Requests in a row that got no answer, however often they were sent."""
        self._given_up = 0
        self._secrets: set[str] = set()
        if len(query := urlsplit(url).query) >= MIN_SECRET_CHARS:
            self._secrets.add(query)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close what is open. Nothing more is sent, although Control-C may have left requests unfinished."""
        self._is_over = True
        for endpoint in self._endpoints:
            self._runner.run(endpoint.close())
        self._runner.close()

    def keep_secret(self, api_key: str) -> None:
        """Never show a key, nor what is sent of it."""
        if not api_key:
            return
        self._secrets.add(json.dumps(api_key)[1:-1])
        for password in ("", ":", ":a password"):
            credentials = api_key + password
            self._secrets |= {credentials, base64.b64encode(credentials.encode()).decode()}

    @property
    def has_failures(self) -> bool:
        """Whether any request failed, and not just a connection that had been idle."""
        return any(one.is_failure and not (one.reply is None and one.was_reused) for one in self.exchanges)

    @property
    def secrets(self) -> frozenset[str]:
        """What must stand in no answer."""
        return frozenset(secret for secret in self._secrets if len(secret) >= MIN_SECRET_CHARS)

    def masked(self, text: str) -> str:
        """Return a text without keys."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASKED)
        return text

    @property
    def is_silent(self) -> bool:
        """Whether so many requests got no answer that it is useless to send more."""
        return self.unanswered >= MAX_SILENT

    def send(self, sent: Sent) -> Exchange:
        """Send a request, and again while it fails, as Segment does, though it waits for seconds and not for hours.

        Several requests in a row that failed each time end the waiting, until one is answered.
        """
        return self._runner.run(self._deliver(self._endpoints[0], sent))

    def send_all(self, several: Iterable[Sent]) -> list[Exchange]:
        """Send requests concurrently, each like `send`, and return their exchanges in the order of the requests.

        Returns fewer exchanges than requests where the endpoint falls silent.
        """
        return self._runner.run(self._deliver_all(several))

    async def _deliver_all(self, several: Iterable[Sent]) -> list[Exchange]:
        waiting = enumerate(several)
        exchanges: dict[int, Exchange] = {}

        async def deliver(endpoint: Endpoint) -> None:
            for number, sent in waiting:
                if self.is_silent:
                    return
                exchanges[number] = await self._deliver(endpoint, sent)

        await asyncio.gather(*map(deliver, self._endpoints))
        return [exchanges[number] for number in sorted(exchanges)]

    async def _deliver(self, endpoint: Endpoint, sent: Sent) -> Exchange:
        for failures, wait in enumerate((*RETRY_WAITS_SECONDS, None)):
            exchange = await self._send(endpoint, sent, failures)
            is_useless = self._given_up >= MAX_GIVEN_UP or self._is_final(exchange)
            if wait is None or not exchange.is_failure or is_useless:
                break
            await asyncio.sleep(wait)
        self._given_up = self._given_up + 1 if exchange.is_failure else 0
        self.unanswered = self.unanswered + 1 if exchange.reply is None else 0
        return exchange

    def _is_final(self, exchange: Exchange) -> bool:
        """Whether to wait for another answer is useless: TLS fails, or no whole answer came in time, twice."""
        is_slow = exchange.reply is None and exchange.milliseconds > self.limit_seconds * 1000
        return exchange.has_tls_fault or (is_slow and exchange.failures > 0)

    async def _send(self, endpoint: Endpoint, sent: Sent, failures: int) -> Exchange:
        """Send a request; by a new connection if the server had closed the one that was kept, as any client does."""
        exchange = await self._try(endpoint, sent, failures)
        self.exchanges.append(exchange)
        if exchange.reply is None and exchange.was_reused and exchange.milliseconds < self.limit_seconds * 1000:
            exchange = await self._try(endpoint, sent, failures)
            self.exchanges.append(exchange)
        return exchange

    async def _try(self, endpoint: Endpoint, sent: Sent, failures: int) -> Exchange:
        if self._is_over:
            raise asyncio.CancelledError
        head = endpoint.head(sent.headers, method=sent.method, target=sent.target)
        reply, fault, has_tls_fault = None, None, False
        began = time.perf_counter()
        try:
            reply = await endpoint.post(head, sent.body)
        except TimeoutError:
            fault = f"no whole answer within {self.limit_seconds * PATIENCE:g} s"
        except OSError as error:
            has_tls_fault = isinstance(error, ssl.SSLError)
            fault = f"no answer: {error.strerror or error}"
        milliseconds = (time.perf_counter() - began) * 1000
        return Exchange(
            sent=sent,
            reply=reply,
            fault=fault,
            milliseconds=milliseconds,
            was_reused=endpoint.last_was_reused,
            failures=failures,
            has_tls_fault=has_tls_fault,
        )


def due(code: str) -> str:
    """Return the answer that the contract asks for, as `Exchange.came` spells it."""
    return f"{STATUS_BY_CODE[code]} {code}"
