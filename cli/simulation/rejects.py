"""The messages of batches that were refused, against what is kept among the rejects: all of them, and no others."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from cli.reject_table import RejectTable, last_days
from cli.simulation.fingerprint import RejectKey
from cli.simulation.ledger import Ledger
from cli.target import Target

RUN_DAYS = 2
"""On which a run leaves rejects: it may go on over midnight."""


@dataclass(frozen=True, kw_only=True)
class RejectComparison:
    """How many messages are kept among the rejects, how many are not although they were refused, and what else is.

    `unsent` ones are no fault where earlier runs `may_have_sent` them.
    """

    kept: int
    missing: int
    unsent: int
    may_have_sent: bool

    @property
    def failed(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.missing or (self.unsent and not self.may_have_sent))


def compare_rejects(
    target: Target,
    ledger: Ledger,
    customer_ids: Collection[str],
    *,
    erased: Collection[str] = (),
    may_have_sent: bool = False,
) -> RejectComparison:
    """Compare; those of `erased` subjects need not be there any more. Raises `STORE_ERRORS`."""
    found = _read(target, customer_ids)
    must = {key for key in ledger.kept if ledger.rejects[key] not in erased}
    return RejectComparison(
        kept=len(found & ledger.rejects.keys()),
        missing=len(must - found),
        unsent=len(found - ledger.rejects.keys()),
        may_have_sent=may_have_sent,
    )


def _read(target: Target, customer_ids: Collection[str]) -> set[RejectKey]:
    """Read what is kept of these customers."""
    table = RejectTable(target.account.dynamodb(), target.stores.rejects_table)
    if target.is_local:  # an embedded AWS reads the whole table for every query anyway
        rejects = [reject for reject in table.everything() if reject.customer_id in customer_ids]
    else:
        days = last_days(RUN_DAYS, datetime.now(UTC).date())
        rejects = [reject for customer_id in customer_ids for reject in table.of_customer(customer_id, days)]
    return {RejectKey(customer_id=reject.customer_id, body_hash=reject.body_hash) for reject in rejects}
