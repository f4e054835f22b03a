"""`destination tail`: show requests as they arrive."""

import re
import select
import sys
from contextlib import suppress

import click
from rich.console import Console
from rich.text import Text

from destination.commands.options import ID, Parsed, json_option, target_options
from destination.console import printable, stdout
from destination.deployment.target import Target
from destination.watching.lines import AccessLine, Line, Wanted
from destination.watching.open_log import open_log
from destination.watching.request_log import RequestLog
from handler.spec import CALL_TYPES

OUTCOMES = ("accepted", "duplicate", "refused", "failed")
OTHER_TYPE = "other"
"""The call type of messages with an unsupported call type."""
COLOURS = {2: "green", 4: "yellow", 5: "red"}
"""Colours by the first digit of a status."""


def _parse_status(text: str) -> str:
    if not re.fullmatch("[1-5](xx|[0-9]{2})", text):
        raise ValueError(f"{text} is not a status: write 503, or 5xx")
    return text


@click.command()
@click.option(
    "--outcome", "outcomes", multiple=True, type=click.Choice(OUTCOMES), help="Only this outcome; repeatable."
)
@click.option("--customer", "customer_id", type=ID, help="Only messages of this customer.")
@click.option("--call-type", type=click.Choice((*CALL_TYPES, OTHER_TYPE)), help="Only messages of this call type.")
@click.option("--status", type=Parsed("status", _parse_status), help="Only answers with this status: 503, or 5xx.")
@click.option("--code", type=ID, help="Only answers with this error code (see docs/reference/answers.md).")
@click.option("--last", default=0, type=click.IntRange(0, 10_000), help="Begin with this number of earlier lines.")
@json_option("Print the lines as they were written, for programs.")
@target_options
def tail(
    *,
    target: Target,
    outcomes: tuple[str, ...],
    customer_id: str | None,
    call_type: str | None,
    status: str | None,
    code: str | None,
    last: int,
    as_json: bool,
) -> None:
    """Show requests as they arrive, until Control-C.

    Each request is a line. Answers that did not come from the function (404, 413, 429, time-outs) are shown too, unless
    a filter needs facts that only the function has. For a stack, lines appear some seconds late, and --last looks back
    for an hour.

    \b
    Example:
      destination tail --stack direct-destination --outcome refused --outcome failed
    """
    log = open_log(target)
    wanted = Wanted(
        outcomes=frozenset(outcomes), customer_id=customer_id, call_type=call_type, status=status, code=code
    )
    with suppress(KeyboardInterrupt, BrokenPipeError):  # Control-C, or the end of `| head`
        _follow(log, wanted, last, None if as_json else stdout())


def _follow(log: RequestLog, wanted: Wanted, last: int, console: Console | None) -> None:
    is_before = True
    for line in log.follow(wanted, last):
        if line is None:
            # remarks are about the earlier lines, which are all printed now
            for remark in log.remarks if is_before else ():
                click.echo(remark, err=True)
            is_before = False
            if _is_closed():
                return
            continue
        if console is None:
            click.echo(line.raw.rstrip("\n"))
        else:
            console.print(picture(line), soft_wrap=True)


def _is_closed() -> bool:
    """Return whether the reader of standard output has gone away; otherwise only the next line would show it."""
    try:
        output = sys.stdout.fileno()
    except OSError:  # standard output has no file descriptor
        return False
    poll = select.poll()
    poll.register(output, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def picture(line: Line) -> Text:
    """Return the printed form of a line."""
    time = (f"{line.time:%H:%M:%S.%f}"[:-3], "dim")
    status = (str(line.status or "-"), COLOURS.get((line.status or 0) // 100, ""))
    took = (f"  {line.milliseconds:.1f} ms" if line.milliseconds is not None else "", "dim")
    if isinstance(line, AccessLine):
        why = f": {line.error}" if line.error else ""
        route = line.route.partition(" ")[2] or line.route
        return Text.assemble(time, f" {printable(route)} ", status, f" by API Gateway{printable(why)}", took)
    what = line.message_ids[0] if len(line.message_ids) == 1 else f"{line.messages} messages"
    if not line.message_ids and line.messages == 1:
        what = ""
    words = " ".join(word for word in (line.outcome, line.call_type, line.customer_id, what, line.code) if word)
    return Text.assemble(time, f" {printable(line.route)} ", status, f" {printable(words)}", took)
