import hashlib
import json
import math
from functools import reduce

import pytest

from destination.segment import names
from handler.canonicalise import (
    CONFLICTS,
    DERIVED_ID_PREFIX,
    UNDATED,
    canonicalise,
    canonicalise_batch,
    names_write_key,
    write_key_of,
)
from handler.decode import CheckedBatch
from handler.errors import BatchTooLarge, InvalidJson, MissingBatch, NestedTooDeeply, NumberOutOfRange
from handler.spec import CALL_TYPES, CONTEXT, CONTEXT_OBJECTS, MAX_NAME_CHARS, MAX_REMEMBERED_NAMES, TOP, snake_case
from handler.split import MAX_BATCH_MESSAGES
from handler.timestamps import parse_time

LATE = "2031-05-17T12:00:00.000Z"
LATER = "2031-05-17T12:09:59.000Z"


def message_of(payload):
    [message] = canonicalise(payload)
    return message


def body_of(payload):
    return message_of({"messageId": "m-1", **payload}).body


# Names


def in_capitals(fields):
    """Return a value for each name, in another casing than the spec's. `_metadata` has only one casing."""
    return {name if name.startswith("_") else name.upper(): f"value of {name}" for name in fields}


def as_stored(fields):
    return {stored: f"value of {name}" for name, stored in fields.items()}


def test_top_level_spec_names_are_known_in_any_casing():
    texts = {name: stored for name, stored in names.TOP_NAMES.items() if stored not in ("context", "type")}
    body = message_of({**in_capitals(texts), "TYPE": "track"}).body
    assert body == {**as_stored(texts), "type": "track"}


def test_context_names_are_known_in_any_casing():
    assert body_of({"context": in_capitals(names.CONTEXT_NAMES)})["context"] == as_stored(names.CONTEXT_NAMES)


@pytest.mark.parametrize("name", names.CONTEXT_OBJECT_NAMES)
def test_names_in_context_objects_are_known_in_any_casing(name):
    fields = names.CONTEXT_OBJECT_NAMES[name]
    context = body_of({"context": {name: {**in_capitals(fields), "My Own": 1}}})["context"]
    assert context == {names.CONTEXT_NAMES[name]: {**as_stored(fields), "My Own": 1}}


@pytest.mark.parametrize(
    "name", ["userId", "user_id", "UserID", "UserId", "USERID", "userid", "User ID", "user-id", " user id ", "USER_ID"]
)
def test_spellings_of_a_name_are_one_field(name):
    assert body_of({name: "u-1"}) == {"message_id": "m-1", "user_id": "u-1"}


@pytest.mark.parametrize(
    ("spec_name", "name"),
    [
        ("userId", "user_id"),
        ("originalTimestamp", "original_timestamp"),
        ("type", "type"),
        ("_metadata", "_metadata"),
        ("user_id", "user_id"),
        ("userAgentData", "user_agent_data"),
        ("wow64", "wow64"),
    ],
)
def test_spec_names_are_stored_in_snake_case(spec_name, name):
    assert snake_case(spec_name) == name


def respell(name):
    """Return a name in every casing that libraries and people use."""
    words = name.split("_")
    return {
        name,
        name.upper(),
        "-".join(words),
        " ".join(words).title(),
        words[0] + "".join(word.title() for word in words[1:]),
        "".join(word.title() for word in words),
    }


@pytest.mark.parametrize("name", sorted(TOP.spelling.keys() - {"type", "message_id", "write_key", "_metadata"}))
def test_top_level_spec_fields_are_found_in_any_spelling(name):
    assert [body_of({spelling: "x"}).get(name) for spelling in respell(name)] == ["x"] * len(respell(name))


@pytest.mark.parametrize("name", sorted(CONTEXT.spelling))
def test_context_fields_are_found_in_any_spelling(name):
    for spelling in respell(name):
        assert body_of({"Context": {spelling: "x"}})["context"] == {name: "x"}


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, fields in CONTEXT_OBJECTS.items() for name in sorted(fields.spelling)]
)
def test_fields_of_context_objects_are_found_in_any_spelling(part, name):
    for spelling in respell(name):
        assert body_of({"context": {part.upper(): {spelling: "x"}}})["context"] == {part: {name: "x"}}


