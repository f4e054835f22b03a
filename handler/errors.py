"""Every answer that is not a success, as one tree of exceptions.

    Refusal                          status  code
    ├── InvalidEncoding              400     invalid_encoding
    ├── InvalidJson                  400     invalid_json
    ├── NotAnObject                  400     not_an_object
    ├── NestedTooDeeply              400     nested_too_deeply
    ├── NumberOutOfRange             400     number_out_of_range
    ├── MessageTooLarge              400     message_too_large
    ├── BatchTooLarge                400     batch_too_large
    ├── MissingBatch                 400     missing_batch
    ├── NothingAccepted              400     nothing_accepted
    ├── MissingType                  400     missing_type
    ├── WrongType                    400     wrong_type
    ├── Invalid                      400
    │   ├── InvalidSettings                  invalid_settings
    │   └── InvalidMessage                   invalid_message
    ├── Unauthorized                 401
    │   ├── MissingCredentials               missing_credentials
    │   ├── NotBasic                         not_basic
    │   ├── NotBase64                        not_base64
    │   ├── NoColon                          no_colon
    │   ├── UnknownKey                       unknown_key
    │   ├── ExpiredKey                       expired_key
    │   └── RevokedKey                       revoked_key
    ├── SuspendedKey                 403     suspended_key
    ├── CallTypeNotAllowed           403     call_type_not_allowed
    ├── UserErased                   403     user_erased
    ├── InternalError                500     internal_error
    ├── UnsupportedCallType          501     unsupported_call_type
    └── Unavailable                  503
        ├── Maintenance                      maintenance
        ├── KeyStoreUnavailable              key_store_unavailable
        ├── EventStoreUnavailable            event_store_unavailable
        ├── RejectStoreUnavailable           reject_store_unavailable
        ├── ErasureStoreUnavailable          erasure_store_unavailable
        └── DeadlineClose                    deadline_close

Segment never retries after a 4xx or a 501, so these are for faults of the sender only. A fault of ours is an
`Unavailable`, or a bug: an exception outside this tree, which Lambda turns into a 500. In a batch, a bug affects one
message: that message is kept among the rejects as an `InternalError`, and the others are stored.

The texts reach the customer in Segment's debugger, which groups equal texts. So there are few of them. They say what to
fix, and contain no value that was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

STORE_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""The errors of a boto3 client if its service is unreachable, slow, throttling or denies access. Always our fault."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One place in a document that its schema refuses.

    `pointer` is a JSON Pointer (RFC 6901) into the canonical message or the settings; `message` is for the customer.
    """

    pointer: str
    message: str


class Refusal(Exception):
    """A request, or a message of a batch, that gets an error response.

    `kept` says whether the message is stored among the rejects, so that it can be retried later.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    text: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    violations: tuple[Violation, ...] = ()
    kept = False

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text or self.text)


class InvalidEncoding(Refusal):
    status = 400
    code = "invalid_encoding"
    text = "Request body is not valid UTF-8"


class InvalidJson(Refusal):
    status = 400
    code = "invalid_json"
    text = "Request body is not valid JSON"


class NotAnObject(Refusal):
    status = 400
    code = "not_an_object"
    text = "Request body must be one JSON object"


class NestedTooDeeply(Refusal):
    status = 400
    code = "nested_too_deeply"
    text = "Request body is nested too deeply"


class NumberOutOfRange(Refusal):
    status = 400
    code = "number_out_of_range"
    text = "Request body holds a number that is out of range"


class MessageTooLarge(Refusal):
    status = 400
    code = "message_too_large"
    text = "Message is too large"


class BatchTooLarge(Refusal):
    status = 400
    code = "batch_too_large"
    text = "Batch is too large"


class MissingBatch(Refusal):
    status = 400
    code = "missing_batch"
    text = "batch is required exactly once, and must be an array of messages"


class NothingAccepted(Refusal):
    status = 400
    code = "nothing_accepted"
    text = "None of the messages can be accepted: rejected has the reason for each"


class MissingType(Refusal):
    status = 400
    code = "missing_type"
    text = "type is required and must be a string, such as track"


class WrongType(Refusal):
    status = 400
    code = "wrong_type"

    def __init__(self, call_type: str) -> None:
        super().__init__(f"type must be {call_type} on this route, or absent")


class Invalid(Refusal):
    """A document that its schema refuses; its text is the text of the first violation."""

    status = 400

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(violations[0].message)
        self.violations = violations


class InvalidSettings(Invalid):
    code = "invalid_settings"


class InvalidMessage(Invalid):
    code = "invalid_message"


class Unauthorized(Refusal):
    status = 401
    headers = MappingProxyType({"WWW-Authenticate": 'Basic realm="Segment Direct destination", charset="UTF-8"'})


class MissingCredentials(Unauthorized):
    code = "missing_credentials"
    text = "API key is missing: send it as the user name of Basic credentials"


class NotBasic(Unauthorized):
    code = "not_basic"
    text = "Authorization must use the Basic scheme"


class NotBase64(Unauthorized):
    code = "not_base64"
    text = "Basic credentials are not valid base64"


class NoColon(Unauthorized):
    code = "no_colon"
    text = "Basic credentials have no colon after the API key"


class UnknownKey(Unauthorized):
    code = "unknown_key"
    text = "API key is unknown"


class ExpiredKey(Unauthorized):
    code = "expired_key"
    text = "API key expired"


class RevokedKey(Unauthorized):
    code = "revoked_key"
    text = "API key is revoked"


class SuspendedKey(Refusal):
    status = 403
    code = "suspended_key"
    text = "This API key is suspended"


class CallTypeNotAllowed(Refusal):
    status = 403
    code = "call_type_not_allowed"

    def __init__(self, call_type: str) -> None:
        super().__init__(f"This API key may not send {call_type} calls")


class UserErased(Refusal):
    status = 403
    code = "user_erased"
    text = "This user was erased: messages from before the erasure are not accepted any more"


class InternalError(Refusal):
    """An unexpected exception during the processing of one message of a batch; `__cause__` is the exception."""

    status = 500
    code = "internal_error"
    text = "The message could not be processed because of a fault on our side"

    def __init__(self, bug: Exception) -> None:
        super().__init__()
        self.__cause__ = bug


class UnsupportedCallType(Refusal):
    status = 501
    code = "unsupported_call_type"
    text = "Calls of this type are not supported"

    def __init__(self, call_type: str | None) -> None:
        super().__init__(f"{call_type} calls are not supported" if call_type else None)


class Unavailable(Refusal):
    """A fault or a decision of ours; Segment retries the message for up to four hours."""

    status = 503
    headers = MappingProxyType({"Retry-After": "10"})


class Maintenance(Unavailable):
    code = "maintenance"
    text = "Down for maintenance: the message will be accepted later"


class KeyStoreUnavailable(Unavailable):
    code = "key_store_unavailable"
    text = "API keys can't be checked at the moment"


class EventStoreUnavailable(Unavailable):
    code = "event_store_unavailable"
    text = "Messages can't be stored at the moment"


class RejectStoreUnavailable(Unavailable):
    code = "reject_store_unavailable"
    text = "Messages can't be checked at the moment"


class ErasureStoreUnavailable(Unavailable):
    code = "erasure_store_unavailable"
    text = "Erased users can't be looked up at the moment"


class DeadlineClose(Unavailable):
    code = "deadline_close"
    text = "The message can't be stored in time at the moment"
