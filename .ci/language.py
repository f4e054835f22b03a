"""Find wording that this project avoids, and long sentences in the documentation; `make check` runs it.

    python .ci/language.py [FILES]     by default all files of the repository

It searches whole files: docstrings, comments, texts, names and Markdown. CONTRIBUTING.md ("How we write") has the aim.
To allow a phrase in one line, write `language: ok` into that line.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUFFIXES = (".py", ".md", ".js", ".yaml", ".toml", "Makefile")
NOT_READ = (".ci/language.py", "tests/test_language.py")
"""They name the phrases."""
ALLOWED = "language: ok"
MAX_SENTENCE_WORDS = 30
"""In the documentation. We aim for 25, but a list in a sentence may be longer."""

AVOIDED = {
    "beside (?:each other|the|it|that|this|them)": "concurrently, next to, besides",
    "mend(?:s|ed|ing)?": "fix, correct",
    "in vain": "without a result",
    "for ever": "without a limit, permanently",
    "for good": "permanently",
    "lest|be it": "a clause with if or whether",
    "of which": "two sentences",
    "whose [a-z]+ is of": "two sentences",
    "that of": "the noun itself",
    "its likes": "similar ones",
    "at the most": "at most",
    "one after the other": "sequentially, one by one",
    "anew": "again",
    "tells? (?:that|whether|what|of)": "say, show, return",
    "what (?:came|comes|came|becomes|became|is to|is no|was no)": "a noun, such as result or outcome",
    "(?:it|this|that|which) (?:is|was) no (?!longer|more|way)": "is not a",
    "patient(?:ly)?": "time-out, retry, poll interval",
}
"""Phrase -> what to write instead."""

BETWEEN = r"""[\s_#"'*]+"""
"""Words may be on two lines of a docstring, a comment or a text, or parts of a name."""
_PHRASES = "|".join(f"({phrase.replace(' ', BETWEEN)})" for phrase in AVOIDED)
_AVOIDED = re.compile(f"(?<![A-Za-z0-9])(?:{_PHRASES})(?![A-Za-z0-9])", re.IGNORECASE)
_INSTEAD = tuple(AVOIDED.values())


def avoided_phrases(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with phrases that we avoid, each with what to write instead."""
    lines = source.splitlines()
    for found in _AVOIDED.finditer(source):
        number = source.count("\n", 0, found.start()) + 1
        if ALLOWED not in lines[number - 1]:
            phrase = " ".join(re.split(BETWEEN, found[0]))
            yield number, f"'{phrase}': write {_INSTEAD[int(found.lastindex or 1) - 1]}"


def long_sentences(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of Markdown with sentences that are too long; code and tables have no sentences."""
    is_code = False
    for number, line in enumerate(source.splitlines(), 1):
        is_code ^= line.lstrip().startswith("```")
        if is_code or line.startswith(("|", "    ", "```")):
            continue
        text = re.sub(r"`[^`]*`", "CODE", re.sub(r"\]\([^)]*\)|[*_\[\]]", "", line))
        for sentence in re.split(r"(?<=[.!?:;]) ", text):
            words = len(re.findall(r"[\w'-]+", sentence))
            if words > MAX_SENTENCE_WORDS and ALLOWED not in line:
                yield number, f"{words} words in a sentence, of at most {MAX_SENTENCE_WORDS}: split it"


def main(paths: list[str]) -> int:
    """Print the faults of files; return 1 if there are any."""
    listed = paths or subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()  # noqa: S607
    count = 0
    for path in listed:
        if path.endswith(SUFFIXES) and path not in NOT_READ:
            source = (ROOT / path).read_text("utf-8")
            found = list(avoided_phrases(source))
            if path.startswith("docs/") and path.endswith(".md"):
                found += long_sentences(source)
            for number, fault in found:
                sys.stdout.write(f"{path}:{number}: {fault}\n")
            count += len(found)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
