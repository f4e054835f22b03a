"""`destination erase`: what a `delete` call does, by hand, and what it would do."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import click

from consumer.erase import Link, Scope, linked_subject, links_of, rejects_of, stored_of
from consumer.erasures import ErasureRequest, ErasureTable, Receipt
from consumer.stored import Item
from destination.console import Rows, counted, printable, progress, stdout
from destination.deployment import demo
from destination.deployment.target import ID, Target, target_options
from handler.canonicalise import canonicalise
from handler.errors import Refusal
from handler.record import Record, subject_key
from handler.spec import DELETE
from handler.write import EventTable

LOOK_SECONDS = 0.5
CONSUMER_NOTE = "\nThe consumer gets the delete message, too; the receipt says nothing of what it keeps."


@dataclass(frozen=True, kw_only=True)
class Person:
    """Whom to erase: a user, or an anonymous visitor, of a customer."""

    customer_id: str
    user: str | None
    anonymous: str | None

    @property
    def subject(self) -> str:
        """The partition key of what is stored of them."""
        if self.user is not None:
            return subject_key(self.customer_id, "user", self.user)
        return subject_key(self.customer_id, "anonymous", self.anonymous or "")

    @property
    def ids(self) -> dict[str, str]:
        """How a message names them."""
        ids = {"userId": self.user, "anonymousId": self.anonymous}
        return {name: value for name, value in ids.items() if value is not None}

    def __str__(self) -> str:
        """Say whom, for people."""
        [(name, value)] = self.ids.items()
        return printable(f"{name} {value} of {self.customer_id}")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How much is stored of a subject; `requests` are `delete` messages that are not carried out."""

    messages: int
    requests: int
    rejects: int


@dataclass(frozen=True, kw_only=True)
class Linked:
    """An id that somebody's messages name, and how much is stored under it."""

    link: Link
    stored: Stored


