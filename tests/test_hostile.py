"""Test the whole function with hostile input from hypothesis: it answers by the contract, and stores exactly what was
sent.

A separate JSON writer spells the documents. So the stored message is compared with the intended document, and not with
a second reading by the same parser.
"""

import base64
import dataclasses
import itertools
import json
import random
import string
import sys
import time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from searches import search

from destination.deployment import demo
from destination.paths import ROOT
from handler.canonicalise import canonicalise
from handler.errors import Refusal
from handler.judge import Judge
from handler.record import MAX_POSITION_BYTES, MAX_SUBJECT_BYTES, Record, subject_key
from handler.request import Request
from handler.spec import CALL_TYPES, CONTEXT, TOP
from handler.validate import Schemas

TRACK = {"type": "track", "user_id": "u", "event": "e", "message_id": "m"}
SCHEMAS = ROOT / "schemas"
NOW = 1_936_785_600.0
MAX_RESPONSE_BYTES = 6 * 1024 * 1024
"""https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""
HEADERS = {"Content-Type", "WWW-Authenticate", "Retry-After"}
POLLUTING = ("__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__class__", "$ref", "_aws")


def basic(octets):
    return "Basic " + base64.b64encode(octets).decode()


GOOD = basic(demo.GOOD_KEY.encode() + b":")


def codes(kind=Refusal):
    own = {kind.code: kind.status} if "code" in vars(kind) else {}
    return own | {code: status for child in kind.__subclasses__() for code, status in codes(child).items()}


CODES = codes()


def assert_by_the_contract(answer, *statuses):
    """Assert that every answer except success is one of our 4xx (or 501), in JSON, with a text.

    It is never our fault.
    """
    assert answer.headers.keys() <= HEADERS
    assert answer.headers["Content-Type"] == "application/json"
    assert all(value.isascii() and value.isprintable() for value in answer.headers.values())
    if answer.status in (200, 202):
        assert answer.body["status"] in ("stored", "duplicate", "queued")
    else:
        assert CODES[answer.body["code"]] == answer.status < 502
        assert answer.body["message"].isprintable()
    assert not statuses or answer.status in statuses


def answered(body, **changes):
    """Return status and body from the function that was deployed last, with a stopped clock."""
    changed = dataclasses.replace(sys.modules["handler.app"].destination, clock=lambda: NOW, **changes)
    event = {"headers": {"authorization": GOOD}, "requestContext": {"requestId": "test"}, "body": body}
    response = changed.answer(Request.from_event(event, NOW))
    return response["statusCode"], response["body"]


def take(destination):
    """Return the stored messages, and remove them."""
    records = destination.records()
    if destination.stack.stores.sink.is_queryable:
        for record in records:
            key = {name: {"S": record[name]} for name in ("subject", "position")}
            destination.account.dynamodb().delete_item(TableName=destination.stack.stores.event_table, Key=key)
    return records


@pytest.fixture(params=["dynamodb", "sqs"])
def destination(request, deploy):
    return deploy(EventSink=request.param)


@pytest.fixture
def table(deploy):
    return deploy()


# Documents, and their spellings


def whole(text):
    """Join adjacent halves of surrogate pairs, as every JSON reader does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


ANY_CHARACTER = st.characters(exclude_categories=())
texts = st.text(ANY_CHARACTER, max_size=12).map(whole)
names = st.one_of(texts, st.sampled_from(POLLUTING))
numbers = st.one_of(
    st.integers(-(10**40), 10**40),
    st.sampled_from([2**53 + 1, 10**308, -(10**308), 5e-324, 1.7976931348623157e308, -0.0]),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=5)

SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def spelled(value, chance):
    """Write JSON in one of the many ways that RFC 8259 allows."""
    space = "".join(chance.choices(" \t\r\n", k=chance.choice((0, 0, 0, 2))))
    match value:
        case None | True | False:
            return space + {None: "null", True: "true", False: "false"}[value]
        case int():
            return space + str(value)
        case float():
            return space + chance.choice((str.lower, str.upper))(repr(value))
        case str():
            return space + '"' + "".join(spelled_character(character, chance) for character in value) + '"'
        case list():
            return space + "[" + ",".join(spelled(child, chance) for child in value) + space + "]"
    members = [(spelled(name, chance) + space + ":" + spelled(child, chance)) for name, child in value.items()]
    chance.shuffle(members)
    return "{" + ",".join(members) + space + "}" + space


