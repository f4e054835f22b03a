"""Run `destination simulate` once: deliver, wait for consumer and eraser, read the stores, compare."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from destination.console import stderr
from destination.deployment.target import LocalLogFile, Target
from destination.segment.contract import JsonObject
from destination.segment.due import Due, sortable
from destination.simulation.audit import Audit
from destination.simulation.breaches import Breaches
from destination.simulation.contacts import Comparison, compare_contacts, remains_of_erased
from destination.simulation.deliver import Sender
from destination.simulation.expected import expected_contacts
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.key_probes import KeyProbes
from destination.simulation.ledger import End
from destination.simulation.log_lines import LogLines
from destination.simulation.reconcile import QueueDrain, Reconciliation, read_table, reconcile
from destination.simulation.rejects import RejectComparison, compare_rejects
from destination.simulation.replies import Circumstances, judge_replies
from destination.simulation.traffic import Kind, Sending, Traffic, stages
from destination.simulation.witness import ErasureResults, Witness
from handler.errors import STORE_ERRORS

PROGRESS_SECONDS = 0.1
DRAIN_PAUSE_SECONDS = 0.2
QUIET_SECONDS = 10
"""A request without an answer may still run for this time: then the function times out (template.yaml)."""
FIFO_MEMORY_SECONDS = 5 * 60
"""For this time a FIFO queue recognises a duplicate,
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html"""

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(kw_only=True)
class Findings:
    """The findings of a run, as far as it got.

    `result` is None if the stores can't be read; `unreadable` is the reason. `erasures` is None if no user was to be
    erased, and `contacts` if they were not compared. `breaches` are the broken promises.
    """

    interrupted: bool = False
    result: Reconciliation | None = None
    erasures: ErasureResults | None = None
    contacts: Comparison | None = None
    rejects: RejectComparison | None = None
    unreadable: Exception | None = None
    breaches: Breaches = field(default_factory=Breaches)

    @property
    def failed(self) -> bool:
        """Return whether anything is wrong or unknown."""
        return bool(
            self.result is None
            or self.result.failed
            or (self.erasures and self.erasures.failed)
            or (self.contacts and self.contacts.wrong)
            or (self.rejects and self.rejects.failed)
            or self.breaches
        )


class Play:
    """Delivers a number of messages by `sender`, and determines their outcomes."""

    def __init__(
        self,
        target: Target,
        traffic: Traffic,
        sender: Sender,
        *,
        circumstances: Circumstances,
        probes: KeyProbes | None = None,
        api_keys: Collection[str] = (),
        messages: int,
        duplicates: float,
        reorder: float,
    ) -> None:
        self._target = target
        self._traffic = traffic
        self._sender = sender
        self._circumstances = circumstances
        self._probes = probes
        self._api_keys = api_keys
        logs = target.logs
        self._log_lines = LogLines(logs.file if isinstance(logs, LocalLogFile) else None)
        self._ledger = sender.ledger
        self._messages = messages
        self._stages = stages(traffic, messages=messages, duplicates=duplicates, reorder=reorder)
        again = round(len(traffic.sent_again) * (1 - duplicates)) + 2 * len(traffic.later)
        self._expected = round((messages + len(traffic.doomed)) * (1 + duplicates)) + again
        self._drain = _drain(target, traffic)
        self._began_at = datetime.now(UTC)

    def run(self, *, contacts: bool) -> Findings:
        """Deliver and compare, with `contacts` too if asked."""
        may_have_sent = self._circumstances.may_have_sent
        findings = Findings(breaches=self._ledger.breaches)
        began_at = self._began_at.timestamp()
        audit = Audit(self._target, self._traffic, self._ledger, began_at=began_at, may_have_sent=may_have_sent)
        if self._drain:
            self._drain.audit = audit.take
        try:
            witness = Witness(self._target, self._traffic.customer_ids) if self._traffic.doomed else None
            if self._probes:
                self._probes.begin(self._ledger.breaches)
            findings.interrupted = self._deliver_all(witness)
            if self._probes and not findings.interrupted:
                with _status("Waiting until a revoked key is refused …"):
                    self._probes.end(self._ledger.breaches)
            if witness and self._ledger.deletes:
                findings.erasures = self._erasures(witness)
                if not findings.interrupted:
                    findings.interrupted = self._deliver_later()
            judge_replies(self._ledger, self._traffic, self._circumstances)
            stored = self._read(findings.erasures, audit)
            findings.result = self._reconcile(stored, may_have_sent=may_have_sent)
            if findings.result.is_wrong or (findings.result.lost and not findings.result.others_may_hold):
                audit.finish(stored, findings.erasures.subjects if findings.erasures else ())
            if self._ledger.rejects:
                findings.rejects = self._compare_rejects(findings.erasures, may_have_sent=may_have_sent)
            self._log_lines.judge(self._api_keys, self._ledger.breaches)
            if contacts and not findings.interrupted:
                findings.contacts = self._compare_contacts(stored, findings.erasures)
        except STORE_ERRORS as error:
            findings.unreadable = error
        return findings

    def _deliver_all(self, witness: Witness | None) -> bool:
        """Deliver, and return whether Control-C ended that early. Between its stages the witness reads the stores."""
        before, after = self._stages
        try:
            self._deliver(before)
            if witness:
                with _status("Reading the messages to erase …"):
                    self._let_pass()
                    witness.read(self._traffic.doomed_subjects)
                self._deliver(after)
        except KeyboardInterrupt:
            return True
        return False

    def _deliver_later(self) -> bool:
        """Deliver later messages of erased users, each twice. Returns whether Control-C ended that early."""
        numbers = range(len(self._traffic.later))
        try:
            self._deliver([Sending(index=index, copy=copy, later=True) for index in numbers for copy in (0, 1)])
        except KeyboardInterrupt:
            return True
        return False

    def _deliver(self, sendings: Iterable[Sending]) -> None:
        background: list[Work] = [self._show_progress]
        if self._drain and self._target.is_local:
            background.append(partial(_drain_in_background, self._drain))
        asyncio.run(_deliver(self._sender.deliver(sendings), background))

    def _let_pass(self) -> None:
        """Wait until no request without an answer can still be running and writing."""
        if self._ledger.retries or self._ledger.begun > self._ledger.finished:
            time.sleep(QUIET_SECONDS)

    def _erasures(self, witness: Witness) -> ErasureResults:
        with _status("Waiting for the eraser …") as tell:
            self._let_pass()
            settled = witness.wait(self._ledger, tell=tell)
            return witness.judge(self._ledger, settled=settled)

    def _read(self, erasures: ErasureResults | None, audit: Audit) -> Counter[Fingerprint]:
        """Read the stored messages, including those that were erased since."""
        with _status("Reading the stored messages …"):
            if self._drain:
                return self._drain.finish(self._ledger.messages.keys())
            gone = erasures.subjects if erasures else frozenset()
            found: Counter[Fingerprint] = Counter()
            later = self._ledger.later
            subjects = self._ledger.subjects - (gone if not later else frozenset())
            for stored in read_table(self._target, subjects=subjects, customer_ids=self._traffic.customer_ids):
                fingerprint = Fingerprint.of_stored(stored)
                if stored.subject not in gone or fingerprint in later:
                    found[fingerprint] += 1
                    audit.take(stored, fingerprint)
            if erasures:
                found.update({one: count for one, count in erasures.proven.items() if one not in later})
            return found

    def _reconcile(self, stored: Counter[Fingerprint], *, may_have_sent: bool) -> Reconciliation:
        drain, seconds = self._drain, self._ledger.tries.seconds
        return reconcile(
            self._ledger,
            stored,
            may_double=drain is not None and (not drain.is_fifo or seconds > FIFO_MEMORY_SECONDS),
            may_have_sent=may_have_sent,
            others_seen=drain.others_seen if drain else 0,
        )

    def _compare_rejects(self, erasures: ErasureResults | None, *, may_have_sent: bool) -> RejectComparison:
        """Compare the kept rejects with the refused messages."""
        with _status("Reading the rejects …"):
            return compare_rejects(
                self._target,
                self._ledger,
                self._traffic,
                erased=erasures.subjects if erasures else (),
                may_have_sent=may_have_sent,
            )

    def _compare_contacts(self, stored: Collection[Fingerprint], erasures: ErasureResults | None) -> Comparison:
        """Compare the consumer's contacts with the expected ones."""
        made: dict[str, Mapping[str, JsonObject]] = {}

        def expected_of(customer_id: str) -> dict[str, JsonObject]:
            now = sortable(self._began_at)
            made[customer_id] = contacts = expected_contacts(self._messages_of(customer_id, stored), now=now)
            return contacts

        with _status("Waiting for the consumer …") as tell:
            comparison = compare_contacts(self._target, self._traffic.customer_ids, expected_of, tell=tell)
            if erasures and not comparison.wrong:
                self._look_for_remains(erasures, made)
            return comparison

    def _look_for_remains(self, erasures: ErasureResults, made: Mapping[str, Mapping[str, JsonObject]]) -> None:
        """Search the raw contact table for users who were erased and had no later activity."""
        traffic, gone = self._traffic, defaultdict[str, list[str]](list)
        for index in range(len(traffic.doomed)):
            due = traffic.due(traffic.parcel(Sending(index=index, deletes=True)))
            user_id = due.body["user_id"]
            if due.subject in erasures.subjects and user_id not in made[due.customer_id]:
                gone[due.customer_id].append(user_id)
        for customer_id, user_ids in gone.items():
            for user_id, item in remains_of_erased(self._target, customer_id, user_ids):
                self._ledger.breaches.add(
                    "nothing of an erased user is left in the contact table",
                    f"{customer_id}, user {user_id}",
                    expected="no item that names the user or what the user did",
                    found=item,
                )

    def _messages_of(self, customer_id: str, stored: Collection[Fingerprint]) -> Iterator[Due]:
        """Yield the messages of a customer that were accepted, or stored although they were given up."""
        traffic, ledger = self._traffic, self._ledger
        customer = traffic.customer_ids.index(customer_id)
        sent = (Sending(index=index) for index in range(self._messages) if traffic.customer(index) == customer)
        named = (index for index, (whose, _) in enumerate(traffic.doomed) if whose == customer)
        deletes = (Sending(index=index, deletes=True) for index in named)
        later = (
            Sending(index=index, later=True) for index, piece in enumerate(traffic.later) if piece.customer == customer
        )
        for sending in (*sent, *deletes, *later):
            parcel = traffic.parcel(sending)
            if parcel.kind is not Kind.INVALID:
                due = traffic.due(parcel)
                fingerprint = Fingerprint.of_due(due)
                if fingerprint in stored or ledger.messages.get(fingerprint) is End.ACCEPTED:
                    yield due

    async def _show_progress(self) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
        console, ledger = _on_terminal(), self._ledger
        with Progress(*columns, console=console, transient=True, disable=console.quiet) as progress:
            task = progress.add_task("", total=self._expected)
            while True:
                waiting = f"{ledger.begun - ledger.finished:,} running or waiting, {ledger.retries:,} retries"
                total = max(self._expected, ledger.begun)
                progress.update(task, completed=ledger.finished, total=total, description=waiting)
                await asyncio.sleep(PROGRESS_SECONDS)


