"""The Lambda function: the only place with import-time effects, which are settings, clients and wiring."""

import os
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from handler.destination import Destination
from handler.keys import KeyStore
from handler.reject import RejectTable
from handler.request import Request
from handler.respond import Response
from handler.settings import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, STORE_TRIES, Settings, Sink
from handler.validate import Schemas
from handler.write import EventQueue, EventSink, EventTable

SCHEMAS = Path(__file__).parent.parent / "schemas"

CLIENT_CONFIG = Config(
    connect_timeout=CONNECT_TIMEOUT_SECONDS,
    read_timeout=READ_TIMEOUT_SECONDS,
    retries={"mode": "standard", "total_max_attempts": STORE_TRIES},
)


def connect(settings: Settings) -> Destination:
    """Wire a destination to its stores."""
    dynamodb = boto3.client("dynamodb", config=CLIENT_CONFIG)
    sink: EventSink
    if settings.event_sink is Sink.SQS:
        sink = EventQueue(boto3.client("sqs", config=CLIENT_CONFIG), settings.event_queue_url)
    else:
        sink = EventTable(dynamodb, settings.event_table, retention_days=settings.event_retention_days)
    keys = KeyStore(
        dynamodb,
        settings.key_table,
        cache_seconds=settings.key_cache_seconds,
        grace_seconds=settings.key_grace_seconds,
        accept_demo_keys=settings.accept_demo_keys,
        clock=time.time,
    )
    return Destination(
        settings=settings,
        keys=keys,
        schemas=Schemas.load(SCHEMAS),
        sink=sink,
        rejects=RejectTable(dynamodb, settings.rejects_table, retention_days=settings.rejects_retention_days),
        clock=time.time,
    )


destination = connect(Settings.from_env(os.environ))


def lambda_handler(event: dict[str, Any], _context: object) -> Response:
    """Answer one API Gateway HTTP API event."""
    return destination.answer(Request.from_event(event, time.time()))
