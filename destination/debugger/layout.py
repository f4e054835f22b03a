"""Split JSON into lines for people: each value as it was written, with its place as a JSON Pointer (RFC 6901).

Python's JSON reader would lose the spelling of numbers, and duplicate names.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from destination.schemas.places import Path, json_pointer

MAX_LINES = 20_000
"""Limit for one document: a document of a megabyte can have half a million lines."""
MAX_SHOWN_LINES = 2000
MAX_SHOWN_CHARS = 10_000
"""Limit for one value."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_LITERALS = ("true", "false", "null")


@dataclass(frozen=True, kw_only=True)
class TextMark:
    """A remark about a line."""

    kind: Literal["renamed", "changed", "added", "left-out", "violation"]
    text: str


@dataclass(frozen=True, kw_only=True)
class TextLine:
    """A value, the bracket that begins or ends one, or an empty one; `row` is its first row in the text, from 1."""

    path: Path
    depth: int
    name: str | None
    value: str
    row: int
    comma: bool = False
    marks: tuple[TextMark, ...] = ()

    @property
    def pointer(self) -> str:
        """The place of the value."""
        return json_pointer(self.path)

    @property
    def is_end(self) -> bool:
        """Return whether the line ends a value that began above."""
        return self.value in ("}", "]")

    @property
    def kind(self) -> Literal["string", "number", "literal", "bracket"]:
        """The kind of the value."""
        if self.value.startswith('"'):
            return "string"
        if self.value[0] in "{}[]":
            return "bracket"
        return "literal" if self.value in _LITERALS else "number"

    def to_json(self) -> dict[str, Any]:
        """Return the form for the page."""
        return {
            "depth": self.depth,
            "name": self.name and _short(self.name),
            "value": _short(self.value),
            "kind": self.kind,
            "comma": self.comma,
            "marks": [{"kind": mark.kind, "text": mark.text} for mark in self.marks],
        }


def _short(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}… ({len(text):,} characters)"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The lines of a document, and the approximate number of omitted lines."""

    lines: Sequence[TextLine]
    omitted: int = 0

    @property
    def is_whole(self) -> bool:
        """Return whether the page shows every line."""
        is_short = all(len(line.value) <= MAX_SHOWN_CHARS for line in self.lines)
        return is_short and not self.omitted and len(self.lines) <= MAX_SHOWN_LINES

    @property
    def values(self) -> Iterator[TextLine]:
        """The lines that begin a value."""
        return (line for line in self.lines if not line.is_end)

    def to_json(self) -> dict[str, Any]:
        """Return the form for the page."""
        return {
            "lines": [line.to_json() for line in self.lines[:MAX_SHOWN_LINES]],
            "omitted": max(0, len(self.lines) - MAX_SHOWN_LINES) + self.omitted,
            "whole": self.is_whole,
        }


@dataclass(kw_only=True)
class _Container:
    """An open object or array; `entries` is the number of array entries so far."""

    path: Path
    is_object: bool
    entries: int = 0

    def place(self, name: str | None) -> Path:
        """Return the path of the next value."""
        if name is not None:
            return (*self.path, json.loads(name, strict=False))
        self.entries += 1
        return (*self.path, self.entries - 1)


def lay_out(text: str) -> Layout:
    """Return the lines of a text, which must be JSON."""
    lines: list[TextLine] = []
    around: list[_Container] = []
    name: str | None = None
    row, counted = 1, 0
    tokens = _TOKEN.finditer(text)
    for match in tokens:
        piece = match[0]
        row, counted = row + text.count("\n", counted, match.start()), match.start()
        if piece == ":":
            continue
        if piece == ",":
            lines[-1] = replace(lines[-1], comma=True)
        elif piece in "}]":
            path = around.pop().path
            if lines[-1].path == path and lines[-1].value in "{[":
                lines[-1] = replace(lines[-1], value=lines[-1].value + piece)
            else:
                lines.append(TextLine(path=path, depth=len(around), name=None, value=piece, row=row))
        elif around and around[-1].is_object and name is None:
            name = piece
        else:
            path = around[-1].place(name) if around else ()
            lines.append(TextLine(path=path, depth=len(around), name=name, value=piece, row=row))
            name = None
            if piece in "{[":
                around.append(_Container(path=path, is_object=piece == "{"))
            if len(lines) >= MAX_LINES:
                break
    return Layout(lines=lines, omitted=sum(match[0] not in ",:" for match in tokens))


def lay_out_value(value: object) -> Layout:
    """Return the lines of a parsed JSON value."""
    return lay_out(json.dumps(value, ensure_ascii=False))
