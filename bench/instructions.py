"""*instructions*: how many machine instructions one warm request takes, a figure that does not drift with the machine.

The processor counts them where `perf stat` may ask it, else valgrind's callgrind counts while it simulates one. Only
the function's own process counts, in user mode. Each function runs twice, with few calls and with more; the difference
of the two counts, divided by that of the calls, leaves out loading, and the calls that fill caches.

https://perfwiki.github.io/main/ and https://valgrind.org/docs/manual/cl-manual.html
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from bench.figures import NotRunError, Options, Row, Table, median
from bench.packages import chosen_codes
from bench.store_server import StoreServer
from bench.subjects import Subject, SubjectProcess, warm_subjects
from destination.console import progress

WARM_UP_CALLS = 20
CALLS = 100
QUICK_CALLS = 30
PROBE_SECONDS = 60

STOCK = "stock put_item"
SUBJECTS = (STOCK, "stock send_message", "destination, DynamoDB, accepted", "destination, SQS, accepted")
QUICK_SUBJECTS = (STOCK, "destination, DynamoDB, accepted")
THOUSAND = "thousand instructions"


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A program that counts the instructions of another one: how it is called, and how its count is read."""

    name: str
    command: Callable[[Path], list[str]]
    count: re.Pattern[str]

    def works(self) -> bool:
        """Whether it counts on this machine."""
        if not shutil.which(self.name):
            return False
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "told"
            command = [*self.command(told), sys.executable, "-c", ""]
            subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)  # noqa: S603 -- a counter
            return told.exists() and self.count.search(told.read_text()) is not None

    def instructions(self, subject: Subject, store: StoreServer, python: Path, *, calls: int) -> int:
        """Count the instructions of a whole process that makes some calls; raises `click.ClickException`."""
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "told"
            with SubjectProcess(subject, store, [*self.command(told), str(python)]) as process:
                process.call(first=0, count=calls)
            counted = self.count.search(told.read_text())
            if counted is None:
                raise click.ClickException(f"{self.name} told no count of instructions:\n{told.read_text()}")
            return int(counted[1])


COUNTERS = (
    Counter(
        name="perf",
        command=lambda told: ["perf", "stat", "-x,", "-e", "instructions:u", "-o", str(told)],
        count=re.compile(r"^(\d+),[^,]*,instructions:u", re.MULTILINE),
    ),
    Counter(
        name="valgrind",
        command=lambda told: [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            f"--log-file={told}",
        ],
        count=re.compile(r"Collected : (\d+)"),
    ),
)


def measure(options: Options) -> list[Table]:
    """Count; raises `NotRunError` where nothing can."""
    counter = next((counter for counter in COUNTERS if counter.works()), None)
    if counter is None:
        raise NotRunError("neither `perf stat` nor valgrind counts instructions on this machine: install valgrind")
    codes, python = chosen_codes(options)
    names, calls = (QUICK_SUBJECTS, QUICK_CALLS) if options.quick else (SUBJECTS, CALLS)
    counts: dict[str, float] = {}
    with StoreServer() as store, progress("instructions", total=2 * len(names)) as advance:
        for subject in warm_subjects(codes, store, [str(python)]):
            if subject.name in names:
                few = counter.instructions(subject, store, python, calls=WARM_UP_CALLS)
                advance()
                many = counter.instructions(subject, store, python, calls=WARM_UP_CALLS + calls)
                advance()
                counts[subject.name] = (many - few) / calls
    return [
        Table(
            name="instructions",
            title=f"Instructions of one call, counted by {counter.name}",
            rows=tuple(
                Row(
                    name=name,
                    figures={THOUSAND: round(count / 1e3, 1)},
                    ratios={"/ stock put_item": median([count / counts[STOCK]])},
                )
                for name, count in counts.items()
            ),
            bar=THOUSAND,
        )
    ]
