"""Count the machine instructions of one warm request, by perf or valgrind.

The count hardly differs from run to run, so small changes show. Only the function's own process counts, in user mode.
Each function runs twice, with few and with more calls. The difference leaves out loading, and calls that fill caches.

https://perfwiki.github.io/main/ and https://valgrind.org/docs/manual/cl-manual.html
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from bench.figures import NotRunError, Options, Table
from bench.packages import chosen_codes
from bench.store_server import StoreServer
from bench.subjects import STOCK, Subject, SubjectProcess, warm_subjects
from destination.console import progress

WARM_UP_CALLS = 20
CALLS, QUICK_CALLS = 100, 30
SUBJECTS = (STOCK, "stock send_message", "destination, DynamoDB, accepted", "destination, SQS, accepted")
QUICK_SUBJECTS = (STOCK, "destination, DynamoDB, accepted")
THOUSAND = "thousand instructions"

COUNTERS = {
    "perf": (
        ["perf", "stat", "-x,", "-e", "instructions:u", "-o", "COUNT"],
        re.compile(r"^(\d+),[^,]*,instructions:u", re.MULTILINE),
    ),
    "valgrind": (
        ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--log-file=COUNT"],
        re.compile(r"Collected : (\d+)"),
    ),
}
"""Commands that count the instructions of another command, and the pattern of the count in the file COUNT."""


def measure(options: Options) -> list[Table]:
    """Count; raises `NotRunError` if this machine has no counter."""
    counter = next(filter(_works, COUNTERS), None)
    if counter is None:
        raise NotRunError("neither `perf stat` nor valgrind counts instructions on this machine: install valgrind")
    codes, python = chosen_codes(options)
    names, calls = (QUICK_SUBJECTS, QUICK_CALLS) if options.quick else (SUBJECTS, CALLS)
    counts: dict[str, float] = {}
    with StoreServer() as store, progress("instructions", total=len(names)) as advance:
        for subject in (each for each in warm_subjects(codes, store, python) if each.name in names):
            few, many = (_count(counter, subject, store, python, calls=WARM_UP_CALLS + more) for more in (0, calls))
            counts[subject.name] = (many - few) / calls
            advance()
    return [
        Table(
            name="instructions",
            title=f"Instructions of one call, counted by {counter}",
            rows={
                name: {THOUSAND: round(count / 1e3, 1), f"/ {STOCK}": round(count / counts[STOCK], 4)}
                for name, count in counts.items()
            },
            bar=THOUSAND,
        )
    ]


def _works(counter: str) -> bool:
    """Return whether a counter counts on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        count = Path(folder) / "count"
        command = [*_command(counter, count), sys.executable, "-c", ""]
        if not shutil.which(counter):
            return False
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 -- a counter
        return count.exists() and COUNTERS[counter][1].search(count.read_text()) is not None


def _command(counter: str, count: Path) -> list[str]:
    return [word.replace("COUNT", str(count)) for word in COUNTERS[counter][0]]


def _count(counter: str, subject: Subject, store: StoreServer, python: Sequence[str], *, calls: int) -> int:
    """Count the instructions of a whole process with some calls; raises `click.ClickException` if there is no count."""
    with tempfile.TemporaryDirectory() as folder:
        count = Path(folder) / "count"
        with SubjectProcess(subject, store, [*_command(counter, count), *python]) as process:
            process.call(first=0, count=calls)
        found = COUNTERS[counter][1].search(count.read_text())
    if found is None:
        raise click.ClickException(f"{counter} printed no count of instructions")
    return int(found[1])
