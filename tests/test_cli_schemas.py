"""Test `destination schemas check`: faults of schemas, and what edited schemas would change."""

import json

import pytest
from local_server import run

from destination.deployment.stack import LOCAL_STACK
from destination.paths import SCHEMAS
from destination.schemas.check import FILES, check_schemas, load_schemas
from handler.spec import CALL_TYPES

pytest_plugins = ["servers"]

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
TRACK = {"type": "track", "userId": "user-1", "event": "Lamp Lit", "properties": {"secret": "never shown"}}


@pytest.fixture
def edited(tmp_path):
    """Write the schemas to a folder, with some files replaced by a document, text or bytes, or (None) left out."""

    def edit(**changed):
        for path in SCHEMAS.glob("*.json"):
            content = changed.get(path.stem, path.read_bytes())
            if isinstance(content, dict | list | bool):
                content = json.dumps(content)
            if content is not None:
                (tmp_path / path.name).write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return edit


def draft_7(**schema):
    return {"$schema": DRAFT_7, **schema}


def draft_2020(**schema):
    return {"$schema": DRAFT_2020, **schema}


def nested(depth):
    return '{"not":' * depth + "true" + "}" * depth


FAULTS = {
    "a file that is missing": (None, "", "the file is missing: each call type has one, and settings and common"),
    "an empty file": ("", "", "this is not JSON: Expecting value (line 1, column 1)"),
    "a comma too many": ('{\n "a": 1,\n}', "", "this is not JSON: "),
    "not UTF-8": (b'{"title": "\xff"}', "", "this is not UTF-8: save it as UTF-8"),
    "nested without end": (nested(100_000), "", "this is nested too deeply"),
    "nested too deeply to be looked at": (
        f'{{"$schema": "{DRAFT_7}", "not": {nested(600)}}}',
        "",
        "this is nested too deeply",
    ),
    "an array": ([], "", "this must be a JSON object, not an array"),
    "true": (True, "", "this must be a JSON object, not a boolean"),
    "a keyword twice": (
        f'{{"$schema": "{DRAFT_7}", "properties": {{"a": {{"minLength": 1, "minLength": 2}}}}}}',
        "",
        "minLength occurs twice in one object, and only the last one counts: join them",
    ),
    "an infinite number": (
        f'{{"$schema": "{DRAFT_7}", "properties": {{"a": {{"multipleOf": 1e400}}}}}}',
        "",
        "1e400 is too large for a number (line 1, column 91): leave the rule out, or write a smaller one",
    ),
    "no dialect": ({"type": "object"}, "", "$schema is missing: write http://json-schema.org/draft-07/schema# or "),
    "another dialect": (
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        "",
        "$schema names a dialect that is not known here: write ",
    ),
    "a dialect that is no text": ({"$schema": 7}, "", "$schema names a dialect that is not known here"),
    "an unknown type": (
        draft_7(properties={"a/b": {"type": "strin"}}),
        "/properties/a~1b/type",
        'properties.a/b.type must be one of "array", "boolean"',
    ),
    "an unknown type of several": (draft_7(type=["string", "nil"]), "/type/1", "type[1] must be one of"),
    "required that is no array": (draft_7(required="event"), "/required", "required must be an array, not a string"),
    "required in the place of a schema": (
        draft_2020(properties={"required": ["event"]}),
        "/properties/required",
        "properties.required must be an object or a boolean, not an array",
    ),
    "a length below zero": (draft_7(minLength=-1), "/minLength", "minLength must be at least 0"),
    "a pattern that is no regular expression": (
        draft_7(pattern="["),
        "/pattern",
        "pattern must be in the format regex",
    ),
    "a pattern of names that is none": (
        draft_7(patternProperties={"[": {}}),
        "/patternProperties",
        "must be in the format",
    ),
    "an array form of items that is gone": (draft_2020(items=[{}]), "/items", "items must be an object or a boolean"),
    "a schema deep inside": (
        draft_7(allOf=[{"if": {"properties": {"a": {"items": {"maximum": "7"}}}}}]),
        "/allOf/0/if/properties/a/items/maximum",
        "must be a number, not a string",
    ),
    "a reference to a definition that is missing": (
        draft_7(properties={"id": {"$ref": "common.json#/definitions/ids"}}),
        "/properties/id/$ref",
        "common.json#/definitions/ids leads nowhere in this folder",
    ),
    "a reference to a file that is missing": (
        draft_7(allOf=[{"$ref": "comon.json"}]),
        "/allOf/0/$ref",
        "leads nowhere",
    ),
    "a reference to the network": (draft_7(**{"$ref": "https://example.com/a.json"}), "/$ref", "leads nowhere"),
    "a reference into an array": (
        draft_7(required=["a"], allOf=[{"$ref": "#/required/x"}]),
        "/allOf/0/$ref",
        "leads nowhere",
    ),
    "a reference to an anchor that is missing": (draft_2020(**{"$ref": "#id"}), "/$ref", "leads nowhere"),
    "a reference without its slash": (
        draft_7(allOf=[{"$ref": "common.json#definitions/id"}]),
        "/allOf/0/$ref",
        "leads nowhere",
    ),
    "an $id that moves all references": (
        draft_7(**{"$id": "https://example.com/track.json"}, allOf=[{"$ref": "common.json#/definitions/id"}]),
        "/allOf/0/$ref",
        "leads nowhere",
    ),
    "a reference to something else than a schema": (
        draft_7(required=["a"], allOf=[{"$ref": "#/required"}]),
        "/allOf/0/$ref",
        "#/required leads to something that is not a schema: put it into definitions",
    ),
    "a reference to itself": (
        draft_7(**{"$ref": "#"}),
        "/$ref",
        "this reference leads back to itself in an endless loop",
    ),
    "references in a circle": (
        draft_7(
            properties={"a": {"$ref": "#/definitions/a"}},
            definitions={
                "a": {"anyOf": [{"not": {"$ref": "#/definitions/b"}}]},
                "b": {"$ref": "track.json#/definitions/a"},
            },
        ),
        "/definitions/",
        "this reference leads back to itself in an endless loop",
    ),
    "a mistyped keyword": (draft_7(requierd=["a"]), "/requierd", "did you mean required?"),
    "a mistyped keyword inside": (
        draft_7(properties={"a": {"minLenght": 1}}),
        "/properties/a/minLenght",
        "minLenght is not a keyword and has no effect: did you mean minLength?",
    ),
    "a mistyped errorMessage": (draft_7(required=["a"], errorMesage="A"), "/errorMesage", "did you mean errorMessage?"),
    "a keyword of the later dialect": (
        draft_7(dependentRequired={"a": ["b"]}),
        "/dependentRequired",
        "dependentRequired has no effect: draft-07 does not have it",
    ),
    "a keyword of the earlier dialect": (
        draft_2020(dependencies={"a": ["b"]}),
        "/dependencies",
        "has no effect: 2020-12 does not have it",
    ),
    "a mistyped format": (
        draft_7(properties={"at": {"format": "datetime"}}),
        "/properties/at/format",
        "datetime is not a format and has no effect: did you mean date-time?",
    ),
    "a rule next to a reference": (
        draft_7(properties={"a": {"$ref": "common.json#/definitions/id", "maxLength": 3}}),
        "/properties/a/maxLength",
        "maxLength has no effect next to $ref in draft-07",
    ),
    "a text next to a reference": (
        draft_7(properties={"a": {"$ref": "common.json#/definitions/id", "errorMessage": "A"}}),
        "/properties/a/errorMessage",
        "errorMessage has no effect next to $ref in draft-07",
    ),
    "an errorMessage that is a number": (
        draft_7(required=["a"], errorMessage=7),
        "/errorMessage",
        "it must be a string, or an",
    ),
    "an errorMessage that is an array": (
        draft_7(required=["a"], errorMessage=["A"]),
        "/errorMessage",
        "it must be a string, or",
    ),
    "an errorMessage of nothing": (
        draft_7(required=["a"], errorMessage={}),
        "/errorMessage",
        "it must be a string, or an object",
    ),
    "an empty text": (
        draft_7(required=["a"], errorMessage=" "),
        "/errorMessage",
        "the text is empty: say what to fix",
    ),
    "a text without a rule": (draft_7(properties={}, errorMessage="A"), "/errorMessage", "it belongs to no rule"),
    "a text for a rule that is not there": (
        draft_7(minLength=1, errorMessage={"maxLength": "A"}),
        "/errorMessage/maxLength",
        "there is no maxLength next to this errorMessage",
    ),
    "a text for a rule whose errors are inside": (
        draft_7(properties={"a": {}}, errorMessage={"properties": "A"}),
        "/errorMessage/properties",
        "properties has no text of its own: put errorMessage into the schemas inside it",
    ),
    "a text for schemas of additional properties": (
        draft_7(additionalProperties={"type": "string"}, errorMessage="A"),
        "/errorMessage",
        "it belongs to no rule",
    ),
    "a text of a rule that is none": (
        draft_7(minLength=1, errorMessage={"minLength": 7}),
        "/errorMessage/minLength",
        "a string",
    ),
    "texts by property of another rule": (
        draft_7(minProperties=1, errorMessage={"minProperties": {"a": "A"}}),
        "/errorMessage/minProperties",
        "it must be a string",
    ),
    "a text for a property that is not required": (
        draft_7(required=["a"], errorMessage={"required": {"b": "B"}}),
        "/errorMessage/required/b",
        "required does not list b",
    ),
    "a text for a required property that is none": (
        draft_7(required=["a"], errorMessage={"required": {"a": None}}),
        "/errorMessage/required/a",
        "it must be a string",
    ),
    "a format that is not checked": (
        draft_7(properties={"a": {"format": "uri"}}),
        "/properties/a/format",
        "the format uri is not checked here: use pattern, or one of date, date-time, email, ipv4, ipv6, uuid",
    ),
    "a format of one's own": (
        draft_7(properties={"a": {"items": {"format": "phone"}}}),
        "/properties/a/items/format",
        "the format phone is not checked here",
    ),
    "a required name in camel case": (
        draft_7(required=["event", "userId"]),
        "/required/1",
        "userId is never in a message, which is in snake_case here: write user_id",
    ),
    "a property in another spelling": (
        draft_7(properties={"Message ID": {}}),
        "/properties/Message ID",
        "write message_id",
    ),
    "a key that is removed": (
        draft_7(required=["write_key"]),
        "/required/0",
        "write_key is never in a message: it is removed",
    ),
    "a name in a dependency": (draft_7(dependencies={"userId": ["event"]}), "/dependencies/userId", "write user_id"),
    "a name that a dependency needs": (draft_7(dependencies={"a": ["groupId"]}), "/dependencies/a/0", "write group_id"),
    "a name in dependentRequired": (
        draft_2020(dependentRequired={"a": ["b", "groupId"]}),
        "/dependentRequired/a/1",
        "write group_id",
    ),
    "a name in dependentSchemas": (
        draft_2020(dependentSchemas={"a": {"required": ["sentAt"]}}),
        "/dependentSchemas/a/required/0",
        "write sent_at",
    ),
    "a name in then": (draft_7(**{"if": {}, "then": {"required": ["userId"]}}), "/then/required/0", "write user_id"),
    "a name in a condition": (
        draft_7(**{"if": {"properties": {"userId": {}}}, "then": {}}),
        "/if/properties/userId",
        "write user_id",
    ),
    "a name in allOf": (
        draft_7(allOf=[{"anyOf": [{"required": ["userId"]}]}]),
        "/allOf/0/anyOf/0/required/0",
        "write user_id",
    ),
    "a name behind a reference": (
        draft_7(allOf=[{"$ref": "#/definitions/a"}], definitions={"a": {"required": ["userId"]}}),
        "/definitions/a/required/0",
        "write user_id",
    ),
    "a name in a pattern": (
        draft_7(patternProperties={"^userId$": {"type": "string"}}),
        "/patternProperties/^userId$",
        "write user_id",
    ),
    "a pattern that can take very long": (
        draft_7(properties={"properties": {"properties": {"a": {"pattern": "^(\\w+\\s?)*$"}}}}),
        "/properties/properties/properties/a/pattern",
        "pattern can take minutes for some texts",
    ),
    "a pattern of names that can take very long": (
        draft_7(properties={"traits": {"patternProperties": {"(a|aa)+$": {}}}}),
        "/properties/traits/patternProperties/(a|aa)+$",
        "a name in patternProperties can take minutes",
    ),
    "a name in context": (
        draft_7(properties={"context": {"required": ["userAgent"]}}),
        "/properties/context/required/0",
        "userAgent is never in the context of a message, which is in snake_case here: write user_agent",
    ),
    "a name in an object of context": (
        draft_7(properties={"context": {"properties": {"device": {"allOf": [{"required": ["advertisingId"]}]}}}}),
        "/properties/context/properties/device/allOf/0/required/0",
        "advertisingId is never in the context.device of a message, which is in snake_case here: write advertising_id",
    ),
    "no further fields": (
        draft_7(additionalProperties=False),
        "/additionalProperties",
        "additionalProperties refuses fields that Segment adds to messages: leave it out at the top of a message",
    ),
    "no further fields, behind allOf": (
        draft_7(allOf=[{"additionalProperties": False}]),
        "/allOf/0/additionalProperties",
        "",
    ),
    "no fields that are not judged": (
        draft_2020(unevaluatedProperties=False),
        "/unevaluatedProperties",
        "refuses fields",
    ),
    "few names": (draft_7(propertyNames={"maxLength": 9}), "/propertyNames", "propertyNames refuses fields"),
    "few fields": (draft_7(anyOf=[{"maxProperties": 20}]), "/anyOf/0/maxProperties", "maxProperties refuses fields"),
    "an id that is a number": (
        draft_7(properties={"user_id": {"type": "integer"}}),
        "/properties/user_id/type",
        'user_id is always a string here, even if a number was sent: write "string"',
    ),
    "an id that is one of some numbers": (
        draft_7(properties={"user_id": {"enum": ["a", 7]}}),
        "/properties/user_id/enum/1",
        "user_id is always a string here, never a number",
    ),
    "a call type in upper case": (
        draft_7(**{"if": {"properties": {"type": {"const": "Track"}}}, "then": {}}),
        "/if/properties/type/const",
        "the type of a message is in lower case here: write track",
    ),
    "another call type": (
        draft_7(properties={"type": {"enum": ["page", "screen"]}}),
        "/properties/type/enum",
        "this refuses every message: their type is track",
    ),
    "a constant of another type": (
        draft_7(properties={"properties": {"properties": {"n": {"type": "string", "const": 7}}}}),
        "/properties/properties/properties/n/const",
        "a number can't occur here: type allows only string",
    ),
    "a value of another type": (
        draft_7(properties={"a": {"type": ["integer", "boolean"], "enum": [1, True, 1.5, None]}}),
        "/properties/a/enum/2",
        "a number can't occur here: type allows only integer or boolean",
    ),
    "required texts that are none": (
        draft_7(required=["a"], errorMessage={"required": []}),
        "/errorMessage/required",
        "it must be a string, or an object of strings by property",
    ),
}

