"""Send a batch, and retry until the endpoint has answered for each of its messages."""

import gzip
import json
import ssl
from dataclasses import dataclass, field
from typing import Any

import urllib3

from destination.importing.batches import MAX_BATCH_BYTES, ImportBatch, ImportedMessage, RejectedLine
from destination.importing.pace import ImportPace, Stopped
from destination.segment.client import segment_headers
from destination.segment.contract import IMPORT_PATH, RETRIED_BY_LIBRARIES, SEGMENT_PATH
from handler.decode import JsonObject
from handler.errors import (
    BatchTooLarge,
    CallTypeNotAllowed,
    InvalidEncoding,
    InvalidJson,
    MessageTooLarge,
    NestedTooDeeply,
    NothingAccepted,
    NumberOutOfRange,
    UserErased,
)
from handler.sinks import Outcome

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""The endpoint answers these routes within 9.8 seconds; then API Gateway ends them."""

BINARY_TYPE = "application/octet-stream"
"""The content type of gzip bodies: an HTTP API passes binary types to the function as base64. It might decode a body
of the type `application/json` as text; AWS does not say whether `Content-Encoding` changes that. The endpoint
recognises gzip by its first bytes.
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html"""


OK, ACCEPTED, BAD_REQUEST, UNAUTHORIZED, FORBIDDEN = 200, 202, 400, 401, 403
NOT_FOUND, CONTENT_TOO_LARGE, TOO_MANY, NOT_IMPLEMENTED = 404, 413, 429, 501
OF_ONE_MESSAGE = frozenset(
    kind.code
    for kind in (BatchTooLarge, MessageTooLarge, InvalidEncoding, InvalidJson, NestedTooDeeply, NumberOutOfRange)
)
"""If a whole batch is answered with one of these codes, one message may be the cause: then its halves are sent, down
to that message."""


@dataclass(kw_only=True)
class Delivered:
    """The results of a batch: counts, and messages that will never be accepted unchanged."""

    accepted: int = 0
    duplicates: int = 0
    rejects: list[RejectedLine] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BatchAnswer:
    """The endpoint's answer to a request; its body if that is a JSON object."""

    status: int
    retry_after: str | None
    content: JsonObject

    @property
    def code(self) -> str:
        """The product's code for an error; errors of API Gateway have none."""
        return str(self.content.get("code", ""))

    def __str__(self) -> str:
        """Return a sentence about the answer."""
        parts = (str(self.status), self.code, str(self.content.get("message", "")))
        return " ".join(part for part in parts if part)


class BatchSender:
    """Sends batches to a deployment concurrently over persistent connections; threads may share it."""

    def __init__(
        self,
        url: str,
        api_key: str,
        pace: ImportPace,
        *,
        connections: int,
        ca_file: str | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._url = url
        self._pace = pace
        self._headers = segment_headers(api_key) | {
            "User-Agent": "destination-import",
            "Content-Type": BINARY_TYPE,
            "Accept-Encoding": urllib3.util.SKIP_HEADER,
        }
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=answer_seconds)
        self._http = urllib3.PoolManager(maxsize=connections, ca_certs=ca_file, timeout=timeout, retries=False)

    def deliver(self, batch: ImportBatch) -> Delivered:
        """Send a batch; raises `Stopped`, which also stops all other senders."""
        try:
            return self._deliver(batch)
        except Stopped as error:
            self._pace.stop(error)
            raise

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()

    def _deliver(self, batch: ImportBatch) -> Delivered:
        delivered = Delivered()
        parts = [batch.messages] if batch.messages else []
        while parts:
            messages = parts.pop()
            if len(messages) > self._pace.size:
                parts += _cut(messages, self._pace.size)
                continue
            answer = self._try(messages)
            if answer is None:
                parts.append(messages)
            elif _is_of_one_message(answer) and len(messages) > 1:
                parts += _cut(messages, len(messages) // 2)
            else:
                _count(answer, messages, delivered)
        return delivered

    def _try(self, messages: list[ImportedMessage]) -> BatchAnswer | None:
        """Send messages once; returns None if they must be retried."""
        began = self._pace.begin()
        raw = [message.raw for message in messages]
        is_alone = len(messages) == 1 and len(raw[0]) > MAX_BATCH_BYTES
        path, body = (SEGMENT_PATH, raw[0]) if is_alone else (IMPORT_PATH, b'{"batch":[' + b",".join(raw) + b"]}")
        try:
            answer = self._post(path, body)
        except urllib3.exceptions.HTTPError as error:
            is_slow = isinstance(error, urllib3.exceptions.ReadTimeoutError)
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in error.args):
                raise Stopped(
                    f"{self._url} can't be trusted: {error}. Name the authority of its certificate with --ca-file"
                ) from error
            why = "no answer in time" if is_slow else f"no answer ({_reason(error)})"
            self._pace.slow_down(began, f"{self._url}: {why}", is_too_much=is_slow)
            return None
        if answer.status in RETRIED_BY_LIBRARIES:
            is_too_much = answer.status != TOO_MANY
            why = f"{self._url} answers {answer}"
            self._pace.slow_down(began, why, retry_after=answer.retry_after, is_too_much=is_too_much)
            return None
        self._pace.go_on(began, len(messages))
        return answer

    def _post(self, path: str, body: bytes) -> BatchAnswer:
        packed = gzip.compress(body, compresslevel=6, mtime=0)
        answer = self._http.request("POST", self._url + path, headers=self._headers, body=packed, redirect=False)
        try:
            content: Any = json.loads(answer.data)
        except (ValueError, RecursionError):
            content = None
        return BatchAnswer(
            status=answer.status,
            retry_after=answer.headers.get("Retry-After"),
            content=content if isinstance(content, dict) else {},
        )


