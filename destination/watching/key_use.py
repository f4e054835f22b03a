"""When an API key was last used, according to the request lines."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from destination.watching.request_log import KeyUse, Period, RequestLog
from handler.keys import LOGGED_HASH_CHARS


@dataclass(frozen=True, kw_only=True)
class LastUse:
    """The last use of a key in the lines of a period.

    `unnamed` is the customer's last request whose line has no key: versions before 1.0.0 did not write it. `is_shared`
    says that the hash of another key of the customer begins with the same characters, so the use may be of that key.
    """

    use: KeyUse | None
    unnamed: KeyUse | None
    is_shared: bool
    period: Period

    def to_json(self) -> dict[str, Any]:
        """Return the form for `--json`."""
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
            told += f"; lines until {self.unnamed.time:%Y-%m-%d %H:%M:%S} UTC are of a version that does not log keys"
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
