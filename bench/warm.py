"""Measure the processor time of one request to a loaded function.

The destination with each sink, compared with boto3's `put_item` with default options, and with a function as the
documentation of Powertools shows it. --python measures the packages instead of the checkout.

The processor time (user and system) of the function's own process counts, without the wait for the store.
"""

from collections.abc import Sequence
from functools import partial

from bench.figures import Options, Table, median, median_ratio, take_turns
from bench.packages import chosen_codes
from bench.store_server import StoreServer
from bench.subjects import STOCK, Subject, SubjectProcess, started, warm_subjects

ROUNDS, CALLS = 15, 200
QUICK_ROUNDS, QUICK_CALLS = 5, 50

MICROSECONDS = "µs"
RATIO = f"/ {STOCK}"


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` for a wrong response."""
    codes, python = chosen_codes(options)
    rounds, calls = (QUICK_ROUNDS, QUICK_CALLS) if options.quick else (ROUNDS, CALLS)
    with StoreServer() as store:
        return [compare(warm_subjects(codes, store, python), store, python, rounds=rounds, calls=calls)]


def compare(
    subjects: Sequence[Subject], store: StoreServer, python: Sequence[str], *, rounds: int, calls: int
) -> Table:
    """Call all subjects in turns."""

    def run(process: SubjectProcess, number: int) -> float:
        return process.call(first=number * calls, count=calls).processor

    with started(subjects, store, python) as processes:
        times = take_turns("warm", {process.subject.name: partial(run, process) for process in processes}, rounds)
    return Table(
        name="warm",
        title=f"Processor time of one call of a loaded function; medians of {rounds} rounds of {calls} calls",
        rows={
            subject.name: {
                MICROSECONDS: median(seconds * 1e6 for seconds in times[subject.name]),
                RATIO: median_ratio(times[subject.name], times[subject.reference]),
            }
            for subject in subjects
        },
    )
