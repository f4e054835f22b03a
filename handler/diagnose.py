"""What a schema refuses, and why: `jsonschema`, where the compiled schemas of `validate` say no, or can't tell.

JSON Schema: https://json-schema.org/draft-07 and 2020-12, whichever `$schema` names.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from typing import Any

from jsonschema import Draft7Validator, FormatChecker, ValidationError
from jsonschema.validators import extend, validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from handler.decode import JsonObject
from handler.errors import Violation
from handler.explain import explain
from handler.patterns import python_schema
from handler.time_limit import MAX_PATTERN_CHARS, ShortTexts, TooSlowError
from handler.timestamps import parse_time

MAX_VIOLATIONS = 10
"""Reported at once; a message can break a rule in thousands of places."""
MAX_ERRORS = 1000
"""Looked at to choose those from."""

FORMATS = FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))
"""The formats that are checked, besides date-time: those that `jsonschema` knows without further packages."""


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value) is not None


class Diagnosis:
    """The schemas in files, by name, as `jsonschema` reads them."""

    def __init__(self, files: Mapping[str, bytes], names: Iterable[str]) -> None:
        documents: dict[str, JsonObject] = {name: python_schema(json.loads(content)) for name, content in files.items()}
        registry = schema_registry(documents)
        self._validators = {}
        for name in names:
            schema = documents[f"{name}.json"]
            dialect = with_own_rules(validator_for(schema, default=Draft7Validator))
            self._validators[name] = dialect(schema, registry=registry, format_checker=FORMATS)

    def violations(self, name: str, document: JsonObject) -> tuple[Violation, ...]:
        """Return what a schema refuses in a document: one violation per place, those of the whole document first."""
        first_errors = itertools.islice(self._validators[name].iter_errors(document), MAX_ERRORS)
        errors = sorted(first_errors, key=lambda error: _order(error.absolute_path))
        texts: dict[str, str] = {}
        for error in errors:
            for path, text in explain(error, name):
                texts.setdefault("".join("/" + _escape(part) for part in path), text)
        found = (Violation(pointer=pointer, message=text) for pointer, text in texts.items())
        return tuple(itertools.islice(found, MAX_VIOLATIONS))


@cache
def with_own_rules(dialect: Any) -> Any:  # noqa: ANN401 -- a class of validators
    """Return a dialect with the rules of `OWN_RULES`; making the class takes several milliseconds."""
    return extend(dialect, OWN_RULES)  # type: ignore[no-untyped-call]


def _multiple_of(
    validator: Any,  # noqa: ANN401 -- of any dialect
    factor: float,
    instance: object,
    _schema: object,
) -> Iterator[ValidationError]:
    """Compare the numbers as they are written in JSON: 19.99 is a multiple of 0.01, which no double is of another."""
    if validator.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(factor)):
        yield ValidationError(f"{instance!r} is not a multiple of {factor}")


def _pattern(
    validator: Any,  # noqa: ANN401 -- of any dialect
    pattern: str,
    instance: object,
    schema: Mapping[str, Any],
) -> Iterator[ValidationError]:
    """Try a pattern only on a text that the `maxLength` of its schema allows: a pattern can be slow for long texts."""
    if not validator.is_type(instance, "string") or len(str(instance)) > schema.get("maxLength", math.inf):
        return
    if not ShortTexts(re.compile(pattern)).search(str(instance)):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _unique_items(
    _validator: Any,  # noqa: ANN401 -- of any dialect
    is_required: bool,  # noqa: FBT001 -- the keyword's value
    instance: object,
    _schema: object,
) -> Iterator[ValidationError]:
    """Compare the items of an array by a set, in linear time; `jsonschema` compares each item with each other one."""
    if is_required and isinstance(instance, list) and len(set(map(_hashable, instance))) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _hashable(value: object) -> object:
    """Return what is equal for equal JSON values: `1` is `1.0`, but not `true`, and members have no order."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(member)) for name, member in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value


def _with_short_names(rule: Callable[..., Iterable[ValidationError]]) -> Callable[..., Iterator[ValidationError]]:
    """Return a rule of `jsonschema` that matches patterns with names only up to the length that `ShortTexts` allows."""

    def checked(
        validator: Any,  # noqa: ANN401 -- of any dialect
        value: object,
        instance: object,
        schema: Mapping[str, Any],
    ) -> Iterator[ValidationError]:
        names = instance if "patternProperties" in schema and isinstance(instance, dict) else ()
        if any(len(name) > MAX_PATTERN_CHARS for name in names):
            raise TooSlowError
        yield from rule(validator, value, instance, schema)

    return checked


OWN_RULES = {
    "multipleOf": _multiple_of,
    "pattern": _pattern,
    "uniqueItems": _unique_items,
    **{
        keyword: _with_short_names(Draft7Validator.VALIDATORS[keyword])
        for keyword in ("additionalProperties", "patternProperties")
    },
}


def schema_registry(documents: Mapping[str, JsonObject]) -> "Registry[Any]":
    """Return what the `$ref`s of schemas are looked up in, by file name; nothing is ever fetched."""
    registry: Registry[Any] = Registry()
    return registry.with_resources(
        (name, Resource.from_contents(document, default_specification=DRAFT7)) for name, document in documents.items()
    )


def _order(path: Iterable[str | int]) -> list[tuple[bool, int, str]]:
    """Sort names by the alphabet and indices by number."""
    return [(True, part, "") if isinstance(part, int) else (False, 0, part) for part in path]


def _escape(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
