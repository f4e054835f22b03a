"""`destination status`: key figures of the last hours or days, and how far it is to Segment's private beta."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from destination.commands.options import ID, SINCE, target_options
from destination.console import Rows, counted, stdout
from destination.deployment.key_table import KeyTable
from destination.deployment.target import StackLogs, Target
from destination.watching.open_log import open_log
from destination.watching.request_log import NEVER, Caller, Figures, Period, RequestLog, Tally
from handler.errors import STORE_ERRORS
from handler.keys import Status

BETA_CUSTOMERS = 10
BETA_EVENTS = 20_000_000
"""What Segment asks of a destination before its private beta ends; one of the two suffices."""
NAMESPACE = "DirectDestination"
"""Of the metrics that the function writes (`handler/observe.py`)."""
METRIC_DAYS = 455
"""For which CloudWatch keeps a metric."""
SECONDS_PER_DAY = 24 * 60 * 60
UNKNOWN = "(unknown)"
PLAYED = ("simulated-", "certify-")
"""How customers begin that `destination simulate` and `certify` make: they count for no beta."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a deployment is: events accepted since a day, and customers of whom one was within a period.

    `holders` is the number of customers with active keys.
    """

    events: int
    since: date | None
    source: str
    customers: int
    period: str
    holders: int

    @property
    def is_reached(self) -> bool:
        """Whether Segment's bar is reached."""
        return self.customers >= BETA_CUSTOMERS or self.events >= BETA_EVENTS


@click.command()
@click.option("--since", "period", type=SINCE, default="24h", show_default=True, help="1h, 24h, 7d …, or all.")
@click.option(
    "--customer",
    "customer_id",
    type=ID,
    help="Only this customer's messages. Requests and the private beta are not shown then.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, for programs.")
@target_options
def status(*, target: Target, period: Period, customer_id: str | None, as_json: bool) -> None:
    """Show key figures of the last hours or days.

    They are what was accepted, refused and failed, by customer and call type, and the progress in Segment's private
    beta. A stack's log is read by CloudWatch Logs Insights, which is paid by what it reads. A metric, which CloudWatch
    keeps for 15 months, counts the accepted events. Exits with 1 when its tables contradict each other, after it has
    printed them and what that can mean.

    \b
    Example:
      destination status --stack direct-destination --since 1h
    """
    log = open_log(target)
    try:
        figures = log.figures(period)
        progress: Progress | str
        try:
            progress = measure(target, log, figures, period)
        except STORE_ERRORS as error:
            progress = f"How near Segment's private beta is can't be told: {error}"
    finally:
        for remark in log.remarks:
            click.echo(remark, err=True)
    if customer_id is not None:
        figures.keep(customer_id)
    if as_json:
        click.echo(json.dumps(_to_json(figures, progress, period)))
    else:
        _show(figures, progress, period, is_of_all=customer_id is None)
    if figures.contradictions:
        raise click.exceptions.Exit(1)


def _show(figures: Figures, progress: Progress | str, period: Period, *, is_of_all: bool) -> None:
    """Print the figures for people."""
    console = stdout()
    span = f"{period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC"
    first = f"the first line is of {figures.first:%Y-%m-%d %H:%M:%S}" if figures.first else "there is no line"
    console.print(Text(f"{period.words[0].upper()}{period.words[1:]}: {span}; {first}.", "bold"), soft_wrap=True)
    if figures.tallies:
        console.print()
        console.print(_messages(figures))
    reasons = _reasons(figures)
    if reasons.row_count:
        console.print()
        console.print(reasons)
    if not is_of_all:
        return  # requests name no customer, and the private beta is about all of them
    _show_requests(console, figures)
    console.print()
    for sentence in _beta(progress):
        console.print(Text(sentence), soft_wrap=True)


def _show_requests(console: Console, figures: Figures) -> None:
    """Print the table of requests, and what in it does not fit the tables of messages."""
    if figures.answers:
        console.print()
        console.print(_requests(figures))
    for sentence in figures.contradictions:
        console.print()
        console.print(Text(sentence, "yellow"), soft_wrap=True)


def measure(target: Target, log: RequestLog, figures: Figures, period: Period) -> Progress:
    """Return how near the private beta is; raises one of `STORE_ERRORS`."""
    keys = KeyTable(target.account.dynamodb(), target.stores.key_table)
    holders = len({key.customer_id for key in keys if key.standing == Status.ACTIVE})
    if isinstance(target.logs, StackLogs):
        events, since = _accepted_of_stack(target, target.logs)
        source = "CloudWatch's metric"
    else:
        figures, period = log.figures(Period.everything()), Period.everything()
        events, since = figures.total.accepted, figures.first and figures.first.date()
        source = "the log"
    return Progress(
        events=events,
        since=since,
        source=source,
        customers=len([customer for customer in figures.senders if not customer.startswith(PLAYED)]),
        period=period.words,
        holders=holders,
    )


