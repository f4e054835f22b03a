import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from handler.canonicalise import canonicalise
from handler.compile import read_schemas
from handler.diagnose import MAX_VIOLATIONS
from handler.errors import InvalidMessage, InvalidSettings, MissingType, UnsupportedCallType
from handler.spec import CALL_TYPES
from handler.validate import Schemas, check_call_type

SCHEMAS = Path(__file__).parent.parent / "schemas"
DRAFT_07 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020_12 = "https://json-schema.org/draft/2020-12/schema"


@pytest.fixture
def edit(tmp_path):
    """Return the schemas with changed keywords in one of them, as a partner would edit it."""

    def edited(name, **keywords):
        folder = shutil.copytree(SCHEMAS, tmp_path / "schemas")
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **keywords}))
        return Schemas.load(folder)

    return edited


def violations(schemas, payload):
    """Return the pointer and the text of every violation of a message."""
    [message] = canonicalise({"userId": "u-1", "messageId": "m-1", **payload})
    try:
        schemas.check_message(payload["type"], message.body)
    except InvalidMessage as refusal:
        return [(violation.pointer, violation.message) for violation in refusal.violations]
    return []


# The call type


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_a_supported_call_type_is_returned(call_type):
    [message] = canonicalise({"type": call_type})
    assert check_call_type(message, CALL_TYPES) == call_type


@pytest.mark.parametrize("call_type", [None, "", 7, True, ["track"], {"track": 1}])
def test_missing_or_non_text_call_type_is_named(call_type):
    [message] = canonicalise({"type": call_type})
    with pytest.raises(MissingType, match=r"^type is required and must be a string, such as track$"):
        check_call_type(message, CALL_TYPES)


@pytest.mark.parametrize(
    ("call_type", "text"),
    [
        ("alias", "alias calls are not supported"),
        ("ALIAS", "alias calls are not supported"),
        ("settings", "Calls of this type are not supported"),
        ("keeper@lighthouse.example", "Calls of this type are not supported"),
        (" track", "Calls of this type are not supported"),
    ],
)
def test_only_a_known_call_type_is_named_in_the_refusal(call_type, text):
    [message] = canonicalise({"type": call_type})
    with pytest.raises(UnsupportedCallType, match=f"^{text}$") as caught:
        check_call_type(message, {"track"})
    assert caught.value.status == 501


# Fields that a partner can require, with the partner's texts


EMAIL_REQUIRED = {
    "required": ["traits"],
    "errorMessage": {"required": {"traits": "Missing email address"}},
    "properties": {
        "traits": {
            "type": "object",
            "required": ["email"],
            "errorMessage": {"required": {"email": "Missing email address"}},
        }
    },
}


@pytest.mark.parametrize("dialect", [DRAFT_07, DRAFT_2020_12])
@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, [("/traits", "Missing email address")]),
        ({"traits": {}}, [("/traits/email", "Missing email address")]),
        ({"traits": {"Email": "a@lighthouse.example"}}, [("/traits/email", "Missing email address")]),
        ({"traits": {"email": "a@lighthouse.example"}}, []),
        ({"traits": "tall"}, [("/traits", "traits must be an object, not a string")]),
    ],
)
def test_missing_required_trait_has_the_partners_text(edit, dialect, payload, expected):
    schemas = edit("identify", **EMAIL_REQUIRED, **{"$schema": dialect})
    assert violations(schemas, {"type": "identify", **payload}) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, "properties.depth is required for track calls"),
        ("How deep?", "How deep?"),
        ({"required": "Incomplete"}, "Incomplete"),
        ({"required": {"depth": "How deep?"}}, "How deep?"),
        ({"required": {"tide": "Which tide?"}}, "properties.depth is required for track calls"),
        ({"type": "What is this?"}, "properties.depth is required for track calls"),
        ({"properties": {"depth": "Not a depth"}}, "properties.depth is required for track calls"),
    ],
)
def test_error_text_may_cover_all_rules_one_rule_or_one_field(edit, own, expected):
    rules = {"required": ["depth"], **({"errorMessage": own} if own else {})}
    schemas = edit("track", properties={"properties": rules})
    payload = {"type": "track", "event": "Sounded", "properties": {}}
    assert violations(schemas, payload) == [("/properties/depth", expected)]


