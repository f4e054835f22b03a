"""`destination ping`: send test messages exactly as Segment does."""

import json
from datetime import UTC, datetime
from typing import Any

import click
import urllib3
from rich.console import Group
from rich.highlighter import JSONHighlighter
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from destination.commands.options import ca_file_option, json_option, parse_endpoint
from destination.console import printable, stdout
from destination.deployment.target import LOCAL_URL, demo_key_of, trusted_authority
from destination.segment.client import (
    Answer,
    segment_headers,
    send,
)
from destination.segment.samples import sample_message
from handler.spec import CALL_TYPES

ACCEPTED = (200, 202)
MAX_LINE_CHARS = 80
MAX_SHOWN_CHARS = 10_000
"""Limit for a printed answer."""


@click.command()
@click.argument("call_type", type=click.Choice((*CALL_TYPES, "all")), default="track")
@click.option("--url", default=LOCAL_URL, show_default=True, help="The endpoint; without a path, /segment is used.")
@click.option("--api-key", help="The API key. The default is a local server's valid demo key.")
@ca_file_option
@click.option("--settings", metavar="JSON", help="The customer's settings, for the header X-Segment-Settings.")
@click.option("--print", "only_print", is_flag=True, help="Print the messages without sending them.")
@click.option("--verbose", is_flag=True, help="With `all`, show each whole request and answer.")
@json_option("Print JSON, for programs.")
def ping(
    *,
    call_type: str,
    url: str,
    api_key: str | None,
    ca_file: str | None,
    settings: str | None,
    only_print: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Send test messages, and show the answers.

    A single message is shown with its whole request and answer. With `all`, each call type is a line, and --verbose
    also shows the requests. Exits with 1 unless every message is accepted.

    \b
    Example:
      destination ping all --url https://destination.example.com/segment --api-key ddk_…
    """
    messages = [
        sample_message(name, datetime.now(UTC)) for name in (CALL_TYPES if call_type == "all" else (call_type,))
    ]
    if only_print:
        for message in messages:
            click.echo(json.dumps(message, indent=2))
        return
    endpoint = parse_endpoint(url)
    headers = segment_headers(api_key or demo_key_of(endpoint), _parse_settings(settings))
    answers = []
    with urllib3.PoolManager(ca_certs=trusted_authority(endpoint, ca_file)) as http:
        for message in messages:
            try:
                answer = send(http, endpoint, headers, json.dumps(message).encode())
            except urllib3.exceptions.HTTPError as error:
                raise click.ClickException(f"{endpoint} does not answer: {error}") from error
            answers.append(answer)
            if as_json:
                continue
            if verbose or len(messages) == 1:
                _show(endpoint, headers, message, answer)
            else:
                click.echo(_line(message, answer))
    if as_json:
        results = [
            {"request": message, "status": answer.status, "answer": answer.body, "milliseconds": answer.milliseconds}
            for message, answer in zip(messages, answers, strict=True)
        ]
        click.echo(json.dumps(results, indent=2))
    if any(answer.status not in ACCEPTED for answer in answers):
        raise click.exceptions.Exit(1)


def _parse_settings(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--settings") from error
    if not isinstance(settings, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--settings")
    return settings


def _line(message: dict[str, Any], answer: Answer) -> str:
    """Return a line for a message: status, call type, time, message id, and the reason if it was not accepted."""
    text = answer.body.get("message", "") if isinstance(answer.body, dict) else answer.text[:MAX_LINE_CHARS]
    why = "" if answer.status in ACCEPTED else text
    line = f"{answer.status} {message['type']:<8} {answer.milliseconds:5.0f} ms  {message['messageId']}  {why}"
    return printable(line.rstrip())


def _show(url: str, headers: dict[str, str], message: dict[str, Any], answer: Answer) -> None:
    request = [f"POST {url}", *(f"{name}: {value}" for name, value in {**headers, "Authorization": "Basic …"}.items())]
    received = [
        f"HTTP {answer.status} in {answer.milliseconds:.0f} ms",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    colour = "green" if answer.status in ACCEPTED else "red"
    console = stdout()
    if not console.is_terminal:  # for a file or a program, lines are as long as their text
        for head, body in ((request, message), (received, answer.body)):
            click.echo("\n".join([*map(printable, head), _shown(body), ""]))
        return
    sides = Table.grid(expand=True, padding=(0, 1))
    sides.add_column(ratio=1)
    sides.add_column(ratio=1)
    sides.add_row(
        Panel(_page(request, message), title=message["type"]),
        Panel(_page(received, answer.body), title="answer", border_style=colour),
    )
    console.print(sides)


def _shown(body: object) -> str:
    text = json.dumps(body, indent=2, ensure_ascii=False) if isinstance(body, dict) else str(body)
    if len(text) > MAX_SHOWN_CHARS:
        text = f"{text[:MAX_SHOWN_CHARS]} … ({len(text):,} characters)"
    return text


def _page(head: list[str], body: object) -> Group:
    text = _shown(body)
    content = JSONHighlighter()(text) if isinstance(body, dict) else Text(text)
    return Group(Text("\n".join(head) + "\n", "dim"), content)
