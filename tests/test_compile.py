import functools
import json
import shutil
import sys
import time
import types

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from searches import search

from destination.paths import ROOT
from handler.compile import FORMATS, compile_schemas, digest, is_compilable, read_schemas
from handler.diagnose import JsonSchemaValidator
from handler.patterns import PatternError
from handler.spec import CALL_TYPES
from handler.time_limit import CheckTime
from handler.validate import SCHEMA_NAMES, Schemas

DRAFT7 = "http://json-schema.org/draft-07/schema#"
SHIPPED = read_schemas(ROOT / "schemas")


def load(files, names):
    module = types.ModuleType("compiled")
    exec(compile_schemas(files, names), module.__dict__)  # noqa: S102 -- what is tested
    return module


def says_yes(module, name, document):
    try:
        module.validate({name: document}, FORMATS)
    except module.JsonSchemaValueException:
        return False
    return True


def test_shipped_schemas_are_all_compiled():
    assert set(SCHEMA_NAMES) == load(SHIPPED, SCHEMA_NAMES).COMPILED


def test_compiled_code_has_no_slow_imports():
    imports = [line for line in compile_schemas(SHIPPED, SCHEMA_NAMES).splitlines() if "import" in line]
    assert imports == ["from decimal import Decimal"]


NAMES = st.sampled_from(["a", "b", "traits", "user_id", 'quo"te', "br{a}ce", "bs\\n", "ünï", ""])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            "",
            "a",
            "abc",
            "a\n",
            "a$",
            "1\n",
            "\u0661",
            "1",
            "x@y.z",
            "x@y",
            "2020-01-01",
            "2020-01-01T00:00:00Z",
            "{}",
            "ß",
        ]
    )
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
COUNTS = st.integers(0, 4)
LIMITS = st.integers(-3, 3) | st.floats(-3, 3)
SHARED = ("plan", "Plan", "plan_", "a~1b", "имя", "дом")
RULES = {
    "type": TYPES | st.lists(TYPES, min_size=1, unique=True),
    "required": st.lists(NAMES, unique=True, max_size=2),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), COUNTS),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), LIMITS),
    "pattern": st.sampled_from(
        ["a", "^a", "a$", "^.{2}$", "[0-9]+", '"', "\\\\", "\\d$", "^[$]", "a$|b", "\\$", "^\\S\\s?$"]
    ),
    "format": st.sampled_from(["date-time", "email"]),
    "enum": st.lists(st.none() | st.sampled_from(["a", "", "{x}", 'quo"te', "bs\\"]), min_size=1, unique=True),
    "errorMessage": st.just('Say "{this}"'),
    "default": VALUES,
    "$ref": st.sampled_from(SHARED).map("common.json#/definitions/{}".format),
}


def schemas(inner):
    nested = {
        "properties": st.dictionaries(NAMES, inner, max_size=3),
        "additionalProperties": inner,
        "items": inner,
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "anyOf": st.lists(inner, min_size=1, max_size=2),
    }
    return st.fixed_dictionaries({}, optional=nested)


LEAVES = st.booleans() | st.fixed_dictionaries(
    {}, optional={name: rule for name, rule in RULES.items() if name != "$ref"}
)
ANY_SCHEMA = st.recursive(
    st.booleans() | st.fixed_dictionaries({}, optional=RULES), lambda inner: inner | schemas(inner), max_leaves=6
)


@search(400)
@given(
    schema=st.fixed_dictionaries({}, optional=RULES) | schemas(ANY_SCHEMA),
    shared=st.fixed_dictionaries({name.replace("~1", "/"): LEAVES for name in SHARED}),
    documents=st.lists(VALUES, max_size=8),
)
def test_compiled_schema_never_accepts_more_than_jsonschema(schema, shared, documents):
    files = {
        "x.json": json.dumps(schema).encode(),
        "common.json": json.dumps({"definitions": shared}).encode(),
    }
    module = load(files, ("x",))
    assume(module.COMPILED)
    judge = JsonSchemaValidator(files, ("x",))
    for document in documents:
        assert not says_yes(module, "x", document) or not judge.violations("x", document, CheckTime())


