import base64
import gzip
import json
import math
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searches import search

from bench import hostile
from handler.decode import (
    MAX_BATCH_BYTES,
    MAX_BODY_BYTES,
    MAX_GZIP_MEMBERS,
    MAX_NESTING,
    MAX_SETTINGS_BYTES,
    CheckedBatch,
    check_values,
    decode_batch,
    decode_body,
    decode_settings,
    type_name,
)
from handler.errors import (
    BatchTooLarge,
    InvalidEncoding,
    InvalidJson,
    InvalidSettings,
    MessageTooLarge,
    NestedTooDeeply,
    NotAnObject,
    NumberOutOfRange,
    Refusal,
)

LARGEST_DOUBLE = int(sys.float_info.max)
LARGEST_INTEGER = LARGEST_DOUBLE + 2**970 - 1  # the largest one that rounds to a finite double


def encode(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def nested_arrays(depth):
    return '{"x":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


def nested_objects(depth):
    return '{"x":' * (depth - 1) + "{}" + "}" * (depth - 1)


@pytest.mark.parametrize("is_base64", [False, True])
@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("{}", {}),
        (' \r\n\t{"a": 1} ', {"a": 1}),
        ('{"": {"": []}}', {"": {"": []}}),
        ('{"a": "é\\u00e9😀\\ud83d\\ude00"}', {"a": "éé😀😀"}),
        ('{"a": "\\u0000\\u2028"}', {"a": "\x00\u2028"}),
        ('{"a": "\\ud800"}', {"a": "\ud800"}),
        ('{"a": 1, "a": 2, "a": 3}', {"a": 3}),
        ('{"a": true, "b": null}', {"a": True, "b": None}),
        ('{"a": "NaN", "b": "null"}', {"a": "NaN", "b": "null"}),
    ],
)
def test_a_body_is_one_json_object(text, payload, is_base64):
    assert decode_body(encode(text) if is_base64 else text, is_base64=is_base64) == payload


@pytest.mark.parametrize(
    ("literal", "number"),
    [
        ("0", 0),
        ("-0", 0),
        ("9007199254740993", 9007199254740993),
        ("-123456789012345678901234567890", -123456789012345678901234567890),
        (str(10**308), 10**308),
        (str(LARGEST_DOUBLE), LARGEST_DOUBLE),
        (f"-{LARGEST_DOUBLE}", -LARGEST_DOUBLE),
        (str(LARGEST_INTEGER), LARGEST_INTEGER),
        ("0.1", 0.1),
        ("-2.5E-3", -0.0025),
        ("1e308", 1e308),
        ("1e-400", 0.0),
        ("9007199254740993.0", 9007199254740992.0),
    ],
)
def test_integers_are_exact_and_fractions_are_doubles(literal, number):
    value = decode_body(f'{{"n": {literal}}}')["n"]
    assert (type(value), value) == (type(number), number)


def test_a_negative_zero_keeps_its_sign():
    assert math.copysign(1, decode_body('{"n": -0.0}')["n"]) == -1


@pytest.mark.parametrize(
    "literal",
    ["1e309", "-1e309", "1.8e308", str(10**309), f"-{10**309}", str(LARGEST_INTEGER + 1), "9" * 100_000],
    ids=lambda literal: f"{literal[:8]} of {len(literal)}",
)
def test_a_number_beyond_the_range_of_a_double_is_refused(literal):
    with pytest.raises(NumberOutOfRange, match=r"^Request body holds a number that is out of range$"):
        decode_body(f'{{"n": [{literal}]}}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Request body is empty"),
        (" \n", "Request body is empty"),
        ('{"userId": "x"', "Request body is not valid JSON (line 1, column 15)"),
        ('{\n"type": track}', "Request body is not valid JSON (line 2, column 9)"),
        ("{} {}", "Request body is not valid JSON (line 1, column 4)"),
        ('{"a": 1,}', "Request body is not valid JSON (line 1, column"),
        ("{'a': 1}", "Request body is not valid JSON (line 1, column 2)"),
        ('{"a": 01}', "Request body is not valid JSON (line 1, column 8)"),
        ('{"a": .5}', "Request body is not valid JSON (line 1, column 7)"),
        ('{"a": "line\nbreak"}', "Request body is not valid JSON (line 1, column 12)"),
        ('{"a": "\\x"}', "Request body is not valid JSON (line 1, column 8)"),
        ("\ufeff\ufeff{}", "Request body is not valid JSON (line 1, column 1)"),
        ("\ufeff{'a': 1}", "Request body is not valid JSON (line 1, column 2)"),
        ("\ufeff", "Request body is empty"),
        ("{}\ufeff", "Request body is not valid JSON (line 1, column 3)"),
        ("type=track&userId=x", "Request body is not valid JSON (line 1, column 1)"),
        ('{"a": NaN}', "Request body is not valid JSON (NaN is not a JSON value)"),
        ('{"a": Infinity}', "Request body is not valid JSON (Infinity is not a JSON value)"),
        ('{"a": [-Infinity]}', "Request body is not valid JSON (-Infinity is not a JSON value)"),
    ],
)
def test_invalid_json_is_refused_with_its_position(text, message):
    with pytest.raises(InvalidJson) as caught:
        decode_body(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[{}, {}]", "an array"),
        ("[]", "an array"),
        ('"track"', "a string"),
        ("7", "a number"),
        ("0.5", "a number"),
        ("true", "a boolean"),
        ("null", "null"),
    ],
)
def test_json_that_is_not_an_object_is_refused_with_its_type(text, name):
    with pytest.raises(NotAnObject, match=f"^Request body must be one JSON object, not {name}$"):
        decode_body(text)


