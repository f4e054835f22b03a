"""Convert times of database exports to ISO 8601, because the endpoint reads only that.

The endpoint stores a message with an unreadable time as `undated`. So a history would lose its times, and a corrected
file would be stored a second time. Therefore the import reads the common forms, and rejects the others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from handler.spec import TOP
from handler.timestamps import parse_time, sortable

IDENTITY_TIMES = ("original_timestamp", "timestamp")
"""The fields in a message's identity: if one of them can't be read, the message is not sent."""
OTHER_TIMES = ("received_at", "sent_at")

MIN_EPOCH_SECONDS, MAX_EPOCH_SECONDS = 10**8, 4_102_444_800
"""1973-03-03 and 2100-01-01. In this range seconds, milliseconds, microseconds and nanoseconds can't be confused,
and `20200422100000` is not an epoch."""
UNITS_PER_SECOND = (1, 10**3, 10**6, 10**9)

_NUMBER = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE]\+?[0-9]{1,2})?")
"""BigQuery's JSON has `1.5875496E9`."""
_ZONE_APART = re.compile(r"(.*[0-9]) +(?:UTC|GMT|[Zz]|([+-][0-9]{2}(?::?[0-9]{2})?)(?: UTC)?)")
"""BigQuery writes `2020-04-22 10:00:00.123456 UTC`, Snowflake and Ruby `2020-04-22 10:00:00 +0000`."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Times:
    """The times of a message.

    `rewritten` are times in ISO 8601, by the names in the message. `unreadable` is the first name with a value that is
    not a time. `is_dated` says whether the message has a time for its identity.
    """

    rewritten: Mapping[str, str]
    unreadable: str | None
    is_dated: bool


def read_times(message: Mapping[str, Any]) -> Times:
    """Return the changes that a message needs so that the endpoint can read its times."""
    rewritten: dict[str, str] = {}
    unreadable = None
    is_dated = False
    for name, value in message.items():
        field = TOP.canonical[name]
        if value is None or field not in (*IDENTITY_TIMES, *OTHER_TIMES):
            continue
        is_dated = is_dated or field in IDENTITY_TIMES
        if parse_time(value) is None:
            if time := read_time(value):
                rewritten[name] = time
            elif field in IDENTITY_TIMES:
                unreadable = unreadable or name
    return Times(rewritten=rewritten, unreadable=unreadable, is_dated=is_dated)


def read_time(value: object) -> str | None:
    """Return a time that is not in ISO 8601 as sortable UTC, None if its form is unknown."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    if _NUMBER.fullmatch(text):
        return _epoch(Decimal(text))
    if apart := _ZONE_APART.fullmatch(text):
        return parse_time(apart[1] + (apart[2] or "Z"))
    return None


def _epoch(number: Decimal) -> str | None:
    for units in UNITS_PER_SECOND:
        if MIN_EPOCH_SECONDS * units <= number < MAX_EPOCH_SECONDS * units:
            return sortable(_EPOCH + timedelta(microseconds=int(number * 10**6 / units)))
    return None
