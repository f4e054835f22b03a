"""`destination import`: the command."""

import json
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import click

from destination.commands.options import parse_endpoint
from destination.console import Rows, counted, printable, stdout
from destination.deployment.target import LOCAL_URL, ask_local_server, demo_key_of, trusted_authority
from destination.importing.batches import DEFAULT_BATCH_MESSAGES, batches
from destination.importing.deliver import Sender
from destination.importing.pace import Pace, Stopped
from destination.importing.play import Play
from destination.importing.progress import Display
from destination.importing.sources import (
    STANDARD_INPUT,
    SUFFIXES,
    Found,
    find_sources,
    is_stream,
    source_name,
    state_beside,
)
from destination.importing.state import Recipient, State
from destination.importing.tally import Tally
from destination.segment.client import deployment_url
from handler.split import MAX_BATCH_MESSAGES

GIVE_UP_AFTER_SECONDS = 600
MAX_CONCURRENCY = 64
SOME_REJECTED = 3
"""How the command exits then; 1 is for what failed, as with all commands."""

STATE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@click.option("--url", default=LOCAL_URL, show_default=True, help="The endpoint, or any of its routes.")
@click.option("--api-key", help="The API key. A local server's good demo key without this.")
@click.option(
    "--ca-file", type=click.Path(exists=True), help="A certificate authority to trust (serve --tls has its own)."
)
@click.option(
    "--state",
    "state_path",
    type=STATE,
    help="The file that says how far it has come; beside the first FILE if you don't say.",
)
@click.option("--restart", is_flag=True, help="Forget the state, and send all again.")
@click.option("--rejects", "rejects_path", type=STATE, help="A file to which a line is added for each reject, as JSON.")
@click.option(
    "--batch-size",
    default=DEFAULT_BATCH_MESSAGES,
    show_default=True,
    type=click.IntRange(1, MAX_BATCH_MESSAGES),
    help="Messages per request at the most; fewer while the endpoint is overloaded.",
)
@click.option(
    "--concurrency", default=4, show_default=True, type=click.IntRange(1, MAX_CONCURRENCY), help="Requests at once."
)
@click.option(
    "--give-up-after",
    "give_up_after_seconds",
    metavar="SECONDS",
    default=GIVE_UP_AFTER_SECONDS,
    show_default=True,
    type=click.IntRange(0),
    help="How long to try on while nothing is accepted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object at the end, for programs.")
def import_(
    *,
    files: tuple[str, ...],
    url: str,
    api_key: str | None,
    ca_file: str | None,
    state_path: Path | None,
    restart: bool,
    rejects_path: Path | None,
    batch_size: int,
    concurrency: int,
    give_up_after_seconds: int,
    as_json: bool,
) -> None:
    """Import a history of messages from files.

    Files are JSON Lines, plain or gzip, or folders of them, such as Segment's archive in S3. Each line is a message as
    Segment's libraries send it, or as Segment keeps and delivers it. - is standard input.

    The same command again goes on where it ended, and skips what was accepted. Standard input needs --state for that,
    and the same input. Nothing is stored twice, whatever is sent again; two equal lines without a messageId are one
    message.

    Exits with 0 when all is accepted, 3 when all was sent and some messages were rejected, and 1 when not all was
    sent: then run it again. It also exits with 1 when its counts do not add up to the lines that it read.

    \b
    Example:
      destination import history.jsonl --url https://destination.example.com --api-key ddk_…
    """
    endpoint = parse_endpoint(url)
    found = _find(files)
    for option, path in {"--state": state_path, "--rejects": rejects_path}.items():
        _check_apart(option, path, files)
    api_key = api_key or demo_key_of(endpoint)
    deployment = deployment_url(endpoint)
    recipient = Recipient.of(deployment, api_key, _local_stores(endpoint))
    state = _state(files, state_path, recipient, restart=restart)
    progress = {source.name: state.progress_of(source) for source in found.sources}
    to_read = [source for source in found.sources if source.is_stream or not progress[source.name].is_whole]
    tally = Tally()
    stopped = None
    if to_read:
        pace = Pace(size=batch_size, give_up_after_seconds=give_up_after_seconds)
        sender = Sender(
            deployment, api_key, pace, connections=concurrency, ca_file=trusted_authority(endpoint, ca_file)
        )
        state.save()
        with ExitStack() as stack:
            if rejects_path:
                tally.rejects_file = _open_rejects(rejects_path, stack)
            display = stack.enter_context(Display(found.sources))
            play = Play(sender, pace, state, tally, concurrency=concurrency, told=display)
            starts = ((source, progress[source.name].mark) for source in to_read)
            stopped = play.run(batches(starts, most_messages=lambda: pace.size))
        if state.is_empty:
            state.remove()
    report = _Report(found, state, tally, already=len(found.sources) - len(to_read), stopped=stopped)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        report.show()
    report.exit()


