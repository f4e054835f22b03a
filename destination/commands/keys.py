"""`destination keys`: create API keys for customers, and manage them."""

import csv
import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import click
from rich.text import Text

from destination.commands.options import SINCE, Parsed, confirm, json_option, same_target, yes_option
from destination.console import Rows, printable, stdout
from destination.deployment.key_import import import_keys, read_keys
from destination.deployment.key_table import KeyRecord, KeyTable, parse_customer_id, parse_expiry
from destination.deployment.stack import Account
from destination.deployment.target import LOCAL_URL, Target, local_target, stack_target
from destination.watching.key_use import LastUse, last_use
from destination.watching.open_log import open_log
from destination.watching.request_log import Period
from handler.errors import STORE_ERRORS
from handler.keys import Status, new_key
from handler.spec import CALL_TYPES


def key_table_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--url`, `--stack`, `--table` and `--json` to a command, and pass it the key `table`."""

    @functools.wraps(command)
    def wrapped(*, target: Target | None, **options: Any) -> Any:  # noqa: ANN401, ARG001 -- click's; only logs need it
        return command(**options)

    return key_log_options(wrapped)


def key_log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the same options to a command, and pass it the `target` too; None for a table by its name."""

    @click.option("--url", default=LOCAL_URL, show_default=True, help="A running local server (destination serve).")
    @click.option("--stack", help="A CloudFormation stack instead, with your own AWS credentials.")
    @click.option("--table", "table_name", help="A key table by its name instead, with your own AWS credentials.")
    @json_option("Print JSON, for programs.")
    @functools.wraps(command)
    def wrapped(*, url: str, stack: str | None, table_name: str | None, **options: Any) -> Any:  # noqa: ANN401 -- click's
        if stack and table_name:
            raise click.UsageError("--stack and --table exclude each other")
        if table_name:
            return command(target=None, table=KeyTable(Account().dynamodb(), table_name), **options)
        target = stack_target(stack) if stack else local_target(url)
        return command(target=target, table=KeyTable(target.account.dynamodb(), target.stores.key_table), **options)

    return wrapped


_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_COLOURS = {"active": "green", "suspended": "yellow", "expired": "yellow"}

_ABSENT = {"scopes": "everything", "expires_at": "never"}
"""Texts for absent attributes of a key."""

CUSTOMER_ID = Parsed("customer", parse_customer_id)
EXPIRY = Parsed("time", parse_expiry)


@click.group()
def keys() -> None:
    """Create API keys for customers, and manage them.

    A key is shown once, when it is created; only its hash is stored. After you revoke or suspend a key, it may still
    work for KEY_CACHE_SECONDS (60). A key that was refused before works within 5 seconds.
    """


@keys.command()
@click.option("--customer", "customer_id", type=CUSTOMER_ID, required=True, help="The customer who gets the key.")
@click.option("--label", help="A note for people.")
@click.option("--expires", "expires_at", type=EXPIRY, help="When the key ends: 90d, 12h, 2027-01-31.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(CALL_TYPES),
    help="A call type that the key may send; repeatable.",
)
@key_table_options
def create(
    *,
    table: KeyTable,
    customer_id: str,
    label: str | None,
    expires_at: datetime | None,
    scopes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create an API key for a customer and show it once.

    \b
    Example:
      destination keys create --customer acme --expires 365d --scope identify --scope track
    """
    key = new_key()
    record = KeyRecord.of(
        key, customer_id=customer_id, label=label, expires_at=expires_at, scopes=frozenset(scopes) or None
    )
    table.add(record)
    _show_new(key, record, as_json=as_json)


@keys.command(name="list")
@click.option("--customer", "customer_id", help="Only this customer's.")
@key_table_options
def list_(*, table: KeyTable, customer_id: str | None, as_json: bool) -> None:
    """Show all API keys, without the keys themselves.

    \b
    Example:
      destination keys list --customer acme
    """
    records = sorted(
        (record for record in table if customer_id in (None, record.customer_id)),
        key=lambda record: (record.customer_id, record.created_at or _LONG_AGO),
    )
    if as_json:
        click.echo(json.dumps([record.to_json() for record in records], indent=2))
        return
    rows = Rows(
        "ID",
        "Customer",
        "Status",
        "Ends in",
        "Label",
        "May send",
        "Created",
        "Expires",
        whole=(0,),
        folded=(1, 4),
        optional=(6, 5, 4),
    )
    for record in records:
        rows.add_row(
            record.key_id,
            record.customer_id,
            Text(record.effective_status, _COLOURS.get(record.effective_status, "red")),
            f"…{record.last_four}",
            record.label or "",
            ", ".join(sorted(record.scopes)) if record.scopes is not None else "everything",
            f"{record.created_at:%Y-%m-%d %H:%M}" if record.created_at else "",
            f"{record.expires_at:%Y-%m-%d %H:%M}" if record.expires_at else "never",
        )
    stdout().print(rows)


@keys.command()
@click.argument("key_id")
@click.option(
    "--since", "period", type=SINCE, default="7d", show_default=True, help="How far to look back for its use."
)
@key_log_options
def show(*, target: Target | None, table: KeyTable, key_id: str, period: Period, as_json: bool) -> None:
    """Show one API key by its id, and when it was last used.

    The use is the last request line with the key, whatever was answered. A stack's log is read by CloudWatch Logs
    Insights. AWS charges by the scanned bytes.

    \b
    Example:
      destination keys show 3f1c09aa7be2
    """
    record = table.find(key_id)
    use: LastUse | None = None
    told = "(unknown: a table has no log)"
    if target is not None:
        try:
            use = _last_use(target, table, record, period)
            told = str(use)
        except (click.ClickException, *STORE_ERRORS) as error:
            told = f"(unknown: {printable(error.message if isinstance(error, click.ClickException) else str(error))})"
    if as_json:
        unknown = {"last_used_at": None, "last_answer": None, "last_use_searched_since": None}
        click.echo(json.dumps({**record.to_json(), **(use.to_json() if use else unknown)}, indent=2))
        return
    _show(record, as_json=False)
    click.echo(f"last used: {told}")


def _last_use(target: Target, table: KeyTable, record: KeyRecord, period: Period) -> LastUse:
    """Return when a key was last used; raises `click.ClickException` or one of `STORE_ERRORS` without a log."""
    log = open_log(target)
    others = [one.key_hash for one in table if one.customer_id == record.customer_id and one != record]
    try:
        return last_use(log, record.customer_id, record.key_hash, others, period)
    finally:
        for remark in log.remarks:
            click.echo(remark, err=True)


@keys.command()
@click.argument("key_id")
@yes_option()
@key_table_options
def revoke(*, table: KeyTable, key_id: str, yes: bool, as_json: bool) -> None:
    """Revoke an API key permanently.

    Requests with it are answered 401.

    \b
    Example:
      destination keys revoke 3f1c09aa7be2
    """
    record = table.find(key_id)
    if not yes:
        question = f"Revoke …{record.last_four} of {record.customer_id}? This can't be undone."
        confirm(question)
    _change_status(table, record, Status.REVOKED, as_json=as_json)


@keys.command()
@click.argument("key_id")
@key_table_options
def suspend(*, table: KeyTable, key_id: str, as_json: bool) -> None:
    """Suspend an API key until it is resumed.

    Requests with it are answered 403.

    \b
    Example:
      destination keys suspend 3f1c09aa7be2
    """
    _change_status(table, table.find(key_id), Status.SUSPENDED, as_json=as_json)


@keys.command()
@click.argument("key_id")
@key_table_options
def resume(*, table: KeyTable, key_id: str, as_json: bool) -> None:
    """Let a suspended API key work again.

    \b
    Example:
      destination keys resume 3f1c09aa7be2
    """
    _change_status(table, table.find(key_id), Status.ACTIVE, as_json=as_json)


def _change_status(table: KeyTable, record: KeyRecord, status: Status, *, as_json: bool) -> None:
    """Set the status of a key, and show it; raises `click.ClickException` if the key is revoked or gone."""
    changed = table.set_status(record, status)
    if changed is None:
        table.find(record.key_id)  # raises if it was deleted meanwhile
        raise click.ClickException("This key is revoked permanently: create a new one")
    _show(changed, as_json=as_json)
    told = (
        "Functions that refuse the key now may do so for 5 seconds."
        if status == Status.ACTIVE
        else "Functions that accept the key now may do so for KeyCacheSeconds: 60 by default, 1 on a local server."
    )
    click.echo(told, err=True)


@keys.command()
@click.argument("key_id")
@click.option("--overlap", "ends_at", type=EXPIRY, default="7d", show_default=True, help="When the old key ends.")
@key_table_options
def rotate(*, table: KeyTable, key_id: str, ends_at: datetime, as_json: bool) -> None:
    """Create a new API key that replaces another one.

    The old key works until --overlap is over.

    \b
    Example:
      destination keys rotate 3f1c09aa7be2 --overlap 48h
    """
    old = table.find(key_id)
    key, record = table.rotate(old, ends_at)
    _show_new(key, record, as_json=as_json)
    end = min(old.expires_at or ends_at, ends_at)
    named = f"{old.key_id}{same_target()}"
    click.echo(f"The old key, …{old.last_four}, ends at {end:%Y-%m-%d %H:%M} UTC.", err=True)
    click.echo(f"To see when it was last used, run: destination keys show {named}", err=True)
    click.echo(f"To end it earlier, run: destination keys revoke {named}", err=True)


@keys.command()
@key_table_options
def export(*, table: KeyTable, as_json: bool) -> None:  # noqa: ARG001 -- the output is JSON in any case
    """Print the hashes of all keys for another deployment.

    Each line is a JSON object, and never has the key itself. `destination keys import` reads the lines there, and your
    customers' keys continue to work.

    \b
    Example:
      destination keys export --stack direct-destination > keys.jsonl
    """
    for record in table:
        click.echo(json.dumps(record.exported()))


@keys.command(name="import")
@click.argument("file", type=click.File(encoding="utf-8-sig"))
@click.option("--replace", is_flag=True, help="Overwrite existing keys by those in the file, except revoked ones.")
@key_table_options
def import_(*, table: KeyTable, file: TextIO, replace: bool, as_json: bool) -> None:
    """Import API keys that customers already have.

    A file has lines of `customer,key` or `customer,key,label` (CSV), or is the output of `destination keys export`.
    Keys are read from a file or, with -, from standard input, because arguments stay in the shell's history. Existing
    keys are not changed, and keys of another customer never are.

    \b
    Example:
      destination keys import keys.csv
    """
    try:
        records = [*read_keys(file.read())]
    except (csv.Error, UnicodeDecodeError) as error:
        raise click.ClickException(f"This is not CSV in UTF-8: {error}") from error
    result = import_keys(table, records, replace=replace)
    strangers = result.strangers
    if as_json:
        counts = {
            "imported": result.imported,
            "replaced": result.replaced,
            "already_there": result.already_there - result.replaced,
            "of_another_customer": len(strangers),
        }
        click.echo(json.dumps(counts))
    elif replace:
        left = result.already_there - len(strangers) - result.replaced
        click.echo(
            f"Imported {result.imported} keys, and replaced {result.replaced}; {left} are revoked here, and stay "
            "revoked."
        )
    else:
        click.echo(f"Imported {result.imported} keys; {result.already_there} existed already.")
    if strangers:
        names = ", ".join(f"…{record.last_four} of {record.customer_id}" for record in strangers)
        raise click.ClickException(f"These keys already belong to another customer, and were not changed: {names}")


def _show_new(key: str, record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"api_key": key, **record.to_json()}, indent=2))
        return
    click.echo(f"API key: {key}")
    click.echo("Give it to the customer now: it is not stored and can't be shown again.\n", err=True)
    _show(record, as_json=False)


def _show(record: KeyRecord, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record.to_json(), indent=2))
        return
    for name, value in record.to_json().items():
        text = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' ')}: {_ABSENT.get(name, '-') if text is None else text}")