def _cut(messages: list[ImportedMessage], size: int) -> list[list[ImportedMessage]]:
    """Return the last part of the messages before the first `size` ones: it is sent first."""
    return [messages[size:], messages[:size]]


def _is_of_one_message(answer: BatchAnswer) -> bool:
    return answer.status == CONTENT_TOO_LARGE or (answer.status == BAD_REQUEST and answer.code in OF_ONE_MESSAGE)


def _count(answer: BatchAnswer, messages: list[ImportedMessage], delivered: Delivered) -> None:
    """Count results; raises `Stopped` if the answer does not account for each message."""
    content = answer.content
    is_batch = answer.status == OK or (answer.status == BAD_REQUEST and answer.code == NothingAccepted.code)
    if is_batch and "rejected" in content:
        counts = [content.get(name) for name in ("accepted", "duplicates")]
        rejects = _rejects(content["rejected"], messages)
        accepted, duplicates = (count if type(count) is int else -len(messages) for count in counts)
        if min(accepted, duplicates) < 0 or accepted + duplicates + len(rejects) != len(messages):
            raise Stopped(
                f"The endpoint answered {answer.status} without a result for each message: check that --url belongs to "
                "a destination"
            )
        delivered.accepted += accepted
        delivered.duplicates += duplicates
        delivered.rejects += rejects
    elif len(messages) == 1 and answer.status in (OK, ACCEPTED) and content.get("status") in tuple(Outcome):
        is_duplicate = content["status"] == Outcome.DUPLICATE
        delivered.accepted += not is_duplicate
        delivered.duplicates += is_duplicate
    elif len(messages) == 1 and _is_final_for_one(answer, messages[0]):
        [message] = messages
        text = str(content.get("message", f"answered with {answer.status}"))
        code = answer.code or MessageTooLarge.code
        delivered.rejects.append(RejectedLine(file=message.file, line=message.line, code=code, message=text))
    else:
        raise Stopped(f"The endpoint answered {answer}{_what_to_do(answer)}")


def _rejects(told: object, messages: list[ImportedMessage]) -> list[RejectedLine]:
    """Return the rejected messages in an answer by their index, each at most once."""
    rejects: dict[int, RejectedLine] = {}
    for entry in told if isinstance(told, list) else []:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is int and 0 <= index < len(messages):
            message = messages[index]
            code, text = str(entry.get("code", "")), str(entry.get("message", ""))
            rejects[index] = RejectedLine(file=message.file, line=message.line, code=code, message=text)
    return list(rejects.values())


def _is_final_for_one(answer: BatchAnswer, message: ImportedMessage) -> bool:
    """Return whether an answer refuses the only message that was sent, and not the import."""
    if _is_of_one_message(answer):
        return True
    is_alone = len(message.raw) > MAX_BATCH_BYTES
    refuses = (CallTypeNotAllowed.code, UserErased.code)
    is_of_message = answer.status in (BAD_REQUEST, NOT_IMPLEMENTED) or answer.code in refuses
    return is_alone and bool(answer.code) and is_of_message


def _what_to_do(answer: BatchAnswer) -> str:
    if answer.status in (UNAUTHORIZED, FORBIDDEN):
        return ": name a valid key that may send all call types with --api-key"
    if answer.status == NOT_FOUND:
        return f": it has no {IMPORT_PATH}. Check that --url is right, and that the deployment is up to date"
    return ": check that --url belongs to a destination"


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Return a description of a connection error, without the client's class."""
    return str(getattr(error, "__cause__", None) or error)
