"""Step 0: read the used parts of an API Gateway HTTP API event (payload format 2.0).

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from handler.canonicalise import names_write_key, without_write_key
from handler.decode import JsonObject, decode_text
from handler.items import json_text
from handler.routes import ROUTES, SEGMENT, Route

MAX_AGE_SECONDS = 30
"""API Gateway's longest integration time-out. An older `timeEpoch` is from a recorded event, or in another unit."""


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
        """Read an event; `now` is the time at which the function received it.

        If `timeEpoch` can't be the time of this request, `now` is used. That occurs with sample events, and with `sam
        local start-api`, which sends seconds.
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

    @property
    def settings_header(self) -> str:
        """The header `X-Segment-Settings` as it arrived, "" if it is missing."""
        return self.headers.get("x-segment-settings", "")

    @cached_property
    def payload(self) -> JsonObject:
        """The decoded body; raises a `Refusal` with status 400."""
        return self.route.decode(self.body, is_base64=self.is_base64)

    def body_without_write_key(self) -> str:
        """Return the body as it arrived, but without write keys."""
        body = decode_text(self.body, is_base64=self.is_base64)
        return json_text(without_write_key(self.payload)) if names_write_key(body) else body