# Every message in events/, with changes in several places
MESSAGES = st.sampled_from(
    [
        {"type": "identify", "message_id": "m", "user_id": "u", "traits": {"email": "a@b.c"}, "context": {"ip": "1"}},
        {"type": "track", "message_id": "m", "anonymous_id": "a", "event": "e", "properties": {"n": 1.5}},
        {"type": "page", "message_id": "m", "user_id": "u", "name": "n", "category": "c", "properties": {}},
        {"type": "screen", "message_id": "m", "user_id": "u", "integrations": True},
        {"type": "group", "message_id": "m", "user_id": "u", "group_id": "g", "traits": {}},
        {"type": "alias", "message_id": "m", "user_id": "u", "previous_id": "p"},
        {"type": "delete", "message_id": "m", "user_id": "u"},
    ]
)
COMPILED, JUDGE = load(SHIPPED, SCHEMA_NAMES), JsonSchemaValidator(SHIPPED, SCHEMA_NAMES)


@search(400)
@given(message=MESSAGES, changes=st.dictionaries(st.integers(0, 9), st.none() | VALUES, max_size=3), more=VALUES)
def test_compiled_shipped_schemas_agree_with_jsonschema(message, changes, more):
    names = sorted(message)
    changed = {**message, "more": more}
    for position, value in changes.items():
        name = names[position % len(names)]
        if value is None:
            changed.pop(name, None)
        else:
            changed[name] = value
    for name in SCHEMA_NAMES:
        assert says_yes(COMPILED, name, changed) == (not JUDGE.violations(name, changed, CheckTime()))


@pytest.mark.parametrize("pattern", ["^[$]", "^a\\$", "^a$|b", "^a$", "\\d", "(?<year>[0-9]{4})-"])
def test_a_pattern_is_compiled(pattern):
    module = load({"x.json": json.dumps({"pattern": pattern}).encode()}, ("x",))
    assert {"x"} == module.COMPILED
    assert not says_yes(module, "x", "a\n")


def test_unusable_pattern_is_never_skipped():
    for files in ({"x.json": b'{"pattern": "a++"}'}, {"x.json": b'{"not": {"patternProperties": {"\\\\A": {}}}}'}):
        with pytest.raises(PatternError):
            compile_schemas(files, ("x",))
        with pytest.raises(PatternError):
            JsonSchemaValidator(files, ("x",))


def both_of(*names):
    references = [{"$ref": f"#/definitions/{name}"} for name in names]
    return {"definitions": {name: {} for name in names}, "allOf": references}


@pytest.mark.parametrize(
    "schema",
    [
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$id": "elsewhere"},
        {"not": {}},
        {"oneOf": [{}]},
        {"if": {}, "then": False},
        {"const": "a"},
        {"enum": [1]},
        {"enum": ["a", True]},
        {"multipleOf": 0.01},
        {"uniqueItems": True},
        {"items": [{}]},
        {"patternProperties": {"a$": False}},
        {"format": "date"},
        {"$ref": "nowhere.json"},
        {"$ref": "other.json"},
        {"properties": {"a": {"anyOf": [{}, {"not": {}}]}}},
        {"required": ["a"], "additionalProperties": False},
        {"maximum": float("inf")},
        {"minimum": float("-inf")},
        {"errorMessage": {"required": {"id": "//[x"}}},
        {
            "definitions": {"plan": {}, "Plan": {}},
            "anyOf": [{"$ref": "#/definitions/plan"}, {"$ref": "#/definitions/Plan"}],
        },
        {
            "definitions": {"имя": {}, "дом": {}},
            "allOf": [{"$ref": "#/definitions/имя"}, {"$ref": "#/definitions/дом"}],
        },
        functools.reduce(lambda inner, _: {"type": "array", "items": inner}, range(40), {}),
        functools.reduce(lambda inner, _: {"properties": {"a": inner}}, range(80), {}),
        functools.reduce(lambda inner, _: {"anyOf": [{"type": "null"}, {"items": inner}]}, range(30), {}),
    ],
    ids=lambda schema: json.dumps(schema)[:80],
)
def test_uncertain_cases_are_left_to_jsonschema(schema):
    files = {"x.json": json.dumps(schema).encode(), "other.json": b'{"definitions": {"a": {"not": {}}}}'}
    assert not load(files, ("x",)).COMPILED


