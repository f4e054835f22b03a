"""Test batches that can't be parsed as a whole: their messages are separated, or the whole batch is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.decode import decode_batch
from handler.errors import InvalidJson, NestedTooDeeply, Refusal
from handler.split import MAX_BATCH_MESSAGES, depth

GOOD = r'{"userId": "a, \"b\" [{\\", "n": [1, {}], "é😀\ud800": {}}'
DEEP = "[" * 5_000 + "]" * 5_000
BAD = {
    "a word": '{"a": tru}',
    "a bare name": "{a: 1}",
    "single quotes": "{'a': 1}",
    "a leading zero": '{"a": 01}',
    "a hexadecimal number": '{"a": 0x1F}',
    "a comma too many": '{"a": 1,}',
    "no comma": '{"a": 1 "b": 2}',
    "no colon": '{"a" 1}',
    "two values": '{"a": 1 2}',
    "a line break in a string": '{"a": "x\ny"}',
    "a wrong escape": r'{"a": "\x"}',
    "half an escape": r'{"a": "\ud8"}',
    "quotation marks that are not escaped": '{"a": "say "hi" now"}',
    "brackets of two kinds": '{"a": [1}}',
    "another closing bracket": '{"a": 1]',
    "a word alone": "tru",
    "two numbers": "1 2",
    "nothing": " ",
    "strings that end like JSON": '{"a": "[{", "b": "f(x, y) {", "c": "},", "e": tru}',
    "another spelling of NaN": '{"a": nan}',
}


def filled(template):
    """Return a text with messages in place of words."""
    for name, text in (("GOOD", GOOD), ("DEEP", DEEP)):
        template = template.replace(name, text)
    return template


def codes(text):
    entries = decode_batch(text)["batch"]
    return [entry.code if isinstance(entry, Refusal) else "good" for entry in entries]


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_a_message_that_is_not_json_does_not_affect_the_others(places, name):
    entries = [BAD[name] if number in places else GOOD for number in range(3)]
    text = ' {"sentAt": 1, "batch" : [ ENTRIES\n], "x": {"y": [",]}"]}} '.replace("ENTRIES", " ,".join(entries))
    assert codes(text) == ["invalid_json" if number in places else "good" for number in range(3)]


@pytest.mark.parametrize(
    "deep", ["DEEP", '{"a": DEEP}', '{"a": NaN, "b": DEEP, "c": tru}', '{"":' * 5_000 + "1" + "}" * 5_000]
)
def test_a_message_nested_thousands_deep_does_not_affect_the_others(deep):
    assert codes(filled(f'{{"batch": [GOOD, {deep}, GOOD]}}')) == ["good", "nested_too_deeply", "good"]


def test_bad_messages_of_several_kinds_do_not_affect_each_other():
    text = filled('{"x": [1], "batch": [DEEP, GOOD, {"a": tru}, {"n": NaN}]}')
    assert codes(text) == ["nested_too_deeply", "good", "invalid_json", "good"]


def test_a_good_message_is_read_exactly_in_a_split_batch():
    text = filled(r'{"batch": [DEEP], "context": {"a": "[{"}, "b\u0061tch": [tru, GOOD]}')
    batch = decode_batch(text)
    assert (batch["batch"][1], batch["context"]) == (json.loads(GOOD), {"a": "[{"})


@pytest.mark.parametrize(
    "text",
    [
        '{"batch": [GOOD, {"a": tru}',
        '{"batch": [GOOD, {"a": tru}]',
        '{"batch": [GOOD, {"a": tru}}',
        '{"batch": [GOOD, {"a": {"b": 1}, GOOD]}',
        '{"batch": [GOOD, {"a": "x}, GOOD]}',
        '{"batch": [GOOD GOOD]}',
        '{"batch": [GOOD, {} /* a comment */]}',
        '{"batch": [GOOD, tru]} {}',
        '{"batch": [GOOD, tru], 1}',
        '{"batch": [GOOD, tru], "sentAt": tru}',
        '{"batch": [GOOD, tru], "a\nb": 1}',
        '{"batch": [GOOD, tru],}',
        '{"batch": [GOOD, tru], "x": []]}',
        '{"batch": [ ], "x": tru}',
        "{batch: [GOOD]}",
        '{"batch": tru}',
        '[{"batch": [tru]}]',
        '{"batch": [{"a": {"x": 1}, GOOD, {"a": {}}}]}',
        '{"batch": [GOOD, {"a": [1}, GOOD, {"z": 2]}]}',
        '{"batch": [{"a": {"x": 1}, [GOOD], {"a": {}}}]}',
        '{"batch": [{"a": [{"x": 1}, GOOD, {}]}, "b": tru}]}',
        '{"batch": [GOOD, {"a": "5" tube"}, GOOD, {"b": "6" tube"}]}',
        '{"batch": [{"a": "5" tube"}, {"good": 1} , { "good": 2}, {"a": "6" tube"}]}',
        '{"batch":[{"a":"5" tube"},{"good":1},{"good":2},{"a":"6" tube"}]}',
        f'{{"batch": [tru{", 1" * (MAX_BATCH_MESSAGES + 1)}]}}',
        "tru",
        "{",
    ],
)
def test_batch_that_cannot_be_split_is_refused_whole(text):
    with pytest.raises(InvalidJson, match=r"^Request body is not valid JSON \(line"):
        decode_batch(filled(text))


FRAGMENTS = [
    *BAD.values(),
    '{"a": {"x": 1}',
    '{"b": {}}}',
    '{"a": [1}',
    '{"z": 2]}',
    "[",
    "]",
    '{"a": "x}',
    '{b": "y"}',
    '{"a": [{"x": 1}',
    '{"c": [{}]]}',
    '"',
    DEEP,
]


@given(st.lists(st.sampled_from([None, *FRAGMENTS]), min_size=1, max_size=6))
def test_good_message_is_read_or_the_batch_is_refused(fragments):
    texts = [json.dumps({"good": number}) if text is None else text for number, text in enumerate(fragments)]
    try:
        entries = decode_batch(f'{{"batch": [{", ".join(texts)}]}}')["batch"]
    except (InvalidJson, NestedTooDeeply):
        return
    good = [{"good": number} for number, text in enumerate(fragments) if text is None]
    assert [entry for entry in entries if isinstance(entry, dict) and "good" in entry] == good


@pytest.mark.parametrize(
    "text", ["DEEP", '{"batch": [GOOD], "context": DEEP}', '{"batch": [DEEP', '{"batch": {"a": DEEP}}']
)
def test_nesting_outside_of_messages_is_refused_whole(text):
    with pytest.raises(NestedTooDeeply):
        decode_batch(filled(text))


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("1", 0),
        ('"[["', 0),
        ("[]", 1),
        ("é[[]]", 2),
        ('{"a": [[]], "b": "[[[["}', 3),
        (r'{"\"[": {"\\": ["]"]}}', 3),
        ('["é[", [{}]]', 3),
    ],
)
def test_depth_counts_brackets_outside_strings(text, levels):
    assert depth(text) == levels
