"""What canonicalisation made of a message, and what a schema refused of it, as marks on its lines.

Lines of what came and of the canonical message are told apart by the canonical place, which both have. So this knows
how names are found (`handler/spec.py`), and not what `handler/canonicalise.py` does with them.
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
"""Of a message in its batch: the name of the array, and the index in it."""
MAX_OLD_VALUE_CHARS = 60
KEY_CHARS = 4
"""Of a key that is not shown."""
MIN_KEY_CHARS = 12
"""Of a shorter one its end would tell too much."""


def old_names_in(body: JsonObject) -> Collection[str]:
    """Return the old names of fields, by their letters, that were taken for the present ones in a canonical message."""
    return ALIAS_TOP.keys() - map(fold, body) if body.get("type") == "alias" else ()


def canonical_path(path: Path, old_names: Collection[str] = ()) -> Path:
    """Return where the value at a place of a message is in the canonical message."""
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
    """Whether the key of a source may be at a place: below that name, but where names are the customer's own."""
    for part in path:
        name = TOP.canonical[part] if isinstance(part, str) else None
        if name in CUSTOMERS_OWN:
            return False
        if name == WRITE_KEY:
            return True
    return False


def masked(key: str) -> str:
    """Return a key as it may be shown: its end, which tells keys apart."""
    return f"…{key[-KEY_CHARS:]}" if len(key) >= MIN_KEY_CHARS else "…"


def mask_write_keys(layout: Layout) -> Layout:
    """Return lines without keys of sources, be they stored or not."""

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
    """Return the lines of a message as it came and of the canonical one, each with what the other one lacks.

    `added` says where fields come from that did not come with the message.
    """
    if received.omitted or canonical.omitted:  # what is not there may only be omitted
        return received, canonical
    comparison = _Comparison(received, canonical, old_names, added)
    return _marked(received, comparison.left_out), _marked(canonical, comparison.changed)


class _Comparison:
    """The lines of a message as it came, by their canonical places, and of the canonical one."""

    def __init__(self, received: Layout, canonical: Layout, old_names: Collection[str], added: str) -> None:
        self._added = added
        self._became = {line.path: line for line in canonical.values}
        self._last = {line.path: line for line in received.values}
        """Of names that stand twice in an object, which is the one that counts."""
        self._places = {line.path: canonical_path(line.path, old_names) for line in received.values}
        self._lost: set[Path] = set()
        """The places of values that gave way to another spelling, and of what is inside them."""
        self._came: defaultdict[Path, list[TextLine]] = defaultdict(list)
        for line in received.values:
            if self._gave_way(line.path) or line.path[:-1] in self._lost:
                self._lost.add(line.path)
            else:
                self._came[self._places[line.path]].append(line)

    def _gave_way(self, path: Path) -> bool:
        if not path or (*path[:-1], CONFLICTS) in self._last:  # where that came, it does not tell
            return False
        return (*self._places[path[:-1]], CONFLICTS, path[-1]) in self._became

    def left_out(self, line: TextLine) -> TextMark | None:
        """Return why a value that came is not in the canonical message."""
        if self._last[line.path] is not line:
            return TextMark(kind="left-out", text="this name stands again below, where its value counts")
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
        """Return what happened to a value of the canonical message on its way."""
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
INHERITED = "told by the batch for all of its messages"
_ADDED = {
    "message_id": "derived, because the message has no messageId",
    "type": "told by the path",
    CONFLICTS: "other values of fields that came in several spellings",
}


def _absent(line: TextLine) -> str:
    if TOP.canonical[str(line.path[-1])] == WRITE_KEY:
        return "never stored"
    if line.value == "null":
        return "null counts as absent"
    return "empty counts as absent" if line.value == '""' else "left out"


def _same(line: TextLine, other: TextLine) -> bool:
    """Whether two lines show the same value; of objects and arrays only that they are."""
    if line.value == other.value:
        return True
    if "bracket" in (line.kind, other.kind):
        return line.value[0] == other.value[0]
    one, two = json.loads(line.value, strict=False), json.loads(other.value, strict=False)
    return bool(one == two and type(one) is type(two))


def _short(text: str) -> str:
    return text if len(text) <= MAX_OLD_VALUE_CHARS else f"{text[:MAX_OLD_VALUE_CHARS]}…"


def mark_violations(layout: Layout, violations: Collection[Violation], old_names: Collection[str] = ()) -> Layout:
    """Return the lines of a message with what a schema refused, each at its place or at what should hold it."""

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
    """Return where the lines of each message of a batch are."""
    ranges: dict[int, range] = {}
    for number, line in enumerate(batch.lines):
        if len(line.path) > 1 and isinstance(index := line.path[1], int) and BATCH.canonical[str(line.path[0])]:
            begin = ranges[index].start if index in ranges else number
            ranges[index] = range(begin, number + 1)
    return ranges


def entry(batch: Layout, lines: range) -> Layout:
    """Return the lines of a message of a batch, with their places in it."""
    inside = batch.lines[lines.start : lines.stop]
    return replace(batch, lines=[replace(line, path=line.path[ENTRY_DEPTH:]) for line in inside])


def _upwards(pointer: str) -> Iterator[str]:
    """Yield a pointer and those to what is around its place."""
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
    """Say what was left out of a message, and why."""
    return [
        f"{'.'.join(map(str, line.path))}: {mark.text}"
        for line in layout.lines
        for mark in line.marks
        if mark.kind == "left-out"
    ]
