"""The queries that the request log of every deployment answers."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Protocol, Self

from destination.watching.lines import AccessLine, ConsumerFailure, FunctionLine, Line, Wanted

LONGEST_RETENTION = timedelta(days=3653)
"""The longest retention of CloudWatch's logs except unlimited, which template.yaml does not offer."""
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, kw_only=True)
class Period:
    """A period of time, and its description."""

    since: datetime
    until: datetime
    words: str

    @classmethod
    def last(cls, span: timedelta, words: str) -> Self:
        """Return a period that ends now."""
        now = datetime.now(UTC)
        return cls(since=now - span, until=now, words=words)

    @classmethod
    def everything(cls) -> Self:
        """Return the period of everything that a log may have."""
        return cls.last(LONGEST_RETENTION, "all that the log holds")


def parse_period(text: str) -> Period:
    """Return the period until now: of `30m`, `24h`, `7d` or `all`; raises `ValueError`."""
    if text == "all":
        return Period.everything()
    parts = re.fullmatch(r"([1-9]\d{0,3})([mhd])", text)
    if not parts:
        raise ValueError(f"{text} is not a period: write 30m, 24h, 7d, or all")
    number, unit = int(parts[1]), _UNITS[parts[2]]
    words = f"the last {unit[:-1]}" if number == 1 else f"the last {number} {unit}"
    return Period.last(timedelta(**{unit: number}), words)


MAX_DIFFERENCE = 2
MAX_DIFFERENCE_SHARE = 0.01
"""The counts of the function's and the API's lines may differ by this many requests, or by this share: lines are not
written at once, and a period ends between them."""
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(kw_only=True)
class Tally:
    """The messages of one customer and call type by outcome; refusals and failures by code."""

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
"""Customer and call type, if known: a request that was refused early has neither."""


@dataclass(kw_only=True)
class Figures:
    """The figures of a period: messages by caller; requests by route, status, and whether the function answered.

    `consumer_failures` counts failed tries of the consumer, None if the log does not have them. `answered` counts
    requests by the status in the function's lines. `accepted_wrongly` counts messages whose line says accepted or
    duplicate although the answer was an error. `first` is the time of the first line.
    """

    tallies: defaultdict[Caller, Tally] = field(default_factory=lambda: defaultdict(Tally))
    answers: Counter[tuple[str, int | None, bool]] = field(default_factory=Counter)
    answered: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    accepted_wrongly: int = 0
    consumer_failures: int | None = 0
    first: datetime | None = None

    @property
    def total(self) -> Tally:
        """The sum of all tallies."""
        total = Tally()
        for tally in self.tallies.values():
            total += tally
        return total

    @property
    def senders(self) -> set[str]:
        """The customers with an accepted message."""
        return {customer for (customer, _), tally in self.tallies.items() if customer is not None and tally.accepted}

    def keep(self, customer_id: str) -> None:
        """Remove the messages of all other customers, and figures without a customer: requests and contradictions."""
        self.answers.clear()
        self.answered.clear()
        self.accepted_wrongly = 0
        kept = {caller: tally for caller, tally in self.tallies.items() if caller[0] == customer_id}
        self.tallies = defaultdict(Tally, kept)

    def note_answer(self, status: int, requests: float, *, accepted: int) -> None:
        """Add the function's answers with a status: requests, and messages whose line says accepted."""
        self.answered[status] += requests
        if status >= HTTPStatus.BAD_REQUEST:
            self.accepted_wrongly += accepted

    @property
    def contradictions(self) -> Sequence[str]:
        """Sentences about figures that contradict each other, with possible reasons."""
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
                "Their functions ended before they could write a line, or they count their answers wrongly."
                if by_api > by_function
                else "API Gateway gave another answer, such as after a time-out, or its lines are missing."
            )
            found.append(
                f"The function's lines have {by_function:,} requests that it answered {kind}xx, and the API's have "
                f"{by_api:,}. {why}"
            )
        return found

    def begin(self, time: datetime) -> None:
        """Note the time of a line."""
        self.first = time if self.first is None else min(self.first, time)


@dataclass(frozen=True, kw_only=True)
class KeyUse:
    """A request with a key: its time, and the status of the function's answer."""

    time: datetime
    status: int | None


KeyUses = dict[str | None, KeyUse]
"""The last use of each key of a customer, by the start of its hash. None has the last line without a key."""


def note_use(uses: KeyUses, key: str | None, use: KeyUse) -> None:
    """Add a use, unless a later one is known."""
    if key not in uses or uses[key].time <= use.time:
        uses[key] = use


class RequestLog(Protocol):
    """The lines of a function and its API. Each method raises `click.ClickException` if there are none."""

    @property
    def remarks(self) -> Sequence[str]:
        """Remarks for the user about the answers so far."""

    def __str__(self) -> str:
        """Return the name of the log."""

    def lines_of(self, message_id: str, period: Period) -> Sequence[FunctionLine]:
        """Return the function's lines about a message, oldest first."""

    def answers(self, lines: Collection[FunctionLine]) -> Mapping[str, AccessLine]:
        """Return the API's answers to the requests of some lines, by request id; some may be unknown."""

    def figures(self, period: Period) -> Figures:
        """Return the figures of a period."""

    def consumer_failures(self, message_id: str, period: Period) -> Sequence[ConsumerFailure]:
        """Return the consumer's failures to handle a message, oldest first, as far as the log has them."""

    def key_uses(self, customer_id: str, period: Period) -> KeyUses:
        """Return when each key of a customer was last used in a period."""

    def follow(self, wanted: Wanted, last: int) -> Iterator[Line | None]:
        """Yield the last lines, then new lines without an end; None after each poll."""


def oldest_first(lines: Iterable[FunctionLine]) -> list[FunctionLine]:
    """Return lines, oldest first."""
    return sorted(lines, key=lambda line: line.time)
