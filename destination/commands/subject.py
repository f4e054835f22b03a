"""`destination subject`: export the stored data of one person."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click

from destination.commands.options import ID, json_option, parse_person, target_options
from destination.console import counted, progress
from destination.deployment.export import KINDS, Export
from destination.deployment.target import Target

OWNER_ONLY = 0o600


@click.group()
def subject() -> None:
    """Give a person access to their stored data."""


@subject.command()
@click.option("--customer", "customer_id", type=ID, help="The customer's id; on a local server the default is `demo`.")
@click.option("--user", type=ID, help="The user id.")
@click.option("--anonymous", type=ID, help="The anonymous id of a visitor, instead of a user.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A new file, readable by you only.")
@json_option("The output is JSON anyway, an object per line.")
@target_options
def export(
    *,
    target: Target,
    customer_id: str | None,
    user: str | None,
    anonymous: str | None,
    output: Path | None,
    as_json: bool,  # noqa: ARG001 -- it is JSON anyway
) -> None:
    """Print everything that is stored of a person.

    Each line is a JSON object. The first items are those that `destination erase` would delete: messages and rejects,
    and with ErasureScope=linked also those of linked ids. Then follow the contact, and the receipts of earlier
    erasures. The last line has the counts: without it, the export is incomplete.

    \b
    Example:
      destination subject export --customer acme --user 97980cfea0067 --output ada.jsonl
    """
    person = parse_person(target, customer_id, user, anonymous)
    made = Export(target=target, person=person)
    with _opened(output) as file, progress("Items exported") as advance:
        for document in made.documents():
            print(json.dumps(document), file=file)
            advance()
        counts = {kind: made.counts[kind] for kind in KINDS}
        print(json.dumps({"kind": "summary", "customer_id": person.customer_id, **person.ids, **counts}), file=file)
    _summarize(made)


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Open a file that only its owner can read; without a path yield standard output."""
    if path is None:
        yield sys.stdout
        return
    try:
        path.touch(OWNER_ONLY, exist_ok=False)
    except FileExistsError as error:
        raise click.ClickException(f"{path} exists already. Name a new file, or delete it first.") from error
    with path.open("w", encoding="utf-8") as file:
        yield file


def _summarize(export: Export) -> None:
    counts = export.counts
    click.echo(
        f"Exported of {export.person}: {counted(counts['message'], 'message')}, {counted(counts['reject'], 'reject')}, "
        f"{counted(counts['contact'], 'contact')}, {counted(counts['receipt'], 'receipt')}.",
        err=True,
    )
    if counts["erasure_request"]:
        click.echo(f"Not carried out yet: {counted(counts['erasure_request'], 'delete message')}.", err=True)
    links = counted(len(export.linked_subjects), "linked anonymous id")
    if export.has_linked:
        messages, rejects = counts["linked_message"], counts["linked_reject"]
        click.echo(f"Under {links}: {counted(messages, 'message')}, {counted(rejects, 'reject')}.", err=True)
    elif export.linked_subjects:
        click.echo(
            f"{links} not exported, because ErasureScope=user: `destination erase --dry-run` lists them, and "
            "--anonymous "
            "exports each.",
            err=True,
        )
    if not export.target.stores.sink.is_queryable:
        click.echo("Messages go to a queue, which can't be searched: ask the systems that read it.", err=True)