def test_separately_compiled_schemas_may_not_compile_together():
    reference = b'{"properties": {"a": {"$ref": "%s.json#/definitions/%s"}}}'
    files = {"x.json": reference % (b"my-types", b"a"), "y.json": reference % (b"my_types", b"a")}
    files |= {
        "my-types.json": b'{"definitions": {"a": {"type": "string"}}}',
        "my_types.json": b'{"definitions": {"a": {}}}',
    }
    assert {"x"} == load(files, ("x",)).COMPILED
    assert not load(files, ("x", "y")).COMPILED


@pytest.mark.parametrize(
    ("text", "is_valid"), [("ada@example.com", True), ("a..b@c", True), ("@", True), ("", False), ("ada", False)]
)
def test_email_format_agrees_with_jsonschema(text, is_valid):
    files = {"x.json": b'{"format": "email"}'}
    module = load(files, ("x",))
    assert "x" in module.COMPILED
    assert (
        says_yes(module, "x", text)
        == is_valid
        == (not JsonSchemaValidator(files, ("x",)).violations("x", text, CheckTime()))
    )


@pytest.mark.parametrize("text", ["." * 1_000_000, "@" * 1_000_000, "a" * 1_000_000 + "@"], ids=lambda text: text[-1])
def test_email_format_takes_linear_time(text):
    module = load({"x.json": b'{"format": "email"}'}, ("x",))
    began = time.process_time()
    says_yes(module, "x", text)
    assert time.process_time() - began < 1


def test_schemas_may_refer_to_each_other_in_a_circle():
    documents = {"x.json": {"properties": {"a": {"$ref": "y.json"}}}, "y.json": {"items": {"$ref": "x.json#"}}}
    assert is_compilable("x.json", documents)
    files = {name: json.dumps(document).encode() for name, document in documents.items()}
    module = load(files, ("x",))
    assert says_yes(module, "x", {"a": [{"a": []}]})


def test_any_change_of_a_schema_changes_the_digest():
    changed = {**SHIPPED, "track.json": SHIPPED["track.json"].replace(b"event", b"evenT", 1)}
    renamed = {("x.json" if name == "track.json" else name): content for name, content in SHIPPED.items()}
    assert len({digest(SHIPPED), digest(changed), digest(renamed)}) == 3


@pytest.mark.parametrize("is_of_these_schemas", [True, False])
def test_compiled_code_is_used_only_for_its_own_schemas(is_of_these_schemas, monkeypatch):
    built = types.ModuleType("handler.compiled")
    exec(compile_schemas(SHIPPED, SCHEMA_NAMES), built.__dict__)  # noqa: S102 -- what is tested
    judged = []
    built.validate = lambda document, _formats: judged.extend(document)
    if not is_of_these_schemas:
        built.DIGEST = "of others"
    monkeypatch.setitem(sys.modules, "handler.compiled", built)
    Schemas.load(ROOT / "schemas").check_settings({})
    assert judged == (["settings"] if is_of_these_schemas else [])


@pytest.fixture
def schemas_with_a_rule_that_is_not_compiled(tmp_path):
    folder = shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    (folder / "track.json").write_text('{"properties": {"n": {"not": {"const": 1}}}}')
    return folder


def test_both_kinds_of_schema_judge_side_by_side(schemas_with_a_rule_that_is_not_compiled):
    both = Schemas.load(schemas_with_a_rule_that_is_not_compiled)
    for call_type in CALL_TYPES:
        message = {"message_id": "m", "user_id": "u", "type": call_type, "group_id": "g", "previous_id": "p"}
        both.check_message(call_type, {**message, "n": 2})
