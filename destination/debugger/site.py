"""The routes of the page, behind `destination/web/guard.py`, which admits only this machine and the page itself."""

import json
import mimetypes
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import urllib3
from botocore.exceptions import ClientError, ParamValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from destination.console import printable
from destination.debugger.feed import Feed
from destination.debugger.sample_traffic import SampleTraffic
from destination.debugger.store_view import BY_EVENT, StoreView
from destination.debugger.tester import Draft, Tester
from destination.deployment.target import ABOUT_PATH
from handler.errors import STORE_ERRORS, EventStoreUnavailable
from handler.routes import ROUTES

PAGE = Path(__file__).parent / "page"
MAX_INDEX_DIGITS = 4
"""A batch has at most 2,500 messages."""
MAX_LABEL_CHARS = 1000
MAX_BODY_BYTES = 16 * 1024 * 1024
"""Limit for a request of the page: the longest message of a batch in JSON."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Content = Mapping[str, Any]


class _Refused(Exception):
    """A request of the page can't be fulfilled; the text says why and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Site:
    """The page of a deployment. `deployment` are its initial facts; without a `tester` it only reads."""

    deployment: Content
    feed: Feed
    inspect: Callable[[str, int | None], Content | None]
    store_view: StoreView
    tester: Tester | None
    sample_traffic: SampleTraffic | None = None

    @property
    def routes(self) -> list[Route]:
        """All routes; `/` is the page itself."""
        gets: dict[str, Callable[[Request], Content | None]] = {
            "/deployment": lambda _: self.deployment,
            "/requests/{id}": self._request,
            "/keys": lambda _: {"keys": self.store_view.keys()},
            "/messages": self._messages,
            "/message": self._message,
            "/rejects": lambda request: self.store_view.rejects(customer_id=_asked(request, "customer")),
            "/rejects/{key}": lambda request: self.store_view.reject(request.path_params["key"]),
        }
        posts: dict[str, Callable[[Request, Content], Content]] = {}
        if self.tester is not None:
            tester = self.tester
            gets["/samples"] = lambda _: {"samples": [*tester.samples()]}
            posts = {
                "/check": lambda _, content: tester.check(_draft(content)),
                "/send": lambda _, content: self._send(tester, _draft(content)),
                "/curl": lambda _, content: self._curl(tester, _draft(content)),
                "/keys": lambda _, content: self._create_key(content),
                "/keys/{id}/revoke": lambda request, _: {"key": self.store_view.revoke_key(request.path_params["id"])},
                "/rejects/retry": lambda _, content: {"results": self.store_view.retry(_texts(content, "keys"))},
            }
        if (sample_traffic := self.sample_traffic) is not None:
            posts["/sample-traffic"] = lambda *_: sample_traffic.start()
        return [
            Route("/", _answering(self._file), methods=["GET"]),
            Route(f"{ABOUT_PATH}/page/{{name}}", _answering(self._file), methods=["GET"]),
            Route(f"{ABOUT_PATH}/live", _answering(self._live), methods=["GET"]),
            *(Route(ABOUT_PATH + path, _answering(_reading(read)), methods=["GET"]) for path, read in gets.items()),
            *(
                Route(ABOUT_PATH + path, _answering(_changing(change)), methods=["POST"])
                for path, change in posts.items()
            ),
        ]

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        files = {path.name: path for path in PAGE.iterdir()}
        if name not in files:
            raise _Refused(404, "The page has no such file")
        media_type, _ = mimetypes.guess_type(name)
        return Response(files[name].read_bytes(), media_type=media_type)

    async def _live(self, _request: Request) -> Response:
        return StreamingResponse(self.feed.follow(), media_type="text/event-stream")

    def _request(self, request: Request) -> Content:
        index = _asked(request, "message")
        found = self.inspect(
            request.path_params["id"], int(index) if index.isdecimal() and len(index) <= MAX_INDEX_DIGITS else None
        )
        if found is None:
            raise _Refused(404, "This request is not kept any more: only the latest ones are, as many as fit")
        return found

    def _messages(self, request: Request) -> Content:
        return self.store_view.messages(
            customer_id=_asked(request, "customer"),
            user=_asked(request, "user"),
            anonymous=_asked(request, "anonymous"),
            message_id=_asked(request, "message_id"),
            by=_asked(request, "by") or BY_EVENT,
        )

    def _message(self, request: Request) -> Content | None:
        item = self.store_view.message(*_needed(request, "subject", "position"))
        return item and {"item": item}

    def _send(self, tester: Tester, draft: Draft) -> Content:
        try:
            return tester.send(draft)
        except urllib3.exceptions.HTTPError as error:
            raise _Refused(502, f"{tester.url} does not answer: {error}") from error

    def _curl(self, tester: Tester, draft: Draft) -> Content:
        try:
            return {"curl": tester.curl(draft)}
        except ValueError as error:
            raise _Refused(400, str(error)) from error

    def _create_key(self, content: Content) -> Content:
        return self.store_view.create_key(
            customer_id=_text(content, "customer_id"),
            label=_label(content),
            expires=_text(content, "expires"),
            scopes=_texts(content, "scopes"),
        )