OWN_KEYS = {"userId": 1, "user_id": 2, "User ID": 3, "": 4, "first name": 5, "a.b": 6, "ключ😀": 7, "\ud800": 8}


@pytest.mark.parametrize("field", ["traits", "properties", "integrations"])
def test_customers_own_keys_stay_unchanged(field):
    own = {**OWN_KEYS, "nested": [OWN_KEYS], "none": None, "empty": []}
    assert body_of({field.title(): own})[field] == own


def test_customers_own_keys_in_context_traits_stay_unchanged():
    assert body_of({"context": {"Traits": OWN_KEYS}})["context"] == {"traits": OWN_KEYS}


@pytest.mark.parametrize(
    "name",
    ["customField", "Custom Field", "", "user.id", "metadata", "_userId", "from", "_conflicts", "uşerId"],
)
def test_unknown_fields_stay_unchanged(name):
    assert body_of({name: "x"}) == {"message_id": "m-1", name: "x"}
    assert body_of({"context": {name: "x"}})["context"] == {name: "x"}


def test_overlong_name_is_an_unknown_field():
    long = "user" + "_" * (MAX_NAME_CHARS - 6) + "id"
    assert body_of({long: "u-1"})["user_id"] == "u-1"
    assert body_of({long + " ": "u-1"})[long + " "] == "u-1"


def test_context_values_that_are_not_objects_stay_unchanged():
    context = {"page": "/home", "os": None, "device": ["phone"], "screen": 3}
    assert body_of({"context": context})["context"] == context


@pytest.mark.parametrize("context", ["text", 7, True, [1]])
def test_context_that_is_not_an_object_is_left_to_the_schema(context):
    assert body_of({"context": context})["context"] == context


# Values


@pytest.mark.parametrize("name", ["context", "integrations", "userId", "traits", "originalTimestamp", "type"])
def test_spec_field_with_null_is_absent(name):
    assert body_of({name: None}) == {"message_id": "m-1"}


def test_unknown_field_with_null_stays():
    assert body_of({"custom": None}) == {"message_id": "m-1", "custom": None}


@pytest.mark.parametrize("field", ["context", "integrations", "properties", "traits"])
def test_empty_array_from_php_becomes_an_empty_object(field):
    assert body_of({field: []})[field] == {}
    assert body_of({field: [[]]})[field] == [[]]


@pytest.mark.parametrize("name", ["userId", "anonymousId", "groupId", "previousId", "messageId"])
@pytest.mark.parametrize(("value", "stored"), [(0, "0"), (42, "42"), (-7, "-7"), (2**70, "1180591620717411303424")])
def test_integer_id_becomes_a_decimal_string(name, value, stored):
    assert body_of({name: value})[snake_case(name)] == stored


@pytest.mark.parametrize("value", [True, False, 1.5, 7.0, ["u-1"], {"id": 1}, " ", "null", "NaN", "0"])
def test_id_of_another_type_is_left_to_the_schema(value):
    stored = body_of({"userId": value})["user_id"]
    assert (type(stored), stored) == (type(value), value)


@pytest.mark.parametrize("name", ["userId", "anonymousId", "groupId", "previousId"])
def test_empty_id_is_absent(name):
    assert body_of({name: ""}) == {"message_id": "m-1"}


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_call_type_becomes_lower_case(call_type):
    assert message_of({"Type": call_type.title()}).type == call_type


@pytest.mark.parametrize("call_type", [7, ["track"], {}])
def test_non_string_call_type_is_left_to_the_next_step(call_type):
    assert message_of({"type": call_type}).type == call_type


@pytest.mark.parametrize(
    "payload",
    [
        {"writeKey": "s3cret"},
        {"Write Key": "s3cret"},
        {"writeKey": "s3cret", "write_key": "other-s3cret"},
        {"writeKey": None, "WRITE_KEY": "s3cret"},
        {"context": {"a": 1}, "Context": {"b": 2, "writeKey": "s3cret"}},
        {"_metadata": {}, "_Metadata": [{"writeKey": "s3cret"}]},
    ],
)
def test_write_key_is_dropped_in_every_spelling(payload):
    assert "s3cret" not in json.dumps(message_of({"type": "track", "userId": "u-1", **payload}).body)


