"""The whole service, in order: request -> customer -> payload -> messages -> records -> response."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TypeVar

from handler import respond
from handler.authenticate import authenticate, authorise, check_live, confirm, parse_basic, parse_write_key
from handler.canonicalise import (
    Message,
    canonicalise,
    canonicalise_batch,
    names_write_key,
    repeated,
    without_write_key,
    write_key_of,
)
from handler.decode import JsonObject, decode_batch, decode_body, decode_settings, decode_text
from handler.erased import Tombstones
from handler.errors import (
    CallTypeNotAllowed,
    DeadlineClose,
    InternalError,
    Invalid,
    Maintenance,
    MessageTooLarge,
    Refusal,
    Unavailable,
    UserErased,
)
from handler.items import json_text
from handler.keys import ApiKey, KeyStore
from handler.observe import Answered, RequestLine
from handler.parallel import in_parallel, patiently
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.request import Request, Route
from handler.respond import Response, Result
from handler.settings import STORE_CALL_SECONDS, Settings
from handler.time_limit import CheckTime
from handler.validate import Schemas, check_call_type
from handler.write import EventSink, Outcome

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One deployed destination; `clock` gives seconds since 1970. Without tombstones nobody counts as erased."""

    settings: Settings
    keys: KeyStore
    tombstones: Tombstones | None
    schemas: Schemas
    sink: EventSink
    rejects: RejectTable
    clock: Callable[[], float]

    def answer(self, request: Request) -> Response:
        """Answer a request and leave its lines. An exception that is no `Refusal` is a bug, and goes on to Lambda."""
        service, version = self.settings.powertools_service_name, self.settings.aws_lambda_function_version
        line = RequestLine(request.id, service=service, version=version)
        line.note(route=request.route.path)
        messages: Sequence[Message] = ()
        try:
            api_key, payload, messages = self._read(request, line)
            results = self._take(request, line, api_key, payload, messages)
        except Refusal as refusal:
            if isinstance(refusal, Invalid):
                line.note(kept=refusal.kept)
            if request.route.is_batch and messages:
                failed = [Result(message=message, outcome=refusal) for message in messages]
                self._write_lines(line, failed, refusal.status)
            else:
                line.write(_answered(refusal, refusal.status))
            return respond.refused(refusal)
        except Exception:
            line.write(Answered(metric="Failed", status=500, code="internal_error"))
            raise
        response = respond.counted(results) if request.route.is_library else respond.accepted(results[0])
        if request.route.is_batch and results:
            self._write_lines(line, results, response["statusCode"])
        else:
            line.write(_answered(results[0].outcome if results else None, response["statusCode"]))
        return response

    def _read(self, request: Request, line: RequestLine) -> tuple[ApiKey, JsonObject, Sequence[Message]]:
        """Return who sends, the payload, and the messages in it; raises a `Refusal`."""
        if self.settings.maintenance:
            raise Maintenance
        line.begin("authenticate")
        payload = None
        authorization = request.headers.get("authorization", "")
        if request.route.is_library and not authorization.strip():
            payload = _decode(request)
            key = parse_write_key(write_key_of(payload))
        else:
            key = parse_basic(authorization)
        now = self.clock()  # before the key store's clock, so that a key that is live there is not expired here
        api_key = authenticate(key, self.keys)
        line.note(customer_id=api_key.customer_id)
        check_live(api_key, now)
        line.begin("decode")
        if payload is None:
            payload = _decode(request)
        line.begin("canonicalise")
        if request.route.is_batch:
            messages = canonicalise_batch(payload)
            line.note(messages=len(messages))
        else:
            messages = canonicalise(payload, call_type=request.route.call_type)
            self._note_message(line, messages[0])
        return api_key, payload, messages

    def _take(
        self, request: Request, line: RequestLine, api_key: ApiKey, payload: JsonObject, messages: Sequence[Message]
    ) -> list[Result]:
        """Return what became of each message of a batch; raises the `Refusal` of a single one, or of them all."""
        line.begin("validate")
        refusals = self._judge(request, api_key, messages)
        accepted = [message for index, message in enumerate(messages) if index not in refusals]
        written = iter(self._write(request, line, api_key, accepted))
        results = [
            Result(message=message, outcome=refusals.get(index) or next(written))
            for index, message in enumerate(messages)
        ]
        self._keep_rejects(request, line, api_key, payload, results)
        if not request.route.is_batch and isinstance(refusal := results[0].outcome, Refusal):
            raise refusal
        return results

    def _judge(self, request: Request, api_key: ApiKey, messages: Sequence[Message]) -> dict[int, Refusal]:
        """Return why messages are refused, by their indices; raises an `Unavailable`."""
        refusals: dict[int, Refusal] = {}

        def judge(verdicts: Callable[[Sequence[Message]], Iterable[Refusal | None]]) -> None:
            left = [index for index in range(len(messages)) if index not in refusals]
            found = zip(left, verdicts([messages[index] for index in left]), strict=True)
            refusals.update({index: refusal for index, refusal in found if refusal is not None})

        def check(step: Callable[[Message], None]) -> None:
            judge(partial(map, partial(_verdict, request.route, step)))

        check(partial(self._admit, request, api_key))
        if any(isinstance(refusal, CallTypeNotAllowed) for refusal in refusals.values()):
            confirmed = self._ask(request, partial(confirm, api_key, self.keys))
            check_live(confirmed, self.clock())
            refusals.clear()
            check(partial(self._admit, request, confirmed))
        judge(partial(self._erased, request, api_key))
        check(partial(self._check_schemas, request, CheckTime()))
        return refusals

    def _admit(self, request: Request, api_key: ApiKey, message: Message) -> None:
        if message.fault is not None:
            raise message.fault
        supported = self.settings.supported_call_types
        authorise(api_key, check_call_type(message, supported, expected=request.route.call_type))

    def _erased(self, request: Request, api_key: ApiKey, messages: Sequence[Message]) -> Sequence[Refusal | None]:
        """Return the refusal of each message that happened before its user was erased; raises an `Unavailable`."""
        if self.tombstones is None:
            return [None] * len(messages)
        try:
            return self.tombstones.refusals(api_key.customer_id, messages, partial(self._ask, request))
        except Unavailable:
            raise
        except Exception as bug:
            if not request.route.is_batch:
                raise
            if len(messages) == 1:
                return [InternalError(bug)]
        half = len(messages) // 2  # to find the message that meets the bug
        return [*self._erased(request, api_key, messages[:half]), *self._erased(request, api_key, messages[half:])]

    def _check_schemas(self, request: Request, time: CheckTime, message: Message) -> None:
        self.schemas.check_settings(decode_settings(request.headers.get("x-segment-settings")), time)
        self.schemas.check_message(str(message.type), message.body, time)

    def _keep_rejects(
        self, request: Request, line: RequestLine, api_key: ApiKey, payload: JsonObject, results: Sequence[Result]
    ) -> None:
        """Keep rejects of users who are not erased; raises an `Unavailable`, or the bug with one that is not kept."""
        rejected = [index for index, result in enumerate(results) if _is_kept(request.route, result)]
        if not rejected:
            return
        line.begin("reject")
        # Schemas judge only messages that passed the check of their users already.
        unchecked = [index for index in rejected if not isinstance(results[index].outcome, Invalid)]
        verdicts = self._erased(request, api_key, [results[index].message for index in unchecked])
        erased = {index for index, verdict in zip(unchecked, verdicts, strict=True) if isinstance(verdict, UserErased)}
        keep = partial(self._keep, request, api_key, payload, results)
        kept = in_parallel(keep, [index for index in rejected if index not in erased])
        lost = [bug for bug in kept if bug is not None]
        line.write_bugs([*_bugs(results), *lost])
        if lost:
            raise lost[0]

    def _keep(
        self, request: Request, api_key: ApiKey, payload: JsonObject, results: Sequence[Result], index: int
    ) -> BaseException | None:
        """Keep a message among the rejects; raises an `Unavailable`.

        Returns the bug that keeps a message of a batch out of the rejects: the sender must send it again.
        """
        message, refusal = results[index].message, results[index].outcome
        assert isinstance(refusal, Refusal)  # noqa: S101 -- what `_is_kept` selects
        try:
            is_library = request.route.is_library
            reject = Reject(
                customer_id=api_key.customer_id,
                message=message,
                body=json_text(message.body) if is_library else _body(request, payload),
                repeated=json_text(repeated(message.body)) if is_library else None,
                settings_header=request.headers.get("x-segment-settings", ""),
                refusal=refusal,
                rejected_at=self.clock(),
                index=index if request.route.is_batch else None,
            )
            refusal.kept = self._ask(request, partial(self.rejects.keep, reject))
        except Unavailable:
            raise
        except Exception as bug:
            if not request.route.is_batch:
                raise
            return bug
        return refusal.__cause__ if isinstance(refusal, InternalError) and not refusal.kept else None

    def _write(
        self, request: Request, line: RequestLine, api_key: ApiKey, messages: Sequence[Message]
    ) -> Sequence[Outcome | Refusal]:
        if not messages:
            return ()
        line.begin("write")
        settings = decode_settings(request.headers.get("x-segment-settings"))
        records = [
            Record(customer_id=api_key.customer_id, message=message, settings=settings, stored_at=self.clock())
            for message in messages
        ]
        if request.route.is_batch:
            return self.sink.write_all(records, partial(self._check_deadline, request))
        return [self._ask(request, partial(self.sink.write, record)) for record in records]

    def _ask(self, request: Request, call: Callable[[], Answer]) -> Answer:
        """Call a store where there is time for it, for a library also again."""
        check_deadline = partial(self._check_deadline, request)
        if request.route.is_library:
            return patiently(call, check_deadline)
        check_deadline()
        return call()

    def _check_deadline(self, request: Request) -> None:
        """Start no call of a store that the answer might not wait for."""
        if self.clock() + STORE_CALL_SECONDS > request.received_at + request.route.answer_seconds:
            raise DeadlineClose

    def _note_message(self, line: RequestLine, message: Message) -> None:
        if call_type := self._counted_type(message):
            line.note(call_type=call_type)
        if isinstance(message_id := message.body["message_id"], str):
            line.note(message_id=message_id)

    def _write_lines(self, line: RequestLine, results: Sequence[Result], status: int) -> None:
        """Leave a line for the messages of a batch that share call type and answer."""
        groups: defaultdict[tuple[Answered, str | None], list[str]] = defaultdict(list)
        for result in results:
            message_id = result.message.body.get("message_id")
            key = (_answered(result.outcome, status), self._counted_type(result.message))
            groups[key].append(message_id if isinstance(message_id, str) else "")
        for (answered, call_type), message_ids in groups.items():
            line.write_messages(answered, call_type, message_ids)

    def _counted_type(self, message: Message) -> str | None:
        """Return what a message is counted by; `other` stands for all call types that are not supported."""
        if not isinstance(message.type, str) or not message.type:
            return None
        return message.type if message.type in self.settings.supported_call_types else "other"


