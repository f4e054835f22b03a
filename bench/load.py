"""Measure requests per second, and how long they take, of the local server.

`destination simulate` sends to `destination serve` as Segment does, with one function process and with four, and checks
that everything is stored. The store is the embedded AWS on the same processors, so these figures say little about AWS.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.figures import Options, Table
from bench.store_server import LOOPBACK
from destination.deployment.target import ask_local_server
from destination.paths import ROOT

MESSAGES, QUICK_MESSAGES = 2000, 200
START_SECONDS = 120
RUN_SECONDS = 600
STOP_SECONDS = 30
POLL_SECONDS = 0.1

CHECKOUT = ("consumer", "destination", "events", "handler", "schemas", "template.yaml")
"""The parts of a checkout that the local server needs. They are copied, because it writes files next to them."""
PERCENTILES = ("p50", "p95", "p99")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running local server."""

    url: str
    pid: int


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` for a lost message."""
    messages = QUICK_MESSAGES if options.quick else MESSAGES
    rows = {}
    for functions, at_once in ((1, 1), (4, 16)):
        with serving(functions, consumer="off") as served:
            told = simulate(served, messages=messages, at_once=at_once)
        rows[f"function processes: {functions}, requests at once: {at_once}"] = figures(told, *PERCENTILES)
    title = f"{messages:,} messages of `destination simulate` to `destination serve`"
    return [Table(name="load", title=title, rows=rows)]


def figures(told: Mapping[str, Any], *percentiles: str) -> dict[str, float]:
    """Return the pace of a simulation, and percentiles of its response times."""
    pace = round(told["tries"] / max(told["seconds"], 0.1), 1)
    return {"requests/s": pace, **{f"{name} ms": told["milliseconds"][name] for name in percentiles}}


@contextmanager
def serving(functions: int, *, consumer: str) -> Iterator[Served]:
    """Run `destination serve` on a free port; raises `click.ClickException` if it does not start."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    url = f"http://{LOOPBACK}:{port}"
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder)
        for name in CHECKOUT:
            (checkout / name).symlink_to(ROOT / name)
        log = checkout / "log"
        with log.open("w") as output:
            process = subprocess.Popen(  # noqa: S603 -- our own command
                [
                    *(sys.executable, "-m", "destination", "serve", "--port", str(port)),
                    *("--processes", str(functions), "--parameter", f"Consumer={consumer}"),
                ],
                cwd=checkout,
                env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Control-C is for the parent, which then ends it
            )
        try:
            _wait_for(url, process, log)
            yield Served(url=url, pid=process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(click.ClickException):
            ask_local_server(url)
            return
        time.sleep(POLL_SECONDS)
    raise click.ClickException(f"`destination serve` did not start:\n{log.read_text(errors='replace').strip()}")


def simulate(served: Served, *options: str, messages: int, at_once: int, seed: int = 1) -> dict[str, Any]:
    """Run `destination simulate`; raises `click.ClickException` if it fails or finds a lost message."""
    command = [
        *(sys.executable, "-m", "destination", "simulate", "--json"),
        *("--url", f"{served.url}/segment", "--stores", served.url),
        *("--messages", str(messages), "--concurrency", str(at_once), "--seed", str(seed)),
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)  # noqa: S603 -- our own command
    if done.returncode:
        raise click.ClickException(f"`destination simulate` failed:\n{(done.stderr or done.stdout).strip()}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
