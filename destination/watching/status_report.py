"""The report of `destination status`: tables, sentences and JSON."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from destination.console import Rows, counted
from destination.watching.request_log import NEVER, Caller, Figures, Period, Tally
from destination.watching.status import BETA_CUSTOMERS, BETA_EVENTS, UNKNOWN, BetaProgress


def show_requests(console: Console, figures: Figures) -> None:
    """Print the table of requests, and its contradictions to the tables of messages."""
    if figures.answers:
        console.print()
        console.print(requests_table(figures))
    for sentence in figures.contradictions:
        console.print()
        console.print(Text(sentence, "yellow"), soft_wrap=not console.is_terminal)


def messages_table(figures: Figures) -> Rows:
    """Return a table of messages by customer and call type."""
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
        optional=(6,),
    )
    rows = sorted(figures.tallies.items(), key=_trouble_first)
    for (customer, call_type), tally in rows:
        table.add_row(customer or UNKNOWN, call_type or UNKNOWN, *_cells(tally))
    if len(rows) > 1:
        table.add_row("all", "", *_cells(figures.total), style="bold")
    return table


def reasons_table(figures: Figures) -> Rows:
    """Return a table of refusals and failures, one code per row: a cell with a list of codes needs a wide terminal."""
    table = Rows("Customer", "Calls", "Code", "Refused", "Failed", right=(3, 4))
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


def requests_table(figures: Figures) -> Rows:
    """Return a table of requests by the class of their status."""
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


def beta_sentences(progress: BetaProgress | str) -> Iterator[str]:
    """Yield sentences about the private beta, or the reason why nothing is known."""
    if isinstance(progress, str):
        yield progress
        return
    since = f" since {progress.since}" if progress.since else ""
    yield (
        f"Segment's private beta asks for {BETA_CUSTOMERS} customers or {BETA_EVENTS:,} events"
        f"{', which is reached' if progress.is_reached else ''}:"
    )
    yield f"{progress.events:,} events were accepted{since}, according to {progress.source}, including your own tests;"
    yield (
        f"{counted(progress.customers, 'customer')} had one accepted in {progress.period}, without those of "
        f"`destination simulate` and `certify`; {progress.holders:,} with active API keys."
    )


def to_json(figures: Figures, progress: BetaProgress | str, period: Period) -> dict[str, Any]:
    """Return the whole report for programs."""

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
        "consumer_failures": figures.consumer_failures,
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
