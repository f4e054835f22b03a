"""`destination replay`: pass stored messages to the consumer again, through the event queue.

The queue's consumer calls the same `consumer/handle.py`, with its retries and dead letters.
"""

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import click

from destination.commands.options import ID, Parsed, confirm, json_option, target_options, yes_option
from destination.console import counted, printable
from destination.deployment import demo
from destination.deployment.replay import TIMES, ReplayRange, ReplayState, replay_pages, resumed, state_path
from destination.deployment.target import Target
from handler.errors import EventStoreUnavailable
from handler.record import subject_key
from handler.timestamps import parse_time, sortable


def _parse_time(text: str) -> str:
    moment = parse_time(text)
    if moment is None:
        raise ValueError(f"{text} is not a time: write 2026-03-12 or 2026-03-12T09:30:00Z")
    return moment


TIME = Parsed("time", _parse_time)


@click.command()
@click.option("--from", "start", type=TIME, help="The first time: 2026-03-12 or 2026-03-12T09:30:00Z (UTC).")
@click.option("--to", "end", type=TIME, help="The time before which it ends; by default now.")
@click.option(
    "--by",
    type=click.Choice([*TIMES]),
    default="stored",
    show_default=True,
    help="Which time counts: when a message was stored, or when it happened.",
)
@click.option("--customer", "customer_id", type=ID, help="Only messages of this customer.")
@click.option(
    "--user",
    type=ID,
    help="Only messages of this user, without a scan; on a local server the default customer is `demo`.",
)
@click.option("--rate", type=click.FloatRange(0.001, 1e6), help="Maximum of messages per second.")
@click.option("--restart", is_flag=True, help="Start from the beginning, although an earlier run was interrupted.")
@click.option(
    "--state",
    "state_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file for the progress; by default one in .local/ for exactly these options.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
@yes_option("Don't ask for confirmation, even for all messages of a stack.")
@json_option("Print one JSON object, for programs.")
@target_options
def replay(
    *,
    target: Target,
    start: str | None,
    end: str | None,
    by: str,
    customer_id: str | None,
    user: str | None,
    rate: float | None,
    restart: bool,
    state_file: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Pass stored messages to the consumer again.

    Use it after you corrected the consumer, or for a new consumer. Messages go to the event queue, from which the
    consumer receives them. It reads the whole event table, unless you name a --user, and asks for confirmation before
    it replays all messages of a stack. Run the same command again to continue after an interruption. Exits with 1 if a
    message does not fit into the queue or can't be read.

    \b
    Example:
      destination replay --customer acme --from 2026-03-01 --to 2026-04-01
    """
    if target.stores.consumer != "on":
        raise click.ClickException(
            "This deployment has Consumer=off: nothing would receive the messages from the queue"
        )
    if user is not None and customer_id is None:
        if not target.is_local:
            raise click.UsageError("Name this user's customer with --customer")
        customer_id = demo.CUSTOMER
    if rate is not None and not math.isfinite(rate):
        raise click.UsageError(f"--rate {rate} is not a number")
    _ask_unless(yes or dry_run or target.is_local or start or end or customer_id)
    subject = subject_key(customer_id, "user", user) if user is not None and customer_id is not None else None
    path = state_file or state_path(target, start, end, by, customer_id, user)
    now = sortable(datetime.now(UTC))
    state = ReplayState(
        history=ReplayRange(by=by, start=start, end=end or now, customer_id=customer_id, subject=subject)
    )
    if not dry_run:
        state = state if restart else resumed(state, path)
        state.save(path)
    try:
        for reached in replay_pages(target, state, rate=rate, dry_run=dry_run):
            state = reached
            if not dry_run:
                state.save(path)
    except EventStoreUnavailable as error:
        raise click.ClickException(
            f"AWS answered: {error.__cause__ or error}. "
            f"{counted(state.queued, 'message')} queued so far; run the same command again to continue"
        ) from error
    if not dry_run:
        path.unlink(missing_ok=True)
    _tell(state, as_json=as_json, dry_run=dry_run)


def _ask_unless(chosen: object) -> None:
    """Ask for confirmation if everything is selected; raises `click.Abort`."""
    if not chosen:
        confirm("Pass all messages of all customers to the consumer again?")


def _tell(state: ReplayState, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "read": state.read,
                    "queued": state.queued,
                    "too_large": state.too_large,
                    "unreadable": state.unreadable,
                    "dry_run": dry_run,
                }
            )
        )
    else:
        would = "Would queue" if dry_run else "Queued"
        click.echo(f"{would} {counted(state.queued, 'message')} for the consumer; read {counted(state.read, 'item')}.")
        for message_id in state.too_large:
            click.echo(f"Too large for the queue: {printable(message_id)}", err=True)
        for message_id in state.unreadable:
            click.echo(f"Can't be read: {printable(message_id)}", err=True)
    if state.too_large or state.unreadable:
        raise click.exceptions.Exit(1)
