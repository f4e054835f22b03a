"""Lambda's runtime interface emulator: a cold start of a package under the protocol between Lambda and a runtime.

https://github.com/aws/aws-lambda-runtime-interface-emulator; the SAM CLI brings it along.
"""

import contextlib
import ctypes
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import urllib3

from bench.figures import NotRunError
from bench.lambda_environment import lambda_environment
from bench.store_server import LOOPBACK
from bench.subject import NUMBER
from bench.subjects import Subject
from destination.paths import ROOT

INVOKE_PATH = "/2015-03-31/functions/function/invocations"
START_SECONDS = 20
INVOKE_SECONDS = 60
POLL_SECONDS = 0.005

_INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)\)")
_INVOKE = re.compile(r"INVOKE RTDONE\(status: success.*duration: ([\d.]+)ms\)")


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """One cold start, in milliseconds: two of wall time, and the processor time of the runtime process for both."""

    init: float
    first_request: float
    processor: float

    @property
    def total(self) -> float:
        """What the first caller waits for."""
        return self.init + self.first_request


def find_emulator() -> Path:
    """Find the emulator; raises `NotRunError` where it is not on this machine."""
    if platform.system() != "Linux":
        raise NotRunError("Lambda's runtime emulator runs on Linux only")
    processor = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"aws-lambda-rie-{processor}"
    for folder in _sam_folders():
        for path in sorted(folder.glob(f"samcli/local/rapid/{name}")):
            return path
    if found := shutil.which("aws-lambda-rie"):
        return Path(found)
    raise NotRunError(
        "there is no Lambda runtime emulator on this machine: `make .venv-sam/.installed` installs the SAM CLI, "
        "which brings it along"
    )


def _sam_folders() -> Iterator[Path]:
    """Yield where packages of the SAM CLI may lie: its own environment here, or that of the `sam` on the path."""
    yield from (ROOT / ".venv-sam").glob("lib/python*/site-packages")
    if found := shutil.which("sam"):
        home = Path(found).resolve().parent.parent
        yield from home.glob("lib/python*/site-packages")
        yield from home.glob("dist/_internal")


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """The emulator, and the Python that holds Lambda's runtime client."""

    path: Path
    python: Path

    @contextmanager
    def running(self, subject: Subject, *, store_url: str, log: Path) -> Iterator[tuple[str, int]]:
        """Start it; yield the URL to invoke, and its process id. The function itself starts when it is called."""
        port, api_port = _free_ports()
        package = subject.code.folders[-1]
        with (
            log.open("w") as output,
            subprocess.Popen(  # noqa: S603 -- the emulator
                [
                    *(self.path, "--log-level", "info"),
                    *("--runtime-api-address", f"{LOOPBACK}:{api_port}"),
                    *("--runtime-interface-emulator-address", f"{LOOPBACK}:{port}"),
                    *(self.python, "-m", "awslambdaric", subject.code.target.replace(":", ".")),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=package,
                env={**lambda_environment(store_url=store_url, task_root=package), **subject.environment},
            ) as process,
        ):
            try:
                _wait_for(port, process)
                yield f"http://{LOOPBACK}:{port}{INVOKE_PATH}", process.pid
            finally:
                for child in children(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                process.kill()

    def cold_start(self, subject: Subject, *, store_url: str, number: int, log: Path) -> ColdStart:
        """Start a function and call it once; raises `click.ClickException` for an answer that is not the right one."""
        with self.running(subject, store_url=store_url, log=log) as (url, process_id):
            response = invoke(url, subject.sample.event.replace(NUMBER, f"{number:08d}"))
            if response.get("statusCode") != subject.sample.status:
                raise click.ClickException(
                    f"{subject.name}: the answer is {response}\n{log.read_text(errors='replace').strip()}"
                )
            processor = sum(processor_seconds(child) for child in children(process_id))
        text = log.read_text(errors="replace")
        init, request = _INIT.search(text), _INVOKE.search(text)
        if init is None or request is None:
            raise click.ClickException(f"The emulator's log tells no durations:\n{text.strip()}")
        return ColdStart(init=float(init[1]), first_request=float(request[1]), processor=processor * 1e3)


def invoke(url: str, event: str) -> dict[str, Any]:
    """Call a function; raises `click.ClickException` where no JSON object comes back."""
    try:
        with urllib3.PoolManager() as http:
            answer = http.request("POST", url, body=event, timeout=INVOKE_SECONDS, retries=False)
        response = json.loads(answer.data)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise click.ClickException(f"The runtime emulator does not answer: {error}") from error
    return response if isinstance(response, dict) else {}


def children(process_id: int) -> list[int]:
    """Return the processes that any thread of a process started.

    https://man7.org/linux/man-pages/man5/proc_tid_children.5.html
    """
    found: list[int] = []
    for path in Path(f"/proc/{process_id}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, path.read_text().split())
    return found


def processor_seconds(process_id: int) -> float:
    """Return the processor time of another process, by the clock that clock_getcpuclockid(3) names."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(process_id, ctypes.byref(clock)):
        raise click.ClickException("The function's process is gone before its processor time could be read")
    return time.clock_gettime(clock.value)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((LOOPBACK, 0))
        other.bind((LOOPBACK, 0))
        return one.getsockname()[1], other.getsockname()[1]


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(POLL_SECONDS)
    raise click.ClickException(f"The runtime emulator did not start within {START_SECONDS} seconds")