def test_error_text_works_for_other_rules_too(edit):
    rules = {"maximum": 90, "type": "number", "errorMessage": {"maximum": "Beyond the pole", "type": {"odd": "?"}}}
    schemas = edit("page", properties={"properties": {"properties": {"latitude": rules}}})
    assert violations(schemas, {"type": "page", "properties": {"latitude": 91}}) == [
        ("/properties/latitude", "Beyond the pole")
    ]
    assert violations(schemas, {"type": "page", "properties": {"latitude": "N"}}) == [
        ("/properties/latitude", "properties.latitude must be a number, not a string")
    ]


def test_missing_fields_are_reported_once(edit):
    schemas = edit("page", properties={"properties": {"required": ["a", "b", "c"]}})
    assert violations(schemas, {"type": "page", "properties": {"b": 1}}) == [
        ("/properties/a", "properties.a is required for page calls"),
        ("/properties/c", "properties.c is required for page calls"),
    ]


def test_first_broken_rule_of_a_place_is_reported(edit):
    schemas = edit("page", properties={"properties": {"properties": {"x": {"minLength": 5, "pattern": "^[0-9]+$"}}}})
    assert violations(schemas, {"type": "page", "properties": {"x": "a"}}) == [
        ("/properties/x", "properties.x must have at least 5 characters")
    ]


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"additionalProperties": {"type": "number"}}, "an entry of properties must be a number, not a string"),
        ({"patternProperties": {"@": {"minLength": 9}}}, "an entry of properties must have at least 9 characters"),
        (
            {"additionalProperties": {"type": ["object", "string"], "enum": [{}]}},
            "an entry of properties must be one of {}",
        ),
    ],
)
def test_name_chosen_by_the_sender_is_never_shown(edit, properties, message):
    schemas = edit("page", properties={"properties": properties})
    texts = violations(schemas, {"type": "page", "properties": {"jane@example.com": "x"}})
    assert texts == [("/properties", message)]


def test_missing_field_of_a_sender_named_entry_is_reported(edit):
    schemas = edit("page", properties={"properties": {"additionalProperties": {"required": ["sku"]}}})
    texts = violations(schemas, {"type": "page", "properties": {"jane@example.com": {}}})
    assert texts == [("/properties", "sku in an entry of properties is required for page calls")]


@pytest.mark.parametrize("text", [["a"], 5, True, {"minLength": ["a"]}])
def test_error_text_that_is_not_a_text_is_ignored(edit, text):
    schemas = edit("page", properties={"name": {"minLength": 3, "errorMessage": text}})
    texts = violations(schemas, {"type": "page", "name": "x"})
    assert texts == [("/name", "name must have at least 3 characters")]


def test_number_of_reported_violations_is_limited(edit):
    schemas = edit("page", properties={"properties": {"properties": {"keywords": {"items": {"type": "string"}}}}})
    payload = {"type": "page", "properties": {"keywords": list(range(50))}}
    assert len(violations(schemas, payload)) == MAX_VIOLATIONS


