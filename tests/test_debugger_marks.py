"""Test the marks on a message: the changes by canonicalisation, and the violations that a schema found."""

import json

import pytest

from destination.debugger.layout import lay_out, lay_out_value
from destination.debugger.marks import (
    INHERITED,
    compare,
    entry,
    entry_ranges,
    left_out_sentences,
    mark_violations,
    mask_write_keys,
    masked,
    old_names_in,
)
from destination.paths import ROOT
from handler.canonicalise import CONFLICTS, canonicalise, canonicalise_batch
from handler.errors import Violation

CASES = [case for path in sorted((ROOT / "tests" / "cases").glob("*.json")) for case in json.loads(path.read_text())]
DERIVED = "derived, because the message has no messageId"
SPELLED = "another spelling of this field won: this is in _conflicts"


def compared(text):
    """Return the marks of the original and of the canonical message, by pointer."""
    [message] = canonicalise(json.loads(text))
    layouts = compare(lay_out(text), lay_out_value(message.body), old_names_in(message.body))
    return [{line.pointer: (mark.kind, mark.text) for line in side.lines for mark in line.marks} for side in layouts]


def received_marks(**message):
    return compared(json.dumps({"type": "identify", "user_id": "u", "message_id": "m", **message}))[0]


def canonical_marks(**message):
    return compared(json.dumps({"type": "identify", "user_id": "u", "message_id": "m", **message}))[1]


def test_canonical_message_has_no_marks():
    assert compared('{"type": "track", "user_id": "u", "message_id": "m", "event": "e", "properties": {"a": [1]}}') == [
        {},
        {},
    ]


def test_a_field_in_another_spelling_is_renamed():
    text = '{"type": "identify", "User ID": "u", "messageId": "m", "context": {"userAgent": "x", "App": {"Name": "n"}}}'
    assert compared(text) == [
        {},
        {
            "/user_id": ("renamed", "was User ID"),
            "/message_id": ("renamed", "was messageId"),
            "/context/user_agent": ("renamed", "was userAgent"),
            "/context/app": ("renamed", "was App"),
            "/context/app/name": ("renamed", "was Name"),
        },
    ]


def test_names_that_are_the_customers_own_are_not_touched():
    assert canonical_marks(traits={"userId": 1, "User ID": {"userId": 2}}) == {}


def test_the_old_names_of_an_alias_are_renamed():
    _, canonical = compared('{"type": "alias", "from": "a", "to": "b", "message_id": "m"}')
    assert canonical == {"/previous_id": ("renamed", "was from"), "/user_id": ("renamed", "was to")}


@pytest.mark.parametrize(
    ("message", "pointer", "was"),
    [
        ({"user_id": 42}, "/user_id", "42"),
        ({"type": "Identify"}, "/type", '"Identify"'),
        ({"traits": []}, "/traits", "[]"),
        ({"user_id": 10**80}, "/user_id", f"1{'0' * 59}…"),
    ],
    ids=str,
)
def test_changed_value_shows_its_old_value(message, pointer, was):
    assert canonical_marks(**message) == {pointer: ("changed", f"was {was}")}


def test_a_derived_id_is_added():
    assert compared('{"type": "identify", "user_id": "u"}') == [{}, {"/message_id": ("added", DERIVED)}]


@pytest.mark.parametrize(
    ("message", "pointer", "why"),
    [
        ({"context": None}, "/context", "null counts as absent"),
        ({"anonymous_id": ""}, "/anonymous_id", "empty counts as absent"),
        ({"User ID": None}, "/User ID", "null counts as absent"),
        ({"userId": ""}, "/userId", "empty counts as absent"),
        ({"writeKey": "secret"}, "/writeKey", "never stored"),
        ({"context": {"write_key": "secret"}}, "/context/write_key", "never stored"),
        ({"_metadata": {"writeKey": "secret"}}, "/_metadata/writeKey", "never stored"),
    ],
    ids=str,
)
def test_omitted_field_is_shown_with_the_reason(message, pointer, why):
    assert received_marks(**message)[pointer] == ("left-out", why)


def test_losing_spellings_are_marked_once():
    received, canonical = compared(
        '{"type": "identify", "userId": "u", "User ID": "v", "Traits": {"a": 1}, "traits": {}, "message_id": "m"}'
    )
    assert received == {"/User ID": ("left-out", SPELLED), "/Traits": ("left-out", SPELLED)}
    assert canonical == {
        "/user_id": ("renamed", "was userId"),
        "/_conflicts": ("added", "other values of fields that came in several spellings"),
    }


