"""Step 4: the schema of the call type decides what a message must hold, and another one what settings must.

`schemas/` holds one JSON Schema per call type, with shared definitions in `common.json`, and `settings.json`.

JSON Schema: https://json-schema.org/draft-07 and 2020-12, whichever `$schema` names.
"""

import itertools
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from jsonschema import Draft7Validator, FormatChecker
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from handler.canonicalise import Message
from handler.decode import JsonObject
from handler.errors import InvalidMessage, InvalidSettings, MissingType, UnsupportedCallType, Violation
from handler.explain import SETTINGS, explain
from handler.spec import CALL_TYPES
from handler.timestamps import parse_time

SCHEMA_NAMES = (*CALL_TYPES, SETTINGS)
MAX_VIOLATIONS = 10
"""Reported at once; a message can break a rule in thousands of places."""
MAX_ERRORS = 1000
"""Looked at to choose those from."""

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
        registry = schema_registry(documents)
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
        first_errors = itertools.islice(self._validators[schema].iter_errors(document), MAX_ERRORS)
        errors = sorted(first_errors, key=lambda error: _order(error.absolute_path))
        texts: dict[str, str] = {}
        for error in errors:
            for path, text in explain(error, schema):
                texts.setdefault("".join("/" + _escape(part) for part in path), text)
        found = (Violation(pointer=pointer, message=text) for pointer, text in texts.items())
        return tuple(itertools.islice(found, MAX_VIOLATIONS))


def schema_registry(documents: Mapping[str, JsonObject]) -> "Registry[Any]":
    """Return what the `$ref`s of schemas are looked up in, by file name; nothing is ever fetched."""
    registry: Registry[Any] = Registry()
    return registry.with_resources(
        (name, Resource.from_contents(document, default_specification=DRAFT7)) for name, document in documents.items()
    )


def _compile(schema: JsonObject, registry: "Registry[Any]") -> Validator:
    dialect = validator_for(schema, default=Draft7Validator)
    return dialect(schema, registry=registry, format_checker=FORMATS)


def _order(path: Iterable[str | int]) -> list[tuple[bool, int, str]]:
    """Sort names by the alphabet and indices by number."""
    return [(True, part, "") if isinstance(part, int) else (False, 0, part) for part in path]


def _escape(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
