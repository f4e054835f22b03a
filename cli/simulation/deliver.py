"""How `destination simulate` delivers: what it sends, it sends until there is an answer, or its patience is over."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from cli.simulation.endpoint import Endpoint, Reply
from cli.simulation.fingerprint import Fingerprint, fingerprint_of
from cli.simulation.ledger import NO_CONNECTION, TIMED_OUT, End, Ledger
from cli.simulation.routes import Load, Route, Verdict, is_kept, label_of
from cli.simulation.traffic import Kind, Parcel, Sending, Traffic

RETRY_BUDGET_SECONDS = 4 * 60 * 60
FIRST_WAIT_SECONDS = 15
"""Doubled for each retry, and half more or less by chance: about ten tries in four hours. Segment tells no numbers; its
libraries try ten times."""

MAX_UNFINISHED = 10_000
"""Messages that may be under way or wait for a retry at once; beyond that no new ones begin, so that memory lasts."""


def waits(chance: Random) -> Iterator[float]:
    """Yield the seconds to wait before each retry, until the budget is spent."""
    wait, left = float(FIRST_WAIT_SECONDS), float(RETRY_BUDGET_SECONDS)
    while (seconds := wait * chance.uniform(0.5, 1.5)) <= left:
        yield seconds
        wait, left = wait * 2, left - seconds


class Sender:
    """Delivers traffic by a route; the ledger is kept while it goes.

    `rate` is in messages begun per second, None for as many as `concurrency` requests at once allow. The waits between
    tries are divided by `time_scale`; the seconds of a request are not.
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
    ) -> None:
        self.ledger = Ledger()
        self._traffic = traffic
        self._endpoint = endpoint
        self._route = route
        self._concurrency = concurrency
        self._rate = rate
        self._time_scale = time_scale
        self._chance = Random(traffic.seed)  # noqa: S311 -- to spread retries
        self._began = time.monotonic()

    async def deliver(self, sendings: Iterable[Sending]) -> None:
        """Make all deliveries, to their end; what is delivered later goes on in the same ledger."""
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
        """Make one request, again and again; it has a slot for its first try already."""
        parcels = self._parcels(load)
        fingerprints = [self._enter(parcel) for parcel in parcels]
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
                self._settle(fingerprints, ruling.verdicts, tries)
                self.ledger.kept.update(
                    reject for place, (reject, _) in rejects.items() if is_kept(ruling.verdicts[place].code)
                )
                break
            if wait is None:
                self._settle(fingerprints, [Verdict(end=End.GIVEN_UP)] * len(load), tries)
                break
            request = None  # made anew for the next try, so that waiting costs no memory
            await asyncio.sleep(wait / self._time_scale)
            await self._slots.acquire()
        self._unfinished.release()

    def _parcels(self, load: Load) -> list[Parcel]:
        return [self._traffic.parcel(sending) for sending in load]

    def _enter(self, parcel: Parcel) -> Fingerprint | None:
        """Write a message into the ledger before it is sent; None for one that must be refused."""
        if parcel.kind is Kind.INVALID:
            return None
        record = self._traffic.record(parcel)
        fingerprint = fingerprint_of(record)
        self.ledger.messages.setdefault(fingerprint, End.UNFINISHED)
        self.ledger.subjects.add(record.subject)
        if parcel.kind is Kind.DELETE:
            self.ledger.deletes[record.subject] = fingerprint
        return fingerprint

    def _settle(self, fingerprints: Sequence[Fingerprint | None], verdicts: Sequence[Verdict], tries: int) -> None:
        for fingerprint, verdict in zip(fingerprints, verdicts, strict=True):
            self.ledger.settle(fingerprint, verdict.end, tries=tries, text=verdict.text)
            if verdict.code:
                self.ledger.rejected[verdict.code] += 1

    async def _try(self, head: bytes, body: bytes) -> Reply | None:
        """Post a request once; None where no answer came."""
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
