"""What `destination simulate` sent and what became of it, as its sender sees it."""

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
    """What became of a message for its sender; of its deliveries the best one counts."""

    UNFINISHED = 0
    GIVEN_UP = 1
    REFUSED = 2
    ACCEPTED = 3


@dataclass(kw_only=True)
class Tries:
    """Every try: when it ended (seconds from the start), what it took (milliseconds), and what came of it."""

    ended: "array[float]" = field(default_factory=lambda: array("f"))
    milliseconds: "array[float]" = field(default_factory=lambda: array("f"))
    labels: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """How long they took in all."""
        return max(self.ended, default=0.0)

    def add(self, ended: float, milliseconds: float, label: str) -> None:
        """Note a try."""
        self.ended.append(ended)
        self.milliseconds.append(milliseconds)
        self.labels.append(sys.intern(label))
        self.counts[label] += 1


@dataclass(kw_only=True)
class Copy:
    """One copy of a message: when its first try began, and when it was accepted, both in seconds from the start."""

    begun: float
    accepted: float = inf


@dataclass(kw_only=True)
class Book:
    """The deliveries of one valid message.

    `sending` is how to make it again. `copies` are known by their hash. `stored` and `duplicates` count answers that
    say so, and `is_unclear` tells that a try had no answer, or one that does not say whether the message was written.
    """

    sending: Sending
    copies: dict[bytes, Copy] = field(default_factory=dict)
    stored: int = 0
    duplicates: int = 0
    is_unclear: bool = False


@dataclass(frozen=True, kw_only=True)
class SentReject:
    """A message that must be refused and can be kept: how to make it again, whose it is, and the code that is due."""

    sending: Sending
    subject: str | None
    code: str


@dataclass(kw_only=True)
class Ledger:
    """What was sent and what became of it: counts of deliveries, and the end of each valid message.

    `deletes` holds the messages that name users to erase, by the subjects of these. `rejects` may be kept among the
    rejects, and those in `kept` must be. `rejected` counts the codes of messages of batches. `invalid_given_up` counts
    messages that must be refused and were not, until their sender gave them up. `later` are messages that came
    after their users were erased. `resent_unclear` counts messages of batches that were sent again after an answer that
    does not say what was written.
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
        """Tries that were not the first one of a request."""
        return max(0, len(self.tries.labels) - self.requests)

    @property
    def accepted(self) -> int:
        """Deliveries that a 2xx ended."""
        return self.at_first_try + self.after_retries

    @property
    def finished(self) -> int:
        """Deliveries that came to an end."""
        return self.accepted + self.given_up + self.refused + self.refused_as_expected

    def settle(self, fingerprint: Fingerprint | None, end: End, *, tries: int, text: str = "") -> None:
        """Note the end of a delivery; a message without a fingerprint is one that must be refused."""
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
