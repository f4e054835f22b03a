"""Step 6: build the response (API Gateway HTTP API, payload format 2.0). No other module knows its form."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handler.canonicalise import Message
from handler.errors import InternalError, Invalid, NothingAccepted, Refusal
from handler.sinks import Outcome
from handler.spec import DELETE

Response = dict[str, Any]
"""`statusCode`, `headers` and `body`."""

_CONTENT_TYPE = {"Content-Type": "application/json"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one message."""

    message: Message
    outcome: Outcome | Refusal


def accepted(result: Result) -> Response:
    """Answer Segment: 200 for a stored message, 202 for a queued one or a `delete` that is not carried out yet."""
    status = 202 if result.outcome is Outcome.QUEUED or result.message.type == DELETE else 200
    return _respond(status, {"status": result.outcome, "message_id": result.message.message_id}, {})


def counted(results: Sequence[Result]) -> Response:
    """Answer Segment's libraries: 200 unless every message is refused, because some libraries accept only a 200.

    A message that failed because of a bug is listed with the refused ones. But it never makes the answer a 400: it is
    kept, and the fault is ours.
    """
    rejected = [
        {"index": index, "code": result.outcome.code, "message": str(result.outcome)}
        for index, result in enumerate(results)
        if isinstance(result.outcome, Refusal)
    ]
    duplicates = sum(result.outcome is Outcome.DUPLICATE for result in results)
    counts = {
        "accepted": len(results) - duplicates - len(rejected),
        "duplicates": duplicates,
        "rejected": rejected,
    }
    is_our_fault = any(isinstance(result.outcome, InternalError) for result in results)
    if rejected and len(rejected) == len(results) and not is_our_fault:
        return _respond(NothingAccepted.status, {**_error(NothingAccepted()), **counts}, {})
    return _respond(200, counts, {})


def healthy() -> Response:
    """Answer that all stores work."""
    return _respond(200, {"status": "healthy"}, {})


def refused(refusal: Refusal) -> Response:
    """Answer an error: `message` is for the customer, `code` for programs, and `violations` is complete."""
    content = _error(refusal)
    if isinstance(refusal, Invalid):
        content["violations"] = [asdict(violation) for violation in refusal.violations]
        content["kept"] = refusal.kept
    return _respond(refusal.status, content, refusal.headers)


def _error(refusal: Refusal) -> dict[str, Any]:
    return {"message": str(refusal), "code": refusal.code}


def _respond(status: int, content: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return {"statusCode": status, "headers": {**_CONTENT_TYPE, **headers}, "body": json.dumps(content)}
