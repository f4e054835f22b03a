"""`destination contacts`: show the contacts that the example consumer keeps."""

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from consumer.contacts.contact import Profile
from consumer.contacts.table import ContactTable
from destination.commands.options import ID, json_option, limit_option, target_options
from destination.console import Rows, print_document, printable, stdout
from destination.deployment import demo
from destination.deployment.target import Target


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The contacts of one customer."""

    target: Target
    customer_id: str

    @property
    def table(self) -> ContactTable:
        """The table to read."""
        stores = self.target.stores
        return ContactTable(self.target.account.dynamodb(), stores.contact_table, customer=self.customer_id)

    @property
    def why_none(self) -> str:
        """An explanation for an empty result."""
        if self.target.stores.consumer == "on":
            return ""
        return ": the consumer of this deployment is off. Deploy it with Consumer=on to keep contacts"


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select contacts to a command, and pass it the `selection`."""

    @click.option(
        "--customer",
        "customer_id",
        type=ID,
        help="The customer's id; on a local server the default is `demo`.",
    )
    @target_options
    @functools.wraps(command)
    def wrapped(
        *,
        target: Target,
        customer_id: str | None,
        **options: Any,  # noqa: ANN401 -- click's options
    ) -> Any:  # noqa: ANN401 -- click's result
        if customer_id is None and not target.is_local:
            raise click.UsageError("Name the customer with --customer")
        return command(selection=Selection(target=target, customer_id=customer_id or demo.CUSTOMER), **options)

    return wrapped


@click.group()
def contacts() -> None:
    """Show the contacts that the consumer keeps."""


@contacts.command(name="list")
@limit_option("The largest number of contacts.")
@json_option("Print a JSON object per line, in the form of `show`.")
@selection_options
def list_(*, selection: Selection, limit: int, as_json: bool) -> None:
    """List the contacts of a customer.

    They come in no particular order, merged contacts once.

    \b
    Example:
      destination contacts list --customer acme
    """
    table = selection.table
    profiles = table.profiles()
    some = itertools.islice(profiles, limit)
    if as_json:
        for profile in some:
            click.echo(json.dumps(table.to_json(profile)))
        return
    rows = Rows("Contact", "Name", "Groups", "Last seen (UTC)", whole=(3,), folded=(0, 1, 2))
    for profile in some:
        rows.add_row(*_columns(profile))
    stdout().print(rows)
    more = "; --limit shows more" if next(profiles, None) else ""
    count = f"{rows.row_count:,} contact{'' if rows.row_count == 1 else 's'}"
    why_none = "" if rows.row_count else selection.why_none
    click.echo(f"{count} of {selection.customer_id}{more}{why_none}.", err=True)


def _columns(profile: Profile) -> tuple[str, ...]:
    name = profile.traits.get("name") or profile.traits.get("email") or ""
    moment = profile.last_seen.replace("T", " ")[: len("2020-05-09 23:54:49")]
    return profile.contact_id, str(name), ", ".join(profile.groups), moment or "unknown"


@contacts.command()
@click.argument("contact_id", type=ID, metavar="ID")
@json_option("Print one JSON object, for programs.")
@selection_options
def show(*, selection: Selection, contact_id: str, as_json: bool) -> None:
    """Show one whole contact.

    ID is its user id or anonymous id, or an id that was merged into it.

    \b
    Example:
      destination contacts show 97980cfea0067 --customer acme
    """
    table = selection.table
    profile = table.find(contact_id)
    if profile is None:
        raise click.ClickException(
            f"No contact of {selection.customer_id} has the id {printable(contact_id)}{selection.why_none}"
        )
    document = table.to_json(profile)
    if as_json:
        click.echo(json.dumps(document))
    else:
        print_document(document)
