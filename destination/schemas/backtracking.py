"""Find patterns that can take very long: Python's `re` tries all ways to read a text before it gives up.

The pattern becomes a Glushkov automaton: one state for each character of the pattern, and an edge if one can follow the
other. The number of ways to read a text is the number of walks over the automaton. So a search looks for texts with
very many walks. Then `re` itself tries the pattern on these texts, in a process with limited processor time. A pattern
is slow only if that limit is reached: many walks cost nothing if the first one succeeds.
"""

import json
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter

from handler.patterns import (
    MAX_REPEATS,
    Assertion,
    Chars,
    Choice,
    Lookaround,
    Node,
    Ranges,
    Repeat,
    Sequence,
    parse_pattern,
    python_pattern,
)

MAX_CHARS = 2000
"""The length of the longest tried text: a pattern of cubic time takes seconds for it, one of quadratic time little."""
SEARCHED_CHARS = 200
"""The search stops at this length. A text that ends in a repetition is then lengthened."""
MANY_WALKS = 100_000
"""With fewer walks over a text of `SEARCHED_CHARS`, the time is at most quadratic."""
ENOUGH_WALKS = 10**12
"""The search does not lengthen a text with more walks."""
MAX_TEXTS = 20
MAX_ENDINGS = 100
MAX_STATES = 5000
MAX_EDGES = 200_000
MAX_WORK = 150_000
"""Limit for the steps of a search, about a tenth of a second. After that, a simpler automaton is searched too."""
SLOW_SECONDS = 0.2
"""Processor time for one text."""
TRIAL_SECONDS = 1
"""Processor time for all texts together."""

_TRIAL = """
import json, re, signal, sys, time
python, texts, slow, most = json.load(sys.stdin)
pattern = re.compile(python)
signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
for text in texts:
    if time.process_time() > most:
        break
    signal.setitimer(signal.ITIMER_VIRTUAL, slow)
    pattern.search(text)
"""

_Weights = Counter[int]
"""The number of ways, by state."""


@lru_cache(maxsize=1000)
def is_slow(pattern: str, max_length: float | None = None) -> bool:
    """Return whether texts up to `max_length` exist for which a pattern takes very long; False if that is unknown."""
    texts = suspicious_texts(pattern, int(min(MAX_CHARS, MAX_CHARS if max_length is None else max_length)))
    if not texts:
        return False
    trial = subprocess.run(  # noqa: S603 -- our own code
        [sys.executable, "-I", "-S", "-c", _TRIAL],
        input=json.dumps([python_pattern(pattern), texts, SLOW_SECONDS, TRIAL_SECONDS]).encode(),
        check=False,
    )
    if trial.returncode == -signal.SIGVTALRM:
        return True
    trial.check_returncode()
    return False


def suspicious_texts(pattern: str, length: int) -> list[str]:
    """Return texts up to a length that a pattern can read in very many ways. Texts that it refuses come first."""
    node = parse_pattern(pattern)
    found: dict[str, None] = {}
    for max_copies in (MAX_REPEATS, 10, 1):
        try:
            automaton = _Automaton(node, max_copies)
        except OverflowError:
            continue
        walked, is_complete = _most_walks(automaton, length, refused=True)
        more, is_complete_too = _most_walks(automaton, length, refused=False)
        walked += more
        automaton.work = 0
        refused = [text for one in walked for text in _lengthened(one, automaton.refusal(one.walks), length)]
        others = [text for one in walked for end in automaton.alphabet for text in _lengthened(one, end, length)]
        found |= dict.fromkeys([*refused, *others])
        if is_complete and is_complete_too:
            break
    return list(found)


