"""The reference of the command line, made from what `--help` prints."""

import inspect
import re
import textwrap
from collections.abc import Iterator

import click


def reference(group: click.Group, name: str) -> str:
    """Return Markdown with a section for each command: usage, description, example, and a table of options."""
    return "\n".join(line for path, command in commands(group, name) for line in section(path, command))


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """Yield each command that is not a group, with its full name."""
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from commands(child, f"{path} {name}")
    else:
        yield path, command


def section(path: str, command: click.Command) -> Iterator[str]:
    """Yield the lines of one command."""
    context = click.Context(command, info_name=path)
    described, _, example = inspect.cleandoc(command.help or "").partition("\b\nExample:\n")
    yield from ("", f"### {path}", "", text(described.replace("\b\n", "")), "")
    yield from ("```", " ".join([path, *command.collect_usage_pieces(context)]), "```", "")
    yield from ("Example:", "", "```", textwrap.dedent(example).strip(), "```", "")
    yield from ("| option | what it does |", "|---|---|")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record:
            option, does = record
            yield f"| `{cell(option)}` | {text(cell(does))} |"
    yield ""


def cell(shown: str) -> str:
    """Return a text as the cell of a table, on one line."""
    return re.sub(r"\s+", " ", shown).replace("|", r"\|").strip()


def text(shown: str) -> str:
    """Escape what Markdown would read as HTML."""
    return shown.replace("<", "&lt;")
