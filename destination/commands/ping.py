"""`destination ping`: test messages, sent exactly as Segment sends them."""

import base64
import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urljoin, urlsplit

import click
import urllib3
from rich.console import Group
from rich.highlighter import JSONHighlighter
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from destination.console import printable, stdout
from destination.deployment.stack import ROOT
from destination.deployment.target import LOCAL_CA, LOCAL_URL, ask_local_server
from handler.request import ROUTES
from handler.spec import CALL_TYPES

SEGMENT_TIMEOUT_SECONDS = 5
ACCEPTED = (200, 202)
MAX_ANSWER_BYTES = 1024 * 1024
"""Of an answer, the rest is not read: a server may send without end."""
MAX_SHOWN_CHARS = 10_000
"""Of an answer, for people."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an endpoint answered to one message."""

    status: int
    headers: dict[str, str]
    text: str
    milliseconds: float

    @property
    def body(self) -> Any:  # noqa: ANN401 -- JSON is any of six types
        """JSON where it is that, else text; JSON that is nested too deeply to be printed is text, too."""
        try:
            body = json.loads(self.text)
            json.dumps(body, indent=2)
        except (ValueError, RecursionError):
            return self.text
        return body


def sample_message(call_type: str, now: datetime) -> dict[str, Any]:
    """Return the message of `events/`, as if it happened a moment ago.

    A `delete` names a user of its own, since it is carried out: those of the other call types are there to be seen.
    """
    event = json.loads((ROOT / "events" / f"{call_type}.json").read_text("utf-8"))
    message: dict[str, Any] = json.loads(event["body"])
    times = {"originalTimestamp": 2.0, "sentAt": 1.0, "receivedAt": 0.5, "timestamp": 1.5}
    for name, seconds_ago in times.items():
        moment = now - timedelta(seconds=seconds_ago)
        message[name] = moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if call_type == "delete":
        message["userId"] = f"ping-{uuid.uuid4()}"
    return {**message, "messageId": f"ping-{uuid.uuid4()}"}


def segment_headers(api_key: str, settings: dict[str, Any] | None = None) -> dict[str, str]:
    """Return the headers that Segment sends."""
    headers = {
        "Accept": "*/*",
        "Authorization": "Basic " + base64.b64encode(f"{api_key}:".encode()).decode(),
        "Cache-Control": "no-cache",
        "Connection": "Keep-Alive",
        "Content-Type": "application/json",
        "User-Agent": "Segment.io/1.0",
    }
    if settings:
        headers["X-Segment-Settings"] = base64.b64encode(json.dumps(settings).encode()).decode()
    return headers


def send(http: urllib3.PoolManager, url: str, headers: dict[str, str], body: bytes) -> Answer:
    """Post a message within Segment's five seconds; raises `urllib3.exceptions.HTTPError`."""
    began = time.monotonic()
    headers = {**headers, "Accept-Encoding": urllib3.util.SKIP_HEADER}
    answer = http.request(
        "POST",
        url,
        headers=headers,
        body=body,
        timeout=SEGMENT_TIMEOUT_SECONDS,
        retries=False,
        redirect=False,
        preload_content=False,
    )
    received = b""
    try:
        while len(received) < MAX_ANSWER_BYTES and (piece := answer.read1(MAX_ANSWER_BYTES - len(received))):
            received += piece
            if time.monotonic() - began > SEGMENT_TIMEOUT_SECONDS:
                raise urllib3.exceptions.TimeoutError(f"the answer takes longer than {SEGMENT_TIMEOUT_SECONDS} seconds")
        is_whole = len(received) < MAX_ANSWER_BYTES
    except urllib3.exceptions.HTTPError:
        answer.close()
        raise
    if is_whole:
        answer.release_conn()
    else:
        answer.close()
    return Answer(
        status=answer.status,
        headers=dict(answer.headers),
        text=received.decode("utf-8", "replace"),
        milliseconds=(time.monotonic() - began) * 1000,
    )


