"""`destination messages`: show stored messages."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

import click

from destination.commands.options import ID, json_option, limit_option, target_options
from destination.console import Rows, counted, print_document, printable, progress, stdout
from destination.deployment import demo
from destination.deployment.event_table import Item, MessageSelection, describe, fetch_items, key_of, time_of, to_json
from destination.deployment.target import Target
from handler.items import read_json_attribute
from handler.record import subject_key

FOLLOW_SECONDS = 1.0
FOLLOW_SHARE = 10
"""The pause after a read of the table is at least this many times as long as the read: a large table is read rarely."""
MAX_FOLLOWED = 1000
"""The number of new messages between two polls that are found without a scan."""


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select messages to a command, and pass it the `selection`."""

    @click.option("--customer", "customer_id", type=ID, help="The customer's id.")
    @click.option("--user", type=ID, help="Messages of this user id.")
    @click.option("--anonymous", type=ID, help="Messages of this anonymous id without a user id.")
    @click.option("--scan", is_flag=True, help="Read the whole table; on a stack, the cost depends on its size.")
    @target_options
    @functools.wraps(command)
    def wrapped(
        *,
        target: Target,
        customer_id: str | None,
        user: str | None,
        anonymous: str | None,
        scan: bool,
        **options: Any,  # noqa: ANN401 -- click's options
    ) -> Any:  # noqa: ANN401 -- click's result
        if not target.stores.sink.is_queryable:
            raise click.ClickException(
                f"This deployment sends messages to a queue, {target.stores.event_store}: read them with a "
                "consumer, or look at some by `destination queue peek`"
            )
        subject = _subject(target, customer_id, user, anonymous)
        if subject is None and not scan and not target.is_local:
            raise click.UsageError("Name a --user or an --anonymous id, or use --scan to read the whole table")
        selection = MessageSelection(target=target, customer_id=customer_id, subject=subject, reads_all=scan)
        return command(selection=selection, **options)

    return wrapped


def _subject(target: Target, customer_id: str | None, user: str | None, anonymous: str | None) -> str | None:
    if user is not None and anonymous is not None:
        raise click.UsageError("--user and --anonymous exclude each other")
    subject_id = user or anonymous
    if subject_id is None:
        return None
    if customer_id is None and not target.is_local:
        raise click.UsageError("Name this user's customer with --customer")
    return subject_key(customer_id or demo.CUSTOMER, "user" if user else "anonymous", subject_id)


@click.group()
def messages() -> None:
    """Show stored messages."""


@messages.command(name="list")
@limit_option()
@click.option("--follow", is_flag=True, help="Continue to show new messages, oldest first.")
@json_option("Print a JSON object per line, for programs.")
@selection_options
def list_(*, selection: MessageSelection, limit: int, follow: bool, as_json: bool) -> None:
    """List stored messages, newest first.

    You can select those of a user or an anonymous id, of a customer, or of all customers. With --user, the default
    customer of a local server is `demo`. Without --user, a small table is read whole, and the messages with the latest
    time are listed. Of a large table on a local server, the messages that arrived last are listed; --scan reads it
    whole.

    \b
    Example:
      destination messages list --customer acme --user 97980cfea0067
    """
    if follow:
        with suppress(KeyboardInterrupt):  # Control-C is how it ends
            _follow(selection, limit, as_json=as_json)
        return
    latest = selection.latest(limit)
    everything = _read(selection) if latest is None else iter(latest)
    newest = sorted(itertools.islice(everything, limit), key=time_of, reverse=True)
    if as_json:
        for item in newest:
            click.echo(json.dumps(to_json(item)))
        return
    headings = ("Time (UTC)", "Customer", "Type", "Who", "What", "Message id")
    rows = Rows(*headings, whole=(5,), folded=(1, 3, 4), optional=(1, 3, 2, 4))
    for item in newest:
        rows.add_row(*_columns(item))
    stdout().print(rows)
    if latest is not None:
        click.echo(f"The latest arrivals: {counted(len(newest), 'message')}. --scan reads the whole table.", err=True)
    elif selection.subject is None:
        further = sum(1 for _ in everything)
        click.echo(
            f"Read the whole table; {len(newest):,} of {counted(len(newest) + further, 'message')} shown.", err=True
        )
    else:  # counting the rest would cost as much as showing it
        more = "; --limit shows more" if next(everything, None) is not None else ""
        click.echo(f"{counted(len(newest), 'message')} shown{more}.", err=True)


def _read(selection: MessageSelection) -> Iterator[Item]:
    """Return the selected items, newest first; a progress bar shows the read part of a whole table."""
    if selection.subject is not None:
        return selection.read()
    with progress("Messages read") as step:
        return selection.read(step)


def _follow(selection: MessageSelection, limit: int, *, as_json: bool) -> None:
    console = stdout()
    seen = set(selection.arrived(MAX_FOLLOWED))
    latest = selection.latest(limit)
    items = list(_read(selection)) if latest is None else latest
    fresh = items[:limit]
    next_read = 0.0
    while True:
        for item in sorted(fresh, key=time_of):
            if as_json:
                click.echo(json.dumps(to_json(item)))
            else:
                console.print(printable("  ".join(_columns(item))), soft_wrap=True)
        seen.update(map(key_of, items))
        sleep(FOLLOW_SECONDS)
        items = list(fetch_items(selection.target, [key for key in selection.arrived(MAX_FOLLOWED) if key not in seen]))
        if latest is None and monotonic() >= next_read:
            began = monotonic()
            items = list(_read(selection))
            next_read = monotonic() + FOLLOW_SHARE * (monotonic() - began)
        fresh = [item for item in items if key_of(item) not in seen]


@messages.command()
@click.argument("message_id")
@json_option("Print one JSON object, for programs.")
@selection_options
def show(*, selection: MessageSelection, message_id: str, as_json: bool) -> None:
    """Show one whole stored message, by its id.

    \b
    Example:
      destination messages show ajs-next-1700000000000-17e0 --customer acme --user 97980cfea0067
    """
    for item in selection.latest(1, message_id) or _read(selection):
        if item["message_id"]["S"] == message_id:
            if as_json:
                click.echo(json.dumps(to_json(item)))
            else:
                print_document(to_json(item))
            return
    raise click.ClickException(f"No stored message has the id {message_id} here")


@messages.command()
@selection_options
def export(*, selection: MessageSelection) -> None:
    """Print stored messages for `destination import`.

    Each line is one message, as JSON. The messages of one customer have no particular order, and no settings.

    \b
    Example:
      destination messages export --stack direct-destination --customer acme --scan > acme.jsonl
    """
    if selection.customer_id is None and selection.subject is None:
        raise click.UsageError(
            "Name the --customer: exported messages don't contain it, because an import gets it from the API key"
        )
    count = 0
    for item in selection.stream():
        click.echo(json.dumps(read_json_attribute(item["message"])))
        count += 1
    click.echo(f"{counted(count, 'message')}.", err=True)


def _columns(item: Item) -> tuple[str, ...]:
    def text(name: str) -> str:
        return str(item.get(name, {"S": ""})["S"])

    message = read_json_attribute(item["message"])
    who = text("user_id") or text("anonymous_id")
    time = text("timestamp").replace("T", " ")[: len("2020-05-09 23:54:49.200")]
    return time, text("customer_id"), text("type"), who, describe(message), text("message_id")
