"""The function's line about messages, and the API's line about a request; `request_id` joins them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Self

UNKNOWN = "-"
"""API Gateway's text for an unknown value."""
CONSUMER_FAILED = '"outcome": "consumer_failed"'
"""Part of each line about a message that the consumer failed to handle (`consumer/runtime/batch.py`)."""
_CLF_TIME = "%d/%b/%Y:%H:%M:%S %z"
LOGGED_ID_CHARS = 100
"""The function logs at most this many characters of a message id (`handler/observe.py`)."""


@dataclass(frozen=True, kw_only=True)
class FunctionLine:
    """The function's line about a request, or about messages of a batch that differ only in their ids.

    `status` is the status of the whole response. `code`, `text` and `kept` are about these messages; `kept` says
    whether they are among the rejects, if known. `milliseconds` is the function's time. `requests` is 1, or the share
    of these messages in a batch. `key` is the start of the API key's hash (`handler/keys.py`).
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
        """Read a line; a line of an older version may lack newer fields. Any other line causes an exception."""
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
        """Return whether the line is about a message."""
        return message_id[:LOGGED_ID_CHARS] in self.message_ids


@dataclass(frozen=True, kw_only=True)
class AccessLine:
    """The answer of API Gateway to a request; `status` is None if the line does not have it.

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
        """Read a line in the format of template.yaml. Any other line causes an exception."""
        status = status_of(facts["status"])
        integration_status = str(facts["integrationStatus"])
        error = str(facts.get("integrationError", UNKNOWN))  # lines of older versions have this field
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
    """Return whether the function answered.

    Lambda reports 200 also for a function that raised. But our function never returns a 500 itself, so a 500 means that
    it raised.
    """
    return integration_status == str(HTTPStatus.OK.value) and status != HTTPStatus.INTERNAL_SERVER_ERROR


def why_not_by_function(status: int | None, integration_status: str) -> str | None:
    """Return why an answer is not the function's; None if it is, or if nothing is known.

    The access log has no text for it, because API Gateway might not escape quotation marks, which would break the line.
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
    429: "there were more requests than the limit allows",
    500: "the function died, or can't be called",
    503: "the function did not answer in time",
    504: "the function did not answer in time",
}


def status_of(text: str) -> int | None:
    """Return the status in a text, None for any other text."""
    return int(text) if re.fullmatch("[1-9][0-9]{2}", text) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() else None


@dataclass(frozen=True, kw_only=True)
class ConsumerFailure:
    """A line about a message that the consumer failed to handle; `sent_to` is the message's next place, or None."""

    time: datetime
    customer_id: str | None
    message_ids: tuple[str, ...]
    error: str
    sent_to: str | None

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read a line of `consumer/runtime/batch.py` with its time. Any other line causes an exception."""
        message_id = _text(facts.get("message_id"))
        return cls(
            time=datetime.fromisoformat(facts["time"]),
            customer_id=_text(facts.get("customer_id")),
            message_ids=() if message_id is None else (message_id,),
            error=str(facts["error"]),
            sent_to=_text(facts.get("sent_to")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--json`."""
        time = self.time.isoformat(timespec="milliseconds")
        return {"time": time, "error": self.error, "sent_to": self.sent_to}


Line = FunctionLine | AccessLine


def read_line(raw: str) -> Line | None:
    """Read a line; None for any other line, such as Lambda's own, and for an incomplete one."""
    try:
        facts = json.loads(raw)
        if facts.get("message") == "request":
            return FunctionLine.from_json(facts, raw)
        return AccessLine.from_json(facts, raw)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def read_consumer_failure(raw: str, time: datetime | None = None) -> ConsumerFailure | None:
    """Read a line about a message that the consumer failed to handle; None for any other line.

    A local server adds the time to the line. For a line of a stack, `time` has it.
    """
    if CONSUMER_FAILED not in raw:
        return None
    try:
        facts = json.loads(raw)
        return ConsumerFailure.from_json(facts if time is None else {**facts, "time": time.isoformat()})
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A filter for lines; None and empty collections match everything. `status` is such as `404` or `4xx`."""

    outcomes: frozenset[str] = frozenset()
    customer_id: str | None = None
    call_type: str | None = None
    status: str | None = None
    code: str | None = None

    @property
    def asks_api(self) -> bool:
        """Return whether lines of the API can match: they have no facts about messages."""
        return not (self.outcomes or self.customer_id or self.call_type or self.code)

    def takes(self, line: Line) -> bool:
        """Return whether a line matches; a line of the API only if the function did not answer."""
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
