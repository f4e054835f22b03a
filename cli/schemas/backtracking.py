"""Patterns that can take exponential time: those where a repetition can read one text in several ways.

Python's `re` tries all ways before it gives up. The pattern is read as an automaton of Glushkov: one state for each
character of the pattern, and an edge where one can follow the other. A repetition is ambiguous if two different
walks lead from a state back to it over the same text (Weber and Seidl 1991, "EDA").
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from handler.patterns import Chars, Choice, Look, Node, Ranges, Repeat, Sequence

MAX_COPIES = 10
"""A repetition with a larger upper bound is treated as one without."""
MAX_STATES = 300
"""Of a larger automaton nothing is said."""
MAX_COMPARISONS = 500_000
"""Of states with states: nothing is said of a pattern that needs more, such as a repeated list of 75 codes."""

_Node = TypeVar("_Node")
_Pair = tuple[int, int]
_Part = tuple[bool, list[int], list[int]]
"""Whether a part can be empty, the states that it can begin with, and the states that it can end with."""


def is_exponential(node: Node) -> bool:
    """Whether texts exist for which a pattern takes exponential time; False where it is too large to find out."""
    if any(is_exponential(look.part) for look in _looks(node)):
        return True
    automaton = Automaton()
    try:
        automaton.add(node)
        return automaton.is_ambiguous()
    except OverflowError:
        return False


def _looks(node: Node) -> Iterator[Look]:
    if isinstance(node, Look):
        yield node
    elif isinstance(node, Sequence | Choice):
        for part in node.parts:
            yield from _looks(part)
    elif isinstance(node, Repeat):
        yield from _looks(node.part)


class Automaton:
    """The states of a pattern, and which of them can follow each other."""

    def __init__(self) -> None:
        self.states: list[Ranges] = []
        self.comparisons = 0
        self.edges: Counter[tuple[int, int]] = Counter()

    def add(self, node: Node) -> _Part:
        """Add the states of a part, with the edges between them."""
        match node:
            case Chars(ranges):
                if len(self.states) == MAX_STATES:
                    raise OverflowError
                self.states.append(ranges)
                state = len(self.states) - 1
                return False, [state], [state]
            case Sequence(parts):
                return self._join([self.add(part) for part in parts])
            case Choice(parts):
                added = [self.add(part) for part in parts]
                firsts = [state for _, first, _ in added for state in first]
                lasts = [state for _, _, last in added for state in last]
                return any(is_empty for is_empty, _, _ in added), firsts, lasts
            case Repeat():
                return self._repeat(node)
        return True, [], []  # a place between characters

    def _repeat(self, node: Repeat) -> _Part:
        if node.most == 0:
            return True, [], []
        is_fixed = node.least == node.most and _fixed_length(node.part) is not None
        if node.most is not None and (node.most <= MAX_COPIES or is_fixed):
            count = min(node.most, MAX_COPIES)
            copies = [self.add(node.part) for _ in range(count)]
            is_empty, firsts, _ = self._join(copies)
            ends = copies[max(min(node.least, count), 1) - 1 :]
            return is_empty or node.least == 0, firsts, [state for _, _, last in ends for state in last]
        is_empty, firsts, lasts = self.add(node.part)
        self._link(lasts, firsts)
        if is_empty and node.most is not None:
            self._link(lasts, firsts)  # each of the empty ones can be any of them
        return is_empty or node.least == 0, firsts, lasts

    def _join(self, parts: list[_Part]) -> _Part:
        is_empty = True
        firsts: list[int] = []
        lasts: list[int] = []
        for part_is_empty, first, last in parts:
            self._link(lasts, first)
            firsts = [*firsts, *first] if is_empty else firsts
            lasts = [*lasts, *last] if part_is_empty else last
            is_empty = is_empty and part_is_empty
        return is_empty, firsts, lasts

    def _link(self, lasts: list[int], firsts: list[int]) -> None:
        self.edges.update((last, first) for last in lasts for first in firsts)

    def is_ambiguous(self) -> bool:
        """Whether many ways lead through the states for one text; raises `OverflowError` if it is too large."""
        after: dict[int, set[int]] = {state: set() for state in range(len(self.states))}
        for start, end in self.edges:
            if self.states[end]:
                after[start].add(end)
        reached = {state: _reached(state, after.__getitem__) for state in after}
        if any(count > 1 and start in reached[end] for (start, end), count in self.edges.items()):
            return True
        return any(self._splits(state, after, reached) for state in after if state in reached[state])

    def _splits(self, state: int, after: dict[int, set[int]], reached: dict[int, set[int]]) -> bool:
        """Whether two different walks over one text lead from a state back to it."""

        def following(pair: _Pair) -> set[_Pair]:
            left, right = ([one for one in after[side] if state in reached[one]] for side in pair)
            self.comparisons += len(left) * len(right)
            if self.comparisons > MAX_COMPARISONS:
                raise OverflowError
            return {(one, other) for one in left for other in right if _share(self.states[one], self.states[other])}

        before: dict[_Pair, set[_Pair]] = {}
        pairs = _reached((state, state), following)
        for pair in pairs:
            for one in following(pair):
                before.setdefault(one, set()).add(pair)
        back = _reached((state, state), lambda pair: before.get(pair, set()))
        return any(pair[0] != pair[1] for pair in pairs & back)


def _fixed_length(node: Node) -> int | None:
    """Return how many characters a part takes, None if that varies."""
    match node:
        case Chars():
            return 1
        case Sequence(parts):
            lengths = [_fixed_length(part) for part in parts]
            return None if None in lengths else sum(length or 0 for length in lengths)
        case Choice(parts):
            several = {_fixed_length(part) for part in parts}
            return several.pop() if len(several) == 1 else None
        case Repeat(part, least, most):
            length = _fixed_length(part)
            return None if length is None or least != most else length * least
    return 0


def _reached(start: _Node, following: Callable[[_Node], Iterable[_Node]]) -> set[_Node]:
    """Return what can be reached in one step or more."""
    seen: set[_Node] = set()
    waiting = [start]
    while waiting:
        for one in following(waiting.pop()):
            if one not in seen:
                seen.add(one)
                waiting.append(one)
    return seen


def _share(some: Ranges, others: Ranges) -> bool:
    return any(low <= end and start <= high for low, high in some for start, end in others)