VALID = {
    "true and false as schemas": draft_7(properties={"a": True, "b": False}),
    "words of one's own": draft_7(markdownDescription="…", example=7, **{"x-format": "growth"}),
    "a property with the name of a mistyped keyword": draft_7(
        properties={"requierd": {}, "errorMessage": {"type": "string"}}
    ),
    "schemas in examples": draft_7(
        examples=[{"$ref": "nowhere", "requierd": 1}],
        properties={"a": {"const": {"errorMessage": 7}}, "b": {"enum": [{"$ref": 1}]}},
    ),
    "formats that are checked, and one's own": draft_7(
        properties={name: {"format": name} for name in ("date", "date-time", "email", "ipv4", "ipv6", "uuid", "x-plan")}
    ),
    "canonical names": draft_7(
        required=["user_id", "message_id", "_metadata", "my_own", "myOwn"],
        properties={
            "context": {
                "required": ["user_agent", "ip", "myOwn"],
                "properties": {"page": {"required": ["url"]}, "traits": {"required": ["userId"]}},
            },
            "traits": {"required": ["userId", "firstName"], "additionalProperties": False},
            "properties": {"properties": {"userId": {}, "orderId": {}}, "propertyNames": {"minLength": 1}},
            "type": {"enum": ["track", "page"]},
            "group_id": {"type": ["string", "null"], "enum": ["a", "b"]},
        },
        dependencies={"group_id": ["anonymous_id"]},
        additionalProperties=True,
    ),
    "closed fields in a condition": draft_7(**{"if": {"maxProperties": 3}, "then": {"required": ["user_id"]}}),
    "a type that is only one of several": draft_7(
        anyOf=[{"properties": {"type": {"const": "page"}}}, {"properties": {"user_id": {"type": "integer"}}}, {}]
    ),
    "values of their type": draft_7(
        properties={
            "a": {"type": ["integer", "null"], "enum": [1, 2.0, None]},
            "b": {"type": "number", "const": 1.5},
            "c": {"type": ["boolean", "array", "object"], "enum": [True, [], {}]},
        }
    ),
    "a tree that refers to itself": draft_7(
        allOf=[{"$ref": "common.json#/definitions/message"}],
        properties={"tree": {"$ref": "#/definitions/tree"}},
        definitions={
            "tree": {"properties": {"left": {"$ref": "#/definitions/tree"}, "right": {"$ref": "#/definitions/tree"}}}
        },
    ),
    "a rule next to a reference in 2020-12": draft_2020(
        properties={"a": {"$ref": "#/$defs/a", "maxLength": 3, "errorMessage": {"maxLength": "Short"}}},
        **{"$defs": {"a": {"type": "string"}}},
    ),
    "a title next to a reference": draft_7(properties={"a": {"$ref": "common.json#/definitions/id", "title": "A"}}),
    "an anchor": draft_2020(**{"$ref": "#a", "$defs": {"a": {"$anchor": "a", "type": "object"}}}),
    "an empty path": draft_7(properties={"": {"minLength": 1}}),
    "texts of every kind": draft_7(
        properties={
            "traits": {
                "type": "object",
                "required": ["a", "b"],
                "dependencies": {"a": ["b"]},
                "additionalProperties": False,
                "properties": {"a": {"minLength": 1, "errorMessage": "A"}},
                "errorMessage": {
                    "required": {"a": "A"},
                    "type": "T",
                    "dependencies": "D",
                    "additionalProperties": "No more",
                },
            }
        }
    ),
    "one text for all that is required": draft_7(required=["a"], errorMessage={"required": "A"}),
    "a text for few entries": draft_2020(
        contains={"type": "string"}, minContains=2, errorMessage={"contains": "One", "minContains": "Two"}
    ),
    "a text for no further items": draft_2020(prefixItems=[{}], items=False, errorMessage={"items": "One"}),
}


