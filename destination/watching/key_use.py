"""When an API key was last used, as the request lines tell."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from destination.watching.request_log import KeyUse, Period, RequestLog
from handler.keys import LOGGED_HASH_CHARS


@dataclass(frozen=True, kw_only=True)
class LastUse:
    """What the lines of a period say of a key.

    `unnamed` is the last request of the customer whose line names no key: versions before 1.0.0 wrote none.
    `is_shared` tells that another key of the customer has a hash with the same start, so the use may be of that one.
    """

    use: KeyUse | None
    unnamed: KeyUse | None
    is_shared: bool
    period: Period

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "last_used_at": self.use and self.use.time.isoformat(timespec="milliseconds"),
            "last_answer": self.use and self.use.status,
            "last_use_searched_since": self.period.since.isoformat(timespec="seconds"),
        }

    def __str__(self) -> str:
        if self.use is None:
            told = f"not in {self.period.words}"
        else:
            told = f"{self.use.time:%Y-%m-%d %H:%M:%S} UTC, answered {self.use.status or '(unknown)'}"
            if self.is_shared:
                told += " (or another key of this customer, whose hash starts with the same characters)"
        if self.unnamed is not None:
            told += f"; lines until {self.unnamed.time:%Y-%m-%d %H:%M:%S} UTC are of a version that names no key"
        return told


def last_use(log: RequestLog, customer_id: str, key_hash: str, others: Collection[str], period: Period) -> LastUse:
    """Return when a customer's key was last used; `others` are the hashes of the customer's other keys."""
    uses = log.key_uses(customer_id, period)
    start = key_hash[:LOGGED_HASH_CHARS]
    return LastUse(
        use=uses.get(start),
        unnamed=uses.get(None),
        is_shared=any(other.startswith(start) for other in others),
        period=period,
    )
