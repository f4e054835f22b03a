"""Compile schemas to Python code that accepts valid documents. `sam build` adds the code to the artifact.

fastjsonschema generates the code. The code may refuse a document that `jsonschema` accepts, because `jsonschema` then
decides. It must never accept a document that `jsonschema` refuses. So a schema is compiled only if all of its keywords
guarantee this. `jsonschema` alone judges the other schemas, which takes many times as long.
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
"""The formats that compiled schemas check.

`email` is checked as in `jsonschema`. fastjsonschema's own pattern is stricter, and takes quadratic time.
"""
MAX_LISTED = {"allOf": 100, "anyOf": 4, "enum": 100, "properties": 100, "required": 100}
"""The longest list that is fast enough for each keyword. Longer ones are slow, because each entry of an array tries the
list one by one."""

_CERTAIN = {
    *("$comment", "default", "description", "errorMessage", "examples", "title"),
    *("$ref", "additionalProperties", "allOf", "anyOf", "definitions", "properties", "required", "type"),
    *("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties", "pattern"),
}
"""Keywords whose compiled form never accepts more than `jsonschema` does.

`multipleOf` and `uniqueItems` are missing because the two libraries compare values differently. `not`, `oneOf` and `if`
are missing because they would turn a refusal that is too strict into an acceptance.
"""
_SCHEMAS_IN_ARRAY = {"allOf", "anyOf"}
_SCHEMAS_BY_NAME = {"definitions", "properties"}
_ONE_SCHEMA = {"additionalProperties", "items"}
_CERTAIN_IF: Mapping[str, Callable[[Any], bool]] = {
    "$schema": lambda name: name.removesuffix("#") == DRAFT7,
    # In Python 1 == True, but not in JSON.
    "enum": lambda values: all(value is None or isinstance(value, str) for value in values),
    "format": lambda name: name in FORMATS,
    "items": lambda schema: not isinstance(schema, list),
    # The generated code would name infinity, which Python does not define.
    **dict.fromkeys(
        ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"),
        lambda limit: not isinstance(limit, float) or math.isfinite(limit),
    ),
}
"""Keywords that are safe for some values only."""

_IMPORT = "from fastjsonschema import JsonSchemaValueException, JsonSchemaValuesException"
_EXCEPTIONS = "class JsonSchemaValueException(Exception): ...\nclass JsonSchemaValuesException(Exception): ..."
"""The two names that the generated code needs from fastjsonschema; importing the package takes too long."""
_SHORT_TEXTS = """
from handler.time_limit import ShortTexts
REGEX_PATTERNS = {text: ShortTexts(pattern) for text, pattern in REGEX_PATTERNS.items()}
"""


def read_schemas(folder: Path) -> dict[str, bytes]:
    """Return the files of a schema folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}


def digest(files: Mapping[str, bytes]) -> str:
    """Return a hash of the schemas, which shows whether compiled code belongs to them."""
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def compile_schemas(files: Mapping[str, bytes], names: tuple[str, ...]) -> str:
    """Return the source of a module for the schemas in `<name>.json`.

    The module has:

    - `DIGEST`
    - `COMPILED`: the set of names that could be compiled
    - `CAN_BE_SLOW`: the set of names that take more than linear time
    - `validate({name: document}, formats)`: raises `JsonSchemaValueException` if a document is not valid; `formats` is
      `FORMATS`

    Raises `PatternError` for a pattern that can't be used.
    """
    from handler.patterns import python_schema  # noqa: PLC0415 -- not needed if the artifact has the code

    documents = {name: python_schema(json.loads(content)) for name, content in files.items()}
    compiled = [name for name in names if is_compilable(f"{name}.json", documents)]
    code = _code(compiled, documents)
    if not code:
        compiled = [name for name in compiled if _code([name], documents)]
        code = _code(compiled, documents)
    if not code:  # they can't be compiled into one module
        compiled, code = [], _code([], documents)
    slow = [name for name in compiled if can_be_slow(f"{name}.json", documents)]
    facts = f"DIGEST = {digest(files)!r}\nCOMPILED = frozenset({compiled})\nCAN_BE_SLOW = frozenset({slow})\n"
    return facts + code.replace(_IMPORT, _EXCEPTIONS) + (_SHORT_TEXTS if "\nREGEX_PATTERNS = " in code else "")


def is_compilable(file: str, documents: Mapping[str, JsonObject]) -> bool:
    """Return whether the compiled form of a schema, and of every schema that it refers to, is safe to use."""
    return all(
        rules and all(_is_certain(keyword, value) for keyword, value in rules)
        for rules in _rules_by_file(file, documents)
    )


def can_be_slow(file: str, documents: Mapping[str, JsonObject]) -> bool:
    """Return whether a compiled schema can be slow: by a pattern, a long list, or alternatives with references."""
    return any(
        keyword == "pattern"
        or (keyword in MAX_LISTED and len(value) > MAX_LISTED[keyword])
        or (keyword == "anyOf" and any(inner == "$ref" for one in value for inner, _ in _rules(one)))
        for rules in _rules_by_file(file, documents)
        for keyword, value in rules
    )


def _rules_by_file(file: str, documents: Mapping[str, JsonObject]) -> Iterator[list[tuple[str, Any]]]:
    """Yield the keywords of a file, and then those in each file that it refers to."""
    waiting = {file}
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        yield (rules := list(_rules(documents.get(name))))
        references = (value.partition("#")[0] for keyword, value in rules if keyword == "$ref")
        waiting |= {reference for reference in references if reference} - seen


def _rules(schema: object) -> Iterator[tuple[str, Any]]:
    """Yield the keywords and values of a schema, and of all schemas inside it."""
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
    """Return whether the compiled form of a keyword never accepts what `jsonschema` refuses."""
    return bool(_CERTAIN_IF[keyword](value)) if keyword in _CERTAIN_IF else keyword in _CERTAIN


def _code(names: Iterable[str], documents: Mapping[str, JsonObject]) -> str:
    """Return code that validates `{name: document}` by the schema of each name; "" if it can't be generated.

    fastjsonschema refuses schemas that no document can satisfy. For some schemas it nests code more deeply than Python
    allows. It also gives two functions the same name if their schemas have similar names (`plan` and `Plan`, `a.b` and
    `a-b`).
    """
    import fastjsonschema  # noqa: PLC0415 -- not needed if the artifact has the code

    try:
        code = fastjsonschema.compile_to_code(
            {"$schema": DRAFT7, "properties": {name: {"$ref": f"{name}.json"} for name in names}},
            handlers={"": documents.__getitem__},
            formats=dict(FORMATS),
            use_default=False,
            detailed_exceptions=False,
        )
        compile(code, "compiled schemas", "exec")
    # The last three errors: fastjsonschema resolves the names of files and properties by the rules for URLs.
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
