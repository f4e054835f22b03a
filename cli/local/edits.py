"""Edits of `schemas/` while a local server runs: its functions judge by them as soon as they are without fault."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from cli.local.functions import Functions
from cli.schemas.check import check_schemas
from handler.compile import digest, read_schemas
from handler.validate import Schemas

LOOK_SECONDS = 1.0


class SchemaEdits:
    """Looks at a folder of schemas.

    `tell` is told what happened, and `notify` of faults, with None when there are none any more. `judge_by` is handed
    the schemas by which the functions judge from then on.
    """

    def __init__(
        self,
        folder: Path,
        functions: Functions,
        *,
        tell: Callable[[str], None],
        notify: Callable[[str | None], None],
        judge_by: Callable[[Schemas], None],
    ) -> None:
        self._folder = folder
        self._functions = functions
        self._tell = tell
        self._notify = notify
        self._judge_by = judge_by

    async def watch(self) -> None:
        """Look again and again, until it is cancelled."""
        known = self._digest()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            found = self._digest()
            if found is not None and found != known:
                known = found
                await self._take_up()

    def _digest(self) -> str | None:
        """Return a hash of the schemas, None while a file is being replaced."""
        try:
            return digest(read_schemas(self._folder))
        except OSError:
            return None

    async def _take_up(self) -> None:
        faults = await asyncio.to_thread(check_schemas, self._folder)
        if faults:
            words = f"schemas/ has a fault, so the function judges by what was there before: {faults[0]}"
            self._tell(words)
            self._notify(words)
            return
        schemas = await asyncio.to_thread(Schemas.load, self._folder)
        await self._functions.renew()
        self._judge_by(schemas)
        self._notify(None)
        self._tell("schemas/ changed: the function judges by what is there now")
