"""Deliver the messages of `destination simulate`: retry each request until it is answered or given up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from destination.segment.contract import (
    ANSWERS_BY_QUEUE,
    ANSWERS_TO_DELETES,
    ANSWERS_TO_MESSAGES,
    DELETE,
    DUPLICATE,
    JsonObject,
)
from destination.segment.due import Due
from destination.segment.endpoint import Endpoint, Reply
from destination.simulation.fingerprint import Fingerprint, variant_of
from destination.simulation.ledger import NO_CONNECTION, TIMED_OUT, Book, Copy, End, Ledger
from destination.simulation.routes import FinalAnswer, Load, Route, is_kept, label_of
from destination.simulation.traffic import Kind, Parcel, Sending, Traffic

RETRY_BUDGET_SECONDS = 4 * 60 * 60
FIRST_WAIT_SECONDS = 15
"""Doubled for each retry, with jitter of a half; about ten tries in four hours. Segment publishes no numbers; its
libraries try ten times."""

MAX_UNFINISHED = 10_000
"""Limit for unfinished messages, which are being sent or wait for a retry; it bounds the memory."""


READ_AT_ONCE = 20
"""One in this many messages is read from the store immediately after its acceptance."""

IsStored = Callable[[str, str], Awaitable[bool]]
"""Returns whether the store has an item, by its subject and position."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A valid message in the ledger, and the copy that is delivered."""

    fingerprint: Fingerprint
    due: Due
    book: Book
    copy: Copy


def about(customer_id: str, body: JsonObject) -> str:
    """Return a description of a message for people."""
    return f"{customer_id}, {body.get('type', 'no type')} {body.get('message_id', '')}"


def waits(chance: Random) -> Iterator[float]:
    """Yield the seconds to wait before each retry, until the time is used up."""
    wait, left = float(FIRST_WAIT_SECONDS), float(RETRY_BUDGET_SECONDS)
    while (seconds := wait * chance.uniform(0.5, 1.5)) <= left:
        yield seconds
        wait, left = wait * 2, left - seconds