def test_type_name_of_an_object():
    assert type_name({}) == "an object"


@pytest.mark.parametrize(
    ("body", "is_base64", "message"),
    [
        ("{}", True, "Request body is not valid base64"),
        ("e30", True, "Request body is not valid base64"),
        ("é", True, "Request body is not valid base64"),
        (encode(b'{"a": "\xff"}'), True, "Request body is not valid UTF-8"),
        (encode(b'{"a": "\xc0\xaf"}'), True, "Request body is not valid UTF-8"),
        (encode(b'{"a": "\xed\xa0\x80"}'), True, "Request body is not valid UTF-8"),
        (encode('{"a": 1}'.encode("utf-16")), True, "Request body is not valid UTF-8"),
        ('{"a": "\ud800"}', False, "Request body is not valid UTF-8"),
    ],
)
def test_octets_that_are_not_utf_8_are_refused(body, is_base64, message):
    with pytest.raises(InvalidEncoding, match=f"^{message}$"):
        decode_body(body, is_base64=is_base64)


@pytest.mark.parametrize("is_base64", [False, True])
@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_the_size_limit_counts_the_bytes_of_the_decoded_body(character, is_base64):
    room = MAX_BODY_BYTES - len('{"a":""}')
    filled = '{"a":"%s"}' % (character * (room // len(character.encode())) + "." * (room % len(character.encode())))
    bodies = [encode(text) if is_base64 else text for text in (filled, filled + " ")]
    assert decode_body(bodies[0], is_base64=is_base64)["a"].startswith(character)
    with pytest.raises(MessageTooLarge, match=r"^Request body is larger than 1,048,576 bytes$"):
        decode_body(bodies[1], is_base64=is_base64)


@pytest.mark.parametrize("nested", [nested_arrays, nested_objects])
def test_nesting_down_to_the_limit_is_read(nested):
    text = nested(MAX_NESTING)
    assert json.dumps(decode_body(text), separators=(",", ":")) == text


def test_many_values_side_by_side_are_not_deep():
    text = json.dumps({"list": [{"a": [n]} for n in range(MAX_NESTING * 3)]})
    assert json.dumps(decode_body(text)) == text


@pytest.mark.parametrize("nested", [nested_arrays, nested_objects])
@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 5_000, 100_000])
def test_nesting_below_the_limit_is_refused(nested, depth):
    with pytest.raises(NestedTooDeeply, match=r"^Request body is nested too deeply$"):
        decode_body(nested(depth))


@pytest.mark.parametrize("header", [None, "", "  "])
def test_missing_settings_header_means_no_settings(header):
    assert decode_settings(header) == {}


@pytest.mark.parametrize("settings", [{}, {"region": "eu", "ünïcode": ["😀", 1, None]}])
def test_settings_are_a_json_object_in_base64(settings):
    assert decode_settings(f" {encode(json.dumps(settings))} ") == settings


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('{"region": "eu"}', "X-Segment-Settings is not valid base64"),
        ("e30", "X-Segment-Settings is not valid base64"),
        ("é", "X-Segment-Settings is not valid base64"),
        (encode("region=eu"), "X-Segment-Settings is not valid JSON"),
        (encode(b"\xff"), "X-Segment-Settings is not valid JSON"),
        (encode('{"n": NaN}'), "X-Segment-Settings is not valid JSON"),
        (encode('{"n": 1e309}'), "X-Segment-Settings is not valid JSON"),
        (encode(nested_arrays(MAX_NESTING + 1)), "X-Segment-Settings is not valid JSON"),
        (encode("[]"), "X-Segment-Settings must be a JSON object, not an array"),
        (encode('"eu"'), "X-Segment-Settings must be a JSON object, not a string"),
        (encode("null"), "X-Segment-Settings must be a JSON object, not null"),
        (encode("{}" + " " * (MAX_SETTINGS_BYTES - 1)), "X-Segment-Settings is larger than 8,192 bytes"),
    ],
)
def test_other_settings_are_refused(header, message):
    with pytest.raises(InvalidSettings) as caught:
        decode_settings(header)
    assert str(caught.value) == message
    assert [violation.message for violation in caught.value.violations] == [message]


