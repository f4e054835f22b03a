"""Watch edits of `schemas/` while a local server runs; its functions use new schemas as soon as they have no faults.

Functions run in a checkout of their own, with a copy of schemas without faults. So a function can always start,
whatever is being edited.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import click

from destination.local.background import in_background
from destination.local.functions import Functions
from destination.paths import ROOT
from destination.schemas.check import check_schemas
from destination.schemas.places import SchemaFault
from handler.compile import digest
from handler.validate import Schemas

POLL_SECONDS = 1.0
LINKED = ("consumer", "destination", "handler")
"""The other parts of a checkout, besides its schemas."""


Stamps = Mapping[str, tuple[int, int, int]]
"""File -> time of its last change in nanoseconds, size in bytes, and inode."""


class SchemaEdits:
    """Watches `schemas`, and creates checkouts with copies of them below `folder` for the functions.

    `tell` is called with a report of each event. `notify` is called with faults, and with None when they are gone.
    `judge_by` is called with the schemas that the functions use from then on.
    """

    def __init__(
        self,
        schemas: Path,
        folder: Path,
        functions: Functions,
        *,
        tell: Callable[[str], None],
        notify: Callable[[str | None], None],
        judge_by: Callable[[Schemas], None],
    ) -> None:
        self._schemas = schemas
        self._folder = folder
        self._functions = functions
        self._tell = tell
        self._notify = notify
        self._judge_by = judge_by
        self._number = 0
        self._known = ""
        self._seen: Stamps = {}

    def begin(self) -> None:
        """Let functions start with the current schemas; raises `click.ClickException` if they have faults."""
        self._seen = self._stamps()
        files = self._read()
        self._known = digest(files)
        if faults := self._check_out(files):
            raise click.ClickException("The schemas have faults:\n" + "\n".join(map(str, faults)))
        self._use()

    async def watch(self) -> None:
        """Poll for changes until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            stamps = self._stamps()
            if stamps == self._seen:
                continue
            self._seen = stamps
            files = await in_background(self._read)
            if digest(files) == self._known:
                continue
            self._known = digest(files)
            if faults := await in_background(self._check_out, files):
                words = f"schemas/ has a fault, so the functions keep the old schemas: {faults[0]}"
                self._tell(words)
                self._notify(words)
                continue
            self._use()
            await self._functions.renew()
            self._notify(None)
            self._tell("schemas/ changed: the functions use the new schemas")

    def _stamps(self) -> Stamps:
        """Return stamps that show whether a file was written, without reading it."""
        stamps = {}
        for path in self._schemas.glob("*.json"):
            with suppress(OSError):
                status = path.stat()
                stamps[path.name] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return stamps

    def _read(self) -> Mapping[str, bytes]:
        """Return the files; one that can't be read, for example while it is replaced, counts as missing."""
        files = {}
        for path in sorted(self._schemas.glob("*.json")):
            with suppress(OSError):
                files[path.name] = path.read_bytes()
        return files

    @property
    def _checkout(self) -> Path:
        return self._folder / str(self._number)

    def _check_out(self, files: Mapping[str, bytes]) -> list[SchemaFault]:
        """Create another checkout with these schemas, and return their faults."""
        self._number += 1
        (self._checkout / "schemas").mkdir(parents=True)
        for name, content in files.items():
            (self._checkout / "schemas" / name).write_bytes(content)
        for name in LINKED:
            (self._checkout / name).symlink_to(ROOT / name)
        return check_schemas(self._checkout / "schemas")

    def _use(self) -> None:
        """Let functions start in the latest checkout."""
        self._functions.use(self._checkout)
        self._judge_by(Schemas.load(self._checkout / "schemas"))
