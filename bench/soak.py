"""*soak*: whether the local server stays as fast and as small while it stores more and more, and never fails by itself.

`destination serve` runs with its consumer and its eraser. `destination simulate` sends to it in portions, erases users,
and checks that all is stored. The memory is read after each portion.
"""

import subprocess
from typing import Any

import click

from bench.figures import Options, Row, Table
from bench.load import serving, simulate

PORTIONS = 10
PORTION_MESSAGES = 2000
QUICK_PORTION_MESSAGES = 200
AT_ONCE = 16
FUNCTIONS = 4
WITH_CONSUMER = ("--parameter", "Consumer=on")
TRAFFIC = ("--deletes", "0.01", "--duplicates", "0.02", "--invalid", "0.02")
NOT_SUPPORTED = "501"
"""The answer to an unknown call type, which the traffic has too."""
EMBEDDED_AWS = "embedded_aws"
"""In the command line of its process."""


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` for an answer of 5xx or a lost message."""
    size = QUICK_PORTION_MESSAGES if options.quick else PORTION_MESSAGES
    with serving(FUNCTIONS, *WITH_CONSUMER) as served:
        rows = []
        for portion in range(1, PORTIONS + 1):
            told = simulate(f"{served.url}/segment", served.url, *TRAFFIC, messages=size, at_once=AT_ONCE, seed=portion)
            if failed := _failures(told):
                raise click.ClickException(f"The server answered 5xx by itself: {failed}")
            rows.append(_row(f"message {(portion - 1) * size:,} to {portion * size:,}", told, served.pid))
    return [
        Table(
            name="soak",
            title=f"{PORTIONS * size:,} messages of `destination simulate`, {AT_ONCE} requests at once; no 5xx",
            rows=tuple(rows),
            bar="requests/s",
            notes=("The consumer and the eraser are on. The embedded AWS keeps what it stores in memory.",),
        )
    ]


def _failures(told: dict[str, Any]) -> dict[str, int]:
    """Return how often there was no answer, or one of 5xx, by status."""
    return {
        status: count
        for status, count in told["answers_by_status"].items()
        if status[:1] not in ("2", "4") and status != NOT_SUPPORTED
    }


def _row(name: str, told: dict[str, Any], pid: int) -> Row:
    megabytes = memory_of(pid)
    return Row(
        name=name,
        figures={
            "requests/s": round(told["tries"] / max(told["seconds"], 0.1), 1),
            **{f"{name} ms": told["milliseconds"][name] for name in ("p95", "p99")},
            **{f"{name} MB": round(size, 1) for name, size in megabytes.items()},
        },
    )


def memory_of(pid: int) -> dict[str, float]:
    """Return the memory of a local server, of its embedded AWS, and of its functions, in MB."""
    listed = subprocess.check_output(["ps", "-wweo", "pid=,ppid=,rss=,args="], text=True)  # noqa: S607 -- wherever it is
    sizes = {"server": 0.0, "embedded AWS": 0.0, "functions": 0.0}
    for line in listed.splitlines():
        process, parent, kilobytes, args = line.split(None, 3)
        if int(process) == pid:
            sizes["server"] += int(kilobytes) / 1024
        elif int(parent) == pid:
            sizes["embedded AWS" if EMBEDDED_AWS in args else "functions"] += int(kilobytes) / 1024
    return sizes