@pytest.mark.parametrize(
    "names",
    [
        {"userId": "new", "previousId": "old"},
        {"user_id": "new", "previous_id": "old"},
        {"User ID": "new", "Previous ID": "old"},
        {"from": "old", "to": "new"},
        {"From": "old", "TO": "new"},
        {"from": "old", "userId": "new"},
        {"from": "old", "to": "new", "userId": "", "previousId": None},
        {"from": "old", "to": "new", "userId": "new", "previousId": "old"},
    ],
)
def test_all_shapes_of_an_alias_become_one(names):
    body = {"message_id": "m-1", "type": "alias", "user_id": "new", "previous_id": "old"}
    assert body_of({"type": "alias", **names}) == body


def test_integer_ids_of_the_old_alias_shape_become_strings():
    body = body_of({"type": "alias", "from": 1, "to": 2})
    assert (body["previous_id"], body["user_id"]) == ("1", "2")


OLD_ALIAS = {"type": "alias", "from": "x", "to": "y"}


def test_current_alias_names_win_and_the_old_ones_are_kept():
    payload = {"userId": "new", "previousId": "old", **OLD_ALIAS}
    assert body_of(payload) == {"message_id": "m-1", "user_id": "new", "previous_id": "old", **OLD_ALIAS}


def test_old_alias_names_with_null_or_empty_are_absent():
    body = message_of({"type": "alias", "userId": "u", "previousId": "p", "from": None, "to": ""}).body
    assert not body.keys() & {"from", "to"}


def test_other_call_types_keep_from_and_to_as_custom_fields():
    assert body_of({"type": "track", "from": "Ulm", "to": "Bath"}).items() >= {"from": "Ulm", "to": "Bath"}.items()


# Several spellings of one field


@pytest.mark.parametrize(
    ("payload", "winner", "conflicts"),
    [
        ({"userId": "a", "user_id": "b", "UserID": "c"}, "a", {"user_id": "b", "UserID": "c"}),
        ({"user_id": "b", "UserID": "c", "User ID": "d"}, "b", {"UserID": "c", "User ID": "d"}),
        ({"UserID": "c", "User ID": "d"}, "d", {"UserID": "c"}),
        ({"userId": "", "user_id": "b"}, "b", None),
        ({"userId": None, "UserID": "c"}, "c", None),
        ({"userId": "a", "user_id": ""}, "a", None),
        ({"userId": "a", "user_id": "a"}, "a", None),
        ({"userId": 1, "user_id": True}, "1", {"user_id": True}),
        ({"userId": 1, "user_id": "1"}, "1", {"user_id": "1"}),
    ],
)
def test_spec_spelling_wins_and_other_values_are_kept(payload, winner, conflicts):
    body = body_of(payload)
    assert (body["user_id"], body.get(CONFLICTS)) == (winner, conflicts)


CONFLICTING = [
    {"userId": "a", "user_id": "b"},
    {"Traits": {"a": 1}, "traits": {}},
    {"sentAt": LATE, "sent_at": LATER},
    {"userId": "a", "user_id": "b", CONFLICTS: {"of": "the customer"}},
    {"userId": "a", CONFLICTS: "kept"},
    {"context": {"ip": "192.0.2.1", "IP": "192.0.2.2"}},
    {"context": {"page": {"URL": "a", "url": "b"}, "Page": {"title": "c"}}},
    {"context": {"userAgent": "a", "user_agent": "b"}, "CONTEXT": {"user-agent": "c"}},
    {"type": "alias", "from": "a", "to": "b", "userId": "c", "previousId": "d"},
    {"type": "alias", "from": "a", "From": "b", "to": "c"},
]


@pytest.mark.parametrize("payload", CONFLICTING, ids=json.dumps)
def test_every_value_survives_other_spellings(payload):
    assert sorted(leaves(body_of(payload))) == sorted([*leaves(payload), '"m-1"'])


