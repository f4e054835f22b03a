"""What the answers of a whole run must come to: how many were duplicates, how many failed, and how long they took."""

from dataclasses import dataclass
from math import ceil

from destination.segment.contract import STORE_FAULT_CODES
from destination.simulation.deliver import about
from destination.simulation.ledger import NO_CONNECTION, TIMED_OUT, Book, End, Ledger
from destination.simulation.traffic import Traffic

SLICES = 10
"""Of the time of a run: what happens in one or two of them is an outage, such as a function that was killed."""
SPREAD_SLICES = 4
"""In so many slices it is how the deployment works."""
NEAR_LIMIT = 0.9
"""Of the seconds that a sender waits: an answer that takes longer is in danger of being none."""
SLOW_SHARE = 0.01
"""Of the tries, which makes it the 99th percentile."""
FAILED_SHARE = 0.005
FEW = 2
UNEXPLAINED_SHARE = 0.02
"""Of the messages, those that may be a duplicate when they come for the first time. The function knows its own first
write when it repeats a store call, unless the store does not return what it found, as some local ones do."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What is known of the deployment: whether its stores meet faults to order, and how long its senders wait.

    `has_faults` is None where that is not known, as in AWS. A queue knows no duplicates.
    """

    has_faults: bool | None
    timeout_seconds: float
    is_table: bool
    in_batches: bool
    may_have_sent: bool


def judge_replies(ledger: Ledger, traffic: Traffic, circumstances: Circumstances) -> None:
    """Note in the ledger what is wrong with the answers of a run that came to its end."""
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
            "a message that comes for the first time is no duplicate",
            f"{unexplained:,} of {len(accepted):,} messages",
            expected='one delivery of each that is answered "stored"',
            found='none: every delivery was answered "duplicate"',
        )


def _judge_failures(ledger: Ledger) -> None:
    """Look for failures all over a run, where no fault of a store was ordered."""
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
    """Look for slow answers all over a run."""
    tries, limit = ledger.tries, NEAR_LIMIT * timeout_seconds * 1000
    slow = [
        ended
        for ended, milliseconds, label in zip(tries.ended, tries.milliseconds, tries.labels, strict=True)
        if label != NO_CONNECTION and (label == TIMED_OUT or milliseconds >= limit)
    ]
    if len(slow) > max(FEW, SLOW_SHARE * len(tries.labels)) and _is_spread(ledger, slow):
        ledger.breaches.add(
            "99 of 100 answers come well before their sender stops to wait",
            f"{len(slow):,} of {len(tries.labels):,} tries",
            expected=f"less than {limit / 1000:.1f} s",
            found=f"longer, {tries.counts[TIMED_OUT]:,} of them without any answer within {timeout_seconds:g} s",
        )


def _is_spread(ledger: Ledger, ended: list[float]) -> bool:
    """Whether times are spread over a run, unlike the times of an outage."""
    length = ledger.tries.seconds / SLICES or 1
    return len({min(SLICES, ceil(time / length)) for time in ended}) >= SPREAD_SLICES


def _most_common(ledger: Ledger) -> str:
    failing = [label for label, _ in ledger.tries.counts.most_common() if not label.startswith(("2", "4"))]
    return ", ".join(failing[:3])


def _note(ledger: Ledger, traffic: Traffic, book: Book, promise: str, *, expected: str, found: str) -> None:
    due = traffic.due(traffic.parcel(book.sending))
    ledger.breaches.add(promise, about(due.customer_id, due.body), expected=expected, found=found)