def _on_terminal() -> Console:
    """Return a console for transient output, which never goes to a file."""
    console = stderr()
    console.quiet = not console.is_terminal
    return console


@contextmanager
def _status(doing: str) -> Iterator[Callable[[str], object]]:
    """Show the current activity on the terminal; the body of the `with` gets a function to update it."""
    with _on_terminal().status(doing) as status:
        yield status.update


async def _deliver(deliveries: Coroutine[Any, Any, None], background: Iterable[Work]) -> None:
    """Make deliveries, and other work in parallel until they end."""
    tasks = [asyncio.create_task(work()) for work in background]
    try:
        await deliveries
    finally:
        for task in tasks:
            task.cancel()


def _drain(target: Target, traffic: Traffic) -> QueueDrain | None:
    """Return the reader of the queue, None if messages go to the table."""
    if not target.stores.sink.feeds_queue:
        return None
    return QueueDrain(
        target.account.sqs(),
        target.stores.event_queue_url,
        frozenset(traffic.customer_ids),
        forgets=target.is_local,
    )


async def _drain_in_background(drain: QueueDrain) -> None:
    """Receive messages while they arrive: an embedded AWS slows down with each message that waits in its queue."""
    while True:
        more = False
        with suppress(*STORE_ERRORS):  # store errors are reported by the reconciliation at the end
            more = await asyncio.to_thread(drain.take)
        await asyncio.sleep(0 if more else DRAIN_PAUSE_SECONDS)
