"""Find the fields that the schemas of this checkout require: `destination simulate` omits each of them once.

The schemas are the partner's own configuration, so they are read as JSON files. A deployment with older schemas may
accept messages that these refuse.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from destination.segment.contract import JsonObject
from destination.segment.names import CONTEXT_NAMES, CONTEXT_OBJECT_NAMES, TOP_NAMES

NEVER_MISSING = {"type", "message_id"}
"""A missing type has its own answer, and a missing id is derived."""
MAX_DEPTH = 8
"""Limit for nested objects; a schema that refers to itself has no end."""


@dataclass(frozen=True, kw_only=True, order=True)
class Required:
    """A required field of a call type, by its path in the spec's spelling."""

    call_type: str
    path: tuple[str, ...]


def required_fields(folder: Path, call_types: Collection[str]) -> list[Required]:
    """Return the required fields of these call types by the schemas in a folder.

    Rules that several fields can satisfy (`anyOf`, `oneOf`, `if`) are skipped.
    """
    files = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
    found = set()
    for call_type in call_types:
        name = f"{call_type}.json"
        if isinstance(files.get(name), dict):
            paths = set(_paths(files, name, files[name], (), MAX_DEPTH))
            found |= {Required(call_type=call_type, path=_in_spec(path)) for path in paths}
    return sorted(found)


def without(message: JsonObject, path: tuple[str, ...]) -> JsonObject:
    """Return a message without a field; the object around it exists and is empty."""
    first, *rest = path
    if not rest:
        return {name: value for name, value in message.items() if name != first}
    inner: JsonObject = {}
    for name in reversed(rest[:-1]):
        inner = {name: inner}
    return {**message, first: inner}


def _paths(
    files: JsonObject, file: str, schema: object, path: tuple[str, ...], depth: int
) -> Iterator[tuple[str, ...]]:
    """Yield the required paths of a schema, in stored names."""
    if not isinstance(schema, dict) or depth == 0:
        return
    for name in schema.get("required", ()):
        if isinstance(name, str) and (path or name not in NEVER_MISSING):
            yield (*path, name)
    if isinstance(reference := schema.get("$ref"), str):
        other, _, pointer = reference.partition("#")
        yield from _paths(files, other or file, _at(files.get(other or file), pointer), path, depth - 1)
    for part in schema.get("allOf", ()):
        yield from _paths(files, file, part, path, depth - 1)
    properties = schema.get("properties", {})
    for name, part in properties.items() if isinstance(properties, dict) else ():
        yield from _paths(files, file, part, (*path, name), depth - 1)


def _at(document: object, pointer: str) -> object:
    """Return the part of a document that a JSON Pointer (RFC 6901) names, None without one."""
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _in_spec(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a path of stored names in the spec's spelling."""
    top = {stored: spec for spec, stored in TOP_NAMES.items()}
    first, *rest = path
    if first != "context" or not rest:
        return (top.get(first, first), *rest)
    context = {stored: spec for spec, stored in CONTEXT_NAMES.items()}
    holder = context.get(rest[0], rest[0])
    inner = {stored: spec for spec, stored in CONTEXT_OBJECT_NAMES.get(holder, {}).items()}
    return ("context", holder, *(inner.get(name, name) for name in rest[1:2]), *rest[2:])
