"""Step 6: the only place that knows what a response looks like (API Gateway HTTP API, payload format 2.0)."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from handler.canonicalise import Message
from handler.errors import Invalid, Refusal
from handler.spec import DELETE
from handler.write import Outcome

Response = dict[str, Any]
"""`statusCode`, `headers` and `body`."""

_CONTENT_TYPE = {"Content-Type": "application/json"}


def accepted(outcome: Outcome, message: Message) -> Response:
    """Answer 200 for what is written and 202 for what has yet to be carried out: a queued message, or a `delete`."""
    status = 202 if outcome is Outcome.QUEUED or message.type == DELETE else 200
    return _respond(status, {"status": outcome, "message_id": message.message_id}, {})


def refused(refusal: Refusal) -> Response:
    """Answer an error: `message` is for the customer, `code` for programs; a schema's violations are all listed."""
    content: dict[str, Any] = {"message": str(refusal), "code": refusal.code}
    if isinstance(refusal, Invalid):
        content["violations"] = [asdict(violation) for violation in refusal.violations]
        content["kept"] = refusal.kept
    return _respond(refusal.status, content, refusal.headers)


def _respond(status: int, content: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return {"statusCode": status, "headers": {**_CONTENT_TYPE, **headers}, "body": json.dumps(content)}
