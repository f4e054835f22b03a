"""`destination simulate`: deliver messages exactly as Segment does, and check that everything is stored."""

import json
import secrets
from random import Random
from urllib.parse import urljoin

import click
import urllib3

from destination.commands.options import FiniteRange, ca_file_option, json_option, parse_endpoint
from destination.console import counted, progress, stdout
from destination.deployment.stack import stack_outputs
from destination.deployment.target import LOCAL_URL, Target, local_target, stack_target, trusted_authority
from destination.paths import ROOT
from destination.segment.client import SEGMENT_TIMEOUT_SECONDS, deployment_url
from destination.segment.contract import BATCH_PATH, MAX_BATCH_MESSAGES
from destination.simulation import friendly
from destination.simulation.deliver import Sender
from destination.simulation.play import Play
from destination.simulation.reconcile import holds_some
from destination.simulation.replies import Circumstances
from destination.simulation.report import Run
from destination.simulation.required import required_fields
from destination.simulation.routes import (
    BATCH_MESSAGES,
    LIBRARY_TIMEOUT_SECONDS,
    BatchDelivery,
    Route,
    SegmentDelivery,
)
from destination.simulation.setup import check_stores, key_probes, reachable_endpoint, reader_of, temporary_keys
from destination.simulation.traffic import Traffic
from handler.errors import STORE_ERRORS

MAX_SEED = 10**9
SHARE = FiniteRange(0, 1)


@click.command()
@click.option(
    "--profile",
    type=click.Choice(("hostile", "friendly")),
    default="hostile",
    show_default=True,
    help="strict sends unusual messages and checks everything; friendly only sends realistic traffic of a small shop.",
)
@click.option("--messages", default=1000, show_default=True, type=click.IntRange(1), help="Number of messages to send.")
@click.option("--customers", default=10, show_default=True, type=click.IntRange(1, 1000), help="Number of customers.")
@click.option("--seed", type=click.IntRange(0), help="The same seed sends the same messages; random without it.")
@click.option("--rate", type=FiniteRange(0, min_open=True), help="Deliveries started per second; unlimited without it.")
@click.option(
    "--concurrency", default=16, show_default=True, type=click.IntRange(1, 1000), help="Number of concurrent requests."
)
@click.option("--duplicates", default=0.0, type=SHARE, help="Share of messages that are sent twice.")
@click.option("--deletes", default=0.0, type=SHARE, help="Share of the users who are erased towards the end.")
@click.option("--reorder", default=0.0, type=SHARE, help="Share of messages that arrive too late.")
@click.option("--replays", default=0.0, type=SHARE, help="Share of messages that are replays from years ago.")
@click.option("--invalid", default=0.0, type=SHARE, help="Share of messages that must be refused.")
@click.option(
    "--route",
    type=click.Choice(("segment", "batch")),
    default="segment",
    show_default=True,
    help="The route: /segment one by one, as Segment does, or /v1/batch, as its server libraries do.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, MAX_BATCH_MESSAGES),
    help=f"Maximum of messages in a batch; by default {BATCH_MESSAGES}, as in the libraries.",
)
@click.option("--contacts", is_flag=True, help="Also compare the contacts that the consumer keeps.")
@click.option(
    "--time-scale",
    default=240.0,
    show_default=True,
    type=FiniteRange(1),
    help="How much faster time runs between tries: 240 makes four hours of retries one minute.",
)
@click.option("--url", help=f"The endpoint: {LOCAL_URL}, or the stack's own.")
@click.option(
    "--stores", metavar="URL", help="The local server whose stores --url writes to, if --url is another server."
)
@click.option("--stack", help="A CloudFormation stack, with your own AWS credentials.")
@ca_file_option
@json_option("Print JSON, for programs.")
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

    It retries as Segment or its server libraries do, and compares the sent messages with the stored ones. It creates
    API keys for customers of its own and removes them at the end; their messages stay stored. With a queue, it receives
    and deletes their messages.

    Exits with 1 if a message was lost, stored twice or with other content, or judged wrongly. The same holds if a user
    was not erased, if a contact is wrong, or if any other promise of docs/how-to/simulate.md was broken. It names the
    message, the expected result and the actual one.

    Control-C ends it with a reconciliation of the messages that were sent so far.

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
        raise click.UsageError("--batch-size needs --route batch")
    target, endpoint_url = _target(url, stores, stack, ca_file)
    if in_batches:
        endpoint_url = deployment_url(endpoint_url) + BATCH_PATH
    call_types = check_stores(target.stores, deletes=deletes > 0, contacts=contacts)
    timeout_seconds = LIBRARY_TIMEOUT_SECONDS if in_batches else SEGMENT_TIMEOUT_SECONDS
    endpoint = reachable_endpoint(endpoint_url, ca_file, timeout_seconds=timeout_seconds)
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
        may_have_sent = is_seed_given  # unreadable stores are reported at the end
    with (
        temporary_keys(target, traffic.customer_ids) as api_keys,
        key_probes(target, traffic, endpoint_url, ca_file, timeout_seconds) as probes,
    ):
        sends: Route = SegmentDelivery(traffic=traffic, endpoint=endpoint, api_keys=api_keys)
        if in_batches:
            most = batch_size or BATCH_MESSAGES
            sends = BatchDelivery(traffic=traffic, endpoint=endpoint, api_keys=api_keys, most_messages=most)
        sender = Sender(
            traffic,
            endpoint,
            sends,
            concurrency=concurrency,
            rate=rate,
            time_scale=time_scale,
            is_stored=reader_of(target),
            is_queue=not target.stores.sink.deduplicates,
        )
        circumstances = Circumstances(
            has_faults=target.has_faults,
            timeout_seconds=timeout_seconds,
            is_table=target.stores.sink.deduplicates,
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
        is_table = target.stores.sink.is_queryable
        again = f"; the same options with --seed {seed} send and compare all of it again" if is_table else ""
        raise click.ClickException(f"The stores can't be read{again}: {findings.unreadable}")
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
    """Send the traffic of a shop, and print the outcomes; exits with 1 if a request failed."""
    random = Random(seed)  # noqa: S311 -- repeatable, not secret
    with temporary_keys(target, [friendly.CUSTOMER]) as [api_key], progress("Sending", total=messages) as step:
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
    if counts["failed"]:
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
        # A server that is down can't say what it is.
        reachable_endpoint(endpoint_url, ca_file, timeout_seconds=SEGMENT_TIMEOUT_SECONDS)
        raise click.ClickException(
            f"{endpoint_url} is not a local server: name the local server that has its stores with --stores, or a "
            "--stack"
        ) from error
