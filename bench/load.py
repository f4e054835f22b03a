"""*load*: what the local server, and one function in Lambda's runtime emulator, answer per second, and how fast.

`destination serve` runs here with a number of function processes, and `destination simulate` sends to it as Segment
does and checks that all is stored. For the emulator a small gateway stands before it, with the same stores behind.

The store is the embedded AWS, which runs on the same processors: these figures are for work on this machine, and say
little about AWS.
"""

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

import click
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.emulator import Emulator, find_emulator, invoke
from bench.figures import FOLDER, NotRunError, Options, Row, Table
from bench.packages import destination_package
from bench.pythons import lambda_python, runtime_python
from bench.samples import ACCEPTED
from bench.store_server import LOOPBACK
from bench.subjects import Code, Subject
from destination.deployment.target import ask_local_server
from destination.local.gateway import own_answer, to_event, to_response
from destination.paths import ROOT

MESSAGES = 2000
QUICK_MESSAGES = 200
SEED = 1
START_SECONDS = 120
RUN_SECONDS = 600
STOP_SECONDS = 30
POLL_SECONDS = 0.02

CHECKOUT = ("consumer", "destination", "events", "handler", "schemas", "template.yaml")
"""What the local server needs; it leaves files beside it, which must not be those of one that somebody works with."""
NO_CONSUMER = ("--parameter", "Consumer=off")
"""What is measured is the way to the store."""
PERCENTILES = ("p50", "p95", "p99")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running local server: its URL, its process, and the environment that it gives to its functions."""

    url: str
    pid: int
    environment: dict[str, str]


def measure(options: Options) -> list[Table]:
    """Measure; what needs the emulator is left out with a word about it where that is missing."""
    messages = QUICK_MESSAGES if options.quick else MESSAGES
    rows, notes = [], ["The store is the embedded AWS, on the same processors."]
    for functions, at_once in ((1, 1), (4, 16)):
        with serving(functions) as served:
            told = simulate(f"{served.url}/segment", served.url, messages=messages, at_once=at_once)
        processes = "process" if functions == 1 else "processes"
        rows.append(_row(f"local server, {functions} function {processes}, {at_once} at once", told))
    try:
        rows.append(_row("runtime emulator, 1 function, 1 at once", _emulated(options, messages=messages)))
    except NotRunError as error:
        notes.append(f"The runtime emulator: not run: {error}")
    return [
        Table(
            name="load",
            title=f"{messages:,} messages of `destination simulate`",
            rows=tuple(rows),
            bar="requests/s",
            notes=tuple(notes),
        )
    ]


def _row(name: str, told: dict[str, Any]) -> Row:
    times = told["milliseconds"]
    return Row(
        name=name,
        figures={
            "requests/s": round(told["tries"] / max(told["seconds"], 0.1), 1),
            **{f"{name} ms": times[name] for name in PERCENTILES},
        },
    )


def _emulated(options: Options, *, messages: int) -> dict[str, Any]:
    path = find_emulator()
    emulator = Emulator(path=path, python=runtime_python(lambda_python(options)))
    package = destination_package(options)
    with serving(1) as served, tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        subject = Subject(
            name="destination",
            code=Code(folders=(package,), target="handler.app:lambda_handler"),
            environment=served.environment,
            sample=ACCEPTED,
        )
        store_url = served.environment["AWS_ENDPOINT_URL"]
        with (
            emulator.running(subject, store_url=store_url, log=Path(folder) / "log") as (url, _),
            gateway(url) as gateway_url,
        ):
            return simulate(gateway_url, served.url, messages=messages, at_once=1)


@contextmanager
def serving(functions: int, *options: str) -> Iterator[Served]:
    """Run `destination serve` on a free port, without its consumer if there are no `options`.

    Raises `click.ClickException` where it does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder)
        for name in CHECKOUT:
            (checkout / name).symlink_to(ROOT / name)
        with subprocess.Popen(  # noqa: S603 -- our own command
            [
                sys.executable,
                "-m",
                "destination",
                "serve",
                "--port",
                "0",
                "--processes",
                str(functions),
                *(options or NO_CONSUMER),
            ],
            cwd=checkout,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Control-C is for the parent, which then ends it
        ) as process:
            drain = None
            try:
                url = _printed_url(process)
                drain = threading.Thread(target=_read_on, args=(process,), daemon=True)
                drain.start()
                variables = json.loads((checkout / ".local" / "env.json").read_text())["Parameters"]
                stores = ask_local_server(url)["endpoint_url"]
                yield Served(url=url, pid=process.pid, environment={**variables, "AWS_ENDPOINT_URL": stores})
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                if drain:
                    drain.join(STOP_SECONDS)


def _printed_url(process: "subprocess.Popen[bytes]") -> str:
    """Read what a local server prints until it tells its URL and that it is ready."""
    out = cast("IO[bytes]", process.stdout)
    printed = b""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if not select.select([out], [], [], POLL_SECONDS)[0]:
            continue
        chunk = os.read(out.fileno(), 65536)
        if not chunk:
            break
        printed += chunk
        if b"Control-C" in printed:
            url = next(word for word in printed.decode().split() if word.endswith("/segment"))
            return url.removesuffix("/segment")
    text = printed.decode(errors="replace").strip()
    raise click.ClickException(f"`destination serve` did not start within {START_SECONDS} seconds:\n{text}")


def _read_on(process: "subprocess.Popen[bytes]") -> None:
    """Take what a process prints, which else would stop it when the pipe is full."""
    out = cast("IO[bytes]", process.stdout)
    while os.read(out.fileno(), 65536):
        pass


def simulate(url: str, stores: str, *options: str, messages: int, at_once: int, seed: int = SEED) -> dict[str, Any]:
    """Run `destination simulate`; raises `click.ClickException` where it finds a loss, or fails."""
    command = [
        *(sys.executable, "-m", "destination", "simulate", "--json", "--url", url, "--stores", stores),
        *("--messages", str(messages), "--concurrency", str(at_once), "--seed", str(seed)),
        *options,
    ]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)  # noqa: S603 -- our own command
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(f"`destination simulate` took more than {RUN_SECONDS} seconds") from error
    if done.returncode:
        raise click.ClickException(f"`destination simulate` failed:\n{(done.stderr or done.stdout).strip()}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def gateway(invocations_url: str) -> Iterator[str]:
    """Put an HTTP API before an emulated function; yield its endpoint. The function serves one event at a time."""
    one_at_a_time = asyncio.Lock()

    async def answer(request: Request) -> Response:
        event = json.dumps(to_event(request, await request.body(), datetime.now(UTC)))
        async with one_at_a_time:
            response = await asyncio.to_thread(invoke, invocations_url, event)
        return to_response(response) if "statusCode" in response else own_answer(500, "Internal Server Error")

    app = Starlette(routes=[Route("/segment", answer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    # asyncio sends at once only where a socket tells its protocol.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}/segment"
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)
