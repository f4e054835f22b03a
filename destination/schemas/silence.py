"""Find rules and texts of a schema that JSON Schema, or this destination, would silently ignore.

JSON Schema ignores unknown keywords, so a mistyped keyword is a missing rule. But your own keywords are legal: only
those that look like a known keyword are faults, and `x-…` never is.
"""

import difflib
from collections.abc import Collection, Iterator

from jsonschema import Draft7Validator, Draft202012Validator

from destination.schemas.places import Place, SchemaFault
from handler.decode import JsonObject
from handler.diagnose import FORMATS

LIKENESS = 0.75
"""A word with at least this similarity counts as mistyped; difflib's ratio."""

ERROR_MESSAGE = "errorMessage"
COMMENTS = {
    "$comment",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
}
"""Annotation keywords: nothing is lost if one of them is mistyped."""
STRUCTURE = {
    "$anchor",
    "$defs",
    "$dynamicAnchor",
    "$id",
    "$schema",
    "$vocabulary",
    "definitions",
    "else",
    "maxContains",
    "minContains",
    "then",
    ERROR_MESSAGE,
}
"""Keywords with an effect, besides those that a validator of `jsonschema` implements."""
ERRORS_INSIDE = {
    "$dynamicRef",
    "$ref",
    "allOf",
    "dependentSchemas",
    "if",
    "items",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
}
"""Keywords whose errors come from their inner schemas, which have the texts."""

FORMAT_NAMES = {
    *FORMATS.checkers,
    "duration",
    "hostname",
    "idn-email",
    "idn-hostname",
    "iri",
    "iri-reference",
    "json-pointer",
    "regex",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
}
"""JSON Schema's formats; the destination checks those in `FORMATS`."""

DIALECT_NAMES = {Draft7Validator: "draft-07", Draft202012Validator: "2020-12"}


def silent_faults(place: Place) -> Iterator[SchemaFault]:
    """Yield parts of a schema without effect."""
    schema, rules = place.schema, place.dialect.VALIDATORS.keys()
    foreign = (Draft7Validator.VALIDATORS.keys() | Draft202012Validator.VALIDATORS.keys()) - rules
    for keyword in schema:
        if keyword in foreign:
            yield place.fault(f"{keyword} has no effect: {DIALECT_NAMES[place.dialect]} does not have it", keyword)
        elif (meant := _meant(keyword, rules | STRUCTURE | COMMENTS)) and meant not in COMMENTS | {keyword}:
            yield place.fault(f"{keyword} is not a keyword and has no effect: did you mean {meant}?", keyword)
    name = schema.get("format", "x-none")
    if name not in FORMATS.checkers and not name.startswith("x-"):
        if name not in FORMAT_NAMES and (meant := _meant(name, FORMATS.checkers)):
            yield place.fault(f"{name} is not a format and has no effect: did you mean {meant}?", "format")
        else:
            checked = ", ".join(sorted(FORMATS.checkers))
            yield place.fault(f"the format {name} is not checked here: use pattern, or one of {checked}", "format")
    if place.dialect is Draft7Validator and "$ref" in schema:
        for keyword in sorted(schema.keys() & (rules | {"else", "then", ERROR_MESSAGE}) - {"$ref"}):
            yield place.fault(
                f'{keyword} has no effect next to $ref in draft-07: put the $ref into "allOf": [{{"$ref": …}}]', keyword
            )
    elif ERROR_MESSAGE in schema:
        yield from _text_faults(place, schema[ERROR_MESSAGE])


def _meant(word: str, known: Collection[str]) -> str | None:
    """Return the intended word, which is the word itself if it is known; None for your own keywords."""
    if word.startswith("x-"):
        return None
    if word in known:
        return word
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=LIKENESS)), None)


def _text_faults(place: Place, texts: object) -> Iterator[SchemaFault]:
    """Yield a schema's texts that `handler/explain.py` would not read."""
    if isinstance(texts, str):
        if not texts.strip():
            yield place.fault("the text is empty: say what to fix", ERROR_MESSAGE)
        if not any(_can_speak(place, keyword) for keyword in place.schema):
            yield place.fault("it belongs to no rule: put it next to its rule", ERROR_MESSAGE)
    elif not isinstance(texts, dict) or not texts:
        yield place.fault("it must be a string, or an object of strings by keyword", ERROR_MESSAGE)
    else:
        for keyword, text in texts.items():
            yield from _keyword_text_faults(place, keyword, text)


def _keyword_text_faults(place: Place, keyword: str, text: object) -> Iterator[SchemaFault]:
    here = (ERROR_MESSAGE, keyword)
    if keyword not in place.schema:
        yield place.fault(f"there is no {keyword} next to this {ERROR_MESSAGE}", *here)
    elif not _can_speak(place, keyword):
        yield place.fault(f"{keyword} has no text of its own: put {ERROR_MESSAGE} into the schemas inside it", *here)
    elif keyword != "required":
        if not _is_text(text):
            yield place.fault("it must be a string", *here)
    elif isinstance(text, dict) and text:
        yield from _property_text_faults(place, text)
    elif not _is_text(text):
        yield place.fault("it must be a string, or an object of strings by property", *here)


def _property_text_faults(place: Place, texts: JsonObject) -> Iterator[SchemaFault]:
    for name, text in texts.items():
        here = (ERROR_MESSAGE, "required", name)
        if name not in place.schema["required"]:
            yield place.fault(f"required does not list {name}", *here)
        elif not _is_text(text):
            yield place.fault("it must be a string", *here)


def _is_text(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _can_speak(place: Place, keyword: str) -> bool:
    """Return whether errors of a keyword belong to its own schema, and not to the inner schemas."""
    value = place.schema[keyword]
    if keyword in ("additionalItems", "additionalProperties"):
        return value is False
    if keyword == "items" and place.dialect is Draft202012Validator:
        return value is False
    if keyword == "dependencies":
        return any(isinstance(names, list) for names in value.values())
    if keyword in ("maxContains", "minContains"):
        return "contains" in place.schema
    return keyword in place.dialect.VALIDATORS and keyword not in ERRORS_INSIDE
