"""What the request log of a deployment can be asked, whichever it is."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Protocol, Self

from destination.watching.lines import AccessLine, ConsumerFailure, FunctionLine, Line, Wanted

LONGEST_RETENTION = timedelta(days=3653)
"""Of CloudWatch's logs, short of for ever, which template.yaml does not offer."""
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True)
class Period:
    """A time that is looked at, and how to call it."""

    since: datetime
    until: datetime
    words: str

    @classmethod
    def last(cls, span: timedelta, words: str) -> Self:
        """Return a time that ends now."""
        now = datetime.now(UTC)
        return cls(since=now - span, until=now, words=words)

    @classmethod
    def everything(cls) -> Self:
        """Return the time of all that a log may hold."""
        return cls.last(LONGEST_RETENTION, "all that the log holds")


def parse_period(text: str) -> Period:
    """Return the period until now: of `30m`, `24h`, `7d` or `all`; raises `ValueError`."""
    if text == "all":
        return Period.everything()
    parts = re.fullmatch(r"([1-9]\d{0,3})([mhd])", text)
    if not parts:
        raise ValueError(f"{text} is no time: write 30m, 24h, 7d, or all")
    number, unit = int(parts[1]), _UNITS[parts[2]]
    words = f"the last {unit[:-1]}" if number == 1 else f"the last {number} {unit}"
    return Period.last(timedelta(**{unit: number}), words)


MAX_DIFFERENCE = 2
MAX_DIFFERENCE_SHARE = 0.01
"""By so many requests, or by this share, the lines of the function and of the API may differ: they are not written at
once, and a period ends between them."""
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(kw_only=True)
class Tally:
    """What became of messages of one customer and call type; refusals and failures by their codes."""

    accepted: int = 0
    duplicates: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    last_seen: datetime = NEVER

    def __iadd__(self, other: Self) -> Self:
        self.accepted += other.accepted
        self.duplicates += other.duplicates
        self.refused += other.refused
        self.failed += other.failed
        self.last_seen = max(self.last_seen, other.last_seen)
        return self


Caller = tuple[str | None, str | None]
"""Customer and call type, where they are known: neither is of a request that was refused before."""


@dataclass(kw_only=True)
class Figures:
    """What a log tells of a period: messages by callers, requests by route, status, and whether the function answered.

    `consumer_failures` counts tries of the consumer that failed, None where the log does not tell. `answered` counts
    requests by their status as the function wrote it, `accepted_wrongly` messages that it calls accepted or duplicate
    although it answered an error. `first` is the time of the first line there is.
    """

    tallies: defaultdict[Caller, Tally] = field(default_factory=lambda: defaultdict(Tally))
    answers: Counter[tuple[str, int | None, bool]] = field(default_factory=Counter)
    answered: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    accepted_wrongly: int = 0
    consumer_failures: int | None = 0
    first: datetime | None = None

    @property
    def total(self) -> Tally:
        """All of it."""
        total = Tally()
        for tally in self.tallies.values():
            total += tally
        return total

    @property
    def senders(self) -> set[str]:
        """The customers of whom a message was accepted."""
        return {customer for (customer, _), tally in self.tallies.items() if customer is not None and tally.accepted}

    def keep(self, customer_id: str) -> None:
        """Leave out the messages of all others, and all that names no customer: requests and contradictions."""
        self.answers.clear()
        self.answered.clear()
        self.accepted_wrongly = 0
        kept = {caller: tally for caller, tally in self.tallies.items() if caller[0] == customer_id}
        self.tallies = defaultdict(Tally, kept)

    def note_answer(self, status: int, requests: float, *, accepted: int) -> None:
        """Add what the function wrote of its answers with a status: requests, and messages that it calls accepted."""
        self.answered[status] += requests
        if status >= HTTPStatus.BAD_REQUEST:
            self.accepted_wrongly += accepted

    @property
    def contradictions(self) -> Sequence[str]:
        """Sentences about figures that do not fit each other, and what that can mean."""
        found = []
        if self.accepted_wrongly:
            found.append(
                f"{self.accepted_wrongly:,} messages are counted as accepted or duplicates, and were answered an "
                "error: the function counts wrongly."
            )
        for kind in (2, 4) if self.answers else ():
            by_function = round(sum(count for status, count in self.answered.items() if status // 100 == kind))
            by_api = sum(
                count
                for (route, status, own), count in self.answers.items()
                if own and status and status // 100 == kind and route.startswith("POST ")  # not /health
            )
            if abs(by_function - by_api) <= max(MAX_DIFFERENCE, MAX_DIFFERENCE_SHARE * max(by_function, by_api)):
                continue
            why = (
                "Their functions ended before they could write a line, or they count what they answer wrongly."
                if by_api > by_function
                else "API Gateway answered otherwise, such as after a time-out, or its lines are missing."
            )
            found.append(
                f"The function's lines tell of {by_function:,} requests that it answered {kind}xx, and the API's of "
                f"{by_api:,}. {why}"
            )
        return found

    def begin(self, time: datetime) -> None:
        """Note that there is a line of a time."""
        self.first = time if self.first is None else min(self.first, time)


@dataclass(frozen=True, kw_only=True)
class KeyUse:
    """A request with a key: its time, and the status of the function's answer."""

    time: datetime
    status: int | None


KeyUses = dict[str | None, KeyUse]
"""The last use of each key of a customer, by the start of its hash. None has the last line that names no key."""


def note_use(uses: KeyUses, key: str | None, use: KeyUse) -> None:
    """Add a use, unless a later one is known."""
    if key not in uses or uses[key].time <= use.time:
        uses[key] = use


class RequestLog(Protocol):
    """The lines of a function and of the API before it. Each method raises `click.ClickException` where none are."""

    @property
    def remarks(self) -> Sequence[str]:
        """What a person should know of the answers so far."""

    def __str__(self) -> str:
        """Say which log it is."""

    def lines_of(self, message_id: str, period: Period) -> Sequence[FunctionLine]:
        """Return what the function wrote of a message, oldest first."""

    def answers(self, lines: Collection[FunctionLine]) -> Mapping[str, AccessLine]:
        """Return what the API answered to the requests of some lines, by their ids; some may be unknown."""

    def figures(self, period: Period) -> Figures:
        """Count what was written in a period."""

    def consumer_failures(self, message_id: str, period: Period) -> Sequence[ConsumerFailure]:
        """Return the failures of the consumer to take a message, oldest first, as far as the log has them."""

    def key_uses(self, customer_id: str, period: Period) -> KeyUses:
        """Return when each key of a customer was last used in a period."""

    def follow(self, wanted: Wanted, last: int) -> Iterator[Line | None]:
        """Yield the last lines, then lines as they come, for ever; None after each look for them."""


def oldest_first(lines: Iterable[FunctionLine]) -> list[FunctionLine]:
    """Sort lines."""
    return sorted(lines, key=lambda line: line.time)
