"""Patterns that the destination can't use, or should not."""

from collections.abc import Iterator

from cli.schemas.backtracking import is_exponential
from cli.schemas.places import Fault, Place
from handler.decode import JsonObject
from handler.patterns import PatternError, parse_pattern, python_pattern


def pattern_faults(place: Place) -> Iterator[Fault]:
    """Yield the patterns of a schema that Python can't express, and patterns that can take exponential time."""
    for pattern, path in _patterns_in(place.schema):
        subject = "pattern" if path == ("pattern",) else "a name in patternProperties"
        try:
            python_pattern(pattern)
        except PatternError as error:
            yield place.fault(f"{subject} must be in the format regex: {error}", *path)
            continue
        if is_exponential(parse_pattern(pattern)):
            yield place.fault(
                f"{subject} can take minutes for a text of 40 characters, because a repetition can read one text in "
                "several ways: write it so that each character fits one place only, such as "
                "^(\\w+\\s)*\\w*$ for ^(\\w+\\s?)*$",
                *path,
            )


def _patterns_in(schema: JsonObject) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the patterns right in a schema, each with its path from there."""
    if isinstance(pattern := schema.get("pattern"), str):
        yield pattern, ("pattern",)
    if isinstance(by_pattern := schema.get("patternProperties"), dict):
        yield from ((pattern, ("patternProperties", pattern)) for pattern in by_pattern)
