"""`destination simulate`: Segment's side of delivery, played faithfully, and then the question whether all is there."""

import asyncio
import json
import secrets
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import urljoin

import click
import urllib3

from destination.commands.options import FiniteRange, parse_endpoint
from destination.console import counted, progress, stdout
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import Stores, stack_outputs
from destination.deployment.target import LOCAL_URL, Target, local_target, stack_target, trusted_authority
from destination.paths import ROOT
from destination.segment.client import SEGMENT_TIMEOUT_SECONDS, deployment_url
from destination.segment.contract import BATCH_PATH, CALL_TYPES, DELETE, MAX_BATCH_MESSAGES
from destination.segment.endpoint import Endpoint
from destination.simulation import friendly
from destination.simulation.deliver import IsStored, Sender
from destination.simulation.key_probes import KeyProbes, ProbeKey
from destination.simulation.play import Play
from destination.simulation.reconcile import holds_some, is_stored
from destination.simulation.replies import Circumstances
from destination.simulation.report import Run
from destination.simulation.required import required_fields
from destination.simulation.routes import (
    BATCH_MESSAGES,
    LIBRARY_TIMEOUT_SECONDS,
    BatchRoute,
    Route,
    SegmentRoute,
)
from destination.simulation.traffic import Traffic
from handler.errors import STORE_ERRORS
from handler.keys import new_key

KEY_LIFETIME = timedelta(days=7)
"""Of the temporary keys, should the run be killed before it removes them; longer than any run."""
MAX_SEED = 10**9
SHARE = FiniteRange(0, 1)