@pytest.mark.parametrize("payload", CONFLICTING, ids=json.dumps)
def test_the_order_of_the_fields_does_not_matter(payload):
    assert message_of(payload) == message_of(reverse(payload))


STABLE = [
    *CONFLICTING,
    {"type": "Track", "userId": 7, "anonymousId": "", "context": None, "traits": [], "Custom": None},
    {"type": "alias", "from": None, "to": "b"},
    {"type": "alias", "from": "", "to": 7},
    {"type": "delete", "userId": "a", "context": None, "integrations": None},
    {"context": {"Device": {"Ad Tracking Enabled": True}, "OS": {"Name": None}, "mine": OWN_KEYS}},
    {"messageId": "", "writeKey": "k", "_metadata": {"bundled": ["a"]}},
]


@pytest.mark.parametrize("payload", STABLE, ids=json.dumps)
def test_a_canonical_message_is_its_own_canonical_form(payload):
    message = message_of(payload)
    assert message_of(message.body) == message


def leaves(value):
    """Yield every leaf value of a document, as JSON."""
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from leaves(child)
    else:
        yield json.dumps(value)


def reverse(value):
    return {name: reverse(value[name]) for name in reversed(value)} if isinstance(value, dict) else value


def test_large_value_wins_over_many_spellings_that_are_kept():
    properties = {f"p{number}": number for number in range(30_000)}
    others = {"p" + "_" * dashes + "roperties": dashes for dashes in range(1, 50)}
    body = body_of({**others, "properties": properties})
    assert (body["properties"], body[CONFLICTS]) == (properties, others)


def test_payload_is_not_modified():
    payload = {"User ID": 7, "writeKey": "k", "traits": [], "context": {"Page": {"URL": "a"}}}
    before = json.dumps(payload)
    canonicalise(payload)
    assert json.dumps(payload) == before


# Message ids


def test_sent_message_id_is_kept():
    assert message_of({"messageId": "ajs-next-1"}).message_id == "ajs-next-1"


@pytest.mark.parametrize("payload", [{}, {"messageId": ""}, {"messageId": None}, {"message_id": "", "messageId": None}])
def test_a_missing_message_id_is_derived(payload):
    message_id = message_of({"type": "track", "userId": "u-1", **payload}).message_id
    assert message_id == message_of({"userId": "u-1", "type": "track"}).message_id
    assert message_id.startswith(DERIVED_ID_PREFIX)
    assert len(message_id) <= 100


def test_a_derived_id_never_changes():
    # Stored ids were derived like this. Another derivation would store every later resend again.
    message = message_of(
        {"type": "track", "userId": "ü", "event": "e", "n": 1.50, "sentAt": LATE, "traits": {"b": 1, "a": []}}
    )
    text = r'{"event":"e","n":1.5,"traits":{"a":[],"b":1},"type":"track","user_id":"\u00fc"}'
    assert message.message_id == "derived-" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("original", ["", 0, [], False, {}])
def test_resend_with_an_empty_original_timestamp_gets_the_same_id(original):
    first, again = (
        message_of({"type": "page", "userId": "u", "originalTimestamp": original, "timestamp": time})
        for time in (LATE, LATER)
    )
    assert (first.time, first.message_id) == (again.time, again.message_id) == (UNDATED, first.message_id)


DATED = {"type": "track", "userId": "u-1", "originalTimestamp": LATE}
UNSTABLE_FIELDS = [
    {"sentAt": LATE},
    {"sent_at": LATER},
    {"receivedAt": LATE},
    {"timestamp": LATE},
    {"_metadata": {"bundled": ["x"]}},
    {"sentAt": LATE, "sent_at": LATER},
    {"sentAt": LATER, "sent_at": LATE},
    {"Received At": LATE, "receivedAt": LATER, "timestamp": LATE, "Timestamp": LATER},
]


@pytest.mark.parametrize("unstable", UNSTABLE_FIELDS, ids=json.dumps)
def test_derived_id_does_not_depend_on_fields_that_resends_change(unstable):
    resent = message_of({**DATED, **unstable})
    assert (resent.message_id, resent.time) == (message_of(DATED).message_id, message_of(DATED).time)


