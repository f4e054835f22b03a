"""Test `destination schemas check` with schemas that refuse every message, and stricter ones that are legitimate."""

import json

import pytest

from destination.paths import SCHEMAS
from destination.schemas.check import check_schemas
from destination.schemas.refusals import samples
from handler.spec import CALL_TYPES
from handler.validate import Schemas

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
SHARED = {"allOf": [{"$ref": "common.json#/definitions/message"}]}


@pytest.fixture
def faults(tmp_path):
    """Return the faults of the schemas, with one call type's schema replaced."""

    def check(schema, call_type="track", common=None):
        for path in SCHEMAS.glob("*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / f"{call_type}.json").write_text(json.dumps({"$schema": DRAFT_7, **schema}))
        if common:
            (tmp_path / "common.json").write_text(json.dumps({"$schema": DRAFT_7, "definitions": common}))
        return check_schemas(tmp_path)

    return check


def of(name, **schema):
    return {"properties": {name: schema}}


def plan(*, required=True, **schema):
    """Return a schema of track calls with a rule for `properties.plan`."""
    inner = {"type": "object", "properties": {"plan": schema}, **({"required": ["plan"]} if required else {})}
    return {**SHARED, "required": ["event", "properties"], "properties": {"properties": inner}}


REFUSING = {
    "no further field": ({"additionalProperties": {"not": {}}}, "/additionalProperties"),
    "no further field in another way": ({"additionalProperties": {"not": True}}, "/additionalProperties"),
    "no further field by an empty choice": ({"additionalProperties": {"enum": []}}, "/additionalProperties"),
    "texts only": ({"additionalProperties": {"type": "string"}}, "/additionalProperties"),
    "no further field in a part": ({"allOf": [{"additionalProperties": {"not": {}}}]}, "/allOf/0/additionalProperties"),
    "no name": ({"patternProperties": {"^.*$": False}}, "/patternProperties"),
    "no name of some letters": ({"patternProperties": {"[a-z]": False}}, "/patternProperties"),
    "no long name": ({"patternProperties": {"^.{9,}$": {"not": {}}}}, "/patternProperties"),
    "texts under all names": ({"patternProperties": {"": {"type": "string"}}}, "/patternProperties"),
    "unevaluated": ({"$schema": DRAFT_2020, "unevaluatedProperties": {"not": {}}}, "/unevaluatedProperties"),
    "an array": ({"type": "array"}, "/type"),
    "a text": ({"type": "string"}, "/type"),
    "a text or a number": ({"type": ["string", "number"]}, "/type"),
    "a part that is an array": ({"allOf": [{"type": "array"}]}, "/allOf/0/type"),
    "not": ({"not": {}}, "/not"),
    "not true": ({"not": True}, "/not"),
    "not an object": ({"not": {"type": "object"}}, "/not"),
    "not with what every message has": ({"not": {"required": ["message_id"]}}, "/not"),
    "not with any event": ({"not": {"required": ["event"]}}, "/not"),
    "false in allOf": ({"allOf": [False]}, "/allOf/0"),
    "false in anyOf": ({"anyOf": [False, False]}, "/anyOf/0"),
    "an array in anyOf": ({"anyOf": [{"type": "array"}, {"type": "string"}]}, "/anyOf/0"),
    "two alternatives that always hold": ({"oneOf": [True, {}]}, "/oneOf"),
    "false in then": ({"if": {}, "then": False}, ""),
    "false in else": ({"if": {"type": "array"}, "else": {"not": {}}}, "/else"),
    "a constant": ({"const": {}}, "/const"),
    "no value": ({"enum": []}, "/enum"),
    "one empty message": ({"enum": [{}]}, "/enum"),
    "too many fields": ({"minProperties": 1000}, "/minProperties"),
    "a call type in upper case": (of("type", pattern="^Track$"), "/properties/type/pattern"),
    "a short call type": (of("type", maxLength=3), "/properties/type/maxLength"),
    "a call type that is a number": (of("type", type="integer"), "/properties/type/type"),
    "no call type": (of("type", **{"not": {}}), "/properties/type/not"),
    "false as call type": ({"properties": {"type": False}}, "/properties/type"),
    "a time that is a number": (of("timestamp", type="integer"), "/properties/timestamp/type"),
    "a time that is a day": (of("timestamp", format="date"), "/properties/timestamp/format"),
    "a short time": (of("received_at", maxLength=10), "/properties/received_at/maxLength"),
    "a message id in one form": (of("message_id", format="uuid"), "/properties/message_id/format"),
    "a message id by a pattern": (of("message_id", pattern="^[0-9a-f-]{36}$"), "/properties/message_id/pattern"),
    "a short message id": (of("message_id", maxLength=20), "/properties/message_id/maxLength"),
    "lengths": (plan(minLength=5, maxLength=3), "/properties/properties/properties/plan/maxLength"),
    "lengths of texts": (plan(type="string", minLength=5, maxLength=3), "/properties/properties/properties/plan"),
    "lengths of an event": (of("event", minLength=5, maxLength=3), "/properties/event/maxLength"),
    "numbers": (plan(type="number", minimum=5, maximum=3), "/properties/properties/properties/plan/maximum"),
    "numbers next to a bound": (plan(exclusiveMinimum=3, maximum=3), "/properties/properties/properties/plan/maximum"),
    "entries": (plan(type="array", minItems=3, maxItems=2), "/properties/properties/properties/plan/maxItems"),
    "types": (plan(type="string", allOf=[{"type": "integer"}]), "/properties/properties/properties/plan"),
    "a choice": (plan(minLength=4, enum=["pro"]), "/properties/properties/properties/plan/enum"),
    "lengths in two places": (
        plan(type="string", minLength=4, allOf=[{"maxLength": 3}]),
        "/properties/properties/properties/plan/allOf/0/maxLength",
    ),
    "no value of a field that is required": (plan(enum=[]), "/properties/properties/properties/plan/enum"),
    "false for a field that is required": (
        {"required": ["plan"], "properties": {"plan": False}},
        "/properties/plan",
    ),
    "a field that is required and refused": (
        {
            "required": ["properties"],
            "properties": {
                "properties": {
                    "type": "object",
                    "required": ["plan"],
                    "properties": {"tier": {}},
                    "additionalProperties": False,
                }
            },
        },
        "/properties/properties/additionalProperties",
    ),
}


@pytest.mark.parametrize(("schema", "pointer"), REFUSING.values(), ids=REFUSING)
def test_a_schema_that_refuses_every_message_is_a_fault(schema, pointer, faults):
    found = faults(schema)
    assert [fault for fault in found if fault.pointer.startswith(pointer)], found
    assert {fault.file for fault in found} == {"track.json"}


def test_a_rule_that_refuses_every_message_is_found_through_a_reference(faults):
    common = json.loads((SCHEMAS / "common.json").read_text())["definitions"]
    common["message"]["additionalProperties"] = {"type": "string"}
    found = faults({**SHARED, "required": ["event"]}, common=common)
    assert {(fault.file, fault.pointer) for fault in found} == {
        ("common.json", "/definitions/message/additionalProperties")
    }


def test_the_id_of_a_delete_can_have_no_value(faults):
    [fault] = faults({**SHARED, "properties": {"user_id": {"not": {}}}}, "delete")
    assert (fault.file, fault.pointer) == ("delete.json", "/properties/user_id/not")


def test_fault_says_what_segment_sends_instead(faults):
    [fault] = faults(of("timestamp", type="integer"))
    assert fault.text.startswith('Segment sends messages whose timestamp is "2026-')


EMAIL = {"type": "string", "format": "email"}
LEGITIMATE = {
    "a required property": plan(),
    "a required text": plan(type="string", minLength=1),
    "a required property with a pattern": plan(type="string", pattern="^PLAN-\\d{4}$"),
    "a required choice": plan(enum=["pro", "free"]),
    "a required constant": plan(const="pro"),
    "a required number": plan(type="number", minimum=0, maximum=100, multipleOf=0.01),
    "one possible number": plan(type="integer", minimum=3, maximum=3),
    "a text of one length": plan(type="string", minLength=2, maxLength=2),
    "a required uuid": plan(type="string", format="uuid"),
    "a required array": plan(type="array", minItems=1, items={"type": "object", "required": ["sku"]}),
    "a number or an encrypted text": plan(type=["integer", "string"], minimum=1),
    "an optional property": plan(required=False, type="string", enum=["pro"]),
    "a closed object of properties": {
        "properties": {"properties": {"additionalProperties": False, "properties": {"plan": {}}}}
    },
    "a closed object with a required property": {
        "required": ["properties"],
        "properties": {
            "properties": {
                "type": "object",
                "required": ["plan"],
                "properties": {"plan": {}},
                "additionalProperties": False,
            }
        },
    },
    "one event only": {**SHARED, **of("event", const="Signed Up")},
    "some events only": {**SHARED, **of("event", enum=["Lamp Lit", "Lamp Put Out"])},
    "a pattern of events": {**SHARED, **of("event", pattern="^[A-Z][a-z]+ [A-Z][a-z]+$")},
    "a long event": {**SHARED, **of("event", minLength=40)},
    "a user id is required": {**SHARED, "required": ["user_id"]},
    "user ids that are numbers": {**SHARED, **of("user_id", pattern="^\\d+$")},
    "user ids that are uuids": {**SHARED, **of("user_id", format="uuid")},
    "no anonymous ids": {**SHARED, "properties": {"anonymous_id": False}},
    "an anonymous id is refused in another way": {**SHARED, "not": {"required": ["anonymous_id"]}},
    "a field of the partner's": {**SHARED, "required": ["tenant"], "properties": {"tenant": {"type": "string"}}},
    "a required context": {
        "required": ["context"],
        "properties": {"context": {"required": ["ip"], "properties": {"ip": {"format": "ipv4"}}}},
    },
    "a rule for one event": {
        "if": {"properties": {"event": {"const": "Order Completed"}}},
        "then": {"required": ["properties"], **of("properties", required=["coupon_code"])},
    },
    "a rule for other events": {
        "if": {"properties": {"event": {"const": "Order Completed"}}},
        "else": {"properties": {"properties": {"maxProperties": 0}}},
    },
    "one event is refused": {"not": {"properties": {"event": {"const": "Order Completed"}}}},
    "one of two fields": {
        "oneOf": [
            {"required": ["properties"], **of("properties", required=["a"])},
            {"required": ["properties"], **of("properties", required=["b"])},
        ]
    },
    "any of two fields": {"anyOf": [{"required": ["tenant"]}, {"required": ["workspace"]}]},
    "a field of a name of the partner's": {"patternProperties": {"^x_": {"type": "string"}}},
    "any value in further fields": {"additionalProperties": {}},
    "some types in further fields": {
        "additionalProperties": {"type": ["string", "object", "array", "boolean", "integer", "null"]}
    },
    "times in ISO 8601": {
        **SHARED,
        "required": ["timestamp"],
        **of("timestamp", type="string", format="date-time", minLength=1),
    },
    "message ids as Segment limits them": {**SHARED, **of("message_id", minLength=1, maxLength=100)},
    "the call type": {**SHARED, **of("type", const="track")},
    "one of several call types": {**SHARED, **of("type", enum=["track", "page"])},
    "an object": {"type": "object", "minProperties": 2},
    "a tree": {
        "properties": {"properties": {"$ref": "#/definitions/tree"}},
        "definitions": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/definitions/tree"}}}},
    },
    "an email behind a reference": {
        "required": ["properties"],
        "properties": {
            "properties": {
                "type": "object",
                "required": ["email"],
                "properties": {"email": {"$ref": "#/definitions/e"}},
            }
        },
        "definitions": {"e": EMAIL},
    },
    "a dependency": {"dependencies": {"event": ["properties"]}},
    "a dependency in 2020-12": {"$schema": DRAFT_2020, "dependentRequired": {"event": ["tenant"]}},
    "the version of a library": {"properties": {"version": {"type": ["integer", "string"]}}},
    "consent is required": {
        "required": ["context"],
        "properties": {
            "context": {
                "required": ["consent"],
                "properties": {
                    "consent": {
                        "type": "object",
                        "required": ["categoryPreferences"],
                        "properties": {"categoryPreferences": {"type": "object", "minProperties": 1}},
                    }
                },
            }
        },
    },
}


@pytest.mark.parametrize("schema", LEGITIMATE.values(), ids=LEGITIMATE)
def test_a_stricter_schema_is_legitimate(schema, faults):
    assert faults(schema) == []


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_the_samples_are_messages_that_the_shipped_schemas_accept(call_type):
    schemas = Schemas.load(SCHEMAS)
    assert len(samples(call_type)) > 3
    for sample in samples(call_type):
        schemas.check_message(call_type, sample)
