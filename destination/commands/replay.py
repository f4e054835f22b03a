"""`destination replay`: stored messages once more through the consumer, by way of the event queue.

The queue's consumer calls the same `consumer/handle.py`, and brings retries and dead letters with it.
"""

import hashlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import click

from consumer.stored import Unreadable, image_of, record_of
from destination.commands.options import ID, Parsed, target_options
from destination.console import counted, printable, progress
from destination.deployment import demo
from destination.deployment.parallel import in_parallel
from destination.deployment.target import Target
from destination.paths import LOCAL_FOLDER
from handler.errors import EventStoreUnavailable, MessageTooLarge
from handler.record import subject_key
from handler.timestamps import parse_time, sortable
from handler.write import EventQueue

TIMES = {"stored": "stored_at", "happened": "timestamp"}
"""What `--by` says -> the attribute that is meant."""

Item = Mapping[str, Any]


def _parse_time(text: str) -> str:
    moment = parse_time(text)
    if moment is None:
        raise ValueError(f"{text} is no time: write 2026-03-12 or 2026-03-12T09:30:00Z")
    return moment


TIME = Parsed("time", _parse_time)


@dataclass(frozen=True, kw_only=True)
class History:
    """What to replay: messages from a time until before another, of all, of a customer, or of one subject."""

    by: str
    start: str | None
    end: str
    customer_id: str | None
    subject: str | None

    def holds(self, item: Item) -> bool:
        """Whether a stored message is of it; raises `Unreadable` for an item that does not tell."""
        try:
            is_theirs = self.customer_id in (None, item["customer_id"]["S"])
            moment: str = item[TIMES[self.by]]["S"]
        except KeyError as error:
            raise Unreadable("an attribute is missing, or of another type", {}) from error
        return is_theirs and (self.start or "") <= moment < self.end

    def pages(self, target: Target, after: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
        """Yield the pages of the event table that may hold it, from a place on."""
        client = target.account.dynamodb()
        options: dict[str, Any] = {"TableName": target.stores.event_table, "ConsistentRead": True}
        if after is not None:
            options["ExclusiveStartKey"] = after
        if self.subject is None:
            yield from client.get_paginator("scan").paginate(**options)
        else:
            options["KeyConditionExpression"] = "subject = :subject"
            options["ExpressionAttributeValues"] = {":subject": {"S": self.subject}}
            yield from client.get_paginator("query").paginate(**options)


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a replay got: everything before the place `after` was queued, or all. Its counts are of messages."""

    history: History
    after: Mapping[str, Any] | None = None
    is_done: bool = False
    read: int = 0
    queued: int = 0
    too_large: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "State":
        """Read a state; raises `click.ClickException` for what is none."""
        try:
            document = json.loads(path.read_text("utf-8"))
            history = History(**document.pop("history"))
            refused = {name: tuple(document.get(name, ())) for name in ("too_large", "unreadable")}
            return cls(**{**document, "history": history, **refused})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise click.ClickException(f"{path} is no state of a replay: say --restart to begin anew") from error

    def save(self, path: Path) -> None:
        """Write it, so that a program that ends meanwhile leaves the old one or the new one.

        Raises `click.ClickException` where that can't be done.
        """
        fresh = path.with_suffix(".new")
        try:
            path.parent.mkdir(exist_ok=True)
            fresh.write_text(json.dumps(asdict(self)), "utf-8")
            fresh.replace(path)
        except OSError as error:
            raise click.ClickException(f"{path} can't be written: {error.strerror}") from error


@click.command()
@click.option("--from", "start", type=TIME, help="The first time: 2026-03-12 or 2026-03-12T09:30:00Z (UTC).")
@click.option("--to", "end", type=TIME, help="The time before which it ends; now, if you don't say.")
@click.option(
    "--by",
    type=click.Choice([*TIMES]),
    default="stored",
    show_default=True,
    help="Which time counts: when a message was stored, or when it happened.",
)
@click.option("--customer", "customer_id", type=ID, help="Only this customer's.")
@click.option("--user", type=ID, help="Only this user's, on a local server of `demo` unless you say; without a scan.")
@click.option("--rate", type=click.FloatRange(0.001, 1e6), help="Messages per second at the most.")
@click.option("--restart", is_flag=True, help="Begin anew, although this replay ended half-way before.")
@click.option(
    "--state",
    "state_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file that keeps how far it got; by default one in .local/ for just these options.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Don't ask, although it is everything that a stack has stored.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
@target_options
def replay(
    *,
    target: Target,
    start: str | None,
    end: str | None,
    by: str,
    customer_id: str | None,
    user: str | None,
    rate: float | None,
    restart: bool,
    state_file: Path | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Hand stored messages to the consumer again.

    Use it after you corrected the consumer, or when the consumer is new. Messages go into the event queue, from which
    the consumer takes them. It reads the whole event table, unless you name a --user, and asks before it hands over all
    that a stack has stored. The same command goes on where it ended. Exits with 1 when a message does not fit into the
    queue or can't be read.

    \b
    Example:
      destination replay --customer acme --from 2026-03-01 --to 2026-04-01
    """
    if target.stores.consumer != "on":
        raise click.ClickException("This deployment has Consumer=off: nobody would take the messages from the queue")
    if user is not None and customer_id is None:
        if not target.is_local:
            raise click.UsageError("Name the --customer whose user this is")
        customer_id = demo.CUSTOMER
    if rate is not None and not math.isfinite(rate):
        raise click.UsageError(f"--rate {rate} is no number")
    _ask_unless(yes or dry_run or target.is_local or start or end or customer_id)
    subject = subject_key(customer_id, "user", user) if user is not None and customer_id is not None else None
    path = state_file or _state_path(target, start, end, by, customer_id, user)
    now = sortable(datetime.now(UTC))
    state = State(history=History(by=by, start=start, end=end or now, customer_id=customer_id, subject=subject))
    if not dry_run:
        state = state if restart else _resumed(state, path)
        state.save(path)
    try:
        for reached in _replay(target, state, rate=rate, dry_run=dry_run):
            state = reached
            if not dry_run:
                state.save(path)
    except EventStoreUnavailable as error:
        raise click.ClickException(
            f"AWS answered: {error.__cause__ or error}. "
            f"{counted(state.queued, 'message')} queued so far; the same command goes on"
        ) from error
    if not dry_run:
        path.unlink(missing_ok=True)
    _tell(state, as_json=as_json, dry_run=dry_run)


def _ask_unless(chosen: object) -> None:
    """Ask whether everything is meant, where nothing was chosen; raises `click.Abort`."""
    if not chosen:
        click.confirm("Hand all messages of all customers to the consumer again?", abort=True, err=True)


def _resumed(state: State, path: Path) -> State:
    """Return the state that was kept of a replay, or this one where there is none."""
    if not path.exists():
        return state
    kept = State.load(path)
    if replace(kept.history, end="") != replace(state.history, end=""):
        raise click.ClickException(f"{path} is the state of another replay: say --restart to begin anew")
    click.echo(f"Goes on where it ended, after {counted(kept.queued, 'message')}.", err=True)
    return kept


def _state_path(target: Target, *options: str | None) -> Path:
    """Return where the state of this very replay is."""
    said = json.dumps([target.account.endpoint_url, target.stores.event_table, *options])
    return LOCAL_FOLDER / f"replay-{hashlib.sha256(said.encode()).hexdigest()[:12]}.json"


def _replay(target: Target, state: State, *, rate: float | None, dry_run: bool) -> Iterator[State]:
    """Queue page after page, and yield how far it got after each; raises `EventStoreUnavailable`."""
    if state.is_done:
        return
    queue = EventQueue(target.account.sqs(), target.stores.event_queue_url)
    table = target.account.dynamodb().describe_table(TableName=target.stores.event_table)["Table"]
    pace = Pace(rate)
    total = table.get("ItemCount") if state.history.subject is None else None
    with progress("Replaying", total=total) as step:
        for page in state.history.pages(target, state.after):
            chosen, refused = _chosen(state.history, page["Items"])
            unread = len(refused)
            if not dry_run:
                for found in in_parallel(lambda items: list(_queue(queue, items, pace)), _by_subject(chosen)):
                    refused += found
            for _ in page["Items"]:
                step()
            state = replace(
                state,
                after=page.get("LastEvaluatedKey"),
                is_done="LastEvaluatedKey" not in page,
                read=state.read + len(page["Items"]),
                queued=state.queued + len(chosen) - (len(refused) - unread),
                too_large=(*state.too_large, *(one.message_id for one in refused if one.is_readable)),
                unreadable=(*state.unreadable, *(one.message_id for one in refused if not one.is_readable)),
            )
            yield state


def _chosen(history: History, items: Iterable[Item]) -> tuple[list[Item], list["Refused"]]:
    """Return the items to replay, and the unreadable ones."""
    chosen: list[Item] = []
    refused: list[Refused] = []
    for item in items:
        try:
            if history.holds(item):
                chosen.append(item)
        except Unreadable:
            refused.append(Refused(_name(item), is_readable=False))
    return chosen, refused


def _name(item: Item) -> str:
    """Return the message id of an item, or its position, which each item has."""
    name: str = item.get("message_id", {}).get("S") or item["position"]["S"]
    return name


def _by_subject(items: Sequence[Item]) -> list[list[Item]]:
    """Group items, each group in the order of the table: a FIFO queue keeps it."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item["subject"]["S"]].append(item)
    return list(groups.values())


class Pace:
    """Lets threads through at a rate, in pieces per second, or without one; `clock` and `sleep` are in seconds."""

    def __init__(
        self,
        rate: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds = 1 / rate if rate else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next = clock()
        self._lock = Lock()

    def wait(self) -> None:
        """Wait for one's turn."""
        with self._lock:
            now = self._clock()
            turn = max(self._next, now)
            self._next = turn + self._seconds
        self._sleep(turn - now)


class Refused(NamedTuple):
    """A message that was not queued: it is too large, or it can't be read."""

    message_id: str
    is_readable: bool


def _queue(queue: EventQueue, items: Sequence[Item], pace: Pace) -> Iterator[Refused]:
    """Queue items sequentially; yield the items that do not fit or can't be read."""
    for item in items:
        pace.wait()
        try:
            queue.write(record_of(image_of(item)))
        except (MessageTooLarge, Unreadable) as error:
            yield Refused(_name(item), isinstance(error, MessageTooLarge))


def _tell(state: State, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(
            json.dumps(
                {
                    "read": state.read,
                    "queued": state.queued,
                    "too_large": state.too_large,
                    "unreadable": state.unreadable,
                    "dry_run": dry_run,
                }
            )
        )
    else:
        would = "Would queue" if dry_run else "Queued"
        click.echo(f"{would} {counted(state.queued, 'message')} for the consumer; read {counted(state.read, 'item')}.")
        for message_id in state.too_large:
            click.echo(f"Too large for the queue: {printable(message_id)}", err=True)
        for message_id in state.unreadable:
            click.echo(f"Can't be read: {printable(message_id)}", err=True)
    if state.too_large or state.unreadable:
        raise click.exceptions.Exit(1)
