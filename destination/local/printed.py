"""Print a local server's activity in its terminal: a line for each request, and for each event of its consumers."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text
from starlette.requests import Request

from destination.console import counted, printable
from destination.deployment import demo
from destination.deployment.stack import Account, Stores
from destination.deployment.target import LOCAL_CA, LOCAL_URL
from destination.local.observer import Observer
from destination.watching.lines import CONSUMER_FAILED, read_consumer_failure
from destination.watching.log_file import RequestLogFile


def readable(request: Request, line: str) -> Text:
    """Return a request line in a readable form; other output of the function unchanged."""
    try:
        facts: Mapping[str, Any] = json.loads(line)
        count = facts.get("messages")
        messages = [] if count is None else [counted(count, "message")]
        what = [facts["outcome"], facts.get("call_type"), facts.get("customer_id"), facts.get("message_id"), *messages]
        words = [str(word) for word in [*what, facts.get("code")] if word is not None]
        return request_line(request, facts["status"], " ".join(words), facts["milliseconds"]["total"])
    except (ValueError, KeyError, TypeError):
        return Text(printable(line))


_BATCH_FAILED = re.compile(
    r"^Traceback \(most recent call last\):\n(?: .*\n)+consumer\.runtime\.batch\.BatchFailed: .*\n?", re.MULTILINE
)
"""The traceback that makes Lambda retry a whole batch. Each failed message has its own line before it."""


class Printed:
    """Prints the activity of the functions that read streams and queues."""

    def __init__(self, console: Console, *, as_json: bool, request_log: RequestLogFile, observer: Observer) -> None:
        self._console = console
        self._observer = observer
        self._as_json = as_json
        self._request_log = request_log

    def tell(self, function: str, text: str) -> None:
        """Print an event of a function."""
        self._console.print(Text.assemble(_now(), (f" {function} {printable(text)}", "yellow")))

    def show(self, function: str, log: str) -> None:
        """Print a function's output. A failure is stored whole in the request log, and printed as one line."""
        shown = log if self._as_json else _BATCH_FAILED.sub("", log)
        for line in shown.splitlines():
            place = None
            if CONSUMER_FAILED in line:
                timed = json.dumps({"time": datetime.now(UTC).isoformat(), **json.loads(line)})
                self._request_log.write(timed)
                if failure := read_consumer_failure(timed):
                    self._observer.note_consumer_failure(failure)
                place = self._request_log.path
            for text in [Text(printable(line))] if self._as_json else _readable_facts(function, line, place):
                self._console.print(text)


MAX_SHOWN_CHARS = 100
"""Limit for one fact; that many characters of a hash are enough."""
_FOR_MACHINES = ("_aws", "level", "location", "message", "service", "timestamp", "traceback", "xray_trace_id")
"""Fields of log lines that are not facts for people."""


def _readable_facts(function: str, line: str, place: Path | None) -> Iterator[Text]:
    """Return a line about an outcome in a readable form; other output of a function unchanged.

    The traceback is in the file `place`; without one, it follows the line. A line with only counts for CloudWatch is
    left out.
    """
    try:
        facts = json.loads(line)
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.keys().isdisjoint({"outcome", "_aws"}):
        yield Text(printable(line))
    elif "outcome" in facts:
        words = [
            f"{name}={_shortened(str(value))}"
            for name, value in facts.items()
            if isinstance(value, str | int | float) and name not in ("outcome", *_FOR_MACHINES)
        ]
        traceback = str(facts.get("traceback", "")).splitlines()
        if place is not None:
            words += [*traceback[-1:], f"(traceback: {place.parent.name}/{place.name})"]
        yield Text.assemble(_now(), (f" {function} {printable(' '.join([str(facts['outcome']), *words]))}", "dim"))
        if place is None:
            yield from (Text(printable(row)) for row in traceback)


_COLOURS = {2: "green", 4: "yellow", 5: "red"}


def request_line(request: Request, status: int, words: str, milliseconds: float | None = None) -> Text:
    """Return the printed line of a request."""
    took = f"  {milliseconds:.1f} ms" if milliseconds is not None else ""
    return Text.assemble(
        _now(),
        f" {request.method} {printable(request.scope['path'])} ",
        (str(status), _COLOURS.get(status // 100, "")),
        f" {printable(words)}",
        (took, "dim"),
    )


def _now() -> tuple[str, str]:
    return datetime.now().astimezone().strftime("%H:%M:%S"), "dim"


def print_welcome(console: Console, url: str, api_key: str, account: Account, stores: Stores) -> None:
    """Print the server's address, and what to try first."""
    body = {"type": "track", "event": "Signed Up", "userId": "user-1", "properties": {"plan": "pro"}}
    ca = f"--cacert {shlex.quote(str(LOCAL_CA))} " if url.startswith("https") else ""
    option = "" if url == LOCAL_URL else f" --url {url}"
    console.print(Text.assemble("\nThe destination listens at ", (f"{url}/segment", "bold")))
    console.print(Text.assemble("See what it does at       ", (f"{url}/", "bold")))
    console.print(Text.assemble("API key: ", (api_key, "bold"), f"   (customer {demo.CUSTOMER})\n"))
    console.print("Send it a message:\n")
    console.print(
        f"  curl {ca}-i -u {shlex.quote(api_key + ':')} -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(json.dumps(body))} \\\n    {url}/segment\n",
        markup=False,
    )
    if stores.sink.is_queryable:
        console.print(f"See what is stored:            .venv/bin/destination messages list{option}")
    else:
        console.print(f"Messages go to the queue       {stores.event_store}")
    if stores.consumer == "on":
        console.print(f"See the contacts of it:        .venv/bin/destination contacts list{option}")
    console.print(f"A message of each call type:   .venv/bin/destination ping all{option}")
    if stores.sink.is_queryable:
        console.print(f"Erase a user:                  .venv/bin/destination erase --user {body['userId']}{option}")
        console.print(f"See who was erased:            .venv/bin/destination erasures list{option}")
    console.print(f"Its stores answer at           {account.endpoint_url}")
    if url.startswith("https"):
        console.print(
            "A browser warns of its certificate, which only this machine knows: continue, or trust .local/ca.pem"
        )
    console.print("Control-C ends it. The data of an embedded AWS is then gone.\n")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
