"""Find the deployment that a command works on: a running local server (`--url`), or a stack (`--stack`)."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import click
import urllib3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, ProfileNotFound

from destination.deployment.stack import Account, Stores, stack_outputs
from destination.paths import LOCAL_FOLDER

LOCAL_URL = "http://127.0.0.1:8080"
LOCAL_CA = LOCAL_FOLDER / "ca.pem"
"""The authority that signed the certificate of `serve --tls`."""
ABOUT_PATH = "/_local"
"""Path where a local server describes itself; it is not part of the deployed API."""
ARRIVALS_PATH = f"{ABOUT_PATH}/arrivals"
"""Path where it lists the messages that arrived last."""
MAX_ABOUT_BYTES = 64 * 1024
"""A longer description does not come from a local server."""
LOG_OUTPUTS = ("FunctionLogGroupName", "ApiLogGroupName")
"""The outputs of a stack that name its log groups."""
CONSUMER_LOG_OUTPUT = "ConsumerLogGroupName"
"""The output of a stack whose consumer is on."""
Key = tuple[str, str]
"""Subject and position: the key of an item of the event table."""
Arrivals = Callable[[str | None, str | None, int], Sequence[Key]]
"""Takes a customer id and a message id, which may be None, and a limit. Returns keys, latest arrival first."""


@dataclass(frozen=True, kw_only=True)
class LocalLogFile:
    """The file with the request lines of a local server."""

    file: Path


@dataclass(frozen=True, kw_only=True)
class StackLogs:
    """The log groups of a stack's function, API and consumers, and the value of the metrics' dimension `service`.

    `consumer_group` is None if the consumer is off, or if the stack's version does not name it.
    """

    stack: str
    function_group: str
    api_group: str
    consumer_group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """A deployment: its address, the names of its stores, and its logs, which are missing in an older version.

    `arrivals` returns the latest messages by arrival; only a local server keeps them. `has_faults` says whether its
    stores inject faults (`serve --faults`), None if that is unknown.
    """

    account: Account
    stores: Stores
    logs: LocalLogFile | StackLogs | None = None
    arrivals: Arrivals | None = None
    has_faults: bool | None = None

    @property
    def is_local(self) -> bool:
        """Return whether this is a local server, where scans cost nothing."""
        return self.account.endpoint_url is not None


_REMEDY: Mapping[type[Exception], str] = {
    NoRegionError: " Set AWS_REGION to the stack's, or AWS_PROFILE to a profile that has it.",
    ProfileNotFound: ". Set AWS_PROFILE to a profile of ~/.aws/config, or unset it.",
    NoCredentialsError: ". Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
}
"""What to do about errors of botocore."""


def stack_target(stack: str) -> Target:
    """Find a deployed stack by its outputs; raises `click.ClickException`."""
    account = Account()
    try:
        outputs = stack_outputs(account.cloudformation(), stack)
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"The stack {stack} can't be read: {error}{_REMEDY.get(type(error), '')}") from error
    groups = [outputs.get(name) for name in LOG_OUTPUTS]
    logs = None
    if groups[0] and groups[1]:
        name = stack.split("/")[1] if stack.startswith("arn:") else stack
        logs = StackLogs(
            stack=name,
            function_group=groups[0],
            api_group=groups[1],
            consumer_group=outputs.get(CONSUMER_LOG_OUTPUT),
        )
    try:
        return Target(account=account, stores=Stores.from_outputs(outputs), logs=logs)
    except KeyError as error:
        raise click.ClickException(f"The stack {stack} has no output {error}: is it a destination?") from error


def local_target(url: str, *, ca_file: str | None = None) -> Target:
    """Ask a local server for its stores; raises `click.ClickException` if it does not answer."""
    about = ask_local_server(url, ca_file=ca_file)
    try:
        file = about.get("request_log")
        return Target(
            account=Account(endpoint_url=_checked_url(about["endpoint_url"])),
            stores=Stores(**about["stores"]),
            logs=LocalLogFile(file=Path(file)) if file else None,
            arrivals=functools.partial(_ask_arrivals, url, ca_file),
            has_faults=about.get("has_faults"),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # it is another kind of server
        raise click.ClickException(_NO_SERVER.format(url=url)) from error


def _checked_url(text: str) -> str:
    """Return a URL; raises `ValueError` for a text that clients don't accept as a URL."""
    if urlsplit(text).scheme not in ("http", "https"):
        raise ValueError(f"{text} is not a URL")
    return text


def ask_local_server(url: str, *, ca_file: str | None = None) -> dict[str, Any]:
    """Return a local server's description of itself; raises `click.ClickException`."""
    with _local_pool(ca_file) as http:
        try:
            answer = http.request("GET", url.rstrip("/") + ABOUT_PATH, timeout=5, retries=False, preload_content=False)
            about = json.loads(answer.read(MAX_ABOUT_BYTES))
        except urllib3.exceptions.SSLError as error:
            raise click.ClickException(
                f"{url} answers with a certificate that is not trusted: {LOCAL_CA.name} belongs to the server that was "
                "started last with --tls in this checkout"
            ) from error
        except (urllib3.exceptions.HTTPError, ValueError, RecursionError) as error:
            raise click.ClickException(_NO_SERVER.format(url=url)) from error
    if not isinstance(about, dict) or "stores" not in about:
        raise click.ClickException(_NO_SERVER.format(url=url))
    return about


def _local_pool(ca_file: str | None) -> urllib3.PoolManager:
    return urllib3.PoolManager(ca_certs=ca_file or (str(LOCAL_CA) if LOCAL_CA.exists() else None))


def _ask_arrivals(
    url: str, ca_file: str | None, customer_id: str | None, message_id: str | None, limit: int
) -> Sequence[Key]:
    """Ask a local server for the latest messages; a server without this path, such as an older version, has none."""
    asked = {"customer": customer_id, "message_id": message_id, "limit": str(limit)}
    fields = {name: value for name, value in asked.items() if value is not None}
    with _local_pool(ca_file) as http:
        try:
            answer = http.request("GET", url.rstrip("/") + ARRIVALS_PATH, fields=fields, timeout=10, retries=False)
            keys = json.loads(answer.data)["keys"] if answer.status == HTTPStatus.OK else []
        except (urllib3.exceptions.HTTPError, ValueError, LookupError, TypeError):
            return []
    return [(subject, position) for subject, position in keys]


_NO_SERVER = (
    "No local server answers at {url}: start one with `make run`, or name another with --url, or a deployed one with "
    "--stack"
)


def demo_key_of(endpoint: str) -> str:
    """Return the valid demo key of a local server; raises `click.ClickException` if there is none."""
    server = urljoin(endpoint, "/")
    try:
        return str(ask_local_server(server)["api_key"])
    except (click.ClickException, KeyError) as error:
        raise click.ClickException(
            f"No local server answers at {server}: start one with `make run`, name its --url, or an --api-key of "
            "the endpoint"
        ) from error


def trusted_authority(endpoint: str, ca_file: str | None) -> str | None:
    """Return the file of the trusted authority: the given one, or for this machine the local server's own."""
    is_here = urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1")
    return ca_file or (str(LOCAL_CA) if is_here and LOCAL_CA.exists() else None)