def spelled_character(character, chance):
    if character in SHORT and (character != "/" or chance.random() < 0.5):
        return SHORT[character]
    if character < " " or "\ud800" <= character <= "\udfff" or chance.random() < 0.2:
        units = character.encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
    return character


def exact(value):
    """Distinguish values that Python considers equal: 1, 1.0 and true."""
    return json.dumps(value, sort_keys=True)


# Bodies


@search(150)
@given(octets=st.binary(max_size=60), is_base64=st.booleans())
def test_any_bytes_are_refused(table, octets, is_base64):
    body = base64.b64encode(octets).decode() if is_base64 else octets.decode("utf-8", "surrogateescape")
    assert_by_the_contract(table.post(body, is_base64=is_base64), 400)
    assert table.stored() == []


BODY = json.dumps({**TRACK, "userId": 1, "properties": {"é💡": [1.5e3, True, None, "\ud800\n"]}}, ensure_ascii=False)
BODY_OCTETS = BODY.encode("utf-8", "replace")


def test_truncated_body_is_refused(table):
    for end in range(len(BODY_OCTETS)):
        answer = table.post(base64.b64encode(BODY_OCTETS[:end]).decode(), is_base64=True)
        assert_by_the_contract(answer, 400)
        assert answer.body["code"] in ("invalid_json", "invalid_encoding")
    assert table.stored() == []


@search(200)
@given(at=st.integers(0, len(BODY_OCTETS) - 1), octets=st.binary(max_size=3), cut=st.integers(0, 3))
def test_body_with_changed_bytes_is_accepted_or_refused(table, at, octets, cut):
    body = BODY_OCTETS[:at] + octets + BODY_OCTETS[at + cut :]
    assert_by_the_contract(table.post(base64.b64encode(body).decode(), is_base64=True))


@search(60)
@given(own=objects, properties=objects, chance=st.randoms(use_true_random=True), is_base64=st.booleans())
def test_stored_message_equals_the_sent_one(destination, own, properties, chance, is_base64):
    message = {**TRACK, "properties": properties, "own": own, "context": {"own": own}}
    text = spelled(message, chance)
    body = base64.b64encode(text.encode()).decode() if is_base64 else text
    assert_by_the_contract(destination.post(body, is_base64=is_base64), 200, 202)
    [record] = take(destination)
    assert exact(record["message"]) == exact(message)


@search(40)
@given(document=objects, chance=st.randoms(use_true_random=True))
def test_stored_settings_equal_the_sent_ones(destination, document, chance):
    header = base64.b64encode(spelled(document, chance).encode()).decode()
    assert_by_the_contract(destination.post(TRACK, headers={"x-segment-settings": header}), 200, 202)
    [record] = take(destination)
    assert exact(record["settings"]) == exact(document)


FIELDS = st.sampled_from(["type", "Type", *TOP.spelling, *TOP.spelling.values(), "User ID", "from", "To", "_conflicts"])


@search(80)
@given(message=st.dictionaries(FIELDS, values, max_size=6), call_type=st.sampled_from(["track", "alias", "delete", 7]))
def test_fields_of_any_type_are_accepted_or_refused(destination, message, call_type):
    assert_by_the_contract(destination.post({**message, "type": call_type}))
    take(destination)


@search(40)
@given(text=texts.filter(len))
@example("#")
@example("user#u")
@example("\x00")
@example("%23")
@example("x" * 3000)
@example("\ud800" * 1000)
@example("💡" * 1000)
def test_any_text_is_an_id_for_both_stores(destination, text):
    message = {**TRACK, "user_id": text, "event": text, "message_id": text[:100], "group_id": text}
    assert_by_the_contract(destination.post(message), 200, 202)
    [record] = take(destination)
    assert record["message"] == message


# Limits


def spellings(word):
    """Return many spellings of one field of the spec."""
    cases = itertools.product(*((letter, letter.upper()) for letter in word))
    return ["".join(letters[:at]) + "_" + "".join(letters[at:]) for letters in cases for at in range(1, len(word))]


