"""Count the machine instructions of one warm request, by perf or valgrind.

The count hardly differs from run to run, so small changes show. Only the function's own process counts, in user mode.
Each function runs twice, with few and with more calls. The difference leaves out loading, and calls that fill caches.
Without --quick, a whole cold start is counted too: of the built destination, and of a bare put in the same package.

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

from bench import samples
from bench.figures import NotRunError, Options, Table
from bench.packages import chosen_codes, packaged_codes
from bench.store_server import StoreServer
from bench.subjects import CLIENT, LARGER, STOCK, TRIMMED, Subject, SubjectProcess, destination, peer, warm_subjects
from destination.console import progress

WARM_UP_CALLS = 20
CALLS, QUICK_CALLS = 100, 30
QUICK_SUBJECTS = (STOCK, "destination, DynamoDB, accepted")
SUBJECTS = (
    *QUICK_SUBJECTS,
    *(STOCK + LARGER, f"destination, DynamoDB, accepted{LARGER}", CLIENT),
    *("stock send_message", "destination, SQS, accepted"),
)
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
    references: dict[str, str] = {}
    with StoreServer() as store, progress("instructions", total=len(names)) as advance:
        for subject in (each for each in warm_subjects(codes, store, python) if each.name in names):
            few, many = (_count(counter, subject, store, python, calls=WARM_UP_CALLS + more) for more in (0, calls))
            counts[subject.name] = (many - few) / calls
            advance()
            references[subject.name] = subject.reference
    warm = Table(
        name="instructions",
        title=f"Instructions of one call, counted by {counter}",
        rows={
            name: {THOUSAND: round(count / 1e3, 1), f"/ {STOCK}": round(count / counts[references[name]], 4)}
            for name, count in counts.items()
        },
    )
    return [warm] if options.quick else [warm, _cold(options, counter)]


def _cold(options: Options, counter: str) -> Table:
    """Count a whole process, from the start of the interpreter to the end of the first call, with built packages."""
    title = f"Instructions of a cold start, counted by {counter}"
    try:
        codes, python = packaged_codes(options)
    except NotRunError as error:
        return Table(name="instructions: cold", title=title, rows={}, notes=[f"not run: {error}"])
    with StoreServer() as store:
        subjects = (
            peer(TRIMMED, codes.trimmed),
            peer(CLIENT, codes.client),
            destination("destination", codes.destination, store, samples.ACCEPTED),
        )
        counts = {subject.name: _count(counter, subject, store, python, calls=1) for subject in subjects}
    rows = {
        name: {THOUSAND: round(count / 1e3, 1), f"/ {TRIMMED}": round(count / counts[TRIMMED], 4)}
        for name, count in counts.items()
    }
    return Table(name="instructions: cold", title=title, rows=rows)


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