def test_settings_are_read_up_to_their_size_limit():
    assert decode_settings(encode("{}" + " " * (MAX_SETTINGS_BYTES - 2))) == {}


# Byte order marks

MARKED = '\ufeff{"a": "\ufeff"}'


@pytest.mark.parametrize("decode", [decode_body, decode_batch])
@pytest.mark.parametrize(
    ("body", "is_base64"),
    [
        (MARKED, False),
        (encode(MARKED), True),
        (encode(gzip.compress(MARKED.encode())), True),
        (encode(gzip.compress(b"\xef\xbb") + gzip.compress(MARKED.encode()[2:])), True),
    ],
    ids=["text", "base64", "gzip", "gzip members"],
)
def test_a_byte_order_mark_before_a_body_is_ignored(body, is_base64, decode):
    assert decode(body, is_base64=is_base64) == {"a": "\ufeff"}


# Compressed bodies


def compressed(text, times=1):
    return base64.b64encode(gzip.compress(text.encode()) * times).decode()


@pytest.mark.parametrize("decode", [decode_body, decode_batch])
def test_a_body_may_be_compressed(decode):
    assert decode(compressed('{"é": 1}'), is_base64=True) == {"é": 1}


def test_gzip_body_may_have_several_members():
    whole = gzip.compress(b'{"a"') + gzip.compress(b": 1}")
    assert decode_body(base64.b64encode(whole).decode(), is_base64=True) == {"a": 1}


def test_zeros_after_gzip_members_are_ignored():
    whole = gzip.compress(b'{"a"') + b"\0" * 512 + gzip.compress(b": 1}") + b"\0" * 7
    assert decode_body(encode(whole), is_base64=True) == {"a": 1}


@pytest.mark.parametrize(("count", "is_read"), [(MAX_GZIP_MEMBERS, True), (MAX_GZIP_MEMBERS + 1, False)])
def test_gzip_members_are_read_up_to_a_number(count, is_read):
    body = encode(gzip.compress(b"") * (count - 1) + gzip.compress(b"{}"))
    if is_read:
        assert decode_body(body, is_base64=True) == {}
    else:
        with pytest.raises(InvalidEncoding, match="more than 100 gzip members"):
            decode_body(body, is_base64=True)


@pytest.mark.parametrize(
    "octets",
    [
        gzip.compress(b"{}") + b"\0" + gzip.compress(b" ")[:9],
        gzip.compress(b"{}") + b"\0x",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}")[:-8] + b"\0" * 8,
        gzip.compress(b"{}") + b"{}",
        b"\x1f\x8b",
        b"\x1f\x8b\x08\x00" + b"\xff" * 20,
    ],
    ids=[
        "second cut off",
        "more after zeros",
        "cut off",
        "another checksum",
        "more after it",
        "its beginning alone",
        "no compressed data",
    ],
)
def test_damaged_gzip_is_refused(octets):
    with pytest.raises(InvalidEncoding, match=r"^Request body is not valid gzip$"):
        decode_body(base64.b64encode(octets).decode(), is_base64=True)


@pytest.mark.parametrize("is_base64", [False, True])
@pytest.mark.parametrize("decode", [decode_body, decode_batch])
def test_a_bug_of_ours_is_not_a_refusal(decode, is_base64):
    with pytest.raises((AttributeError, TypeError)):
        decode(None, is_base64=is_base64)


def test_gzip_of_binary_data_is_refused():
    with pytest.raises(InvalidEncoding, match="UTF-8"):
        decode_body(base64.b64encode(gzip.compress(b"\xff")).decode(), is_base64=True)