def _lengthened(walked: "_Walked", end: str, length: int) -> Iterator[str]:
    """Yield a text with an ending, with and without more of its repetition."""
    text = walked.text()
    room = max(length - len(end), 0)
    for repeated in (text, text[:-1]):
        yield repeated[:room] + end
        for size in range(1, len(repeated) // 3 + 1):
            if repeated.endswith(repeated[-size:] * 3):
                longer = repeated + repeated[-size:] * (room // size)
                yield longer[: room - (room - len(repeated)) % size] + end
                break


@dataclass(frozen=True, slots=True)
class _Part:
    """The number of ways in which a part can be empty, and the states that it can begin and end with."""

    empty: int
    firsts: _Weights
    lasts: _Weights


_START = 0
"""The state before each character at which a match may begin."""


class _Automaton:
    """The states of a pattern, and in how many ways they can follow each other."""

    def __init__(self, node: Node, max_copies: int) -> None:
        """Build the automaton of a pattern; raises `OverflowError` if it is too large."""
        self._max_copies = max_copies
        """A repetition with a larger upper bound is treated as unbounded."""
        self._ranges: list[Ranges] = [()]
        self._text_starts: set[int] = set()
        self._text_ends: set[int] = set()
        self._edges = 0
        self._after: list[_Weights] = [Counter()]
        self.work = 0
        self._whole = self._add(node)
        self._link(Counter({_START: 1}), self._whole.firsts)
        self._starts_anywhere = any(state not in self._text_starts for state in self._whole.firsts)
        self.alphabet: list[str] = []
        """One character for each set of states that can read it, the smallest sets first."""
        self._reads: list[list[int]] = [[] for _ in self._ranges]
        self._choose_alphabet()

    def accepts(self, walks: Iterable[int]) -> bool:
        """Return whether a walk is at the end of the pattern, whatever follows in the text."""
        return self._whole.empty > 0 or any(state in self._whole.lasts for state in walks)

    def refusal(self, walks: _Weights) -> str:
        """Return a short ending that makes the pattern refuse the text, "" if there is none."""
        ends = self._text_ends & self._whole.lasts.keys()
        endings = {frozenset(walks): ""}
        waiting = [frozenset(walks)]
        for states in waiting:  # the list grows during the loop
            if self.work > MAX_WORK:
                break
            can_end = any(not ends.isdisjoint(self._after[state]) for state in states)
            if not can_end and not self.accepts(states):
                return endings[states]
            following = dict(self.read(Counter(states)))
            for char in self.alphabet:
                after = frozenset(following.get(char, (_START,)))
                if after not in endings and len(endings) < MAX_ENDINGS:
                    endings[after] = endings[states] + char
                    waiting.append(after)
        return ""

    def at_start(self) -> _Weights:
        """Return the walks before the first character."""
        walks = Counter({state: count for state, count in self._after[_START].items() if state in self._text_starts})
        walks[_START] = 1
        return walks

    def read(self, walks: _Weights) -> Iterator[tuple[str, _Weights]]:
        """Yield the characters that can follow, each with its walks."""
        by_char: dict[int, _Weights] = {}
        for state, count in walks.items():
            for following, weight in self._after[state].items():
                chars = self._reads[following]
                self.work += 1 + len(chars)
                for char in chars:
                    by_char.setdefault(char, Counter())[following] += count * weight
        self.work += 10 * len(by_char)
        for char, after in sorted(by_char.items(), key=itemgetter(0)):
            if self._starts_anywhere:
                after[_START] = 1
            yield self.alphabet[char], after

    def _state(self, ranges: Ranges) -> _Part:
        if len(self._ranges) == MAX_STATES:
            raise OverflowError
        self._ranges.append(ranges)
        self._after.append(Counter())
        state = len(self._ranges) - 1
        return _Part(0, Counter({state: 1}), Counter({state: 1}))

    def _add(self, node: Node) -> _Part:
        match node:
            case Chars(ranges):
                part = self._state(ranges)
            case Assertion("^"):
                part = self._state(())
                self._text_starts.update(part.firsts)
            case Assertion("\\Z"):
                part = self._state(())
                self._text_ends.update(part.firsts)
            case Sequence(parts):
                part = self._join([self._add(one) for one in parts])
            case Choice(parts):
                added = [self._add(one) for one in parts]
                empty = sum(one.empty for one in added)
                part = _Part(empty, _sum(one.firsts for one in added), _sum(one.lasts for one in added))
            case Repeat():
                part = self._repeat(node)
            case Lookaround(inside, "=" | "!"):  # a walk that ends here
                part = _Part(1, self._add(inside).firsts, _Weights())
            case _:
                part = _Part(1, _Weights(), _Weights())
        return part

    def _repeat(self, node: Repeat) -> _Part:
        if node.most == 0:
            return _Part(1, _Weights(), _Weights())
        if node.most is None or node.most > self._max_copies:
            copies = [self._add(node.part) for _ in range(max(1, min(node.least, self._max_copies)))]
            self._link(copies[-1].lasts, copies[-1].firsts)
            part = self._join(copies)
            return part if node.least else _Part(1, part.firsts, part.lasts)
        needed = [self._add(node.part) for _ in range(node.least)]
        # `re` leaves a repetition after an empty optional part, so each of these follows the one before.
        more = [self._add(node.part) for _ in range(node.most - node.least)]
        for one, following in pairwise(more):
            self._link(one.lasts, following.firsts)
        optional = (
            _Part(1, more[0].firsts, _sum(one.lasts for one in more)) if more else _Part(1, _Weights(), _Weights())
        )
        return self._join([*needed, optional])

    def _join(self, parts: list[_Part]) -> _Part:
        whole = _Part(1, _Weights(), _Weights())
        for part in parts:
            self._link(whole.lasts, part.firsts)
            firsts = whole.firsts + _times(part.firsts, whole.empty)
            lasts = _times(whole.lasts, part.empty) + part.lasts
            whole = _Part(min(whole.empty * part.empty, ENOUGH_WALKS), firsts, lasts)
        return whole

    def _link(self, lasts: _Weights, firsts: _Weights) -> None:
        self._edges += len(lasts) * len(firsts)
        if self._edges > MAX_EDGES:
            raise OverflowError
        for last, ways in lasts.items():
            self._after[last].update(_times(firsts, ways))

    def _choose_alphabet(self) -> None:
        readers: defaultdict[Ranges, list[int]] = defaultdict(list)
        for state, ranges in enumerate(self._ranges):
            readers[ranges].append(state)
        limits = {0, *(edge for ranges in readers for low, high in ranges for edge in (low, high + 1))}
        chars: dict[frozenset[Ranges], str] = {}
        for limit in sorted(limits):
            read_by = frozenset(r for r in readers if any(low <= limit <= high for low, high in r))
            if limit <= sys.maxunicode:
                chars.setdefault(read_by, chr(limit))
        for read_by in sorted(chars, key=lambda some: sum(len(readers[ranges]) for ranges in some)):
            for ranges in read_by:
                for state in readers[ranges]:
                    self._reads[state].append(len(self.alphabet))
            self.alphabet.append(chars[read_by])


@dataclass(frozen=True, slots=True)
class _Walked:
    """A text, with its unfinished walks."""

    before: "_Walked | None"
    char: str
    walks: _Weights
    now: int
    """The number of these walks."""
    total: int
    """The number of walks over the text and all its prefixes."""

    def then(self, char: str, walks: _Weights) -> "_Walked":
        """Return the text with one more character."""
        now = walks.total()
        return _Walked(self, char, walks, now, self.total + now)

    def text(self) -> str:
        """Return it as a text."""
        chars: list[str] = []
        walked: _Walked | None = self
        while walked is not None:
            chars.append(walked.char)
            walked = walked.before
        return "".join(reversed(chars))


def _most_walks(automaton: _Automaton, length: int, *, refused: bool) -> tuple[list[_Walked], bool]:
    """Return texts with very many walks, and whether the search was complete.

    For each length and state, a text with the most walks to it is lengthened. With `refused`, a text ends where the
    pattern accepts it.
    """
    texts = [_Walked(None, "", automaton.at_start(), 0, 0)]
    found: list[_Walked] = []
    most: dict[int, _Walked] = {}
    automaton.work = 0
    for _ in range(min(length, SEARCHED_CHARS)):
        longer: list[_Walked] = []
        for before in texts:
            if automaton.work <= MAX_WORK:
                longer += [before.then(char, walks) for char, walks in automaton.read(before.walks)]
        if refused:
            longer = [walked for walked in longer if not automaton.accepts(walked.walks)]
        found += [walked for walked in longer if walked.total > ENOUGH_WALKS]
        best: dict[int, _Walked] = {}
        for walked in longer:
            for state in walked.walks.keys() - {_START} if walked.total <= ENOUGH_WALKS else ():
                best[state] = max(best.get(state, walked), walked, key=lambda one: (one.walks[state], one.now))
        most = {**most, **{state: max(one, most.get(state, one), key=_total) for state, one in best.items()}}
        texts = _distinct(best.values())
        if automaton.work > MAX_WORK or len(found) >= MAX_TEXTS:
            break
    found += [walked for walked in _distinct(most.values()) if walked.total > MANY_WALKS]
    return sorted(found, key=_total, reverse=True)[:MAX_TEXTS], automaton.work <= MAX_WORK


def _total(walked: _Walked) -> int:
    return walked.total


def _distinct(texts: Iterable[_Walked]) -> list[_Walked]:
    return list({id(walked): walked for walked in texts}.values())


def _sum(many: Iterable[_Weights]) -> _Weights:
    whole: _Weights = Counter()
    for weights in many:
        whole.update(weights)
    return whole


def _times(weights: _Weights, factor: int) -> _Weights:
    return Counter({state: count * factor for state, count in weights.items()}) if factor else Counter()
