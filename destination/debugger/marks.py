"""Mark a message's lines: the changes by canonicalisation, and the violations of a schema.

The lines of the received message and of the canonical message are matched by their canonical place. So this module
depends on how names are recognised (`handler/spec.py`), but not on `handler/canonicalise.py`.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

from destination.debugger.layout import Layout, TextLine, TextMark
from destination.schemas.places import Path, json_pointer
from handler.canonicalise import CONFLICTS, WRITE_KEY
from handler.decode import JsonObject
from handler.errors import Violation
from handler.spec import ALIAS_TOP, BATCH, CONTEXT, CONTEXT_OBJECTS, TOP, fold

CUSTOMERS_OWN = ("properties", "traits")
ENTRY_DEPTH = 2
"""Depth of a message in its batch: the name of the array, and the index in it."""
MAX_OLD_VALUE_CHARS = 60
KEY_CHARS = 4
"""Number of shown characters of a secret key."""
MIN_KEY_CHARS = 12
"""A shorter key is not shown at all: its last characters would reveal too much."""


def old_names_in(body: JsonObject) -> Collection[str]:
    """Return the old field names, reduced to letters, that a canonical message has replaced by current names."""
    return ALIAS_TOP.keys() - map(fold, body) if body.get("type") == "alias" else ()


def canonical_path(path: Path, old_names: Collection[str] = ()) -> Path:
    """Return the canonical place of a value in a message."""
    if not path:
        return path
    top = str(path[0])
    name = TOP.canonical[top] or (ALIAS_TOP[fold(top)] if fold(top) in old_names else top)
    rest = path[1:]
    if name == "context" and rest:
        inner = CONTEXT.canonical[str(rest[0])] or rest[0]
        rest = (inner, *rest[1:])
        if inner in CONTEXT_OBJECTS and len(rest) > 1:
            rest = (inner, CONTEXT_OBJECTS[str(inner)].canonical[str(rest[1])] or rest[1], *rest[2:])
    return (name, *rest)


def holds_key(path: Path) -> bool:
    """Return whether a source's key may be at or below a place; names that belong to the customer don't count."""
    for part in path:
        name = TOP.canonical[part] if isinstance(part, str) else None
        if name in CUSTOMERS_OWN:
            return False
        if name == WRITE_KEY:
            return True
    return False


def masked(key: str) -> str:
    """Return a key as it may be shown: its last characters, which distinguish keys."""
    return f"…{key[-KEY_CHARS:]}" if len(key) >= MIN_KEY_CHARS else "…"


def mask_write_keys(layout: Layout) -> Layout:
    """Return lines with the keys of sources masked, stored or not."""

    def mask(line: TextLine) -> TextLine:
        if line.kind == "bracket" or not holds_key(line.path):
            return line
        if line.kind != "string":
            return replace(line, value=json.dumps(masked("")))
        return replace(line, value=json.dumps(masked(json.loads(line.value, strict=False)), ensure_ascii=False))

    return replace(layout, lines=[mask(line) for line in layout.lines])


def compare(
    received: Layout, canonical: Layout, old_names: Collection[str] = (), *, added: str = "added"
) -> tuple[Layout, Layout]:
    """Return the lines of the received message and of the canonical one, each with the differences to the other.

    `added` explains fields that did not arrive with the message.
    """
    if received.omitted or canonical.omitted:  # an absent line may only be omitted
        return received, canonical
    comparison = _Comparison(received, canonical, old_names, added)
    return _marked(received, comparison.left_out), _marked(canonical, comparison.changed)


class _Comparison:
    """The lines of a received message, by their canonical places, and of the canonical message."""

    def __init__(self, received: Layout, canonical: Layout, old_names: Collection[str], added: str) -> None:
        self._added = added
        self._became = {line.path: line for line in canonical.values}
        self._last = {line.path: line for line in received.values}
        """For duplicate names in an object, the line that counts."""
        self._places = {line.path: canonical_path(line.path, old_names) for line in received.values}
        self._lost: set[Path] = set()
        """The places of values that lost to another spelling, and of everything inside them."""
        self._came: defaultdict[Path, list[TextLine]] = defaultdict(list)
        for line in received.values:
            if self._gave_way(line.path) or line.path[:-1] in self._lost:
                self._lost.add(line.path)
            else:
                self._came[self._places[line.path]].append(line)

    def _gave_way(self, path: Path) -> bool:
        if not path or (*path[:-1], CONFLICTS) in self._last:  # received conflicts have no other place to compare
            return False
        return (*self._places[path[:-1]], CONFLICTS, path[-1]) in self._became

    def left_out(self, line: TextLine) -> TextMark | None:
        """Return why a received value is not in the canonical message."""
        if self._last[line.path] is not line:
            return TextMark(kind="left-out", text="this name occurs again below, and that value counts")
        if self._gave_way(line.path):
            return TextMark(kind="left-out", text=f"another spelling of this field won: this is in {CONFLICTS}")
        path = self._places[line.path]
        is_inside = bool(path[:-1]) and path[:-1] not in self._became
        if line.path in self._lost or is_inside:
            return None
        if path in self._became and (line.value not in EMPTY or _same(line, self._became[path])):
            return None
        return TextMark(kind="left-out", text=_absent(line))

    def changed(self, line: TextLine) -> TextMark | None:
        """Return how a value of the canonical message was changed."""
        if line.path not in self._came:
            is_first = line.path[:-1] in self._came
            return TextMark(kind="added", text=_ADDED.get(str(line.path[-1]), self._added)) if is_first else None
        sources = self._came[line.path]
        source = min(sources, key=lambda source: (not _same(source, line), source.path != line.path))
        if not _same(source, line):
            return TextMark(kind="changed", text=f"was {_short(source.value)}")
        if source.path[-1:] != line.path[-1:]:
            return TextMark(kind="renamed", text=f"was {_short(str(source.path[-1]))}")
        return None


EMPTY = ("null", '""')
INHERITED = "from the batch, for all of its messages"
_ADDED = {
    "message_id": "derived, because the message has no messageId",
    "type": "from the path",
    CONFLICTS: "other values of fields that came in several spellings",
}


def _absent(line: TextLine) -> str:
    if TOP.canonical[str(line.path[-1])] == WRITE_KEY:
        return "never stored"
    if line.value == "null":
        return "null counts as absent"
    return "empty counts as absent" if line.value == '""' else "left out"


def _same(line: TextLine, other: TextLine) -> bool:
    """Return whether two lines show the same value; for objects and arrays, only whether both are one."""
    if line.value == other.value:
        return True
    if "bracket" in (line.kind, other.kind):
        return line.value[0] == other.value[0]
    one, two = json.loads(line.value, strict=False), json.loads(other.value, strict=False)
    return bool(one == two and type(one) is type(two))


def _short(text: str) -> str:
    return text if len(text) <= MAX_OLD_VALUE_CHARS else f"{text[:MAX_OLD_VALUE_CHARS]}…"


def mark_violations(layout: Layout, violations: Collection[Violation], old_names: Collection[str] = ()) -> Layout:
    """Return the lines of a message with its violations, each at its place or the nearest existing one."""

    def place(line: TextLine) -> str:
        return json_pointer(canonical_path(line.path, old_names))

    pointers = {place(line) for line in layout.values}
    marks: defaultdict[str, list[TextMark]] = defaultdict(list)
    for violation in violations:
        pointer = next((pointer for pointer in _upwards(violation.pointer) if pointer in pointers), "")
        marks[pointer].append(TextMark(kind="violation", text=violation.message))
    marked = [
        line if line.is_end else replace(line, marks=(*line.marks, *marks.pop(place(line), ())))
        for line in layout.lines
    ]
    return replace(layout, lines=marked)


def entry_ranges(batch: Layout) -> Mapping[int, range]:
    """Return the range of lines of each message in a batch."""
    ranges: dict[int, range] = {}
    for number, line in enumerate(batch.lines):
        if len(line.path) > 1 and isinstance(index := line.path[1], int) and BATCH.canonical[str(line.path[0])]:
            begin = ranges[index].start if index in ranges else number
            ranges[index] = range(begin, number + 1)
    return ranges


def entry(batch: Layout, lines: range) -> Layout:
    """Return the lines of a message in a batch, with their places in the message."""
    inside = batch.lines[lines.start : lines.stop]
    return replace(batch, lines=[replace(line, path=line.path[ENTRY_DEPTH:]) for line in inside])


def _upwards(pointer: str) -> Iterator[str]:
    """Yield a pointer, and then the pointers of its parents."""
    yield pointer
    while pointer:
        pointer = pointer.rpartition("/")[0]
        yield pointer


def _marked(layout: Layout, find: Callable[[TextLine], TextMark | None]) -> Layout:
    lines = [
        replace(line, marks=(*line.marks, mark)) if not line.is_end and (mark := find(line)) else line
        for line in layout.lines
    ]
    return replace(layout, lines=lines)


def left_out_sentences(layout: Layout) -> list[str]:
    """Return sentences about the omitted parts of a message, with the reasons."""
    return [
        f"{'.'.join(map(str, line.path))}: {mark.text}"
        for line in layout.lines
        for mark in line.marks
        if mark.kind == "left-out"
    ]