@pytest.mark.parametrize(
    ("decode", "limit", "refusal"),
    [(decode_body, MAX_BODY_BYTES, MessageTooLarge), (decode_batch, MAX_BATCH_BYTES, BatchTooLarge)],
)
def test_size_limit_counts_the_decompressed_body(decode, limit, refusal):
    text = json.dumps({"a": "x" * (limit - len('{"a": ""}'))})
    for body, is_base64 in ((text, False), (compressed(text), True)):
        assert len(decode(body, is_base64=is_base64)["a"]) == limit - len('{"a": ""}')
    for body, is_base64 in ((text + " ", False), (compressed(text + " "), True)):
        with pytest.raises(refusal, match=f"^Request body is larger than {limit:,} bytes$"):
            decode(body, is_base64=is_base64)


def test_a_bomb_after_a_small_member_is_too_large():
    parts = gzip.compress(b" " * (MAX_BODY_BYTES // 2)) + gzip.compress(b" " * 10_000_000)
    with pytest.raises(MessageTooLarge):
        decode_body(base64.b64encode(parts).decode(), is_base64=True)


def test_decompression_bomb_is_not_expanded_beyond_the_limit():
    part = gzip.compress(b" " * 10_000_000, 9)
    bomb = base64.b64encode(part * 100).decode()
    tracemalloc.start()
    with pytest.raises(MessageTooLarge):
        decode_body(bomb, is_base64=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_BODY_BYTES + len(bomb)


# Bodies that should cost a lot

HOSTILE_BYTES = 64 * 1024
HOSTILE = hostile.bodies(HOSTILE_BYTES)


def calls_of(work):
    """Count the function calls in Python and C, which don't depend on the machine."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_body_causes_few_calls_before_its_key_is_known(name):
    body, is_base64 = HOSTILE[name]
    assert calls_of(lambda: hostile.before_key(body, is_base64=is_base64)) < 2.5 * HOSTILE_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_message_causes_few_calls_before_its_schema(name):
    body, is_base64 = HOSTILE[name]
    assert calls_of(lambda: hostile.after_key(body, is_base64=is_base64)) < 3.5 * HOSTILE_BYTES


# Batches: an error in one message affects only that message


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400])
def test_invalid_number_is_refused_with_its_message_only(literal):
    payload = decode_batch(f'{{"batch": [{{"a": [{literal}]}}, {{"a": 1.5}}]}}')
    with pytest.raises(NumberOutOfRange):
        check_values(payload["batch"][0])
    check_values(payload["batch"][1])


@search(200)
@given(
    st.recursive(
        st.sampled_from(["1", "-0.5", "1e400", "NaN", "-Infinity", "9" * 400, '"[{"', "null"]),
        lambda children: st.lists(children, max_size=3).map(lambda texts: f"[{', '.join(texts)}]"),
        max_leaves=6,
    ),
    st.integers(0, MAX_NESTING + 2),
)
def test_values_of_a_checked_batch_are_valid(text, depth):
    payload = decode_batch(f'{{"batch": [{{"x": {"[" * depth}{text}{"]" * depth}}}], "sentAt": {text}}}')
    try:
        for value in payload.values():
            check_values(value)
    except Refusal:
        assert not isinstance(payload, CheckedBatch)
    else:
        # Nesting is counted from the batch, so a message that is nested almost too deeply is checked alone.
        assert isinstance(payload, CheckedBatch) or depth > MAX_NESTING - 10


@pytest.mark.parametrize("number", ["NaN", "1e999", "9" * 400])
@pytest.mark.parametrize("depth", [MAX_NESTING, 500])
def test_nesting_counts_before_a_number_that_is_out_of_range(depth, number):
    [message] = decode_batch(f'{{"batch": [{{"n": {number}, "x": {"[" * depth}{number}{"]" * depth}}}]}}')["batch"]
    with pytest.raises(NestedTooDeeply):
        check_values(message)


@pytest.mark.parametrize(("depth", "is_fine"), [(MAX_NESTING, True), (MAX_NESTING + 1, False)])
def test_batch_message_may_be_nested_like_a_single_one(depth, is_fine):
    text = nested_objects(depth)
    [message] = decode_batch(f'{{"batch": [{text}]}}')["batch"]
    if is_fine:
        check_values(message)
        decode_body(text)
    else:
        for check in (lambda: check_values(message), lambda: decode_body(text)):
            with pytest.raises(NestedTooDeeply):
                check()


@pytest.mark.parametrize(
    ("text", "refusal"),
    [("", InvalidJson), ("{", InvalidJson), ("[]", NotAnObject), ("1", NotAnObject), ("[" * 200_000, NestedTooDeeply)],
)
def test_body_that_is_not_an_object_is_not_a_batch(text, refusal):
    with pytest.raises(refusal):
        decode_batch(text)