@pytest.mark.parametrize(
    "other",
    [
        {"originalTimestamp": LATER},
        {"originalTimestamp": None, "timestamp": LATE},
        {"originalTimestamp": None, "timestamp": LATER},
        {"userId": "u-2"},
        {"userId": None, "anonymousId": "u-1"},
        {"type": "page"},
        {"event": "Bell rung"},
        {"properties": {}},
        {"properties": {"n": 1}},
        {"properties": {"n": True}},
        {"properties": {"n": "1"}},
        {"properties": {"\ud800": "\udfff"}},
        {"custom": None},
    ],
    ids=json.dumps,
)
def test_derived_id_depends_on_every_other_field(other):
    assert message_of({**DATED, **other}).message_id != message_of(DATED).message_id


def test_derived_id_does_not_depend_on_casing_or_order():
    payload = {"Original Timestamp": LATE, "USER_ID": "u-1", "Type": "TRACK"}
    assert message_of(payload).message_id == message_of(DATED).message_id


# Times


GARBLED = "the day before yesterday"


@pytest.mark.parametrize(
    ("payload", "time", "timestamp"),
    [
        ({}, UNDATED, None),
        ({"originalTimestamp": LATE}, LATE, LATE),
        ({"timestamp": LATE}, LATE, LATE),
        ({"originalTimestamp": LATE, "timestamp": LATER}, LATE, LATER),
        ({"originalTimestamp": GARBLED, "timestamp": LATER}, UNDATED, LATER),
        ({"originalTimestamp": LATE, "timestamp": GARBLED}, LATE, LATE),
        ({"originalTimestamp": None, "timestamp": LATER}, LATER, LATER),
        ({"timestamp": GARBLED, "receivedAt": LATER}, UNDATED, LATER),
        ({"sentAt": LATE, "receivedAt": LATER}, UNDATED, LATER),
        ({"sentAt": LATE}, UNDATED, None),
        ({"timestamp": 1_900_000_000}, UNDATED, None),
    ],
    ids=json.dumps,
)
def test_key_time_is_repeated_by_resends_and_timestamp_is_exact(payload, time, timestamp):
    message = message_of(payload)
    assert (message.time, message.timestamp) == (parse_time(time) or UNDATED, parse_time(timestamp))


def test_four_times_are_stored_unchanged():
    times = {"timestamp": LATE, "original_timestamp": GARBLED, "sent_at": 7, "received_at": "2031-05-17T14:00+02:00"}
    assert body_of(times).items() >= times.items()


def test_unknown_names_do_not_displace_spec_names():
    message_of({"type": "track", "userId": "u-1", **{f"name {n}": n for n in range(2 * MAX_REMEMBERED_NAMES)}})
    assert len(TOP.canonical) <= MAX_REMEMBERED_NAMES
    assert {"userId", "user_id", "messageId", "message_id"} <= TOP.canonical.keys()
    assert message_of({"type": "track", "User ID": "u-1"}).body["user_id"] == "u-1"


# Batches


def of_batch(*entries, **fields):
    return canonicalise_batch({**fields, "batch": [*entries]})


def test_messages_of_a_batch_equal_single_messages():
    payloads = [{"type": "track", "userId": "u", "Event": "E"}, {"Type": "PAGE", "anonymous_id": 17}]
    assert of_batch(*payloads) == [canonical for payload in payloads for canonical in canonicalise(payload)]


def test_messages_inherit_missing_fields_from_their_batch():
    common = {
        "Context": {"IP": "192.0.2.1", "Library": {"Name": "lantern"}, "own": 1},
        "integrations": {"All": True, "x": False},
        "sent_at": "2031-05-17T12:00:09Z",
        "timestamp": "2031-05-17T12:00:00Z",
    }
    message = {"type": "track", "userId": "u", "event": "E", "messageId": "m"}
    own = {"context": {"ip": "192.0.2.2"}, "Integrations": {"x": True}, "timestamp": "2031-05-17T12:00:01Z"}
    [inherits, has_its_own] = of_batch(message, {**message, **own}, **common)
    assert inherits.body == {
        "type": "track",
        "user_id": "u",
        "event": "E",
        "message_id": "m",
        "context": {"ip": "192.0.2.1", "library": {"name": "lantern"}, "own": 1},
        "integrations": {"All": True, "x": False},
        "sent_at": "2031-05-17T12:00:09Z",
        "timestamp": "2031-05-17T12:00:00Z",
    }
    assert has_its_own.body == {
        **inherits.body,
        "context": {"ip": "192.0.2.2", "library": {"name": "lantern"}, "own": 1},
        "integrations": {"All": True, "x": True},
        "timestamp": "2031-05-17T12:00:01Z",
    }
    assert [each.timestamp for each in (inherits, has_its_own)] == [
        "2031-05-17T12:00:00.000000Z",
        "2031-05-17T12:00:01.000000Z",
    ]