MEGABYTE = 1024 * 1024
NOISE = "".join(random.Random(7).choices(string.ascii_letters, k=MEGABYTE))  # noqa: S311 -- no secret
LARGE = {
    "one text": {"properties": {"x": "x" * 1_048_000}},
    "one text that does not compress": {"properties": {"x": NOISE[:1_040_000]}},
    "one id": {"userId": "x" * 1_000_000},
    "one name": {"properties": {"x" * 1_000_000: 1}},
    "one name at the top": {" " * 500_000 + "userId" + "_" * 500_000: 1},
    "characters that JSON escapes": {"properties": {"x": "\x00" * 170_000}},
    "10,000 properties": {"properties": {f"name {number}": "ä" * 20 for number in range(10_000)}},
    "80,000 fields at the top": {f"{number:x}": 1 for number in range(80_000)},
    "300,000 empty arrays": {"properties": {"x": [[]] * 300_000}},
    "digits": {"properties": {"x": [int("9" * 308)] * 3_000}},
    "spellings of one field": {
        "context": {f"{number}": number for number in range(30_000)},
        **{name: name for name in spellings("context")},
    },
    "spellings of one id": {name: name for name in ["userId", *spellings("messageid")]},
    "previous names of one id": {"type": "alias", **{"f" + "_" * n + "rom": "x" * 100 for n in range(1_300)}},
    "a time": {"timestamp": "2031-05-17T12:00:00." + "1" * 1_000_000, "originalTimestamp": "2031 " * 4_000},
}


@pytest.mark.parametrize("message", LARGE.values(), ids=LARGE)
def test_a_large_message_is_answered_in_time(destination, message):
    body = json.dumps({"type": "track", "event": "e", "userId": "u", "messageId": "m", **message})
    began = time.process_time()
    status, _ = answered(body)
    assert time.process_time() - began < 4
    assert status in (200, 202, 400)
    assert len(take(destination)) == (status != 400)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("[" * MEGABYTE, "nested_too_deeply"),
        ('{"a":' * 200_000, "nested_too_deeply"),
        ('{"a":[' * 50 + "]}" * 50 + "}", "invalid_json"),
        ('{"a":[' * 51 + "]}" * 51, "nested_too_deeply"),
        ('{"n":' + "9" * 1_000_000 + "}", "number_out_of_range"),
        ('{"n":-1e' + "9" * 1_000_000 + "}", "number_out_of_range"),
        ('{"n":0.' + "0" * 1_000_000 + "1e1000000}", "missing_type"),
        (" " * MEGABYTE, "invalid_json"),
        (" " * MEGABYTE + " ", "message_too_large"),
        ("{}" + " " * MEGABYTE, "message_too_large"),
        ('"' * MEGABYTE, "invalid_json"),
        ('{"x":"' + "\\u0000" * 170_000, "invalid_json"),
        ("{" + '"a":1,' * 170_000 + '"a":2}', "missing_type"),
    ],
    ids=lambda value: f"{value[:12]!r} of {len(value):,}",
)
def test_exceeded_limit_is_named(table, body, code):
    answer = table.post(body)
    assert_by_the_contract(answer, 400)
    assert answer.body["code"] == code


# Credentials and headers


