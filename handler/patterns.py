r"""Translate regular expressions of JSON Schema to Python's `re`, so that they accept the same texts.

JSON Schema's patterns are regular expressions of ECMA-262 (https://tc39.es/ecma262/#sec-patterns) with the flag `u`.
Python reads many of them differently: its `$` accepts a final line break, and its `\d` accepts digits of all scripts. A
pattern without an equivalent in Python raises `PatternError`; `destination schemas check` reports it.
"""

import re
from dataclasses import dataclass
from typing import Any

ONE_SCHEMA = {
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
}
SCHEMAS_IN_ARRAY = {"allOf", "anyOf", "items", "oneOf", "prefixItems"}
SCHEMAS_BY_NAME = {
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
}

Ranges = tuple[tuple[int, int], ...]
"""Code points from the first to the second, sorted, without overlap."""

MAX_CODE_POINT = 0x10FFFF
MAX_REPEATS = 1000
"""A larger count is refused: no text of a message needs it, and `re` compiles it slowly."""


class PatternError(ValueError):
    """A pattern can't be used here; the text says why, and what to write instead."""


@dataclass(frozen=True)
class Chars:
    """One character of a set."""

    ranges: Ranges

    def python(self) -> str:
        """Return the pattern for `re`."""
        if not self.ranges:
            return "(?!)"
        if len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1]:
            return _char(self.ranges[0][0])
        spelled = (_char(low) + (f"-{_char(high)}" if high > low else "") for low, high in self.ranges)
        return f"[{''.join(spelled)}]"


@dataclass(frozen=True)
class Assertion:
    """A zero-width assertion in Python's syntax: the start, the end, or a word boundary."""

    text: str

    def python(self) -> str:
        """Return the pattern for `re`."""
        return self.text


@dataclass(frozen=True)
class Sequence:
    """Parts that follow each other."""

    parts: "tuple[Node, ...]"

    def python(self) -> str:
        """Return the pattern for `re`."""
        return "".join(part.python() for part in self.parts)


@dataclass(frozen=True)
class Choice:
    """Alternatives."""

    parts: "tuple[Node, ...]"

    def python(self) -> str:
        """Return the pattern for `re`."""
        return f"(?:{'|'.join(part.python() for part in self.parts)})"


@dataclass(frozen=True)
class Repeat:
    """A repeated part; `most` is None without an upper bound."""

    part: "Node"
    least: int
    most: int | None
    is_lazy: bool

    def python(self) -> str:
        """Return the pattern for `re`."""
        most = "" if self.most is None else self.most
        return f"(?:{self.part.python()}){{{self.least},{most}}}{'?' * self.is_lazy}"


@dataclass(frozen=True)
class Lookaround:
    """A lookahead or lookbehind; `kind` is `=`, `!`, `<=` or `<!`."""

    part: "Node"
    kind: str

    def python(self) -> str:
        """Return the pattern for `re`."""
        return f"(?{self.kind}{self.part.python()})"


Node = Chars | Assertion | Sequence | Choice | Repeat | Lookaround


def python_schema(schema: Any) -> Any:  # noqa: ANN401 -- a schema, or any other JSON value in its place
    """Return a schema with translated patterns; raises `PatternError`."""
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, Any] = {}
    for keyword, value in schema.items():
        changed[keyword] = value
        if keyword == "pattern" and isinstance(value, str):
            changed[keyword] = python_pattern(value)
        elif keyword in SCHEMAS_BY_NAME and isinstance(value, dict):
            changed[keyword] = {}
            for name, inner in value.items():
                own_name = python_pattern(name) if keyword == "patternProperties" else name
                while own_name in changed[keyword]:
                    own_name += "(?:)"  # two spellings of one pattern
                changed[keyword][own_name] = python_schema(inner)
        elif keyword in SCHEMAS_IN_ARRAY and isinstance(value, list):
            changed[keyword] = [python_schema(inner) for inner in value]
        elif keyword in ONE_SCHEMA:
            changed[keyword] = python_schema(value)
    return changed


def python_pattern(pattern: str) -> str:
    """Return the pattern for `re.search` that accepts the same texts; raises `PatternError`."""
    try:
        python = parse_pattern(pattern).python()
        re.compile(python)
    except (re.error, RecursionError, OverflowError) as error:
        raise PatternError(f"Python can't read this pattern: {error}") from error
    return python


def parse_pattern(pattern: str) -> Node:
    """Return the syntax tree of a pattern; raises `PatternError`."""
    try:
        return _Parser(pattern).whole()
    except RecursionError as error:
        raise PatternError("the pattern is nested too deeply") from error


