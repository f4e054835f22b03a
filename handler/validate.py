"""Step 4: the schema of the call type decides what a message must hold, and another one what settings must.

`schemas/` holds one JSON Schema per call type, with shared definitions in `common.json`, and `settings.json`. What the
customer reads is made for people and never quotes a value that was sent. A schema can carry its own text for a rule in
`errorMessage`, beside the rule: one text for all rules there, or an object of texts by keyword, and under `required`
by property.

JSON Schema: https://json-schema.org/draft-07 and 2020-12, whichever `$schema` names.
"""

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, cast

from jsonschema import Draft7Validator, FormatChecker, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from handler.canonicalise import CALL_TYPES, CONTEXT, CONTEXT_OBJECTS, TOP, Message, parse_time
from handler.decode import JsonObject, type_name
from handler.errors import InvalidMessage, InvalidSettings, MissingType, UnsupportedCallType, Violation

SETTINGS = "settings"
SCHEMA_NAMES = (*CALL_TYPES, SETTINGS)
MAX_VIOLATIONS = 10
"""Reported at once; a message can break a rule in thousands of places."""

FORMATS = FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))
"""The formats that are checked, besides date-time: those that `jsonschema` knows without further packages."""


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value) is not None


def check_call_type(message: Message, supported: Collection[str]) -> str:
    """Return the call type of a message; raises `MissingType` or `UnsupportedCallType`."""
    call_type = message.type
    if not isinstance(call_type, str) or not call_type:
        raise MissingType
    if call_type not in supported:
        raise UnsupportedCallType(call_type if call_type in CALL_TYPES else None)
    return call_type


class Schemas:
    """The compiled schemas of a folder."""

    def __init__(self, validators: Mapping[str, Validator]) -> None:
        self._validators = validators

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Compile every schema of a folder. Whether they are valid schemas is for the tests to find out."""
        documents: dict[str, JsonObject] = {path.name: json.loads(path.read_bytes()) for path in folder.glob("*.json")}
        registry: Registry[Any] = Registry().with_resources(
            (name, Resource.from_contents(document, default_specification=DRAFT7))
            for name, document in documents.items()
        )
        return cls({name: _compile(documents[f"{name}.json"], registry) for name in SCHEMA_NAMES})

    def check_message(self, call_type: str, body: JsonObject) -> None:
        """Raise `InvalidMessage` where a canonical message breaks the schema of its call type."""
        if violations := self._violations(call_type, body):
            raise InvalidMessage(violations)

    def check_settings(self, settings: JsonObject) -> None:
        """Raise `InvalidSettings` where the customer's settings break `settings.json`."""
        if violations := self._violations(SETTINGS, settings):
            raise InvalidSettings(violations)

    def _violations(self, schema: str, document: JsonObject) -> tuple[Violation, ...]:
        """Return one violation per place, those of the whole document first."""
        errors = sorted(self._validators[schema].iter_errors(document), key=lambda error: _order(error.absolute_path))
        texts: dict[str, str] = {}
        for error in errors:
            for path, text in _texts(error, schema):
                texts.setdefault("".join("/" + _escape(part) for part in path), text)
        found = (Violation(pointer=pointer, message=text) for pointer, text in texts.items())
        return tuple(itertools.islice(found, MAX_VIOLATIONS))


def _compile(schema: JsonObject, registry: "Registry[Any]") -> Validator:
    dialect = validator_for(schema, default=Draft7Validator)
    return dialect(schema, registry=registry, format_checker=FORMATS)


def _order(path: Iterable[str | int]) -> list[tuple[bool, int, str]]:
    """Sort names by the alphabet and indices by number."""
    return [(True, part, "") if isinstance(part, int) else (False, 0, part) for part in path]


def _escape(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _texts(error: ValidationError, schema_name: str) -> Iterator[tuple[list[str | int], str]]:
    """Yield the place and the text of all that an error of `jsonschema` stands for."""
    path = [*error.absolute_path]
    # The types leave room for errors that are made by hand; those of a validator hold all of these.
    broken = (error.validator, error.validator_value, error.schema, error.instance)
    keyword, rule, schema, instance = cast("tuple[str | None, Any, JsonObject | bool, Any]", broken)
    if keyword == "required":
        where = "in the settings of this destination" if schema_name == SETTINGS else f"for {schema_name} calls"
        for name in rule:
            if name not in instance:
                place = [*path, name]
                yield place, _own_text(schema, keyword, name) or f"{_field(place, schema_name)} is required {where}"
    else:
        yield path, _own_text(schema, keyword) or f"{_field(path, schema_name)} {_rule(keyword, rule, instance)}"


def _own_text(schema: JsonObject | bool, keyword: str | None, name: str = "") -> str | None:  # noqa: FBT001 -- a schema
    """Return the text that a schema carries for its rule, in `errorMessage`."""
    text = schema.get("errorMessage") if isinstance(schema, dict) else None
    if isinstance(text, dict):
        text = text.get(keyword)
    if isinstance(text, dict):
        text = text.get(name)
    return text


def _field(path: list[str | int], schema_name: str) -> str:
    """Spell a place as the customer knows it: `userId`, `context.userAgent`, `properties.products[0].price`."""
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


def _rule(keyword: str | None, rule: Any, instance: object) -> str:  # noqa: ANN401 -- the value of any keyword
    """Say what a rule asks for, as the second half of a sentence."""
    if keyword == "type":
        return f"must be {_type_names(rule)}, not {type_name(instance)}"
    if keyword == "minLength" and rule == 1:
        return "must not be empty"
    if keyword == "enum":
        rule = ", ".join(json.dumps(value) for value in rule)
    elif keyword == "const":
        rule = json.dumps(rule)
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
