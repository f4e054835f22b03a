"""Test ECMA-262 patterns as Python reads them."""

import re

import pytest

from handler.patterns import PatternError, python_pattern, python_schema


def accepts(pattern, text):
    return re.search(python_pattern(pattern), text) is not None


@pytest.mark.parametrize(
    ("pattern", "accepted", "refused"),
    [
        ("", ["", "a"], []),
        ("^a$", ["a"], ["a\n", "\na", "b\na", "aa"]),
        ("^(a|b)?$", ["", "a", "b"], ["ab", "\n"]),
        ("^a|b$", ["ac", "cb"], ["cac", "b\n"]),
        (r"^\d+$", ["0", "42"], ["\u0661", "\uff11", "4 2"]),
        (r"^\D$", ["\u0661", "\n"], ["0"]),
        (r"^\w+$", ["aZ_9"], ["ß", "é", "\u0661", "-"]),
        (r"^\W$", ["ß", "-"], ["a", "_"]),
        (
            r"^\s$",
            ["\t", "\v", "\f", " ", "\xa0", "\ufeff", "\u1680", "\u200a", "\u2029", "\u3000"],
            ["\x1c", "\x85", "\u200b"],
        ),
        (r"^\S$", ["\x1c", "\x85", "\u180e"], [" ", "\ufeff"]),
        ("^.$", ["a", "\x85", "\v", "\U0001f600"], ["\n", "\r", "\u2028", "\u2029", "ab"]),
        (r"\bé", ["aé"], ["é", " é"]),
        (r"a\b", ["a", "aé"], ["ab"]),
        (r"^\B$", [""], ["a"]),
        (r"a\B", ["ab"], ["a", "aé"]),
        ("^[]$", [], ["", "]"]),
        ("^[^]$", ["\n", "]"], [""]),
        (r"^[\w-]+$", ["a-b"], ["a.b"]),
        (r"^[a\-z]$", ["a", "-", "z"], ["b"]),
        ("^[-a]$", ["a", "-"], ["b"]),
        ("^[a-]$", ["a", "-"], ["b"]),
        ("^[--/]$", ["-", ".", "/"], ["+"]),
        ("^[b-b]$", ["b"], ["a", "c", "-"]),
        ("^[[a]$", ["[", "a"], ["]"]),
        ("^[a&&b|~~]$", ["a", "&", "b", "|", "~"], ["c"]),
        (r"^[^\d\s]$", ["a"], ["1", " "]),
        (r"^[\D]$", ["a"], ["1"]),
        (r"^[^\S]$", [" "], ["a"]),
        (r"^[\b]$", ["\b"], ["b"]),
        (r"^[$^.]$", ["$", "^", "."], ["a"]),
        (r"^\$\^\.\/\-\\\{\}\[\]\(\)\|\*\+\?$", ["$^./-\\{}[]()|*+?"], ["$"]),
        (r"^\x41\u0042\u{43}\u{00043}\cJ\0\t\v\f\r\n$", ["ABCC\n\0\t\v\f\r\n"], []),
        (r"^\uD83D\uDE00$", ["\U0001f600"], ["\ud83d", "\ud83d\ude00"]),
        (r"^\uD83D$", ["\ud83d"], ["\U0001f600"]),
        (r"^[\u{1F600}-\u{1F64F}]$", ["\U0001f601"], ["\U0001f650"]),
        (r"^(?<year>\d{4})-(?:a|(?<day>b))$", ["2031-a", "2031-b"], ["2031-"]),
        (r"^(?<\u0061>a)(?<é>b)(?<\uD835\uDC9C>c)(?<\u{62}>d)(?<$_1\u200c$>e)$", ["abcde"], ["abcd"]),
        ("^(?:(?<a>x)|(?<a>y)|z(?<b>1))(?<c>-)$", ["x-", "y-", "z1-"], ["x", "-"]),
        (r"^\-\@\/\_\"\'\#\ \~$", ["-@/_\"'# ~"], ["-"]),
        ("^(?=.*[A-Z])(?!.*x).{2,}$", ["aA"], ["aa", "xA", "A"]),
        ("(?<=€)1(?<!€2)", ["€1"], ["$1"]),
        ("^a{2}b{1,}c{0,2}?d??$", ["aab", "aabbccd"], ["ab", "aabccc"]),
        ("#x y", ["#x y"], ["#xy"]),
        ("é", ["é"], ["e\u0301"]),
    ],
)
def test_pattern_has_its_ecma_262_meaning(pattern, accepted, refused):
    assert [text for text in accepted if not accepts(pattern, text)] == []
    assert [text for text in refused if accepts(pattern, text)] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[", r"a [ is not closed: write \[ for the character"),
        ("[a", r"a [ is not closed: write \[ for the character"),
        (r"[a\]", r"a [ is not closed"),
        ("(a", r"a ( is not closed: write \( for the character"),
        ("a)", r"a ) closes nothing: write \) for the character"),
        ("]", r"] stands alone: write \] for the character"),
        ("{x}", r"{ stands alone: write \{ for the character"),
        ("a{,3}", r"{ stands alone: write \{ for the character"),
        ("a|*", r"* repeats nothing: write \* for the character"),
        ("{2}", r"{ repeats nothing: write \{ for the character"),
        ("^*", "* repeats nothing: it must follow a character or a group"),
        ("(?=a)+", "+ repeats nothing: it must follow a character or a group"),
        ("a++", "a repetition is repeated: put a group around the first one"),
        ("a{2}{3}", "a repetition is repeated"),
        ("a{3,2}", "{3,2} has its numbers in the wrong order"),
        ("a{1001}", "{1001} is too large: at most 1000 times, or use maxLength"),
        ("a{0,99999999999}", "is too large"),
        ("[z-a]", "a range in […] has its ends in the wrong order"),
        (r"[\d-z]", r"a - in […] has a class on one side: write \- for the character"),
        (r"[a-\d]", r"a - in […] has a class on one side"),
        (r"(a)\1", r"\1 refers to a group, which is not supported: write out what the group matches"),
        (r"(?<a>a)\k<a>", r"\k refers to a group"),
        ("(?<a>x)(?<a>y)", "two groups have the name a: leave out the names, because nothing refers to them"),
        (r"(?<a>x(?<\u0061>y))", "two groups have the name a"),
        ("((?<a>x)|y)(?<a>z)", "two groups have the name a"),
        ("(?=(?<a>x)|(?<b>y)(?<b>y))", "two groups have the name b"),
        ("(?<>a)", "(?<> is not a group"),
        ("(?<1>a)", "(?<1 is not a group"),
        ("(?<a-b>a)", "(?<a is not a group"),
        ("(?<\u200ca>a)", "(?<\u200c is not a group"),
        (r"(?<\x61>a)", "(?<\\ is not a group"),
        (r"(?<\u{2d}>a)", "(?<\\ is not a group"),
        ("(?<a", "(?<a is not a group"),
        (r"\p{L}", r"\p{…} is not supported: list the characters"),
        (r"[\P{L}]", r"\P{…} is not supported"),
        (r"\A", r"\A has no meaning in ECMA-262"),
        (r"a\Z", r"\Z has no meaning in ECMA-262"),
        (r"\x4", r"\x has no meaning"),
        (r"\u{110000}", r"\u has no meaning"),
        (r"\u12", r"\u has no meaning"),
        (r"\00", r"\0 has no meaning"),
        (r"\c1", r"\c has no meaning"),
        (r"\é", r"\é has no meaning"),
        ("a\\", "\\ has no meaning"),
        ("(?P<a>a)", "(?P< is not a group of ECMA-262. There are (…), (?:…), (?<name>…)"),
        ("(?i)a", "(?i) is not a group"),
        ("(?#a)", "(?#a is not a group"),
        ("(?>a)", "(?>a is not a group"),
        ("(?<=a+)b", "Python can't read this pattern: look-behind requires fixed-width pattern"),
        ("(" * 5000 + ")" * 5000, "the pattern is nested too deeply"),
    ],
)
def test_unusable_pattern_is_reported_with_the_reason(pattern, text):
    with pytest.raises(PatternError) as raised:
        python_pattern(pattern)
    assert str(raised.value).startswith(text) or text in str(raised.value)


def test_patterns_are_rewritten_only_in_schemas():
    named = {"pattern": "a$"}
    schema = {
        "properties": {"pattern": named, "x": True},
        "patternProperties": {"^[0-9]$": named, r"^\d$": False},
        "allOf": [named],
        "items": named,
        "const": named,
        "default": named,
        "enum": [named],
        "x-own": named,
    }
    rewritten = python_schema(schema)
    in_python = {"pattern": r"a\Z"}
    assert rewritten["properties"] == {"pattern": in_python, "x": True}
    assert list(rewritten["patternProperties"].values()) == [in_python, False]
    assert (rewritten["allOf"], rewritten["items"]) == ([in_python], in_python)
    assert [rewritten[name] for name in ("const", "default", "x-own")] == [named] * 3
    assert rewritten["enum"] == [named]
    assert schema["allOf"] == [{"pattern": "a$"}]
