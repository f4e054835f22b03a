"""Promises that a deployment broke in a run of `destination simulate`, with the messages and the expected results."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from destination.console import printable

SHOWN_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One broken promise; `about` names the message, and `expected` and `found` are texts for people."""

    about: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return the breach as one line."""
        return printable(f"{self.about}: expected {self.expected}, found {self.found}")


@dataclass(kw_only=True)
class Breaches:
    """All broken promises of a run: how often each was broken, with some examples."""

    times: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[Breach]] = field(default_factory=lambda: defaultdict(list))

    def add(self, promise: str, about: str, *, expected: str, found: str) -> None:
        """Record a broken promise; the promise is a sentence that must be true."""
        self.times[promise] += 1
        if len(self.examples[promise]) < SHOWN_EXAMPLES:
            self.examples[promise].append(Breach(about=about, expected=expected, found=found))

    def __bool__(self) -> bool:
        return bool(self.times)

    def lines(self) -> Iterator[str]:
        """Yield lines for people: each promise, and below it some of the messages for which it was broken."""
        for promise, times in self.times.most_common():
            yield f"Not so, {times:,} times: {promise}." if times > 1 else f"Not so: {promise}."
            yield from (f"  {example}" for example in self.examples[promise])

    def to_json(self) -> list[dict[str, object]]:
        """Return the form for `--json`."""
        return [
            {
                "promise": promise,
                "times": times,
                "examples": [vars(example) for example in self.examples[promise]],
            }
            for promise, times in self.times.most_common()
        ]
