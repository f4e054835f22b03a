"""Lambda on this machine: processes that each hold the function and serve one event at a time.

Run as `python -m cli.functions`, this module is such a process: events come in as lines of JSON, and for each of them
an invocation goes out as a line of JSON, whose `response` is null where the function raised.
"""

import asyncio
import io
import json
import os
import signal
import sys
import traceback
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import click

from cli.stack import ROOT

START_SECONDS = 60
MAX_LINE_BYTES = 16 * 1024 * 1024
"""Lambda takes and gives at most 6 MB; escaping makes it a little more."""


class FunctionError(Exception):
    """The function's process died in the middle of an event."""


class FunctionTimeoutError(Exception):
    """The function did not answer within the integration time-out."""


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What came of one event: the function's response (None where it raised), and what it printed."""

    response: dict[str, Any] | None
    log: str


class _FunctionProcess:
    """One process, which is told events and tells invocations."""

    def __init__(self, process: Process, events: StreamWriter, invocations: StreamReader) -> None:
        self._process = process
        self._events = events
        self._invocations = invocations

    @classmethod
    async def start(cls, environment: Mapping[str, str]) -> Self:
        """Start a process; raises `click.ClickException` with its traceback when the function can't load."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.functions"),
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_LINE_BYTES,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        started = cls(process, cast("StreamWriter", process.stdin), cast("StreamReader", process.stdout))
        async with asyncio.timeout(START_SECONDS):
            word = await started.finish()
        if word.response is None:
            raise click.ClickException(f"The function did not start:\n{word.log}")
        return started

    async def invoke(self, event: Mapping[str, Any]) -> Invocation:
        """Serve an event; raises `FunctionError`."""
        try:
            self._events.write(json.dumps(event).encode() + b"\n")
            await self._events.drain()
        except ConnectionError as error:
            raise FunctionError("The function's process is gone") from error
        return await self.finish()

    async def finish(self) -> Invocation:
        """Wait for what the process says next; raises `FunctionError`."""
        line = await self._invocations.readline()
        if not line:
            raise FunctionError("The function's process died")
        return Invocation(**json.loads(line))

    def kill(self) -> None:
        """End the process, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()


class Functions:
    """A number of function processes; an event waits for one that is free.

    `integration_seconds` is how long an event may take in all. A function that was given up may go on until
    `function_seconds`, then its process is replaced, as Lambda does.
    """

    def __init__(self, environment: Mapping[str, str], *, integration_seconds: float, function_seconds: float) -> None:
        self._environment = environment
        self._integration_seconds = integration_seconds
        self._function_seconds = function_seconds
        self._free: asyncio.Queue[_FunctionProcess] = asyncio.Queue()
        self._recoveries: set[asyncio.Task[None]] = set()

    async def start(self, count: int) -> None:
        """Start that many processes; raises `click.ClickException` when the function can't load."""
        await asyncio.gather(*(self._add() for _ in range(count)))

    async def invoke(self, event: Mapping[str, Any]) -> Invocation:
        """Hand an event to a free process; raises `FunctionTimeoutError` or `FunctionError`."""
        process = None
        try:
            async with asyncio.timeout(self._integration_seconds):
                process = await self._free.get()
                invocation = await process.invoke(event)
        except TimeoutError as error:
            if process is not None:
                self._recover(self._outlast(process))
            raise FunctionTimeoutError from error
        except FunctionError:
            self._recover(self._add())
            raise
        self._free.put_nowait(process)
        return invocation

    async def _add(self) -> None:
        self._free.put_nowait(await _FunctionProcess.start(self._environment))

    async def _outlast(self, process: _FunctionProcess) -> None:
        """Let a function that was given up finish, or end it."""
        try:
            async with asyncio.timeout(self._function_seconds - self._integration_seconds):
                await process.finish()
        except (TimeoutError, FunctionError):
            process.kill()
            await self._add()
        else:
            self._free.put_nowait(process)

    def _recover(self, recovery: Coroutine[Any, Any, None]) -> None:
        """Do something beside the requests; asyncio forgets tasks that nobody holds."""
        task = asyncio.create_task(recovery)
        self._recoveries.add(task)
        task.add_done_callback(self._recoveries.discard)


def run() -> None:
    """Serve events from standard input until it ends, which it does with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Control-C is for the parent
    out = sys.stdout
    # A Lambda function's log is what it prints. Replaced before the function is loaded, because its logger keeps it.
    log = sys.stdout = sys.stderr = io.StringIO()

    def send(response: dict[str, Any] | None) -> None:
        out.write(json.dumps(asdict(Invocation(response=response, log=log.getvalue()))) + "\n")
        out.flush()
        log.seek(0)
        log.truncate()

    try:
        from handler.app import lambda_handler  # noqa: PLC0415 -- reads the environment, as in Lambda
    except Exception:  # noqa: BLE001 -- whatever it is, the parent reports it
        traceback.print_exc()
        send(None)
        return
    send({})
    for line in sys.stdin:
        response = None
        try:
            response = lambda_handler(json.loads(line), None)
        except Exception:  # noqa: BLE001 -- Lambda logs it and answers an error
            traceback.print_exc()
        send(response)


if __name__ == "__main__":
    run()