@click.command()
@click.option(
    "--profile",
    type=click.Choice(("hostile", "friendly")),
    default="hostile",
    show_default=True,
    help="Odd messages and whole checks, or the believable traffic of a small shop, which is only sent.",
)
@click.option("--messages", default=1000, show_default=True, type=click.IntRange(1), help="How many to send.")
@click.option("--customers", default=10, show_default=True, type=click.IntRange(1, 1000), help="Of how many customers.")
@click.option("--seed", type=click.IntRange(0), help="The same seed sends the same messages; by chance without it.")
@click.option("--rate", type=FiniteRange(0, min_open=True), help="Deliveries begun per second; else all it takes.")
@click.option("--concurrency", default=16, show_default=True, type=click.IntRange(1, 1000), help="Requests at once.")
@click.option("--duplicates", default=0.0, type=SHARE, help="Share of messages that are sent twice.")
@click.option("--deletes", default=0.0, type=SHARE, help="Share of the users who are erased towards the end.")
@click.option("--reorder", default=0.0, type=SHARE, help="Share of messages that come too late.")
@click.option("--replays", default=0.0, type=SHARE, help="Share of messages that are replays of years ago.")
@click.option("--invalid", default=0.0, type=SHARE, help="Share of messages that must be refused.")
@click.option(
    "--route",
    type=click.Choice(("segment", "batch")),
    default="segment",
    show_default=True,
    help="Where to: /segment one by one, as Segment does, or /v1/batch as its server libraries do.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH_MESSAGES),
    help=f"Messages of a batch at the most; {BATCH_MESSAGES}, as libraries have it, if you don't say.",
)
@click.option("--contacts", is_flag=True, help="Compare the contacts that the consumer keeps, too.")
@click.option(
    "--time-scale",
    default=240.0,
    show_default=True,
    type=FiniteRange(1),
    help="How much faster time runs between tries: 240 makes four hours of retries one minute.",
)
@click.option("--url", help=f"The endpoint: {LOCAL_URL}, or the stack's own.")
@click.option("--stores", metavar="URL", help="The local server whose stores --url writes to, where it is not itself.")
@click.option("--stack", help="A CloudFormation stack, by your own AWS credentials.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="A certificate authority to trust (serve --tls has its own).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def simulate(
    *,
    profile: str,
    messages: int,
    customers: int,
    seed: int | None,
    rate: float | None,
    concurrency: int,
    duplicates: float,
    deletes: float,
    reorder: float,
    replays: float,
    invalid: float,
    route: str,
    batch_size: int | None,
    contacts: bool,
    time_scale: float,
    url: str | None,
    stores: str | None,
    stack: str | None,
    ca_file: str | None,
    as_json: bool,
) -> None:
    """Deliver messages as Segment does, and check each one.

    It retries as Segment or its server libraries do, and compares what it sent with what is stored. It makes API keys
    for customers of its own and removes them at the end; what they sent stays stored. With a queue, it takes their
    messages from it. Exits with 1 when a message was lost, stored twice or otherwise, or judged wrongly, when a user
    was not erased, or a contact is wrong, and when any other promise of docs/how-to/simulate.md was broken: it names
    the message, what is expected and what was found.

    Control-C ends it with a reconciliation of what was sent so far.

    With --profile friendly, only --messages, --seed and --rate and the options that name the deployment apply.

    \b
    Example:
      destination simulate --messages 20000 --customers 10 --duplicates 0.05 --deletes 0.1 --contacts
    """
    if profile == "friendly":
        target, endpoint_url = _target(url, stores, stack, ca_file)
        authority = trusted_authority(endpoint_url, ca_file)
        _simulate_shop(target, endpoint_url, authority, messages=messages, seed=seed, rate=rate, as_json=as_json)
        return
    in_batches = route == "batch"
    if batch_size and not in_batches:
        raise click.UsageError("--batch-size is for --route batch")
    target, endpoint_url = _target(url, stores, stack, ca_file)
    if in_batches:
        endpoint_url = deployment_url(endpoint_url) + BATCH_PATH
    call_types = _check_stores(target.stores, deletes=deletes > 0, contacts=contacts)
    timeout_seconds = LIBRARY_TIMEOUT_SECONDS if in_batches else SEGMENT_TIMEOUT_SECONDS
    endpoint = _reachable_endpoint(endpoint_url, ca_file, timeout_seconds=timeout_seconds)
    is_seed_given = seed is not None
    seed = secrets.randbelow(MAX_SEED) if seed is None else seed
    traffic = Traffic(
        seed=seed,
        customers=customers,
        call_types=call_types,
        in_batches=in_batches,
        replays=replays,
        invalid=invalid,
        deletes=deletes,
        messages=messages,
        required=tuple(required_fields(ROOT / "schemas", target.stores.supported_call_types.split(","))),
        refuses_erased=target.stores.after_erasure == "refuse",
    )
    try:
        may_have_sent = is_seed_given and holds_some(target, traffic)
    except STORE_ERRORS:
        may_have_sent = is_seed_given  # that the stores can't be read is told at the end
    with (
        _temporary_keys(target, traffic.customer_ids) as api_keys,
        _key_probes(target, traffic, endpoint_url, ca_file, timeout_seconds) as probes,
    ):
        sends: Route = SegmentRoute(traffic=traffic, endpoint=endpoint, api_keys=api_keys)
        if in_batches:
            most = batch_size or BATCH_MESSAGES
            sends = BatchRoute(traffic=traffic, endpoint=endpoint, api_keys=api_keys, most_messages=most)
        sender = Sender(
            traffic,
            endpoint,
            sends,
            concurrency=concurrency,
            rate=rate,
            time_scale=time_scale,
            is_stored=_reader(target),
            is_queue=target.stores.event_sink == "sqs",
        )
        circumstances = Circumstances(
            has_faults=target.has_faults,
            timeout_seconds=timeout_seconds,
            is_table=target.stores.event_sink != "sqs",
            in_batches=in_batches,
            may_have_sent=may_have_sent,
        )
        play = Play(
            target,
            traffic,
            sender,
            circumstances=circumstances,
            probes=probes,
            api_keys=api_keys,
            messages=messages,
            duplicates=duplicates,
            reorder=reorder,
        )
        findings = play.run(contacts=contacts)
    run = Run(
        url=endpoint_url,
        seed=seed,
        customers=customers,
        ledger=sender.ledger,
        findings=findings,
        in_batches=in_batches,
        set_pieces=len(traffic.pieces),
    )
    if as_json:
        click.echo(json.dumps(run.to_json(), indent=2))
    else:
        console = stdout()
        console.print(run.picture(console.width))
    if findings.unreadable:
        is_table = target.stores.event_sink != "sqs"
        again = f"; the same options with --seed {seed} send and compare all of it again" if is_table else ""
        raise click.ClickException(f"What is stored can't be read{again}: {findings.unreadable}")
    if findings.failed:
        raise click.exceptions.Exit(1)


def _simulate_shop(
    target: Target,
    url: str,
    authority: str | None,
    *,
    messages: int,
    seed: int | None,
    rate: float | None,
    as_json: bool,
) -> None:
    """Send the traffic of a shop, and say what became of it; exits with 1 if a request failed."""
    random = Random(seed)  # noqa: S311 -- to be repeatable, not secret
    with _temporary_keys(target, [friendly.CUSTOMER]) as [api_key], progress("Sending", total=messages) as step:
        try:
            counts = friendly.send_shop_traffic(
                url, api_key, ca_file=authority, messages=messages, random=random, rate=rate, step=step
            )
        except urllib3.exceptions.HTTPError as error:
            raise click.ClickException(f"{url} does not answer: {error}") from error
    if as_json:
        click.echo(json.dumps({"sent": counts.total(), "customer_id": friendly.CUSTOMER, **counts}))
    else:
        words = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
        click.echo(f"Sent {counted(counts.total(), 'message')} of customer {friendly.CUSTOMER}: {words}.")
        click.echo(f"To see them: destination messages list --customer {friendly.CUSTOMER}", err=True)
    if counts["failed"]:
        raise click.exceptions.Exit(1)


def _reader(target: Target) -> IsStored | None:
    """Return a function that looks an item up in the event table; None for a queue, which can't be asked."""
    if target.stores.event_sink == "sqs":
        return None
    client, table = target.account.dynamodb(), target.stores.event_table

    async def read(subject: str, position: str) -> bool:
        try:
            return await asyncio.to_thread(is_stored, client, table, subject, position)
        except STORE_ERRORS:
            return True  # a store that can't be read is a matter of the reconciliation at the end

    return read


def _check_stores(stores: Stores, *, deletes: bool, contacts: bool) -> list[str]:
    """Return the call types that are mixed at random; raises `click.ClickException` where a run would tell nothing."""
    call_types = stores.supported_call_types.split(",")
    if stores.event_sink == "sqs":
        if stores.consumer == "on":
            raise click.ClickException(
                "The consumer of this deployment takes from the queue what the simulation is to find there: deploy it "
                "with Consumer=off; on this machine `destination serve --parameter EventSink=sqs --parameter "
                "Consumer=off`"
            )
        if deletes or contacts:
            raise click.UsageError("--deletes and --contacts need a deployment with EventSink=dynamodb")
        return call_types
    if contacts and stores.consumer != "on":
        raise click.ClickException(
            "--contacts compares what the consumer keeps, and it is off: deploy with Consumer=on"
        )
    if deletes and DELETE not in call_types:
        raise click.ClickException("--deletes needs a deployment that supports delete calls (SupportedCallTypes)")
    mixed = [call_type for call_type in call_types if call_type != DELETE]
    if not mixed:
        raise click.ClickException("This deployment supports delete calls only: there is nothing that they can erase")
    return mixed


def _target(url: str | None, stores: str | None, stack: str | None, ca_file: str | None) -> tuple[Target, str]:
    """Return the stores to reconcile with, and the URL to post to."""
    if stack and stores:
        raise click.UsageError("--stores and --stack exclude each other")
    if stack:
        target = stack_target(stack)
        outputs = {} if url else stack_outputs(target.account.cloudformation(), stack)
        if not url and "EndpointUrl" not in outputs:
            raise click.ClickException(f"The stack {stack} has no output EndpointUrl: name its endpoint with --url")
        return target, parse_endpoint(url or outputs["EndpointUrl"])
    endpoint_url = parse_endpoint(url or LOCAL_URL)
    try:
        return local_target(stores or urljoin(endpoint_url, "/")), endpoint_url
    except click.ClickException as error:
        if url is None or stores is not None:
            raise
        # What is down can't tell what it is.
        _reachable_endpoint(endpoint_url, ca_file, timeout_seconds=SEGMENT_TIMEOUT_SECONDS)
        raise click.ClickException(
            f"{endpoint_url} is no local server: name the one whose stores it writes to with --stores, or a --stack"
        ) from error


def _reachable_endpoint(url: str, ca_file: str | None, *, timeout_seconds: float) -> Endpoint:
    """Return a client for a URL that answers; what comes later is the sender's business."""
    if ca_file and not url.startswith("https:"):
        raise click.UsageError(f"--ca-file is for https, and {url} has no certificate")
    authority = trusted_authority(url, ca_file)
    try:
        endpoint = Endpoint(url, ca_file=authority, timeout_seconds=timeout_seconds)
    except ssl.SSLError as error:
        raise click.ClickException(f"{authority} holds no certificate of an authority: {error}") from error
    try:
        asyncio.run(endpoint.try_connection())
    except OSError as error:
        raise click.ClickException(f"{url} does not answer: {error or 'it takes too long'}") from error
    return endpoint


@contextmanager
def _key_probes(
    target: Target, traffic: Traffic, url: str, ca_file: str | None, timeout_seconds: float
) -> Iterator[KeyProbes | None]:
    """Make keys that must not be accepted, for a run that has set pieces, and remove just those at the end.

    A key is revoked in use on a local server only: a stack may accept it for KeyCacheSeconds, and a run may be short.
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
def _temporary_keys(target: Target, customer_ids: Sequence[str]) -> Iterator[list[str]]:
    """Make an API key for each customer, and remove just those at the end."""
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
