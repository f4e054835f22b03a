"""`destination rejects`: show rejected messages, and store them after their schemas were corrected."""

import functools
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from destination.commands.options import (
    ID,
    Parsed,
    confirm,
    json_option,
    limit_option,
    schemas_option,
    target_options,
    yes_option,
)
from destination.console import Rows, print_document, progress, stdout
from destination.deployment.parallel import in_parallel
from destination.deployment.reject_table import (
    DEFAULT_DAYS,
    Contents,
    KeptReject,
    RejectSelection,
)
from destination.deployment.retry import ErasedUsers, Fate, Retry, RetryResult, sink_of
from destination.deployment.target import Target
from destination.paths import SCHEMAS
from destination.schemas.check import load_schemas
from handler.decode import decode_settings
from handler.errors import STORE_ERRORS, InvalidSettings, Unavailable
from handler.judge import Judge

DAYS = click.IntRange(1, 3660)
SHOWN_MISSING = 10
"""Limit for reject ids in an error."""


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select rejects to a command, and pass it the `selection`."""

    @click.option("--customer", "customer_id", type=ID, help="The customer's id.")
    @click.option(
        "--days",
        type=DAYS,
        help=f"How many days back, including today. The default is {DEFAULT_DAYS} for a customer, and all with --scan.",
    )
    @click.option("--scan", is_flag=True, help="Read the whole table; on a stack, the cost depends on its size.")
    @target_options
    @functools.wraps(command)
    def wrapped(
        *,
        target: Target,
        customer_id: str | None,
        days: int | None,
        scan: bool,
        **options: Any,  # noqa: ANN401 -- click's options
    ) -> Any:  # noqa: ANN401 -- click's result
        if customer_id is None and not scan and not target.is_local:
            raise click.UsageError("Name a --customer, or use --scan to read the whole table")
        scan = scan or customer_id is None
        selection = RejectSelection(target=target, customer_id=customer_id, days=days, scan=scan)
        return command(selection=selection, **options)

    return wrapped


def _parse_reject_id(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{1,64}", text):
        raise ValueError(f"{text} is not the id of a reject: `destination rejects list` shows all ids")
    return text


REJECT_ID = Parsed("id", _parse_reject_id)


@click.group()
def rejects() -> None:
    """Show, retry and delete rejected messages."""


@rejects.command(name="list")
@limit_option()
@json_option("Print a JSON object per line, for programs.")
@selection_options
def list_(*, selection: RejectSelection, limit: int, as_json: bool) -> None:
    """List rejects, newest first: of a customer, or of all customers.

    A local server needs no --scan to read everything.

    \b
    Example:
      destination rejects list --customer acme --days 30
    """
    newest = list(itertools.islice(selection.read(), limit + 1))
    if as_json:
        for reject in newest[:limit]:
            click.echo(json.dumps(reject.to_json()))
        return
    rows = Rows("Time (UTC)", "Customer", "Type", "Who", "Code", "Answer", "ID", folded=(3, 5), optional=(2, 3))
    for reject in newest[:limit]:
        rows.add_row(*_columns(reject))
    stdout().print(rows)
    more = "; --limit shows more" if len(newest) > limit else ""
    click.echo(f"{_rejects(len(newest[:limit]))} {selection}{more}.", err=True)


def _rejects(count: int) -> str:
    return f"{count:,} reject{'' if count == 1 else 's'}"


def _columns(reject: KeptReject) -> tuple[str, ...]:
    facts = reject.facts
    moment = reject.rejected_at.replace("T", " ")[: len("2020-05-09 23:54:49")]
    who = facts.get("user_id") or facts.get("anonymous_id") or ""
    return moment, reject.customer_id, reject.call_type, who, facts["code"], reject.answer, reject.reject_id


@rejects.command()
@click.argument("reject_id", metavar="ID", type=REJECT_ID)
@json_option("Print one JSON object with the unchanged body, for programs.")
@selection_options
def show(*, selection: RejectSelection, reject_id: str, as_json: bool) -> None:
    """Show one whole reject, by its id or the start of it.

    \b
    Example:
      destination rejects show 9c04f1aa7be2 --customer acme
    """
    reject = selection.find(reject_id)[0]
    contents = selection.table.contents(reject)
    if contents is None:
        raise click.ClickException(f"The reject {reject_id} does not exist any more")
    document = {**reject.to_json(), "settings": _settings(contents), "body": contents.body}
    if as_json:
        click.echo(json.dumps(document))
    else:
        document["body"] = json.loads(contents.body)
        print_document(document)


def _settings(contents: Contents) -> object:
    """Return the settings, or the unchanged header if it may have been refused."""
    try:
        return decode_settings(contents.settings_header)
    except InvalidSettings:
        return contents.settings_header


@rejects.command(name="retry")
@click.argument("reject_ids", metavar="[ID]...", nargs=-1, type=REJECT_ID)
@schemas_option("The schemas to judge by; by default this checkout's schemas.")
@click.option("--dry-run", is_flag=True, help="Only show which rejects would pass.")
@json_option()
@selection_options
def retry_(
    *, selection: RejectSelection, reject_ids: tuple[str, ...], folder: Path | None, dry_run: bool, as_json: bool
) -> None:
    """Judge rejects again, and store those that pass.

    It uses the schemas of this checkout, and the same store as the function. If a message is stored now, or was stored
    already, its reject is deleted. A reject that is still refused stays. A reject from before the erasure of its user
    is deleted and not stored. An interruption loses nothing: run it again. Exits with 1 if a reject is still refused,
    or if a store fails; then it reads the other rejects again and names those that are missing.

    \b
    Example:
      destination rejects retry --customer acme --dry-run
    """
    target = selection.target
    judge = Judge(
        schemas=load_schemas(folder or SCHEMAS),
        supported_call_types=frozenset(target.stores.supported_call_types.split(",")),
    )
    chosen = selection.choose(reject_ids)
    results: list[RetryResult] = []
    sink = None if dry_run else sink_of(target)
    retry = Retry(table=selection.table, judge=judge, sink=sink, erased=ErasedUsers.of(target))
    try:
        with progress("Retrying", total=len(chosen)) as step:
            for result in retry.run(chosen):
                results.append(result)
                step()
    except (Unavailable, *STORE_ERRORS) as error:
        where = _where_the_others_are(chosen, results, retry)
        _tell(results, selection, as_json=as_json, dry_run=dry_run)
        raise click.ClickException(f"AWS answered: {error.__cause__ or error}. {where}") from error
    _tell(results, selection, as_json=as_json, dry_run=dry_run)
    if missing := _missing(results):
        raise click.ClickException(missing)
    if any(result.fate is Fate.REFUSED for result in results):
        raise click.exceptions.Exit(1)


def _where_the_others_are(chosen: Sequence[KeptReject], results: list[RetryResult], retry: Retry) -> str:
    """Read the rejects without a result again; add a result for each missing one, and return a sentence."""
    judged = {result.reject.key_text for result in results}
    others = [reject for reject in chosen if reject.key_text not in judged]
    try:
        results += retry.find_missing(others)
    except STORE_ERRORS as error:
        return (
            f"{_rejects(len(others))} not confirmed as stored. Whether they are still in the table is not known, "
            f"because it can't be read ({error}): run this again"
        )
    return _missing(results) or "The messages that were not stored are still among the rejects: run this again"


def _missing(results: Iterable[RetryResult]) -> str:
    """Return a sentence about the missing rejects, "" without any."""
    ids = [result.reject.reject_id for result in results if result.fate is Fate.MISSING]
    if not ids:
        return ""
    shown = ", ".join(ids[:SHOWN_MISSING]) + (" …" if len(ids) > SHOWN_MISSING else "")
    return (
        f"{_rejects(len(ids))} not confirmed as stored, and not among the rejects any more: {shown}. Another command "
        "deleted them meanwhile, or they are lost"
    )


_WORDS = {
    Fate.STORED: "stored",
    Fate.QUEUED: "queued",
    Fate.DUPLICATE: "duplicates",
    Fate.PASSES: "would pass",
    Fate.REFUSED: "still refused",
    Fate.GONE: "gone meanwhile",
    Fate.ERASED: "of erased users",
    Fate.MISSING: "missing",
}


def _tell(results: Sequence[RetryResult], selection: RejectSelection, *, as_json: bool, dry_run: bool) -> None:
    fates = Counter(result.fate for result in results)
    answers = Counter(result.answer for result in results if result.fate is Fate.REFUSED)
    if as_json:
        counts = {word.replace(" ", "_"): fates[fate] for fate, word in _WORDS.items()}
        click.echo(
            json.dumps({"tried": len(results), "dry_run": dry_run, **counts, "answers": dict(answers.most_common())})
        )
        return
    counted = ", ".join(f"{fates[fate]:,} {word}" for fate, word in _WORDS.items() if fates[fate])
    click.echo(f"Tried {_rejects(len(results))} {selection}{': ' if counted else ''}{counted}.")
    _print_counts("Still refused because", answers)


def _print_counts(heading: str, counts: Counter[str]) -> None:
    """Print a table of counts, the largest first; nothing without any."""
    if counts:
        rows = Rows("Count", heading, right=(0,), folded=(1,))
        for name, count in counts.most_common():
            rows.add_row(f"{count:,}", name)
        stdout().print(rows)


@rejects.command()
@click.option("--older-than", type=DAYS, metavar="DAYS", help="Only rejects older than this number of days; a scan.")
@yes_option()
@json_option()
@selection_options
def purge(*, selection: RejectSelection, older_than: int | None, yes: bool, as_json: bool) -> None:
    """Delete rejects permanently: of a customer, old ones, or all. Asks for confirmation.

    A reject that arrives again meanwhile stays.

    \b
    Example:
      destination rejects purge --scan --older-than 14
    """
    chosen = list(selection.read())
    if older_than is not None:
        if not selection.scan:
            raise click.UsageError("--older-than needs --scan: by customer, only the last days are read")
        limit = (datetime.now(UTC) - timedelta(days=older_than)).isoformat()
        chosen = [reject for reject in chosen if reject.rejected_at < limit]
    which = f"{selection}" + (f", older than {older_than} days" if older_than else "")
    if chosen and not yes:
        confirm(f"Delete {_rejects(len(chosen))} {which} permanently?")
    table = selection.table
    deleted: list[KeptReject] = []
    stayed = 0
    try:
        with progress("Deleting", total=len(chosen)) as step:
            for reject, is_gone in in_parallel(lambda reject: (reject, table.delete(reject)), chosen):
                if is_gone:
                    deleted.append(reject)
                else:
                    stayed += 1
                step()
    finally:
        _tell_deleted(deleted, stayed, which, as_json=as_json)


def _tell_deleted(deleted: Sequence[KeptReject], stayed: int, which: str, *, as_json: bool) -> None:
    customers = Counter(reject.customer_id for reject in deleted)
    if as_json:
        click.echo(json.dumps({"deleted": len(deleted), "came_again": stayed, "customers": customers}))
        return
    again = f"; {stayed:,} arrived again meanwhile and stayed" if stayed else ""
    click.echo(f"Deleted {_rejects(len(deleted))} {which}{again}.")
    _print_counts("Customer", customers)
