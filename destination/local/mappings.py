"""Read the event source mappings of template.yaml. Each property is emulated on this machine, or refused.

https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-parameters.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import click

from handler.decode import JsonObject

IGNORED = frozenset({"MaximumBatchingWindowInSeconds", "ParallelizationFactor", "ScalingConfig"})
"""Properties that affect only the speed of a mapping."""


@dataclass(frozen=True, kw_only=True)
class StreamMapping:
    """A mapping of type DynamoDB in template.yaml; stores by their logical names.

    A record that matches none of `patterns` is left out; None lets all pass. With `max_retries` of -1, a batch is
    retried without a limit.
    """

    table: str
    batch_size: int
    patterns: tuple[JsonObject, ...] | None
    reports_failures: bool
    bisects: bool
    max_retries: int
    on_failure: str | None

    @classmethod
    def of(cls, event: str, properties: Mapping[str, Any]) -> Self:
        """Read an event; raises `click.ClickException` for a property that is not emulated."""
        rest = dict(properties)
        if (position := rest.pop("StartingPosition")) != "TRIM_HORIZON":
            raise click.ClickException(f"template.yaml: {event} starts at {position}, which `serve` does not support")
        filters = rest.pop("FilterCriteria", None)
        destination = rest.pop("DestinationConfig", {"OnFailure": {"Destination": None}})["OnFailure"]["Destination"]
        mapping = cls(
            table=_store(event, rest.pop("Stream"), "StreamArn"),
            batch_size=rest.pop("BatchSize", 100),
            patterns=filters and tuple(_read_pattern(event, each["Pattern"]) for each in filters["Filters"]),
            reports_failures="ReportBatchItemFailures" in rest.pop("FunctionResponseTypes", ()),
            bisects=rest.pop("BisectBatchOnFunctionError", False),
            max_retries=rest.pop("MaximumRetryAttempts", -1),
            on_failure=destination and _store(event, destination, "Arn"),
        )
        _check_nothing_left(event, rest)
        return mapping


@dataclass(frozen=True, kw_only=True)
class QueueMapping:
    """A mapping of type SQS in template.yaml; the queue by its logical name."""

    queue: str
    batch_size: int
    reports_failures: bool

    @classmethod
    def of(cls, event: str, properties: Mapping[str, Any]) -> Self:
        """Read an event; raises `click.ClickException` for a property that is not emulated."""
        rest = dict(properties)
        mapping = cls(
            queue=_store(event, rest.pop("Queue"), "Arn"),
            batch_size=rest.pop("BatchSize", 10),
            reports_failures="ReportBatchItemFailures" in rest.pop("FunctionResponseTypes", ()),
        )
        _check_nothing_left(event, rest)
        return mapping


def _store(event: str, reference: Any, attribute: str) -> str:  # noqa: ANN401 -- a value from YAML
    match reference:
        case {"Fn::GetAtt": [str(name), str(named)]} if named == attribute:
            return name
    raise click.ClickException(f"template.yaml: {event} does not name its store by !GetAtt STORE.{attribute}")


def _check_nothing_left(event: str, properties: Mapping[str, Any]) -> None:
    if unknown := properties.keys() - IGNORED:
        raise click.ClickException(f"template.yaml: {event} has {', '.join(unknown)}, which `serve` does not support")


def _read_pattern(event: str, text: str) -> JsonObject:
    """Read an event pattern; raises `click.ClickException` for anything except lists of strings."""
    pattern: JsonObject = json.loads(text)
    _check_pattern(event, pattern)
    return pattern


def _check_pattern(event: str, pattern: JsonObject) -> None:
    for name, wanted in pattern.items():
        if isinstance(wanted, dict):
            _check_pattern(event, wanted)
        elif not isinstance(wanted, list) or not all(isinstance(value, str) for value in wanted):
            raise click.ClickException(
                f"template.yaml: {event} filters {name} by more than strings, which `serve` does not support"
            )


def fits(pattern: JsonObject, record: JsonObject) -> bool:
    """Return whether a record matches a pattern: in each place, one of the listed strings.

    https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html
    """
    for name, wanted in pattern.items():
        value = record.get(name)
        if isinstance(wanted, dict):
            if not isinstance(value, dict) or not fits(wanted, value):
                return False
        elif value not in wanted:
            return False
    return True
