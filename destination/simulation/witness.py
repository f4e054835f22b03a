"""Check the erased users of `destination simulate`: whether all of their data is gone, and is counted.

The data to erase is read from the stores after all messages before the deletes have ended, and no request is running
any more. So it is known exactly, whatever faults there were: a message that its sender gave up may have been written
anyway. Everything found then was sent, as the reconciliation shows. Each of these messages must be counted by exactly
one receipt, however often the `delete` arrived and was carried out.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from destination.deployment.target import Target
from destination.segment.contract import DELETE
from destination.segment.due import sha256, subject_of
from destination.segment.receipts import ErasureReceipt, receipts
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.ledger import End, Ledger
from destination.simulation.reconcile import READERS, read_subjects
from destination.simulation.stored import Stored

MAX_WAIT_SECONDS = 120
"""Upper bound for the time in which the eraser makes no progress while data is left to erase."""
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Holding:
    """The stored data of a subject: messages, deletes that are not carried out, and the number of rejects.

    `linked` are the subjects of anonymous ids in its messages.
    """

    messages: tuple[Fingerprint, ...]
    deletes: tuple[Fingerprint, ...]
    rejects: int
    linked: frozenset[str]

    @property
    def size(self) -> int:
        """The total number of items."""
        return len(self.messages) + len(self.deletes) + self.rejects


@dataclass(frozen=True, kw_only=True)
class ErasureResults:
    """The results for the users in deletes.

    `erased` users have receipts, all of them finished; these count `messages` and `rejects`. `not_erased` counts the
    remaining data of users whose `delete` was accepted or has a receipt. `receipts_wrong` counts users whose receipts
    are missing, unfinished or have wrong counts, or who should not be erased. If the eraser is not `settled`, the wait
    was given up. `proven` are messages that were certainly stored, although the event table does not show it.
    """

    erased: int
    messages: int
    rejects: int
    receipts: int
    not_erased: int
    receipts_wrong: int
    settled: bool
    subjects: frozenset[str]
    proven: Counter[Fingerprint]

    @property
    def failed(self) -> bool:
        """Return whether anything is wrong."""
        return bool(self.not_erased or self.receipts_wrong or not self.settled)


class Witness:
    """Watches the eraser in a run; created before anything is sent, so that it knows the receipts of earlier runs.

    With the scope `linked`, messages under anonymous ids in a user's messages are erased too.
    """

    def __init__(self, target: Target, customer_ids: Iterable[str]) -> None:
        self._target = target
        self._customer_ids = tuple(customer_ids)
        self._earlier = frozenset(self._all_receipts())
        self._linked = target.stores.erasure_scope == "linked"
        self._before: dict[str, Holding] = {}

    def read(self, subjects: Iterable[str]) -> None:
        """Read the data to erase of these users; raises `STORE_ERRORS`."""
        self._before = self._read(subjects)
        if self._linked:
            others = {other for holding in self._before.values() for other in holding.linked}
            self._before |= self._read(others - self._before.keys())

    def wait(
        self, ledger: Ledger, *, tell: Callable[[str], object], max_wait_seconds: float = MAX_WAIT_SECONDS
    ) -> bool:
        """Wait until the deletes are carried out, and return whether they are; raises `STORE_ERRORS`.

        A user is settled with only finished receipts, at least one if the `delete` was accepted, and no `delete` in the
        event table. A receipt counts messages by pages of a hundred. If stores fail often, one page may take longer
        than the time limit, so the remaining data is counted too.
        """
        accepted = {sha256(subject) for subject, end in _ends(ledger) if end is End.ACCEPTED}
        asked = {sha256(subject) for subject in ledger.deletes}
        subjects = {other for subject in ledger.deletes for other in (subject, *self._linked_to(subject))}
        remaining = _remaining(self._before[subject] for subject in subjects)
        last, changed = None, time.monotonic()
        while True:
            found = frozenset(self._receipts())
            unfinished = {receipt.user_hash for receipt in found if not receipt.finished_at}
            finished = {receipt.user_hash for receipt in found} - unfinished
            tell(f"Waiting for the eraser: {len(finished):,} of {len(accepted):,} users are erased …")
            left = accepted - finished or unfinished & asked
            if not left and not any(holding.deletes for holding in self._read(ledger.deletes).values()):
                return True
            if found != last:
                last, changed = found, time.monotonic()
            if time.monotonic() - changed >= max_wait_seconds:
                still = _remaining(self._read(subjects).values())
                if still >= remaining:
                    return False
                remaining, changed = still, time.monotonic()
            time.sleep(POLL_SECONDS)

    def judge(self, ledger: Ledger, *, settled: bool) -> ErasureResults:
        """Compare the current data and the receipts with the data to erase; raises `STORE_ERRORS`."""
        of_users: dict[str, list[ErasureReceipt]] = {}
        for receipt in self._receipts():
            of_users.setdefault(receipt.user_hash, []).append(receipt)
        named = {subject: of_users.pop(sha256(subject), []) for subject in ledger.deletes}
        users = {subject for subject, end in _ends(ledger) if end is End.ACCEPTED or named[subject]}
        subjects = users | {other for subject in users for other in self._linked_to(subject)}
        after = self._read(subjects)
        finished = {subject for subject in users if named[subject] and all(one.finished_at for one in named[subject])}
        counted = [one for subject in users for one in named[subject]]
        for subject, holding in after.items():
            if holding.size:
                ledger.breaches.add(
                    "nothing is left of an erased user",
                    subject,
                    expected="no messages, deletes and rejects",
                    found=f"{len(holding.messages):,} messages, {len(holding.deletes):,} deletes, "
                    f"{holding.rejects:,} rejects",
                )
        proven = Counter(fingerprint for subject in subjects for fingerprint in self._before[subject].messages)
        proven.update(ledger.deletes[subject] for subject in users if named[subject] or after[subject].deletes)
        return ErasureResults(
            erased=len(finished),
            messages=sum(one.messages + one.linked_messages for one in counted),
            rejects=sum(one.rejects + one.linked_rejects for one in counted),
            receipts=len(counted),
            not_erased=sum(holding.size for holding in after.values()),
            receipts_wrong=len(of_users)
            + sum(subject not in finished or not self._is_counted(subject, named[subject]) for subject in users),
            settled=settled,
            subjects=frozenset(subjects),
            proven=proven,
        )

    def _is_counted(self, subject: str, of_user: Iterable[ErasureReceipt]) -> bool:
        """Return whether the receipts of a user together count the data to erase."""
        total = Counter[str]()
        for one in of_user:
            total.update(
                messages=one.messages,
                rejects=one.rejects,
                linked_messages=one.linked_messages,
                linked_rejects=one.linked_rejects,
            )
        own, linked = self._before[subject], [self._before[other] for other in self._linked_to(subject)]
        return total == {
            "messages": len(own.messages),
            "rejects": own.rejects,
            "linked_messages": sum(len(holding.messages) for holding in linked),
            "linked_rejects": sum(holding.rejects for holding in linked),
        }

    def _linked_to(self, subject: str) -> frozenset[str]:
        return self._before[subject].linked if self._linked else frozenset()

    def _receipts(self) -> Iterator[ErasureReceipt]:
        """Yield the receipts of this run."""
        earlier = {(one.user_hash, one.requested_at) for one in self._earlier}
        return (one for one in self._all_receipts() if (one.user_hash, one.requested_at) not in earlier)

    def _all_receipts(self) -> Iterator[ErasureReceipt]:
        client, table = self._target.account.dynamodb(), self._target.stores.erasure_table
        for customer_id in self._customer_ids:
            yield from receipts(client, table, customer_id)

    def _read(self, subjects: Iterable[str]) -> dict[str, Holding]:
        """Read the stored data of subjects."""
        subjects = tuple(subjects)
        client, stores = self._target.account.dynamodb(), self._target.stores
        messages = list(read_subjects(client, stores.event_table, subjects))

        def rejects(subject: str) -> int:
            pages = client.get_paginator("query").paginate(
                TableName=stores.rejects_table,
                IndexName="by_subject",
                KeyConditionExpression="subject = :subject",
                ExpressionAttributeValues={":subject": {"S": subject}},
            )
            return sum(len(page["Items"]) for page in pages)

        with ThreadPoolExecutor(READERS) as readers:
            counts = readers.map(rejects, subjects)
            return {
                subject: _holding(subject, stored, count)
                for subject, stored, count in zip(subjects, messages, counts, strict=True)
            }


def _remaining(holdings: Iterable[Holding]) -> int:
    return sum(len(holding.messages) + holding.rejects for holding in holdings)


def _ends(ledger: Ledger) -> Iterator[tuple[str, End]]:
    """Yield the users in deletes, each with the outcome of the `delete` for its sender."""
    return ((subject, ledger.messages[fingerprint]) for subject, fingerprint in ledger.deletes.items())


def _holding(subject: str, stored: Collection[Stored], rejects: int) -> Holding:
    deletes, messages = (
        [one for one in stored if (one.facts.get("type") == DELETE) is is_delete] for is_delete in (True, False)
    )
    linked = {other for one in messages for other in _linked_by(one.customer_id, one.message or {})}
    return Holding(
        messages=tuple(map(Fingerprint.of_stored, messages)),
        deletes=tuple(map(Fingerprint.of_stored, deletes)),
        rejects=rejects,
        linked=frozenset(linked - {subject}),
    )


def _linked_by(customer_id: str, message: Mapping[str, str]) -> Iterator[str]:
    """Yield the visitors in a message."""
    for name in ("anonymous_id", "previous_id"):
        if name in message:
            yield subject_of(customer_id, "anonymous", message[name])