def _accepted_of_stack(target: Target, logs: StackLogs) -> tuple[int, date | None]:
    """Return how many messages were accepted, and since when, by a metric, which outlives the lines."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = (
        target.account.cloudwatch()
        .get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName="Accepted",
            Dimensions=[{"Name": "service", "Value": logs.stack}],
            StartTime=today - timedelta(days=METRIC_DAYS - 1),
            EndTime=today + timedelta(days=1),
            Period=SECONDS_PER_DAY,
            Statistics=["Sum"],
        )
        .get("Datapoints", [])
    )
    since = min((day["Timestamp"].date() for day in days if "Timestamp" in day), default=None)
    return round(sum(day.get("Sum", 0) for day in days)), since


def _messages(figures: Figures) -> Rows:
    table = Rows(
        "Customer",
        "Calls",
        "Accepted",
        "Duplicates",
        "Refused",
        "Failed",
        "Last (UTC)",
        right=range(2, 6),
        whole=(6,),
        folded=(0,),
    )
    rows = sorted(figures.tallies.items(), key=_trouble_first)
    for (customer, call_type), tally in rows:
        table.add_row(customer or UNKNOWN, call_type or UNKNOWN, *_cells(tally))
    if len(rows) > 1:
        table.add_row("all", "", *_cells(figures.total), style="bold")
    return table


def _reasons(figures: Figures) -> Rows:
    """Return a table of refusals and failures, a code on each row: a list of codes in a cell needs a wide terminal."""
    table = Rows("Customer", "Calls", "Code", "Refused", "Failed", right=(3, 4), folded=(0,))
    for (customer, call_type), tally in sorted(figures.tallies.items(), key=_trouble_first):
        for code, _ in (tally.refused + tally.failed).most_common():
            counts = (tally.refused[code], tally.failed[code])
            table.add_row(customer or UNKNOWN, call_type or UNKNOWN, code, *(f"{count:,}" for count in counts))
    return table


def _trouble_first(row: tuple[Caller, Tally]) -> tuple[int, int, str, str]:
    (customer, call_type), tally = row
    return -tally.failed.total(), -tally.refused.total(), customer or "", call_type or ""


def _cells(tally: Tally) -> Iterator[Text]:
    refused, failed = tally.refused.total(), tally.failed.total()
    yield Text(f"{tally.accepted:,}")
    yield Text(f"{tally.duplicates:,}")
    yield Text(f"{refused:,}", "yellow" if refused else "")
    yield Text(f"{failed:,}", "red" if failed else "")
    yield Text(f"{tally.last_seen:%m-%d %H:%M:%S}" if tally.last_seen > NEVER else UNKNOWN)


def _requests(figures: Figures) -> Rows:
    classes: Counter[str] = Counter()
    answers: Counter[tuple[str, str]] = Counter()
    without: Counter[str] = Counter()
    for (_, answer, by_function), count in figures.answers.items():
        kind = f"{answer // 100}xx" if answer else UNKNOWN
        classes[kind] += count
        answers[(kind, str(answer or UNKNOWN))] += count
        without[kind] += 0 if by_function else count
    table = Rows("Answer", "Requests", "By API Gateway itself", "Which", right=(1, 2))
    for kind in sorted(classes):
        each = ", ".join(f"{answer} {count:,}" for (of, answer), count in sorted(answers.items()) if of == kind)
        table.add_row(kind, f"{classes[kind]:,}", f"{without[kind]:,}", each)
    return table


def _beta(progress: Progress | str) -> Iterator[str]:
    if isinstance(progress, str):
        yield progress
        return
    since = f" since {progress.since}" if progress.since else ""
    yield (
        f"Segment's private beta asks for {BETA_CUSTOMERS} customers or {BETA_EVENTS:,} events"
        f"{', which is reached' if progress.is_reached else ''}:"
    )
    yield f"{progress.events:,} events were accepted{since}, as {progress.source} tells, your own tests among them;"
    yield (
        f"{counted(progress.customers, 'customer')} had one accepted in {progress.period}, without those of "
        f"`destination simulate` and `certify`; {progress.holders:,} with active API keys."
    )


def _to_json(figures: Figures, progress: Progress | str, period: Period) -> dict[str, Any]:
    def numbers(tally: Tally) -> dict[str, Any]:
        return {
            "accepted": tally.accepted,
            "duplicates": tally.duplicates,
            "refused": dict(tally.refused),
            "failed": dict(tally.failed),
        }

    return {
        "since": period.since.isoformat(timespec="seconds"),
        "until": period.until.isoformat(timespec="seconds"),
        "first_line": figures.first and figures.first.isoformat(timespec="milliseconds"),
        "messages": [
            {
                "customer_id": customer,
                "call_type": call_type,
                **numbers(tally),
                "last_seen": tally.last_seen.isoformat(timespec="milliseconds") if tally.last_seen > NEVER else None,
            }
            for (customer, call_type), tally in figures.tallies.items()
        ],
        "total": numbers(figures.total),
        "requests": [
            {"route": route, "status": answer, "by_function": by_function, "requests": count}
            for (route, answer, by_function), count in figures.answers.items()
        ],
        "contradictions": list(figures.contradictions),
        "private_beta": {"error": progress}
        if isinstance(progress, str)
        else {
            "events": progress.events,
            "events_since": progress.since and str(progress.since),
            "customers": progress.customers,
            "customers_period": progress.period,
            "customers_with_active_keys": progress.holders,
            "reached": progress.is_reached,
        },
    }
