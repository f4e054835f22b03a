"""What template.yaml says of Lambda's event source mappings. All of it is played on this machine, or refused.

https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-parameters.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import click

from handler.decode import JsonObject

PASSED_OVER = frozenset({"MaximumBatchingWindowInSeconds", "ParallelizationFactor", "ScalingConfig"})
"""Properties that say how fast a mapping works, not what it does."""


@dataclass(frozen=True, kw_only=True)
class StreamMapping:
    """What template.yaml says of an event of type DynamoDB; stores by their logical names.

    A record that no pattern of `patterns` fits is left out; None lets all pass. With `max_retries` of -1 a batch comes
    again for ever.
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
        """Read an event; raises `click.ClickException` where it has what is not played here."""
        rest = dict(properties)
        if (position := rest.pop("StartingPosition")) != "TRIM_HORIZON":
            raise click.ClickException(f"template.yaml: {event} starts at {position}, which is not played here")
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
    """What template.yaml says of an event of type SQS; the queue by its logical name."""

    queue: str
    batch_size: int
    reports_failures: bool

    @classmethod
    def of(cls, event: str, properties: Mapping[str, Any]) -> Self:
        """Read an event; raises `click.ClickException` where it has what is not played here."""
        rest = dict(properties)
        mapping = cls(
            queue=_store(event, rest.pop("Queue"), "Arn"),
            batch_size=rest.pop("BatchSize", 10),
            reports_failures="ReportBatchItemFailures" in rest.pop("FunctionResponseTypes", ()),
        )
        _check_nothing_left(event, rest)
        return mapping


def _store(event: str, reference: Any, attribute: str) -> str:  # noqa: ANN401 -- YAML
    match reference:
        case {"Fn::GetAtt": [str(name), str(named)]} if named == attribute:
            return name
    raise click.ClickException(f"template.yaml: {event} names its store by other means than !GetAtt STORE.{attribute}")


def _check_nothing_left(event: str, properties: Mapping[str, Any]) -> None:
    if unknown := properties.keys() - PASSED_OVER:
        raise click.ClickException(f"template.yaml: {event} has {', '.join(unknown)}, which is not played here")


def _read_pattern(event: str, text: str) -> JsonObject:
    """Read an event pattern; raises `click.ClickException` for what is more than texts in lists."""
    pattern: JsonObject = json.loads(text)
    _check_pattern(event, pattern)
    return pattern


def _check_pattern(event: str, pattern: JsonObject) -> None:
    for name, wanted in pattern.items():
        if isinstance(wanted, dict):
            _check_pattern(event, wanted)
        elif not isinstance(wanted, list) or not all(isinstance(value, str) for value in wanted):
            raise click.ClickException(f"template.yaml: {event} filters {name} by more than texts: not played here")


def fits(pattern: JsonObject, record: JsonObject) -> bool:
    """Tell whether a record has one of the texts that a pattern lists, in each place that it names.

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
