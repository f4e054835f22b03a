"""Find rules in a call type's schema that no canonical message can satisfy.

Schemas see messages in the canonical form: `user_id` instead of `userId`, ids as strings, the call type in lower case.
Names inside `traits` and `properties` belong to the customer and may be any.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from destination.schemas.places import SAME_VALUE, Place, SchemaFault, inside
from handler.canonicalise import ID_FIELDS, WRITE_KEY
from handler.decode import JsonObject, type_name
from handler.spec import ALIAS_TOP, CALL_TYPES, CONTEXT, CONTEXT_OBJECTS, TOP, Fields, fold

CLOSED = ("additionalProperties", "unevaluatedProperties", "propertyNames", "maxProperties")
"""Keywords by which a schema refuses fields that Segment adds."""
CONDITIONS = {"if", "not"}

FIELDS = {"message": TOP, "context": CONTEXT} | {f"context.{name}": fields for name, fields in CONTEXT_OBJECTS.items()}

References = Mapping[int, Place | None]
"""The id of a schema -> the target of its reference."""


@dataclass(frozen=True)
class _Value:
    """The value of a message that a schema judges: `message`, `context`, `context.page`, `user_id`, or `type`.

    `is_decisive` says whether the message is refused if the value breaks the schema. `is_asserted` says whether a
    broken rule can have that effect at all.
    """

    name: str
    is_decisive: bool = True
    is_asserted: bool = True


def canonical_faults(root: Place, call_type: str, targets: References) -> Iterator[SchemaFault]:
    """Yield faults about fields that messages never have, or never have in this form."""
    waiting = [(root, _Value("message"))]
    seen: set[tuple[int, _Value]] = set()
    while waiting:
        place, value = waiting.pop()
        if (id(place.schema), value) in seen:
            continue
        seen.add((id(place.schema), value))
        yield from _faults(place, value, call_type)
        waiting += _inner(place, value)
        target = targets.get(id(place.schema))
        if target is not None:
            waiting.append((target, value))


def _inner(place: Place, value: _Value) -> Iterator[tuple[Place, _Value]]:
    """Yield the inner schemas that judge the same value, or a known field of it."""
    for schema, path in inside(place.schema, SAME_VALUE):
        same = replace(
            value,
            is_decisive=value.is_decisive and path[0] == "allOf",
            is_asserted=value.is_asserted and path[0] not in CONDITIONS,
        )
        yield replace(place, schema=schema, path=(*place.path, *path)), same
    for schema, path in inside(place.schema, {"properties"}):
        if field := _field(value.name, str(path[1])):
            yield replace(place, schema=schema, path=(*place.path, *path)), replace(value, name=field)


def _field(parent: str, name: str) -> str | None:
    if parent == "message":
        return name if name in ("context", "type", *ID_FIELDS) else None
    return f"context.{name}" if parent == "context" and name in CONTEXT_OBJECTS else None


def _faults(place: Place, value: _Value, call_type: str) -> Iterator[SchemaFault]:
    if value.name in FIELDS:
        for name, path in _names(place.schema):
            if better := _better(name, value.name, FIELDS[value.name], call_type):
                yield place.fault(better, *path)
    if value.name == "message" and value.is_asserted:
        for keyword in CLOSED:
            if place.schema.get(keyword, True) not in (True, {}) and (
                keyword != CLOSED[0] or place.schema[keyword] is False
            ):
                yield place.fault(
                    f"{keyword} refuses fields that Segment adds to messages: leave it out at the top of a message",
                    keyword,
                )
    if value.name in ID_FIELDS and value.is_decisive:
        yield from _id_faults(place, value.name)
    if value.name == "type":
        yield from _type_faults(place, value, call_type)


def _names(schema: JsonObject) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield the field names in a schema, each with its path from there."""
    for keyword in ("properties", "dependentSchemas", "dependentRequired", "dependencies"):
        yield from ((name, (keyword, name)) for name in _object(schema.get(keyword)))
    for name, index in _listed(schema.get("required")):
        yield name, ("required", index)
    for keyword in ("dependentRequired", "dependencies"):
        for name, others in _object(schema.get(keyword)).items():
            yield from ((other, (keyword, name, index)) for other, index in _listed(others))
    for pattern in schema.get("patternProperties", ()):
        if exact := re.fullmatch(r"\^([\w -]+)\$", pattern):
            yield exact[1], ("patternProperties", pattern)


def _object(value: Any) -> JsonObject:  # noqa: ANN401 -- a keyword of another dialect can be anything
    return value if isinstance(value, dict) else {}


def _listed(names: Any) -> Iterator[tuple[str, int]]:  # noqa: ANN401 -- an array of names, or anything else
    yield from ((name, index) for index, name in enumerate(names if isinstance(names, list) else ()))


def _better(name: str, value: str, fields: Fields, call_type: str) -> str | None:
    """Return the name to use instead of one that the value never has, None if it can have it."""
    where = "a message" if value == "message" else f"the {value} of a message"
    canonical = fields.canonical[name]
    if value == "message" and canonical == WRITE_KEY:
        return f"{name} is never in {where}: it is removed when the message arrives"
    if value == "message" and call_type == "alias" and fold(name) in ALIAS_TOP:
        canonical = ALIAS_TOP[fold(name)]
    if canonical in (None, name):
        return None
    return f"{name} is never in {where}, which is in snake_case here: write {canonical}"


def _values(schema: JsonObject) -> Iterator[tuple[Any, tuple[str | int, ...]]]:
    if "const" in schema:
        yield schema["const"], ("const",)
    yield from ((value, ("enum", index)) for index, value in enumerate(schema.get("enum", ())))


def _id_faults(place: Place, name: str) -> Iterator[SchemaFault]:
    types = place.schema.get("type", "string")
    if "string" not in ([types] if isinstance(types, str) else types):
        yield place.fault(f'{name} is always a string here, even if a number was sent: write "string"', "type")
    for value, path in _values(place.schema):
        if not isinstance(value, str):
            yield place.fault(f"{name} is always a string here, never {type_name(value)}", *path)


def _type_faults(place: Place, value: _Value, call_type: str) -> Iterator[SchemaFault]:
    allowed = [*_values(place.schema)]
    for found, path in allowed:
        if isinstance(found, str) and found not in CALL_TYPES and found.lower() in CALL_TYPES:
            yield place.fault(f"the type of a message is in lower case here: write {found.lower()}", *path)
    if allowed and value.is_decisive and call_type not in [found for found, _ in allowed]:
        yield place.fault(f"this refuses every message: their type is {call_type}", allowed[0][1][0])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_PYTHON_TYPES: dict[str, Callable[[Any], bool]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and value == int(value),
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


def value_faults(place: Place) -> Iterator[SchemaFault]:
    """Yield the values of `const` and `enum` that the `type` in the same schema excludes."""
    types = place.schema.get("type")
    if types is None:
        return
    names = [types] if isinstance(types, str) else types
    for value, path in _values(place.schema):
        if not any(_PYTHON_TYPES[name](value) for name in names):
            yield place.fault(f"{type_name(value)} can't occur here: type allows only {' or '.join(names)}", *path)
