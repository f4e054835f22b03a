"""Check a schema folder: valid JSON Schema, resolvable $refs, no unknown keywords."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Never

import click
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker, ValidationError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable

from destination.schemas.canonical import canonical_faults, value_faults
from destination.schemas.patterns import pattern_faults
from destination.schemas.places import SAME_VALUE, Dialect, Place, SchemaFault, inside
from destination.schemas.refusals import bound_faults, refusal_faults
from destination.schemas.silence import silent_faults
from handler.decode import JsonObject, type_name
from handler.diagnose import schema_registry
from handler.explain import rule_text, spell_path
from handler.spec import CALL_TYPES, SETTINGS
from handler.validate import SCHEMA_NAMES, Schemas

FILES = tuple(f"{name}.json" for name in (*SCHEMA_NAMES, "common"))
DIALECTS: Mapping[str, Dialect] = {
    "http://json-schema.org/draft-07/schema": Draft7Validator,
    "https://json-schema.org/draft/2020-12/schema": Draft202012Validator,
}
_METASCHEMA_FORMATS = FormatChecker(formats=set(FormatChecker.checkers) - {"regex"})
"""Excludes `regex`, because Python's regular expressions differ."""
REFERENCES = {"$dynamicRef", "$ref"}
NESTED_TOO_DEEPLY = "this is nested too deeply"


def load_schemas(folder: Path) -> Schemas:
    """Return the compiled schemas of a folder; raises `click.ClickException` with their faults."""
    if faults := check_schemas(folder):
        raise click.ClickException("\n".join(["The schemas have faults, so nothing was done.", *map(str, faults)]))
    return Schemas.load(folder)


def check_schemas(folder: Path) -> list[SchemaFault]:
    """Return all faults of a schema folder, by file and place."""
    faults = [
        SchemaFault(file=name, pointer="", text="the file is missing: each call type has one, and settings and common")
        for name in FILES
        if not (folder / name).exists()
    ]
    documents: dict[str, JsonObject] = {}
    places: list[Place] = []
    for path in sorted(folder.glob("*.json")):
        try:
            documents[path.name] = document = _read(path)
        except ValueError as error:
            faults.append(SchemaFault(file=path.name, pointer="", text=str(error)))
            continue
        root = Place(schema=document, file=path.name, path=(), dialect=_dialect(document))
        try:
            broken = set(_metaschema_faults(root))
            places += [] if broken else root.walk()
        except RecursionError:
            broken = {root.fault(NESTED_TOO_DEEPLY)}
        faults += broken
    if not faults:  # references are resolved between valid schemas only
        faults += [*_reference_faults(places, documents)] or [*_message_faults(places, documents)]
    for place in places:
        faults += [*silent_faults(place), *pattern_faults(place), *value_faults(place), *bound_faults(place)]
    if not faults:  # a slow pattern is never tried on a message
        faults += _refusals(places, documents)
    return sorted(set(faults))


def _read(path: Path) -> JsonObject:
    """Return the schema in a file; raises `ValueError` with the remedy."""
    repeated: list[str] = []

    def to_object(members: list[tuple[str, Any]]) -> JsonObject:
        names = [name for name, _ in members]
        repeated.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(members)

    try:
        content = path.read_bytes()
        document = json.loads(content, object_pairs_hook=to_object, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise ValueError("this is not UTF-8: save it as UTF-8") from error
    except RecursionError as error:
        raise ValueError(NESTED_TOO_DEEPLY) from error
    except OSError as error:
        raise ValueError(f"this can't be read: {error.strerror}") from error
    if not isinstance(document, dict):
        raise ValueError(f"this must be a JSON object, not {type_name(document)}")  # noqa: TRY004 -- one kind for all
    if repeated:
        raise ValueError(f"{repeated[0]} occurs twice in one object, and only the last one counts: join them")
    _refuse_infinite(content.decode(json.detect_encoding(content)))
    _dialect(document)
    return document


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"this is not JSON: {name} is not a JSON number")


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*', re.DOTALL)
"""A string or a number of valid JSON."""


