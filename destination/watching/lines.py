"""A line of the function about messages, and a line of the API about a request; `request_id` joins them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self

UNKNOWN = "-"
"""What API Gateway writes for what it does not know."""
CONSUMER_FAILED = '"outcome": "consumer_failed"'
"""In each line about a message that the consumer failed to take (`consumer/runtime/batch.py`)."""
_CLF_TIME = "%d/%b/%Y:%H:%M:%S %z"
LOGGED_ID_CHARS = 100
"""Of a message id, of which the function writes no more (`handler/observe.py`)."""


@dataclass(frozen=True, kw_only=True)
class FunctionLine:
    """What the function wrote of a request, or of messages of a batch that share all but their ids.

    `status` is that of the whole answer, `code` and `text` are of these messages, and so is `kept`: whether they are
    among the rejects, where that is told. `milliseconds` is what the function took. `requests` is 1, or the share of a
    batch that these messages are. `key` is the start of the API key's hash (`handler/keys.py`).
    """

    time: datetime
    request_id: str
    route: str
    customer_id: str | None
    key: str | None
    call_type: str | None
    message_ids: tuple[str, ...]
    messages: int
    outcome: str
    status: int
    code: str | None
    text: str | None
    kept: bool | None
    milliseconds: float
    requests: float
    raw: str

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], raw: str) -> Self:
        """Read a line; one of an older version may lack what came later. Raises what a line of another kind causes."""
        ids = [facts["message_id"]] if "message_id" in facts else facts.get("message_ids", [])
        return cls(
            time=datetime.fromtimestamp(facts["_aws"]["Timestamp"] / 1000, UTC),
            request_id=str(facts["request_id"]),
            route=str(facts.get("route", "/segment")),
            customer_id=_text(facts.get("customer_id")),
            key=_text(facts.get("key")),
            call_type=_text(facts.get("call_type")),
            message_ids=tuple(map(str, ids)),
            messages=int(facts.get("messages", 1)),
            outcome=str(facts["outcome"]),
            status=int(facts["status"]),
            code=_text(facts.get("code")),
            text=_text(facts.get("text")),
            kept=facts.get("kept"),
            milliseconds=float(facts["milliseconds"]["total"]),
            requests=float(facts.get("requests", 1)),
            raw=raw,
        )

    def names(self, message_id: str) -> bool:
        """Whether it is about a message."""
        return message_id[:LOGGED_ID_CHARS] in self.message_ids


@dataclass(frozen=True, kw_only=True)
class AccessLine:
    """What API Gateway answered to a request; `status` is None where the line does not tell it.

    `error` says why the answer is not the function's.
    """

    time: datetime
    request_id: str
    route: str
    status: int | None
    milliseconds: float | None
    error: str | None
    is_by_function: bool
    raw: str

    @classmethod
    def from_json(cls, facts: Mapping[str, str], raw: str) -> Self:
        """Read a line of the format in template.yaml. Raises what a line of another kind causes."""
        status = status_of(facts["status"])
        integration_status = str(facts["integrationStatus"])
        error = str(facts.get("integrationError", UNKNOWN))  # in lines of older versions
        return cls(
            time=datetime.strptime(facts["time"], _CLF_TIME).astimezone(UTC),
            request_id=str(facts["requestId"]),
            route=str(facts["route"]),
            status=status,
            milliseconds=_number(facts["milliseconds"]),
            error=why_not_by_function(status, integration_status) if error == UNKNOWN else error,
            is_by_function=is_by_function(status, integration_status),
            raw=raw,
        )


def is_by_function(status: int | None, integration_status: str | None) -> bool:
    """Whether the function gave an answer.

    Lambda says 200 of a function that raised, too; ours answers 500 by nothing else.
    """
    return integration_status == str(HTTPStatus.OK.value) and status != HTTPStatus.INTERNAL_SERVER_ERROR


def why_not_by_function(status: int | None, integration_status: str) -> str | None:
    """Say why an answer is not the function's; None where it is, or where nothing is known.

    The access log has no text for it: API Gateway need not escape one, and a quote would break the line.
    """
    if status is None or is_by_function(status, integration_status):
        return None
    if integration_status == UNKNOWN:
        return _WITHOUT_LAMBDA.get(status)
    lambda_succeeded = integration_status == str(HTTPStatus.OK.value)
    return "the function failed" if lambda_succeeded else f"Lambda answered {integration_status}"


_WITHOUT_LAMBDA = {
    404: "no such route",
    413: "the body is larger than 10 MB",
    429: "more requests came than are let through",
    500: "the function died, or can't be called",
    503: "the function did not answer in time",
    504: "the function did not answer in time",
}


def status_of(text: str) -> int | None:
    """Return the status that a text is, None for any other text."""
    return int(text) if re.fullmatch("[1-9][0-9]{2}", text) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


@dataclass(frozen=True, kw_only=True)
class ConsumerFailure:
    """A line about a message that the consumer failed to take; `sent_to` is where the message went then, or None."""

    time: datetime
    customer_id: str | None
    message_ids: tuple[str, ...]
    error: str
    sent_to: str | None

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read a line of `consumer/runtime/batch.py` with its time. Raises what a line of another kind causes."""
        message_id = _text(facts.get("message_id"))
        return cls(
            time=datetime.fromisoformat(facts["time"]),
            customer_id=_text(facts.get("customer_id")),
            message_ids=() if message_id is None else (message_id,),
            error=str(facts["error"]),
            sent_to=_text(facts.get("sent_to")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        time = self.time.isoformat(timespec="milliseconds")
        return {"time": time, "error": self.error, "sent_to": self.sent_to}


Line = FunctionLine | AccessLine


def read_line(raw: str) -> Line | None:
    """Read a line; None for one of another kind, such as Lambda's own, or that is not whole."""
    try:
        facts = json.loads(raw)
        if facts.get("message") == "request":
            return FunctionLine.from_json(facts, raw)
        return AccessLine.from_json(facts, raw)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def read_consumer_failure(raw: str) -> ConsumerFailure | None:
    """Read a line about a message that the consumer failed to take; None for any other line."""
    if CONSUMER_FAILED not in raw:
        return None
    try:
        return ConsumerFailure.from_json(json.loads(raw))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which lines somebody wants to see; None and nothing stand for all. `status` is such as `404` or `4xx`."""

    outcomes: frozenset[str] = frozenset()
    customer_id: str | None = None
    call_type: str | None = None
    status: str | None = None
    code: str | None = None

    @property
    def asks_api(self) -> bool:
        """Whether lines of the API may be wanted: it knows nothing of messages."""
        return not (self.outcomes or self.customer_id or self.call_type or self.code)

    def takes(self, line: Line) -> bool:
        """Whether a line is wanted; one of the API only where it tells what the function does not."""
        if self.status is not None and not _is_like(line.status, self.status):
            return False
        if isinstance(line, AccessLine):
            return self.asks_api and not line.is_by_function
        return (
            (not self.outcomes or line.outcome in self.outcomes)
            and self.customer_id in (None, line.customer_id)
            and self.call_type in (None, line.call_type)
            and self.code in (None, line.code)
        )


def _is_like(status: int | None, pattern: str) -> bool:
    text = str(status or "")
    return text == pattern or (pattern.endswith("xx") and text[:1] == pattern[0])
