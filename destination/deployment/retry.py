"""Judge rejects again by today's schemas, in the same order of checks as the function, and store those that pass.

A reject is deleted only after its message is durable, so an interrupted retry loses nothing. A message that was stored,
but whose reject was not deleted, is a duplicate the next time.

If a user was erased after a reject, the reject is deleted and not stored. The eraser may write the tombstone while the
message is being stored, and search the table before the write. So the tombstone is read again after the write. If it
exists then, the erasure is requested again.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from destination.deployment.erasure import Person, request_erasure
from destination.deployment.main_thread import in_main_thread
from destination.deployment.parallel import in_parallel
from destination.deployment.reject_table import Contents, KeptReject, StoredRejects
from destination.deployment.target import Target
from handler.canonicalise import Message, canonicalise
from handler.decode import decode_settings, parse_body
from handler.erased import Erasures, NoErasures, Tombstones
from handler.errors import STORE_ERRORS, InternalError, Refusal, Unavailable
from handler.judge import Judge
from handler.record import Record
from handler.sinks import Outcome, Sink

PORTION = 200
"""Rejects whose contents are in memory at the same time, at most 1 MB each."""


class Fate(StrEnum):
    """The result of retrying a reject."""

    STORED = Outcome.STORED
    QUEUED = Outcome.QUEUED
    DUPLICATE = Outcome.DUPLICATE
    PASSES = "passes"
    REFUSED = "refused"
    GONE = "gone"
    """Somebody else retried or purged it, or it expired."""
    ERASED = "erased"
    """Its user was erased after the rejection."""
    MISSING = "missing"
    """Neither confirmed as stored nor in the rejects table any more: another command deleted it, or it was lost."""


@dataclass(frozen=True, kw_only=True)
class RetryResult:
    """The result of retrying a reject; `answer` is the reason if it is still refused."""

    reject: KeptReject
    fate: Fate
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class ErasedUsers:
    """Knows whose rejects must not be stored any more, and requests the erasure of messages stored meanwhile."""

    target: Target
    erasures: Erasures

    @classmethod
    def of(cls, target: Target) -> Self:
        """Return the erased users of a deployment."""
        return cls(target=target, erasures=Tombstones(target.account.dynamodb(), target.stores.erasure_table))

    @classmethod
    def none(cls, target: Target) -> Self:
        """Return an object without erased users, for rejects that are judged and not stored."""
        return cls(target=target, erasures=NoErasures())

    def covers(self, reject: KeptReject, message: Message) -> bool:
        """Return whether a user was erased after a reject; raises `ErasureStoreUnavailable`."""
        came = replace(message, timestamp=reject.rejected_at)
        [refusal] = self.erasures.refusals(reject.customer_id, [came], lambda read: read())
        return refusal is not None

    def erase_again(self, record: Record) -> None:
        """Request the erasure of a record's user, which the eraser carries out."""
        body = record.message.body
        user = body.get("user_id")
        anonymous = None if user is not None else body["anonymous_id"]
        request_erasure(self.target, Person(customer_id=record.customer_id, user=user, anonymous=anonymous))


