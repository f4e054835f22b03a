"""Rejects once more: judged by today's schemas, in the order in which the function judges, and stored where they pass.

A reject is deleted only after its message is durable, so that whatever ends a retry half-way loses nothing. What was
stored but not yet deleted is a duplicate the next time.

A reject that came before its user was erased is deleted and not stored. The eraser may leave the tombstone while the
message is written, and then search the table before the write. So the tombstone is read again after the write, and the
erasure is requested again if it is there by then.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from cli.erase import Person, request_erasure
from cli.parallel import in_parallel
from cli.reject_table import Contents, KeptReject, RejectTable
from cli.target import Target
from handler.canonicalise import Message, canonicalise
from handler.decode import decode_settings, parse_body
from handler.erased import Tombstones
from handler.errors import STORE_ERRORS, InternalError, Refusal, Unavailable
from handler.record import Record
from handler.validate import Schemas, check_call_type
from handler.write import EventQueue, EventSink, EventTable, Outcome


class Fate(StrEnum):
    """What became of a reject."""

    STORED = Outcome.STORED
    QUEUED = Outcome.QUEUED
    DUPLICATE = Outcome.DUPLICATE
    PASSES = "passes"
    REFUSED = "refused"
    GONE = "gone"
    """Somebody else retried or purged it, or it expired."""
    ERASED = "erased"
    """Its user was erased after it came."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a reject; `answer` is why where it is still refused."""

    reject: KeptReject
    fate: Fate
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Judges as the function does, once it knows whose message it is; `clock` gives seconds since 1970."""

    schemas: Schemas
    supported_call_types: frozenset[str]
    clock: Callable[[], float]

    def check(self, message: Message, settings_header: str | None, *, expected: str | None = None) -> None:
        """Raise the `Refusal` of a message that does not pass; `expected` is the call type that its route tells."""
        if message.fault is not None:
            raise message.fault
        call_type = check_call_type(message, self.supported_call_types, expected=expected)
        self.schemas.check_settings(decode_settings(settings_header))
        self.schemas.check_message(call_type, message.body)

    def record(self, reject: KeptReject, contents: Contents) -> Record:
        """Return the record of what passes; raises a `Refusal`.

        The limit of a request's size is for what comes: a body that was written anew may have become longer.
        """
        [message] = canonicalise(parse_body(contents.body))
        self.check(message, contents.settings_header)
        return Record(
            customer_id=reject.customer_id,
            message=message,
            settings=decode_settings(contents.settings_header),
            stored_at=self.clock(),
            received_at=reject.rejected_at,
        )


@dataclass(frozen=True, kw_only=True)
class ErasedUsers:
    """Knows whose rejects may not be stored any more, and erases what was stored meanwhile."""

    target: Target
    tombstones: Tombstones

    @classmethod
    def of(cls, target: Target) -> Self:
        """Return the erased users of a deployment."""
        return cls(target=target, tombstones=Tombstones(target.account.dynamodb(), target.stores.erasure_table))

    def covers(self, reject: KeptReject, message: Message) -> bool:
        """Whether a user was erased after a reject came; raises `ErasureStoreUnavailable`."""
        came = replace(message, timestamp=reject.rejected_at)
        [refusal] = self.tombstones.refusals(reject.customer_id, [came], lambda read: read())
        return refusal is not None

    def erase_again(self, record: Record) -> None:
        """Request the erasure of a record's user, which the eraser carries out."""
        body = record.message.body
        user = body.get("user_id")
        anonymous = None if user is not None else body["anonymous_id"]
        request_erasure(self.target, Person(customer_id=record.customer_id, user=user, anonymous=anonymous))


def sink_of(target: Target) -> EventSink:
    """Return where the function of a deployment writes."""
    stores = target.stores
    if stores.event_sink == "sqs":
        return EventQueue(target.account.sqs(), stores.event_queue_url)
    retention_days = int(stores.event_retention_days)
    return EventTable(target.account.dynamodb(), stores.event_table, retention_days=retention_days)


def retry(
    rejects: Iterable[KeptReject],
    table: RejectTable,
    judge: Judge,
    sink: EventSink | None,
    erased: ErasedUsers | None,
) -> Iterator[Verdict]:
    """Yield what becomes of each reject; without a sink, what would. Without `erased` no user counts as erased.

    Raises an `Unavailable` or one of `STORE_ERRORS` if a store does not confirm a call: after all that came of the
    others was yielded, and with the reject still there.
    """

    def try_again(reject: KeptReject) -> Verdict:
        contents = table.contents(reject)
        if contents is None:
            return Verdict(reject=reject, fate=Fate.GONE)
        try:
            record = judge.record(reject, contents)
            if erased is not None and erased.covers(reject, record.message):
                if sink is not None:
                    table.delete(reject)
                return Verdict(reject=reject, fate=Fate.ERASED)
            if sink is None:
                return Verdict(reject=reject, fate=Fate.PASSES)
            outcome = sink.write(record)
        except (Unavailable, *STORE_ERRORS):
            raise
        except Refusal as refusal:
            return Verdict(reject=reject, fate=Fate.REFUSED, answer=str(refusal))
        except Exception:  # noqa: BLE001 -- a bug concerns this reject alone: it stays, and the others are retried
            return Verdict(reject=reject, fate=Fate.REFUSED, answer=InternalError.text)
        was_erased = erased is not None and erased.covers(reject, record.message)
        if erased is not None and was_erased:
            erased.erase_again(record)
        table.delete(reject)
        return Verdict(reject=reject, fate=Fate.ERASED if was_erased else Fate(outcome))

    return in_parallel(try_again, rejects)