def send(destination, message=TRACK, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return destination.send({"headers": named, "requestContext": {"requestId": "test"}, "body": json.dumps(message)})


@search(100)
@given(st.one_of(st.text(ANY_CHARACTER), st.binary().map(basic), st.binary().map(lambda octets: basic(octets + b":"))))
@example(f"{GOOD},{GOOD}")
@example(f"{GOOD}, {basic(b'nobody:')}")
@example(f"Bearer x,{GOOD}")
@example(f"{GOOD}\r\nX-Injected: 1")
@example(basic(b"\x00demo-key-good:"))
@example(basic(b"demo-key-good\x00:"))
@example(basic(b"demo-\x00key-good:"))
@example(basic(b"demo-key-good"))
@example(basic(b":demo-key-good"))
@example(basic("demo-\u200bkey-good:".encode()))
@example(basic("d\uff45mo-key-good:".encode()))
@example(basic(b"demo-key-good\xff:"))
@example(basic(b"DEMO-KEY-GOOD:"))
@example("Basic " + "A" * 100_000)
def test_anything_but_a_live_key_is_401(table, authorization):
    assume(authorization != GOOD)
    answer = send(table, authorization=authorization)
    assert_by_the_contract(answer, 401)
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="Segment Direct destination", charset="UTF-8"'
    assert table.stored() == []


def test_a_key_ends_at_its_first_colon(table):
    assert send(table, authorization=basic(b"demo-key-good:demo-key-revoked:")).status == 200
    assert send(table, authorization=basic(b"demo-key-revoked:demo-key-good:")).status == 401


@search(100)
@given(st.one_of(st.text(ANY_CHARACTER), st.binary().map(lambda octets: base64.b64encode(octets).decode())))
@example("e30=,e30=")
@example("\r\nX-Injected: 1")
@example("e30=\x00")
@example(base64.b64encode(b'{"a":"\\ud800"}').decode())
def test_message_with_any_settings_is_accepted_or_refused(table, header):
    assert_by_the_contract(send(table, authorization=GOOD, x_segment_settings=header), 200, 400)


@pytest.mark.parametrize("text", ["\r\nSet-Cookie: a=b", "\n\n<html>", "\u2028", "\x85", '"}{"', "\ud800"])
def test_text_of_a_caller_never_becomes_a_header(table, text):
    message = {"type": "track", "userId": text, "event": text, "messageId": text, text: text}
    for odd in (message, {**message, "type": text}, {**message, "event": {text: text}}):
        answer = send(table, odd, authorization=GOOD, **{text: text}, x_segment_settings=f"x{text}x")
        assert_by_the_contract(answer, 400, 501)
        assert text not in answer.body["message"]
    answer = send(table, message, authorization=GOOD, user_agent=text)
    assert_by_the_contract(answer, 200)
    assert answer.body["message_id"] == text


def test_line_has_no_key_no_header_and_no_body(table, lines):
    secrets = [f"secret-{number}" for number in range(9)]
    table.add_key(secrets[0])
    message = {**TRACK, "message_id": "m-1", "user_id": secrets[1], "event": secrets[2], secrets[3]: secrets[4]}
    settings = base64.b64encode(json.dumps({"token": secrets[5]}).encode()).decode()
    headers = {"x-segment-settings": settings, "user-agent": secrets[6], "x-api-key": secrets[7]}
    for odd in (message, {**message, "event": {secrets[8]: 1}}, {**message, "type": secrets[8]}, secrets[8]):
        for key in (secrets[0], secrets[8]):
            table.post(odd, key=key, headers=headers)
    assert len(lines()) == 8
    written = json.dumps(lines())
    assert "secret" not in written
    assert settings not in written
    assert base64.b64encode(f"{secrets[0]}:".encode()).decode() not in written


def test_names_with_a_meaning_in_a_language_are_only_names(destination):
    odd = {name: {"type": "alias", "customer_id": "other", name: name} for name in POLLUTING}
    message = {**TRACK, **odd, "properties": odd, "context": odd, "integrations": odd}
    assert_by_the_contract(destination.post(message), 200, 202)
    [record] = take(destination)
    assert record["message"] == message
    assert record["customer_id"] == demo.CUSTOMER


# The canonical form

IDS = ("userId", "user_id", "User ID", "previousId", "Previous ID", "from", "From", "to", "TO")
TIMES = ("timestamp", "originalTimestamp", "Original Timestamp", "sent_At", "receivedAt")
SPELLED = st.sampled_from([*IDS, *TIMES, *TOP.spelling.values(), *TOP.spelling, "Context", "MESSAGE_ID", "_conflicts"])
IN_CONTEXT = st.sampled_from([*CONTEXT.spelling.values(), *CONTEXT.spelling, "Page", "user-agent", "OS"])
IN_OBJECT = st.sampled_from(["Name", "name", "URL", "url", "own"])

few_values = st.sampled_from(["", "u", 7, "7", 7.0, True, [], {}, None, "2031-05-17T12:00:00Z"])
any_values = few_values | values
contexts = st.dictionaries(IN_CONTEXT, any_values | st.dictionaries(IN_OBJECT, any_values, max_size=3), max_size=4)
payloads = st.one_of(
    st.dictionaries(SPELLED, any_values, max_size=8),
    st.dictionaries(st.sampled_from(IDS), few_values, max_size=5).map(lambda message: {"type": "Alias", **message}),
    st.dictionaries(st.sampled_from(["context", "Context"]), contexts, min_size=1, max_size=2),
)


@search(400)
@given(payloads)
@example({"type": "alias", "userId": 7, "to": "7"})
def test_canonicalisation_is_idempotent(payload):
    [message] = canonicalise(payload)
    [again] = canonicalise(message.body)
    assert exact(again.body) == exact(message.body)
    assert (again.time, again.timestamp) == (message.time, message.timestamp)


def reordered(value, chance):
    if isinstance(value, dict):
        members = [(name, reordered(child, chance)) for name, child in value.items()]
        chance.shuffle(members)
        return dict(members)
    return [reordered(child, chance) for child in value] if isinstance(value, list) else value


@search(400)
@given(payloads, st.randoms(use_true_random=True))
def test_the_canonical_form_does_not_depend_on_the_order_of_names(payload, chance):
    [message] = canonicalise(payload)
    [other] = canonicalise(reordered(payload, chance))
    assert exact(other.body) == exact(message.body)


SHIFTING = ("sentAt", "receivedAt", "timestamp", "_metadata")
SHIFTING_FIELDS = {"message_id", *(TOP.canonical[name] for name in SHIFTING)}
shifts = st.fixed_dictionaries(dict.fromkeys(SHIFTING, any_values))
repeated = st.dictionaries(
    SPELLED.filter(lambda name: TOP.canonical[name] not in SHIFTING_FIELDS),
    any_values,
    max_size=5,
)


@search(80)
@given(repeated, objects, st.tuples(shifts, shifts), st.randoms(use_true_random=True))
def test_a_resend_has_the_same_derived_id_and_is_stored_once(table, message, own, shifted, chance):
    message |= {"type": "identify", "userId": "u", "own": own, "originalTimestamp": "2031-05-17T12:00:00Z"}
    sends = [spelled(reordered({**message, **times}, chance), chance) for times in shifted]
    first, second = map(table.post, sends)
    assume(first.status == 200)
    assert (second.body["status"], second.body["message_id"]) == ("duplicate", first.body["message_id"])
    assert len(take(table)) == 1


# Texts in a partner's own schemas, which may name a customer's field

ODD_NAMES = {
    "half a surrogate pair": {"\ud800": 1},
    "a control character": {"\x00\r\n": 1},
    "many long names": {"💡" * 20_000 + str(number): number for number in range(10)},
    "one long name of many": {"💡" * 200_000: {str(number): number for number in range(10)}},
}


@pytest.fixture
def all_properties_must_be_texts(tmp_path):
    """Return partner schemas in which properties are texts, or objects of texts."""
    for path in SCHEMAS.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    schema = json.loads((SCHEMAS / "track.json").read_bytes())
    texts_only = {"additionalProperties": {"type": ["string", "object"], "additionalProperties": {"type": "string"}}}
    schema["properties"]["properties"] |= texts_only
    (tmp_path / "track.json").write_text(json.dumps(schema))
    return Schemas.load(tmp_path)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("properties", ODD_NAMES.values(), ids=ODD_NAMES)
def test_a_refusal_may_name_any_field_of_the_customers(all_properties_must_be_texts, properties):
    message = {**TRACK, "properties": properties}
    body = json.dumps(message) if "\ud800" in properties else json.dumps(message, ensure_ascii=False)
    judge = Judge(schemas=all_properties_must_be_texts, supported_call_types=CALL_TYPES)
    status, content = answered(body, judge=judge)
    assert (status, json.loads(content)["code"]) == (400, "invalid_message")
    assert len(json.dumps(content)) < MAX_RESPONSE_BYTES


# Keys of the stores

hashes = st.sampled_from(["#", "%", "%23", "sha256", "user", "anonymous", "x" * 3000])
ids = st.lists(st.one_of(texts, hashes), min_size=1, max_size=4).map("".join).map(whole).filter(len)
subjects = st.tuples(ids, st.sampled_from(["user", "anonymous"]), ids)


@search(300)
@given(subjects, subjects)
def test_subjects_never_share_a_key(one, other):
    keys = [subject_key(*subject) for subject in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


@search(300)
@given(user_id=ids, message_ids=st.tuples(ids, ids))
def test_messages_of_a_subject_never_share_a_position(user_id, message_ids):
    records = [
        Record(customer_id="acme", message=message, settings={}, stored_at=0)
        for message_id in message_ids
        for message in canonicalise({**TRACK, "user_id": user_id, "message_id": message_id})
    ]
    positions = [record.position for record in records]
    assert (positions[0] == positions[1]) == (message_ids[0] == message_ids[1])
    assert all(0 < len(position.encode()) <= MAX_POSITION_BYTES for position in positions)
    assert 0 < len(records[0].subject.encode()) <= MAX_SUBJECT_BYTES
