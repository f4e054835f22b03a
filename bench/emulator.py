"""A cold start under Lambda's runtime interface emulator, with the protocol between Lambda and a runtime.

https://github.com/aws/aws-lambda-runtime-interface-emulator; the SAM CLI includes it.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """The milliseconds of one cold start: two durations, and the processor time of the runtime process for both."""

    init: float
    first_request: float
    processor: float

    @property
    def total(self) -> float:
        """The time that the first request waits for."""
        return self.init + self.first_request


def find_emulator() -> Path:
    """Find the emulator; raises `NotRunError` if it is not on this machine."""
    processor = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
    sam = shutil.which("sam")
    folders = [ROOT / ".venv-sam", *([Path(sam).resolve().parent.parent] if sam else [])]
    for folder in folders:
        for packages in ("lib/python*/site-packages", "dist/_internal"):
            for path in folder.glob(f"{packages}/samcli/local/rapid/aws-lambda-rie-{processor}"):
                return path
    raise NotRunError("there is no Lambda runtime emulator: `make .venv-sam/.installed` installs it with the SAM CLI")


def cold_start(command: Sequence[Path], subject: Subject, store_url: str, log: Path, number: int) -> ColdStart:
    """Start a function and call it once; raises `click.ClickException` for a wrong response.

    `command` are the emulator, and a Python that holds Lambda's runtime client.
    """
    emulator, python = command
    port, api_port = _free_ports()
    package = subject.code.folders[-1]
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603 -- the emulator
            [
                *(emulator, "--log-level", "info", "--runtime-api-address", f"{LOOPBACK}:{api_port}"),
                *("--runtime-interface-emulator-address", f"{LOOPBACK}:{port}"),
                *(python, "-m", "awslambdaric", subject.code.target.replace(":", ".")),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=package,
            env={**lambda_environment(store_url=store_url, task_root=package), **subject.environment},
        )
    try:
        _wait_for(port, process)
        response = _invoke(port, subject.sample.event.replace(NUMBER, f"{number:08d}"))
        processor = sum(map(_processor_seconds, _children(process.pid)))
    finally:
        for child in _children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.wait()
    text = log.read_text(errors="replace")
    init, request = _INIT.search(text), _INVOKE.search(text)
    if init is None or request is None or f'"statusCode": {subject.sample.status}' not in response:
        raise click.ClickException(f"{subject.name}: the response is {response}\n{text.strip()}")
    return ColdStart(init=float(init[1]), first_request=float(request[1]), processor=processor * 1e3)


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


def _invoke(port: int, event: str) -> str:
    url = f"http://{LOOPBACK}:{port}{INVOKE_PATH}"
    response = urllib3.request("POST", url, body=event, timeout=INVOKE_SECONDS, retries=False)
    return json.dumps(json.loads(response.data))


def _children(process_id: int) -> list[int]:
    """Return the processes that any thread of a process started.

    https://man7.org/linux/man-pages/man5/proc_tid_children.5.html
    """
    found: list[int] = []
    for path in Path(f"/proc/{process_id}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            found += map(int, path.read_text().split())
    return found


def _processor_seconds(process_id: int) -> float:
    """Return the processor time of another process, by clock_getcpuclockid(3)."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(process_id, ctypes.byref(clock)):
        raise click.ClickException("The function's process ended before its processor time was read")
    return time.clock_gettime(clock.value)
