"""Test the layout of JSON as lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from destination.debugger.layout import MAX_LINES, MAX_SHOWN_CHARS, MAX_SHOWN_LINES, lay_out, lay_out_value

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def joined(layout):
    """Return the text of the lines, parsed as JSON."""
    lines = layout.to_json()["lines"]
    return "\n".join(
        "  " * line["depth"]
        + (f"{line['name']}: " if line["name"] is not None else "")
        + line["value"]
        + ("," if line["comma"] else "")
        for line in lines
    )


@given(JSON)
def test_lines_have_the_content_of_the_text(value):
    for text in (json.dumps(value), json.dumps(value, indent=3, ensure_ascii=False)):
        assert json.loads(joined(lay_out(text))) == value


@given(JSON)
def test_a_pointer_leads_to_its_value(value):
    for line in lay_out_value(value).values:
        found = value
        for part in line.path:
            found = found[part]
        if line.kind != "bracket":
            assert json.loads(line.value) == found


def test_values_are_shown_as_they_were_written():
    text = '{"price": 12.50, "id": 12345678901234567890, "big": 1E400, "name": "\\u00e9", "a": 1, "a": 2}'
    assert [(line.name, line.value) for line in lay_out(text).lines[1:-1]] == [
        ('"price"', "12.50"),
        ('"id"', "12345678901234567890"),
        ('"big"', "1E400"),
        ('"name"', '"\\u00e9"'),
        ('"a"', "1"),
        ('"a"', "2"),
    ]


def test_a_line_knows_its_place_and_its_row():
    text = '{\n  "a/b": [\n    1, {"c~": true}\n  ],\n  "d": {}\n}'
    assert [(line.pointer, line.value, line.row) for line in lay_out(text).lines] == [
        ("", "{", 1),
        ("/a~1b", "[", 2),
        ("/a~1b/0", "1", 3),
        ("/a~1b/1", "{", 3),
        ("/a~1b/1/c~0", "true", 3),
        ("/a~1b/1", "}", 3),
        ("/a~1b", "]", 4),
        ("/d", "{}", 5),
        ("", "}", 6),
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [('"x"', "string"), ("-1.5e3", "number"), ("null", "literal"), ("true", "literal"), ("[]", "bracket")],
)
def test_line_knows_its_content(value, kind):
    assert lay_out(value).lines[0].kind == kind


@pytest.mark.parametrize("count", [MAX_SHOWN_LINES, MAX_LINES, MAX_LINES + 5000])
def test_long_document_is_cut_and_the_rest_counted(count):
    told = lay_out(json.dumps([1] * count)).to_json()
    assert len(told["lines"]) == MAX_SHOWN_LINES
    assert told["omitted"] == count + 2 - MAX_SHOWN_LINES


def test_a_long_value_is_cut_and_says_so():
    [line] = lay_out(json.dumps("x" * 20_000)).to_json()["lines"]
    assert line["value"].endswith("… (20,002 characters)")
    assert len(line["value"]) < MAX_SHOWN_CHARS + 50


def test_deep_nesting_is_limited():
    assert len(lay_out("[" * 5000 + "]" * 5000).lines) == 9999
