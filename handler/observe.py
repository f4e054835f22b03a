"""Write one structured log line per request, which is also its metric (CloudWatch embedded metric format).

The line has facts but never a key or a body. The metric counts each message once, as Accepted, Duplicate, Refused or
Failed, so that the four add up to the number of messages. A request that is refused before its messages are read counts
as one. There are metrics for all messages, by call type and by code. These dimensions have few values, and callers
can't choose them. A batch gets one line for all of its messages with the same call type and answer.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

The field `requests` of all lines of a request adds up to 1. Metric filters in template.yaml sum it for each version of
the function. Lambda chooses the version at random for each request, so versions can only be compared by requests.
"""

import json
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from handler.canonicalise import Message
from handler.errors import InternalError, Refusal, Unavailable
from handler.respond import Result
from handler.sinks import Outcome
from handler.spec import CALL_TYPES

NAMESPACE = "DirectDestination"
MAX_LOGGED_CHARS = 100
"""Limit for text of a caller, such as a message id that has not been validated yet."""

MAX_LOGGED_TEXT_CHARS = 300
"""Limit for the answer's text, which may contain a field name of the caller."""

MAX_LOGGED_MESSAGES = 100
"""Limit for one line: CloudWatch takes 256 KB, and each message has its own id."""

SHARE_DIGITS = 6
"""Enough for one message out of a batch of thousands. Metric filters can't read exponents such as 5e-05."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """The answer for a message: its metric and status, and for an error its code and text."""

    metric: str
    status: int
    code: str | None = None
    text: str | None = None

    @classmethod
    def of(cls, outcome: Outcome | Refusal | None, status: int) -> Self:
        """Return the answer for an outcome; an empty batch has no outcome."""
        if isinstance(outcome, Refusal):
            metric = "Failed" if isinstance(outcome, Unavailable | InternalError) else "Refused"
            return cls(metric=metric, status=status, code=outcome.code, text=str(outcome))
        return cls(metric="Duplicate" if outcome is Outcome.DUPLICATE else "Accepted", status=status)


class RequestLine:
    """Collects facts of one request while it is processed; the metrics have the dimension `service`, the deployment.

    Call types that are not among `call_types` are counted together, as `other`.
    """

    def __init__(
        self, request_id: str, *, service: str, version: str, call_types: Collection[str] = CALL_TYPES
    ) -> None:
        self._service = service
        self._version = version
        self._call_types = call_types
        self._facts: dict[str, Any] = {"request_id": request_id}
        self._milliseconds: dict[str, float] = {}
        self._step: str | None = None
        self._began = self._step_began = time.perf_counter()

    def note(self, **facts: object) -> None:
        """Add facts; text of a caller is truncated."""
        for name, value in facts.items():
            self._facts[name] = value[:MAX_LOGGED_CHARS] if isinstance(value, str) else value

    def note_message(self, message: Message) -> None:
        """Add the call type and the id of the only message, if they are strings."""
        if call_type := self._counted_type(message):
            self.note(call_type=call_type)
        if isinstance(message_id := message.body["message_id"], str):
            self.note(message_id=message_id)

    def begin(self, step: str) -> None:
        """Note the beginning of a step, which is the end of the previous step."""
        now = time.perf_counter()
        if self._step is not None:
            self._milliseconds[self._step] = _milliseconds(now - self._step_began)
        self._step, self._step_began = step, now

    def write(self, answered: Answered) -> None:
        """Print the log line. It counts the noted number of messages, or 1."""
        self._write(answered, self._facts, requests=1)

    def write_outcome(self, outcome: Outcome | Refusal | None, status: int) -> None:
        """Print the log line for an outcome."""
        self.write(Answered.of(outcome, status))

    def write_bug(self) -> None:
        """Print the log line of a request that a bug ended."""
        self.write(Answered(metric="Failed", status=500, code="internal_error"))

    def write_results(self, results: Sequence[Result], status: int) -> None:
        """Print one line for the messages of a batch that share call type and answer."""
        groups: defaultdict[tuple[Answered, str | None], list[str]] = defaultdict(list)
        for result in results:
            message_id = result.message.body.get("message_id")
            key = (Answered.of(result.outcome, status), self._counted_type(result.message))
            groups[key].append(message_id if isinstance(message_id, str) else "")
        for (answered, call_type), message_ids in groups.items():
            self.write_messages(answered, call_type, message_ids)

    def write_messages(self, answered: Answered, call_type: str | None, message_ids: Sequence[str]) -> None:
        """Print one line for messages of a batch that differ only in their ids; "" stands for a missing id."""
        of_batch = self._facts["messages"]
        for begin in range(0, len(message_ids), MAX_LOGGED_MESSAGES):
            ids = [message_id[:MAX_LOGGED_CHARS] for message_id in message_ids[begin : begin + MAX_LOGGED_MESSAGES]]
            facts = {**self._facts, "call_type": call_type, "messages": len(ids), "message_ids": ids}
            self._write(answered, facts, requests=round(len(ids) / of_batch, SHARE_DIGITS))

    def write_bugs(self, bugs: Sequence[BaseException]) -> None:
        """Print a line for each place in the code that raised unexpected exceptions, without their texts.

        A text may quote a message. Lambda itself prints an exception that reaches it.
        """
        origins = Counter((type(bug).__qualname__, "".join(traceback.format_tb(bug.__traceback__))) for bug in bugs)
        for (name, frames), count in origins.items():
            facts = {"level": "ERROR", "message": "exception", **self._facts, "messages": count, "exception": name}
            sys.stdout.write(json.dumps({**facts, "traceback": frames}) + "\n")

    def _counted_type(self, message: Message) -> str | None:
        """Return the call type under which a message is counted; `other` for all unsupported call types."""
        if not isinstance(message.type, str) or not message.type:
            return None
        return message.type if message.type in self._call_types else "other"

    def _write(self, answered: Answered, facts: Mapping[str, Any], *, requests: float) -> None:
        self.begin("total")
        self._milliseconds["total"] = _milliseconds(self._step_began - self._began)
        own = {"CallType": facts.get("call_type"), "Code": answered.code}
        dimensions = {name: value for name, value in own.items() if value is not None}
        counted = {
            "Namespace": NAMESPACE,
            "Dimensions": [["service"], *(["service", name] for name in dimensions)],
            "Metrics": [{"Name": answered.metric, "Unit": "Count"}],
        }
        line = {
            "level": "INFO",
            "message": "request",
            "_aws": {"CloudWatchMetrics": [counted], "Timestamp": int(time.time() * 1000)},
            "service": self._service,
            **dimensions,
            answered.metric: [float(facts.get("messages", 1))],
            **facts,
            "version": self._version,
            "requests": requests,
            "outcome": answered.metric.lower(),
            "status": answered.status,
            "code": answered.code,
            "text": answered.text and answered.text[:MAX_LOGGED_TEXT_CHARS],
            "milliseconds": self._milliseconds,
        }
        # Plain json.dumps escapes everything except ASCII, so text of a caller can't break the line.
        sys.stdout.write(f"{json.dumps(line)}\n")


def write_health(code: str | None) -> None:
    """Print the result of `GET /health`; the code names a store that does not answer."""
    facts = {"level": "INFO" if code is None else "WARNING", "message": "health", "code": code}
    sys.stdout.write(json.dumps(facts) + "\n")


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