@pytest.mark.parametrize(
    ("rule", "value", "text"),
    [
        ({"type": "string"}, 7, "must be a string, not a number"),
        ({"type": "integer"}, 7.5, "must be an integer, not a number"),
        ({"type": "number"}, True, "must be a number, not a boolean"),
        ({"type": "boolean"}, None, "must be a boolean, not null"),
        ({"type": "array"}, {}, "must be an array, not an object"),
        ({"type": "null"}, [], "must be null, not an array"),
        ({"type": ["string", "null"]}, 7, "must be a string or null, not a number"),
        ({"minLength": 1}, "", "must not be empty"),
        ({"minLength": 2}, "🗼", "must have at least 2 characters"),
        ({"maxLength": 2}, "s3cret", "must have at most 2 characters"),
        ({"enum": ["eu", 1, None]}, "s3cret", 'must be one of "eu", 1, null'),
        ({"const": "eu"}, "s3cret", 'must be "eu"'),
        ({"minimum": 3}, 2.9, "must be at least 3"),
        ({"maximum": 3}, 10**300, "must be at most 3"),
        ({"exclusiveMinimum": 3}, 3, "must be greater than 3"),
        ({"exclusiveMaximum": 0.5}, 0.5, "must be less than 0.5"),
        ({"multipleOf": 0.5}, 0.75, "must be a multiple of 0.5"),
        ({"pattern": "^a+$", "maxLength": 3}, "bbbb", "must have at most 3 characters"),
        ({"pattern": "^a+$", "maxLength": 4}, "bbbb", "does not have the required form"),
        ({"multipleOf": 0.01}, 19.995, "must be a multiple of 0.01"),
        ({"multipleOf": 0.01}, 1e-308, "must be a multiple of 0.01"),
        ({"multipleOf": 0.1}, 0.1 + 0.2, "must be a multiple of 0.1"),
        ({"multipleOf": 2}, 2**53 + 1, "must be a multiple of 2"),
        ({"multipleOf": 2.5}, 10**300 + 1, "must be a multiple of 2.5"),
        ({"multipleOf": 1e308}, 1.5e308, "must be a multiple of 1e+308"),
        ({"pattern": "^[0-9]+$"}, "7\n", "does not have the required form"),
        ({"pattern": "^\\d+$"}, "\u0661", "does not have the required form"),
        ({"pattern": "^\\w+$"}, "ß", "does not have the required form"),
        ({"format": "email"}, "s3cret", "must be in the format email"),
        ({"format": "date-time"}, "s3cret", "must be in the format date-time"),
        ({"format": "date-time"}, "1796123100000", "must be in the format date-time"),
        ({"format": "date-time"}, "2031-05-17x12:00:00Z", "must be in the format date-time"),
        ({"format": "date"}, "s3cret", "must be in the format date"),
        ({"format": "ipv4"}, "s3cret", "must be in the format ipv4"),
        ({"format": "ipv6"}, "s3cret", "must be in the format ipv6"),
        ({"format": "uuid"}, "s3cret", "must be in the format uuid"),
        ({"pattern": "^[0-9]$"}, "s3cret", "does not have the required form"),
        ({"minItems": 2}, [1], "must have at least 2 entries"),
        ({"minProperties": 2}, {"a": 1}, "must have at least 2 entries"),
        ({"maxItems": 0}, ["s3cret"], "must have at most 0 entries"),
        ({"maxProperties": 0}, {"s3cret": 1}, "must have at most 0 entries"),
        ({"uniqueItems": True}, ["s3cret", "s3cret"], "must not have equal entries"),
        ({"additionalProperties": False}, {"s3cret": 1}, "has fields that are not allowed"),
        ({"not": {"type": "string"}}, "s3cret", "does not fit its schema"),
        ({"oneOf": [{"type": "array"}, {"minLength": 9}]}, "s3cret", "does not fit its schema"),
        ({"contains": {"type": "null"}}, ["s3cret"], "does not fit its schema"),
        ({"propertyNames": {"maxLength": 1}}, {"s3cret": 1}, "must have at most 1 characters"),
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("dialect", [DRAFT_07, DRAFT_2020_12])
def test_broken_rule_is_described_without_the_value(edit, dialect, rule, value, text):
    schemas = edit("page", properties={"properties": {"properties": {"x": rule}}}, **{"$schema": dialect})
    assert violations(schemas, {"type": "page", "properties": {"x": value}}) == [
        ("/properties/x", f"properties.x {text}")
    ]


@pytest.mark.parametrize("dialect", [DRAFT_07, DRAFT_2020_12])
@pytest.mark.parametrize("rules", [{"properties": {"s3cret": False}}, {"additionalProperties": False}])
def test_forbidden_field_is_reported_at_its_parent(edit, dialect, rules):
    schemas = edit("page", properties={"properties": rules}, **{"$schema": dialect})
    assert violations(schemas, {"type": "page", "properties": {"s3cret": 1}}) == [
        ("/properties", "properties has fields that are not allowed")
    ]


@pytest.mark.parametrize(
    ("items", "are_unique"),
    [
        ([1, 1.0], False),
        ([1, True], True),
        ([0, False, None, "", [], {}], True),
        ([{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}], False),
        ([{"a": 1}, {"a": True}], True),
        ([[1, 2], [2, 1]], True),
        ([[["a", 1]], {"a": 1}], True),
        ([["a"], ["a"]], False),
        ([{"number": number} for number in range(4000)], True),
    ],
    ids=lambda value: str(value)[:60],
)
def test_unique_items_are_compared_as_json_values(edit, items, are_unique):
    schemas = edit("page", properties={"properties": {"properties": {"x": {"uniqueItems": True}}}})
    assert (not violations(schemas, {"type": "page", "properties": {"x": items}})) == are_unique


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"format": "date-time"}, "2031-05-17T12:00:00+02:00"),
        ({"format": "date-time"}, "2020-05-09 23:54:49.2 +0000 UTC m=+70366.29"),
        ({"format": "date-time"}, "1998-12-31T23:59:60Z"),
        ({"format": "date-time"}, "20310517T120000Z"),
        ({"format": "date-time"}, 7),
        ({"format": "email"}, "ada@lighthouse.example"),
        ({"format": "no such format"}, "anything"),
        ({"type": "integer"}, 7.0),
        ({"multipleOf": 0.01}, 19.99),
        ({"multipleOf": 0.01}, -0.07),
        ({"multipleOf": 0.01}, 1e308),
        ({"multipleOf": 0.1}, 0.3),
        ({"multipleOf": 0.0001}, 0.0075),
        ({"multipleOf": 1e-300}, 1e300),
        ({"multipleOf": 2}, 10**300),
        ({"multipleOf": 1.0}, 0),
        ({"multipleOf": 0.01}, "19.999"),
        ({"multipleOf": 0.01}, True),
        ({"pattern": "^\\s$"}, "\ufeff"),
        ({"pattern": "^.$"}, "\U0001f600"),
        ({"pattern": "^a$"}, 7),
        ({"pattern": "^a$", "uniqueItems": True}, "a"),
        ({"pattern": "^(?<year>\\d{4})-\\u{1F600}$"}, "2031-\U0001f600"),
        ({"patternProperties": {"^\\d$": False, "^[0-9]$": {}}}, {"\u0661": 1}),
        ({"patternProperties": {"^a$": False}, "additionalProperties": {"const": 1}}, {"a\n": 1}),
        (True, "anything"),
    ],
    ids=json.dumps,
)
def test_satisfied_rule_reports_nothing(edit, rule, value):
    schemas = edit("page", properties={"properties": {"properties": {"x": rule}}})
    assert violations(schemas, {"type": "page", "properties": {"x": value}}) == []


