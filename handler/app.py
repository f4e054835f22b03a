"""The Lambda function: reads the settings, creates the clients and connects the parts.

No other module has import-time effects.
"""

import gc

gc.disable()  # no garbage is created during the imports; without collections, a cold start takes a tenth less time

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from handler.clients import connect
from handler.destination import Destination
from handler.erased import NoErasures, Tombstones
from handler.health import Health
from handler.judge import Judge
from handler.keys import KeyStore
from handler.reject import RejectTable
from handler.request import Request
from handler.respond import Response
from handler.routes import HEALTH
from handler.settings import AfterErasure, Settings
from handler.sinks import sink_named
from handler.validate import Schemas

SCHEMAS = Path(__file__).parent.parent / "schemas"


def wire(settings: Settings) -> Destination:
    """Connect a destination to its stores."""
    in_lambda = bool(os.environ.get("AWS_LAMBDA_FUNCTION_NAME"))
    # botocore reads the same variables
    ca_bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")

    @cache
    def client(service: str) -> Any:  # noqa: ANN401 -- a botocore client
        return connect(service, direct=in_lambda, ca_bundle=ca_bundle)

    dynamodb = client("dynamodb")
    keys = KeyStore(
        dynamodb,
        settings.key_table,
        cache_seconds=settings.key_cache_seconds,
        grace_seconds=settings.key_grace_seconds,
        accept_demo_keys=settings.accept_demo_keys,
        clock=time.time,
    )
    refuses_erased = settings.after_erasure is AfterErasure.REFUSE
    return Destination(
        settings=settings,
        keys=keys,
        erasures=Tombstones(dynamodb, settings.erasure_table) if refuses_erased else NoErasures(),
        judge=Judge(schemas=Schemas.load(SCHEMAS), supported_call_types=settings.supported_call_types),
        sink=sink_named(settings.event_sink).open(
            settings.event_store, client, retention_days=settings.event_retention_days
        ),
        rejects=RejectTable(dynamodb, settings.rejects_table, retention_days=settings.rejects_retention_days),
        clock=time.time,
    )


destination = wire(Settings.from_env(os.environ))
health = Health.of(destination)
gc.freeze()
gc.enable()


def lambda_handler(event: dict[str, Any], _context: object) -> Response:
    """Answer one API Gateway HTTP API event."""
    if event.get("routeKey") == HEALTH:
        return health.answer()
    return destination.answer(Request.from_event(event, time.time()))
