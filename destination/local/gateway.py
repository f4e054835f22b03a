"""Emulate API Gateway: convert an HTTP request to an HTTP API event (payload 2.0), and the response back.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import json
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

MAX_BODY_BYTES = 10 * 1024 * 1024
"""https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html"""

TEXT_TYPES = ("application/json", "application/javascript", "application/xml")
"""Bodies of these types, and of text/*, arrive as text; all others as base64, including vendor types and forms."""


UNKNOWN = "-"
"""API Gateway's text for an access log variable without a value."""


class AccessLog:
    """The lines of an HTTP API's access log, by its format: names, and the variables behind them.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging-variables.html
    """

    def __init__(self, log_format: str) -> None:
        self._variables: dict[str, str] = json.loads(log_format)

    def line(self, values: Mapping[str, object]) -> str:
        """Return a line, from variables without `$context.`; missing facts are written as unknown."""
        known = {f"$context.{name}": str(value) for name, value in values.items()}
        return json.dumps({name: known.get(variable, UNKNOWN) for name, variable in self._variables.items()})


def log_time(now: datetime) -> str:
    """Return a time in the Common Log Format."""
    return now.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def source_ip_of(request: Request) -> str:
    """Return the sender's address."""
    return request.client.host if request.client else ""


def to_event(request: Request, body: bytes, now: datetime) -> dict[str, Any]:
    """Return the event that an HTTP API creates from a request."""
    path = request.url.path
    route = f"{request.method} {path}"
    host = request.url.hostname or ""
    source_ip = source_ip_of(request)
    headers = _joined((name.lower(), value) for name, value in request.headers.items())
    cookies = headers.pop("cookie", None)
    text, is_base64 = _body(body, headers)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": path,
        "rawQueryString": request.url.query,
        "headers": {
            **headers,
            "x-forwarded-for": source_ip,
            "x-forwarded-port": str(request.url.port or ""),
            "x-forwarded-proto": request.url.scheme,
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": request.method,
                "path": path,
                "protocol": f"HTTP/{request.scope['http_version']}",
                "sourceIp": source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route,
            "stage": "$default",
            "time": log_time(now),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": is_base64,
    }
    if cookies is not None:
        event["cookies"] = [cookie.strip() for cookie in cookies.split(";")]
    if request.url.query:
        event["queryStringParameters"] = _joined(parse_qsl(request.url.query, keep_blank_values=True))
    if text:
        event["body"] = text
    return event


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join the values of one name with commas."""
    values = defaultdict(list)
    for name, value in pairs:
        values[name].append(value)
    return {name: ",".join(several) for name, several in values.items()}


def _body(body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    mime_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if (mime_type in TEXT_TYPES or mime_type.startswith("text/")) and "content-encoding" not in headers:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), bool(body)


def to_response(function_response: Mapping[str, Any]) -> Response:
    """Return the HTTP response that an HTTP API creates from a function's response."""
    body: str = function_response.get("body", "")
    return Response(
        base64.b64decode(body) if function_response.get("isBase64Encoded") else body,
        status_code=function_response["statusCode"],
        headers=dict(function_response.get("headers", {})),
    )


def own_answer(status: int, message: str) -> Response:
    """Return an error response of API Gateway itself."""
    return JSONResponse({"message": message}, status_code=status)
