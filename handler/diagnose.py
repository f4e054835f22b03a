"""Find out why a schema refuses a document, with `jsonschema`. `validate` calls it when compiled code does not accept.

JSON Schema: https://json-schema.org/draft-07 and 2020-12; `$schema` selects the version.
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
from handler.time_limit import MAX_PATTERN_CHARS, CheckTime, ShortTexts, TooSlowError
from handler.timestamps import parse_time

MAX_VIOLATIONS = 10
"""The number of violations in a response; a message can break a rule in thousands of places."""
MAX_ERRORS = 1000
"""The number of errors to choose the violations from."""

FORMATS = FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))
"""The formats that are checked, besides `date-time`: those that `jsonschema` supports without further packages."""


@FORMATS.checks("date-time")
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value) is not None


class JsonSchemaValidator:
    """Validates by `jsonschema`: the schemas of some files, by name. Its constructor raises `PatternError`."""

    def __init__(self, files: Mapping[str, bytes], names: Iterable[str]) -> None:
        documents: dict[str, JsonObject] = {name: python_schema(json.loads(content)) for name, content in files.items()}
        registry = schema_registry(documents)
        self._validators = {}
        for name in names:
            schema = documents[f"{name}.json"]
            dialect = with_own_rules(validator_for(schema, default=Draft7Validator))
            self._validators[name] = dialect(schema, registry=registry, format_checker=FORMATS)

    def violations(self, name: str, document: JsonObject, time: CheckTime) -> tuple[Violation, ...]:
        """Return the violations of a schema by a document: one per place, those of the whole document first.

        Raises `TooSlowError` if that takes more than `time`.
        """
        return time.run(self._violations, name, document)

    def _violations(self, name: str, document: JsonObject) -> tuple[Violation, ...]:
        first_errors = itertools.islice(self._validators[name].iter_errors(document), MAX_ERRORS)
        errors = sorted(first_errors, key=lambda error: _order(error.absolute_path))
        texts: dict[str, str] = {}
        for error in errors:
            for path, text in explain(error, name):
                texts.setdefault("".join("/" + _escape(part) for part in path), text)
        found = (Violation(pointer=pointer, message=text) for pointer, text in texts.items())
        return tuple(itertools.islice(found, MAX_VIOLATIONS))


@cache
def with_own_rules(dialect: Any) -> Any:  # noqa: ANN401 -- a validator class
    """Return a validator class with the keywords of `OWN_RULES`; cached, because creating it takes milliseconds."""
    return extend(dialect, OWN_RULES)  # type: ignore[no-untyped-call]


def _multiple_of(
    validator: Any,  # noqa: ANN401 -- of any dialect
    factor: float,
    instance: object,
    _schema: object,
) -> Iterator[ValidationError]:
    """Compare decimal numbers as JSON writes them: 19.99 is a multiple of 0.01, but the doubles are not."""
    if validator.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(factor)):
        yield ValidationError(f"{instance!r} is not a multiple of {factor}")


def _pattern(
    validator: Any,  # noqa: ANN401 -- of any dialect
    pattern: str,
    instance: object,
    schema: Mapping[str, Any],
) -> Iterator[ValidationError]:
    """Try a pattern only if the text fits `maxLength`, because a pattern can be slow for long texts."""
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
    """Compare the items of an array as a set, in linear time; `jsonschema` compares each pair."""
    if is_required and isinstance(instance, list) and len(set(map(_hashable, instance))) < len(instance):
        yield ValidationError(f"{instance!r} has non-unique elements")


def _hashable(value: object) -> object:
    """Return equal objects for equal JSON values: `1` equals `1.0` but not `true`, and members have no order."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(member)) for name, member in value.items())
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return (bool, value) if isinstance(value, bool) else value


def _with_short_names(rule: Callable[..., Iterable[ValidationError]]) -> Callable[..., Iterator[ValidationError]]:
    """Return a keyword of `jsonschema` that matches patterns only with names up to `MAX_PATTERN_CHARS`."""

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
    """Return the registry that resolves `$ref` by file name; nothing is ever fetched."""
    registry: Registry[Any] = Registry()
    return registry.with_resources(
        (name, Resource.from_contents(document, default_specification=DRAFT7)) for name, document in documents.items()
    )


def _order(path: Iterable[str | int]) -> list[tuple[bool, int, str]]:
    """Sort names alphabetically and indices by number."""
    return [(True, part, "") if isinstance(part, int) else (False, 0, part) for part in path]


def _escape(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
