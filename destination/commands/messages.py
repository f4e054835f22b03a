"""`destination messages`: what has been stored."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

import click

from destination.console import Rows, counted, print_document, printable, progress, stdout
from destination.deployment import demo
from destination.deployment.target import ID, Key, Target, target_options
from handler.decode import JsonObject
from handler.items import read_json_attribute
from handler.record import subject_key

FOLLOW_SECONDS = 1.0
FOLLOW_SHARE = 10
"""How many times as long as a read of the table is the pause after it, at least: a large table is read rarely."""
MAX_FOLLOWED = 1000
"""Messages that arrived between two looks, which are found without a read of the table."""
MAX_ITEMS_READ_UNASKED = 2000
"""Of a table on a local server that is read whole, which then takes less than half a second."""
KEYS_OF_A_CALL = 100
"""https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html"""

Item = Mapping[str, Any]
"""An item of the event table, as DynamoDB returns it."""


def fetch_items(target: Target, keys: Sequence[Key]) -> Iterator[Item]:
    """Yield the items of some keys of the event table, in no order, without the items that are gone."""
    client, table = target.account.dynamodb(), target.stores.event_table
    for begin in range(0, len(keys), KEYS_OF_A_CALL):
        part = keys[begin : begin + KEYS_OF_A_CALL]
        asked: Any = [{"subject": {"S": subject}, "position": {"S": position}} for subject, position in part]
        while asked:
            answer = client.batch_get_item(RequestItems={table: {"Keys": asked, "ConsistentRead": True}})
            yield from answer["Responses"].get(table, [])
            unprocessed: Any = answer.get("UnprocessedKeys", {})
            asked = unprocessed.get(table, {}).get("Keys")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Messages of one subject, or (by a scan) of one customer or of all."""

    target: Target
    customer_id: str | None
    subject: str | None

    reads_all: bool = False
    """Whether somebody asked to read the whole table."""

    def read(self) -> Iterator[Item]:
        """Yield the selected items, newest first."""
        if self.subject is not None:
            yield from self.stream()
            return
        items = []
        with progress("Messages read") as advance:
            for item in self.stream():
                items.append(item)
                advance()
        yield from sorted(items, key=_time, reverse=True)

    def latest(self, limit: int, message_id: str | None = None) -> list[Item] | None:
        """Return the items that arrived last, by what a local server keeps of its requests, the newest first.

        It does not read the table. Returns None where the table must be read: a small one, one of a stack, or one of a
        server that keeps fewer messages than `limit`.
        """
        if self.reads_all or not self._is_large():
            return None
        keys = self.arrived(2 * limit, message_id)  # some may be gone since
        found = {_key(item): item for item in fetch_items(self.target, keys)}
        latest = [found[key] for key in keys if key in found][:limit]
        return sorted(latest, key=_time, reverse=True) if len(latest) == limit else None

    def arrived(self, limit: int, message_id: str | None = None) -> Sequence[Key]:
        """Return the keys of what arrived last, as far as a local server keeps it, the latest first."""
        if self.subject is not None or self.target.arrivals is None:
            return ()
        return self.target.arrivals(self.customer_id, message_id, limit)

    def _is_large(self) -> bool:
        if self.subject is not None or self.target.arrivals is None:
            return False
        described = self.target.account.dynamodb().describe_table(TableName=self.target.stores.event_table)
        return described["Table"].get("ItemCount", 0) > MAX_ITEMS_READ_UNASKED

    def stream(self) -> Iterator[Item]:
        """Yield the selected items as they come; those of a scan have no order."""
        return self._scan() if self.subject is None else self._query(self.subject)

    def _query(self, subject: str) -> Iterator[Item]:
        pages = self.target.account.dynamodb().get_paginator("query").paginate(
            TableName=self.target.stores.event_table,
            KeyConditionExpression="subject = :subject",
            ExpressionAttributeValues={":subject": {"S": subject}},
            ConsistentRead=True,
            ScanIndexForward=False,
        )  # fmt: skip
        for page in pages:
            yield from page["Items"]

    def _scan(self) -> Iterator[Item]:
        pages = self.target.account.dynamodb().get_paginator("scan").paginate(TableName=self.target.stores.event_table)
        for page in pages:
            yield from (item for item in page["Items"] if self.customer_id in (None, item["customer_id"]["S"]))


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that select messages, and hand it the `selection`."""

    @click.option("--customer", "customer_id", type=ID, help="The customer's id.")
    @click.option("--user", type=ID, help="Messages of this user id.")
    @click.option("--anonymous", type=ID, help="Messages of this anonymous id that name no user.")
    @click.option("--scan", is_flag=True, help="Read the whole table; on a stack that costs what its size costs.")
    @target_options
    @functools.wraps(command)
    def wrapped(
        *,
        target: Target,
        customer_id: str | None,
        user: str | None,
        anonymous: str | None,
        scan: bool,
        **options: Any,  # noqa: ANN401 -- click's
    ) -> Any:  # noqa: ANN401 -- click's
        if target.stores.event_sink == "sqs":
            raise click.ClickException(
                f"This deployment sends messages to a queue, {target.stores.event_queue_url}: read them with a consumer"
            )
        subject = _subject(target, customer_id, user, anonymous)
        if subject is None and not scan and not target.is_local:
            raise click.UsageError("Name a --user or an --anonymous id, or say --scan to read the whole table")
        selection = Selection(target=target, customer_id=customer_id, subject=subject, reads_all=scan)
        return command(selection=selection, **options)

    return wrapped


def _subject(target: Target, customer_id: str | None, user: str | None, anonymous: str | None) -> str | None:
    if user is not None and anonymous is not None:
        raise click.UsageError("--user and --anonymous exclude each other")
    subject_id = user or anonymous
    if subject_id is None:
        return None
    if customer_id is None and not target.is_local:
        raise click.UsageError("Name the --customer whose user this is")
    return subject_key(customer_id or demo.CUSTOMER, "user" if user else "anonymous", subject_id)


@click.group()
def messages() -> None:
    """Show what has been stored."""


@messages.command(name="list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="How many, of the newest.")
@click.option("--follow", is_flag=True, help="Go on showing messages as they come, oldest first.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per line, for programs.")
@selection_options
def list_(*, selection: Selection, limit: int, follow: bool, as_json: bool) -> None:
    """List stored messages, newest first: of a user or an anonymous id, of a customer, or of all.

    With --user, the customer of a local server is `demo` unless you name another. Without --user, a small table is read
    whole, and the messages with the latest time are listed. Of a large table on a local server, the messages that
    arrived last are listed; --scan reads it whole.

    \b
    Example:
      destination messages list --customer acme --user 97980cfea0067
    """
    if follow:
        with suppress(KeyboardInterrupt):  # which is how it ends
            _follow(selection, limit, as_json=as_json)
        return
    latest = selection.latest(limit)
    everything = selection.read() if latest is None else iter(latest)
    newest = sorted(itertools.islice(everything, limit), key=_time, reverse=True)
    if as_json:
        for item in newest:
            click.echo(json.dumps(to_json(item)))
        return
    rows = Rows("Time (UTC)", "Customer", "Type", "Who", "What", "Message id", folded=(1, 3, 4, 5))
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
    else:  # to count what is not shown would cost as much as to show it
        more = "; --limit shows more" if next(everything, None) is not None else ""
        click.echo(f"{counted(len(newest), 'message')} shown{more}.", err=True)


def _follow(selection: Selection, limit: int, *, as_json: bool) -> None:
    console = stdout()
    seen = set(selection.arrived(MAX_FOLLOWED))
    latest = selection.latest(limit)
    items = list(selection.read()) if latest is None else latest
    fresh = items[:limit]
    next_read = 0.0
    while True:
        for item in sorted(fresh, key=_time):
            if as_json:
                click.echo(json.dumps(to_json(item)))
            else:
                console.print(printable("  ".join(_columns(item))), soft_wrap=True)
        seen.update(map(_key, items))
        sleep(FOLLOW_SECONDS)
        items = list(fetch_items(selection.target, [key for key in selection.arrived(MAX_FOLLOWED) if key not in seen]))
        if latest is None and monotonic() >= next_read:
            began = monotonic()
            items = list(selection.read())
            next_read = monotonic() + FOLLOW_SHARE * (monotonic() - began)
        fresh = [item for item in items if _key(item) not in seen]


@messages.command()
@click.argument("message_id")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@selection_options
def show(*, selection: Selection, message_id: str, as_json: bool) -> None:
    """Show one stored message whole, by its id.

    \b
    Example:
      destination messages show ajs-next-1700000000000-17e0 --customer acme --user 97980cfea0067
    """
    for item in selection.latest(1, message_id) or selection.read():
        if item["message_id"]["S"] == message_id:
            if as_json:
                click.echo(json.dumps(to_json(item)))
            else:
                print_document(to_json(item))
            return
    raise click.ClickException(f"No stored message has the id {message_id} here")


@messages.command()
@selection_options
def export(*, selection: Selection) -> None:
    """Print stored messages as they are, a JSON object per line, for `destination import` into another deployment.

    They are of one customer, in no order, and without the settings that came beside them.

    \b
    Example:
      destination messages export --stack direct-destination --customer acme --scan > acme.jsonl
    """
    if selection.customer_id is None and selection.subject is None:
        raise click.UsageError("Name the --customer: messages tell nothing of theirs, and go into one by its API key")
    count = 0
    for item in selection.stream():
        click.echo(json.dumps(read_json_attribute(item["message"])))
        count += 1
    click.echo(f"{counted(count, 'message')}.", err=True)


def _time(item: Item) -> tuple[str, str]:
    return item["timestamp"]["S"], item["stored_at"]["S"]


def _key(item: Item) -> Key:
    return item["subject"]["S"], item["position"]["S"]


def what_of(message: JsonObject) -> str:
    """Say what a canonical message is about, "" where it tells nothing but who."""
    return value_text(next(filter(None, map(message.get, ("event", "name", "group_id", "previous_id"))), ""))


def value_text(value: object) -> str:
    """Return a string as it is, and any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _columns(item: Item) -> tuple[str, ...]:
    def text(name: str) -> str:
        return str(item.get(name, {"S": ""})["S"])

    message = read_json_attribute(item["message"])
    who = text("user_id") or text("anonymous_id")
    time = text("timestamp").replace("T", " ")[: len("2020-05-09 23:54:49.200")]
    return time, text("customer_id"), text("type"), who, what_of(message), text("message_id")


def to_json(item: Item) -> dict[str, Any]:
    """Return an item as it was before DynamoDB's types and our compression."""
    documents = {name: read_json_attribute(item[name]) for name in ("message", "settings") if name in item}
    texts = {name: value["S"] for name, value in item.items() if "S" in value and name not in documents}
    numbers = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    return {**texts, **numbers, **documents}