# Names of places


@pytest.mark.parametrize(
    ("keywords", "payload", "pointer", "text"),
    [
        ({"required": ["anonymous_id"]}, {}, "/anonymous_id", "anonymousId is required for page calls"),
        ({"required": ["own_field"]}, {}, "/own_field", "own_field is required for page calls"),
        ({"maxProperties": 1}, {}, "", "message must have at most 1 entries"),
        (
            {"properties": {"context": {"required": ["user_agent"]}}},
            {"context": {}},
            "/context/user_agent",
            "context.userAgent is required for page calls",
        ),
        (
            {"properties": {"context": {"properties": {"device": {"required": ["advertising_id"]}}}}},
            {"context": {"device": {}}},
            "/context/device/advertising_id",
            "context.device.advertisingId is required for page calls",
        ),
        (
            {"properties": {"context": {"properties": {"traits": {"required": ["user_agent"]}}}}},
            {"context": {"traits": {}}},
            "/context/traits/user_agent",
            "context.traits.user_agent is required for page calls",
        ),
        (
            {"properties": {"properties": {"properties": {"user_id": {"type": "string"}}}}},
            {"properties": {"user_id": 7}},
            "/properties/user_id",
            "properties.user_id must be a string, not a number",
        ),
        (
            {"properties": {"properties": {"properties": {"boats": {"items": {"required": ["name"]}}}}}},
            {"properties": {"boats": [{"name": "Tern"}, {}]}},
            "/properties/boats/1/name",
            "properties.boats[1].name is required for page calls",
        ),
        (
            {"properties": {"properties": {"required": ["a/b~c d"]}}},
            {"properties": {}},
            "/properties/a~1b~0c d",
            "properties.a/b~c d is required for page calls",
        ),
    ],
)
def test_place_has_the_name_that_the_customer_knows(edit, keywords, payload, pointer, text):
    assert violations(edit("page", **keywords), {"type": "page", **payload}) == [(pointer, text)]


