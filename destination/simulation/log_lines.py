"""Check a local server's request lines: they must contain no key and no content of a message.

A stack's lines are in CloudWatch, and are not read for this.
"""

import base64
from collections.abc import Collection, Iterator
from pathlib import Path

from destination.simulation.breaches import Breaches

NO_SECRETS = "request lines hold no API key and no personal data"
MIN_SECRET_CHARS = 6
"""A shorter text may occur in a line by chance."""
PERSONAL = {
    "an e-mail address": ("ada@example.com", "ada+"),
    "a name": ("Ada Lovelace",),
    "a user id": ("piece-user-", "97980cfea0", "a#user#"),
    "an anonymous id": ("507f191e-",),
    "an IP address": ("203.0.113.7", "2001:db8::7"),
    "the key of a source": ("write-key-of-a-source",),
    "a part of a message": ("long text ", "Newsletter", "DROP TABLE"),
}
"""Content that only messages have -> texts by which it is recognised. Message ids and customers may occur in lines."""


class LogLines:
    """Checks the lines that are written to a file from now on."""

    def __init__(self, file: Path | None) -> None:
        self._file = file if file is not None and file.exists() else None
        self._begin = self._file.stat().st_size if self._file else 0

    def judge(self, api_keys: Collection[str], breaches: Breaches) -> None:
        """Report each line with a secret; a file that was replaced meanwhile is read completely."""
        secrets = dict(_secrets(api_keys))
        for line in self._lines():
            for text, what in secrets.items():
                if text in line:
                    place = line.find(text)
                    found = f"{what} in {_excerpt(line, place)}"
                    breaches.add(NO_SECRETS, "a request line", expected="none of it", found=found)
                    break

    def _lines(self) -> Iterator[str]:
        if self._file is None:
            return
        try:
            with self._file.open("rb") as file:
                if self._file.stat().st_size >= self._begin:
                    file.seek(self._begin)
                for line in file:
                    yield line.decode("utf-8", "replace")
        except OSError:
            return


def _secrets(api_keys: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield texts that must not occur in any line, with descriptions."""
    for key in api_keys:
        yield key, "an API key"
        yield base64.b64encode(f"{key}:".encode()).decode(), "an Authorization header"
    for what, texts in PERSONAL.items():
        yield from ((text, what) for text in texts)


def _excerpt(line: str, place: int) -> str:
    """Return the part of a line before a secret, which shows the field but not the secret."""
    return f"…{line[max(0, place - 40) : place]}…"