class Sender:
    """Delivers traffic by a route, and keeps the ledger.

    `rate` is in messages started per second; None means no limit except `concurrency` requests at once. The waits
    between tries are divided by `time_scale`, but the time-out of a request is not. With `is_stored`, some messages are
    read from the store immediately after their acceptance. `is_queue` is true if the store is a queue.
    """

    def __init__(
        self,
        traffic: Traffic,
        endpoint: Endpoint,
        route: Route,
        *,
        concurrency: int,
        rate: float | None,
        time_scale: float,
        is_stored: IsStored | None = None,
        is_queue: bool = False,
    ) -> None:
        self.ledger = Ledger()
        self._traffic = traffic
        self._endpoint = endpoint
        self._route = route
        self._concurrency = concurrency
        self._rate = rate
        self._time_scale = time_scale
        self._chance = Random(traffic.seed)  # noqa: S311 -- to spread retries
        self._is_stored = is_stored
        self._is_queue = is_queue
        self._began = time.monotonic()

    async def deliver(self, sendings: Iterable[Sending]) -> None:
        """Make all deliveries to their end; later deliveries continue in the same ledger."""
        began, begun_before = time.monotonic(), self.ledger.begun
        self._slots = asyncio.Semaphore(self._concurrency)
        self._unfinished = asyncio.Semaphore(max(1, MAX_UNFINISHED // self._route.most_messages))
        try:
            async with asyncio.TaskGroup() as deliveries:
                for load in self._route.loads(sendings):
                    if self._rate:
                        due = began + (self.ledger.begun - begun_before) / self._rate
                        await asyncio.sleep(max(0, due - time.monotonic()))
                    await self._unfinished.acquire()
                    await self._slots.acquire()
                    deliveries.create_task(self._deliver(load))
                    self.ledger.begun += len(load)
                    self.ledger.requests += 1
        finally:
            await self._endpoint.close()

    async def _deliver(self, load: Load) -> None:
        """Send one request and retry it; it already has a slot for its first try."""
        parcels = self._parcels(load)
        fields = self._route.fields(load, parcels)
        entries = [self._enter(sending, parcel, fields) for sending, parcel in zip(load, parcels, strict=True)]
        refusals = self._route.refusals(load, parcels)
        rejects = self._route.rejects(load, parcels)
        self.ledger.rejects.update(rejects.values())
        request: tuple[bytes, bytes] | None = self._route.request(load, parcels)
        del parcels
        for tries, wait in enumerate((*waits(self._chance), None), start=1):
            try:
                reply = await self._try(*(request or self._route.request(load, self._parcels(load))))
            finally:
                self._slots.release()
            if reply is not None and reply.status not in self._route.retried:
                ruling = self._route.ruling(reply, len(load))
                self.ledger.duplicates += ruling.duplicates
                self._settle(entries, ruling.verdicts, tries)
                self._check_refusals(load, refusals, ruling.verdicts)
                for place, (reject, _) in rejects.items():
                    verdict = ruling.verdicts[place]
                    if verdict.is_kept if verdict.is_kept is not None else is_kept(verdict.code):
                        self.ledger.kept.add(reject)
                await self._read_some(entries, ruling.verdicts)
                break
            self._note_unclear(entries, tries)
            if wait is None:
                self._settle(entries, [FinalAnswer(end=End.GIVEN_UP)] * len(load), tries)
                break
            request = None  # created again for the next try, so that waiting takes no memory
            await asyncio.sleep(wait / self._time_scale)
            await self._slots.acquire()
        self._unfinished.release()

    def _parcels(self, load: Load) -> list[Parcel]:
        return [self._traffic.parcel(sending) for sending in load]

    def _enter(self, sending: Sending, parcel: Parcel, fields: JsonObject) -> _Entry | None:
        """Record a message in the ledger before it is sent; returns None for one that must be refused."""
        if parcel.kind is Kind.INVALID:
            return None
        due = self._traffic.due(parcel, fields)
        fingerprint = Fingerprint.of_due(due)
        self.ledger.messages.setdefault(fingerprint, End.UNFINISHED)
        self.ledger.subjects.add(due.subject)
        if parcel.kind is Kind.DELETE:
            self.ledger.deletes[due.subject] = fingerprint
        if sending.later:
            self.ledger.later.add(fingerprint)
        book = self.ledger.books.setdefault(fingerprint, Book(sending=sending))
        copy = Copy(begun=time.monotonic() - self._began)
        copy = book.copies.setdefault(variant_of(due.facts.get("timestamp"), due.body), copy)
        return _Entry(fingerprint=fingerprint, due=due, book=book, copy=copy)

    def _note_unclear(self, entries: Sequence[_Entry | None], tries: int) -> None:
        """Record that the answer to a try does not say which messages were written."""
        self.ledger.resent_unclear += len(entries) if tries == 1 else 0
        for entry in entries:
            if entry is not None:
                entry.book.is_unclear = True

    def _settle(self, entries: Sequence[_Entry | None], verdicts: Sequence[FinalAnswer], tries: int) -> None:
        for entry, verdict in zip(entries, verdicts, strict=True):
            fingerprint = None if entry is None else entry.fingerprint
            self.ledger.settle(fingerprint, verdict.end, tries=tries, text=verdict.text)
            if verdict.code:
                self.ledger.rejected[verdict.code] += 1
            if entry is not None and verdict.end is End.ACCEPTED:
                entry.copy.accepted = min(entry.copy.accepted, time.monotonic() - self._began)
                is_duplicate = verdict.word.endswith(DUPLICATE)
                entry.book.duplicates += is_duplicate
                entry.book.stored += not is_duplicate
                self._check_success(entry.due, verdict.word)

    def _check_success(self, due: Due, word: str) -> None:
        """Compare the answer to an accepted single message with the expected answers."""
        allowed = ANSWERS_TO_DELETES if due.type == DELETE else ANSWERS_TO_MESSAGES
        allowed = ANSWERS_BY_QUEUE if self._is_queue else allowed
        if word and word not in allowed:
            promise = "a success has the expected status and word"
            expected = " or ".join(sorted(allowed))
            self.ledger.breaches.add(promise, about(due.customer_id, due.body), expected=expected, found=word)

    def _check_refusals(self, load: Load, refusals: Sequence[str | None], verdicts: Sequence[FinalAnswer]) -> None:
        """Compare the answers to messages that must be refused with the expected answers."""
        for sending, due, verdict in zip(load, refusals, verdicts, strict=True):
            if due is not None and verdict.answer != due:
                parcel = self._traffic.parcel(sending)
                self.ledger.breaches.add(
                    "an invalid message gets the expected answer",
                    about(self._traffic.customer_ids[parcel.customer], parcel.plain | {"message_id": parcel.why}),
                    expected=due,
                    found=verdict.word or verdict.answer or "that it was accepted",
                )

    async def _read_some(self, entries: Sequence[_Entry | None], verdicts: Sequence[FinalAnswer]) -> None:
        """Read some messages from the store immediately after their acceptance."""
        if self._is_stored is None:
            return
        for entry, verdict in zip(entries, verdicts, strict=True):
            if entry is None or verdict.end is not End.ACCEPTED or entry.due.type == DELETE:
                continue
            if entry.fingerprint.identity[0] % READ_AT_ONCE == 0 and not await self._is_stored(
                entry.due.subject, entry.due.position
            ):
                self.ledger.breaches.add(
                    "an accepted message can be read at once",
                    about(entry.due.customer_id, entry.due.body),
                    expected=f"an item under {entry.due.subject} and {entry.due.position}",
                    found="none",
                )

    async def _try(self, head: bytes, body: bytes) -> Reply | None:
        """Send a request once; returns None without an answer."""
        began = time.monotonic()
        reply = None
        try:
            reply = await self._endpoint.post(head, body)
            label = label_of(reply)
        except TimeoutError:
            label = TIMED_OUT
        except OSError:
            label = NO_CONNECTION
        now = time.monotonic()
        self.ledger.tries.add(now - self._began, (now - began) * 1000, label)
        return reply
