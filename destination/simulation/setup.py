"""Prepare a simulation: find an endpoint that answers, and create temporary API keys."""

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import Stores
from destination.deployment.target import Target, trusted_authority
from destination.segment.contract import CALL_TYPES, DELETE
from destination.segment.endpoint import Endpoint
from destination.simulation.deliver import IsStored
from destination.simulation.key_probes import KeyProbes, ProbeKey
from destination.simulation.reconcile import is_stored
from destination.simulation.traffic import Traffic
from handler.errors import STORE_ERRORS
from handler.keys import new_key

KEY_LIFETIME = timedelta(days=7)
"""The lifetime of the temporary keys, in case the run is killed before it removes them; longer than any run."""


def reader_of(target: Target) -> IsStored | None:
    """Return a function that looks up an item in the event table; None for a queue, which has no look-up."""
    if not target.stores.sink.is_queryable:
        return None
    client, table = target.account.dynamodb(), target.stores.event_table

    async def read(subject: str, position: str) -> bool:
        try:
            return await asyncio.to_thread(is_stored, client, table, subject, position)
        except STORE_ERRORS:
            return True  # store errors are reported by the reconciliation at the end

    return read


def reachable_endpoint(url: str, ca_file: str | None, *, timeout_seconds: float) -> Endpoint:
    """Return a client for a URL that answers now; later failures are the sender's concern."""
    if ca_file and not url.startswith("https:"):
        raise click.UsageError(f"--ca-file is for https, and {url} has no certificate")
    authority = trusted_authority(url, ca_file)
    try:
        endpoint = Endpoint(url, ca_file=authority, timeout_seconds=timeout_seconds)
    except ssl.SSLError as error:
        raise click.ClickException(f"{authority} does not have the certificate of an authority: {error}") from error
    try:
        asyncio.run(endpoint.try_connection())
    except OSError as error:
        raise click.ClickException(f"{url} does not answer: {error or 'it takes too long'}") from error
    return endpoint


@contextmanager
def key_probes(
    target: Target, traffic: Traffic, url: str, ca_file: str | None, timeout_seconds: float
) -> Iterator[KeyProbes | None]:
    """Create keys that must be refused, for a run with set pieces, and remove exactly these at the end.

    A key is revoked during use only on a local server: a stack may accept it for KeyCacheSeconds, and a run may be
    shorter.
    """
    if not traffic.pieces:
        yield None
        return
    client = target.account.dynamodb()
    table = KeyTable(client, target.stores.key_table)
    now = datetime.now(UTC)
    first, *others = target.stores.supported_call_types.split(",")
    fields: dict[str, dict[str, Any]] = {
        "expired": {"expires_at": now - timedelta(hours=1)},
        "revoked": {"status": "revoked", "expires_at": now + KEY_LIFETIME},
        "suspended": {"status": "suspended", "expires_at": now + KEY_LIFETIME},
        "scoped": {"scopes": frozenset(others or CALL_TYPES) - {first}, "expires_at": now + KEY_LIFETIME},
    }
    keys = [ProbeKey(fault=fault, key=new_key()) for fault in fields]
    customer_id, label = traffic.customer_ids[0], "destination simulate"
    records = [KeyRecord.of(probe.key, customer_id=customer_id, label=label, **fields[probe.fault]) for probe in keys]
    used_key = new_key()
    used = KeyRecord.of(used_key, customer_id=customer_id, label=label, expires_at=now + KEY_LIFETIME)
    try:
        for record in (*records, used):
            table.put(record)
        yield KeyProbes(
            Endpoint(url, ca_file=trusted_authority(url, ca_file), timeout_seconds=timeout_seconds),
            keys,
            used_key=used_key if target.is_local else None,
            revoke=lambda: table.put(replace(used, status="revoked")),
            call_type=first,
            in_batches=traffic.in_batches,
        )
    finally:
        _remove_keys(target, (*records, used))


@contextmanager
def temporary_keys(target: Target, customer_ids: Sequence[str]) -> Iterator[list[str]]:
    """Create an API key for each customer, and remove exactly these at the end."""
    client = target.account.dynamodb()
    table = KeyTable(client, target.stores.key_table)
    expires_at = datetime.now(UTC) + KEY_LIFETIME
    keys = [new_key() for _ in customer_ids]
    records = [
        KeyRecord.of(key, customer_id=customer_id, label="destination simulate", expires_at=expires_at)
        for key, customer_id in zip(keys, customer_ids, strict=True)
    ]
    try:
        for record in records:
            table.put(record)
        yield keys
    finally:
        _remove_keys(target, records)


def _remove_keys(target: Target, records: Sequence[KeyRecord]) -> None:
    client = target.account.dynamodb()
    try:
        for record in records:
            client.delete_item(TableName=target.stores.key_table, Key={"key_hash": {"S": record.key_hash}})
    except STORE_ERRORS as error:
        click.echo(f"The keys of {records[0].customer_id} could not be removed; they expire: {error}", err=True)


def check_stores(stores: Stores, *, deletes: bool, contacts: bool) -> list[str]:
    """Return the call types for random traffic; raises `click.ClickException` if a run could not show anything."""
    call_types = stores.supported_call_types.split(",")
    if not stores.sink.is_queryable:
        if stores.consumer == "on":
            raise click.ClickException(
                "The consumer of this deployment receives the messages that the simulation must find in the queue: "
                "deploy it "
                "with Consumer=off; on this machine `destination serve --parameter EventSink=sqs --parameter "
                "Consumer=off`"
            )
        if deletes or contacts:
            raise click.UsageError("--deletes and --contacts need a deployment with EventSink=dynamodb")
        return call_types
    if contacts and stores.consumer != "on":
        raise click.ClickException(
            "--contacts compares the consumer's contacts, but the consumer is off: deploy with Consumer=on"
        )
    if deletes and DELETE not in call_types:
        raise click.ClickException("--deletes needs a deployment that supports delete calls (SupportedCallTypes)")
    mixed = [call_type for call_type in call_types if call_type != DELETE]
    if not mixed:
        raise click.ClickException("This deployment supports delete calls only: there would be nothing to erase")
    return mixed
