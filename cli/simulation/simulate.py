"""`destination simulate`: Segment's side of delivery, played faithfully, and then the question whether all is there."""

import asyncio
import json
import math
import secrets
import ssl
import sys
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.console import stdout
from cli.key_table import KeyRecord, KeyTable
from cli.ping import parse_endpoint, trusted_authority
from cli.simulation.deliver import Endpoint, Ledger, Segment
from cli.simulation.fingerprint import Fingerprint
from cli.simulation.reconcile import QueueDrain, read_table, reconcile
from cli.simulation.report import Run
from cli.simulation.traffic import Traffic, sendings
from cli.stack import stack_outputs
from cli.target import LOCAL_URL, Target, local_target, stack_target
from handler.errors import STORE_ERRORS
from handler.keys import new_key

KEY_LIFETIME = timedelta(days=7)
"""Of the temporary keys, should the run be killed before it removes them; longer than any run."""
MAX_SEED = 10**9
PROGRESS_SECONDS = 0.1
DRAIN_PAUSE_SECONDS = 0.2
FIFO_MEMORY_SECONDS = 5 * 60
"""For how long a FIFO queue knows a message again,
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html
"""


class _FiniteRange(click.FloatRange):
    """Refuses infinity too, and what is no number, of which `click.FloatRange` takes both."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 -- click's
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


SHARE = _FiniteRange(0, 1)


@click.command()
@click.option("--messages", default=1000, show_default=True, type=click.IntRange(1), help="How many to send.")
@click.option("--customers", default=10, show_default=True, type=click.IntRange(1, 1000), help="Of how many customers.")
@click.option("--seed", type=click.IntRange(0), help="The same seed sends the same messages; by chance without it.")
@click.option("--rate", type=_FiniteRange(0, min_open=True), help="Deliveries begun per second; else all it takes.")
@click.option("--concurrency", default=16, show_default=True, type=click.IntRange(1, 1000), help="Requests at once.")
@click.option("--duplicates", default=0.0, type=SHARE, help="Share of messages that are sent twice.")
@click.option("--reorder", default=0.0, type=SHARE, help="Share of messages that come too late.")
@click.option("--replays", default=0.0, type=SHARE, help="Share of messages that are replays of years ago.")
@click.option("--invalid", default=0.0, type=SHARE, help="Share of messages that must be refused.")
@click.option(
    "--time-scale",
    default=240.0,
    show_default=True,
    type=_FiniteRange(1),
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
    messages: int,
    customers: int,
    seed: int | None,
    rate: float | None,
    concurrency: int,
    duplicates: float,
    reorder: float,
    replays: float,
    invalid: float,
    time_scale: float,
    url: str | None,
    stores: str | None,
    stack: str | None,
    ca_file: str | None,
    as_json: bool,
) -> None:
    """Deliver messages as Segment does, with retries, and compare what was sent with what is stored.

    It makes API keys for customers of its own and removes them at the end; what they sent stays stored. With a queue,
    it takes their messages from it. Exits with 1 when a message was lost, stored twice or otherwise, or judged
    wrongly. Control-C ends it with a reconciliation of what was sent so far.

    \b
    Example:
      destination simulate --messages 20000 --customers 10 --duplicates 0.05
    """
    target, endpoint_url = _target(url, stores, stack, ca_file)
    endpoint = _reachable_endpoint(endpoint_url, ca_file)
    may_have_sent = seed is not None
    seed = secrets.randbelow(MAX_SEED) if seed is None else seed
    call_types = target.stores.supported_call_types.split(",")
    traffic = Traffic(seed=seed, customers=customers, call_types=call_types, replays=replays, invalid=invalid)
    with _temporary_keys(target, traffic.customer_ids) as api_keys:
        segment = Segment(traffic, endpoint, api_keys, concurrency=concurrency, rate=rate, time_scale=time_scale)
        order = sendings(messages=messages, seed=seed, duplicates=duplicates, reorder=reorder)
        ledger = segment.ledger
        drain = _drain(target, traffic)
        beside = [_show_progress(ledger, expected=round(messages * (1 + duplicates)))]
        if drain and target.is_local:
            beside.append(_drain_beside(drain))
        interrupted = False
        try:
            asyncio.run(_deliver(segment.deliver(order), beside))
        except KeyboardInterrupt:
            interrupted = True
        unreadable = result = None
        try:
            with _on_terminal().status("Reading what is stored …"):
                stored = _read(target, drain, ledger, traffic)
        except STORE_ERRORS as error:
            unreadable = error
        else:
            result = reconcile(
                ledger,
                stored,
                may_double=drain is not None and (not drain.is_fifo or ledger.tries.seconds > FIFO_MEMORY_SECONDS),
                may_have_sent=may_have_sent,
                others_seen=drain.others_seen if drain else 0,
            )
    run = Run(url=endpoint_url, seed=seed, customers=customers, ledger=ledger, result=result, interrupted=interrupted)
    if as_json:
        click.echo(json.dumps(run.to_json(), indent=2))
    else:
        console = stdout()
        console.print(run.picture(console.width))
    if result is None:
        again = "" if drain else f"; the same options with --seed {seed} send and compare all of it again"
        raise click.ClickException(f"What is stored can't be read{again}: {unreadable}") from unreadable
    if result.failed:
        raise click.exceptions.Exit(1)


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
        _reachable_endpoint(endpoint_url, ca_file)  # what is down can't tell what it is
        raise click.ClickException(
            f"{endpoint_url} is no local server: name the one whose stores it writes to with --stores, or a --stack"
        ) from error


def _reachable_endpoint(url: str, ca_file: str | None) -> Endpoint:
    """Return a client for a URL that answers; what comes later is Segment's business."""
    if ca_file and not url.startswith("https:"):
        raise click.UsageError(f"--ca-file is for https, and {url} has no certificate")
    authority = trusted_authority(url, ca_file)
    try:
        endpoint = Endpoint(url, ca_file=authority)
    except ssl.SSLError as error:
        raise click.ClickException(f"{authority} holds no certificate of an authority: {error}") from error
    try:
        asyncio.run(endpoint.try_connection())
    except OSError as error:
        raise click.ClickException(f"{url} does not answer: {error or 'it takes too long'}") from error
    return endpoint


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
        try:
            for record in records:
                client.delete_item(TableName=target.stores.key_table, Key={"key_hash": {"S": record.key_hash}})
        except STORE_ERRORS as error:
            click.echo(f"The keys of {customer_ids[0]} and on could not be removed; they expire: {error}", err=True)


