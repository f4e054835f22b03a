"""Step 4: does a message keep the schema of its call type? And the settings theirs?

`schemas/` holds one JSON Schema per call type, with shared definitions in `common.json`, and `settings.json`. What the
customer reads is made for people and never quotes a value that was sent. A schema can carry its own text for a rule in
`errorMessage`, beside the rule: one text for all rules there, or an object of texts by keyword, and under `required`
by property.

JSON Schema: https://json-schema.org/draft-07 and 2020-12, whichever `$schema` names.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from jsonschema import Draft7Validator, FormatChecker, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource

from handler.canonicalise import CALL_TYPES, CONTEXT, TOP, Message, parse_time
from handler.decode import JsonObject, type_name
from handler.errors import InvalidMessage, InvalidSettings, MissingType, UnsupportedCallType, Violation

SCHEMA_NAMES = (*CALL_TYPES, "settings")
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
            (name, Resource.from_contents(document)) for name, document in documents.items()
        )
        return cls({name: _compile(documents[f"{name}.json"], registry) for name in SCHEMA_NAMES})

    def check_message(self, call_type: str, body: JsonObject) -> None:
        """Raise `InvalidMessage` where a canonical message breaks the schema of its call type."""
        violations = tuple(self._violations(call_type, body, f"for {call_type} calls"))
        if violations:
            raise InvalidMessage(violations)

    def check_settings(self, settings: JsonObject) -> None:
        """Raise `InvalidSettings` where the customer's settings break `settings.json`."""
        violations = tuple(self._violations("settings", settings, "in the settings of this destination"))
        if violations:
            raise InvalidSettings(violations)

    def _violations(self, schema: str, document: JsonObject, where: str) -> Iterator[Violation]:
        errors = sorted(self._validators[schema].iter_errors(document), key=lambda e: [str(part) for part in e.path])
        found: dict[str, str] = {}
        for error in errors:
            for pointer, text in _texts(error, where):
                found.setdefault(pointer, text)
        for pointer, message in list(found.items())[:MAX_VIOLATIONS]:
            yield Violation(pointer=pointer, message=message)


def _compile(schema: JsonObject, registry: "Registry[Any]") -> Validator:
    dialect = validator_for(schema, default=Draft7Validator)
    return dialect(schema, registry=registry, format_checker=FORMATS)


def _pointer(path: Iterable[str | int]) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _texts(error: ValidationError, where: str) -> Iterator[tuple[str, str]]:
    """Yield the pointer and the text of every place that an error of `jsonschema` stands for."""
    path = [*error.absolute_path]
    if error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                place = [*path, name]
                yield _pointer(place), _own_text(error, name) or f"{_field(place)} is required {where}"
    else:
        yield _pointer(path), _own_text(error) or f"{_field(path)} {_rule(error)}"


def _own_text(error: ValidationError, name: str = "") -> str | None:
    """Return the text that a schema carries for its rule, in `errorMessage`."""
    text = error.schema.get("errorMessage")
    if isinstance(text, dict):
        text = text.get(error.validator)
    if isinstance(text, dict):
        text = text.get(name)
    return text


def _field(path: list[str | int]) -> str:
    """Spell a place as the customer knows it: `userId`, `context.userAgent`, `properties.products[0].price`."""
    if not path:
        return "message"
    spelling = {**TOP.spelling, **CONTEXT.spelling} if path[0] == "context" else TOP.spelling
    depth = 2 if path[0] == "context" else 1
    spec, own = path[:depth], path[depth:]
    names = [*(spelling.get(str(part), part) for part in spec), *own]
    return "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in names).removeprefix(".")


def _rule(error: ValidationError) -> str:
    """Say what a rule asks for, as the second half of a sentence."""
    rule = error.validator_value
    match error.validator:
        case "type":
            return f"must be {_type_names(rule)}, not {type_name(error.instance)}"
        case "minLength" if rule == 1:
            return "must not be empty"
        case "minLength":
            return f"must have at least {rule} characters"
        case "maxLength":
            return f"must have at most {rule} characters"
        case "enum":
            return f"must be one of {', '.join(json.dumps(value) for value in rule)}"
        case "const":
            return f"must be {json.dumps(rule)}"
        case "minimum":
            return f"must be at least {rule}"
        case "maximum":
            return f"must be at most {rule}"
        case "exclusiveMinimum":
            return f"must be greater than {rule}"
        case "exclusiveMaximum":
            return f"must be less than {rule}"
        case "multipleOf":
            return f"must be a multiple of {rule}"
        case "format":
            return f"must be in the format {rule}"
        case "pattern":
            return "does not have the required form"
        case "minItems" | "minProperties":
            return f"must have at least {rule} entries"
        case "maxItems" | "maxProperties":
            return f"must have at most {rule} entries"
        case "uniqueItems":
            return "must not have equal entries"
        case "additionalProperties":
            return "has fields that are not allowed"
    return "does not fit its schema"


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
