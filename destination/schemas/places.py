"""The schemas inside a schema file, with their places and faults."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from jsonschema import Draft7Validator, Draft202012Validator

from handler.decode import JsonObject
from handler.patterns import ONE_SCHEMA, SCHEMAS_BY_NAME, SCHEMAS_IN_ARRAY

Dialect = type[Draft7Validator] | type[Draft202012Validator]

EVERYWHERE = ONE_SCHEMA | SCHEMAS_IN_ARRAY | SCHEMAS_BY_NAME
SAME_VALUE = {"allOf", "anyOf", "dependencies", "dependentSchemas", "else", "if", "not", "oneOf", "then"}
"""The keywords whose schemas judge the same value as the schema around them."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True, order=True)
class SchemaFault:
    """A fault in a file, with its remedy; `pointer` is a JSON Pointer (RFC 6901), "" for the whole file."""

    file: str
    pointer: str
    text: str

    def __str__(self) -> str:
        """Return the fault as one line."""
        return f"{self.file}{self.pointer and f' at {self.pointer}'}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A schema inside a file."""

    schema: JsonObject
    file: str
    path: Path
    dialect: Dialect

    def fault(self, text: str, *path: str | int) -> SchemaFault:
        """Return a fault of this schema, or of a place inside it."""
        return SchemaFault(file=self.file, pointer=json_pointer([*self.path, *path]), text=text)

    def walk(self) -> Iterator["Place"]:
        """Yield this schema and all inner ones, except `true` and `false`, which can have no fault."""
        yield self
        for schema, path in inside(self.schema):
            place = Place(schema=schema, file=self.file, path=(*self.path, *path), dialect=self.dialect)
            yield from place.walk()


def inside(schema: JsonObject, keywords: Collection[str] = EVERYWHERE) -> Iterator[tuple[JsonObject, Path]]:
    """Yield the schemas directly below some keywords, each with its path from there."""
    for keyword in schema.keys() & set(keywords):
        value = schema[keyword]
        found: Iterable[tuple[object, Path]] = []
        if keyword in SCHEMAS_IN_ARRAY and isinstance(value, list):
            found = ((inner, (keyword, index)) for index, inner in enumerate(value))
        elif keyword in SCHEMAS_BY_NAME and isinstance(value, dict):
            found = ((inner, (keyword, name)) for name, inner in value.items())
        elif keyword in ONE_SCHEMA:
            found = [(value, (keyword,))]
        yield from ((inner, path) for inner, path in found if isinstance(inner, dict))


def json_pointer(path: Iterable[str | int]) -> str:
    """Return a path as a JSON Pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
