"""Send 20,000 messages to the local server in portions: requests per second and memory after each.

`destination serve` runs with its consumer and its eraser. `destination simulate` also sends deletes, duplicates and
invalid messages, and checks that everything is stored. A 5xx or missing response or a lost message is an error.
"""

import subprocess
from collections.abc import Mapping

import click

from bench.figures import Options, Table
from bench.load import figures, serving, simulate

PORTIONS = 10
MESSAGES, QUICK_MESSAGES = 2000, 200
AT_ONCE = 16
FUNCTIONS = 4
TRAFFIC = ("--deletes", "0.01", "--duplicates", "0.02", "--invalid", "0.02")
NOT_SUPPORTED = "501"
"""The answer to the unknown call types in the traffic."""
EMBEDDED_AWS = "embedded_aws"
"""Part of the command line of its process."""


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` for a 5xx response or a lost message."""
    size = QUICK_MESSAGES if options.quick else MESSAGES
    rows = {}
    with serving(FUNCTIONS, consumer="on") as served:
        for portion in range(1, PORTIONS + 1):
            told = simulate(served, *TRAFFIC, messages=size, at_once=AT_ONCE, seed=portion)
            if failed := _failures(told["answers_by_status"]):
                raise click.ClickException(f"The server answered 5xx by itself: {failed}")
            name = f"message {(portion - 1) * size:,} to {portion * size:,}"
            rows[name] = {**figures(told, "p95", "p99"), **memory_of(served.pid)}
    return [
        Table(
            name="soak",
            title=f"{PORTIONS * size:,} messages of `destination simulate`, {AT_ONCE} requests at once; no 5xx",
            rows=rows,
            notes=("The embedded AWS keeps what it stores in memory.",),
        )
    ]


def _failures(answers: Mapping[str, int]) -> dict[str, int]:
    """Return the missing and the 5xx responses by status."""
    return {
        status: count for status, count in answers.items() if status[:1] not in ("2", "4") and status != NOT_SUPPORTED
    }


def memory_of(pid: int) -> dict[str, float]:
    """Return the memory of a local server, of its embedded AWS, and of its functions, in MB."""
    listed = subprocess.check_output(["ps", "-wweo", "pid=,ppid=,rss=,args="], text=True)  # noqa: S607 -- wherever it is
    sizes = {"server MB": 0.0, "embedded AWS MB": 0.0, "functions MB": 0.0}
    for line in listed.splitlines():
        process, parent, kilobytes, args = line.split(None, 3)
        if int(process) == pid:
            sizes["server MB"] += int(kilobytes) / 1024
        elif int(parent) == pid:
            sizes["embedded AWS MB" if EMBEDDED_AWS in args else "functions MB"] += int(kilobytes) / 1024
    return sizes
