"""Check each stored item of a run: its key, its attributes, and which copy of a message it is."""

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from math import inf

from destination.deployment.target import Target
from destination.segment.contract import DELETE
from destination.segment.due import Due, escaped, read_sortable, sha256
from destination.simulation.deliver import about
from destination.simulation.fingerprint import Fingerprint, variant_of
from destination.simulation.ledger import Book, End, Ledger
from destination.simulation.reconcile import read_everything
from destination.simulation.stored import Stored, differences, short
from destination.simulation.traffic import Traffic

MAX_STRANGERS = 2000
"""Limit for remembered unexpected items; further ones are only counted."""
SHOWN_LOSSES = 20
EXPIRY_TOLERANCE_SECONDS = 1
"""The function computes the expiry from a time with a fraction, and stores a rounded value."""
CLOCK_TOLERANCE_SECONDS = 120
"""The function's clock may differ by this much from this machine's clock."""

SAME_CONTENT = "a stored message equals the sent message"
OWN_KEY = "a message is stored under its own subject and position"
FIRST_WRITE = "of several copies of a message, the first stored one stays"
KNOWN_COPY = "the times of a stored message come from one of its copies"
NOT_LOST = "an accepted message is stored"
NOTHING_ELSE = "nothing is stored that was not sent"


class Audit:
    """Takes stored items one by one, and records their faults in the ledger.

    `began_at` and the argument of `finish` are seconds since 1970. If an earlier run with the same
    seed `may_have_sent` the same messages, an item may come from it.
    """

    def __init__(
        self, target: Target, traffic: Traffic, ledger: Ledger, *, began_at: float, may_have_sent: bool
    ) -> None:
        self._target = target
        self._traffic = traffic
        self._ledger = ledger
        self._began_at = began_at
        self._may_have_sent = may_have_sent
        self._is_table = target.stores.sink.is_queryable
        self._retention_days = int(target.stores.event_retention_days or 0)
        self._strangers: list[tuple[Stored, Fingerprint]] = []

    def take(self, stored: Stored, fingerprint: Fingerprint) -> None:
        """Check an item, or remember it if no message should be stored like this."""
        book = self._ledger.books.get(fingerprint)
        if book is None:
            if len(self._strangers) < MAX_STRANGERS:
                self._strangers.append((stored, fingerprint))
            return
        for promise, expected, found in (*self._wrong_copy(stored, book), *self._wrong_times(stored)):
            self._note(promise, book, expected=expected, found=found)
        if stored.envelope is not None:
            for promise, expected, found in self._wrong_envelope(stored):
                self._note(promise, book, expected=expected, found=found)

    def finish(self, counts: Mapping[Fingerprint, int], erased: Collection[str] = ()) -> None:
        """Explain unexpected items, and where lost messages are; `erased` are the subjects of erased users."""
        sent = {fingerprint.identity: fingerprint for fingerprint in self._ledger.messages}
        by_content = {fingerprint.content: fingerprint for fingerprint in self._ledger.messages}
        unknown = []
        for stored, fingerprint in self._strangers:
            known = sent.get(fingerprint.identity)
            moved = by_content.get(fingerprint.content)
            if known is not None:
                self._note_differences(SAME_CONTENT, self._ledger.books[known], stored)
            elif moved is not None:
                self._note_differences(OWN_KEY, self._ledger.books[moved], stored)
            else:
                unknown.append(stored)
        found = {fingerprint.identity for fingerprint in counts}
        contents = {fingerprint.content for fingerprint in counts}
        lost = [
            fingerprint
            for fingerprint, end in self._ledger.messages.items()
            if end is End.ACCEPTED and fingerprint.identity not in found and fingerprint.content not in contents
        ]
        taken = list(self._find_lost(lost, unknown, erased))
        for stored in unknown:
            if stored not in taken and not self._may_have_sent:
                name = f"{stored.customer_id}, {stored.facts.get('type')} {stored.facts.get('message_id')}"
                where = f"an item under {stored.subject} and {stored.position}"
                self._ledger.breaches.add(NOTHING_ELSE, name, expected="no item", found=where)

    def _find_lost(
        self, lost: Collection[Fingerprint], unknown: Collection[Stored], erased: Collection[str]
    ) -> Iterator[Stored]:
        """Report what is stored in place of lost messages; yield the items that this explains."""
        elsewhere: list[Stored] = list(unknown)
        if lost and self._is_table and self._target.is_local:
            own = frozenset(self._traffic.customer_ids)
            # Older items come from earlier runs, which send the same message ids for other customers.
            began_at = f"{datetime.fromtimestamp(self._began_at, UTC):%Y-%m-%dT%H:%M:%S}"
            elsewhere += [
                stored
                for stored in read_everything(self._target)
                if stored.customer_id not in own and stored.facts.get("stored_at", began_at) >= began_at
            ]
        by_id: dict[str, list[Stored]] = {}
        for stored in elsewhere:
            by_id.setdefault(stored.facts.get("message_id", ""), []).append(stored)
        erased_users = {subject.partition("#")[2]: subject for subject in erased}
        for place, fingerprint in enumerate(lost):
            book = self._ledger.books[fingerprint]
            due = self._due(book)
            like = [one for one in by_id.get(due.facts["message_id"], []) if one.facts.get("type") == due.type]
            if like:
                yield like[0]
            if place >= SHOWN_LOSSES:
                continue
            if like and like[0].customer_id not in ("", due.customer_id):
                who = f"it is stored for the customer {like[0].customer_id}, under {like[0].subject}"
                self._note(NOT_LOST, book, expected=f"an item under {due.subject}", found=who)
            elif like:
                self._note_differences(SAME_CONTENT, book, like[0])
            else:
                namesake = erased_users.get(due.subject.partition("#")[2])
                why = (
                    f"none; another customer's user of this id was erased, {namesake}"
                    if namesake and namesake != due.subject
                    else "none"
                )
                where = f"an item under {due.subject} and {due.position}"
                self._note(NOT_LOST, book, expected=where, found=why)

    def _wrong_copy(self, stored: Stored, book: Book) -> Iterator[tuple[str, str, str]]:
        if self._may_have_sent or not self._is_table:
            return
        variant = variant_of(stored.facts.get("timestamp"), stored.message)
        copy = book.copies.get(variant)
        if copy is None:
            yield KNOWN_COPY, "sentAt, receivedAt and timestamp as they were sent", _times(stored)
            return
        earliest = min((other.accepted for other in book.copies.values()), default=inf)
        if earliest < copy.begun:
            yield FIRST_WRITE, "the copy that was accepted first", f"one that was sent after that, {_times(stored)}"

    def _wrong_times(self, stored: Stored) -> Iterator[tuple[str, str, str]]:
        text = stored.facts.get("stored_at", "")
        try:
            stored_at = read_sortable(text).timestamp()
        except ValueError:
            yield "stored_at is the time of the write", "a time such as 2020-05-09T23:54:49.200000Z", short(text)
            return
        if not self._may_have_sent and stored_at < self._began_at - CLOCK_TOLERANCE_SECONDS:
            yield "stored_at is the time of the write", "a time within this run", text
        if not self._is_table:
            return
        days = self._retention_days
        lives = days and stored.facts.get("type") != DELETE
        seconds = None if stored.expires_at is None else stored.expires_at - int(stored_at)
        due = days * 86_400 if lives else None
        if (seconds is None) != (due is None) or abs((seconds or 0) - (due or 0)) > EXPIRY_TOLERANCE_SECONDS:
            yield (
                "an item expires after EventRetentionDays",
                "never" if due is None else f"{due:,} seconds after stored_at ({days} days)",
                "never" if seconds is None else f"{seconds:,} seconds after stored_at",
            )

    def _wrong_envelope(self, stored: Stored) -> Iterator[tuple[str, str, str]]:
        """Compare a queue message's envelope with the expected one; the facts are right, as the fingerprint matches."""
        erasure = f"\n{DELETE}" if stored.facts.get("type") == DELETE else ""
        due = {name: escaped(stored.facts.get(name, "")) for name in ("customer_id", "type", "message_id")}
        if self._target.stores.event_queue_url.endswith(".fifo"):
            due["MessageGroupId"] = sha256(stored.subject)
            due["MessageDeduplicationId"] = sha256(f"{stored.subject}\n{stored.position}{erasure}")
        envelope = stored.envelope or {}
        for name, text in due.items():
            if envelope.get(name) != text:
                yield f"a queue message has the expected {name}", text, str(envelope.get(name, "nothing"))

    def _note_differences(self, promise: str, book: Book, stored: Stored) -> None:
        due = self._due(book)
        for path, expected, found in list(differences(due, stored))[:1]:
            name = f"{about(due.customer_id, due.body)}, {path}"
            self._ledger.breaches.add(promise, name, expected=expected or "nothing", found=found or "nothing")

    def _note(self, promise: str, book: Book, *, expected: str, found: str) -> None:
        due = self._due(book)
        self._ledger.breaches.add(promise, about(due.customer_id, due.body), expected=expected, found=found)

    def _due(self, book: Book) -> Due:
        return self._traffic.due(self._traffic.parcel(book.sending))


def _times(stored: Stored) -> str:
    message = stored.message if isinstance(stored.message, dict) else {}
    return short({name: message[name] for name in ("sent_at", "timestamp") if name in message})
