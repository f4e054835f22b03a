"""Record requests and answers as evidence: the request, the answer, and the duration.

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

WAIT_FACTOR = 2
"""The client waits this many times longer than the limit, so that late answers can be judged too."""
RETRY_WAITS_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""The waits before the tries of a failed request: a killed function restarts meanwhile."""
MAX_GIVEN_UP = 3
"""After this many requests in a row that always failed, no further request waits."""
MAX_SILENT = 3
"""After this many requests in a row without an answer, no further request is sent."""
AT_ONCE = 5
"""Concurrent requests of `send_all`, each on its own connection."""
MASKED = "<API key>"
NO_ROUTE = (HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
"""An HTTP API answers 404, `sam local start-api` and a REST API answer 403."""
MAX_CODE_CHARS = 64
"""Limit for a code in an answer."""
MIN_SECRET_CHARS = 8
"""A shorter text may occur in answers by chance."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request; `target` is its path if it differs from the endpoint's."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    method: str = "POST"
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class WireExchange:
    """A request and its answer; without an answer, `fault` is the reason."""

    sent: Sent
    reply: Reply | None
    fault: str | None
    milliseconds: float
    was_reused: bool = False
    """Whether its connection carried an earlier request, so that the server may have closed it meanwhile."""
    failures: int = 0
    """How many times the same request failed before."""
    has_tls_fault: bool = False
    """Whether no TLS connection was possible, which a retry will not change."""

    @property
    def status(self) -> int | None:
        """The status of the answer, None without one."""
        return self.reply.status if self.reply else None

    @property
    def is_accepted(self) -> bool:
        """Return whether Segment counts the message as delivered."""
        return self.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED)

    @property
    def is_failure(self) -> bool:
        """Return whether Segment retries the request; during maintenance, a retry within seconds is useless."""
        return self.status is None or (self.status in RETRIED_BY_SEGMENT and self.answer.get("code") != "maintenance")

    @property
    def is_redirect(self) -> bool:
        """Return whether the answer is a redirect."""
        return self.reply is not None and self.reply.status // 100 == HTTPStatus.MULTIPLE_CHOICES // 100

    @property
    def is_no_route(self) -> bool:
        """Return whether a gateway has no such route; an answer of the function has a `code`."""
        return self.status in NO_ROUTE and "code" not in self.answer

    @property
    def is_error(self) -> bool:
        """Return whether the answer is an error."""
        return self.reply is not None and self.reply.status >= HTTPStatus.BAD_REQUEST

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object in the answer, an empty one without any."""
        try:
            content = json.loads(self.reply.body) if self.reply else None
        except (ValueError, RecursionError):
            content = None
        return content if isinstance(content, dict) else {}

    @property
    def message(self) -> str:
        """The text for the customer."""
        message = self.answer.get("message")
        return message if isinstance(message, str) else ""

    @property
    def came(self) -> str:
        """The result in a few words: `400 invalid_json`, `no answer within 10 s`."""
        if self.reply is None:
            return self.fault or "no answer"
        code = self.answer.get("code")
        return f"{self.reply.status} {code[:MAX_CODE_CHARS]}" if isinstance(code, str) else str(self.reply.status)


class Wire:
    """A client of one endpoint that records each request with its result.

    An answer may take `limit_seconds`; `secrets` must never be shown.
    """

    def __init__(self, url: str, *, limit_seconds: float, ca_file: str | None = None) -> None:
        self.url = url
        self.ca_file = ca_file
        self.limit_seconds = limit_seconds
        self.exchanges: list[WireExchange] = []
        timeout_seconds = limit_seconds * WAIT_FACTOR
        self._endpoints = [Endpoint(url, timeout_seconds=timeout_seconds, ca_file=ca_file) for _ in range(AT_ONCE)]
        """Clients with one connection each. Sequential requests all use the first one."""
        self._runner = asyncio.Runner()
        self._is_over = False
        self.unanswered = 0
        """Requests in a row without an answer, after all their tries."""
        self._given_up = 0
        self._secrets: set[str] = set()
        if len(query := urlsplit(url).query) >= MIN_SECRET_CHARS:
            self._secrets.add(query)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close all connections. Nothing more is sent, although Control-C may have left requests unfinished."""
        self._is_over = True
        for endpoint in self._endpoints:
            self._runner.run(endpoint.close())
        self._runner.close()

    def keep_secret(self, api_key: str) -> None:
        """Never show a key, or the header made from it."""
        if not api_key:
            return
        self._secrets.add(json.dumps(api_key)[1:-1])
        for password in ("", ":", ":a password"):
            credentials = api_key + password
            self._secrets |= {credentials, base64.b64encode(credentials.encode()).decode()}

    @property
    def has_failures(self) -> bool:
        """Return whether any request failed for another reason than a closed idle connection."""
        return any(one.is_failure and not (one.reply is None and one.was_reused) for one in self.exchanges)

    @property
    def secrets(self) -> frozenset[str]:
        """Texts that must not occur in any answer."""
        return frozenset(secret for secret in self._secrets if len(secret) >= MIN_SECRET_CHARS)

    def masked(self, text: str) -> str:
        """Return a text without keys."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASKED)
        return text

    @property
    def is_silent(self) -> bool:
        """Return whether too many requests got no answer, so that it is useless to send more."""
        return self.unanswered >= MAX_SILENT

    def send(self, sent: Sent) -> WireExchange:
        """Send a request, and retry failures like Segment, but for seconds instead of hours.

        After several requests in a row that always failed, there are no more waits until one is answered.
        """
        return self._runner.run(self._deliver(self._endpoints[0], sent))

    def send_all(self, several: Iterable[Sent]) -> list[WireExchange]:
        """Send requests concurrently, each like `send`, and return their exchanges in the order of the requests.

        Returns fewer exchanges than requests if the endpoint stops answering.
        """
        return self._runner.run(self._deliver_all(several))

    async def _deliver_all(self, several: Iterable[Sent]) -> list[WireExchange]:
        waiting = enumerate(several)
        exchanges: dict[int, WireExchange] = {}

        async def deliver(endpoint: Endpoint) -> None:
            for number, sent in waiting:
                if self.is_silent:
                    return
                exchanges[number] = await self._deliver(endpoint, sent)

        await asyncio.gather(*map(deliver, self._endpoints))
        return [exchanges[number] for number in sorted(exchanges)]

    async def _deliver(self, endpoint: Endpoint, sent: Sent) -> WireExchange:
        for failures, wait in enumerate((*RETRY_WAITS_SECONDS, None)):
            exchange = await self._send(endpoint, sent, failures)
            is_useless = self._given_up >= MAX_GIVEN_UP or self._is_final(exchange)
            if wait is None or not exchange.is_failure or is_useless:
                break
            await asyncio.sleep(wait)
        self._given_up = self._given_up + 1 if exchange.is_failure else 0
        self.unanswered = self.unanswered + 1 if exchange.reply is None else 0
        return exchange

    def _is_final(self, exchange: WireExchange) -> bool:
        """Return whether more waiting is useless: TLS fails, or no whole answer arrived in time, twice."""
        is_slow = exchange.reply is None and exchange.milliseconds > self.limit_seconds * 1000
        return exchange.has_tls_fault or (is_slow and exchange.failures > 0)

    async def _send(self, endpoint: Endpoint, sent: Sent, failures: int) -> WireExchange:
        """Send a request; on a new connection if the server had closed the idle one, like any client."""
        exchange = await self._try(endpoint, sent, failures)
        self.exchanges.append(exchange)
        if exchange.reply is None and exchange.was_reused and exchange.milliseconds < self.limit_seconds * 1000:
            exchange = await self._try(endpoint, sent, failures)
            self.exchanges.append(exchange)
        return exchange

    async def _try(self, endpoint: Endpoint, sent: Sent, failures: int) -> WireExchange:
        if self._is_over:
            raise asyncio.CancelledError
        head = endpoint.head(sent.headers, method=sent.method, target=sent.target)
        reply, fault, has_tls_fault = None, None, False
        began = time.perf_counter()
        try:
            reply = await endpoint.post(head, sent.body)
        except TimeoutError:
            fault = f"no whole answer within {self.limit_seconds * WAIT_FACTOR:g} s"
        except OSError as error:
            has_tls_fault = isinstance(error, ssl.SSLError)
            fault = f"no answer: {error.strerror or error}"
        milliseconds = (time.perf_counter() - began) * 1000
        return WireExchange(
            sent=sent,
            reply=reply,
            fault=fault,
            milliseconds=milliseconds,
            was_reused=endpoint.last_was_reused,
            failures=failures,
            has_tls_fault=has_tls_fault,
        )


def due(code: str) -> str:
    """Return the expected answer in the form of `WireExchange.came`."""
    return f"{STATUS_BY_CODE[code]} {code}"