def test_duplicate_name_is_marked_where_it_is_ignored():
    received, canonical = compared('{"type": "identify", "user_id": "a", "user_id": "b", "message_id": "m"}')
    assert received == {"/user_id": ("left-out", "this name occurs again below, and that value counts")}
    assert canonical == {}


def test_received_conflicts_field_is_an_ordinary_field():
    assert compared('{"type": "identify", "user_id": "a", "_conflicts": {"user_id": "z"}, "message_id": "m"}') == [
        {},
        {},
    ]


def test_conflicts_within_the_context_are_marked():
    _, canonical = compared(
        '{"type": "identify", "user_id": "a", "message_id": "m", "context": {"ip": "1", "IP": "2"}}'
    )
    assert canonical == {"/context/_conflicts": ("added", "other values of fields that came in several spellings")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["description"])
def test_message_has_marks_unless_it_is_canonical(case):
    [message] = canonicalise(case["data"])
    is_same = json.dumps(message.body, sort_keys=True) == json.dumps(case["data"], sort_keys=True)
    assert (compared(json.dumps(case["data"])) == [{}, {}]) is is_same


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["description"])
def test_the_canonical_form_of_a_message_has_no_marks(case):
    [message] = canonicalise(case["data"])
    if CONFLICTS not in message.body:  # the second time, it is an ordinary field
        assert compared(json.dumps(message.body)) == [{}, {}]


def test_inherited_batch_fields_are_marked_as_added():
    text = json.dumps(
        {"batch": [{"type": "identify", "userId": "u", "messageId": "m"}], "context": {"ip": "192.0.2.1"}}
    )
    [message] = canonicalise_batch(json.loads(text))
    received, canonical = compare(
        entry(lay_out(text), entry_ranges(lay_out(text))[0]), lay_out_value(message.body), added=INHERITED
    )
    assert left_out_sentences(received) == []
    assert {line.pointer: mark.text for line in canonical.lines for mark in line.marks if mark.kind == "added"} == {
        "/context": INHERITED
    }


def test_omitted_fields_are_explained_in_sentences():
    received, _ = compare(
        lay_out('{"type": "delete", "userId": "u", "context": null}'),
        lay_out_value({"type": "delete", "user_id": "u"}),
    )
    assert left_out_sentences(received) == ["context: null counts as absent"]


def violations(text, *pointers):
    """Return the pointers of the lines that are marked."""
    found = mark_violations(lay_out(text), [Violation(pointer=pointer, message=pointer) for pointer in pointers])
    return {mark.text: line.pointer for line in found.lines for mark in line.marks}


def test_violation_is_marked_at_its_place_or_its_parent():
    text = '{"type": "identify", "userId": 5.5, "Traits": {"a": [1, {"b": 2}]}}'
    assert violations(text, "/user_id", "/traits/a/1/b", "/traits/email", "/context/app/name", "") == {
        "/user_id": "/userId",
        "/traits/a/1/b": "/Traits/a/1/b",
        "/traits/email": "/Traits",
        "/context/app/name": "",
        "": "",
    }


def test_key_is_masked_except_for_its_end():
    assert masked("ddk_abcdefgh1234") == "…1234"
    assert masked("short") == "…"


@pytest.mark.parametrize(
    "body",
    [
        {"writeKey": "a-secret-key-1234"},
        {"Write Key": "a-secret-key-1234", "batch": []},
        {"batch": [{"writeKey": "a-secret-key-1234"}]},
        {"context": {"write_key": "a-secret-key-1234"}},
        {"batch": [{"_metadata": {"writeKey": "a-secret-key-1234"}}]},
        [{"writeKey": "a-secret-key-1234"}],
        {"_conflicts": {"writeKey": "a-secret-key-1234"}},
        {"writeKey": {"a": ["a-secret-key-1234"]}},
        {"context": {"a": {"writeKey": "a-secret-key-1234"}}},
    ],
    ids=str,
)
def test_write_key_is_never_shown(body):
    shown = json.dumps(mask_write_keys(lay_out(json.dumps(body))).to_json())
    assert "secret" not in shown
    assert "1234" in shown


def test_a_property_of_that_name_is_the_customers_own():
    text = json.dumps({"properties": {"writeKey": "a-kind-of-pen"}})
    assert "a-kind-of-pen" in json.dumps(mask_write_keys(lay_out(text)).to_json())
