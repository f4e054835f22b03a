"""`destination erasures`: show the receipts of erasures, and resume unfinished ones."""

import json
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import click

from consumer.erasure.table import Receipt
from destination.commands.options import (
    ID,
    confirm,
    json_option,
    limit_option,
    parse_person,
    same_target,
    target_options,
    yes_option,
)
from destination.console import Rows, counted, printable, progress, stdout
from destination.deployment.erasure import (
    done_later,
    erasures_of,
    is_receipt_of,
    request_erasure,
    waiting_deletes,
)
from destination.deployment.target import Target
from handler.record import sha256
from handler.timestamps import sortable

SHOWN_HASH_CHARS = 12
MAX_MINUTES = 10 * 365 * 24 * 60


@click.group()
def erasures() -> None:
    """Show receipts of erasures, and resume unfinished ones."""


@erasures.command(name="list")
@click.option("--customer", "customer_id", type=ID, help="The customer's id.")
@click.option("--unfinished", is_flag=True, help="Only unfinished ones, and those that were given up.")
@limit_option()
@click.option("--scan", is_flag=True, help="Receipts of all customers: reads the whole erasure table.")
@json_option("Print a JSON object per line, for programs.")
@target_options
def list_(*, target: Target, customer_id: str | None, unfinished: bool, limit: int, scan: bool, as_json: bool) -> None:
    """List receipts, newest first: of a customer, or of all.

    \b
    Example:
      destination erasures list --customer acme
    """
    if customer_id is None and not scan and not target.is_local:
        raise click.UsageError("Name a --customer, or use --scan to read the whole table")
    table = erasures_of(target)
    found = table.everything() if customer_id is None else table.receipts(customer_id)
    receipts = _newest_first(found)
    done = done_later(receipts)
    if unfinished:
        receipts = [receipt for receipt in receipts if not receipt.finished_at and receipt not in done]
    if as_json:
        for receipt in receipts[:limit]:
            click.echo(json.dumps(receipt.to_json()))
        return
    rows = Rows("Requested (UTC)", "Customer", "User hash", "Messages", "Rejects", "Linked", "Finished", folded=(1, 2))
    for receipt in receipts[:limit]:
        rows.add_row(*_columns(receipt, is_done_later=receipt in done))
    stdout().print(rows)
    more = "; --limit shows more" if len(receipts) > limit else ""
    click.echo(f"{min(limit, len(receipts)):,} of {counted(len(receipts), 'receipt')}{more}.", err=True)


def _newest_first(receipts: Iterable[Receipt]) -> list[Receipt]:
    return sorted(receipts, key=lambda receipt: (receipt.requested_at, receipt.user_hash), reverse=True)


def _columns(receipt: Receipt, *, is_done_later: bool) -> tuple[str, ...]:
    def moment(time: str) -> str:
        return time.replace("T", " ")[: len("2020-05-09 23:54:49")]

    return (
        moment(receipt.requested_at),
        receipt.customer_id,
        receipt.user_hash[:SHOWN_HASH_CHARS],
        f"{receipt.messages:,}",
        f"{receipt.rejects:,}",
        f"{receipt.linked_messages + receipt.linked_rejects:,}",
        moment(receipt.finished_at) or ("by a later one" if is_done_later else "under way"),
    )


@erasures.command()
@click.argument("who", metavar="[ID]", required=False, type=ID)
@click.option(
    "--customer", "customer_id", type=ID, help="The customer's id. A local server looks for all customers without it."
)
@click.option("--user", type=ID, help="A user id instead of ID.")
@click.option("--anonymous", type=ID, help="An anonymous id instead of ID.")
@click.option("--proof", is_flag=True, help="Also show how to compute the hash of a --user or --anonymous id.")
@json_option("The output is JSON anyway.")
@target_options
def show(
    *,
    target: Target,
    who: str | None,
    customer_id: str | None,
    user: str | None,
    anonymous: str | None,
    proof: bool,
    as_json: bool,  # noqa: ARG001 -- it is JSON anyway
) -> None:
    """Show all receipts of one user, as JSON.

    ID is the user's id, an anonymous id, the hash of the user, or at least the first 4 digits of that.

    \b
    Example:
      destination erasures show 97980cfea0067 --customer acme
    """
    if proof and who is not None:
        raise click.UsageError("--proof needs a --user or an --anonymous id, because the hash depends on which it is")
    if who is None:
        person = parse_person(target, customer_id, user, anonymous)
        if proof:
            click.echo(_proof(person.subject), err=True)
        customer_id, who = person.customer_id, sha256(person.subject)
    elif user or anonymous:
        raise click.UsageError("Give an ID, or a --user or --anonymous id, and not both")
    elif customer_id is None and not target.is_local:
        raise click.UsageError("Name this user's customer with --customer")
    table = erasures_of(target)
    found = table.everything() if customer_id is None else table.receipts(customer_id)
    receipts = _newest_first(receipt for receipt in found if is_receipt_of(receipt, who))
    if not receipts:
        raise click.ClickException(
            f"There is no receipt for {printable(who)} here: nobody requested an erasure, or it has not begun"
        )
    click.echo(json.dumps([receipt.to_json() for receipt in receipts], indent=2))


def _proof(subject: str) -> str:
    """Return sentences that prove to an auditor whose receipts these are: they have only a hash of the subject."""
    return (
        f"The receipts name this person as user_hash {sha256(subject)}.\n"
        f"Anyone can compute it: printf %s {shlex.quote(printable(subject))} | sha256sum"
    )


@erasures.command()
@click.option(
    "--older-than",
    default=60,
    show_default=True,
    type=click.IntRange(0, MAX_MINUTES),
    metavar="MINUTES",
    help="Only requests that are at least this old.",
)
@click.option("--scan", is_flag=True, help="Read the whole event table; on a stack, the cost depends on its size.")
@yes_option()
@json_option("Print one JSON object, for programs.")
@target_options
def resume(*, target: Target, older_than: int, scan: bool, yes: bool, as_json: bool) -> None:
    """Request unfinished erasures again.

    An erasure deletes its delete message last. So a delete message that is still stored belongs to an unfinished
    erasure, or to one that failed and ended in the dead-letter queue.

    \b
    Example:
      destination erasures resume --stack direct-destination --scan
    """
    if not scan and not target.is_local:
        raise click.UsageError("Use --scan to read the whole event table, which has the unfinished requests")
    limit = sortable(datetime.now(UTC) - timedelta(minutes=older_than))
    people = dict(waiting_deletes(target, limit))
    if people and not yes:
        confirm(f"Request {counted(len(people), 'erasure')} again?")
    with progress("Requesting", total=len(people)) as step:
        for person, happened_at in people.items():
            request_erasure(target, person, happened_at=happened_at)
            step()
    if as_json:
        click.echo(json.dumps({"requested": len(people)}))
    elif not people:
        click.echo(
            f"Nothing to resume: no delete message has been stored for longer than {counted(older_than, 'minute')}."
        )
    else:
        click.echo(
            f"Requested {counted(len(people), 'erasure')} again. To see when they are finished, run: "
            f"destination erasures list{same_target()}"
        )
