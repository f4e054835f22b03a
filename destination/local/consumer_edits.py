"""Watch edits of `consumer/` while a local server runs, and restart its functions with the new code.

Functions run in a checkout with a copy of a `consumer/` that they could load. So a function can always restart,
whatever is being edited.
"""

import asyncio
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import click

from destination.local.background import in_background
from destination.local.functions import FunctionError
from destination.local.sources import EventSources
from destination.paths import ROOT

POLL_SECONDS = 1.0
CONSUMER = "consumer"

Stamps = Mapping[str, tuple[int, int]]
"""File -> time of its last change in nanoseconds, and size in bytes."""


class ConsumerEdits:
    """Watches the folder `consumer`, and creates checkouts with copies of it below `folder` for the functions.

    `tell` is called with a report of each event.
    """

    def __init__(self, consumer: Path, folder: Path, sources: EventSources, *, tell: Callable[[str], None]) -> None:
        self._consumer = consumer
        self._folder = folder
        self._sources = sources
        self._tell = tell
        self._number = 0
        self._seen: Stamps = {}

    def begin(self) -> None:
        """Let functions start with the current consumer."""
        self._seen = self._stamps()
        self._sources.use(self._check_out())

    def explained(self, error: click.ClickException) -> click.ClickException:
        """Return the error of a function that did not start; in one line if the fault is in `consumer/`."""
        checkout = self._folder / f"consumer-{self._number}"
        if str(checkout / CONSUMER) not in error.message:
            return error
        function = error.message.partition(" ")[0]
        return click.ClickException(f"{function} did not start: {place_of_error(error.message, checkout)}")

    async def watch(self) -> None:
        """Poll for changes until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            stamps = self._stamps()
            if stamps != self._seen:
                self._seen = stamps
                await self._reload()

    async def _reload(self) -> None:
        """Start functions with the current consumer; if one can't load it, the old ones stay."""
        try:
            checkout = await in_background(self._check_out)
            await self._sources.move(checkout)
        except click.ClickException as error:
            why = place_of_error(error.message, checkout)
        except (FunctionError, OSError, shutil.Error, TimeoutError) as error:
            why = f"its process ended or did not start in time ({error or type(error).__name__})"
        else:
            self._tell("consumer/ changed: the functions use the new code")
            return
        self._tell(f"consumer/ can't be loaded, so the functions keep the old code: {why}")

    def _stamps(self) -> Stamps:
        """Return stamps that show whether a module was written, without reading it."""
        stamps = {}
        for path in self._consumer.rglob("*.py"):
            with suppress(OSError):
                status = path.stat()
                stamps[str(path)] = (status.st_mtime_ns, status.st_size)
        return stamps

    def _check_out(self) -> Path:
        """Create another checkout, with a copy of the current consumer and links to everything else."""
        self._number += 1
        checkout = self._folder / f"consumer-{self._number}"
        checkout.mkdir()
        for path in ROOT.iterdir():
            if path.name != CONSUMER and not path.name.startswith("."):
                (checkout / path.name).symlink_to(path)
        ignored = shutil.ignore_patterns("__pycache__")
        # An editor may lock a file by a dangling link.
        shutil.copytree(self._consumer, checkout / CONSUMER, ignore=ignored, ignore_dangling_symlinks=True)
        return checkout


def place_of_error(log: str, checkout: Path) -> str:
    """Return file, line and error of the traceback of a function that could not load, in one line."""
    lines = [line for line in log.splitlines() if line.strip()]
    found = re.findall(r'^ *File "([^"]+)", line (\d+)', log, re.MULTILINE)
    own = [place for place in found if Path(place[0]).is_relative_to(checkout / CONSUMER)]
    what = lines[-1].strip() if lines else "it printed nothing"
    if not (places := own or found):
        return what
    file, line = places[-1]
    name = Path(file)
    return f"{name.relative_to(checkout) if name.is_relative_to(checkout) else name}, line {line}: {what}"