def check(*options):
    return run("schemas", "check", *options)


def tried(folder, *options):
    """Return the exit code and the JSON output of a check against the stored messages of the stack."""
    result = check("--schemas", str(folder), "--against-stored", "--stack", LOCAL_STACK, "--json", "--scan", *options)
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize(("schema", "pointer", "text"), FAULTS.values(), ids=FAULTS)
def test_fault_names_its_file_its_place_and_the_fix(schema, pointer, text, edited):
    folder = edited(track=schema)
    found = [fault for fault in check_schemas(folder) if fault.file == "track.json"]
    assert [fault for fault in found if fault.pointer.startswith(pointer) and text in fault.text], found
    assert all("\n" not in str(fault) for fault in found)
    result = check("--schemas", str(folder))
    assert (result.exit_code, result.exception.__class__) == (1, SystemExit)
    assert result.stdout.startswith(f"track.json{' at ' * bool(pointer)}{pointer}")


@pytest.mark.parametrize("schema", VALID.values(), ids=VALID)
def test_valid_schema_has_no_fault_and_compiles(schema, edited):
    folder = edited(track=schema)
    assert check_schemas(folder) == []
    load_schemas(folder)


@pytest.mark.parametrize("file", FILES)
def test_each_missing_file_is_a_fault(file, edited):
    folder = edited(**{file.removesuffix(".json"): None})
    assert file in {fault.file for fault in check_schemas(folder)}


