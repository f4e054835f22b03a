"""Log lines in the form of the function and of the API."""

import contextlib
import io
import json
from typing import Any

from destination.deployment.stack import load_template
from destination.local.gateway import AccessLog
from handler.observe import Answered, RequestLine

ACCEPTED = Answered(metric="Accepted", status=200)
DUPLICATE = Answered(metric="Duplicate", status=200)
REFUSED = Answered(metric="Refused", status=400, code="invalid_message", text="event is required")
FAILED = Answered(metric="Failed", status=503, code="event_store_unavailable", text="not at the moment")

ACCESS_LOG = AccessLog(load_template()["Resources"]["Api"]["Properties"]["AccessLogSettings"]["Format"])


def function_lines(
    answered: Answered = ACCEPTED,
    *,
    request_id: str = "r-1",
    message_ids: list[str] | None = None,
    time: int | None = None,
    **facts: Any,
) -> list[str]:
    """Return log lines of the function, with the message ids of a batch, at a time in milliseconds or now."""
    line = RequestLine(request_id, service="prod", version="7")
    line.note(**{"route": "/segment", "customer_id": "acme", "call_type": "track", **facts})
    with contextlib.redirect_stdout(io.StringIO()) as output:
        if message_ids is None:
            line.write(answered)
        else:
            line.note(messages=len(message_ids))
            line.write_messages(answered, facts.get("call_type", "track"), message_ids)
    written = [json.loads(text) for text in output.getvalue().splitlines()]
    for facts_ in written if time is not None else ():
        facts_["_aws"]["Timestamp"] = time
    return [json.dumps(facts_) for facts_ in written]


def function_line(answered: Answered = ACCEPTED, **facts: Any) -> str:
    """Return the only line that the function writes."""
    [line] = function_lines(answered, **facts)
    return line


def access_line(status: int, *, request_id: str = "r-1", **values: Any) -> str:
    """Return a log line of the API. The function was invoked, unless the values say otherwise."""
    known = {
        "requestId": request_id,
        "requestTime": "12/Mar/2026:09:30:00 +0000",
        "routeKey": "POST /segment",
        "status": status,
        "responseLatency": 12,
        "integrationStatus": 200,
    }
    return ACCESS_LOG.line({**known, **values})