@click.command()
@click.option(
    "--customer", "customer_id", type=ID, help="The customer's id; on a local server it is `demo` unless you say."
)
@click.option("--user", type=ID, help="The user id.")
@click.option("--anonymous", type=ID, help="The anonymous id of a visitor, in place of a user.")
@click.option("--dry-run", is_flag=True, help="Only tell what is stored, and under which other ids.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option("--wait", "wait_seconds", default=300, show_default=True, type=click.IntRange(0), help="For the receipt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
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
    """Erase what is stored of a user, as a delete call of Segment's does.

    It stores a delete message, which the eraser of the deployment carries out, and waits for the receipt. Exits with 1
    when that does not come in time; the erasure goes on then.

    \b
    Example:
      destination erase --customer acme --user 97980cfea0067 --dry-run
    """
    person = parse_person(target, customer_id, user, anonymous)
    if dry_run:
        stored, linked = stored_under(target, person.subject), _linked(target, person)
        _tell_stored(person, stored, linked, Scope(target.stores.erasure_scope), as_json=as_json)
        return
    if not yes:
        stored = stored_under(target, person.subject)
        question = f"Erase {_both(stored)} of {person} for good?"
        click.confirm(question, abort=True, err=True)
    request = request_erasure(target, person)
    receipt = _wait_for(target, request, wait_seconds)
    if receipt is None:
        raise click.ClickException(
            f"Requested, but not finished after {wait_seconds} s: `destination erasures show {request.user_hash[:12]}` "
            "tells how it goes on. Is the eraser running?"
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
            + f".\nReceipt: {receipt.user_hash[:12]} (destination erasures show)"
            + (CONSUMER_NOTE if target.stores.consumer == "on" else "")
        )


def parse_person(target: Target, customer_id: str | None, user: str | None, anonymous: str | None) -> Person:
    """Read the options that name somebody; raises `click.UsageError`."""
    if (user is None) is (anonymous is None):
        raise click.UsageError("Name either a --user or an --anonymous id")
    if customer_id is None and not target.is_local:
        raise click.UsageError("Name the --customer whose user this is")
    return Person(customer_id=customer_id or demo.CUSTOMER, user=user, anonymous=anonymous)


def _both(counts: Stored | Receipt) -> str:
    return f"{counted(counts.messages, 'message')} and {counted(counts.rejects, 'reject')}"


def _tell_unread(key: Item) -> None:
    position = printable(key["position"]["S"])
    click.echo(f"This item can't be read, so that the ids that it names are unknown: {position}", err=True)


def erasures_of(target: Target) -> ErasureTable:
    """Return the table of tombstones and receipts of a deployment."""
    return ErasureTable(target.account.dynamodb(), target.stores.erasure_table)


def request_erasure(target: Target, person: Person, *, happened_at: str | None = None) -> ErasureRequest:
    """Store a `delete` message, which the eraser carries out and then hands to the consumer.

    `happened_at` is the time of the message that it repeats.
    """
    stores, now = target.stores, time.time()
    moment = happened_at or datetime.fromtimestamp(now, UTC).isoformat()
    [message] = canonicalise({"type": DELETE, **person.ids, "messageId": f"erase-{uuid.uuid4()}", "timestamp": moment})
    record = Record(customer_id=person.customer_id, message=message, settings={}, stored_at=now)
    try:
        EventTable(
            target.account.dynamodb(), stores.event_table, retention_days=int(stores.event_retention_days)
        ).write(record)
    except Refusal as refusal:
        raise click.ClickException(f"The request can't be stored: {refusal.__cause__ or refusal}") from refusal
    return ErasureRequest(
        customer_id=person.customer_id, subject=record.subject, requested_at=record.facts["stored_at"]
    )


def _wait_for(target: Target, request: ErasureRequest, wait_seconds: int) -> Receipt | None:
    """Wait for the receipt of a request; None where it does not come in time."""
    table, deadline = erasures_of(target), time.monotonic() + wait_seconds
    with progress("Erasing") as step:
        while True:
            state = table.progress(request)
            if state is not None and state.receipt.finished_at:
                return state.receipt
            if time.monotonic() >= deadline:
                return None
            time.sleep(LOOK_SECONDS)
            step()


def stored_under(target: Target, subject: str) -> Stored:
    """Count what is stored of a subject."""
    client, stores = target.account.dynamodb(), target.stores
    types = Counter(item["type"]["S"] for item in stored_of(client, stores.event_table, subject))
    rejects = sum(1 for _ in rejects_of(client, stores.rejects_table, subject))
    return Stored(messages=types.total() - types[DELETE], requests=types[DELETE], rejects=rejects)


def _linked(target: Target, person: Person) -> Iterator[Linked]:
    """Yield the other ids that somebody's messages name: visitors, or the users that an alias says they were."""
    links = set(links_of(target.account.dynamodb(), target.stores.event_table, person.subject, _tell_unread))
    users = {Link("user", link.id) for link in links if link.kind == "previous"}
    for link in sorted(links | users):
        visitor, user = linked_subject(person.customer_id, link), subject_key(person.customer_id, "user", link.id)
        subject = user if link.kind == "user" else visitor
        if subject != person.subject:
            yield Linked(link=link, stored=stored_under(target, subject))


def _tell_stored(person: Person, stored: Stored, linked: Iterable[Linked], scope: Scope, *, as_json: bool) -> None:
    if as_json:
        documents: list[dict[str, Any]] = [{**one.link._asdict(), **asdict(one.stored)} for one in linked]
        click.echo(json.dumps({**asdict(stored), "scope": scope, "linked": documents}))
        return
    click.echo(f"Stored of {person}: {counted(stored.messages, 'message')}, {counted(stored.rejects, 'reject')}.")
    if stored.requests:
        click.echo(f"Not carried out yet: {stored.requests:,} delete messages.")
    rows = Rows("Linked id", "Kind", "Messages", "Rejects", right=(2, 3), folded=(0,))
    for one in linked:
        rows.add_row(one.link.id, one.link.kind, f"{one.stored.messages:,}", f"{one.stored.rejects:,}")
    if rows.row_count:
        stdout().print(rows)
        then = "but for users, is erased too" if scope is Scope.LINKED else "stays, unless you erase it by itself"
        click.echo(f"With ErasureScope={scope}, what is stored under these {then}.")
