"""Pass stored messages to the consumer again, through the event queue.

The queue's consumer calls the same `consumer/handle.py`, with its retries and dead letters.
"""

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import click

from consumer.runtime.stored import Unreadable, image_of, record_of
from destination.console import counted, progress
from destination.deployment.parallel import in_parallel
from destination.deployment.target import Target
from destination.paths import LOCAL_FOLDER
from handler.errors import MessageTooLarge
from handler.sinks.sqs import EventQueue

TIMES = {"stored": "stored_at", "happened": "timestamp"}
"""Value of `--by` -> attribute."""
Item = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplayRange:
    """The messages to replay: from a time until before another, of all customers, one customer, or one subject."""

    by: str
    start: str | None
    end: str
    customer_id: str | None
    subject: str | None

    def holds(self, item: Item) -> bool:
        """Return whether a stored message is in the range; raises `Unreadable` for an item without a time."""
        try:
            is_theirs = self.customer_id in (None, item["customer_id"]["S"])
            moment: str = item[TIMES[self.by]]["S"]
        except KeyError as error:
            raise Unreadable("an attribute is missing, or of another type", {}) from error
        return is_theirs and (self.start or "") <= moment < self.end

    def pages(self, target: Target, after: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
        """Yield the pages of the event table that may have matching messages, starting after a place."""
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
class ReplayState:
    """The progress of a replay: everything before the place `after` is queued, or everything. It counts messages."""

    history: ReplayRange
    after: Mapping[str, Any] | None = None
    is_done: bool = False
    read: int = 0
    queued: int = 0
    too_large: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> "ReplayState":
        """Read a state; raises `click.ClickException` for an invalid file."""
        try:
            document = json.loads(path.read_text("utf-8"))
            history = ReplayRange(**document.pop("history"))
            refused = {name: tuple(document.get(name, ())) for name in ("too_large", "unreadable")}
            return cls(**{**document, "history": history, **refused})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise click.ClickException(f"{path} is not the state of a replay: use --restart to begin again") from error

    def save(self, path: Path) -> None:
        """Write the state atomically: after an interruption, the file has the old state or the new one.

        Raises `click.ClickException` if that fails.
        """
        fresh = path.with_suffix(".new")
        try:
            path.parent.mkdir(exist_ok=True)
            fresh.write_text(json.dumps(asdict(self)), "utf-8")
            fresh.replace(path)
        except OSError as error:
            raise click.ClickException(f"{path} can't be written: {error.strerror}") from error


def resumed(state: ReplayState, path: Path) -> ReplayState:
    """Return the saved state of a replay, or this one if nothing is saved."""
    if not path.exists():
        return state
    kept = ReplayState.load(path)
    if replace(kept.history, end="") != replace(state.history, end=""):
        raise click.ClickException(f"{path} is the state of another replay: use --restart to begin again")
    click.echo(f"Continues where it ended, after {counted(kept.queued, 'message')}.", err=True)
    return kept


def state_path(target: Target, *options: str | None) -> Path:
    """Return the path of the state of exactly this replay."""
    said = json.dumps([target.account.endpoint_url, target.stores.event_table, *options])
    return LOCAL_FOLDER / f"replay-{hashlib.sha256(said.encode()).hexdigest()[:12]}.json"


def replay_pages(target: Target, state: ReplayState, *, rate: float | None, dry_run: bool) -> Iterator[ReplayState]:
    """Queue page after page, and yield the progress after each; raises `EventStoreUnavailable`."""
    if state.is_done:
        return
    queue = EventQueue(target.account.sqs(), target.stores.event_queue_url)
    table = target.account.dynamodb().describe_table(TableName=target.stores.event_table)["Table"]
    pace = RateLimit(rate)
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


def _chosen(history: ReplayRange, items: Iterable[Item]) -> tuple[list[Item], list["NotQueued"]]:
    """Return the items to replay, and the unreadable ones."""
    chosen: list[Item] = []
    refused: list[NotQueued] = []
    for item in items:
        try:
            if history.holds(item):
                chosen.append(item)
        except Unreadable:
            refused.append(NotQueued(_name(item), is_readable=False))
    return chosen, refused


def _name(item: Item) -> str:
    """Return the message id of an item, or its position if it has none."""
    name: str = item.get("message_id", {}).get("S") or item["position"]["S"]
    return name


def _by_subject(items: Sequence[Item]) -> list[list[Item]]:
    """Group items by subject, in the order of the table, which a FIFO queue keeps."""
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item["subject"]["S"]].append(item)
    return list(groups.values())


class RateLimit:
    """Limits threads to a number of pieces per second, or not at all; `clock` and `sleep` use seconds."""

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
        """Wait until the next piece may start."""
        with self._lock:
            now = self._clock()
            turn = max(self._next, now)
            self._next = turn + self._seconds
        self._sleep(turn - now)


class NotQueued(NamedTuple):
    """A message that was not queued: it is too large, or it can't be read."""

    message_id: str
    is_readable: bool


def _queue(queue: EventQueue, items: Sequence[Item], pace: RateLimit) -> Iterator[NotQueued]:
    """Queue items one by one; yield the items that are too large or can't be read."""
    for item in items:
        pace.wait()
        try:
            queue.write(record_of(image_of(item)))
        except (MessageTooLarge, Unreadable) as error:
            yield NotQueued(_name(item), isinstance(error, MessageTooLarge))
