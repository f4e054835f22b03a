"""Step 0: the parts of an API Gateway HTTP API event (payload format 2.0) that are used.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

MAX_AGE_SECONDS = 30
"""API Gateway's longest integration time-out: an older `timeEpoch` is of a recorded event, or in another unit."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. `headers` have lower-case names; `received_at` is in seconds since 1970."""

    id: str
    headers: Mapping[str, str]
    body: str
    is_base64: bool
    received_at: float

    @classmethod
    def from_event(cls, event: Mapping[str, Any], now: float) -> Self:
        """Read an event; `now` is the time at which the function got it.

        A `timeEpoch` that can't be the time of this request (a sample event's; `sam local start-api` gives seconds) is
        passed over for `now`.
        """
        context = event["requestContext"]
        gateway_time = context.get("timeEpoch", 0) / 1000
        return cls(
            id=context["requestId"],
            headers={name.lower(): value for name, value in event.get("headers", {}).items()},
            body=event.get("body") or "",
            is_base64=bool(event.get("isBase64Encoded")),
            received_at=gateway_time if 0 <= now - gateway_time <= MAX_AGE_SECONDS else now,
        )
