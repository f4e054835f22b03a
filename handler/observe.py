"""What a request leaves behind: one structured line that is also its metric (CloudWatch embedded metric format).

The line holds facts and never a key or a body. The metric counts the message once, as Accepted, Duplicate, Refused or
Failed, so that the four add up to the messages (a request that is refused before they are read counts as one): in all,
by call type and by code, which take few values, none of them a caller's own. A batch leaves a line for all of its
messages that share call type and answer.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

The field `requests` of all lines of a request adds up to 1. Metric filters in template.yaml sum it for each version of
the function: Lambda chooses the version at random for each request, so only requests can be compared.
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
"""Of a caller's own text, such as a message id that is not known to be valid yet."""

MAX_LOGGED_TEXT_CHARS = 300
"""Of what a caller reads, which may name a field of the caller's own."""

MAX_LOGGED_MESSAGES = 100
"""In one line: CloudWatch takes 256 KB, and each message has an id of its own."""

SHARE_DIGITS = 6
"""Enough for one message of a batch of thousands; metric filters read no exponents, such as in 5e-05."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What was answered: the metric that counts it, the status, and for an error its code and what the caller reads."""

    metric: str
    status: int
    code: str | None = None
    text: str | None = None

    @classmethod
    def of(cls, outcome: Outcome | Refusal | None, status: int) -> Self:
        """Return what was answered to an outcome; a batch of nothing has none."""
        if isinstance(outcome, Refusal):
            metric = "Failed" if isinstance(outcome, Unavailable | InternalError) else "Refused"
            return cls(metric=metric, status=status, code=outcome.code, text=str(outcome))
        return cls(metric="Duplicate" if outcome is Outcome.DUPLICATE else "Accepted", status=status)


class RequestLine:
    """Collects what is known of one request while it is answered; metrics are of a `service`, the deployment.

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
        """Add facts; a caller's own text is cut short."""
        for name, value in facts.items():
            self._facts[name] = value[:MAX_LOGGED_CHARS] if isinstance(value, str) else value

    def note_message(self, message: Message) -> None:
        """Add the call type and the id of the only message, where they are texts."""
        if call_type := self._counted_type(message):
            self.note(call_type=call_type)
        if isinstance(message_id := message.body["message_id"], str):
            self.note(message_id=message_id)

    def begin(self, step: str) -> None:
        """Note that a step begins, which ends the one before."""
        now = time.perf_counter()
        if self._step is not None:
            self._milliseconds[self._step] = _milliseconds(now - self._step_began)
        self._step, self._step_began = step, now

    def write(self, answered: Answered) -> None:
        """Print the line, which counts the messages that are noted, else the request as one."""
        self._write(answered, self._facts, requests=1)

    def write_outcome(self, outcome: Outcome | Refusal | None, status: int) -> None:
        """Print the line about an outcome."""
        self.write(Answered.of(outcome, status))

    def write_bug(self) -> None:
        """Print the line of a request that a bug ended."""
        self.write(Answered(metric="Failed", status=500, code="internal_error"))

    def write_results(self, results: Sequence[Result], status: int) -> None:
        """Print a line for the messages of a batch that share call type and answer."""
        groups: defaultdict[tuple[Answered, str | None], list[str]] = defaultdict(list)
        for result in results:
            message_id = result.message.body.get("message_id")
            key = (Answered.of(result.outcome, status), self._counted_type(result.message))
            groups[key].append(message_id if isinstance(message_id, str) else "")
        for (answered, call_type), message_ids in groups.items():
            self.write_messages(answered, call_type, message_ids)

    def write_messages(self, answered: Answered, call_type: str | None, message_ids: Sequence[str]) -> None:
        """Print a line for messages of a batch that share all but their ids; one that has none is ""."""
        of_batch = self._facts["messages"]
        for begin in range(0, len(message_ids), MAX_LOGGED_MESSAGES):
            ids = [message_id[:MAX_LOGGED_CHARS] for message_id in message_ids[begin : begin + MAX_LOGGED_MESSAGES]]
            facts = {**self._facts, "call_type": call_type, "messages": len(ids), "message_ids": ids}
            self._write(answered, facts, requests=round(len(ids) / of_batch, SHARE_DIGITS))

    def write_bugs(self, bugs: Sequence[BaseException]) -> None:
        """Print a line for each place from which unexpected exceptions came, without their texts.

        A text may quote a message. Lambda prints an exception that it gets itself.
        """
        origins = Counter((type(bug).__qualname__, "".join(traceback.format_tb(bug.__traceback__))) for bug in bugs)
        for (name, frames), count in origins.items():
            facts = {"level": "ERROR", "message": "exception", **self._facts, "messages": count, "exception": name}
            sys.stdout.write(json.dumps({**facts, "traceback": frames}) + "\n")

    def _counted_type(self, message: Message) -> str | None:
        """Return what a message is counted by; `other` stands for all call types that are not supported."""
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
        # Plain json.dumps escapes all that is not ASCII, so that no text of a caller can break the line.
        sys.stdout.write(f"{json.dumps(line)}\n")


def write_health(code: str | None) -> None:
    """Print what `GET /health` found; the code is that of a store that does not answer."""
    facts = {"level": "INFO" if code is None else "WARNING", "message": "health", "code": code}
    sys.stdout.write(json.dumps(facts) + "\n")


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
