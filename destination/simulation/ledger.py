"""The sent messages of `destination simulate` and their outcomes, from the sender's point of view."""

import sys
from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf

from destination.simulation.breaches import Breaches
from destination.simulation.fingerprint import Fingerprint, RejectKey
from destination.simulation.traffic import Sending

TIMED_OUT = "timed out"
NO_CONNECTION = "no connection"


class End(IntEnum):
    """The outcome of a message for its sender; the best of its deliveries counts."""

    UNFINISHED = 0
    GIVEN_UP = 1
    REFUSED = 2
    ACCEPTED = 3


@dataclass(kw_only=True)
class Tries:
    """All tries: when each ended (seconds from the start), how long it took (milliseconds), and its answer."""

    ended: "array[float]" = field(default_factory=lambda: array("f"))
    milliseconds: "array[float]" = field(default_factory=lambda: array("f"))
    labels: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """The total duration."""
        return max(self.ended, default=0.0)

    def add(self, ended: float, milliseconds: float, label: str) -> None:
        """Add a try."""
        self.ended.append(ended)
        self.milliseconds.append(milliseconds)
        self.labels.append(sys.intern(label))
        self.counts[label] += 1


@dataclass(kw_only=True)
class Copy:
    """One copy of a message: the start of its first try, and its acceptance, both in seconds from the start."""

    begun: float
    accepted: float = inf


@dataclass(kw_only=True)
class Book:
    """The deliveries of one valid message.

    `sending` can create the message again. `copies` are identified by their hash. `stored` and `duplicates` count
    answers with these words. `is_unclear` says that a try had no answer, or an answer that does not say whether the
    message was written.
    """

    sending: Sending
    copies: dict[bytes, Copy] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    is_unclear: bool = False


@dataclass(frozen=True, kw_only=True)
class SentReject:
    """A message that must be refused and can be kept: how to create it again, its subject, and the expected code."""

    sending: Sending
    subject: str | None
    code: str


@dataclass(kw_only=True)
class Ledger:
    """The sent messages and their outcomes: counts of deliveries, and the end of each valid message.

    `deletes` has the delete messages by the subjects of their users. `rejects` may be kept among the rejects, and those
    in `kept` must be. `rejected` counts the codes of batch messages. `invalid_given_up` counts messages that must be
    refused and were not, until their sender gave them up. `later` are messages that arrived after their users were
    erased. `resent_unclear` counts batch messages that were sent again after an answer that does not say which messages
    were written.
    """

    tries: Tries = field(default_factory=Tries)
    messages: dict[Fingerprint, End] = field(default_factory=dict)
    books: dict[Fingerprint, Book] = field(default_factory=dict)
    breaches: Breaches = field(default_factory=Breaches)
    deletes: dict[str, Fingerprint] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)
    later: set[Fingerprint] = field(default_factory=set)
    rejects: dict[RejectKey, SentReject] = field(default_factory=dict)
    kept: set[RejectKey] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    begun: int = 0
    requests: int = 0
    duplicates: int = 0
    at_first_try: int = 0
    after_retries: int = 0
    given_up: int = 0
    refused: int = 0
    refused_as_expected: int = 0
    accepted_though_invalid: int = 0
    invalid_given_up: int = 0
    resent_unclear: int = 0

    @property
    def retries(self) -> int:
        """Tries after the first one of each request."""
        return max(0, len(self.tries.labels) - self.requests)

    @property
    def accepted(self) -> int:
        """Deliveries that ended with a 2xx."""
        return self.at_first_try + self.after_retries

    @property
    def finished(self) -> int:
        """Finished deliveries."""
        return self.accepted + self.given_up + self.refused + self.refused_as_expected

    def settle(self, fingerprint: Fingerprint | None, end: End, *, tries: int, text: str = "") -> None:
        """Record the end of a delivery; a message without a fingerprint must be refused."""
        if fingerprint is not None:
            self.messages[fingerprint] = max(self.messages[fingerprint], end)
        if end is End.GIVEN_UP:
            self.given_up += 1
            self.invalid_given_up += fingerprint is None
        elif end is End.ACCEPTED:
            self.at_first_try += tries == 1
            self.after_retries += tries > 1
            self.accepted_though_invalid += fingerprint is None
        elif fingerprint is None:
            self.refused_as_expected += 1
        else:
            self.refused += 1
            self.refusals[text] += 1
