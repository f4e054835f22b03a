"""The history of one message: each delivery, its answer, and where the message is now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from rich.text import Text

from destination.console import counted, printable
from destination.watching.lines import AccessLine, ConsumerFailure, FunctionLine
from destination.watching.retries import describe_retry
from destination.watching.search import SearchResult

COLOURS = {"accepted": "green", "duplicate": "green", "refused": "yellow", "failed": "red"}


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The function's line about a message, and the API's answer, if it is known."""

    line: FunctionLine
    answer: AccessLine | None

    @property
    def answered_otherwise(self) -> bool:
        """Return whether the sender got another answer than the function's; a function that raised gives none."""
        if self.answer is None or self.answer.status is None or self.line.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            return False
        return self.answer.status != self.line.status or not self.answer.is_by_function

    @property
    def follows(self) -> str:
        """What the sender did after the answer."""
        return describe_retry(self.line, self.answer)

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--json`."""
        line, answer = self.line, self.answer
        return {
            "time": line.time.isoformat(timespec="milliseconds"),
            "request_id": line.request_id,
            "route": line.route,
            "customer_id": line.customer_id,
            "call_type": line.call_type,
            "outcome": line.outcome,
            "status": line.status,
            "code": line.code,
            "text": line.text,
            "kept": line.kept,
            "milliseconds": line.milliseconds,
            "answered": answer and answer.status,
            "error": answer and answer.error,
            "follows": self.follows,
        }

    def picture(self) -> Iterator[Text]:
        """Yield lines for people."""
        line, answer = self.line, self.answer
        words = [line.outcome, line.call_type, line.code]
        yield Text.assemble(
            (f"{line.time:%Y-%m-%d %H:%M:%S.%f}"[:-3], "dim"),
            f" {line.route} ",
            (str(line.status), COLOURS.get(line.outcome, "")),
            f" {printable(' '.join(word for word in words if word))}",
            (f"  {line.milliseconds:.1f} ms  request {printable(line.request_id)}", "dim"),
        )
        if line.text:
            yield Text(f"    {printable(line.text)}")
        if self.answered_otherwise and answer is not None:
            why = f": {answer.error}" if answer.error else ""
            yield Text(f"    API Gateway had answered {answer.status} by itself{printable(why)}.", "red")
        yield Text(f"    {self.follows}")


@dataclass(frozen=True, kw_only=True)
class History:
    """The history of a message id of one customer; `now` has sentences about where it is.

    It `is_missing` if it should be in a table and is not.
    """

    customer_id: str
    deliveries: Sequence[Delivery]
    consumer_failures: Sequence[ConsumerFailure]
    result: SearchResult
    now: Sequence[str]
    is_missing: bool

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--json`."""
        items = self.result.items
        facts = ("subject", "position", "type", "timestamp", "stored_at")
        return {
            "customer_id": self.customer_id,
            "deliveries": [delivery.to_json() for delivery in self.deliveries],
            "consumer_failures": [failure.to_json() for failure in self.consumer_failures],
            "stored": items and [{name: item[name]["S"] for name in facts} for item in items],
            "rejects": [reject.to_json() for reject in self.result.rejects],
            "now": self.now,
            "missing": self.is_missing,
        }

    def picture(self, message_id: str) -> Iterator[Text]:
        """Yield lines for people."""
        yield Text(printable(f"Message {message_id} of customer {self.customer_id or '(unknown)'}"), "bold")
        for delivery in self.deliveries:
            yield from delivery.picture()
        for sentence in describe_failures(self.consumer_failures):
            yield Text(printable(sentence), "red")
        for sentence in self.now:
            yield Text(printable(sentence))


def describe_failures(failures: Sequence[ConsumerFailure]) -> Iterator[str]:
    """Yield a sentence about the failures of the consumer to take a message, oldest first, if there are any."""
    if failures:
        last = failures[-1]
        place = {"queue": " The message went to the event queue.", "dead_letters": " The message is a dead letter."}
        yield (
            f"The consumer failed {counted(len(failures), 'time')}, last at {last.time:%H:%M:%S} UTC: {last.error}."
            f"{place.get(last.sent_to or '', '')}"
        )
