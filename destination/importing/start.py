"""Prepare an import: its files, the state of an earlier run, and a file for rejects."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import click

from destination.console import printable
from destination.deployment.target import ask_local_server
from destination.importing.report import files_text
from destination.importing.sources import (
    STANDARD_INPUT,
    SUFFIXES,
    Found,
    default_state_path,
    find_sources,
    is_stream,
    source_name,
)
from destination.importing.state import ImportState, Recipient


def find(files: Sequence[str]) -> Found:
    """Return the sources of messages; raises `click.ClickException` without any."""
    try:
        found = find_sources(files)
    except OSError as error:
        raise click.ClickException(f"The files can't be found: {error}") from error
    if not found.sources:
        raise click.ClickException(
            f"No file there ends in {', '.join(SUFFIXES)}: "
            f"{files_text(len(found.passed_over) + len(found.rejects_files))} skipped"
        )
    return found


def check_apart(option: str, path: Path | None, files: Sequence[str]) -> None:
    """Raise `click.BadParameter` if an output file would be read as messages, now or by the next run."""
    for name in files:
        if path and name != STANDARD_INPUT and path.resolve().is_relative_to(Path(name).resolve()):
            raise click.BadParameter(f"{path} is among the files to import", param_hint=option)


def load_state(files: Sequence[str], path: Path | None, recipient: Recipient, *, restart: bool) -> ImportState:
    """Return the state to continue from; for standard input, only if the user named the state."""
    if path is not None:
        return ImportState.load(path.absolute(), recipient, restart=restart)
    streams = [name for name in files if is_stream(name)]
    named = next((name for name in files if name not in streams), None)
    if STANDARD_INPUT in streams:
        click.echo(
            "Standard input can't be resumed without --state. Messages that are sent again are not stored twice.",
            err=True,
        )
    if pipes := [name for name in streams if name != STANDARD_INPUT]:
        each = ", ".join(map(printable, pipes))
        click.echo(f"A pipe can't be read again, so its state is not kept: {each}. Nothing is stored twice.", err=True)
    if named is None:
        return ImportState(path=None, recipient=recipient)
    state = ImportState.load(default_state_path(named), recipient, restart=restart)
    for name in streams:
        state.files.pop(source_name(name), None)
    return state


def local_stores(endpoint: str) -> str | None:
    """Return where a local server stores: its data is gone when it ends, so the next import begins again."""
    if urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1"):
        with suppress(click.ClickException):
            return str(ask_local_server(urljoin(endpoint, "/"))["endpoint_url"])
    return None


def open_rejects(path: Path, stack: ExitStack) -> Any:  # noqa: ANN401 -- a text file
    """Open the file for rejects until the stack ends; raises `click.ClickException` if it can't be written."""
    try:
        return stack.enter_context(path.open("a", encoding="utf-8"))
    except OSError as error:
        raise click.ClickException(f"The rejects can't be written to {path}: {error}") from error
