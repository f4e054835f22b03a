"""The report at the end of an import."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from destination.console import Rows, counted, printable, stdout
from destination.importing.pace import Stopped
from destination.importing.sources import (
    Found,
)
from destination.importing.state import ImportState
from destination.importing.tally import ImportTally

SOME_REJECTED = 3
"""The exit code if messages were rejected; 1 is for failures, as with all commands."""


class ImportReport:
    """The report at the end of an import."""

    def __init__(
        self, found: Found, state: ImportState, tally: ImportTally, *, already: int, stopped: Stopped | None
    ) -> None:
        self._found = found
        self._state = state
        self._tally = tally
        self._already = already
        self._stopped = stopped

    @property
    def _is_complete(self) -> bool:
        return self._stopped is None and not self._tally.unreadable and not self._state.unaccounted

    def to_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        state, tally = self._state, self._tally
        return {
            "complete": self._is_complete,
            "ended_because": str(self._stopped) if self._stopped else None,
            "lines": tally.lines,
            "blank": tally.blank,
            "unaccounted": state.unaccounted,
            "messages": tally.messages,
            "accepted": tally.accepted,
            "duplicates": tally.duplicates,
            "rejected": tally.rejected.total(),
            "rejected_by_code": tally.rejected,
            "examples": [asdict(reject) for examples in tally.examples.values() for reject in examples],
            "rewritten_times": {"count": tally.rewritten, "examples": tally.rewritten_examples},
            "undated": {"count": tally.undated, "examples": tally.undated_examples},
            "seconds": round(tally.seconds, 3),
            "files": len(self._found.sources),
            "already_imported": self._already,
            "passed_over": self._found.passed_over,
            "rejects_files": self._found.rejects_files,
            "unreadable": tally.unreadable,
            "state": str(state.path) if state.path else None,
            "in_all_runs": {
                "accepted": state.accepted,
                "duplicates": state.duplicates,
                "rejected": state.rejected.total(),
            },
        }

    def show(self) -> None:
        """Print the report for people."""
        state, tally = self._state, self._tally
        if self._already:
            click.echo(
                f"Already imported: {files_text(self._already)} of {len(self._found.sources):,}, by {state.path}."
            )
        if self._already < len(self._found.sources):
            counts = _counts(tally.accepted, tally.duplicates, tally.rejected.total())
            click.echo(f"{counts}, in {tally.seconds:,.1f} s ({tally.rate:,.0f} messages/s).")
        if state.accepted + state.duplicates + state.rejected.total() > tally.messages:
            counts = _counts(state.accepted, state.duplicates, state.rejected.total())
            click.echo(f"Including earlier runs: {counts}.")
        self._show_times()
        if self._found.passed_over:
            some = ", ".join(map(printable, self._found.passed_over[:3]))
            click.echo(f"Skipped because of their names: {files_text(len(self._found.passed_over))}, such as {some}.")
        if self._found.rejects_files:
            some = ", ".join(map(printable, self._found.rejects_files[:3]))
            count = files_text(len(self._found.rejects_files))
            click.echo(f"Skipped because an earlier --rejects wrote it: {count}, such as {some}.")
        for name, why in tally.unreadable.items():
            click.echo(f"Not read to its end: {printable(name)}: {printable(why)}.")
        if tally.examples:
            rows = Rows("Count", "Rejected because", "For example", right=(0,), folded=(2,))
            for code, examples in tally.examples.items():
                for number, reject in enumerate(examples):
                    head = (f"{tally.rejected[code]:,}", code) if number == 0 else ("", "")
                    rows.add_row(*head, f"{reject.file}:{reject.line}: {reject.message}")
            stdout().print(rows)

    def _show_times(self) -> None:
        tally = self._tally
        if tally.rewritten:
            click.echo(
                f"Times that were sent as ISO 8601 instead: {_lines(tally.rewritten, tally.rewritten_examples)}."
            )
        if tally.undated:
            click.echo(
                "Without a timestamp, so the time of the import counts: "
                f"{_lines(tally.undated, tally.undated_examples)}."
            )

    def exit(self) -> None:
        """Raise the command's error or exit code, unless everything was accepted."""
        if not self._is_complete:
            why = f"{self._stopped}. " if self._stopped else ""
            if count := self._state.unaccounted:
                raise click.ClickException(
                    f"{why}{count:,} of the lines that were read are neither blank nor accepted, duplicate or "
                    "rejected. This is a bug of the import. Send all again with --restart, which stores nothing twice"
                )
            if self._state.is_empty:
                raise click.ClickException(f"{why}Nothing was accepted. Fix the cause, and run it again")
            where = (
                f"{self._state.path} has the progress"
                if self._state.path
                else "messages that are sent again are not stored twice"
            )
            again = "Run the same command again" if self._stopped else "Fix the file, and send it with --restart"
            raise click.ClickException(f"{why}Not all was sent. {again}: {where}")
        if self._state.rejected:
            raise click.exceptions.Exit(SOME_REJECTED)


def files_text(count: int) -> str:
    """Return a number of files in words."""
    return counted(count, "file")


def _lines(count: int, examples: Sequence[str]) -> str:
    return f"{counted(count, 'line')}, such as {', '.join(map(printable, examples))}"


def _counts(accepted: int, duplicates: int, rejected: int) -> str:
    return f"{accepted:,} accepted, {counted(duplicates, 'duplicate')}, {rejected:,} rejected"
