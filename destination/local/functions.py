"""Lambda on this machine: processes that each run a function of template.yaml and process one event at a time."""

import asyncio
import codecs
import json
import os
import socket
import subprocess
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, Any, Self

import click

from destination.local.background import in_background
from destination.local.environment import local_environment
from destination.local.function_process import Invocation
from destination.paths import ROOT

START_SECONDS = 60
STOP_SECONDS = 5.0
"""For a process to end by itself. A thread that the function started may run on; Lambda does not wait for it either."""
RELAY_SECONDS = 1.0
"""After the end of a process. A program that it started may live on and keep its standard error open."""
RESTART_SECONDS = 1.0
"""Pause between two attempts to replace a process."""
MAX_RESTARTS = 10
"""Attempts to replace a process before it is given up: somebody who edits code may need some seconds."""
MAX_LINE_BYTES = 40 * 1024 * 1024
"""Lambda accepts and returns at most 6 MB. JSON escapes can make that three times longer, and the log comes on top."""
PIPE_BYTES = 64 * 1024
"""The capacity of a pipe on Linux."""


class FunctionError(Exception):
    """The function's process died while it processed an event."""


class FunctionTimeoutError(Exception):
    """The function did not answer in time."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function of template.yaml: its logical name, `module.function`, and its time-out."""

    name: str
    handler: str
    timeout_seconds: float

    @classmethod
    def of(cls, name: str, properties: Mapping[str, Any]) -> Self:
        """Read the properties of a resource."""
        return cls(name=name, handler=properties["Handler"], timeout_seconds=properties["Timeout"])


class _FunctionProcess:
    """One process. Events are written to its socket as lines, and each is answered by a line with an invocation.

    Not `asyncio.create_subprocess_exec`: if that is cancelled before its pipes are connected, it waits forever.
    """

    def __init__(self, process: subprocess.Popen[bytes], events: StreamWriter, invocations: StreamReader) -> None:
        self._process = process
        self._relay = Thread(target=_relay, args=[process.stderr], daemon=True)
        self._relay.start()
        self._events = events
        self._invocations = invocations
        self.generation = 0

    @classmethod
    async def start(cls, function: Function, environment: Mapping[str, str], folder: Path, niceness: int = 0) -> Self:
        """Start a process in a checkout; raises `click.ClickException` with its traceback if it can't load."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                invocations, events = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
            except asyncio.CancelledError:
                ours.close()
                raise
            try:
                process = _spawn(function, environment, folder, theirs)
            except OSError as error:
                events.close()
                raise FunctionError(f"The function's process can't be started: {error}") from error
        os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
        started = cls(process, events, invocations)
        try:
            async with asyncio.timeout(START_SECONDS):
                word = await started.finish()
        except (asyncio.CancelledError, TimeoutError, FunctionError):
            await started.kill()
            raise
        if word.raised:
            await started.stop()
            raise click.ClickException(f"{function.name} did not start:\n{word.log}")
        return started

    async def invoke(self, event: Mapping[str, Any]) -> Invocation:
        """Process an event; raises `FunctionError`."""
        try:
            self._events.write(json.dumps(event).encode() + b"\n")
            await self._events.drain()
        except ConnectionError as error:
            raise FunctionError("The function's process is gone") from error
        return await self.finish()

    async def finish(self) -> Invocation:
        """Wait for the next line of the process; raises `FunctionError`."""
        try:
            line = await self._invocations.readline()
            return Invocation(**json.loads(line))
        except (ValueError, TypeError, ConnectionError) as error:  # the last: it died before it read the event
            raise FunctionError("The function's process died, or wrote a line that is not an invocation") from error

    async def kill(self) -> None:
        """Kill the process, whatever it does."""
        self._process.kill()
        await self.stop()

    async def stop(self) -> None:
        """End a process that waits for an event."""
        self._events.close()
        await in_background(self._wait)

    def _wait(self) -> None:
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._relay.join(RELAY_SECONDS)


def _spawn(
    function: Function, environment: Mapping[str, str], folder: Path, theirs: socket.socket
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 -- our own module
        (
            *(sys.executable, "-X", "utf8", "-m", "destination.local.function_process"),  # Lambda's encoding is UTF-8
            *(function.name, function.handler, str(function.timeout_seconds)),
        ),
        stdin=theirs.fileno(),
        stdout=theirs.fileno(),
        stderr=subprocess.PIPE,
        cwd=folder,
        # Lambda sets this variable, by which the function chooses its own connections to the stores.
        env=local_environment({**environment, "AWS_LAMBDA_FUNCTION_NAME": function.name}),
        process_group=0,  # Control-C is for the parent
    )


def _relay(errors: IO[bytes]) -> None:
    """Print a process's standard error, which its log does not hold, to ours, which escapes control characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with errors:
        while piece := os.read(errors.fileno(), PIPE_BYTES):
            click.echo(decoder.decode(piece), nl=False, err=True)


