"""The log groups of a stack: CloudWatch Logs Insights for past lines, FilterLogEvents for new ones.

Live Tail is not used: it shows at most 500 lines a second, drops the others silently, ends after three hours, and is
charged by the minute. FilterLogEvents returns all lines, free of charge, a few seconds later.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from math import isfinite
from time import sleep
from typing import TYPE_CHECKING, Any

import click
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError

from destination.deployment.target import StackLogs
from destination.watching.lines import (
    LOGGED_ID_CHARS,
    UNKNOWN,
    AccessLine,
    ConsumerFailure,
    FunctionLine,
    Line,
    Wanted,
    is_by_function,
    read_consumer_failure,
    read_line,
    status_of,
)
from destination.watching.request_log import Figures, KeyUse, KeyUses, Period, Tally, note_use, oldest_first
from handler.errors import STORE_ERRORS

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient

MAX_ROWS = 10_000
"""Insights' limit for the rows of one query."""
FIRST_WAIT_SECONDS = 0.2
MAX_WAIT_SECONDS = 2.0
"""Longest pause between two polls for the result of a query."""
IDS_OF_A_QUERY = 200
"""Request ids in one query, whose text may have 10,000 characters."""
ANSWER_MARGIN = timedelta(minutes=1)
"""Longest time between a line of the function and the API's line: a request takes at most half a minute."""
CLOCK_MARGIN = timedelta(minutes=5)
"""Tolerance for a slow clock of ours. AWS refuses requests if the clock is wrong by more."""

POLL_SECONDS = 2.0
"""All callers of an account together may call FilterLogEvents five times a second."""
LATE = timedelta(seconds=30)
"""Lines arrive in CloudWatch some seconds after their time, so each poll looks back for this long."""
RETRY_SECONDS = 5.0
BEFORE = timedelta(hours=1)
"""How far back earlier lines are looked for."""
PASSING_CODES = ("ThrottlingException", "ServiceUnavailableException", "InternalFailure")
REQUESTS_PATTERN = '{ $.message = "request" }'
OTHER_ANSWERS_PATTERN = '{ ($.integrationStatus != "200") || ($.status = "500") }'
"""Answers that did not come from the function.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html"""

CONSUMER_FAILED_CONDITION = 'outcome = "consumer_failed"'
"""Insights' condition for the lines of `consumer/runtime/batch.py` about one message."""

Row = Mapping[str, str]


