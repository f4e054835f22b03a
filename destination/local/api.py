"""The API of template.yaml on this machine: HTTP -> event -> function process, with log lines for each request."""

import json
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

from rich.console import Console
from rich.text import Text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from destination.console import printable
from destination.deployment import demo
from destination.deployment.stack import FUNCTION, Account, LocalStack, load_template
from destination.deployment.target import ABOUT_PATH
from destination.local import gateway, printed
from destination.local.exchange import Exchange
from destination.local.function_process import Invocation
from destination.local.functions import Function, FunctionError, Functions, FunctionTimeoutError
from destination.local.observer import NoObserver, Observer
from destination.local.traffic import ServerTraffic
from destination.watching.log_file import RequestLogFile
from destination.web.guard import FORBIDDEN, Guard
from handler.decode import JsonObject


@dataclass(frozen=True, kw_only=True)
class _Access:
    """The facts about a request before its answer."""

    request: Request
    route: str = gateway.UNKNOWN
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.perf_counter)
    event: JsonObject = field(default_factory=dict)
    size: int = 0

    @property
    def milliseconds(self) -> float:
        """The milliseconds since the request arrived."""
        return (time.perf_counter() - self.began) * 1000

    def exchange(self, response: Response, error: str | None, lines: Sequence[JsonObject]) -> Exchange:
        """Return the whole exchange for the page; `error` is the reason if the function did not answer."""
        return Exchange(
            id=self.request_id,
            time=self.at,
            method=self.request.method,
            path=self.request.scope["path"],
            headers=self.request.headers.items(),
            body=self.event.get("body", ""),
            is_base64=self.event.get("isBase64Encoded", False),
            size=self.size,
            status=response.status_code,
            answer_headers=response.headers.items(),
            answer=bytes(response.body).decode("utf-8", "replace"),
            lines=lines,
            error=error,
            milliseconds=self.milliseconds,
        )

    def values(self, response: Response, integration: Mapping[str, str]) -> dict[str, object]:
        """Return the values of the access log's variables; `integration` has those about the function."""
        return {
            "requestId": self.request_id,
            "requestTime": gateway.log_time(self.at),
            "routeKey": self.route,
            "status": response.status_code,
            "responseLatency": round(self.milliseconds),
            "responseLength": len(response.body),
            "identity.sourceIp": gateway.source_ip_of(self.request) or gateway.UNKNOWN,
            **integration,
        }


REQUEST_ID = "apigw-requestid"
"""The header with API Gateway's id of a request."""
INVOKED = {"integrationStatus": "200"}
"""Lambda's response to API Gateway, even if the function raised an exception."""