def _on_terminal() -> Console:
    """Return a console for what passes: nothing of it goes into a file."""
    return Console(stderr=True, quiet=not sys.stderr.isatty())


async def _deliver(deliveries: Coroutine[Any, Any, None], beside: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Make deliveries, and do other things for as long as that takes."""
    tasks = [asyncio.create_task(work) for work in beside]
    try:
        await deliveries
    finally:
        for task in tasks:
            task.cancel()


async def _show_progress(ledger: Ledger, *, expected: int) -> None:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = _on_terminal()
    with Progress(*columns, console=console, transient=True, disable=console.quiet) as progress:
        task = progress.add_task("", total=expected)
        while True:
            waiting = f"{ledger.begun - ledger.finished:,} under way or waiting, {ledger.retries:,} retries"
            progress.update(
                task, completed=ledger.finished, total=max(expected, ledger.begun), description=waiting
            )  # fmt: skip
            await asyncio.sleep(PROGRESS_SECONDS)


def _read(target: Target, drain: QueueDrain | None, ledger: Ledger, traffic: Traffic) -> Counter[Fingerprint]:
    """Read what is stored of the messages; raises `STORE_ERRORS`."""
    if drain:
        return drain.finish(ledger.messages.keys())
    return read_table(target, subjects=ledger.subjects, customer_ids=traffic.customer_ids)


def _drain(target: Target, traffic: Traffic) -> QueueDrain | None:
    """Return what takes the messages from the queue, None where they go to the table."""
    if target.stores.event_sink != "sqs":
        return None
    return QueueDrain(
        target.account.sqs(),
        target.stores.event_queue_url,
        frozenset(traffic.customer_ids),
        forgets=target.is_local,
    )


async def _drain_beside(drain: QueueDrain) -> None:
    """Take messages while they come: an embedded AWS slows down with each one that waits in its queue."""
    while True:
        more = False
        with suppress(*STORE_ERRORS):  # a store that is out of order is a matter of the reconciliation at the end
            more = await asyncio.to_thread(drain.take)
        await asyncio.sleep(0 if more else DRAIN_PAUSE_SECONDS)