@pytest.mark.parametrize("own", [True, "text", ["x"], 0, False])
def test_message_field_of_a_wrong_type_is_left_to_its_schema(own):
    [message] = of_batch({"type": "page", "integrations": own}, integrations={"All": True})
    assert message.body["integrations"] == own


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_empty_field_is_inherited(nothing):
    [message] = of_batch({"type": "page", "context": nothing}, context={"ip": "192.0.2.1"})
    assert message.body["context"] == {"ip": "192.0.2.1"}


def test_other_batch_fields_are_not_inherited():
    [message] = of_batch({"event": "E"}, type="track", userId="u", messageId="m", traits={"a": 1}, writeKey="k", x=1)
    assert message.body.keys() == {"event", "message_id"}
    assert message.message_id.startswith("derived-")


def test_write_keys_of_a_batch_and_its_messages_are_dropped():
    context = {"writeKey": "secret", "a": 1}
    messages = of_batch({"type": "page", "writeKey": "secret"}, context=context, write_key="secret")
    assert "secret" not in str(messages)


def test_sent_at_of_a_batch_does_not_change_derived_ids():
    [[first], [again]] = [of_batch({"type": "page", "userId": "u"}, sentAt=time) for time in (1, 2)]
    assert first.message_id == again.message_id


@pytest.mark.parametrize(
    ("entry", "body", "code"),
    [
        (None, {}, "not_an_object"),
        ("text", {}, "not_an_object"),
        ([], {}, "not_an_object"),
        (17, {}, "not_an_object"),
        ({"type": "page", "x": math.inf}, {"type": "page", "x": math.inf}, "number_out_of_range"),
        ({"x": reduce(lambda inner, _: [inner], range(200), 1)}, {}, "nested_too_deeply"),
    ],
)
def test_invalid_entry_has_a_reason_and_does_not_affect_others(entry, body, code):
    [good, bad, other] = of_batch({"type": "page"}, entry, {"type": "screen"})
    assert (good.fault, other.fault) == (None, None)
    assert bad.fault.code == code
    assert bad.body.items() >= body.items()
    assert bool(bad.body) == bool(body)


class Broken(dict):
    """A message that raises an error when it is read completely."""

    def values(self):
        raise ZeroDivisionError


def test_bug_with_one_entry_keeps_its_body_and_the_others():
    entry = Broken({"UserID": 7, "writeKey": "s3cret", "Context": {"write_key": "s3cret", "a": 1}})
    good, broken, other = of_batch({"type": "page"}, entry, {"type": "screen"}, context={"ip": "192.0.2.1"})
    assert (good.fault, other.fault, broken.fault.code) == (None, None, "internal_error")
    assert isinstance(broken.fault.__cause__, ZeroDivisionError)
    assert broken.body == {"user_id": "7", "context": {"ip": "192.0.2.1", "a": 1}}
    assert (broken.time, broken.timestamp) == (UNDATED, None)


@pytest.mark.parametrize("refusal", [NestedTooDeeply(), InvalidJson("A message must be valid JSON")])
def test_unparsable_entry_has_no_body(refusal):
    [good, bad] = of_batch({"type": "page"}, refusal)
    assert (good.fault, bad.fault, bad.body) == (None, refusal, {})


@pytest.mark.parametrize("name", ["batch", "Batch", "BATCH"])
def test_batch_is_found_in_any_casing(name):
    assert len(canonicalise_batch({name: [{}, {}]})) == 2


