"""Find patterns that the destination can't use, or should not."""

from collections.abc import Iterator

from destination.schemas.backtracking import is_slow
from destination.schemas.places import Place, SchemaFault
from handler.patterns import PatternError, python_pattern


def pattern_faults(place: Place) -> Iterator[SchemaFault]:
    """Yield the patterns of a schema that Python can't express, or that can take very long."""
    if isinstance(pattern := place.schema.get("pattern"), str):
        # A longer text is refused before the pattern is tried.
        yield from _faults(pattern, place, "pattern", max_length=place.schema.get("maxLength"))
    if isinstance(by_pattern := place.schema.get("patternProperties"), dict):
        for name in by_pattern:
            yield from _faults(name, place, "patternProperties", name)


def _faults(pattern: str, place: Place, *path: str, max_length: float | None = None) -> Iterator[SchemaFault]:
    subject = "pattern" if path == ("pattern",) else "a name in patternProperties"
    try:
        python_pattern(pattern)
    except PatternError as error:
        yield place.fault(f"{subject} must be in the format regex: {error}", *path)
        return
    if is_slow(pattern, max_length):
        limit = ", or set a smaller maxLength in the same schema" if path == ("pattern",) else ""
        yield place.fault(
            f"{subject} can take minutes for some texts, because it can match one text in very many ways: write it so "
            f"that each character fits one place only, such as ^(\\w+\\s)*\\w*$ for ^(\\w+\\s?)*${limit}",
            *path,
        )