def _char(code_point: int) -> str:
    """Escape a character so that it has no special meaning for `re` or fastjsonschema."""
    char = chr(code_point)
    return char if char.isascii() and char.isalnum() else f"\\U{code_point:08x}"


def _union(*many: Ranges) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(one for ranges in many for one in ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _ranges(found: int | Ranges) -> Ranges:
    return ((found, found),) if isinstance(found, int) else found


def _others(ranges: Ranges) -> Ranges:
    """Return all code points except the given ones."""
    edges = [-1, *(edge for low, high in ranges for edge in (low, high)), MAX_CODE_POINT + 1]
    gaps = zip(edges[::2], edges[1::2], strict=True)
    return tuple((before + 1, after - 1) for before, after in gaps if before + 1 < after)


def _of(*texts: str) -> Ranges:
    """Return the ranges of some texts; each is one character, or the first and the last character of a range."""
    return _union(tuple((ord(text[0]), ord(text[-1])) for text in texts))


_DIGITS = _of("09")
_WORD = _of("09", "AZ", "az", "_")
_SPACE = _of("\t\r", " ", "\xa0", "\u1680", "\u2000\u200a", "\u2028\u2029", "\u202f", "\u205f", "\u3000", "\ufeff")
_LINE_ENDS = _of("\n", "\r", "\u2028\u2029")
_CLASSES = {
    "d": _DIGITS,
    "w": _WORD,
    "s": _SPACE,
    "D": _others(_DIGITS),
    "W": _others(_WORD),
    "S": _others(_SPACE),
}
_CONTROLS = {"0": "\0", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_A_WORD = Chars(_WORD).python()
_ASSERTIONS = {
    "b": f"(?:(?<={_A_WORD})(?!{_A_WORD})|(?<!{_A_WORD})(?={_A_WORD}))",
    "B": f"(?:(?<={_A_WORD})(?={_A_WORD})|(?<!{_A_WORD})(?!{_A_WORD}))",
}
_QUANTIFIER = re.compile(r"(?:([*+?])|\{([0-9]+)(?:(,)([0-9]+)?)?\})(\?)?")
_GROUP = re.compile(r"\((?:\?(?::|(=|!|<=|<!)|<([^>]*)>)|(?!\?))")
_CODE_POINT = re.compile(
    r"x([0-9A-Fa-f]{2})|u([Dd][89ABab][0-9A-Fa-f]{2})\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})"
    r"|u\{0*(10[0-9A-Fa-f]{4}|[0-9A-Fa-f]{1,5})\}"
)
_NAME_ESCAPE = re.compile(rf"\\(?=u)(?:{_CODE_POINT.pattern})")
_JOINERS = "\u200c\u200d"


_MISREAD = {
    **{char: f"\\{char}{{…}} is not supported: list the characters, such as [A-Za-zÀ-ÿ]" for char in "pP"},
    **{
        char: f"\\{char} refers to a group, which is not supported: write out what the group matches"
        for char in "123456789k"
    },
}


def _code_point(escape: re.Match[str]) -> int:
    byte, high, low, unit, braced = escape.groups()
    if high:
        return 0x10000 + (int(high, 16) - 0xD800) * 0x400 + int(low, 16) - 0xDC00
    return int(byte or unit or braced, 16)


def _group_name(spelled: str) -> str:
    """Return the name of a group without its escapes, "" if it is not an identifier of ECMA-262."""
    name = _NAME_ESCAPE.sub(lambda escape: chr(_code_point(escape)), spelled)
    # Python's identifiers are ECMA-262's, except for $ and the two joiners.
    is_name = name[:1] not in _JOINERS and re.sub(f"[${_JOINERS}]", "_", name).isidentifier()
    return name if is_name else ""


class _Parser:
    """Parses a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._names: set[str] = set()

    def whole(self) -> Node:
        node = self._choice()
        if self._next:
            raise PatternError("a ) closes nothing: write \\) for the character")
        return node

    @property
    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _takes(self, text: str) -> bool:
        is_next = self._pattern.startswith(text, self._at)
        self._at += len(text) * is_next
        return is_next

    def _take(self) -> str:
        char = self._next
        self._at += 1
        return char

    def _choice(self) -> Node:
        before = self._names
        parts: list[Node] = []
        names: set[str] = set()
        while not parts or self._takes("|"):
            self._names = set(before)
            parts.append(self._sequence())
            names |= self._names
        self._names = names
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._next not in ("", "|", ")"):
            parts.append(self._repeated(self._atom()))
        return Sequence(tuple(parts))

    def _repeated(self, part: Node) -> Node:
        quantifier = _QUANTIFIER.match(self._pattern, self._at)
        if quantifier is None:
            return part
        self._at = quantifier.end()
        sign, count, comma, upper, lazy = quantifier.groups()
        if sign:
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[sign]
        else:
            least = int(count)
            most = int(upper) if upper else None if comma else least
        if isinstance(part, Assertion | Lookaround):
            raise PatternError(f"{quantifier[0]} repeats nothing: it must follow a character or a group")
        if max(least, most or 0) > MAX_REPEATS:
            raise PatternError(f"{quantifier[0]} is too large: at most {MAX_REPEATS} times, or use maxLength")
        if most is not None and most < least:
            raise PatternError(f"{quantifier[0]} has its numbers in the wrong order")
        if _QUANTIFIER.match(self._pattern, self._at):
            raise PatternError("a repetition is repeated: put a group around the first one")
        return Repeat(part, least, most, bool(lazy))

    def _atom(self) -> Node:
        if self._next == "(":
            return self._group()
        if self._next in "*+?" or _QUANTIFIER.match(self._pattern, self._at):
            raise PatternError(f"{self._next} repeats nothing: write \\{self._next} for the character")
        char = self._take()
        if char in "{}]":
            raise PatternError(f"{char} stands alone: write \\{char} for the character")
        if char == "[":
            return self._class()
        if char == "\\" and self._next in _ASSERTIONS:
            return Assertion(_ASSERTIONS[self._take()])
        known: dict[str, Node] = {"^": Assertion("^"), "$": Assertion("\\Z"), ".": Chars(_others(_LINE_ENDS))}
        return known.get(char) or Chars(_ranges(self._escape() if char == "\\" else ord(char)))

    def _group(self) -> Node:
        begins = _GROUP.match(self._pattern, self._at)
        name = begins and begins[2] is not None and _group_name(begins[2])
        if begins is None or name == "":
            raise PatternError(
                f"{self._pattern[self._at : self._at + 4]} is not a group of ECMA-262. There are (…), (?:…), "
                "(?<name>…), (?=…), (?!…), (?<=…) and (?<!…)"
            )
        if name and name in self._names:
            raise PatternError(f"two groups have the name {name}: leave out the names, because nothing refers to them")
        self._names |= {name} if name else set()
        self._at = begins.end()
        inside = self._choice()
        if not self._takes(")"):
            raise PatternError("a ( is not closed: write \\( for the character")
        # Nothing refers to a group, so groups need not capture.
        return Lookaround(inside, begins[1]) if begins[1] else Choice((inside,))

    def _escape(self) -> int | Ranges:
        """Parse the text after a backslash: a character, or a class of characters."""
        if code_point := _CODE_POINT.match(self._pattern, self._at):
            self._at = code_point.end()
            return _code_point(code_point)
        char = self._take()
        if char in _CLASSES:
            return _CLASSES[char]
        if char == "c" and re.match("[A-Za-z]", self._next):
            return ord(self._take()) % 32
        if char in _CONTROLS and not (char == "0" and self._next.isdigit()):
            return ord(_CONTROLS[char])
        if char and char.isascii() and not char.isalnum():
            return ord(char)  # also accepts \- outside of […], which ECMA-262 allows only without the flag u
        raise PatternError(_MISREAD.get(char, f"\\{char} has no meaning in ECMA-262"))

    def _class(self) -> Node:
        is_negated = self._takes("^")
        found: list[Ranges] = []
        while not self._takes("]"):
            first = self._class_atom()
            is_range = self._next == "-" and self._pattern[self._at + 1 : self._at + 2] not in ("]", "")
            if not is_range:
                found.append(_ranges(first))
                continue
            self._at += 1
            last = self._class_atom()
            if isinstance(first, tuple) or isinstance(last, tuple):
                raise PatternError("a - in […] has a class on one side: write \\- for the character")
            if last < first:
                raise PatternError("a range in […] has its ends in the wrong order")
            found.append(((first, last),))
        ranges = _union(*found)
        return Chars(_others(ranges) if is_negated else ranges)

    def _class_atom(self) -> int | Ranges:
        char = self._take()
        if not char:
            raise PatternError("a [ is not closed: write \\[ for the character")
        if char != "\\":
            return ord(char)
        return 8 if self._takes("b") else self._escape()