@click.command()
@click.argument("call_type", type=click.Choice((*CALL_TYPES, "all")), default="track")
@click.option("--url", default=LOCAL_URL, show_default=True, help="The endpoint; without a path, /segment is meant.")
@click.option("--api-key", help="The API key. A local server's good demo key without this.")
@click.option(
    "--ca-file", type=click.Path(exists=True), help="A certificate authority to trust (serve --tls has its own)."
)
@click.option("--settings", metavar="JSON", help="The customer's settings, for the header X-Segment-Settings.")
@click.option("--print", "only_print", is_flag=True, help="Print the messages and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def ping(
    *,
    call_type: str,
    url: str,
    api_key: str | None,
    ca_file: str | None,
    settings: str | None,
    only_print: bool,
    as_json: bool,
) -> None:
    """Send a test message of a call type, or of all, and show request and answer side by side.

    Exits with 1 unless every message is accepted.

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
    headers = segment_headers(api_key or ask_for_key(endpoint), _parse_settings(settings))
    answers = []
    with urllib3.PoolManager(ca_certs=trusted_authority(endpoint, ca_file)) as http:
        for message in messages:
            try:
                answer = send(http, endpoint, headers, json.dumps(message).encode())
            except urllib3.exceptions.HTTPError as error:
                raise click.ClickException(f"{endpoint} does not answer: {error}") from error
            answers.append(answer)
            if not as_json:
                _show(endpoint, headers, message, answer)
    if as_json:
        results = [
            {"request": message, "status": answer.status, "answer": answer.body, "milliseconds": answer.milliseconds}
            for message, answer in zip(messages, answers, strict=True)
        ]
        click.echo(json.dumps(results, indent=2))
    if any(answer.status not in ACCEPTED for answer in answers):
        raise click.exceptions.Exit(1)


def parse_endpoint(url: str) -> str:
    """Return the URL to post to; raises `click.BadParameter`."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        is_url = is_url and bool((parts.hostname or "").encode("idna"))  # raises at what no name server would look up
    except ValueError:
        is_url = False
    if is_url and "@" in parts.netloc:
        raise click.BadParameter("a URL with credentials would be shown: leave them out", param_hint="--url")
    if not url.isascii():
        raise click.BadParameter(f"{url} is not ASCII: write its host as xn--…", param_hint="--url")
    if not is_url or " " in url:
        raise click.BadParameter(f"{url} is no URL: write https://host/segment", param_hint="--url")
    return (parts._replace(path="/segment") if parts.path in ("", "/") else parts).geturl()


def deployment_url(endpoint: str) -> str:
    """Return the URL of a deployment without the path of a route, from that of one of its routes or its own."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    for route in ROUTES.values():
        path = path.removesuffix(route.path)
    return parts._replace(path=path.removesuffix("/v1"), query="", fragment="").geturl()


def ask_for_key(endpoint: str) -> str:
    """Return the good demo key of a local server; raises `click.ClickException` where there is none."""
    server = urljoin(endpoint, "/")
    try:
        return str(ask_local_server(server)["api_key"])
    except (click.ClickException, KeyError) as error:
        raise click.ClickException(
            f"No local server answers at {server}: start one with `make run`, name its --url, or an --api-key of "
            "the endpoint"
        ) from error


def trusted_authority(endpoint: str, ca_file: str | None) -> str | None:
    """Return the file of the authority to trust: the one that was named, or for this machine the local server's own."""
    is_here = urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1")
    return ca_file or (str(LOCAL_CA) if is_here and LOCAL_CA.exists() else None)


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


def _show(url: str, headers: dict[str, str], message: dict[str, Any], answer: Answer) -> None:
    request = [f"POST {url}", *(f"{name}: {value}" for name, value in {**headers, "Authorization": "Basic …"}.items())]
    received = [
        f"HTTP {answer.status} in {answer.milliseconds:.0f} ms",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    colour = "green" if answer.status in ACCEPTED else "red"
    console = stdout()
    if not console.is_terminal:  # a file or a program gets lines that are as long as what they say
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