def _refuse_infinite(text: str) -> None:
    """Raise `ValueError` with the place of a number in valid JSON that is out of range."""
    for token in _TOKEN.finditer(text):
        is_float = not token[0].startswith('"') and not token[0].lstrip("-").isdigit()
        if not is_float or math.isfinite(float(token[0])):
            continue
        line, column = text.count("\n", 0, token.start()) + 1, token.start() - text.rfind("\n", 0, token.start())
        raise ValueError(
            f"{token[0]} is too large for a number (line {line}, column {column}): leave the rule out, or write a "
            "smaller one"
        )


def _dialect(document: JsonObject) -> Dialect:
    """Return the dialect of a schema; raises `ValueError` for an unknown or missing one."""
    name = document.get("$schema")
    if isinstance(name, str) and name.removesuffix("#") in DIALECTS:
        return DIALECTS[name.removesuffix("#")]
    fault = "names a dialect that is not known here" if "$schema" in document else "is missing"
    raise ValueError(f"$schema {fault}: write {'# or '.join(DIALECTS)}")


def _metaschema_faults(root: Place) -> Iterator[SchemaFault]:
    """Yield violations of the metaschema by a document."""
    metaschema = root.dialect(root.dialect.META_SCHEMA, format_checker=_METASCHEMA_FORMATS)
    for error in metaschema.iter_errors(root.schema):
        inner = _innermost(error)
        path = [*inner.absolute_path]
        rule = rule_text(str(inner.validator), inner.validator_value, inner.instance)
        yield root.fault(f"{spell_path(path, SETTINGS)} {rule}", *path)


def _innermost(error: ValidationError) -> ValidationError:
    """If all alternatives failed, return the error of the one that got furthest."""
    while error.context:
        error = max(error.context, key=lambda inner: len(inner.absolute_path))
    return error


def _message_faults(places: Iterable[Place], documents: Mapping[str, JsonObject]) -> Iterator[SchemaFault]:
    """Yield faults about fields that canonical messages never have."""
    known = {id(place.schema): place for place in places}
    targets = _targets(known, documents)
    for call_type in CALL_TYPES:
        yield from canonical_faults(known[id(documents[f"{call_type}.json"])], call_type, targets)


def _refusals(places: Iterable[Place], documents: Mapping[str, JsonObject]) -> list[SchemaFault]:
    """Return the rules by which schemas refuse messages that they must accept."""
    known = {id(place.schema): place for place in places}
    return refusal_faults(documents, known, _targets(known, documents))


def _targets(known: Mapping[int, Place], documents: Mapping[str, JsonObject]) -> dict[int, Place | None]:
    """Return the target of each schema's reference, None for `true` and `false`."""
    registry = schema_registry(documents)
    return {
        node: known.get(id(_resolve(place.schema[keyword], documents[place.file], registry)))
        for node, place in known.items()
        for keyword in sorted(REFERENCES & place.schema.keys(), reverse=True)
    }


def _reference_faults(places: Iterable[Place], documents: Mapping[str, JsonObject]) -> Iterator[SchemaFault]:
    """Yield references that lead nowhere or in a circle, which would cause an error in the function."""
    registry = schema_registry(documents)
    known = {id(place.schema): place for place in places}
    followed: dict[int, set[int]] = {}
    for node, place in known.items():
        followed[node] = {id(schema) for schema, _ in inside(place.schema, SAME_VALUE)}
        for keyword in REFERENCES & place.schema.keys():
            reference = place.schema[keyword]
            target = _resolve(reference, documents[place.file], registry)
            if target is None:
                yield place.fault(f"{reference} leads nowhere in this folder", keyword)
            elif id(target) in known:
                followed[node].add(id(target))
            elif not isinstance(target, bool):
                yield place.fault(
                    f"{reference} leads to something that is not a schema: put it into definitions", keyword
                )
    try:
        TopologicalSorter(followed).prepare()
    except CycleError as error:
        place = next(known[node] for node in error.args[1] if REFERENCES & known[node].schema.keys())
        yield place.fault("this reference leads back to itself in an endless loop", *REFERENCES & place.schema.keys())


def _resolve(reference: str, document: JsonObject, registry: "Registry[Any]") -> object:
    """Return the target of a reference in a document, None if it has none."""
    try:
        return registry.resolver_with_root(Resource.from_contents(document)).lookup(reference).contents
    # the last three occur if a pointer leads into something other than an object
    except (Unresolvable, LookupError, TypeError, ValueError):
        return None
