"""The whole service, in order: request -> customer -> payload -> message -> record -> response."""

from collections.abc import Callable
from dataclasses import dataclass

from handler import respond
from handler.authenticate import authenticate, authorise
from handler.canonicalise import Message, canonicalise
from handler.decode import decode_body, decode_settings
from handler.errors import DeadlineClose, Maintenance, Refusal, Unavailable, UnsupportedCallType
from handler.keys import KeyStore
from handler.observe import RequestLine
from handler.record import Record
from handler.request import Request
from handler.respond import Response
from handler.settings import ANSWER_SECONDS, STORE_CALL_SECONDS, Settings
from handler.validate import Schemas, check_call_type
from handler.write import EventSink, Outcome


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One deployed destination; `clock` gives seconds since 1970."""

    settings: Settings
    keys: KeyStore
    schemas: Schemas
    sink: EventSink
    clock: Callable[[], float]

    def answer(self, request: Request) -> Response:
        """Answer a request and leave its line. An exception that is no `Refusal` is a bug, and goes on to Lambda."""
        line = RequestLine(request.id)
        try:
            message, outcome = self._receive(request, line)
        except Refusal as refusal:
            line.write("Failed" if isinstance(refusal, Unavailable) else "Refused", refusal.status, refusal.code)
            return respond.refused(refusal)
        except Exception:
            line.write("Failed", 500, "internal_error")
            raise
        response = respond.accepted(outcome, message)
        line.write("Duplicate" if outcome is Outcome.DUPLICATE else "Accepted", response["statusCode"])
        return response

    def _receive(self, request: Request, line: RequestLine) -> tuple[Message, Outcome]:
        if self.settings.maintenance:
            raise Maintenance
        with line.step("authenticate"):
            api_key = authenticate(request.headers.get("authorization"), self.keys, self.clock())
        line.note(customer_id=api_key.customer_id)
        with line.step("decode"):
            payload = decode_body(request.body, is_base64=request.is_base64)
        with line.step("canonicalise"):
            [message] = canonicalise(payload)
        if isinstance(message_id := message.body["message_id"], str):
            line.note(message_id=message_id)
        with line.step("validate"):
            call_type = self._call_type(message, line)
            authorise(api_key, call_type)
            settings = decode_settings(request.headers.get("x-segment-settings"))
            self.schemas.check_settings(settings)
            self.schemas.check_message(call_type, message.body)
        with line.step("write"):
            outcome = self._write(
                Record(customer_id=api_key.customer_id, message=message, settings=settings, stored_at=self.clock()),
                deadline=request.received_at + ANSWER_SECONDS,
            )
        return message, outcome

    def _call_type(self, message: Message, line: RequestLine) -> str:
        try:
            call_type = check_call_type(message, self.settings.supported_call_types)
        except UnsupportedCallType:
            line.note(call_type="other")
            raise
        line.note(call_type=call_type)
        return call_type

    def _write(self, record: Record, *, deadline: float) -> Outcome:
        if self.clock() + STORE_CALL_SECONDS > deadline:
            raise DeadlineClose
        return self.sink.write(record)