def test_the_folder_has_a_file_per_call_type_and_two_more():
    assert set(FILES) == {path.name for path in SCHEMAS.iterdir()}
    assert len(FILES) == len(CALL_TYPES) + 2


def test_additional_file_is_checked_too(edited):
    folder = edited(track=draft_7(allOf=[{"$ref": "shop.json#/definitions/price"}]))
    (folder / "shop.json").write_text(json.dumps(draft_7(definitions={"price": {"minimun": 0}})))
    assert [str(fault) for fault in check_schemas(folder)] == [
        "shop.json at /definitions/price/minimun: minimun is not a keyword and has no effect: did you mean minimum?"
    ]


@pytest.mark.parametrize(
    ("name", "better"), [("from", "previous_id"), ("to", "user_id"), ("previousId", "previous_id")]
)
def test_old_field_names_of_an_alias_are_faults(name, better, edited):
    [fault] = check_schemas(edited(alias=draft_7(required=[name])))
    assert (fault.file, fault.pointer) == ("alias.json", "/required/0")
    assert fault.text.endswith(f"write {better}")


def test_shared_definitions_are_checked_where_they_are_used(edited):
    common = json.loads((SCHEMAS / "common.json").read_text())
    common["definitions"]["message"]["required"].append("anonymousId")
    common["definitions"]["own"] = {"required": ["userId"]}
    [fault] = check_schemas(edited(common=common))
    assert (fault.file, fault.pointer) == ("common.json", "/definitions/message/required/2")