class CloudLog:
    """Queries CloudWatch; `scanned_bytes` is the amount that Insights scanned, which AWS charges for."""

    def __init__(
        self,
        client: "CloudWatchLogsClient",
        logs: StackLogs,
        *,
        poll_seconds: float = POLL_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._client = client
        self._logs = logs
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._scanned_bytes = 0
        self._notes: list[str] = []
        self._ahead = timedelta()
        """How far our clock is ahead of AWS's clock, according to the last query."""

    def __str__(self) -> str:
        return f"the logs of the stack {self._logs.stack}"

    @property
    def remarks(self) -> list[str]:
        """Remarks for the user about the answers so far."""
        scanned = f"CloudWatch Logs Insights scanned {self._scanned_bytes / 1e6:,.1f} MB."
        return [*self._notes, *([scanned] if self._scanned_bytes else [])]

    def lines_of(self, message_id: str, period: Period) -> Sequence[FunctionLine]:
        """Return the function's lines about a message. Lines of the last seconds may be missing."""
        query = (
            f'fields @message | filter message = "request" and @message like /{_pattern(message_id)}/ '
            "| sort @timestamp desc"
        )
        rows = self._ask(self._logs.function_group, query, period.since, period.until + CLOCK_MARGIN)
        found = map(read_line, (row.get("@message", "") for row in rows))
        return oldest_first(line for line in found if isinstance(line, FunctionLine) and line.names(message_id))

    def answers(self, lines: Collection[FunctionLine]) -> Mapping[str, AccessLine]:
        """Return the API's answers."""
        ids = sorted({line.request_id for line in lines if re.fullmatch(r"[\w=/+-]+", line.request_id, re.ASCII)})
        if not ids:
            return {}
        since = min(line.time for line in lines) - ANSWER_MARGIN
        until = max(line.time for line in lines) + ANSWER_MARGIN
        found: list[Line | None] = []
        for begin in range(0, len(ids), IDS_OF_A_QUERY):
            named = ", ".join(f'"{request_id}"' for request_id in ids[begin : begin + IDS_OF_A_QUERY])
            rows = self._ask(self._logs.api_group, f"fields @message | filter requestId in [{named}]", since, until)
            found += [read_line(row.get("@message", "")) for row in rows]
        return {line.request_id: line for line in found if isinstance(line, AccessLine)}

    def consumer_failures(self, message_id: str, period: Period) -> Sequence[ConsumerFailure]:
        """Return the consumer's failures to handle a message, oldest first; nothing if the consumer is off."""
        if self._logs.consumer_group is None:
            return ()
        query = (
            f"fields @timestamp, @message | filter {CONSUMER_FAILED_CONDITION} and @message like "
            f"/{_pattern(message_id)}/ | sort @timestamp asc"
        )
        rows = self._ask(self._logs.consumer_group, query, period.since, period.until + CLOCK_MARGIN)
        logged_id = message_id[:LOGGED_ID_CHARS]
        found = (read_consumer_failure(row.get("@message", ""), _time(row.get("@timestamp"))) for row in rows)
        return [failure for failure in found if failure is not None and logged_id in failure.message_ids]

    def figures(self, period: Period) -> Figures:
        """Add up the metrics in the lines, whose values are arrays of one number."""
        figures = Figures(consumer_failures=self._count_consumer_failures(period))
        query = (
            'filter message = "request" | stats sum(Accepted.0) as accepted, sum(Duplicate.0) as duplicate, '
            "sum(Refused.0) as refused, sum(Failed.0) as failed, sum(requests) as requests, "
            "min(@timestamp) as first, max(@timestamp) as last by `customer_id`, `call_type`, code, status"
        )
        until = period.until + CLOCK_MARGIN
        for row in self._ask(self._logs.function_group, query, period.since, until):
            code = row.get("code", "")
            tally = Tally(accepted=_count(row, "accepted"), duplicates=_count(row, "duplicate"))
            if refused := _count(row, "refused"):
                tally.refused[code] = refused
            if failed := _count(row, "failed"):
                tally.failed[code] = failed
            if known := status_of(row.get("status", "")):
                accepted = tally.accepted + tally.duplicates
                figures.note_answer(known, _share(row, "requests"), accepted=accepted)
            if last := _time(row.get("last")):
                tally.last_seen = last
            if first := _time(row.get("first")):
                figures.begin(first)
            figures.tallies[(row.get("customer_id"), row.get("call_type"))] += tally
        query = "stats count(*) as requests, min(@timestamp) as first by route, status, integrationStatus"
        for row in self._ask(self._logs.api_group, query, period.since, until):
            known = status_of(row.get("status", ""))
            by_function = is_by_function(known, row.get("integrationStatus"))
            figures.answers[(row.get("route", UNKNOWN), known, by_function)] += _count(row, "requests")
            if first := _time(row.get("first")):
                figures.begin(first)
        return figures

    def _count_consumer_failures(self, period: Period) -> int | None:
        """Return how often the consumer failed to handle a message, None if the consumer is off."""
        if self._logs.consumer_group is None:
            return None
        query = f"filter {CONSUMER_FAILED_CONDITION} | stats count(*) as failures"
        rows = self._ask(self._logs.consumer_group, query, period.since, period.until + CLOCK_MARGIN)
        return sum(_count(row, "failures") for row in rows)

    def key_uses(self, customer_id: str, period: Period) -> KeyUses:
        """Return when each key of a customer was last used."""
        query = (
            f"filter {_of_function(Wanted(customer_id=customer_id))} | stats max(@timestamp) as last by `key`, status"
        )
        uses: KeyUses = {}
        for row in self._ask(self._logs.function_group, query, period.since, period.until + CLOCK_MARGIN):
            if last := _time(row.get("last")):
                note_use(uses, row.get("key") or None, KeyUse(time=last, status=status_of(row.get("status", ""))))
        return uses

    def _ask(
        self, group: str, query: str, since: datetime, until: datetime, enough: int | None = None
    ) -> Sequence[Row]:
        """Return the rows of a query, or enough of them. An early end, such as Control-C, stops the query."""
        with _named(group):
            begun = self._client.start_query(
                logGroupName=group,
                startTime=max(0, int(since.timestamp())),
                endTime=int(until.timestamp()) + 1,
                queryString=query,
                limit=enough or MAX_ROWS,
            )
        query_id = begun.get("queryId")
        if query_id is None:
            raise click.ClickException("CloudWatch Logs Insights did not start a query: try again")
        self._ahead = datetime.now(UTC) - _answered_at(begun)
        try:
            rows = self._wait_for(query_id)
        except BaseException:
            with suppress(*STORE_ERRORS):  # it says that the query has already ended
                self._client.stop_query(queryId=query_id)
            raise
        if enough is None and len(rows) >= MAX_ROWS:
            note = f"There are more than the {MAX_ROWS:,} rows that were read: ask for less by --since."
            self._notes = [*(other for other in self._notes if other != note), note]
        return rows

    def _wait_for(self, query_id: str) -> Sequence[Row]:
        wait = FIRST_WAIT_SECONDS
        while True:
            sleep(wait)
            wait = min(MAX_WAIT_SECONDS, wait * 2)
            answer = self._client.get_query_results(queryId=query_id)
            status = answer.get("status", "Unknown")
            if status == "Complete":
                self._scanned_bytes += int(answer.get("statistics", {}).get("bytesScanned", 0))
                return [
                    {field["field"].strip("`"): field["value"] for field in row if field.keys() >= {"field", "value"}}
                    for row in answer.get("results", [])
                ]
            if status not in ("Scheduled", "Running", "Unknown"):
                raise click.ClickException(
                    f"CloudWatch Logs Insights ended a query as {status.lower()}: try again, or ask for less by --since"
                )

    def follow(self, wanted: Wanted, last: int) -> Iterator[Line | None]:
        """Yield lines some seconds after their time. Lines that arrive in CloudWatch later than `LATE` are missed."""
        begin: datetime | None = None
        shown: set[str] = set()
        if last:
            now = datetime.now(UTC)
            latest = self._latest(wanted, last, now)
            shown = {line.raw for line in latest}
            yield from latest
            now -= self._ahead
            begin = max([now - LATE, *(line.time for line in latest[:1])])  # Insights may not have these lines yet
        patterns = {self._logs.function_group: REQUESTS_PATTERN}
        if wanted.asks_api:
            patterns[self._logs.api_group] = OTHER_ANSWERS_PATTERN
        feeds = [
            _Feed(self._client, group, pattern, begin, retry_seconds=self._retry_seconds)
            for group, pattern in patterns.items()
        ]
        while True:
            for feed in feeds:
                for raw in feed.read():
                    line = read_line(raw)
                    if line is not None and wanted.takes(line) and raw not in shown:
                        yield line
            yield None
            sleep(self._poll_seconds)

    def _latest(self, wanted: Wanted, count: int, now: datetime) -> list[Line]:
        """Return the latest lines of the last hour. The filter selects only wanted lines, so this many are enough."""
        conditions = {self._logs.function_group: _of_function(wanted)}
        if wanted.asks_api:
            conditions[self._logs.api_group] = _of_api(wanted)
        found = [
            read_line(row.get("@message", ""))
            for group, condition in conditions.items()
            for row in self._ask(
                group,
                f"fields @message | filter {condition} | sort @timestamp desc",
                now - BEFORE,
                now + CLOCK_MARGIN,
                enough=count,
            )
        ]
        lines = (line for line in found if line is not None and wanted.takes(line))
        return sorted(lines, key=lambda line: line.time)[-count:]


def _of_function(wanted: Wanted) -> str:
    """Return Insights' condition for wanted lines of the function."""
    conditions = ['message = "request"']
    if wanted.outcomes:
        conditions.append(f"outcome in {json.dumps(sorted(wanted.outcomes))}")
    for name, value in (("customer_id", wanted.customer_id), ("call_type", wanted.call_type), ("code", wanted.code)):
        if value is not None:
            conditions.append(f"`{name}` = {json.dumps(value, ensure_ascii=False)}")
    if wanted.status is not None:
        lowest, highest = wanted.status.replace("x", "0"), wanted.status.replace("x", "9")
        conditions.append(f"status >= {lowest} and status <= {highest}")
    return " and ".join(conditions)


def _of_api(wanted: Wanted) -> str:
    """Return Insights' condition for answers that did not come from the function; a status is a text there."""
    condition = "@message not like /integrationStatus.: .200/ or @message like /.status.: .500/"
    if wanted.status is None:
        return condition
    return f"({condition}) and @message like /.status.: .{wanted.status.replace('x', '')}/"


class _Feed:
    """New lines of a log group: the last seconds are read repeatedly, because late lines arrive among them.

    Times are AWS's, from its responses: our own clock may be wrong. Without a start time it is the time of the first
    read.
    """

    def __init__(
        self,
        client: "CloudWatchLogsClient",
        group: str,
        pattern: str,
        begin: datetime | None,
        *,
        retry_seconds: float,
    ) -> None:
        self._pages = client.get_paginator("filter_log_events")
        self._group = group
        self._pattern = pattern
        self._retry_seconds = retry_seconds
        self._begin = self._since = begin
        self._first_asked_at: datetime | None = None
        self._seen: dict[str, int] = {}

    def read(self) -> Iterator[str]:
        """Yield new lines; none while CloudWatch throttles or can't be reached."""
        asked_at = datetime.now(UTC)
        self._first_asked_at = self._first_asked_at or asked_at
        answered_at: datetime | None = None
        try:
            with _named(self._group):
                for page in self._pages.paginate(
                    logGroupName=self._group,
                    startTime=_milliseconds(self._since or asked_at),
                    filterPattern=self._pattern,
                ):
                    answered_at = answered_at or _answered_at(page)
                    if self._begin is None:
                        self._begin = self._since = answered_at - (datetime.now(UTC) - self._first_asked_at)
                    for event in page.get("events", []):
                        # the API guarantees none of these fields
                        if not event.keys() >= {"eventId", "timestamp", "message"}:
                            continue
                        if event["eventId"] in self._seen or event["timestamp"] < _milliseconds(self._begin):
                            continue
                        self._seen[event["eventId"]] = event["timestamp"]
                        yield event["message"]
        except (EndpointConnectionError, HTTPClientError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] not in PASSING_CODES:
                raise
            click.echo(f"CloudWatch does not answer. The call is repeated: {error}", err=True)
            sleep(self._retry_seconds)
            return
        if self._begin is None or answered_at is None:  # there is always a page
            return
        self._since = max(self._begin, answered_at - LATE)
        oldest = _milliseconds(self._since)
        self._seen = {event_id: time for event_id, time in self._seen.items() if time >= oldest}


@contextmanager
def _named(group: str) -> Iterator[None]:
    """Raise an error that names a missing log group."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            raise click.ClickException(f"The log group {group} does not exist: was it deleted?") from error
        raise


_LITERAL = re.compile(r"[^A-Za-z0-9_:-]")


def _pattern(message_id: str) -> str:
    """Return a regular expression for a message id as JSON writes it.

    Characters with a special meaning become wildcards, so the expression may match more.
    """
    return _LITERAL.sub(".", json.dumps(message_id[:LOGGED_ID_CHARS]))


def _count(row: Row, name: str) -> int:
    """Return a number of a row, 0 if there was nothing to add up: Insights writes that in several ways."""
    return int(_share(row, name))


def _share(row: Row, name: str) -> float:
    """Return a number of a row with its fraction."""
    try:
        number = float(row.get(name) or 0)
    except ValueError:  # such as "-"
        return 0.0
    return number if isfinite(number) else 0.0


def _time(text: str | None) -> datetime | None:
    """Read a time of Insights: milliseconds since 1970, or a text in UTC; None if it is missing."""
    if not text:
        return None
    try:
        return datetime.fromtimestamp(float(text) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        with suppress(ValueError):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
    return None


def _answered_at(answer: Mapping[str, Any]) -> datetime:
    """Return when AWS answered, by its own clock in whole seconds; by ours if the response has no time."""
    date = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    with suppress(ValueError):
        return parsedate_to_datetime(date or "").astimezone(UTC)
    return datetime.now(UTC)


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