def _decode(request: Request) -> JsonObject:
    decode = decode_batch if request.route.is_batch else decode_body
    return decode(request.body, is_base64=request.is_base64)


def _body(request: Request, payload: JsonObject) -> str:
    """Return a body as it came, but never with the key of its source."""
    body = decode_text(request.body, is_base64=request.is_base64)
    return json_text(without_write_key(payload)) if names_write_key(body) else body


def _verdict(route: Route, check: Callable[[Message], None], message: Message) -> Refusal | None:
    """Return why a check that asks no store refuses a message. In a batch, a bug concerns one message."""
    try:
        check(message)
    except Refusal as refusal:
        return refusal
    except Exception as bug:
        if not route.is_batch:
            raise
        return InternalError(bug)
    return None


def _is_kept(route: Route, result: Result) -> bool:
    """Return whether a message is kept among the rejects.

    That is what a schema refuses, and of a batch everything that can be read, because a 200 hides what is rejected.
    """
    refusal = result.outcome
    if isinstance(refusal, Invalid | InternalError):
        return True
    is_bad = isinstance(refusal, Refusal) and refusal.status == HTTPStatus.BAD_REQUEST
    return route.is_batch and is_bad and bool(result.message.body) and not isinstance(refusal, MessageTooLarge)


def _bugs(results: Sequence[Result]) -> list[BaseException]:
    """Return the unexpected exceptions that ended the processing of messages."""
    causes = (result.outcome.__cause__ for result in results if isinstance(result.outcome, InternalError))
    return [cause for cause in causes if cause is not None]


def _answered(outcome: Outcome | Refusal | None, status: int) -> Answered:
    """Return what the lines tell of an outcome; a batch of nothing has none."""
    if isinstance(outcome, Refusal):
        metric = "Failed" if isinstance(outcome, Unavailable | InternalError) else "Refused"
        return Answered(metric=metric, status=status, code=outcome.code, text=str(outcome))
    return Answered(metric="Duplicate" if outcome is Outcome.DUPLICATE else "Accepted", status=status)
