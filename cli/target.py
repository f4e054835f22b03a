"""Which deployment a command works on: that of a running local server (`--url`), or a stack (`--stack`)."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from cli.stack import LOCAL_FOLDER, Account, Stores, stack_outputs

LOCAL_URL = "http://127.0.0.1:8080"
LOCAL_CA = LOCAL_FOLDER / "ca.pem"
"""The authority that signed the certificate of `serve --tls`."""
ABOUT_PATH = "/_local"
"""Where a local server tells its stores; it is not part of the deployed API."""


class _Id(click.ParamType[str]):
    """Refuses what an unset variable of a shell leaves."""

    name = "id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            self.fail("it is empty", param, ctx)
        return value


ID = _Id()
"""The id of a customer or a user."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A deployment: where it is, and the names of its stores."""

    account: Account
    stores: Stores

    @property
    def is_local(self) -> bool:
        """Whether this is a local server, where reading everything costs nothing."""
        return self.account.endpoint_url is not None


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--url` and `--stack`, and hand it the `target` they name."""

    @click.option("--url", default=LOCAL_URL, show_default=True, help="A running local server (destination serve).")
    @click.option("--stack", help="A CloudFormation stack instead, by your own AWS credentials.")
    @functools.wraps(command)
    def wrapped(*args: Any, url: str, stack: str | None, **options: Any) -> Any:  # noqa: ANN401 -- click's
        target = stack_target(stack) if stack else local_target(url)
        return command(*args, target=target, **options)

    return wrapped


def stack_target(stack: str) -> Target:
    """Find a deployed stack by its outputs; raises `click.ClickException`."""
    account = Account()
    try:
        outputs = stack_outputs(account.cloudformation(), stack)
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"The stack {stack} can't be read: {error}") from error
    try:
        return Target(account=account, stores=Stores.from_outputs(outputs))
    except KeyError as error:
        raise click.ClickException(f"The stack {stack} has no output {error}: is it a destination?") from error


def local_target(url: str) -> Target:
    """Ask a local server for its stores; raises `click.ClickException` when it does not answer."""
    about = ask_local_server(url)
    return Target(account=Account(endpoint_url=about["endpoint_url"]), stores=Stores(**about["stores"]))


def ask_local_server(url: str) -> dict[str, Any]:
    """Return what a local server tells about itself; raises `click.ClickException`."""
    with urllib3.PoolManager(ca_certs=str(LOCAL_CA) if LOCAL_CA.exists() else None) as http:
        try:
            answer = http.request("GET", url.rstrip("/") + ABOUT_PATH, timeout=5, retries=False)
            about = json.loads(answer.data)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise click.ClickException(_NO_SERVER.format(url=url)) from error
    if not isinstance(about, dict) or "stores" not in about:
        raise click.ClickException(_NO_SERVER.format(url=url))
    return about


_NO_SERVER = (
    "No local server answers at {url}: start one with `make run`, or name another with --url, or a deployed one with "
    "--stack"
)
