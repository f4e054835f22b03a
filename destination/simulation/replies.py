"""Judge the answers of a whole run: the numbers of duplicates and failures, and the durations."""

from dataclasses import dataclass
from math import ceil

from destination.segment.contract import STORE_FAULT_CODES
from destination.simulation.deliver import about
from destination.simulation.ledger import NO_CONNECTION, TIMED_OUT, Book, End, Ledger
from destination.simulation.traffic import Traffic

SLICES = 10
"""Parts of a run's time: events in one or two of them are an outage, such as a killed function."""
SPREAD_SLICES = 4
"""An event in at least this many slices is the normal behaviour of the deployment."""
NEAR_LIMIT = 0.9
"""The share of the sender's time-out above which an answer is almost too late."""
SLOW_SHARE = 0.01
"""The share of the tries, which makes it the 99th percentile."""
FAILED_SHARE = 0.005
FEW = 2
UNEXPLAINED_SHARE = 0.02
"""The share of the messages that may be a duplicate at their first delivery. The function recognises its own first
write when it repeats a store call. But some local stores don't return the existing item."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Facts about the deployment: whether faults are injected into its stores, and how long its senders wait.

    `has_faults` is None if that is unknown, as in AWS. A queue has no duplicates.
    """

    has_faults: bool | None
    timeout_seconds: float
    is_table: bool
    in_batches: bool
    may_have_sent: bool


def judge_replies(ledger: Ledger, traffic: Traffic, circumstances: Circumstances) -> None:
    """Record the faults of the answers of a finished run in the ledger."""
    _judge_refusals(ledger)
    if circumstances.is_table:
        _judge_duplicates(ledger, traffic, circumstances)
    if circumstances.has_faults is False:
        _judge_failures(ledger)
        if not circumstances.in_batches:
            _judge_times(ledger, circumstances.timeout_seconds)


def _judge_refusals(ledger: Ledger) -> None:
    if ledger.invalid_given_up:
        ledger.breaches.add(
            "a message that must be refused gets a final answer",
            f"{ledger.invalid_given_up:,} messages that must be refused",
            expected="a 4xx or a 501",
            found=f"only answers that are retried, until they were given up: {_most_common(ledger)}",
        )


def _judge_duplicates(ledger: Ledger, traffic: Traffic, circumstances: Circumstances) -> None:
    """Compare how many answers said "stored" and "duplicate" with how often each message was sent."""
    books = [
        (book, ledger.messages[fingerprint]) for fingerprint, book in ledger.books.items() if not book.sending.deletes
    ]
    accepted = [book for book, end in books if end is End.ACCEPTED]
    if circumstances.in_batches:
        stored = sum(book.stored for book in accepted) - ledger.duplicates
        doubly = max(0, stored - len(accepted) - len(ledger.deletes))
        copies = sum(book.stored - 1 for book in accepted) + sum(
            ledger.books[one].stored for one in ledger.deletes.values()
        )
        unexplained = ledger.duplicates - copies - ledger.resent_unclear
    else:
        twice = [book for book in accepted if book.stored > 1]
        for book in twice:
            _note(
                ledger,
                traffic,
                book,
                'only one delivery of a message is answered "stored"',
                expected=f"1 of {book.stored + book.duplicates} accepted deliveries",
                found=f"{book.stored}",
            )
        doubly = 0
        unexplained = sum(not book.stored and not book.is_unclear for book in accepted)
    if doubly:
        ledger.breaches.add(
            'only one delivery of a message is answered "stored"',
            f"{len(accepted):,} messages",
            expected='at most as many answers "accepted" as messages, the others as "duplicates"',
            found=f"{doubly:,} more",
        )
    if not circumstances.may_have_sent and unexplained > max(FEW, UNEXPLAINED_SHARE * len(accepted)):
        ledger.breaches.add(
            "a message that is sent for the first time is not a duplicate",
            f"{unexplained:,} of {len(accepted):,} messages",
            expected='one delivery of each that is answered "stored"',
            found='none: every delivery was answered "duplicate"',
        )


def _judge_failures(ledger: Ledger) -> None:
    """Look for failures throughout a run without injected store faults."""
    tries = ledger.tries
    labels = {label for label in tries.counts if label.partition(" ")[2] in STORE_FAULT_CODES}
    failed = [ended for ended, label in zip(tries.ended, tries.labels, strict=True) if label in labels]
    if len(failed) > max(FEW, FAILED_SHARE * len(tries.labels)) and _is_spread(ledger, failed):
        ledger.breaches.add(
            "nothing fails while all stores work",
            f"{len(failed):,} of {len(tries.labels):,} tries",
            expected="no 503, since no faults were ordered (serve --faults)",
            found=", ".join(f"{tries.counts[label]:,} times {label}" for label in sorted(labels)),
        )


def _judge_times(ledger: Ledger, timeout_seconds: float) -> None:
    """Look for slow answers throughout a run."""
    tries, limit = ledger.tries, NEAR_LIMIT * timeout_seconds * 1000
    slow = [
        ended
        for ended, milliseconds, label in zip(tries.ended, tries.milliseconds, tries.labels, strict=True)
        if label != NO_CONNECTION and (label == TIMED_OUT or milliseconds >= limit)
    ]
    if len(slow) > max(FEW, SLOW_SHARE * len(tries.labels)) and _is_spread(ledger, slow):
        ledger.breaches.add(
            "99 of 100 answers arrive well before their sender stops waiting",
            f"{len(slow):,} of {len(tries.labels):,} tries",
            expected=f"less than {limit / 1000:.1f} s",
            found=f"longer, {tries.counts[TIMED_OUT]:,} of them without any answer within {timeout_seconds:g} s",
        )


def _is_spread(ledger: Ledger, ended: list[float]) -> bool:
    """Return whether times are spread over a run, unlike the times of an outage."""
    length = ledger.tries.seconds / SLICES or 1
    return len({min(SLICES, ceil(time / length)) for time in ended}) >= SPREAD_SLICES


def _most_common(ledger: Ledger) -> str:
    failing = [label for label, _ in ledger.tries.counts.most_common() if not label.startswith(("2", "4"))]
    return ", ".join(failing[:3])


def _note(ledger: Ledger, traffic: Traffic, book: Book, promise: str, *, expected: str, found: str) -> None:
    due = traffic.due(traffic.parcel(book.sending))
    ledger.breaches.add(promise, about(due.customer_id, due.body), expected=expected, found=found)
