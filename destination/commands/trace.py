"""`destination trace`: show the history of one message."""

import itertools
import json
from collections.abc import Collection, Sequence

import click

from destination.commands.options import ID, SINCE, json_option, target_options
from destination.console import printable, stdout
from destination.deployment.target import Target
from destination.watching.history import Delivery, History
from destination.watching.lines import FunctionLine, Wanted
from destination.watching.open_log import open_log
from destination.watching.request_log import Period, RequestLog
from destination.watching.search import Search, SearchResult, describe, find, is_missing
from handler.errors import STORE_ERRORS

LAST_LINES = 20
"""`--last` looks for a message id in this many lines: a refused request may have no id."""


@click.command()
@click.argument("message_id", type=ID, required=False)
@click.option("--last", is_flag=True, help="The last message, instead of MESSAGE_ID.")
@click.option("--since", "period", type=SINCE, default="7d", show_default=True, help="How far back: 30m, 24h, 7d, all.")
@click.option("--customer", "customer_id", type=ID, help="Only messages of this customer.")
@click.option("--user", type=ID, help="Look for it among the stored messages of this user id.")
@click.option(
    "--anonymous", type=ID, help="Look for it among the stored messages of this anonymous id without a user id."
)
@click.option("--scan", is_flag=True, help="Look for it in the whole table; on a stack, the cost depends on its size.")
@json_option()
@target_options
def trace(
    *,
    target: Target,
    message_id: str | None,
    last: bool,
    period: Period,
    customer_id: str | None,
    user: str | None,
    anonymous: str | None,
    scan: bool,
    as_json: bool,
) -> None:
    """Show what happened to a message.

    It shows each delivery, the answer, what the sender did next, and where the message is now.

    For a stack, CloudWatch Logs Insights searches the log; AWS charges by the scanned bytes. The event table has no
    index by message id: name the --user or the --anonymous id, or use --scan. A local server needs neither. Exits with
    1 if nothing is found, and if a message that was accepted or kept is in no table and may be lost.

    \b
    Example:
      destination trace ajs-next-1700000000000-17e0 --stack direct-destination --user 97980cfea0067
    """
    if user is not None and anonymous is not None:
        raise click.UsageError("--user and --anonymous exclude each other")
    if (message_id is None) is not last:
        raise click.UsageError("Give either a MESSAGE_ID or --last")
    log = open_log(target)
    message_id = message_id or _last_message(log, customer_id)
    search = Search(
        message_id=message_id,
        customer_id=customer_id,
        kind="user" if user is not None else "anonymous",
        subject_id=user or anonymous,
        scan=scan,
    )
    try:
        lines = [line for line in log.lines_of(message_id, period) if customer_id in (None, line.customer_id)]
        answers = log.answers(lines)
        failures = log.consumer_failures(message_id, period)
    finally:
        for remark in log.remarks:
            click.echo(remark, err=True)
    try:
        found = find(target, search, lines)
    except STORE_ERRORS as error:
        if not lines:
            raise
        found = SearchResult(items=None, rejects=(), fault=f"AWS answered: {error}")
    if not (lines or found.items or found.rejects):
        raise click.ClickException(_nothing(search, target, log, period))
    deliveries = [Delivery(line=line, answer=answers.get(line.request_id)) for line in lines]
    histories = [
        History(
            customer_id=customer,
            deliveries=[one for one in deliveries if one.line.customer_id == customer],
            consumer_failures=[failure for failure in failures if failure.customer_id == customer],
            result=found.of(customer),
            now=_now(found.of(customer), of_customer, target, period),
            is_missing=found.fault is None and is_missing(found.of(customer), of_customer),
        )
        for customer in sorted({*(line.customer_id or "" for line in lines), *found.customers})
        for of_customer in [[line for line in lines if (line.customer_id or "") == customer]]
    ]
    if as_json:
        document = {
            "message_id": message_id,
            "searched": {"log": str(log), "since": period.since.isoformat(), "until": period.until.isoformat()},
            "customers": [history.to_json() for history in histories],
        }
        click.echo(json.dumps(document))
    else:
        _show(histories, message_id)
    if found.fault is not None or any(history.is_missing for history in histories):
        raise click.exceptions.Exit(1)


def _show(histories: Sequence[History], message_id: str) -> None:
    """Print histories for people, with an empty line between them."""
    console = stdout()
    for number, history in enumerate(histories):
        if number:
            console.print()
        for text in history.picture(message_id):
            console.print(text, soft_wrap=not console.is_terminal)


def _last_message(log: RequestLog, customer_id: str | None) -> str:
    """Return the id of the last message; raises `click.ClickException` if the log has none."""
    latest = itertools.takewhile(lambda line: line is not None, log.follow(Wanted(customer_id=customer_id), LAST_LINES))
    ids = [line.message_ids[-1] for line in latest if isinstance(line, FunctionLine) and line.message_ids]
    if not ids:
        raise click.ClickException(f"{log} has no message id in its last {LAST_LINES} lines: give a MESSAGE_ID")
    return ids[-1]


def _now(result: SearchResult, lines: Collection[FunctionLine], target: Target, period: Period) -> Sequence[str]:
    if result.fault is not None:
        return [f"Its current place can't be read: {result.fault}"]
    return list(describe(result, lines, target, period.words))


def _nothing(search: Search, target: Target, log: RequestLog, period: Period) -> str:
    whose = f" of {search.customer_id}" if search.customer_id else ""
    places = [f"{log}, {period.words} until {period.until:%Y-%m-%d %H:%M:%S} UTC"]
    if target.stores.sink.is_queryable and (target.is_local or search.scan or search.subject_id):
        places.append(f"the event table {target.stores.event_table}")
    if target.is_local:
        places.append("the rejects")
    late = "" if target.is_local else " CloudWatch shows lines some seconds late."
    return printable(
        f"Nothing is known of a message {search.message_id}{whose}. Searched: {'; '.join(places)}. --since says "
        f"how far back.{late} The log line of a request that failed before its message was read has no message id."
    )