def _asked(request: Request, name: str) -> str:
    return request.query_params.get(name, "")


def _needed(request: Request, *names: str) -> Iterator[str]:
    """Yield the values of required parameters."""
    if missing := [name for name in names if not _asked(request, name)]:
        raise _Refused(
            400, f"{' and '.join(missing)} must be given: {request.url.path}?{'&'.join(f'{name}=…' for name in names)}"
        )
    yield from (_asked(request, name) for name in names)


def _text(content: Content, name: str) -> str:
    value = content.get(name, "")
    if not isinstance(value, str):
        raise _Refused(400, f"{name} must be a string")
    return value


def _label(content: Content) -> str:
    label = _text(content, "label")
    if len(label) > MAX_LABEL_CHARS or printable(label) != label:
        raise _Refused(400, f"label must be at most {MAX_LABEL_CHARS} printable characters")
    return label


def _texts(content: Content, name: str) -> list[str]:
    values = content.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Refused(400, f"{name} must be an array of strings")
    return values


def _draft(content: Content) -> Draft:
    path = _text(content, "path")
    if f"POST {path}" not in ROUTES:
        raise _Refused(400, "path must be a route for messages, such as /segment")
    api_key = None if content.get("api_key") is None else _text(content, "api_key")
    return Draft(path=path, text=_text(content, "text"), settings=_text(content, "settings"), api_key=api_key)


Endpoint = Callable[[Request], Awaitable[Response]]


def _answering(endpoint: Endpoint) -> Endpoint:
    """Answer errors with sentences for people."""

    async def answering(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except _Refused as refused:
            response = _json({"message": str(refused)}, refused.status)
        except click.ClickException as error:
            response = _json({"message": error.message}, 400)
        except EventStoreUnavailable as error:
            response = _json({"message": f"The store answered: {error.__cause__ or error}"}, 502)
        except STORE_ERRORS as error:
            if _is_of_value(error):
                response = _json({"message": "The store refuses this value: it is empty, too long, or not text"}, 400)
            else:
                response = _json({"message": f"The store answered: {error}"}, 502)
        response.headers.update(HEADERS)
        return response

    return answering


def _is_of_value(error: Exception) -> bool:
    """Return whether a store refused a value, such as a key that is too long."""
    return isinstance(error, ParamValidationError) or (
        isinstance(error, ClientError) and error.response["Error"]["Code"] == "ValidationException"
    )


def _reading(read: Callable[[Request], Content | None]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        content = await run_in_threadpool(read, request)
        if content is None:
            raise _Refused(404, "It does not exist any more")
        return _json(content)

    return endpoint


def _changing(change: Callable[[Request, Content], Content]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise _Refused(415, "Send JSON, as application/json")
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise _Refused(413, f"The limit is {MAX_BODY_BYTES:,} bytes")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Refused(400, f"This is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise _Refused(400, "Send a JSON object")
        return _json(await run_in_threadpool(change, request, content))

    return endpoint


def _json(content: Content, status: int = 200) -> Response:
    """Return JSON in ASCII: texts of callers may contain characters that UTF-8 can't encode."""
    return Response(json.dumps(content), status_code=status, media_type="application/json")
