"""Step 2b: find the messages in a batch that can't be parsed as a whole, so that each is parsed alone.

It looks only at strings and brackets, without recursion and in linear time. Every loop over characters runs in C, and a
batch has at most `MAX_BATCH_MESSAGES` pieces.
"""

import re
from collections.abc import Iterator
from itertools import accumulate
from operator import indexOf

MAX_BATCH_MESSAGES = 2500
"""https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#batch"""
MAX_PIECES = MAX_BATCH_MESSAGES + 1
"""One more than allowed, so that a batch with too many messages is recognised."""

Span = tuple[int, int]
"""The beginning and the end of a piece of text."""

_STEPS = bytes(1 if octet in b"[{" else 255 if octet in b"]}" else 0 for octet in range(256))
"""The change of depth for each octet, as a signed byte: 255 is -1."""

_NO_BRACKETS = bytes(octet for octet in range(256) if not _STEPS[octet])

_DELIMITER = re.compile(rb"[\[\]{},]")
_END = re.compile(rb"\s*+[\]},]")
_OBJECT = re.compile(rb"\s*+\{")
_MEMBER = re.compile(rb'\s*+(" *+")\s*+:\s*+')
_CLOSING = {b"{": b"}", b"[": b"]"}
_HIDDEN_OBJECT = re.compile(r"(?!^)(?<!:)(?<!:\[)\{")
"""An object that is neither the value of a member nor the first entry of an array: it may be the next message."""


class CanNotSplitError(Exception):
    """The boundaries between the messages of the batch are not certain."""


class Outline:
    """A JSON text without the contents of its strings, to find its brackets and commas."""

    def __init__(self, text: str) -> None:
        parts = _split_at_quotes(text)
        parts[1::2] = [" " * len(string) for string in parts[1::2]]
        self._text = '"'.join(parts).encode("ascii", "replace")
        self._steps = memoryview(self._text.translate(_STEPS)).cast("b")

    def members(self) -> Iterator[tuple[Span, Span]]:
        """Yield the place of each name in the object, and of its value; raises `CanNotSplitError`."""
        begin = _OBJECT.match(self._text)
        if begin is None:
            raise CanNotSplitError
        end = 0
        for start, end in self.pieces(begin.end() - 1):
            member = _MEMBER.match(self._text, start, end)
            if member is None:
                raise CanNotSplitError
            yield member.span(1), (member.end(), end)
        if self._text[end + 1 :].strip():
            raise CanNotSplitError

    def is_array(self, at: int) -> bool:
        """Return whether an array begins at a place."""
        return self._text.startswith(b"[", at)

    def pieces(self, at: int) -> Iterator[Span]:
        """Yield the pieces between the commas of the container that begins at a place; raises `CanNotSplitError`."""
        closing = _CLOSING[self._text[at : at + 1]]
        start = at + 1
        for number in range(MAX_PIECES):
            delimiter = _DELIMITER.search(self._text, start)
            if delimiter and delimiter[0] in _CLOSING:
                delimiter = _END.match(self._text, self._end_of_container(delimiter.start()))
            if delimiter is None or delimiter[0][-1:] not in (b",", closing):
                raise CanNotSplitError
            end = delimiter.end() - 1
            is_last = delimiter[0][-1:] == closing
            if not (number == 0 and is_last and not self._text[start:end].strip()):
                yield start, end
            if is_last:
                return
            start = end + 1
        raise CanNotSplitError

    def _end_of_container(self, at: int) -> int:
        """Return the place after the closing bracket of the container that begins at a place."""
        try:
            return at + indexOf(accumulate(self._steps[at:]), 0) + 1
        except ValueError as error:
            raise CanNotSplitError from error


def depth(text: str) -> int:
    """Return the nesting depth of a JSON text."""
    outside = "".join(_split_at_quotes(text)[::2]).encode("ascii", "replace")
    return max(accumulate(memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b")), default=0)


def may_hide_messages(text: str) -> bool:
    """Return whether an entry that is not valid JSON may contain other messages of its batch.

    If a closing bracket is missing, the entry continues up to a surplus bracket; then an object follows a comma. A
    surplus quotation mark swaps strings with the text between them, up to the next such mistake. Then the separator of
    two messages, `}, {"`, is the end of a string.
    """
    parts = _split_at_quotes(text)
    if _HIDDEN_OBJECT.search("".join('"'.join(parts[::2]).split())):
        return True
    strings = (string.rstrip() for string in parts[1::2])
    return any(string.endswith("{") and string[:-1].rstrip().endswith(",") for string in strings)


def _split_at_quotes(text: str) -> list[str]:
    """Split a text at its unescaped quotation marks; escapes become spaces, so that the length stays the same."""
    return text.replace("\\\\", "  ").replace('\\"', "  ").split('"')
