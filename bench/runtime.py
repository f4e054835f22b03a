"""A cold start as in Lambda: a process of Lambda's own runtime client, which asks a Runtime API for its first event.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import resource
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread

import click

from bench.lambda_environment import lambda_environment
from bench.store_server import LOOPBACK
from bench.subject import NUMBER
from bench.subjects import Subject

REQUEST_ID = "00000000-0000-4000-8000-000000000001"
POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """The milliseconds of one cold start: two durations, and the processor time of the runtime process for both."""

    init: float
    first_request: float
    processor: float

    @property
    def total(self) -> float:
        """The time that the first request waits for."""
        return self.init + self.first_request


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The only event of a runtime; `asked` is when the runtime asked for it, `responses` a time and a response."""

    event: bytes
    asked: list[float] = field(default_factory=list)
    responses: Queue[tuple[float, bytes]] = field(default_factory=Queue)
    over: Event = field(default_factory=Event)


class RuntimeApi(BaseHTTPRequestHandler):
    """The Runtime API for one invocation, an attribute of a subclass."""

    invocation: Invocation

    def do_GET(self) -> None:
        """Hand out the event; a second request waits until the runtime is killed."""
        if self.invocation.asked:
            self.invocation.over.wait()
            return
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", REQUEST_ID)
        self.send_header("Lambda-Runtime-Deadline-Ms", str(round((time.time() + TIMEOUT_SECONDS) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:bench")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.invocation.event)))
        self.invocation.asked.append(time.monotonic())
        self.end_headers()
        self.wfile.write(self.invocation.event)

    def do_POST(self) -> None:
        """Take a response, or an error."""
        now = time.monotonic()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.invocation.responses.put((now, body))

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _children_seconds() -> float:
    """Return the processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _response(process: "subprocess.Popen[bytes]", invocation: Invocation) -> tuple[float, bytes]:
    """Wait for the response; return an empty one if the process ends without it."""
    while process.poll() is None:
        with suppress(Empty):
            return invocation.responses.get(timeout=POLL_SECONDS)
    return time.monotonic(), b"{}"


def cold_start(python: Path, subject: Subject, store_url: str, log: Path, number: int) -> ColdStart:
    """Start a function and call it once; raises `click.ClickException` for a wrong response.

    `python` holds Lambda's runtime client, and `log` is the file for the output of the function.
    """
    invocation = Invocation(event=subject.sample.event.replace(NUMBER, f"{number:08d}").encode())
    api = type("Api", (RuntimeApi,), {"invocation": invocation})
    package = subject.code.folders[-1]
    with ThreadingHTTPServer((LOOPBACK, 0), api) as server, log.open("w") as output:
        Thread(target=server.serve_forever, daemon=True).start()
        used, began = _children_seconds(), time.monotonic()
        process = subprocess.Popen(  # noqa: S603 -- Lambda's runtime client
            [python, "-m", "awslambdaric", subject.code.target.replace(":", ".")],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=package,
            env={
                **lambda_environment(store_url=store_url, task_root=package),
                **subject.environment,
                "AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{server.server_port}",
                "PYTHONPATH": os.pathsep.join(map(str, subject.code.folders)),
            },
        )
        try:
            ended, body = _response(process, invocation)
        finally:
            process.kill()
            process.wait()
            invocation.over.set()
            server.shutdown()
    response = json.loads(body)
    if not invocation.asked or response.get("statusCode") != subject.sample.status:
        raise click.ClickException(f"{subject.name}: the response is {response}\n{log.read_text(errors='replace')}")
    [asked] = invocation.asked
    return ColdStart(
        init=1000 * (asked - began),
        first_request=1000 * (ended - asked),
        processor=1000 * (_children_seconds() - used),
    )