def test_settings_may_forbid_unknown_names(edited):
    settings = draft_7(required=["userId"], properties={"userId": {}}, additionalProperties=False, maxProperties=1)
    assert check_schemas(edited(settings=settings)) == []


def test_keyword_of_another_dialect_may_have_any_value(edited):
    for value in (7, ["userId"], {"a": 7}, None):
        faults = check_schemas(
            edited(track=draft_7(dependentRequired=value, dependentSchemas=value, **{"$defs": value}))
        )
        assert {fault.pointer for fault in faults} >= {"/dependentRequired", "/dependentSchemas"}


def test_faults_of_several_files_are_reported_together(edited):
    folder = edited(track=None, page="{", screen=draft_7(type="strin"), group=draft_7(requierd=[]))
    assert {fault.file for fault in check_schemas(folder)} == {"track.json", "page.json", "screen.json", "group.json"}
    result = check("--schemas", str(folder))
    assert result.stderr == f"The schemas in {folder} have 4 faults.\n"


def test_shipped_schemas_have_no_faults():
    result = check()
    assert (result.exit_code, result.stdout) == (0, f"The schemas in {SCHEMAS} have no faults.\n")
    assert json.loads(check("--json").stdout) == {"faults": []}


def test_json_output_lists_the_faults(edited):
    result = check("--schemas", str(edited(track=draft_7(requierd=[]))), "--json")
    assert result.exit_code == 1
    text = "requierd is not a keyword and has no effect: did you mean required?"
    assert json.loads(result.stdout) == {"faults": [{"file": "track.json", "pointer": "/requierd", "message": text}]}


