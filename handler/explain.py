"""Describe validation errors for the customer; no text quotes a value that was sent.

A schema can bring its own text in `errorMessage`: one text for all keywords at that level, or an object with a text per
keyword. Under `required`, it can have a text per property.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any, cast

from jsonschema import ValidationError

from handler.decode import JsonObject, type_name
from handler.spec import CONTEXT, CONTEXT_OBJECTS, SETTINGS, TOP


def explain(error: ValidationError, schema_name: str) -> Iterator[tuple[list[str | int], str]]:
    """Yield the place and the text of each problem in an error of `jsonschema`."""
    path, is_entry = _named_path(error)
    field = f"an entry of {spell_path(path, schema_name)}" if is_entry else spell_path(path, schema_name)
    # The type stubs allow for errors that are created by hand. An error of a validator has all of these attributes.
    broken = (error.validator, error.validator_value, error.schema, error.instance)
    keyword, rule, schema, instance = cast("tuple[str | None, Any, JsonObject | bool, Any]", broken)
    if keyword == "required":
        where = "in the settings of this destination" if schema_name == SETTINGS else f"for {schema_name} calls"
        for name in rule:
            if name not in instance:
                place = path if is_entry else [*path, name]
                missing = f"{name} in {field}" if is_entry else spell_path(place, schema_name)
                yield place, _own_text(schema, keyword, name) or f"{missing} is required {where}"
    else:
        yield path, _own_text(schema, keyword) or f"{field} {rule_text(keyword, rule, instance)}"


def _named_path(error: ValidationError) -> tuple[list[str | int], bool]:
    """Return the place of an error up to the first name that the sender chose, and whether there is such a name.

    A name that the sender chose can be personal data, and of any length.
    """
    named = {name for keyword, name in itertools.pairwise(error.absolute_schema_path) if keyword == "properties"}
    path = [*error.absolute_path]
    known = [*itertools.takewhile(lambda part: isinstance(part, int) or part in named, path)]
    return known, len(known) < len(path)


def _own_text(schema: JsonObject | bool, keyword: str | None, name: str = "") -> str | None:  # noqa: FBT001 -- a schema
    """Return the text in the schema's `errorMessage` for a keyword, or None."""
    text = schema.get("errorMessage") if isinstance(schema, dict) else None
    if isinstance(text, dict):
        text = text.get(keyword)
    if isinstance(text, dict):
        text = text.get(name)
    return text if isinstance(text, str) else None


def spell_path(path: list[str | int], schema_name: str) -> str:
    """Return a place in the customer's spelling: `userId`, `context.userAgent`, `properties.products[0].price`."""
    if not path:
        return "settings" if schema_name == SETTINGS else "message"
    spec = [] if schema_name == SETTINGS else [TOP]
    if spec and path[0] == "context":
        spec += [CONTEXT, *(fields for name, fields in CONTEXT_OBJECTS.items() if name in path[1:2])]
    names = [
        *(fields.spelling.get(str(part), part) for part, fields in zip(path, spec, strict=False)),
        *path[len(spec) :],
    ]
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")


def rule_text(keyword: str | None, rule: Any, instance: object) -> str:  # noqa: ANN401 -- the value of any keyword
    """Return the requirement of a keyword as the second half of a sentence."""
    if keyword == "type":
        return f"must be {_type_names(rule)}, not {type_name(instance)}"
    if keyword == "minLength" and rule == 1:
        return "must not be empty"
    if keyword == "enum":
        rule = ", ".join(json.dumps(value, ensure_ascii=False) for value in rule)
    elif keyword == "const":
        rule = json.dumps(rule, ensure_ascii=False)
    return _RULES.get(keyword or "false", "does not fit its schema").format(rule=rule)


_RULES = {
    "additionalProperties": "has fields that are not allowed",
    "const": "must be {rule}",
    "enum": "must be one of {rule}",
    "exclusiveMaximum": "must be less than {rule}",
    "exclusiveMinimum": "must be greater than {rule}",
    "false": "has fields that are not allowed",
    "format": "must be in the format {rule}",
    "maxItems": "must have at most {rule} entries",
    "maxLength": "must have at most {rule} characters",
    "maxProperties": "must have at most {rule} entries",
    "maximum": "must be at most {rule}",
    "minItems": "must have at least {rule} entries",
    "minLength": "must have at least {rule} characters",
    "minProperties": "must have at least {rule} entries",
    "minimum": "must be at least {rule}",
    "multipleOf": "must be a multiple of {rule}",
    "pattern": "does not have the required form",
    "propertyNames": "has a name that is not allowed",
    "uniqueItems": "must not have equal entries",
}


def _type_names(rule: str | list[str]) -> str:
    names = [rule] if isinstance(rule, str) else rule
    return " or ".join(_TYPE_NAMES[name] for name in names)


_TYPE_NAMES = {
    "object": "an object",
    "array": "an array",
    "string": "a string",
    "boolean": "a boolean",
    "number": "a number",
    "integer": "an integer",
    "null": "null",
}
