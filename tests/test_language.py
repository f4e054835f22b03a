"""`.ci/language.py`, which `make check` runs over all files."""

import runpy

import pytest

from destination.paths import ROOT

CHECK = runpy.run_path(str(ROOT / ".ci" / "language.py"))


@pytest.mark.parametrize(
    "source",
    [
        "# The rest is gone for good.",
        '"""Run two calls beside\n    each other."""',
        "# a limit of\n# which nobody knows",
        "def test_schema_is_mended_later():",
        "x = tell_of(y)",
        '"The key is kept for "\n    "ever"',
    ],
)
def test_avoided_phrase_is_found(source):
    assert [line for line, _ in CHECK["avoided_phrases"](source)]


@pytest.mark.parametrize(
    "source",
    [
        "# This is no longer true.",
        "# Recommend it.",
        "# There is no data.",
        "# a list that offers",
        "# It is gone for good. language: ok",
    ],
)
def test_plain_words_are_not_found(source):
    assert not list(CHECK["avoided_phrases"](source))


def test_finding_has_line_and_better_words():
    assert list(CHECK["avoided_phrases"]("a\nb at the\nmost c")) == [(2, "'at the most': write at most")]


def test_long_sentence_is_found_outside_code_and_tables():
    long = "word " * (CHECK["MAX_SENTENCE_WORDS"] + 1)
    source = f"Short. {long}\n| {long} |\n```\n{long}\n```\n    {long}\n"
    assert [line for line, _ in CHECK["long_sentences"](source)] == [1]
