"""Times as Segment's sources write them -> text that sorts as time does."""

import re
from datetime import UTC, datetime

_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) ([+-]\d{4}) \S+(?: m=[+-]\d+\.\d+)?")
"""What Go's `time.Time.String` prints: `2020-05-09 23:54:49.2 +0000 UTC m=+70366.29`. https://pkg.go.dev/time"""


def parse_time(value: object) -> str | None:
    """Return an ISO 8601 (or Go) time as sortable UTC, `2020-05-09T23:54:49.200000Z`; None when it can't be read.

    A time without an offset is taken for UTC. Digits below microseconds are cut off.
    """
    if not isinstance(value, str):
        return None
    try:
        try:
            time = datetime.fromisoformat(value.strip().upper())
        except ValueError:
            go_time = _GO_TIME.fullmatch(value)
            if go_time is None:
                return None
            time = datetime.fromisoformat("".join(go_time.groups()))
        return sortable(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None


def sortable(time: datetime) -> str:
    """Spell a time so that text sorts as time does: `2020-05-09T23:54:49.200000Z`; raises `OverflowError`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
