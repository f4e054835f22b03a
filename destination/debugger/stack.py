"""The page of a deployed stack, from its logs and tables. It only reads."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import click
from starlette.applications import Starlette
from starlette.types import ASGIApp

from destination.debugger.feed import LATENCY_EDGES_MS, MAX_ROWS, Feed
from destination.debugger.inspect import steps_of
from destination.debugger.layout import lay_out
from destination.debugger.rows import DUPLICATE, STORED, Row
from destination.debugger.site import Site
from destination.debugger.store_view import StoreView
from destination.deployment.target import Target
from destination.paths import SCHEMAS
from destination.schemas.check import load_schemas
from destination.watching.lines import AccessLine, Line, Wanted
from destination.watching.request_log import RequestLog
from destination.watching.retries import describe_retry
from destination.web.guard import Guard
from destination.web.server import Server
from handler.errors import STORE_ERRORS
from handler.judge import Judge
from handler.routes import ROUTES

RETRY_SECONDS = 10.0
"""Pause before a log is read again after a failure."""
LAST_AFTER_FAULT = 1000
"""Lines of the last hour that are read again after that."""


class StackDebugger:
    """Shows new lines of a log."""

    def __init__(self, name: str, target: Target, log: RequestLog) -> None:
        self.feed = Feed()
        self._name = name
        self._target = target
        self._log = log
        self._lines: dict[str, Line] = {}
        self._known: set[str] = set()
        self._numbers = itertools.count(1)

    async def run(self, listener: socket.socket, last: int) -> None:
        """Serve the page until the end."""
        loop = asyncio.get_running_loop()

        def call(function: Callable[..., None], *args: object) -> None:
            loop.call_soon_threadsafe(function, *args)

        # Reading waits most of the time, and nothing is lost when it ends with this process.
        threading.Thread(target=self._follow, args=(call, last), daemon=True).start()
        await Server(self._app(), self.feed.close).serve(sockets=[listener])

    def _follow(self, call: Callable[..., None], last: int) -> None:
        """Read the log in its own thread until the end; after a failure, also read the missed lines."""
        while True:
            has_fault = True
            try:
                for line in self._log.follow(Wanted(), last):
                    if line is not None:
                        call(self._note, line)
                    elif has_fault:
                        has_fault = False
                        call(self.feed.notify, None)
            except (click.ClickException, *STORE_ERRORS) as error:
                text = error.message if isinstance(error, click.ClickException) else str(error)
                call(self.feed.notify, f"The log can't be read. Trying again: {text}")
                time.sleep(RETRY_SECONDS)
                if not has_fault:
                    last = LAST_AFTER_FAULT

    def _note(self, line: Line) -> None:
        if line.raw in self._known:
            return
        row = Row.of_line(line, next(self._numbers))
        self._lines[row.id] = line
        self._known.add(line.raw)
        if len(self._lines) > MAX_ROWS:
            self._known.discard(self._lines.pop(next(iter(self._lines))).raw)
        self.feed.add(row)

    def _app(self) -> ASGIApp:
        stores = self._target.stores
        supported = stores.supported_call_types.split(",")
        deployment = {
            "name": self._name,
            "read_only": True,
            "endpoint": None,
            "sink": stores.event_sink,
            "queue": None if stores.sink.is_queryable else stores.event_store,
            "routes": [route.path for route in ROUTES.values()],
            "call_types": supported,
            "keys": [],
            "latency_edges": LATENCY_EDGES_MS,
            "tells_who": False,
            "messages_need_subject": True,
        }
        store_view = StoreView(
            target=self._target,
            dynamodb=self._target.account.dynamodb(),
            load_judge=lambda: Judge(schemas=load_schemas(SCHEMAS), supported_call_types=frozenset(supported)),
        )
        site = Site(deployment=deployment, feed=self.feed, inspect=self._inspect, store_view=store_view, tester=None)
        return Guard(app=Starlette(routes=site.routes))

    def _inspect(self, row_id: str, index: int | None) -> Mapping[str, Any] | None:
        line = self._lines.get(row_id)
        if line is None:
            return None
        row = Row.of_line(line, 0)
        messages: list[dict[str, Any]] = []
        steps: dict[str, Any] = {"steps": [], "total": line.milliseconds}
        if isinstance(line, AccessLine):
            now = [f"API Gateway answered by itself{(line.error and f': {line.error}') or ''}."]
        else:
            said = {"call_type": line.call_type, "outcome": row.outcome, "code": line.code, "text": line.text}
            messages = [{"index": number, "message_id": name, **said} for number, name in enumerate(line.message_ids)]
            steps = steps_of([json.loads(line.raw)])
            now = [describe_retry(line, None)]
            if row.outcome in (STORED, DUPLICATE):
                now.append("Stored messages are found by customer and user, but the log does not have the user.")
        return {
            "row": {**row.to_json(), "id": row_id},
            "request": None,
            "messages": messages,
            "message": (index or 0) if (index or 0) < len(messages) else None,
            "canonical": None,
            "left_out": [],
            "violations": [],
            "answer": {"status": line.status, "headers": [], "body": None, "text": row.text},
            **steps,
            "stored": None,
            "line": lay_out(line.raw).to_json(),
            "now": now,
        }
