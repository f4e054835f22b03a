"""The whole service, in order: request -> customer -> payload -> messages -> records -> response."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from handler import respond
from handler.authenticate import authenticate, authorise, parse_basic, trimmed
from handler.canonicalise import (
    Message,
    canonicalise,
    canonicalise_batch,
    names_write_key,
    without_write_key,
    write_key_of,
)
from handler.decode import JsonObject, decode_batch, decode_body, decode_settings, decode_text
from handler.erased import Tombstones
from handler.errors import DeadlineClose, Invalid, Maintenance, Refusal, Unavailable
from handler.items import json_text
from handler.keys import ApiKey, KeyStore
from handler.observe import RequestLine
from handler.parallel import in_parallel
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.request import Request
from handler.respond import Response, Result
from handler.settings import STORE_CALL_SECONDS, Settings
from handler.validate import Schemas, check_call_type
from handler.write import EventSink, Outcome


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
        line = RequestLine(request.id)
        try:
            results = self._receive(request, line)
        except Refusal as refusal:
            if isinstance(refusal, Invalid):
                line.note(kept=refusal.kept)
            line.write("Failed" if isinstance(refusal, Unavailable) else "Refused", refusal.status, refusal.code)
            return respond.refused(refusal)
        except Exception:
            line.write("Failed", 500, "internal_error")
            raise
        response = respond.counted(results) if request.route.is_library else respond.accepted(results[0])
        if request.route.is_batch:
            self._write_lines(line, results, response["statusCode"])
        else:
            line.write(_metric(results[0].outcome), response["statusCode"])
        return response

    def _receive(self, request: Request, line: RequestLine) -> list[Result]:
        """Return what became of each message of a batch; raises the `Refusal` of a single one."""
        if self.settings.maintenance:
            raise Maintenance
        line.begin("authenticate")
        payload = None
        authorization = request.headers.get("authorization", "")
        if request.route.is_library and not authorization.strip():
            payload = _decode(request)
            key = trimmed(write_key_of(payload))
        else:
            key = parse_basic(authorization)
        api_key = authenticate(key, self.keys, self.clock())
        line.note(customer_id=api_key.customer_id)
        line.begin("decode")
        if payload is None:
            payload = _decode(request)
        line.begin("canonicalise")
        if request.route.is_batch:
            messages = canonicalise_batch(payload)
        else:
            messages = canonicalise(payload, call_type=request.route.call_type)
            self._note_message(line, messages[0])
        line.begin("validate")
        judged = in_parallel(lambda message: self._judge(request, api_key, message), messages)
        refused = {index: verdict for index, verdict in enumerate(judged) if isinstance(verdict, Refusal)}
        if to_keep := [i for i, refusal in refused.items() if messages[i].body and _is_kept(refusal, request)]:
            line.begin("reject")
            in_parallel(lambda i: self._keep(request, api_key, payload, messages[i], refused[i], i), to_keep)
        if refused and not request.route.is_batch:
            raise refused[0]
        line.begin("write")
        written = iter(self._write(request, [record for record in judged if isinstance(record, Record)]))
        results = [
            Result(message=message, outcome=next(written) if isinstance(verdict, Record) else verdict)
            for message, verdict in zip(messages, judged, strict=True)
        ]
        if not request.route.is_batch and isinstance(too_large := results[0].outcome, Refusal):
            raise too_large
        return results

    def _judge(self, request: Request, api_key: ApiKey, message: Message) -> Record | Refusal:
        """Return the record of a message, or why there is none; raises an `Unavailable`."""
        try:
            if message.fault is not None:
                raise message.fault
            supported = self.settings.supported_call_types
            call_type = check_call_type(message, supported, expected=request.route.call_type)
            authorise(api_key, call_type)
            if self.tombstones is not None:
                self._check_deadline(request)
                self.tombstones.check(api_key.customer_id, message)
            settings = decode_settings(request.headers.get("x-segment-settings"))
            self.schemas.check_settings(settings)
            self.schemas.check_message(call_type, message.body)
        except Unavailable:
            raise
        except Refusal as refusal:
            return refusal
        return Record(customer_id=api_key.customer_id, message=message, settings=settings, stored_at=self.clock())

    def _keep(  # noqa: PLR0913, PLR0917 -- what a reject tells
        self, request: Request, api_key: ApiKey, payload: JsonObject, message: Message, refusal: Refusal, index: int
    ) -> None:
        """Keep a refused message."""
        self._check_deadline(request)
        refusal.kept = self.rejects.keep(
            Reject(
                customer_id=api_key.customer_id,
                message=message,
                body=json_text(message.body) if request.route.is_library else _body(request, payload),
                settings_header=request.headers.get("x-segment-settings", ""),
                refusal=refusal,
                rejected_at=self.clock(),
                index=index if request.route.is_batch else None,
            )
        )

    def _write(self, request: Request, records: Sequence[Record]) -> Sequence[Outcome | Refusal]:
        if request.route.is_library:
            return self.sink.write_all(records, lambda: self._check_deadline(request))
        self._check_deadline(request)
        return [self.sink.write(record) for record in records]

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
        """Leave a line for the messages of a batch that share call type and outcome."""
        groups: defaultdict[tuple[str, str | None, str | None], list[str]] = defaultdict(list)
        for result in results:
            code = result.outcome.code if isinstance(result.outcome, Refusal) else None
            message_id = result.message.body.get("message_id")
            key = (_metric(result.outcome), code, self._counted_type(result.message))
            groups[key].append(message_id if isinstance(message_id, str) else "")
        for (metric, code, call_type), message_ids in groups.items():
            line.write_messages(metric, status, code, call_type, message_ids)

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


def _is_kept(refusal: Refusal, request: Request) -> bool:
    """Whether a refused message is kept: what a schema refused, and all of a batch, whose 200 hides it."""
    return isinstance(refusal, Invalid) or (request.route.is_batch and refusal.status == HTTPStatus.BAD_REQUEST)


def _metric(outcome: Outcome | Refusal) -> str:
    if isinstance(outcome, Refusal):
        return "Refused"
    return "Duplicate" if outcome is Outcome.DUPLICATE else "Accepted"
