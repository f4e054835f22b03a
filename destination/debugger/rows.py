"""A request as one line of the page: a local server's row has the users, a stack's row only facts from its log."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

from destination.deployment.event_table import describe, value_text
from destination.local.exchange import Exchange, Reading
from destination.segment.contract import RETRIED_BY_SEGMENT
from destination.watching.lines import AccessLine, Line
from handler.canonicalise import Message
from handler.decode import JsonObject
from handler.routes import BatchRoute

MAX_CHARS = 200
"""Limit for a text in a row."""
STORED, DUPLICATE, REFUSED, FAILED = OUTCOMES = ("stored", "duplicate", "refused", "failed")
ANSWERED = "answered"
"""The outcome of a request without messages, such as `GET /health`."""
BY_FUNCTION, BY_API = "function", "API Gateway"
_IDS = {"group_id": ("group", "group"), "previous_id": ("previous id", "alias")}
"""The labels of ids on the page, each with the call type that it belongs to."""
_GRAVEST_FIRST = (FAILED, REFUSED, STORED, DUPLICATE)


def outcome_of(logged: str) -> str:
    """Return the page's name for the outcome in a line."""
    return STORED if logged == "accepted" else logged


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the page; `time` is the time of the answer in milliseconds since 1970, `ms` the duration.

    `counts` are the messages by outcome, `types` by call type. `outcome` is the most serious one, `by` names who
    answered.
    """

    id: str
    time: int
    method: str
    route: str
    status: int | None
    outcome: str
    counts: Mapping[str, int]
    types: Mapping[str, int] = field(default_factory=dict)
    messages: int = 0
    batch: bool = False
    customer: str | None = None
    user: str | None = None
    user_kind: str | None = None
    event: str | None = None
    message_id: str | None = None
    code: str | None = None
    text: str | None = None
    ms: float | None
    by: str = BY_FUNCTION

    @classmethod
    def of_exchange(cls, exchange: Exchange, reading: Reading | None = None) -> Self:
        """Return the row of a request with a known body; `reading` is the parsed body, if it was parsed already."""
        counts: Counter[str] = Counter()
        types: Counter[str] = Counter()
        for line in exchange.lines:
            counts[outcome_of(line["outcome"])] += line.get("messages", 1)
            if call_type := line.get("call_type"):
                types[call_type] += line.get("messages", 1)
        by_status = _by_status(exchange.status)
        # Parsing many messages takes long, and their log lines have enough facts.
        messages = (reading or exchange.read()).messages if counts.total() <= 1 else ()
        if not exchange.lines and exchange.route and by_status != ANSWERED:
            counts[by_status] = max(1, len(messages))
        last = exchange.lines[-1] if exchange.lines else {}
        return cls(
            id=exchange.id,
            time=round(exchange.time.timestamp() * 1000 + exchange.milliseconds),
            method=exchange.method,
            route=exchange.path,
            status=exchange.status,
            outcome=next((one for one in _GRAVEST_FIRST if counts[one]), by_status),
            counts=counts,
            types=types,
            messages=counts.total(),
            batch=isinstance(exchange.route, BatchRoute),
            customer=last.get("customer_id"),
            **(_about(messages[0]) if len(messages) == 1 else {}),
            code=last.get("code"),
            text=last.get("text") or exchange.error,
            ms=round(exchange.milliseconds, 1),
            by=BY_API if exchange.error else BY_FUNCTION,
        )

    @classmethod
    def of_line(cls, line: Line, number: int) -> Self:
        """Return the row of a log line of a stack, with a running `number`; a batch has several lines."""
        began = line.time.timestamp() * 1000
        took = (
            (line.milliseconds or 0) if isinstance(line, AccessLine) else 0
        )  # the function writes its line at the end
        common: dict[str, Any] = {
            "id": f"{line.request_id}.{number}",
            "time": round(began + took),
            "status": line.status,
            "ms": line.milliseconds,
        }
        if isinstance(line, AccessLine):
            method, _, path = line.route.rpartition(" ")
            outcome = _by_status(line.status)
            counts = {} if outcome == ANSWERED or not path.startswith("/") else {outcome: 1}
            return cls(**common, method=method, route=path, outcome=outcome, counts=counts, text=line.error, by=BY_API)
        outcome = outcome_of(line.outcome)
        return cls(
            **common,
            method="POST",
            route=line.route,
            outcome=outcome,
            counts={outcome: line.messages},
            types={line.call_type: line.messages} if line.call_type else {},
            messages=line.messages,
            batch=len(line.message_ids) != 1 and line.messages > 1,
            customer=line.customer_id,
            message_id=line.message_ids[0] if len(line.message_ids) == 1 else None,
            code=line.code,
            text=line.text,
        )

    @property
    def call_type(self) -> str | None:
        """The call type of its messages, if they have only one."""
        return next(iter(self.types)) if len(self.types) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return the form for the page."""
        fields = {name: value[:MAX_CHARS] if isinstance(value, str) else value for name, value in vars(self).items()}
        return {**fields, "types": [*self.types], "call_type": self.call_type}


def _by_status(status: int | None) -> str:
    """Return the outcome for a status."""
    if status is None or status in RETRIED_BY_SEGMENT:
        return FAILED
    return ANSWERED if status < HTTPStatus.BAD_REQUEST else REFUSED


def _about(message: Message) -> dict[str, str | None]:
    """Return the user and the subject matter of a message, as far as it has them."""
    body = message.body
    kind = "user" if "user_id" in body else "anonymous" if "anonymous_id" in body else None
    return {
        "user": value_text(body[f"{kind}_id"]) if kind else None,
        "user_kind": kind,
        "event": about_of(body) or None,
        "message_id": value_text(body["message_id"]) if "message_id" in body else None,
    }


def about_of(body: JsonObject) -> str:
    """Return the most telling field of a canonical message, an id with its label; "" without one."""
    for name, (label, call_type) in _IDS.items():
        if body.get(name) and (body.get("type") == call_type or not (body.get("event") or body.get("name"))):
            return f"{label} {value_text(body[name])}"
    return describe(body)
