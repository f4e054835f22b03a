"""`destination status`: key figures of the last hours or days, and the progress towards Segment's private beta."""

import json

import click
from rich.text import Text

from destination.commands.options import ID, SINCE, json_option, target_options
from destination.console import counted, stdout
from destination.deployment.target import Target
from destination.watching.open_log import open_log
from destination.watching.request_log import Figures, Period
from destination.watching.status import BetaProgress, beta_progress
from destination.watching.status_report import beta_sentences, messages_table, reasons_table, show_requests, to_json
from handler.errors import STORE_ERRORS


@click.command()
@click.option("--since", "period", type=SINCE, default="24h", show_default=True, help="1h, 24h, 7d …, or all.")
@click.option(
    "--customer",
    "customer_id",
    type=ID,
    help="Only messages of this customer, without requests and the private beta.",
)
@json_option()
@target_options
def status(*, target: Target, period: Period, customer_id: str | None, as_json: bool) -> None:
    """Show key figures of the last hours or days.

    They count accepted, refused and failed messages by customer and call type, and show the progress towards Segment's
    private beta. For a stack, CloudWatch Logs Insights reads the log; AWS charges by the scanned bytes. A metric, which
    CloudWatch keeps for 15 months, counts the accepted events. Exits with 1 if its tables contradict each other; it
    prints them and the possible reasons first.

    \b
    Example:
      destination status --stack direct-destination --since 1h
    """
    log = open_log(target)
    try:
        figures = log.figures(period)
        progress: BetaProgress | str
        try:
            progress = beta_progress(target, log, figures, period)
        except STORE_ERRORS as error:
            progress = f"The progress towards Segment's private beta is unknown: {error}"
    finally:
        for remark in log.remarks:
            click.echo(remark, err=True)
    if customer_id is not None:
        figures.keep(customer_id)
    if as_json:
        click.echo(json.dumps(to_json(figures, progress, period)))
    else:
        _show(figures, progress, period, is_of_all=customer_id is None)
    if figures.contradictions:
        raise click.exceptions.Exit(1)


def _show(figures: Figures, progress: BetaProgress | str, period: Period, *, is_of_all: bool) -> None:
    """Print the figures for people."""
    console = stdout()
    span = f"{period.since:%Y-%m-%d %H:%M} to {period.until:%Y-%m-%d %H:%M} UTC"
    first = f"the first line is of {figures.first:%Y-%m-%d %H:%M:%S}" if figures.first else "there is no line"
    console.print(
        Text(f"{period.words[0].upper()}{period.words[1:]}: {span}; {first}.", "bold"),
        soft_wrap=not console.is_terminal,
    )
    if figures.tallies:
        console.print()
        console.print(messages_table(figures))
    reasons = reasons_table(figures)
    if reasons.row_count:
        console.print()
        console.print(reasons)
    if not is_of_all:
        return  # requests have no customer, and the private beta counts all customers
    if figures.consumer_failures:
        tries = counted(figures.consumer_failures, "time")
        console.print()
        console.print(
            Text(f"The consumer failed {tries} to handle a message: `destination trace ID` shows each.", "red")
        )
    show_requests(console, figures)
    console.print()
    for sentence in beta_sentences(progress):
        console.print(Text(sentence), soft_wrap=not console.is_terminal)
