"""Schemas -> Python code that says whether a document is valid, made ahead of time: the artifact has it ready.

fastjsonschema writes the code. It may say no where `jsonschema` says yes, because `jsonschema` is asked then; it must
never say yes where `jsonschema` says no. So a schema is compiled only where it keeps to keywords of which that is
certain; any other one is judged by `jsonschema` alone, which takes many times as long.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from handler.decode import JsonObject
from handler.timestamps import parse_time

DRAFT7 = "http://json-schema.org/draft-07/schema"
FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date-time": lambda text: parse_time(text) is not None,
    "email": lambda text: "@" in text,
}
"""The formats of compiled schemas.

`email` is checked as `jsonschema` does. The pattern of fastjsonschema is stricter, and takes quadratic time.
"""
MAX_LISTED = {"allOf": 100, "anyOf": 4, "enum": 100, "properties": 100, "required": 100}
"""A keyword with a longer list can be slow: the list is tried one by one, for each entry of an array."""

_CERTAIN = {
    *("$comment", "default", "description", "errorMessage", "examples", "title"),
    *("$ref", "additionalProperties", "allOf", "anyOf", "definitions", "properties", "required", "type"),
    *("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties", "pattern"),
}
"""Not among them: `multipleOf` and `uniqueItems`, where the two count differently; `not`, `oneOf` and `if`, which would
turn a no that is too strict into a yes."""
_SCHEMAS_IN_ARRAY = {"allOf", "anyOf"}
_SCHEMAS_BY_NAME = {"definitions", "properties"}
_ONE_SCHEMA = {"additionalProperties", "items"}
_CERTAIN_IF: Mapping[str, Callable[[Any], bool]] = {
    "$schema": lambda name: name.removesuffix("#") == DRAFT7,
    # In Python 1 == True, in JSON not.
    "enum": lambda values: all(value is None or isinstance(value, str) for value in values),
    "format": lambda name: name in FORMATS,
    "items": lambda schema: not isinstance(schema, list),
    # The code would name infinity, which Python does not.
    **dict.fromkeys(
        ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"),
        lambda limit: not isinstance(limit, float) or math.isfinite(limit),
    ),
}
"""What is certain for some values of a keyword only."""

_IMPORT = "from fastjsonschema import JsonSchemaValueException, JsonSchemaValuesException"
_EXCEPTIONS = "class JsonSchemaValueException(Exception): ...\nclass JsonSchemaValuesException(Exception): ..."
"""All that the code needs of the package, which takes a while to import."""
_SHORT_TEXTS = """
from handler.time_limit import ShortTexts
REGEX_PATTERNS = {text: ShortTexts(pattern) for text, pattern in REGEX_PATTERNS.items()}
"""


def read_schemas(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder of schemas by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}


def digest(files: Mapping[str, bytes]) -> str:
    """Return a hash of schemas, by which code that was made of other ones is known."""
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def compile_schemas(files: Mapping[str, bytes], names: tuple[str, ...]) -> str:
    """Return the source of a module for the schemas in `<name>.json`.

    It has `DIGEST`, the set `COMPILED` of the names that could be compiled, the set `CAN_BE_SLOW` of names that take
    more than linear time, and `validate({name: document}, formats)`, which raises `JsonSchemaValueException` if a
    document is not valid. `formats` is `FORMATS`.
    Raises `PatternError` for a pattern that can't be used.
    """
    from handler.patterns import python_schema  # noqa: PLC0415 -- not needed where the code is there already

    documents = {name: python_schema(json.loads(content)) for name, content in files.items()}
    compiled = [name for name in names if is_compilable(f"{name}.json", documents)]
    code = _code(compiled, documents)
    if not code:
        compiled = [name for name in compiled if _code([name], documents)]
        code = _code(compiled, documents)
    if not code:  # they can't be had side by side
        compiled, code = [], _code([], documents)
    slow = [name for name in compiled if can_be_slow(f"{name}.json", documents)]
    facts = f"DIGEST = {digest(files)!r}\nCOMPILED = frozenset({compiled})\nCAN_BE_SLOW = frozenset({slow})\n"
    return facts + code.replace(_IMPORT, _EXCEPTIONS) + (_SHORT_TEXTS if "\nREGEX_PATTERNS = " in code else "")


def is_compilable(file: str, documents: Mapping[str, JsonObject]) -> bool:
    """Whether the compiled form of a schema and of all that it refers to can be relied on."""
    return all(
        rules and all(_is_certain(keyword, value) for keyword, value in rules)
        for rules in _rules_by_file(file, documents)
    )


def can_be_slow(file: str, documents: Mapping[str, JsonObject]) -> bool:
    """Whether a compiled schema can take long: by a pattern, a long list, or alternatives with references."""
    return any(
        keyword == "pattern"
        or (keyword in MAX_LISTED and len(value) > MAX_LISTED[keyword])
        or (keyword == "anyOf" and any(inner == "$ref" for one in value for inner, _ in _rules(one)))
        for rules in _rules_by_file(file, documents)
        for keyword, value in rules
    )


def _rules_by_file(file: str, documents: Mapping[str, JsonObject]) -> Iterator[list[tuple[str, Any]]]:
    """Yield the rules of a file, and then of each file that it refers to."""
    waiting = {file}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        yield (rules := list(_rules(documents.get(name))))
        references = (value.partition("#")[0] for keyword, value in rules if keyword == "$ref")
        waiting |= {reference for reference in references if reference} - seen


def _rules(schema: object) -> Iterator[tuple[str, Any]]:
    """Yield the keywords of a schema, and of all schemas inside it, with their values."""
    if not isinstance(schema, dict):
        return
    yield from schema.items()
    for keyword, value in schema.items():
        inner: Iterable[object] = ()
        if keyword in _SCHEMAS_IN_ARRAY:
            inner = value
        elif keyword in _SCHEMAS_BY_NAME:
            inner = value.values()
        elif keyword in _ONE_SCHEMA:
            inner = [value]
        for one in inner:
            yield from _rules(one)


def _is_certain(keyword: str, value: Any) -> bool:  # noqa: ANN401 -- the value of any keyword
    """Whether the compiled form of a rule never says yes where `jsonschema` says no."""
    return bool(_CERTAIN_IF[keyword](value)) if keyword in _CERTAIN_IF else keyword in _CERTAIN


def _code(names: Iterable[str], documents: Mapping[str, JsonObject]) -> str:
    """Return code that judges `{name: document}` by the schema of each name; "" where that can't be had.

    fastjsonschema refuses schemas by which nothing could ever be valid, writes code that is nested more deeply than
    Python allows, and gives functions one name whose schemas are called alike (`plan` and `Plan`, `a.b` and `a-b`).
    """
    import fastjsonschema  # noqa: PLC0415 -- not needed where the code is there already

    try:
        code = fastjsonschema.compile_to_code(
            {"$schema": DRAFT7, "properties": {name: {"$ref": f"{name}.json"} for name in names}},
            handlers={"": documents.__getitem__},
            formats=dict(FORMATS),
            use_default=False,
            detailed_exceptions=False,
        )
        compile(code, "compiled schemas", "exec")
    # The last three: it looks for the names of files and properties with a URL's rules.
    except (
        fastjsonschema.JsonSchemaDefinitionException,
        SyntaxError,
        RecursionError,
        LookupError,
        OSError,
        ValueError,
    ):
        return ""
    functions = re.findall(r"^def (\w+)", code, re.MULTILINE)
    return code if len(functions) == len(set(functions)) else ""