# Settings


@pytest.mark.parametrize(
    ("keywords", "settings", "pointer", "text"),
    [
        ({"required": ["region"]}, {}, "/region", "region is required in the settings of this destination"),
        (
            {"required": ["region"], "errorMessage": {"required": {"region": "Choose a region"}}},
            {},
            "/region",
            "Choose a region",
        ),
        (
            {"properties": {"region": {"enum": ["eu", "us"]}}},
            {"region": "s3cret"},
            "/region",
            'region must be one of "eu", "us"',
        ),
        ({"required": ["group_id"]}, {}, "/group_id", "group_id is required in the settings of this destination"),
    ],
)
def test_bad_settings_are_named(edit, keywords, settings, pointer, text):
    with pytest.raises(InvalidSettings) as caught:
        edit("settings", **keywords).check_settings(settings)
    assert [(violation.pointer, violation.message) for violation in caught.value.violations] == [(pointer, text)]
    assert str(caught.value) == text


# Required by the record, independently of the schemas


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({"userId": None}, [("", "userId or anonymousId is required")]),
        ({"userId": ["u"]}, [("/user_id", "userId must be a string, not an array")]),
        ({"userId": None, "anonymousId": 1.5}, [("/anonymous_id", "anonymousId must be a string, not a number")]),
        ({"messageId": {}}, [("/message_id", "messageId must be a string, not an object")]),
        ({"anonymousId": 1.5}, []),
    ],
)
def test_message_has_the_parts_of_its_record_key(tmp_path, payload, found):
    for name in (*CALL_TYPES, "settings"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert violations(Schemas.load(tmp_path), {"type": "page", **payload}) == found


# Loading


def test_a_schema_without_a_dialect_is_draft_07(tmp_path):
    for name in (*CALL_TYPES, "settings"):
        (tmp_path / f"{name}.json").write_text('{"dependencies": {"event": ["name"]}}')
    schemas = Schemas.load(tmp_path)
    assert violations(schemas, {"type": "page", "event": "x"}) == [("", "message does not fit its schema")]


def test_a_missing_schema_is_found_when_they_are_loaded(tmp_path):
    folder = shutil.copytree(SCHEMAS, tmp_path / "schemas")
    (folder / "alias.json").unlink()
    with pytest.raises(KeyError, match="alias"):
        Schemas.load(folder)


def test_a_bug_in_compiled_schemas_is_not_a_refusal():
    def validate(document, _):
        if "page" in document:
            raise ZeroDivisionError

    compiled = SimpleNamespace(
        COMPILED={*CALL_TYPES, "settings"}, CAN_BE_SLOW=(), validate=validate, JsonSchemaValueException=KeyError
    )
    schemas = Schemas(read_schemas(SCHEMAS), compiled)
    with pytest.raises(ZeroDivisionError):
        schemas.check_message("page", {"user_id": "u", "message_id": "m"})
