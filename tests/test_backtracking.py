"""Test that patterns with very long run times are found."""

import pytest
from searches import some

from destination.schemas.backtracking import MAX_CHARS, is_slow, suspicious_texts

CODES = "|".join(f"{first}{second}{third}" for first in "ABCDEFGHIJ" for second in "ABCDEFGH" for third in "ABCDEFGH")


@pytest.mark.many_examples
@pytest.mark.parametrize(
    "pattern",
    some(
        [
            # repetitions without an upper bound
            r"(a+)+$",
            r"^(a|a)*$",
            r"^(\w+\s?)*$",
            r"(?:a|b|ab)*c",
            r"^([a-z0-9]+[._-]?)+@x$",
            r"^(?:a*b*)*c",
            r"([^,]*,*)+;",
            r"^(a?b?)*$",
            r"^(é+)+$",
            r"^(\uD83D+)+$",
            # with an upper bound
            r"^(?:[A-Za-z]{1,10}\s?){1,10}$",
            r"^([a-z]{2,9}){2,9}$",
            r"^((ab){1,10}){1,10}$",
            r"^(a?){10}(a?){10}(a?){10}b$",
            r"^(a|a){10}(a|a){10}(a|a){10}b$",
            r"^(a|aa){10}(a|aa){10}(a|aa){10}b$",
            r"^(a{0,9}){9}b$",
            r"^(a+)?(a+)?(a+)?(a+)?(a+)?(a+)?(a+)?(a+)?b$",
            r"^(a?){30}a{30}$",
            r"^(a?){300}a{300}$",
            r"(.*a){20}",
            r"^((ab?c?){1,1000}){1,1000}$",
            r"^(\w{0,5}-?){20}$",
            r"^(\d?,?){0,30}$",
            # only the empty text is repeated
            r"^(|){30}b",
            r"^(a|){30}b",
            # cubic and worse
            r"^a*a*a*a*a*a*a*a*b$",
            r"^.*.*.*.*.*.*.*.*=$",
            r"\S+@\S+\.\S+",
            r"^\S+@\S+\.\S+$",
            r"^\s*(.*?)\s*$",
            r".*foo.*bar.*baz",
            r".+(a*?-){20,}c",
            # only one place of the pattern
            r"^(?=(a+)+$)",
            r"^x(?=(a+)+$)",
            r"^(?:a|b|ab)*c|^a",
            r"^([a-z]*|\d(a+)+\d)$",
            r"(^|,)(a+)+;",
            pytest.param("^" + "a" * 100 + "(b+)+$", id="the end of a long one"),
        ]
    ),
)
def test_ambiguous_pattern_is_slow(pattern):
    assert is_slow(pattern)


@pytest.mark.many_examples
@pytest.mark.parametrize(
    "pattern",
    some(
        [
            r"^[a-z]+$",
            r"^\d{3}-\d{4}$",
            r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
            r"^https?://[^/]+/.*$",
            r"^([a-z0-9]+(-[a-z0-9]+)*)$",
            r"^(\d{1,3}\.){3}\d{1,3}$",
            r"^([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}$",
            r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
            r"^\+?(\d{1,3}[\s-]?){1,6}$",
            r"^([A-Z][a-z]*)( [A-Z][a-z]*)*$",
            r"^(?=.*[A-Z])(?=.*\d).{8,}$",
            r"^a$",
            r"",
            r"^(ab|cd)*$",
            r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$",
            r"^#([0-9a-f]{3}|[0-9a-f]{6})$",
            r"^(\w+,)*\w+$",
            r"^[+-]?\d+(\.\d+)?([eE][+-]?\d+)?$",
            r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$",
            r"^.{1,1000}$",
            r"^(a|b){1000}$",
            r"^(a{0}b)*$",
            r"^(a{2,}b)*$",
            r"^(?!x)(?:a|[b-d])+$",
            r"\S+@\S+",
            r"^(?:\+?1[-. ]?)?\(?([0-9]{3})\)?[-. ]?([0-9]{3})[-. ]?([0-9]{4})$",
            r"^[a-z]+(-[a-z]+)*$",
            r"^([A-Z]{2})(,[A-Z]{2})*$",
            r"^[A-Za-z0-9+/]+={0,2}$",
            r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
            r"^\s*\S+\s*$",
            r"^[\w.-]+@[\w-]+\.[\w.-]+$",
            r"^(https?|ftp)://[^\s/$.?#].[^\s]*$",
            r"^\w+( \w+)*$",
            r"^((25[0-5]|2[0-4]\d|1?\d?\d)(\.|$)){4}$",
            r"^(a+)+",
            r".{1,1000}",
            r"^(?:(?:25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(?:25[0-5]|2[0-4]\d|[01]?\d\d?)$",
            r"^[^,]+(,[^,]+)*$",
            r"^P(?!$)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?$",
            r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+[0-9a-z_]$",
            r"^[^@]+@[^@]+$",
            r"^.*\d.*$",
            r"^[A-Z0-9]{1,3}(-[A-Z0-9]{1,4}){0,8}$",
            r"^[a-z]{1,63}(\.[a-z]{1,63}){0,8}$",
            r"^((a|b)|[ab])*$",
            r"(?:.|\s)*x",
            r"^\w+\b$",
            r"^(?:\B|a)*$",
            r"^(\w+\b)+$",
            pytest.param(f"^({CODES})(,({CODES}))*$", id="a list of codes"),
            pytest.param(f"^(({CODES})(;|$))+$", id="a list of codes in a repetition, which is too large to find out"),
            pytest.param("^" + "(a|b){1000}" * 3 + "$", id="one with thousands of characters"),
            pytest.param("(" * 60 + "a" + ")" * 60, id="one that is nested deeply"),
        ]
    ),
)
def test_ordinary_pattern_is_not_slow(pattern):
    assert not is_slow(pattern)


@pytest.mark.parametrize(
    ("pattern", "max_length", "expected"),
    [
        (r"^(a+)+$", 10, False),
        (r"^(a+)+$", 40, True),
        (r"^(a+)+$", 40.0, True),
        (r"^(a+)+$", 10**400, True),
        (r"^(a+)+$", 0, False),
        (r"^\S+@\S+\.\S+$", 254, False),
        (r"^\S+@\S+\.\S+$", 32_768, True),
        (r"^(?:[A-Za-z]{1,10}\s?){1,10}$", 20, False),
        (r"^(?:[A-Za-z]{1,10}\s?){1,10}$", 50, True),
    ],
)
def test_only_texts_within_max_length_count(pattern, max_length, expected):
    assert is_slow(pattern, max_length) is expected


@pytest.mark.parametrize("length", [0, 1, 2, 7, 50, 201, MAX_CHARS])
@pytest.mark.parametrize("pattern", [r"^(ab|a|b)+$", r"(a?){30}b", r"^(\w+\s?)*$"])
def test_tried_texts_are_not_longer_than_allowed(pattern, length):
    assert all(len(text) <= max(length, 1) for text in suspicious_texts(pattern, length))


def test_texts_tried_first_are_refused():
    assert suspicious_texts(r"^\s*(.*?)\s*$", 500)[0].lstrip("\t") == "\0\n\0"