@pytest.mark.parametrize("payload", [{}, {"batch": None}, {"batch": {}}, {"batch": "[]"}, {"type": "page"}])
def test_body_without_an_array_of_messages_is_not_a_batch(payload):
    with pytest.raises(MissingBatch):
        canonicalise_batch(payload)


def test_number_of_messages_in_a_batch_is_limited():
    assert len(canonicalise_batch({"batch": [{}] * MAX_BATCH_MESSAGES})) == 2500
    with pytest.raises(BatchTooLarge, match="at most 2,500 messages"):
        canonicalise_batch({"batch": [{}] * (MAX_BATCH_MESSAGES + 1)})


def test_values_of_a_checked_batch_are_not_checked_again():
    payload = {"batch": [{"x": math.nan}]}
    assert [message.fault is None for message in canonicalise_batch(CheckedBatch(payload))] == [True]
    assert [message.fault is None for message in canonicalise_batch(payload)] == [False]


def test_error_in_a_batch_field_applies_to_all_messages():
    with pytest.raises(NumberOutOfRange):
        canonicalise_batch({"batch": [{}], "context": {"x": math.nan}})


@pytest.mark.parametrize(
    ("payload", "call_type"),
    [({}, "page"), ({"type": None}, "page"), ({"type": "track"}, "track"), ({"Type": "TRACK"}, "track")],
)
def test_message_without_a_type_gets_the_type_of_its_route(payload, call_type):
    assert canonicalise(payload, call_type="page")[0].type == call_type


def test_alias_on_the_alias_route_may_use_the_old_names():
    [message] = canonicalise({"from": "a", "to": "b"}, call_type="alias")
    assert message.body.items() >= {"previous_id": "a", "user_id": "b"}.items()


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"writeKey": "k"}, "k"),
        ({"write_key": "k"}, "k"),
        ({"WRITE KEY": "k"}, "k"),
        ({"write_key": "k", "writeKey": ""}, "k"),
        ({"writeKey": "k", "write_key": "other"}, "k"),
        ({"writeKey": 17}, None),
        ({"write_key": 17, "WRITE-KEY": "other"}, "other"),
        ({"w_rite_key": "b", "WRITEKEY": "a", "Write Key": "c"}, "a"),
        ({"context": {"writeKey": "k"}}, None),
        ({}, None),
    ],
)
def test_write_key_is_found_at_the_top_level(payload, key):
    assert write_key_of(payload) == key


@pytest.mark.parametrize(
    "payload", [{"batch": [{}], "Batch": [{}]}, {"batch": [{}], "BATCH": None}, {"Batch": {}, "batch": []}]
)
def test_two_batch_fields_are_not_a_batch(payload):
    with pytest.raises(MissingBatch):
        canonicalise_batch(payload)


def test_size_of_inherited_batch_fields_is_limited():
    context = {"x": "x" * 10_000}
    assert len(canonicalise_batch({"batch": [{}] * 1000, "context": context})) == 1000
    with pytest.raises(BatchTooLarge, match="too large for so many messages"):
        canonicalise_batch({"batch": [{}] * 2000, "context": context})


def test_invalid_number_in_an_unused_batch_field_is_ignored():
    assert len(canonicalise_batch({"batch": [{}], "whatever": math.nan})) == 1


def test_write_key_is_found_without_reading_other_fields():
    deep = reduce(lambda inner, _: [inner], range(100_000), 1)
    assert write_key_of({"writeKey": "k", "context": deep, "Context": deep}) == "k"


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ('{"writeKey": 1}', True),
        ('{"a": [{"b": {" WRITE_key " : 1}}]}', True),
        (r'{"\u0077rite\u004bey": 1}', True),
        ('{"context": {"writeKey": 1}, "context": {}}', True),
        ('{"' + "_" * 64 + 'writeKey": 1}', False),
        ('{"a": "writeKey", "b": ["writeKey"]}', False),
        (r'{"a\"writeKey": "\"writeKey\": 1"}', False),
        ('{"write": {"key": 1}, "c": ":"}', False),
        ("{}", False),
    ],
)
def test_write_key_is_found_anywhere_in_a_text(text, is_named):
    assert names_write_key(text) is is_named
