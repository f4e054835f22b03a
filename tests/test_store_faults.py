"""Test unreachable stores and invalid responses: always a fault of ours, and never a success or a 401."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event

import boto3
import pytest
from botocore.config import Config
from endpoint import endpoint, response

from handler.canonicalise import canonicalise
from handler.clients import require_confirmation
from handler.erased import Tombstones
from handler.errors import (
    ErasureStoreUnavailable,
    EventStoreUnavailable,
    KeyStoreUnavailable,
    RejectStoreUnavailable,
)
from handler.keys import KeyStore
from handler.record import Record
from handler.reject import RejectTable
from handler.sinks import SINKS, sink_named

[MESSAGE] = canonicalise({"type": "track", "event": "Lamp Lit", "userId": "keeper-17"})
RECORD = Record(customer_id="acme", message=MESSAGE, settings={}, stored_at=0)
CONFIG = Config(connect_timeout=0.2, read_timeout=0.2, retries={"total_max_attempts": 1})
CREDENTIALS = {"region_name": "us-east-1", "aws_access_key_id": "local", "aws_secret_access_key": "local"}


def find_key(url):
    with connected("dynamodb", url) as client:
        store = KeyStore(client, "keys", cache_seconds=0, grace_seconds=0, accept_demo_keys=False, clock=lambda: 0.0)
        return store.find("a-key")


@contextmanager
def opened(name, url) -> Iterator:
    sink = sink_named(name)
    with connected(sink.service, url) as client:
        address = f"{url}/0/events" if sink.variable.endswith("_URL") else "events"
        yield sink.open(address, lambda _service: client, retention_days=0)


def write(name, url):
    with opened(name, url) as sink:
        return sink.write(RECORD)


def probe(name, url):
    with opened(name, url) as sink:
        sink.probe()


def probe_keys(url):
    with connected("dynamodb", url) as client:
        KeyStore(client, "keys", cache_seconds=0, grace_seconds=0, accept_demo_keys=False, clock=lambda: 0.0).probe()


def probe_rejects(url):
    with connected("dynamodb", url) as client:
        RejectTable(client, "rejects", retention_days=30).probe()


def probe_tombstones(url):
    with connected("dynamodb", url) as client:
        Tombstones(client, "erasures").probe()


@contextmanager
def connected(service, url) -> Iterator:
    client = boto3.client(service, endpoint_url=url, config=CONFIG, **CREDENTIALS)
    yield require_confirmation(client)
    client.close()


CALLS = [
    (find_key, KeyStoreUnavailable),
    *((partial(call, name), EventStoreUnavailable) for name in SINKS for call in (write, probe)),
    (probe_keys, KeyStoreUnavailable),
    (probe_rejects, RejectStoreUnavailable),
    (probe_tombstones, ErasureStoreUnavailable),
]


@pytest.mark.parametrize(("call", "refusal"), CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        (200, ""),
        (200, "{}"),
        (200, "<html>Welcome</html>"),
        (200, '{"ConsumedCapacity": null, "MessageId": null}'),
        (200, '{"Item": {"customer_id": {"S": "ac'),
        (302, ""),
        (400, ""),
        (403, '{"__type": "AccessDeniedException"}'),
        (404, "Not Found"),
        (500, "Oops"),
        (503, ""),
    ],
    ids=repr,
)
def test_response_without_confirmation_is_a_store_error(answer, call, refusal):
    with endpoint(lambda _request: response(*answer)) as store, pytest.raises(refusal) as caught:
        call(store.url)
    assert caught.value.status == 503


@pytest.mark.parametrize(("call", "refusal"), CALLS)
def test_silent_store_is_our_fault(call, refusal):
    over = Event()
    with endpoint(lambda _request: over.wait() and []) as store, pytest.raises(refusal):
        call(store.url)
    over.set()


@pytest.mark.parametrize(("call", "refusal"), CALLS)
def test_unreachable_store_is_our_fault(call, refusal):
    with endpoint(lambda _request: []) as closed:
        pass
    with pytest.raises(refusal):
        call(closed.url)
