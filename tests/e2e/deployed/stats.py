"""Queries of CloudWatch Logs Insights with `stats`, as far as `destination status` needs them.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/logsdb/CWL_QuerySyntax-Stats.html
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Fields = dict[str, Any]
QUERY = re.compile(r'(?:filter (?P<name>\w+) = "(?P<value>\w+)" \| )?stats (?P<values>.+) by (?P<groups>.+)')
VALUE = re.compile(r"(?P<function>count|sum|min|max)\((?P<field>[^)]+)\) as (?P<name>\w+)")
FUNCTIONS: dict[str, Callable[[Sequence[Any]], Any]] = {"count": len, "sum": sum, "min": min, "max": max}


def rows_of(query: str, records: Sequence[Fields]) -> list[list[dict[str, str]]]:
    """Return the rows of a query over log records. Raises `ValueError` for an unsupported query."""
    parsed = QUERY.fullmatch(query)
    if parsed is None:
        raise ValueError(f"This query is not known: {query}")
    groups = [name.strip(" `") for name in parsed["groups"].split(",")]
    found: dict[tuple[str | None, ...], list[Fields]] = {}
    for fields in map(fields_of, records):
        if parsed["name"] is None or fields.get(parsed["name"]) == parsed["value"]:
            found.setdefault(tuple(map(fields.get, groups)), []).append(fields)
    return [
        [
            {"field": name, "value": str(value)}
            for name, value in [*zip(groups, key, strict=True), *_values(parsed["values"], of_group)]
            if value is not None
        ]
        for key, of_group in found.items()
    ]


def _values(expressions: str, records: Sequence[Fields]) -> Iterator[tuple[str, Any]]:
    for expression in VALUE.finditer(expressions):
        name = expression["field"].strip(" `")
        values = [1 if name == "*" else fields[name] for fields in records if name == "*" or name in fields]
        yield expression["name"], FUNCTIONS[expression["function"]](values) if values else None


def fields_of(record: Fields) -> Fields:
    """Return the fields of a record and of its message, if that is JSON. An element of a list is `Accepted.0`."""
    try:
        message = json.loads(record["@message"])
    except ValueError:
        message = None
    return {**record, **(dict(_leaves("", message)) if isinstance(message, dict) else {})}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    nested = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if nested is None:
        yield path, value
        return
    for name, inner in nested:
        yield from _leaves(f"{path}.{name}" if path else str(name), inner)
