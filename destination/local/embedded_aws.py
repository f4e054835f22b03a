"""Start an embedded AWS (ministack) in its own process, shared by function processes and commands.

Only the services in `SERVICES` are reachable. It stores everything in memory.
"""

import asyncio
import json
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from subprocess import PIPE

import click

from destination.local.background import first_to_end
from destination.local.embedded_aws_process import CONTAINER_BRIDGE, DESKTOP_HOST, FOR_CONTAINERS, LOOPBACK
from destination.local.environment import local_environment
from destination.paths import ROOT
from handler.sinks import SINKS, sink_named

START_SECONDS = 60

SINK_SERVICES = {sink_named(name).service for name in SINKS}
SERVICES = sorted({"cloudformation", "dynamodb", "dynamodbstreams", "sqs", *SINK_SERVICES})


HEALTH_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
"""It has no signature, so it is refused; any response shows that the server is alive."""


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """Time-outs for the embedded AWS's responses, in seconds, and the pause before the next check."""

    pause_seconds: float = 5
    first_seconds: float = 25
    second_seconds: float = 5


HEALTH_CHECK = HealthCheck()


class EmbeddedAws:
    """A running server on loopback; `for_containers` also makes it reachable from containers on this machine.

    `container_url` is its address from a container.
    """

    def __init__(self, *, for_containers: bool = False, services: Sequence[str] = SERVICES) -> None:
        self._process = subprocess.Popen(  # noqa: S603 -- our own module
            [
                sys.executable,
                "-m",
                "destination.local.embedded_aws_process",
                *([FOR_CONTAINERS] if for_containers else []),
            ],
            stdin=PIPE,
            stdout=PIPE,
            cwd=ROOT,
            env=local_environment({"SERVICES": ",".join(services), "LOG_LEVEL": "ERROR"}),
            process_group=0,  # Control-C is for the parent
        )
        try:
            port, reaches_containers = self._read_address()
        except BaseException:
            self.stop()
            raise
        self._port = port
        self.url = f"http://{LOOPBACK}:{port}"
        self.container_url = f"http://{CONTAINER_BRIDGE if reaches_containers else DESKTOP_HOST}:{port}"

    def _read_address(self) -> tuple[int, bool]:
        out = self._process.stdout
        if out is None or not select.select([out], [], [], START_SECONDS)[0]:
            raise click.ClickException(f"The embedded AWS did not start within {START_SECONDS} seconds")
        try:
            port, reaches_containers = json.loads(out.readline())
        except ValueError as error:
            raise click.ClickException("The embedded AWS ended while it started") from error
        return port, reaches_containers

    async def watch(self, check: HealthCheck = HEALTH_CHECK) -> str:
        """Wait until its process ends or stops answering, and return a description."""
        return await first_to_end([self._end(), self._silence(check)])

    async def _silence(self, check: HealthCheck) -> str:
        """Wait until two requests in a row have no response.

        One is not enough: if the local server itself was paused, the first time-out may have passed during the pause.
        """
        while True:
            await asyncio.sleep(check.pause_seconds)
            waits = (check.first_seconds, check.second_seconds)
            if not await self._answers(waits[0]) and not await self._answers(waits[1]):
                return (
                    f"The embedded AWS (process {self._process.pid}) has not answered for {sum(waits):g} seconds, and "
                    "its data is gone"
                )

    async def _answers(self, seconds: float) -> bool:
        """Return whether it answers a request in time, with any response."""
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
                try:
                    writer.write(HEALTH_REQUEST)
                    return bool(await reader.read(1))
                finally:
                    writer.transport.abort()
        except TimeoutError:
            return False
        except OSError:  # its process ends, which `_end` reports
            return True

    async def _end(self) -> str:
        """Wait until its process ends, and return a description."""
        ended = asyncio.Event()
        out = self._process.stdout
        if out is not None:  # it prints nothing more, so its output closes when it ends
            loop = asyncio.get_running_loop()
            loop.add_reader(out, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(out)
        await asyncio.to_thread(self._process.wait)
        return f"The embedded AWS has ended (exit code {self._process.returncode}), and its data is gone"

    def stop(self) -> None:
        """End the server; its data is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