def sink_of(target: Target) -> Sink:
    """Return the sink of a deployment's function."""
    stores = target.stores
    retention_days = int(stores.event_retention_days)
    return stores.sink.open(stores.event_store, target.account.store_client, retention_days=retention_days)


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Retries rejects; without a sink it only judges them.

    `clock` returns seconds since 1970. `deletable` has the keys of the rejects whose message is confirmed as durable,
    or whose user was erased.
    """

    table: StoredRejects
    judge: Judge
    sink: Sink | None
    erased: ErasedUsers
    clock: Callable[[], float] = time.time
    deletable: set[tuple[str, str]] = field(default_factory=set)

    def run(self, rejects: Iterable[KeptReject]) -> Iterator[RetryResult]:
        """Yield the result for each reject.

        Raises an `Unavailable` or one of `STORE_ERRORS` if a store does not confirm a call. The other results are
        yielded first, and the reject stays in the table.
        """
        waiting = iter(rejects)
        while portion := list(itertools.islice(waiting, PORTION)):
            contents = dict(in_parallel(lambda reject: (reject.key_text, self.table.contents(reject)), portion))
            # In this thread, not in parallel: only the main thread has a time limit for checks.
            judged = [(reject, self._judge(reject, contents[reject.key_text])) for reject in portion]
            yield from in_parallel(lambda pair: self._carry_out(*pair), judged)

    def find_missing(self, rejects: Iterable[KeptReject]) -> Iterator[RetryResult]:
        """Yield a result for each reject that should be in the table and is not; raises one of `STORE_ERRORS`."""
        others = (reject for reject in rejects if reject.key_text not in self.deletable)
        for reject, is_there in in_parallel(lambda reject: (reject, self.table.has(reject)), others):
            if not is_there:
                yield RetryResult(reject=reject, fate=Fate.MISSING)

    def _judge(self, reject: KeptReject, contents: Contents | None) -> Record | Refusal | None:
        """Return the record of a reject that passes, the reason why it is still refused, or None if it is gone."""
        if contents is None:
            return None
        try:
            return self._record(reject, contents)
        except Refusal as refusal:
            return refusal
        except Exception as bug:  # noqa: BLE001 -- a bug concerns this reject alone: it stays, and the others are retried
            return InternalError(bug)

    def _record(self, reject: KeptReject, contents: Contents) -> Record:
        """Return the record of a reject that passes; raises a `Refusal`.

        The size limit applies to requests, not here: a rewritten body may have become longer.
        """
        [message] = canonicalise(parse_body(contents.body))
        [refusal] = in_main_thread(lambda: self.judge.refusals([message], contents.settings_header))
        if refusal is not None:
            raise refusal
        return Record(
            customer_id=reject.customer_id,
            message=message,
            settings=decode_settings(contents.settings_header),
            stored_at=self.clock(),
            received_at=reject.rejected_at,
        )

    def _carry_out(self, reject: KeptReject, judged: Record | Refusal | None) -> RetryResult:
        if judged is None:
            return RetryResult(reject=reject, fate=Fate.GONE)
        if isinstance(judged, Refusal):
            return self._refused(reject, str(judged))
        try:
            fate = self._store(reject, judged)
        except (Unavailable, *STORE_ERRORS):
            raise
        except Refusal as refusal:
            return self._refused(reject, str(refusal))
        except Exception:  # noqa: BLE001 -- as above
            return self._refused(reject, InternalError.text)
        if self.sink is not None:
            self.deletable.add(reject.key_text)
            self.table.delete(reject)
        return RetryResult(reject=reject, fate=fate)

    def _store(self, reject: KeptReject, record: Record) -> Fate:
        """Store a message that passes, unless its user was erased; without a sink, return what would happen."""
        if self.erased.covers(reject, record.message):
            return Fate.ERASED
        if self.sink is None:
            return Fate.PASSES
        outcome = self.sink.write(record)
        if self.erased.covers(reject, record.message):
            self.erased.erase_again(record)
            return Fate.ERASED
        return Fate(outcome)

    def _refused(self, reject: KeptReject, answer: str) -> RetryResult:
        if self.sink is None or self.table.has(reject):
            return RetryResult(reject=reject, fate=Fate.REFUSED, answer=answer)
        return RetryResult(reject=reject, fate=Fate.MISSING)


def retry(
    rejects: Iterable[KeptReject],
    table: StoredRejects,
    judge: Judge,
    sink: Sink | None,
    erased: ErasedUsers,
) -> Iterator[RetryResult]:
    """Yield the result for each reject, like `Retry.run`."""
    return Retry(table=table, judge=judge, sink=sink, erased=erased).run(rejects)
