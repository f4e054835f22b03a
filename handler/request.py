"""Step 0: the parts of an API Gateway HTTP API event (payload format 2.0) that are used, and its routes.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from handler.settings import ANSWER_SECONDS, LIBRARY_ANSWER_SECONDS
from handler.spec import CALL_TYPES, DELETE

MAX_AGE_SECONDS = 30
"""API Gateway's longest integration time-out: an older `timeEpoch` is of a recorded event, or in another unit."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One of the routes of template.yaml that take messages, all of which are POST.

    `call_type` is that of its messages, None where they tell it. `answer_seconds` after a request came, the function
    starts no more work.
    """

    path: str
    is_library: bool = True
    is_batch: bool = False
    call_type: str | None = None
    answer_seconds: float = LIBRARY_ANSWER_SECONDS


SEGMENT = Route(path="/segment", is_library=False, answer_seconds=ANSWER_SECONDS)
ROUTES = {
    f"POST {route.path}": route
    for route in (
        SEGMENT,
        *(Route(path=f"/v1/{name}", call_type=name) for name in CALL_TYPES if name != DELETE),
        *(Route(path=f"/v1/{name}", is_batch=True) for name in ("batch", "import")),
    )
}
"""By their keys; those of Segment's libraries: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/"""
HEALTH = "GET /health"
"""The key of the one route that takes no messages."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One HTTP request. `headers` have lower-case names; `received_at` is in seconds since 1970."""

    id: str
    headers: Mapping[str, str]
    body: str
    is_base64: bool
    received_at: float
    route: Route = SEGMENT

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
            route=ROUTES.get(event.get("routeKey", ""), SEGMENT),
        )