class _Report:
    """What is told at the end."""

    def __init__(self, found: Found, state: State, tally: Tally, *, already: int, stopped: Stopped | None) -> None:
        self._found = found
        self._state = state
        self._tally = tally
        self._already = already
        self._stopped = stopped

    @property
    def _is_complete(self) -> bool:
        return self._stopped is None and not self._tally.unreadable and not self._state.unaccounted

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
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
        """Print it for people."""
        state, tally = self._state, self._tally
        if self._already:
            click.echo(f"Already imported: {_files(self._already)} of {len(self._found.sources):,}, by {state.path}.")
        if self._already < len(self._found.sources):
            counts = _counts(tally.accepted, tally.duplicates, tally.rejected.total())
            click.echo(f"{counts}, in {tally.seconds:,.1f} s ({tally.rate:,.0f} messages/s).")
        if state.accepted + state.duplicates + state.rejected.total() > tally.messages:
            counts = _counts(state.accepted, state.duplicates, state.rejected.total())
            click.echo(f"With earlier runs: {counts}.")
        self._show_times()
        if self._found.passed_over:
            some = ", ".join(map(printable, self._found.passed_over[:3]))
            click.echo(f"Passed over because of their names: {_files(len(self._found.passed_over))}, such as {some}.")
        if self._found.rejects_files:
            some = ", ".join(map(printable, self._found.rejects_files[:3]))
            count = _files(len(self._found.rejects_files))
            click.echo(f"Passed over because an earlier --rejects wrote it: {count}, such as {some}.")
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
                "Without a timestamp, so that the time of the import counts: "
                f"{_lines(tally.undated, tally.undated_examples)}."
            )

    def exit(self) -> None:
        """Raise what ends the command, unless all was accepted."""
        if not self._is_complete:
            why = f"{self._stopped}. " if self._stopped else ""
            if count := self._state.unaccounted:
                raise click.ClickException(
                    f"{why}{count:,} of the lines that were read are neither blank nor accepted, duplicate or "
                    "rejected. This is a bug of the import. Send all again with --restart, which stores nothing twice"
                )
            if self._state.is_empty:
                raise click.ClickException(f"{why}Nothing was accepted. When that is mended, run it again")
            where = f"{self._state.path} knows how far it came" if self._state.path else "what is sent again is no harm"
            again = "Run the same command again" if self._stopped else "Mend the file, and send it with --restart"
            raise click.ClickException(f"{why}Not all was sent. {again}: {where}")
        if self._state.rejected:
            raise click.exceptions.Exit(SOME_REJECTED)


def _find(files: Sequence[str]) -> Found:
    try:
        found = find_sources(files)
    except OSError as error:
        raise click.ClickException(f"The files can't be found: {error}") from error
    if not found.sources:
        raise click.ClickException(
            f"No file there ends in {', '.join(SUFFIXES)}: "
            f"{_files(len(found.passed_over) + len(found.rejects_files))} passed over"
        )
    return found


def _check_apart(option: str, path: Path | None, files: Sequence[str]) -> None:
    """Raise `click.BadParameter` where what is written would be read as messages, now or by the next run."""
    for name in files:
        if path and name != STANDARD_INPUT and path.resolve().is_relative_to(Path(name).resolve()):
            raise click.BadParameter(f"{path} is among the files to import", param_hint=option)


def _state(files: Sequence[str], path: Path | None, recipient: Recipient, *, restart: bool) -> State:
    """Return the state to go on from; what is known of standard input counts only where the state was named."""
    if path is not None:
        return State.load(path.absolute(), recipient, restart=restart)
    streams = [name for name in files if is_stream(name)]
    named = next((name for name in files if name not in streams), None)
    if STANDARD_INPUT in streams:
        click.echo("Standard input can't be resumed without --state: what is sent again is no harm.", err=True)
    if pipes := [name for name in streams if name != STANDARD_INPUT]:
        each = ", ".join(map(printable, pipes))
        click.echo(f"A pipe can't be read again, so no state of it is kept: {each}. Nothing is stored twice.", err=True)
    if named is None:
        return State(path=None, recipient=recipient)
    state = State.load(state_beside(named), recipient, restart=restart)
    for name in streams:
        state.files.pop(source_name(name), None)
    return state


def _local_stores(endpoint: str) -> str | None:
    """Return where a local server stores: what it had accepted is gone when it ends, and an import begins anew."""
    if urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
        with suppress(click.ClickException):
            return str(ask_local_server(urljoin(endpoint, "/"))["endpoint_url"])
    return None


def _open_rejects(path: Path, stack: ExitStack) -> Any:  # noqa: ANN401 -- a text file
    try:
        return stack.enter_context(path.open("a", encoding="utf-8"))
    except OSError as error:
        raise click.ClickException(f"The rejects can't be written to {path}: {error}") from error


def _files(count: int) -> str:
    return counted(count, "file")


def _lines(count: int, examples: Sequence[str]) -> str:
    return f"{counted(count, 'line')}, such as {', '.join(map(printable, examples))}"


def _counts(accepted: int, duplicates: int, rejected: int) -> str:
    return f"{accepted:,} accepted, {counted(duplicates, 'duplicate')}, {rejected:,} rejected"