def test_missing_folder_is_an_error(tmp_path):
    result = check("--schemas", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def stricter():
    schema = json.loads((SCHEMAS / "track.json").read_text())
    schema["required"] = ["event", "properties"]
    schema["properties"]["properties"]["required"] = ["plan"]
    schema["properties"]["properties"]["errorMessage"] = {"required": {"plan": "Name the plan"}}
    return schema


def test_new_refusals_are_counted_by_customer_call_type_and_answer(deploy, edited):
    destination = deploy()
    destination.add_key("key-of-acme", customer_id="acme")
    for number in range(3):
        destination.post({**TRACK, "messageId": f"m-{number}"})
    destination.post({**TRACK, "properties": {"plan": "pro"}})
    destination.post(TRACK, key="key-of-acme")
    destination.post({**TRACK, "type": "identify"})
    folder = edited(track=stricter())
    kinds = [
        {"customer_id": "demo", "type": "track", "answer": "Name the plan", "count": 3},
        {"customer_id": "acme", "type": "track", "answer": "Name the plan", "count": 1},
    ]
    no_rejects = {"tried": 0, "would_pass": []}
    assert tried(folder) == (
        1,
        {"faults": [], "stored": {"tried": 6, "would_be_refused": kinds}, "rejects": no_rejects},
    )
    assert tried(folder, "--customer", "acme")[1]["stored"] == {"tried": 1, "would_be_refused": kinds[1:]}
    assert tried(folder, "--limit", "2")[1]["stored"]["tried"] == 2
    for_people = check("--schemas", str(folder), "--against-stored", "--stack", LOCAL_STACK, "--scan")
    assert for_people.exit_code == 1
    assert "4 of 6 stored messages would be refused.\n" in for_people.stdout
    assert "never shown" not in for_people.output


def test_rejects_that_would_pass_are_counted(deploy, edited):
    destination = deploy()
    for message in ({**TRACK, "event": None}, {**TRACK, "event": None, "n": 1}, {"type": "group", "userId": "u"}):
        assert destination.post(message).status == 400
    lenient = draft_7(allOf=[{"$ref": "common.json#/definitions/message"}])
    code, printed = tried(edited(track=lenient))
    assert (code, printed["rejects"]["tried"]) == (0, 3)
    [kind] = printed["rejects"]["would_pass"]
    assert kind == {
        "customer_id": "demo",
        "type": "track",
        "answer": "event is required for track calls",
        "count": 2,
    }
    assert len(destination.stored()) == 0
    assert tried(SCHEMAS)[1]["rejects"] == {"tried": 3, "would_pass": []}


def test_stored_settings_are_checked_too(deploy, edited):
    destination = deploy()
    destination.post(TRACK)
    folder = edited(settings=draft_7(required=["region"]))
    [kind] = tried(folder)[1]["stored"]["would_be_refused"]
    assert kind["answer"] == "region is required in the settings of this destination"


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_accepted_messages_pass_unchanged_schemas(call_type, deploy):
    destination = deploy()
    message = {"userId": "u", "previousId": "p", "groupId": "g", "event": "Lamp Lit", "type": call_type, "timestamp": 7}
    assert destination.post(message).status in (200, 202)
    stored = {"tried": 1, "would_be_refused": []}
    assert tried(SCHEMAS) == (0, {"faults": [], "stored": stored, "rejects": {"tried": 0, "would_pass": []}})


def test_output_says_that_queued_messages_are_not_checked(deploy):
    destination = deploy(EventSink="sqs")
    destination.post(TRACK)
    result = check("--against-stored", "--stack", LOCAL_STACK, "--scan")
    assert result.exit_code == 0
    assert "0 of 0 stored messages would be refused.\n" in result.stdout
    assert result.stderr == "This deployment sends messages to a queue: these can't be tried.\n"


def test_faulty_schemas_are_not_checked_against_messages(edited):
    result = check("--schemas", str(edited(track="{")), "--against-stored", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "track.json: this is not JSON" in result.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--stack", "prod"], "--customer, --limit, --scan, --url and --stack need --against-stored"),
        (["--limit", "7"], "need --against-stored"),
        (["--against-stored", "--stack", LOCAL_STACK], "There is no index of all messages: use --scan"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, sentence, deploy):
    deploy()
    result = check(*options)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_local_server_needs_no_scan_option(server):
    assert server.post(TRACK).status == 200
    printed = server.json("schemas", "check", "--against-stored")
    assert printed["stored"]["would_be_refused"] == []
    assert printed["stored"]["tried"] >= 1
