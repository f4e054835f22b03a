"""The routes that accept messages by POST, and everything that differs between them.

`/segment` takes one message from Segment, `/v1/<call type>` one message from a library, and `/v1/batch` many messages.
Each class states only how it differs from the class before it.

https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import ClassVar, TypedDict, TypeVar

from handler import respond
from handler.authenticate import parse_basic, parse_write_key
from handler.canonicalise import Message, canonicalise, canonicalise_batch, repeated, write_key_of
from handler.decode import JsonObject, decode_batch, decode_body
from handler.errors import InternalError, Invalid, MessageTooLarge, Refusal
from handler.items import json_text
from handler.observe import RequestLine
from handler.parallel import call_with_retries
from handler.record import Record
from handler.respond import Response, Result
from handler.settings import ANSWER_SECONDS, LIBRARY_ANSWER_SECONDS
from handler.sinks import Outcome, Sink
from handler.spec import CALL_TYPES, DELETE

T = TypeVar("T")


class Content(TypedDict, total=False):
    """The parts of a rejected message that are kept, as fields of `Reject`."""

    body: str
    repeated: str
    index: int


@dataclass(frozen=True, kw_only=True)
class SegmentRoute:
    """Takes one message from Segment, which waits 5 seconds and retries by itself.

    `call_type` is the call type of its messages, None if each message has a `type`.
    """

    path: str
    call_type: str | None = None
    answer_seconds: ClassVar[float] = ANSWER_SECONDS
    """The time after the arrival of a request in which the function may start store calls."""

    def key(self, authorization: str, payload: Callable[[], JsonObject]) -> str:  # noqa: ARG002 -- for libraries
        """Return the API key of a request; raises `Unauthorized`, or an error of reading the payload."""
        return parse_basic(authorization)

    def decode(self, body: str, *, is_base64: bool = False) -> JsonObject:
        """Return the payload; raises a `Refusal` with status 400."""
        return decode_body(body, is_base64=is_base64)

    def canonicalise(self, payload: JsonObject) -> list[Message]:
        """Return the messages of a payload; raises a `Refusal` with status 400."""
        return canonicalise(payload, call_type=self.call_type)

    def isolate(self, work: Callable[[], T]) -> T | InternalError:
        """Call `work` for a message. A bug is raised to Lambda, which answers 500."""
        return work()

    def ask(self, call: Callable[[], T], check_deadline: Callable[[], None]) -> T:
        """Call a store if there is time; raises an `Unavailable`."""
        check_deadline()
        return call()

    def write(
        self, sink: Sink, records: Sequence[Record], check_deadline: Callable[[], None]
    ) -> Sequence[Outcome | Refusal]:
        """Write the accepted messages; raises an `Unavailable`, or the refusal of a single message."""
        return [self.ask(partial(sink.write, record), check_deadline) for record in records]

    def keeps(self, result: Result) -> bool:
        """Return whether a message is kept among the rejects: only if a schema refused it."""
        return isinstance(result.outcome, Invalid)

    def content(self, body: Callable[[], str], message: Message, index: int) -> Content:  # noqa: ARG002 -- for batches
        """Return the parts of a rejected message that are kept; `body` returns the request's body as it arrived."""
        return Content(body=body())

    def respond(self, results: Sequence[Result]) -> Response:
        """Return the response for the results."""
        [result] = results
        return respond.refused(result.outcome) if isinstance(result.outcome, Refusal) else respond.accepted(result)

    def note(self, line: RequestLine, messages: Sequence[Message]) -> None:
        """Add the message to the log line."""
        [message] = messages
        line.note_message(message)

    def log(self, line: RequestLine, results: Sequence[Result], status: int) -> None:
        """Write the log lines of the results."""
        [result] = results
        if isinstance(result.outcome, Invalid):
            line.note(kept=result.outcome.kept)
        line.write_outcome(result.outcome, status)


class CallRoute(SegmentRoute):
    """Takes one message from a library, which waits longer, and may send its key in the body."""

    answer_seconds = LIBRARY_ANSWER_SECONDS

    def key(self, authorization: str, payload: Callable[[], JsonObject]) -> str:
        """Return the key in the header, or, without a header, in the body."""
        return parse_basic(authorization) if authorization.strip() else parse_write_key(write_key_of(payload()))

    def ask(self, call: Callable[[], T], check_deadline: Callable[[], None]) -> T:
        """Call a store, and retry while there is time."""
        return call_with_retries(call, check_deadline)

    def content(self, body: Callable[[], str], message: Message, index: int) -> Content:  # noqa: ARG002 -- for batches
        """Return the canonical message, because `destination rejects retry` does not know the route."""
        return Content(body=json_text(message.body), repeated=json_text(repeated(message.body)))

    def respond(self, results: Sequence[Result]) -> Response:
        """Return a response in the form of a batch's response."""
        [result] = results
        return respond.refused(result.outcome) if isinstance(result.outcome, Refusal) else respond.counted(results)


class BatchRoute(CallRoute):
    """Takes many messages from a library. An invalid message, or a bug in one, does not affect the others."""

    def decode(self, body: str, *, is_base64: bool = False) -> JsonObject:
        """Return the payload, with a `Refusal` in place of each message that can't be parsed."""
        return decode_batch(body, is_base64=is_base64)

    def canonicalise(self, payload: JsonObject) -> list[Message]:
        """Return the messages of a batch."""
        return canonicalise_batch(payload)

    def isolate(self, work: Callable[[], T]) -> T | InternalError:
        """Call `work` for a message, and return its result, or the bug that ended it; raises a `Refusal`."""
        try:
            return work()
        except Refusal:
            raise
        except Exception as bug:  # noqa: BLE001 -- affects one message; the outcome keeps it
            return InternalError(bug)

    def write(
        self, sink: Sink, records: Sequence[Record], check_deadline: Callable[[], None]
    ) -> Sequence[Outcome | Refusal]:
        """Write the accepted messages together; raises an `Unavailable`."""
        return sink.write_all(records, check_deadline)

    def keeps(self, result: Result) -> bool:
        """Return whether a message is kept: every refused one that can be read, because a 200 hides its rejects."""
        refusal = result.outcome
        if isinstance(refusal, Invalid | InternalError):
            return True
        is_bad = isinstance(refusal, Refusal) and refusal.status == HTTPStatus.BAD_REQUEST
        return is_bad and bool(result.message.body) and not isinstance(refusal, MessageTooLarge)

    def content(self, body: Callable[[], str], message: Message, index: int) -> Content:
        """Return the canonical message, and its position in the batch."""
        return Content(**super().content(body, message, index), index=index)

    def respond(self, results: Sequence[Result]) -> Response:
        """Return the counts, and the reason for each rejected message."""
        return respond.counted(results)

    def note(self, line: RequestLine, messages: Sequence[Message]) -> None:
        """Add the number of messages to the log line."""
        line.note(messages=len(messages))

    def log(self, line: RequestLine, results: Sequence[Result], status: int) -> None:
        """Write one line for the messages that share call type and answer."""
        line.write_results(results, status)


Route = SegmentRoute
SEGMENT = SegmentRoute(path="/segment")
ROUTES: dict[str, Route] = {
    f"POST {route.path}": route
    for route in (
        SEGMENT,
        *(CallRoute(path=f"/v1/{name}", call_type=name) for name in CALL_TYPES if name != DELETE),
        *(BatchRoute(path=f"/v1/{name}") for name in ("batch", "import")),
    )
}
"""API Gateway's route key -> route."""
HEALTH = "GET /health"
"""The route key of the only route that takes no messages."""
