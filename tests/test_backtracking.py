"""Patterns that can take exponential time."""

import pytest

from cli.schemas.backtracking import Automaton, is_exponential
from handler.patterns import parse_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"^(a*)*$",
        r"^(a|a)*$",
        r"(a|aa)+$",
        r"^(\w+\s?)*$",
        r"^([a-zA-Z]+)*$",
        r"(.*a){20}",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
        r"(x+x+)+y",
        r"^(a?){30}a{30}$",
        r"^(?=(a+)+$)",
        r"(?:a|b|ab)*c",
        r"^([a-z0-9]+[._-]?)+@x$",
        r"^(\d+)*$",
        r"((a{1,50}){1,50})$",
        r"(?:.|\s)*x",
        r"^(?:a*b*)*c",
        r"^(\s|[^x])+$",
        r"([^,]*,*)+;",
        r"^(([\w.]+)+@)+$",
        r"^(a?b?)*$",
        r"^((a|b)|[ab])*$",
    ],
)
def test_a_pattern_that_reads_one_text_in_several_ways_is_found(pattern):
    assert is_exponential(parse_pattern(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-z]+$",
        r"^\d{3}-\d{4}$",
        r"^[^@\s]+@[^@\s]+\.[^@\s]+$",
        r"^\S+@\S+\.\S+$",
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
        r"^\s*(.*?)\s*$",
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
        pytest.param("^" + "a" * 400 + "(b+)+$", id="one that is too large to find out"),
    ],
)
def test_a_pattern_that_does_not_is_left_alone(pattern):
    assert not is_exponential(parse_pattern(pattern))


def test_a_repeated_list_of_many_codes_is_too_large_to_find_out():
    codes = "|".join(f"{first}{second}" for first in "ABCDEFGHI" for second in "ABCDEFGH")
    automaton = Automaton()
    automaton.add(parse_pattern(f"^(({codes})(;|$))+$"))
    with pytest.raises(OverflowError):
        automaton.is_ambiguous()
