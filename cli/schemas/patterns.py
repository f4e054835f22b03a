"""Patterns that the destination can't use."""

from collections.abc import Iterator

from cli.schemas.places import Fault, Place
from handler.patterns import PatternError, patterns_in, python_pattern


def pattern_faults(place: Place) -> Iterator[Fault]:
    """Yield the patterns of a schema for which Python has no equal."""
    for pattern, path in patterns_in(place.schema):
        try:
            python_pattern(pattern)
        except PatternError as error:
            subject = "pattern" if path == ("pattern",) else "a name in patternProperties"
            yield place.fault(f"{subject} must be in the format regex: {error}", *path)
