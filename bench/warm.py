"""*warm*: the processor time of one request to a function that is loaded, beside that of a stock `put_item`.

What is counted is the processor time (user and system) of the function's own process, not how long it waits for the
store. All functions run side by side, each in its process, and take turns within each round; a ratio is that of two
times of the same round, so that a machine that is slow for a while is slow for both. Each call has another
message id. Loading is not counted, nor are the first calls.

The *budget* is the destination's own account of an accepted message, the `milliseconds` of its line, with its clock
replaced by one of processor time. The rest of the whole call, such as writing that line, is what the line can't tell.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from bench.figures import Options, Row, Table, median
from bench.packages import chosen_codes
from bench.store_server import StoreServer
from bench.subjects import Subject, SubjectProcess, started, warm_subjects
from destination.console import progress

ROUNDS = 15
QUICK_ROUNDS = 5
CALLS = 200
QUICK_CALLS = 50
"""Calls of each function in one round."""
WARM_UP_CALLS = 100

MICROSECONDS = "µs"
RATIO = "/ stock put_item"
SHARE = "% of the call"
BUDGET_SUBJECTS = ("destination, DynamoDB, accepted", "destination, DynamoDB, refused", "destination, SQS, accepted")


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` where a function does not answer as it must."""
    codes, python = chosen_codes(options)
    rounds, calls = (QUICK_ROUNDS, QUICK_CALLS) if options.quick else (ROUNDS, CALLS)
    with StoreServer() as store:
        subjects = warm_subjects(codes, store, [str(python)])
        requests = compare(subjects, store, [str(python)], rounds=rounds, calls=calls)
        with_budget = [subject for subject in subjects if subject.name in BUDGET_SUBJECTS]
        return [requests, *(budget(subject, store, [str(python)], calls=calls) for subject in with_budget)]


def compare(
    subjects: Sequence[Subject], store: StoreServer, python: Sequence[str], *, rounds: int, calls: int
) -> Table:
    """Call subjects in turns; the first one is what the others are divided by."""
    times: dict[str, list[float]] = defaultdict(list)
    with started(subjects, store, python) as processes, progress("warm", total=rounds * len(subjects)) as advance:
        for process in processes:
            process.call(first=0, count=min(WARM_UP_CALLS, calls))
        for number in range(1, rounds + 1):
            for process in processes if number % 2 else reversed(processes):
                times[process.subject.name].append(process.call(first=number * calls, count=calls))
                advance()
    return Table(
        name="warm",
        title=f"Processor time of one call, loaded; medians of {rounds} rounds of {calls} calls",
        rows=tuple(_row(subject.name, times[subject.name], times[subjects[0].name]) for subject in subjects),
        bar=RATIO,
        notes=("A standard queue tells no duplicates: a message that is sent again is queued again.",),
    )


def _row(name: str, own: Sequence[float], stock: Sequence[float]) -> Row:
    return Row(
        name=name,
        figures={MICROSECONDS: median(seconds * 1e6 for seconds in own)},
        ratios={RATIO: median(time / reference for time, reference in zip(own, stock, strict=True))},
    )


def budget(subject: Subject, store: StoreServer, python: Sequence[str], *, calls: int) -> Table:
    """Let a destination account for its own processor time, step by step."""
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "lines"
        with SubjectProcess(subject, store, python, printed=printed, options=["--processor-clock"]) as process:
            process.call(first=0, count=calls)
            whole = process.call(first=calls, count=calls) * 1e6
        lines = [json.loads(line) for line in printed.read_text().splitlines()[-calls:]]
    accounts = [line["milliseconds"] for line in lines if "milliseconds" in line]
    if not accounts:
        raise click.ClickException(f"{subject.name}: its lines hold no milliseconds")
    steps = {name: median(account.get(name, 0) * 1e3 for account in accounts) for name in accounts[0]}
    within = steps.pop("total")
    if 0 < steps.get("reject", 0) <= steps["validate"]:
        steps["validate"] -= steps["reject"]  # which happens within it
    steps["between the steps"] = within - sum(steps.values())
    steps["event, line and response"] = whole - within
    return Table(
        name=f"budget: {subject.name}",
        title=f"Where the time goes: {subject.name}, {whole:.0f} µs in all",
        rows=tuple(
            Row(name=name, figures={MICROSECONDS: round(time, 1)}, ratios={SHARE: round(100 * time / whole, 1)})
            for name, time in steps.items()
        ),
        bar=SHARE,
    )
