"""The page of a local server, which has all details of each request."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import urllib3
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from destination.debugger.arrivals import ArrivalOrder
from destination.debugger.consumer_failures import ConsumerFailures
from destination.debugger.exchanges import Exchanges
from destination.debugger.feed import LATENCY_EDGES_MS, Feed
from destination.debugger.inspect import Inspector
from destination.debugger.rows import Row
from destination.debugger.sample_traffic import SampleTraffic
from destination.debugger.site import Site
from destination.debugger.store_view import StoreView
from destination.debugger.tester import Tester, demo_keys
from destination.deployment.target import ARRIVALS_PATH, Target
from destination.local.exchange import Exchange
from destination.paths import SCHEMAS
from destination.schemas.check import load_schemas
from destination.watching.lines import ConsumerFailure
from handler.judge import Judge
from handler.routes import ROUTES, SEGMENT
from handler.validate import Schemas

MAX_LIMIT_DIGITS = 6
"""Limit for a requested number of messages; fewer requests are kept."""


class LocalDebugger:
    """Observes the requests of the local server at `url`; `ca_file` signed its certificate, if it has one.

    `judge_by` must be called before the first request for the page.
    """

    def __init__(self, target: Target, url: str, ca_file: str | None = None) -> None:
        self.feed = Feed()
        self._arrivals = ArrivalOrder()
        self._consumer_failures = ConsumerFailures(self.feed.note_consumer_failures)
        self._target = replace(target, arrivals=self._arrivals.latest)
        self._url = url
        self._exchanges = Exchanges()
        self._judge: Judge
        self._dynamodb = target.account.dynamodb()
        self._http = urllib3.PoolManager(ca_certs=ca_file)

    def _judge_of(self, schemas: Schemas) -> Judge:
        supported = frozenset(self._target.stores.supported_call_types.split(","))
        return Judge(schemas=schemas, supported_call_types=supported)

    def judge_by(self, schemas: Schemas) -> None:
        """Note the schemas that the function uses from now on."""
        self._judge = self._judge_of(schemas)
        self.feed.note_schemas()

    def notify(self, text: str | None) -> None:
        """Show a fault of the server; None when there is none any more."""
        self.feed.notify(text)

    def close(self) -> None:
        """End the streams of the browsers."""
        self.feed.close()

    def note(self, exchange: Exchange) -> None:
        """Show an answered request."""
        self._exchanges.add(exchange)
        reading = exchange.read() if sum(line.get("messages", 1) for line in exchange.lines) <= 1 else None
        self._arrivals.note(exchange, reading)
        self.feed.add(Row.of_exchange(exchange, reading))
        self._consumer_failures.note_request(exchange.id, exchange.lines)

    def note_late(self, exchange_id: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add the function's lines about a request that was answered without it."""
        if exchange := self._exchanges.add_late(exchange_id, lines):
            self._arrivals.note(exchange)
            self._consumer_failures.note_request(exchange_id, lines)

    def note_consumer_failure(self, failure: ConsumerFailure) -> None:
        """Show that the consumer failed to handle a message."""
        self._consumer_failures.note(failure)

    @property
    def routes(self) -> list[Route]:
        """The routes of the page."""
        stores = self._target.stores
        deployment = {
            "name": "local server",
            "read_only": False,
            "endpoint": self._url + SEGMENT.path,
            "sink": stores.event_sink,
            "queue": None if stores.sink.is_queryable else stores.event_store,
            "routes": [route.path for route in ROUTES.values()],
            "call_types": stores.supported_call_types.split(","),
            "keys": demo_keys(),
            "latency_edges": LATENCY_EDGES_MS,
            "tells_who": True,
            "messages_need_subject": False,
        }
        store_view = StoreView(
            target=self._target, dynamodb=self._dynamodb, load_judge=lambda: self._judge_of(load_schemas(SCHEMAS))
        )
        tester = Tester(url=self._url, http=self._http, judge=lambda: self._judge)
        site = Site(
            deployment=deployment,
            feed=self.feed,
            inspect=self._inspect,
            store_view=store_view,
            tester=tester,
            sample_traffic=SampleTraffic(post=tester.post),
        )
        return [Route(ARRIVALS_PATH, self._tell_arrivals, methods=["GET"]), *site.routes]

    async def _tell_arrivals(self, request: Request) -> Response:
        asked = request.query_params
        limit = asked.get("limit", "")
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= MAX_LIMIT_DIGITS):
            return JSONResponse({"message": "limit must be a number"}, status_code=400)
        keys = self._arrivals.latest(asked.get("customer"), asked.get("message_id"), int(limit))
        return JSONResponse({"keys": keys})

    def _inspect(self, exchange_id: str, index: int | None) -> Mapping[str, Any] | None:
        exchange = self._exchanges.find(exchange_id)
        if exchange is None:
            return None
        inspector = Inspector(
            target=self._target,
            dynamodb=self._dynamodb,
            judge=self._judge,
            consumer_failures=self._consumer_failures.of,
        )
        return inspector.inspect(exchange, index)
