"""Messages that pass the schemas of this checkout: those in `events/`, completed if a schema requires more."""

import json
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError
from jsonschema.validators import validator_for

from destination.schemas.check import load_schemas
from destination.segment.samples import sample_message
from handler.canonicalise import canonicalise
from handler.compile import read_schemas
from handler.decode import JsonObject
from handler.diagnose import FORMATS, schema_registry
from handler.errors import Invalid
from handler.explain import explain, spell_path
from handler.spec import SETTINGS, TOP

MAX_ROUNDS = 50
"""Limit for the rounds of completion: few fields are missing, so more rounds would not end."""
ALTERNATIVES = ("anyOf", "oneOf")
MADE_UP = {
    "date": "2026-03-12",
    "date-time": "2026-03-12T09:30:00.000Z",
    "email": "ada@example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "5f0c8c3e-2f0a-4a7b-9c53-0d1f4f0f5b11",
}
"""Example values by format."""


class Samples:
    """Valid messages for the schemas of a folder; raises `click.ClickException` for schemas with faults."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._schemas = load_schemas(folder)
        files = read_schemas(folder)
        documents = {name: json.loads(content) for name, content in files.items()}
        registry = schema_registry(documents)
        self._validators: dict[str, Any] = {}
        for name, schema in documents.items():
            dialect = validator_for(schema, default=Draft7Validator)
            self._validators[name] = dialect(schema, registry=registry, format_checker=FORMATS)

    def message(self, call_type: str, **ids: Any) -> JsonObject:  # noqa: ANN401 -- the fields of a message
        """Return a message with these fields that passes its schema; without them if it passes only then.

        If none passes, return the message in `events/`: its refusal shows the reason.
        """
        sample = sample_message(call_type, datetime.now(UTC))
        own = {**sample, **ids}
        named = {**sample, "messageId": ids.get("messageId", sample["messageId"])}
        for candidate in (own, self._completed(call_type, own), named, self._completed(call_type, named)):
            if self.refusal(candidate) is None:
                return candidate
        return own

    def refusal(self, message: JsonObject) -> str | None:
        """Return the text of the refusal of a message by the schemas of this checkout, None if it passes."""
        [canonical] = canonicalise(message)
        try:
            self._schemas.check_message(str(canonical.type), canonical.body)
        except Invalid as refusal:
            return str(refusal)
        return None

    def mandatory(self, name: str) -> list[tuple[str, str]]:
        """Return the required fields of a schema in the customer's spelling, each with its error text.

        `name` is a call type, or `settings`. A rule that several fields can satisfy stands for the whole message.
        """
        document: JsonObject = {} if name == SETTINGS else {"type": name, "message_id": "certify"}
        found: dict[str, str] = {}
        validator = self._validators[f"{name}.json"]
        for _ in range(MAX_ROUNDS):
            errors = list(validator.iter_errors(document))
            for error in errors:
                if error.validator in ("required", *ALTERNATIVES):
                    found |= {
                        spell_path(path, name): text
                        for path, text in explain(error, name)
                        if text not in found.values()
                    }
            if not any([_fix(document, error) for error in _innermost(errors)]):  # noqa: C419 -- each is to be fixed
                break
        return list(found.items())

    def fields(self, name: str) -> JsonObject:
        """Return the properties that a schema itself describes."""
        properties: JsonObject = self._validators[f"{name}.json"].schema.get("properties", {})
        return properties

    @cached_property
    def settings(self) -> JsonObject:
        """The required settings of a customer, an empty object without any."""
        document: JsonObject = {}
        _complete(self._validators[f"{SETTINGS}.json"], document)
        return document

    def _completed(self, call_type: str, message: JsonObject) -> JsonObject:
        completed = deepcopy(message)
        body = canonicalise(completed)[0].body
        validator = self._validators[f"{call_type}.json"]
        _complete(validator, body)
        return {TOP.spelling.get(name, name): value for name, value in body.items()}


def _complete(validator: Any, document: JsonObject) -> None:  # noqa: ANN401 -- of any dialect
    """Add required fields and replace refused values, as far as values can be invented."""
    for _ in range(MAX_ROUNDS):
        errors = list(_innermost(validator.iter_errors(document)))
        if not any([_fix(document, error) for error in errors]):  # noqa: C419 -- every error is to be fixed
            return


def _innermost(errors: Any) -> Iterator[ValidationError]:  # noqa: ANN401 -- an iterator of jsonschema
    for error in errors:
        if error.context:
            yield from _innermost(error.context[:1])
        else:
            yield error


def _fix(document: JsonObject, error: ValidationError) -> bool:
    """Change the place of an error; return whether that was possible."""
    schema = error.schema if isinstance(error.schema, dict) else {}
    if error.validator == "required" and isinstance(error.instance, dict):
        missing = [name for name in schema["required"] if name not in error.instance]
        properties = schema.get("properties", {})
        for name in missing:
            error.instance[name] = _example(properties.get(name, {}))
        return bool(missing)
    path = list(error.absolute_path)
    if not path:
        return False
    holder: Any = document
    for part in path[:-1]:
        holder = holder[part]
    made = _example(schema)
    if holder[path[-1]] == made:
        return False
    holder[path[-1]] = made
    return True


def _example(schema: Any) -> Any:  # noqa: ANN401 -- any schema, any JSON value
    """Return an invented value for a schema; a reference is resolved later, by its own error."""
    if not isinstance(schema, dict) or "$ref" in schema:
        return "certify"
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("enum", "examples"):
        if schema.get(keyword):
            return schema[keyword][0]
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    return _of_kind(kind, schema)


def _of_kind(kind: str, schema: JsonObject) -> Any:  # noqa: ANN401 -- any JSON value
    if kind == "object":
        return {}  # its required fields are added later, by their own errors
    if kind == "array":
        return [_example(schema.get("items", {}))] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        lowest = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        return min(lowest, schema.get("maximum", lowest))
    if kind in ("boolean", "null"):
        return True if kind == "boolean" else None
    text = MADE_UP.get(schema.get("format", ""), "certify")
    return text.ljust(schema.get("minLength", 0), "x")[
        : schema.get("maxLength", len(text) + schema.get("minLength", 0))
    ]
