"""`destination schemas`: check edited schemas, and show what they would change, before they are deployed."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from destination.commands.options import json_option, schemas_option
from destination.console import Rows, counted, printable, progress, stdout
from destination.deployment.target import LOCAL_URL, local_target, stack_target
from destination.paths import SCHEMAS
from destination.schemas.check import check_schemas
from destination.schemas.places import SchemaFault
from destination.schemas.trial import Kind, Trial
from handler.judge import Judge
from handler.validate import Schemas


@click.group()
def schemas() -> None:
    """Check edited schemas before you deploy them."""


@schemas.command()
@schemas_option("The folder to check; by default schemas/ of this checkout.")
@click.option("--against-stored", is_flag=True, help="Also try them on stored messages and rejects.")
@click.option("--customer", "customer_id", help="Try them only on messages of this customer.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Try them on at most this number of messages, and of rejects."
)
@click.option("--scan", is_flag=True, help="Read the whole tables; on a stack, the cost depends on their size.")
@click.option("--url", help=f"A running local server.  [default: {LOCAL_URL}]")
@click.option("--stack", help="A CloudFormation stack instead, with your own AWS credentials.")
@json_option()
def check(
    *,
    folder: Path | None,
    against_stored: bool,
    customer_id: str | None,
    limit: int | None,
    scan: bool,
    url: str | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Check the schemas, and show what they would change.

    With --against-stored it judges stored messages and rejects by them. A stored message that they refuse would be lost
    the next time; a reject that passes can be retried. Contents of messages are not shown. Exits with 1 if the schemas
    have faults, or refuse stored messages.

    \b
    Example:
      destination schemas check --against-stored --stack direct-destination --scan --limit 100000
    """
    if not against_stored and (customer_id or limit or scan or url or stack):
        raise click.UsageError("--customer, --limit, --scan, --url and --stack need --against-stored")
    folder = folder or SCHEMAS
    faults = check_schemas(folder)
    if faults or not against_stored:
        _tell_faults(folder, faults, as_json=as_json)
        if faults:
            raise click.exceptions.Exit(1)
        return
    target = stack_target(stack) if stack else local_target(url or LOCAL_URL)
    if not scan and not target.is_local:
        raise click.UsageError("There is no index of all messages: use --scan to read the whole tables")
    call_types = frozenset(target.stores.supported_call_types.split(","))
    judge = Judge(schemas=Schemas.load(folder), supported_call_types=call_types)
    trial = Trial(target=target, judge=judge, customer_id=customer_id, limit=limit)
    refused = Count.of("Trying stored messages", trial.stored())
    passing = Count.of("Trying rejects", trial.rejects())
    if as_json:
        stored = {"tried": refused.tried, "would_be_refused": refused.to_json()}
        rejects = {"tried": passing.tried, "would_pass": passing.to_json()}
        click.echo(json.dumps({"faults": [], "stored": stored, "rejects": rejects}, indent=2))
    else:
        _tell_faults(folder, [], as_json=False)
        refused.show("stored messages would be refused", "Would be answered")
        passing.show("rejects would pass", "Was answered")
        if not target.stores.sink.is_queryable:
            click.echo("This deployment sends messages to a queue: these can't be tried.", err=True)
    if refused.kinds:
        raise click.exceptions.Exit(1)


def _tell_faults(folder: Path, faults: Sequence[SchemaFault], *, as_json: bool) -> None:
    if as_json:
        listed = [{"file": fault.file, "pointer": fault.pointer, "message": fault.text} for fault in faults]
        click.echo(json.dumps({"faults": listed}, indent=2))
        return
    for fault in faults:
        click.echo(printable(str(fault)))
    count = counted(len(faults), "fault") if faults else "no faults"
    click.echo(f"The schemas in {folder} have {count}.", err=bool(faults))


@dataclass(frozen=True, kw_only=True)
class Count:
    """The number of tried messages, and of each kind with a changed verdict."""

    tried: int
    kinds: Counter[Kind]

    @classmethod
    def of(cls, doing: str, judged: Iterable[Kind | None]) -> "Count":
        """Count them, with a progress bar."""
        tried, kinds = 0, Counter[Kind]()
        with progress(doing) as step:
            for kind in judged:
                tried += 1
                kinds.update([kind] if kind else [])
                step()
        return cls(tried=tried, kinds=kinds)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the kinds, the most frequent first."""
        return [
            {"customer_id": customer_id, "type": call_type, "answer": answer, "count": count}
            for (customer_id, call_type, answer), count in self.kinds.most_common()
        ]

    def show(self, what: str, answer: str) -> None:
        """Print them for people."""
        click.echo(f"{self.kinds.total():,} of {self.tried:,} {what}.")
        if self.kinds:
            rows = Rows("Count", "Customer", "Type", answer, right=(0,), folded=(1, 3))
            for kind, count in self.kinds.most_common():
                rows.add_row(f"{count:,}", *kind)
            stdout().print(rows)
