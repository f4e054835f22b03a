"""The endpoint in order: request -> customer -> payload -> messages -> judge -> sink -> response."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from handler import respond
from handler.authenticate import authenticate, authorise, check_live, confirm
from handler.canonicalise import Message
from handler.decode import decode_settings
from handler.erased import Erasures
from handler.errors import DeadlineClose, InternalError, Invalid, Maintenance, Refusal, UserErased
from handler.judge import Judge, each
from handler.keys import ApiKey, KeyStore
from handler.observe import RequestLine
from handler.parallel import run_concurrently
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.request import Request
from handler.respond import Response, Result
from handler.settings import STORE_CALL_SECONDS, Settings
from handler.sinks import Outcome, Sink

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One deployed destination; `clock` returns seconds since 1970."""

    settings: Settings
    keys: KeyStore
    erasures: Erasures
    judge: Judge
    sink: Sink
    rejects: RejectTable
    clock: Callable[[], float]

    def answer(self, request: Request) -> Response:
        """Answer a request and write its log lines. Any exception except a `Refusal` is a bug, which Lambda gets."""
        line = RequestLine(
            request.id,
            service=self.settings.powertools_service_name,
            version=self.settings.aws_lambda_function_version,
            call_types=self.settings.supported_call_types,
        )
        line.note(route=request.route.path)
        messages: Sequence[Message] = ()
        failure = None
        try:
            api_key = self._authenticate(request, line)
            messages = self._read(request, line)
            refusals = self._judge(request, line, api_key, messages)
            results = self._write(request, line, api_key, messages, refusals)
            self._keep_rejects(request, line, api_key, results)
            response = request.route.respond(results)
        except Refusal as refusal:  # refuses the whole request
            failure = refusal
            results = [Result(message=message, outcome=refusal) for message in messages]
            response = respond.refused(refusal)
        except Exception:
            line.write_bug()
            raise
        if results:
            request.route.log(line, results, response["statusCode"])
        else:
            line.write_outcome(failure, response["statusCode"])
        return response

    def _authenticate(self, request: Request, line: RequestLine) -> ApiKey:
        """Return the API key that authenticates the request."""
        if self.settings.maintenance:
            raise Maintenance
        line.begin("authenticate")
        authorization = request.headers.get("authorization", "")
        key = request.route.key(authorization, lambda: request.payload)
        # read before the key store reads its clock: a key that was live there must not be expired here
        now = self.clock()
        api_key = authenticate(key, self.keys)
        line.note(customer_id=api_key.customer_id, key=api_key.logged_hash)
        check_live(api_key, now)
        return api_key

    def _read(self, request: Request, line: RequestLine) -> Sequence[Message]:
        """Return the messages of a request."""
        line.begin("decode")
        payload = request.payload
        line.begin("canonicalise")
        messages = request.route.canonicalise(payload)
        request.route.note(line, messages)
        return messages

    def _judge(
        self, request: Request, line: RequestLine, api_key: ApiKey, messages: Sequence[Message]
    ) -> Sequence[Refusal | None]:
        """Return the refusal of each message, None for an accepted one."""
        line.begin("validate")
        return self.judge.refusals(
            messages,
            request.settings_header,
            route=request.route,
            scope=partial(self._check_scope, request, api_key),
            erasure=partial(self._check_erasure, request, api_key),
        )

    def _check_scope(self, request: Request, api_key: ApiKey, messages: Sequence[Message]) -> Sequence[Refusal | None]:
        """Return the refusals of call types that a key may not send. They rest on a fresh read of the key."""
        refusals = _scope_refusals(request, api_key, messages)
        if any(refusals):
            confirmed = self._ask(request, partial(confirm, api_key, self.keys))
            check_live(confirmed, self.clock())
            refusals = _scope_refusals(request, confirmed, messages)
        return refusals

    def _check_erasure(
        self, request: Request, api_key: ApiKey, messages: Sequence[Message]
    ) -> Sequence[Refusal | None]:
        """Return the refusal of each message that happened before its user was erased."""
        look_up = partial(self.erasures.refusals, api_key.customer_id, messages, partial(self._ask, request))
        found = request.route.isolate(look_up)
        if not isinstance(found, InternalError):
            return found
        if len(messages) == 1:
            return [found]
        half = len(messages) // 2  # bisect, to find the message that causes the bug
        return [
            *self._check_erasure(request, api_key, messages[:half]),
            *self._check_erasure(request, api_key, messages[half:]),
        ]

    def _write(
        self,
        request: Request,
        line: RequestLine,
        api_key: ApiKey,
        messages: Sequence[Message],
        refusals: Sequence[Refusal | None],
    ) -> Sequence[Result]:
        """Write the accepted messages, and return the results of all messages."""
        accepted = [message for message, refusal in zip(messages, refusals, strict=True) if refusal is None]
        outcomes: Iterator[Outcome | Refusal] = iter(())
        if accepted:
            line.begin("write")
            settings = decode_settings(request.settings_header)
            records = [
                Record(customer_id=api_key.customer_id, message=message, settings=settings, stored_at=self.clock())
                for message in accepted
            ]
            outcomes = iter(request.route.write(self.sink, records, partial(self._check_deadline, request)))
        return [
            Result(message=message, outcome=refusal or next(outcomes))
            for message, refusal in zip(messages, refusals, strict=True)
        ]

    def _keep_rejects(self, request: Request, line: RequestLine, api_key: ApiKey, results: Sequence[Result]) -> None:
        """Keep the rejects of users who are not erased; raises the bug if one of them can't be kept."""
        rejected = [index for index, result in enumerate(results) if request.route.keeps(result)]
        if not rejected:
            return
        line.begin("reject")
        # The schema check comes after the erasure check, so a schema refusal needs no second look-up.
        unchecked = [index for index in rejected if not isinstance(results[index].outcome, Invalid)]
        verdicts = self._check_erasure(request, api_key, [results[index].message for index in unchecked])
        erased = {index for index, verdict in zip(unchecked, verdicts, strict=True) if isinstance(verdict, UserErased)}
        keep = partial(self._keep, request, api_key, results)
        kept = run_concurrently(keep, [index for index in rejected if index not in erased])
        lost = [bug for bug in kept if bug is not None]
        line.write_bugs([*_bugs(results), *lost])
        if lost:
            raise lost[0]

    def _keep(self, request: Request, api_key: ApiKey, results: Sequence[Result], index: int) -> BaseException | None:
        """Keep a message among the rejects.

        Return the bug that prevents this for a message of a batch: then the sender must send the message again.
        """
        message, refusal = results[index].message, results[index].outcome
        assert isinstance(refusal, Refusal)  # noqa: S101 -- a route keeps refused messages only

        def keep() -> bool:
            reject = Reject(
                customer_id=api_key.customer_id,
                message=message,
                settings_header=request.settings_header,
                refusal=refusal,
                rejected_at=self.clock(),
                **request.route.content(request.body_without_write_key, message, index),
            )
            return self._ask(request, partial(self.rejects.keep, reject))

        kept = request.route.isolate(keep)
        if isinstance(kept, InternalError):
            return kept.__cause__
        refusal.kept = kept
        return refusal.__cause__ if isinstance(refusal, InternalError) and not kept else None

    def _ask(self, request: Request, call: Callable[[], Answer]) -> Answer:
        """Call a store if there is time; raises an `Unavailable`."""
        return request.route.ask(call, partial(self._check_deadline, request))

    def _check_deadline(self, request: Request) -> None:
        """Raise `DeadlineClose` if a store call might not finish before the response is due."""
        if self.clock() + STORE_CALL_SECONDS > request.received_at + request.route.answer_seconds:
            raise DeadlineClose


def _scope_refusals(request: Request, api_key: ApiKey, messages: Sequence[Message]) -> Sequence[Refusal | None]:
    check = each(request.route, lambda message: authorise(api_key, str(message.type)))
    return check(messages)


def _bugs(results: Sequence[Result]) -> list[BaseException]:
    """Return the unexpected exceptions that ended the processing of messages."""
    causes = (result.outcome.__cause__ for result in results if isinstance(result.outcome, InternalError))
    return [cause for cause in causes if cause is not None]
