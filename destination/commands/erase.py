"""`destination erase`: erase a user like a `delete` call, or show what an erasure would delete."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import click

from consumer.erasure.subject import Scope
from consumer.erasure.table import Receipt
from consumer.runtime.stored import Item
from destination.commands.options import ID, confirm, json_option, parse_person, same_target, target_options, yes_option
from destination.console import Rows, counted, printable, progress, stdout
from destination.deployment.erasure import (
    Linked,
    Person,
    StoredCounts,
    linked_ids,
    request_erasure,
    stored_under,
    wait_for_receipt,
)
from destination.deployment.target import Target

QUEUE_NOTE = "\nMessages in the queue, and the data of its readers, are not erased: the queue can't be searched."
CONSUMER_NOTE = "\nThe consumer gets the delete message too. The receipt does not cover the consumer's data."


@click.command()
@click.option("--customer", "customer_id", type=ID, help="The customer's id; on a local server the default is `demo`.")
@click.option("--user", type=ID, help="The user id.")
@click.option("--anonymous", type=ID, help="The anonymous id of a visitor, instead of a user.")
@click.option("--dry-run", is_flag=True, help="Only show what is stored, and under which other ids.")
@yes_option()
@click.option(
    "--wait",
    "wait_seconds",
    default=300,
    show_default=True,
    type=click.IntRange(0),
    help="Seconds to wait for the receipt.",
)
@json_option("Print one JSON object, for programs.")
@target_options
def erase(
    *,
    target: Target,
    customer_id: str | None,
    user: str | None,
    anonymous: str | None,
    dry_run: bool,
    yes: bool,
    wait_seconds: int,
    as_json: bool,
) -> None:
    """Erase everything that is stored of a user.

    Like a delete call from Segment, it stores a delete message, which the deployment's eraser carries out. Then it
    waits for the receipt. Exits with 1 if the receipt does not arrive in time; the erasure continues.

    \b
    Example:
      destination erase --customer acme --user 97980cfea0067 --dry-run
    """
    person = parse_person(target, customer_id, user, anonymous)
    if dry_run:
        stored, linked = stored_under(target, person.subject), linked_ids(target, person, _tell_unread)
        _tell_stored(person, stored, linked, Scope(target.stores.erasure_scope), as_json=as_json)
        return
    if not yes:
        stored = stored_under(target, person.subject)
        question = f"Erase {_both(stored)} of {person} permanently?"
        confirm(question)
    request = request_erasure(target, person)
    with progress("Erasing") as step:
        receipt = wait_for_receipt(target, request, wait_seconds, step)
    if receipt is None:
        raise click.ClickException(
            f"Requested, but not finished after {wait_seconds} s: `destination erasures show "
            f"{request.user_hash[:12]}{same_target()}` shows its progress. Is the eraser running?"
        )
    if as_json:
        click.echo(json.dumps(receipt.to_json()))
    else:
        click.echo(
            f"Erased {_both(receipt)} of {person}"
            + (
                f", and {counted(receipt.linked_messages, 'message')} under linked ids"
                if receipt.linked_messages
                else ""
            )
            + ".\nTo see the receipt, run: destination erasures show "
            + f"{receipt.user_hash[:12]} --customer {shlex.quote(printable(person.customer_id))}{same_target()}"
            + ("" if target.stores.sink.is_queryable else QUEUE_NOTE)
            + (CONSUMER_NOTE if target.stores.consumer == "on" else "")
        )


def _both(counts: StoredCounts | Receipt) -> str:
    return f"{counted(counts.messages, 'message')} and {counted(counts.rejects, 'reject')}"


def _tell_unread(key: Item) -> None:
    position = printable(key["position"]["S"])
    click.echo(f"This item can't be read, so its linked ids are unknown: {position}", err=True)


def _tell_stored(
    person: Person, stored: StoredCounts, linked: Iterable[Linked], scope: Scope, *, as_json: bool
) -> None:
    if as_json:
        documents: list[dict[str, Any]] = [{**one.link._asdict(), **asdict(one.stored)} for one in linked]
        click.echo(json.dumps({**asdict(stored), "scope": scope, "linked": documents}))
        return
    click.echo(f"Stored of {person}: {counted(stored.messages, 'message')}, {counted(stored.rejects, 'reject')}.")
    if stored.requests:
        click.echo(f"Not carried out yet: {stored.requests:,} delete messages.")
    rows = Rows("Linked id", "Named as", "Messages", "Rejects", "As a user", right=(2, 3, 4), folded=(0,))
    by_id: dict[str, dict[str, StoredCounts]] = defaultdict(dict)
    for one in linked:
        by_id[one.link.id][one.link.kind] = one.stored
    for link_id, found in by_id.items():
        as_user = found.pop("user", None)
        visitor = next(iter(found.values()), StoredCounts(messages=0, requests=0, rejects=0))
        users = f"{as_user.messages + as_user.rejects:,}" if as_user else ""
        rows.add_row(link_id, ", ".join(found), f"{visitor.messages:,}", f"{visitor.rejects:,}", users)
    if rows.row_count:
        stdout().print(rows)
        then = "except users, is erased too" if scope is Scope.LINKED else "stays, unless you erase it separately"
        click.echo(f"With ErasureScope={scope}, what is stored under these {then}.")