class Api:
    """The API of template.yaml in front of function processes, and the local server's description of itself.

    The lines that function and API write are stored in `request_log`, and passed to `observer`, if these are given. The
    API answers to addresses of this machine and to the names in `allowed_hosts`. `has_faults` says whether faults are
    injected into store calls.
    """

    def __init__(
        self,
        account: Account,
        stack: LocalStack,
        console: Console,
        *,
        traffic: ServerTraffic | None = None,
        as_json: bool,
        request_log: RequestLogFile | None = None,
        observer: Observer | None = None,
        allowed_hosts: Collection[str] = (),
        has_faults: bool = False,
    ) -> None:
        self._console = console
        self._as_json = as_json
        self._traffic = traffic or ServerTraffic()
        self._request_log = request_log
        self._observer = observer or NoObserver()
        self._about = {
            "endpoint_url": account.endpoint_url,
            "stores": asdict(stack.stores),
            "api_key": demo.GOOD_KEY,
            "request_log": str(request_log.path) if request_log else None,
            "has_faults": has_faults,
        }
        resources = load_template()["Resources"]
        function = resources[FUNCTION]["Properties"]
        self._access_log = gateway.AccessLog(resources["Api"]["Properties"]["AccessLogSettings"]["Format"])
        routes = [event["Properties"] for event in function["Events"].values()]
        self._seconds = {route["Path"]: route["TimeoutInMillis"] / 1000 for route in routes}
        self.functions = Functions(Function.of(FUNCTION, function), stack.environment)
        app = Starlette(
            routes=[
                Route(ABOUT_PATH, self._tell_about),
                *self._observer.routes,
                *(Route(route["Path"], self._invoke, methods=[route["Method"]]) for route in routes),
            ],
            exception_handlers={404: self._not_found, 405: self._not_found},
        )
        # An HTTP API answers 404 to a trailing slash and to HEAD; Starlette would be more lenient.
        app.router.redirect_slashes = False
        for route in app.routes:
            if isinstance(route, Route) and route.methods is not None:
                route.methods.discard("HEAD")
        self.app = Guard(app=app, refuse=self._refuse, public_paths=self._seconds.keys(), allowed_hosts=allowed_hosts)

    async def _tell_about(self, _request: Request) -> Response:
        return JSONResponse(self._about)

    def _refuse(self, request: Request, reason: str) -> Response:
        return self._answer(_Access(request=request, size=_announced(request)), FORBIDDEN, reason, reason)

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        return self._answer(_Access(request=request, size=_announced(request)), 404, "Not Found", "no such route")

    async def _invoke(self, request: Request) -> Response:
        with self._traffic.request():
            response = await self._answer_by_function(request)
        if response.status_code < HTTPStatus.MULTIPLE_CHOICES:
            self._traffic.note_served()
        return response

    async def _answer_by_function(self, request: Request) -> Response:
        access = _Access(request=request, route=f"{request.method} {request.url.path}")
        body, size = await _read_body(request)
        if body is None:
            return self._answer(
                replace(access, size=size), 413, "Request Entity Too Large", "the body is larger than 10 MB"
            )
        event = gateway.to_event(request, body, access.at)
        access = replace(access, request_id=event["requestContext"]["requestId"], event=event, size=len(body))
        try:
            invocation = await self.functions.invoke(
                event, integration_seconds=self._seconds[request.url.path], late=partial(self._log_late, access)
            )
        except FunctionTimeoutError:
            return self._answer(access, 503, "Service Unavailable", "the function did not answer in time")
        except FunctionError:
            return self._answer(access, 500, "Internal Server Error", "the function died")
        lines = self._log(request, invocation)
        if invocation.raised:
            response: Response = gateway.own_answer(500, "Internal Server Error")
        else:
            response = gateway.to_response(invocation.response)
        self._note(access, response, INVOKED, lines)
        return response

    def _answer(self, access: _Access, status: int, message: str, why: str) -> Response:
        """Answer without the function."""
        self._console.print(printed.request_line(access.request, status, why))
        response = gateway.own_answer(status, message)
        self._note(access, response, {"integrationErrorMessage": why})
        return response

    def _log(self, request: Request, invocation: Invocation) -> list[JsonObject]:
        """Print and store the function's output, and return its lines about messages."""
        lines = []
        for line in invocation.log.splitlines():
            if IS_REQUEST_LINE in line:
                if self._request_log:
                    self._request_log.write(line)
                lines.append(json.loads(line))
            self._console.print(Text(printable(line)) if self._as_json else printed.readable(request, line))
        return lines

    def _log_late(self, access: _Access, invocation: Invocation) -> None:
        lines = self._log(access.request, invocation)
        self._observer.note_late(access.request_id, lines)

    def _note(
        self,
        access: _Access,
        response: Response,
        integration: Mapping[str, str],
        lines: Sequence[JsonObject] = (),
    ) -> None:
        """Write the line of the access log, and pass the request to the observer."""
        response.headers[REQUEST_ID] = access.request_id
        if self._request_log:
            self._request_log.write(self._access_log.line(access.values(response, integration)))
        self._observer.note(access.exchange(response, integration.get("integrationErrorMessage"), lines))


async def _read_body(request: Request) -> tuple[bytes | None, int]:
    """Return a request's body and its size; None for a body that is too large, which is not read to its end."""
    if (announced := _announced(request)) > gateway.MAX_BODY_BYTES:
        return None, announced
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > gateway.MAX_BODY_BYTES:
            return None, len(body)
    return bytes(body), len(body)


def _announced(request: Request) -> int:
    """Return the announced length of a body that is not read."""
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


IS_REQUEST_LINE = '"message": "request"'
"""Part of each request line of `handler/observe.py`; in text of callers, its quotation marks are escaped."""