class Functions:
    """Several processes of a function; an event waits for a free one.

    A process that times out is replaced, as in Lambda. `niceness` lowers the priority of its processes.
    """

    def __init__(self, function: Function, environment: Mapping[str, str], *, niceness: int = 0) -> None:
        self._function = function
        self._environment = environment
        self._niceness = niceness
        self._free: asyncio.Queue[_FunctionProcess] = asyncio.Queue()
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._given_up = asyncio.Event()
        self._folder = ROOT
        self._generation = 0

    async def start(self, count: int) -> None:
        """Start a number of processes; raises `click.ClickException` if the function can't load."""
        for _ in range(count):
            self._run_in_background(self._add())
        await asyncio.gather(*self._background_tasks)

    async def stop(self) -> None:
        """End the processes after the running events."""
        self._stopped = True
        await asyncio.gather(*self._background_tasks, return_exceptions=True)
        while not self._free.empty():
            await self._free.get_nowait().stop()

    async def watch(self) -> str:
        """Wait until a process can't be replaced, and return a description."""
        await self._given_up.wait()
        return f"{self._function.name} could not be started again {MAX_RESTARTS} times"

    def use(self, folder: Path) -> None:
        """Start processes in a checkout from now on."""
        self._folder = folder
        self._generation += 1

    async def move(self, folder: Path) -> None:
        """Replace the processes by processes of another checkout, if one can start there.

        Otherwise raises `click.ClickException`, `FunctionError` or `TimeoutError`, and changes nothing.
        """
        await self.try_out(folder)
        self.use(folder)
        await self.renew()

    async def try_out(self, folder: Path) -> None:
        """Start a process in another checkout and end it; raises the same errors as `move`."""
        process = await _FunctionProcess.start(self._function, self._environment, folder, self._niceness)
        await process.stop()

    async def renew(self) -> None:
        """Replace the processes of older checkouts sequentially, so that the others continue to work.

        A process that is working is replaced after its event.
        """
        for _ in range(self._free.qsize()):
            if self._free.empty():
                return
            process = self._free.get_nowait()
            if process.generation == self._generation:
                self._free.put_nowait(process)
            else:
                await self._exchange(process)

    async def invoke(
        self,
        event: Mapping[str, Any],
        *,
        integration_seconds: float | None = None,
        late: Callable[[Invocation], None] | None = None,
    ) -> Invocation:
        """Pass an event to a free process; raises `FunctionTimeoutError` or `FunctionError`.

        `integration_seconds` limits the wait. A function that times out in this way continues until its own time-out,
        and `late` gets its result.
        """
        process = None
        try:
            async with asyncio.timeout(integration_seconds):
                process = await self._free.get()
                async with asyncio.timeout(self._function.timeout_seconds):
                    invocation = await process.invoke(event)
        except TimeoutError as error:
            if process is not None:
                self._run_in_background(self._outlast(process, integration_seconds, late))
            raise FunctionTimeoutError("The function did not answer in time") from error
        except FunctionError:
            if process is not None:
                self._run_in_background(self._replace(process))
            raise
        except asyncio.CancelledError:  # at shutdown: nobody waits for the result
            if process is not None:
                self._run_in_background(process.kill())
            raise
        self._release(process)
        return invocation

    async def _add(self) -> None:
        self._free.put_nowait(await self._start())

    async def _start(self) -> _FunctionProcess:
        while True:
            generation = self._generation
            process = await _FunctionProcess.start(self._function, self._environment, self._folder, self._niceness)
            process.generation = generation
            if generation == self._generation:
                return process
            await process.stop()  # the checkout has changed meanwhile

    def _release(self, process: _FunctionProcess) -> None:
        """Make the process free for the next event, or start another one in its place."""
        if process.generation == self._generation:
            self._free.put_nowait(process)
        else:
            self._run_in_background(self._exchange(process))

    async def _exchange(self, process: _FunctionProcess) -> None:
        """Replace a process that still works; it stays if no other one can start."""
        other = process
        try:
            other = await self._start()
        except (click.ClickException, FunctionError, TimeoutError) as error:
            click.echo(f"{self._function.name} could not be restarted: {error}", err=True)
            process.generation = self._generation
        finally:
            self._free.put_nowait(other)
        if other is not process:
            await process.stop()

    async def _outlast(
        self,
        process: _FunctionProcess,
        integration_seconds: float | None,
        late: Callable[[Invocation], None] | None,
    ) -> None:
        """Let a function that timed out finish, or kill it."""
        seconds = self._function.timeout_seconds
        try:
            async with asyncio.timeout(seconds - (integration_seconds or seconds)):
                invocation = await process.finish()
        except (TimeoutError, FunctionError):
            await self._replace(process)
        else:
            self._release(process)
            if late is not None:
                late(invocation)

    async def _replace(self, process: _FunctionProcess) -> None:
        """Kill a process and start another one, which may take some attempts while its code is edited."""
        await process.kill()
        for _ in range(MAX_RESTARTS):
            if self._stopped:
                return
            try:
                await self._add()
            except (click.ClickException, FunctionError, TimeoutError) as error:
                click.echo(f"{self._function.name} could not be restarted: {error}", err=True)
                await asyncio.sleep(RESTART_SECONDS)
            else:
                return
        self._given_up.set()

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Start or replace a process in a background task; asyncio forgets tasks without a reference."""
        task = asyncio.create_task(work)
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
