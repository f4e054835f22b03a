"""Test JSON rule by rule of the grammar of RFC 8259, and our choices where the grammar leaves a choice.

Each text is a property of a message. `test_decode.py` tests that a document must be an object.
"""

import base64
import itertools
import json

import pytest

from handler.decode import decode_body
from handler.errors import Refusal

ACCEPTED = {
    "2 ws": [(b" \t\r\n1 \t\r\n", 1), (b"[ 1 ,\n2\t,\r3 ]", [1, 2, 3]), (b'{ "a" : { } }', {"a": {}})],
    "3 literals": [(b"true", True), (b"false", False), (b"null", None), (b"[true,null]", [True, None])],
    "4 object": [
        (b"{}", {}),
        (b'{"a":1}', {"a": 1}),
        (b'{"a":1,"b":2}', {"a": 1, "b": 2}),
        (b'{"":0}', {"": 0}),
        (b'{"a":{"a":{"a":{}}}}', {"a": {"a": {"a": {}}}}),
        (b'{"\\u0061":1}', {"a": 1}),
        (b'{"1":1," ":2,"\\n":3}', {"1": 1, " ": 2, "\n": 3}),
    ],
    "5 array": [(b"[]", []), (b"[[]]", [[]]), (b"[[],{}]", [[], {}]), (b'[1,"1",[1]]', [1, "1", [1]])],
    "6 int": [(b"0", 0), (b"-0", 0), (b"-1", -1), (b"10", 10), (b"1234567890", 1234567890)],
    "6 frac": [(b"0.0", 0.0), (b"-0.0", -0.0), (b"-0.10", -0.1), (b"1.000", 1.0), (b"3.14159", 3.14159)],
    "6 exp": [(b"1e2", 100.0), (b"1E2", 100.0), (b"1e+2", 100.0), (b"1e-2", 0.01), (b"0e0", 0.0), (b"1.5E-03", 0.0015)],
    "7 unescaped": [
        (b'""', ""),
        (b'"\x20\x21\x23\x5b\x5d\x7e\x7f"', " !#[]~\x7f"),
        (b'"/"', "/"),
        (b'"\xc2\x80\xdf\xbf"', "\x80\u07ff"),
        (b'"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"', "\u0800\ud7ff\ue000\uffff"),
        (b'"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"', "\U00010000\U0010ffff"),
        (b'"\xe2\x80\xa8\xe2\x80\xa9\xc2\x85"', "\u2028\u2029\x85"),
        (b'"\xef\xbb\xbf"', "\ufeff"),
    ],
    "7 escaped": [
        (b'"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
        (b'"\\u0000\\u001f\\u0022\\u005c"', '\x00\x1f"\\'),
        (b'"\\u00e9\\u00E9\\uABCD\\uabcd"', "éé\uabcd\uabcd"),
        (b'"\\ud83d\\uDDFC"', "🗼"),
        (b'"\\\\u0041"', "\\u0041"),
    ],
}
REFUSED = {
    "2 ws": [
        b"\x0b1",
        b"1\x0c",
        b"\xc2\xa01",
        b"\xe2\x80\xa81",
        b"\x001",
        b"\xef\xbb\xbf1",
        b"1 /* one */",
        b"1 // one",
    ],
    "2 begin and end": [b"", b"{", b"}", b"[", b"]", b"[1", b"1]", b'{"a":1', b"[1}", b'{"a":1]', b"1 1", b"1}}{{"],
    "2 separators": [b",1", b"1,", b"[1 2]", b"[1;2]", b'{"a";1}', b'{"a"=1}', b'{"a" 1}'],
    "3 literals": [
        b"True",
        b"FALSE",
        b"nul",
        b"nulll",
        b"undefined",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"None",
        b"yes",
    ],
    "4 object": [
        *(
            b"{,}",
            b'{"a"}',
            b'{"a":}',
            b"{:1}",
            b'{"a":1,}',
            b'{,"a":1}',
            b'{"a":1,,"b":2}',
            b'{"a":1 "b":2}',
            b'{"a"::1}',
        ),
        *(b"{a:1}", b"{'a':1}", b"{1:1}", b"{null:1}", b'{["a"]:1}', b'{"a":1}#'),
    ],
    "5 array": [b"[,]", b"[1,]", b"[,1]", b"[1,,2]", b"[1:2]", b'["a":1]', b"[[]", b"[]]", b"(1)", b"[1,\n"],
    "6 int": [
        b"01",
        b"-01",
        b"00",
        b"+1",
        b"--1",
        b"- 1",
        b"-",
        b"1 0",
        b"0x10",
        b"0b1",
        b"1_000",
        b"1,000",
        b"\xd9\xa1",
    ],
    "6 frac": [b".5", b"1.", b"-.5", b"1.e2", b"1..2", b"1.2.3", b"0,5", b"1. 5"],
    "6 exp": [b"1e", b"1e+", b"e1", b"1ee2", b"1e2.5", b"1e1e1", b"1 e2", b"1e 2", b"1e+-2"],
    "7 quotes": [b'"', b'"a', b'a"', b"'a'", b'"a"b"', b'""""', b"\xe2\x80\x9ca\xe2\x80\x9d", b"`a`", b'"""a"""'],
    "7 unescaped": [b'"\x00"', b'"\x1f"', b'"a\nb"', b'"\t"', b'"\r"'],
    "7 escaped": [
        *(b'"\\a"', b'"\\x41"', b'"\\\'"', b'"\\0"', b'"\\U0041"', b'"\\u"', b'"\\u041"', b'"\\u00g0"', b'"\\u{41}"'),
        *(b'"\\u 041"', b'"\\', b'"\\"', b"\\u0031", b'"\\\n"', b'"\\u+041"', b'"\\u004\xd9\xa1"'),
    ],
    "8.1 UTF-8": [
        *(b'"\x80"', b'"\xff"', b'"\xfe\xff"', b'"\xc3"', b'"\xe2\x82"', b'"\xf0\x9f\x97"', b'"\xc3\x28"'),
        *(b'"\xc0\xaf"', b'"\xc1\xbf"', b'"\xe0\x80\xaf"', b'"\xf0\x80\x80\xaf"', b'"\xf8\x88\x80\x80\x80"'),
        *(b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"', b'"\xed\xa0\xbd\xed\xb7\xbc"', b'"\xf4\x90\x80\x80"', b'"\xe9"'),
    ],
}
OPEN = {
    "4 of equal names the last counts": [(b'{"a":1,"a":2}', {"a": 2}), (b'{"a":1,"\\u0061":{}}', {"a": {}})],
    "4 names are equal by code points": [(b'{"\xc3\xa9":1,"e\xcc\x81":2}', {"é": 1, "e\u0301": 2})],
    "6 integers are exact": [(b"9007199254740993", 2**53 + 1), (b"-1" + b"0" * 308, -(10**308))],
    "6 fractions are doubles": [(b"0.1000000000000000055511151231257827", 0.1), (b"9007199254740993.0", 2.0**53)],
    "6 too close to zero is zero": [(b"1e-400", 0.0), (b"-1e-400", -0.0), (b"0e999999", 0.0)],
    "7 half a surrogate pair stays one": [(b'"\\ud800"', "\ud800"), (b'"\\udc00\\ud800x"', "\udc00\ud800x")],
    "9 nesting is read to a depth of 100": [(b"[" * 98 + b"]" * 98, json.loads("[" * 98 + "]" * 98))],
}
OPEN_REFUSED = {
    "6 beyond a double": [(b"1e309", "number_out_of_range"), (b"-" + b"9" * 400, "number_out_of_range")],
    "9 nested more deeply": [(b"[" * 99 + b"]" * 99, "nested_too_deeply"), (b'{"":' * 40_000, "nested_too_deeply")],
}


def rows(table):
    return [pytest.param(*row, id=f"{rule} {row[0][:24]!r}") for rule, texts in table.items() for row in texts]


def body_of(text):
    return b'{"type":"track","userId":"u","event":"e","messageId":"m","properties":{"x":' + text + b"}}"


def read(text):
    return decode_body(base64.b64encode(body_of(text)).decode(), is_base64=True)["properties"]["x"]


@pytest.mark.parametrize(("text", "value"), rows(ACCEPTED | OPEN))
def test_valid_json_is_read_as_the_grammar_says(text, value):
    assert repr(read(text)) == repr(value)  # 1 == 1.0 == True, and 0.0 == -0.0


REFUSED_ROWS = {rule: [(text,) for text in texts] for rule, texts in REFUSED.items()}


@pytest.mark.parametrize("text", rows(REFUSED_ROWS))
def test_text_outside_the_grammar_is_refused(text):
    with pytest.raises(Refusal) as refused:
        read(text)
    assert refused.value.code in ("invalid_json", "invalid_encoding")


@pytest.mark.parametrize(("text", "code"), rows(OPEN_REFUSED))
def test_json_beyond_our_limits_is_refused(text, code):
    with pytest.raises(Refusal) as refused:
        read(text)
    assert refused.value.code == code


def test_whole_function_agrees_with_the_grammar(deploy):
    destination = deploy()
    for status, table in ((200, ACCEPTED | OPEN), (400, REFUSED_ROWS | OPEN_REFUSED)):
        for text, *_ in itertools.chain(*table.values()):
            octets = body_of(text)
            as_text = destination.post(octets.decode("utf-8", "surrogateescape"))
            as_octets = destination.post(base64.b64encode(octets).decode(), is_base64=True)
            assert (as_text.status, as_octets.status) == (status, status), text
