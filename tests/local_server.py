"""Run the command line, in this process or in another one, and local servers for it.

A server runs in its own checkout, so that the `.local/` folder of the developer's checkout stays unchanged.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from click.testing import CliRunner, Result

from destination.command_line import main
from destination.deployment import demo
from destination.deployment.stack import Account, Stores
from destination.paths import ROOT

LINKED = ("consumer", "destination", "events", "handler", "schemas", "template.yaml")
MAX_WAIT_SECONDS = 120
"""For operations that take some seconds, and for a simulation of half a minute, on an idle machine."""


def run(*args: str, stdin: str | bytes | None = None) -> Result:
    """Run `destination` in this process. Unexpected exceptions pass through."""
    return CliRunner(catch_exceptions=False).invoke(main, args, input=stdin, prog_name="destination")


def make_checkout(folder: Path) -> Path:
    """Link the files that are needed to run into a folder, unless a test has put other files there."""
    for name in LINKED:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    return folder


class _Process(subprocess.Popen):
    """A process that ends if its `with` block raises. Popen would wait for it forever."""

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, error, traceback)


def start(checkout: Path, *args: str, **options: Any) -> subprocess.Popen:
    """Start `destination` in a new process group. Its errors go where its output goes."""
    usual = {
        "env": {name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "stderr": subprocess.STDOUT,
        "start_new_session": True,
        "text": True,
    }
    return _Process([sys.executable, "-m", "destination", *args], cwd=checkout, **(usual | options))


@contextmanager
def in_background() -> Iterator[None]:
    """Start processes in this context with SIGINT ignored, as a shell starts background jobs of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The reply of a server, with its body as JSON."""

    status: int
    headers: Any
    body: Any


@dataclass(frozen=True, kw_only=True)
class LocalServer:
    """A running `destination serve`, and a client that trusts its authority."""

    process: subprocess.Popen
    checkout: Path
    printed: Path
    url: str
    http: urllib3.PoolManager

    @property
    def output(self) -> str:
        """Return the output so far."""
        return self.printed.read_text()

    @property
    def account(self) -> Account:
        """Return the account with the stores."""
        return Account(endpoint_url=self.request("GET", "/_local").body["endpoint_url"])

    @property
    def stores(self) -> Stores:
        """Return the names of the stores."""
        return Stores(**self.request("GET", "/_local").body["stores"])

    def request(self, method: str, path: str, **options: Any) -> Reply:
        """Send any request."""
        answer = self.http.request(method, self.url + path, redirect=False, **options)
        return Reply(status=answer.status, headers=answer.headers, body=json.loads(answer.data))

    def post(self, message: object, *, key: str = demo.GOOD_KEY) -> Reply:
        """Send a message, or any bytes, as Segment does."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        credentials = base64.b64encode(f"{key}:".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "Content-Type": "application/json"}
        return self.request("POST", "/segment", headers=headers, body=body)

    def run(self, *args: str, stdin: str | bytes | None = None) -> Result:
        """Run a command that works on this server."""
        return run(*args, "--url", self.url, stdin=stdin)

    def json(self, *args: str, stdin: str | bytes | None = None) -> Any:
        """Return the JSON output of a command."""
        result = self.run(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


def wait_until(happened: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextmanager
def serving(folder: Path, *options: str, **process_options: Any) -> Iterator[LocalServer]:
    """Run `destination serve` on a free port until the end of the context, in a folder that becomes its checkout."""
    checkout = make_checkout(folder)
    printed = checkout / "printed"
    serve = ("serve", "--port", "0", *options)
    with printed.open("w") as output, start(checkout, *serve, stdout=output, **process_options) as process:
        try:
            wait_until(lambda: "Control-C" in printed.read_text() or process.poll() is not None)
            assert process.poll() is None, printed.read_text()
            [url] = [word for word in printed.read_text().split() if word.endswith("/segment")][:1]
            authority = str(checkout / ".local" / "ca.pem")
            with urllib3.PoolManager(ca_certs=authority, retries=False, timeout=MAX_WAIT_SECONDS) as http:
                yield LocalServer(
                    process=process, checkout=checkout, printed=printed, url=url.removesuffix("/segment"), http=http
                )
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(MAX_WAIT_SECONDS)
