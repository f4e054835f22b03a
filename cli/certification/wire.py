"""Requests and answers, one by one, as evidence: what was sent, what came back, how long it took.

A key is never shown, whoever repeats it.
"""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import urlsplit

from cli.simulation.endpoint import Endpoint, Reply

PATIENCE = 2
"""An answer is waited for as many times longer than it may take, so that one that comes too late is judged too."""
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

    @property
    def status(self) -> int | None:
        """The status of the answer, None where none came."""
        return self.reply.status if self.reply else None

    @property
    def is_accepted(self) -> bool:
        """Whether Segment takes the message for delivered."""
        return self.status in (HTTPStatus.OK, HTTPStatus.ACCEPTED)

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
    """A client of one endpoint that sends requests one by one and keeps what came of each.

    An answer may take `limit_seconds`; `secrets` are what must never be shown.
    """

    def __init__(self, url: str, *, limit_seconds: float, ca_file: str | None = None) -> None:
        self.url = url
        self.ca_file = ca_file
        self.limit_seconds = limit_seconds
        self.exchanges: list[Exchange] = []
        self._endpoint = Endpoint(url, timeout_seconds=limit_seconds * PATIENCE, ca_file=ca_file)
        self._runner = asyncio.Runner()
        self._secrets: set[str] = set()
        if len(query := urlsplit(url).query) >= MIN_SECRET_CHARS:
            self._secrets.add(query)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close what is open."""
        self._runner.run(self._endpoint.close())
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
    def secrets(self) -> frozenset[str]:
        """What must stand in no answer."""
        return frozenset(secret for secret in self._secrets if len(secret) >= MIN_SECRET_CHARS)

    def masked(self, text: str) -> str:
        """Return a text without keys."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, MASKED)
        return text

    def send(self, sent: Sent) -> Exchange:
        """Send a request; where a connection that was kept had been closed meanwhile, by a new one, as any client."""
        exchange = self._try(sent)
        self.exchanges.append(exchange)
        if exchange.reply is None and exchange.was_reused and exchange.milliseconds < self.limit_seconds * 1000:
            exchange = self._try(sent)
            self.exchanges.append(exchange)
        return exchange

    def _try(self, sent: Sent) -> Exchange:
        head = self._endpoint.head(sent.headers, method=sent.method, target=sent.target)
        reply, fault = None, None
        began = time.perf_counter()
        try:
            reply = self._runner.run(self._endpoint.post(head, sent.body))
        except TimeoutError:
            fault = f"no whole answer within {self.limit_seconds * PATIENCE:g} s"
        except OSError as error:
            fault = f"no answer: {error.strerror or error}"
        milliseconds = (time.perf_counter() - began) * 1000
        return Exchange(
            sent=sent,
            reply=reply,
            fault=fault,
            milliseconds=milliseconds,
            was_reused=self._endpoint.last_was_reused,
        )
