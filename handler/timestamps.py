"""Convert the times that Segment's sources write into text that sorts by time.

ISO 8601 and RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339), in the forms that docs/reference/storage.md lists. Any
other text is not a time. `datetime.fromisoformat` alone is not enough. It accepts any character between date and time,
reads epoch milliseconds as a year, and differs between versions of Python.
"""

import re
from datetime import UTC, datetime, timedelta

_HOUR, _SIXTY = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_OFFSET = f"(?:[Zz]|[+-]{_HOUR}(?::?{_SIXTY})?)"
_FRACTION = "(?:[.,][0-9]+)?"

_USUAL_TIME = re.compile(f"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T{_HOUR}:{_SIXTY}:{_SIXTY})(?:\\.([0-9]{{1,6}})[0-9]*)?Z")
"""The form of nearly all times. Its result is copied from the text, which is faster than formatting."""
_TIME = re.compile(
    f"""
    (?: [0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}} | [0-9]{{4}}-W[0-9]{{2}}-[1-7] )
    (?: [Tt\\ ] {_HOUR} (?: :{_SIXTY} (?: :(?P<second>{_SIXTY}|60) {_FRACTION} )? )? {_OFFSET}? )?
    |
    (?: [0-9]{{8}} | [0-9]{{4}}W[0-9]{{2}}[1-7] )
    (?: [Tt] {_HOUR} (?: {_SIXTY} (?: (?P<basic_second>{_SIXTY}|60) {_FRACTION} )? )? {_OFFSET}? )?
    """,
    re.VERBOSE,
)
"""The extended and the basic format of ISO 8601. The offset may be in either format, as C's `%z` accepts it."""
_GO_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?) ([+-][0-9]{4}) [A-Za-z0-9+/_-]+"
    r"(?: m=[+-][0-9]+\.[0-9]+)?"
)
"""The output of Go's `time.Time.String`: `2020-05-09 23:54:49.2 +0000 UTC m=+70366.29`. https://pkg.go.dev/time"""


def parse_time(value: object) -> str | None:
    """Return an ISO 8601 (or Go) time as sortable UTC, `2020-05-09T23:54:49.200000Z`; None for anything else.

    A time without an offset is UTC. Digits after microseconds are cut off. A leap second becomes the second after it.
    White space around the time is ignored. Digits alone are never an epoch, because the unit would be a guess: seconds,
    milliseconds or microseconds.
    """
    if not isinstance(value, str):
        return None
    try:
        if usual := _USUAL_TIME.fullmatch(value):
            second, fraction = usual.groups("")
            datetime.fromisoformat(second)  # such as the 30th of February
            return f"{second}.{fraction:0<6}Z"
        return _parse_unusual(value)
    except (ValueError, OverflowError):
        return None


def _parse_unusual(text: str) -> str | None:
    text = text.strip(" \t\r\n")
    if go_time := _GO_TIME.fullmatch(text):
        text = "".join(go_time.groups())
    written = _TIME.fullmatch(text)
    if written is None:
        return None
    is_leap = "60" in written.groups()
    if is_leap:
        start, end = written.span(str(written.lastgroup))
        text = f"{text[:start]}59{text[end:]}"
    time = datetime.fromisoformat(text.upper())
    time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    if is_leap:
        time += timedelta(seconds=1)
        if (time.day, time.hour, time.minute, time.second) != (1, 0, 0, 0):
            return None  # a leap second is the last second of a month
    return sortable(time)


def sortable(time: datetime) -> str:
    """Format a time so that its text sorts by time: `2020-05-09T23:54:49.200000Z`; raises `OverflowError`."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
