"""The whole service, in order: request -> customer -> payload -> message -> record -> response."""

from collections.abc import Callable
from dataclasses import dataclass

from handler import respond
from handler.authenticate import authenticate, authorise
from handler.canonicalise import Message, canonicalise, names_write_key, without_write_key
from handler.decode import JsonObject, decode_body, decode_settings, decode_text
from handler.erased import Tombstones
from handler.errors import DeadlineClose, Invalid, Maintenance, Refusal, Unavailable, UnsupportedCallType
from handler.items import json_text
from handler.keys import ApiKey, KeyStore
from handler.observe import RequestLine
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.request import Request
from handler.respond import Response
from handler.settings import ANSWER_SECONDS, STORE_CALL_SECONDS, Settings
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
        line.begin("authenticate")
        api_key = authenticate(request.headers.get("authorization"), self.keys, self.clock())
        line.note(customer_id=api_key.customer_id)
        line.begin("decode")
        payload = decode_body(request.body, is_base64=request.is_base64)
        line.begin("canonicalise")
        [message] = canonicalise(payload)
        if isinstance(message_id := message.body["message_id"], str):
            line.note(message_id=message_id)
        line.begin("validate")
        call_type = self._call_type(message, line)
        authorise(api_key, call_type)
        if self.tombstones is not None:
            self._check_deadline(request)
            self.tombstones.check(api_key.customer_id, message)
        try:
            settings = decode_settings(request.headers.get("x-segment-settings"))
            self.schemas.check_settings(settings)
            self.schemas.check_message(call_type, message.body)
        except Invalid as refusal:
            line.begin("reject")
            refusal.kept = self._keep(request, api_key, payload, message, refusal)
            line.note(kept=refusal.kept)
            raise
        line.begin("write")
        self._check_deadline(request)
        record = Record(customer_id=api_key.customer_id, message=message, settings=settings, stored_at=self.clock())
        return message, self.sink.write(record)

    def _call_type(self, message: Message, line: RequestLine) -> str:
        try:
            call_type = check_call_type(message, self.settings.supported_call_types)
        except UnsupportedCallType:
            line.note(call_type="other")
            raise
        line.note(call_type=call_type)
        return call_type

    def _keep(self, request: Request, api_key: ApiKey, payload: JsonObject, message: Message, refusal: Invalid) -> bool:
        """Keep a refused message as it came, but never with the key of its source."""
        self._check_deadline(request)
        body = decode_text(request.body, is_base64=request.is_base64)
        return self.rejects.keep(
            Reject(
                customer_id=api_key.customer_id,
                message=message,
                body=json_text(without_write_key(payload)) if names_write_key(body) else body,
                settings_header=request.headers.get("x-segment-settings", ""),
                refusal=refusal,
                rejected_at=self.clock(),
            )
        )

    def _check_deadline(self, request: Request) -> None:
        """Start no call of a store that the answer might not wait for."""
        if self.clock() + STORE_CALL_SECONDS > request.received_at + ANSWER_SECONDS:
            raise DeadlineClose
