"""Options and types of options that several commands share."""

import functools
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from destination.deployment import demo
from destination.deployment.erasure import Person
from destination.deployment.target import LOCAL_URL, Target, local_target, stack_target
from destination.watching.request_log import parse_period

T = TypeVar("T")
Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


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


class FiniteRange(click.FloatRange):
    """Refuses infinity too, and what is no number, of which `click.FloatRange` takes both."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 -- click's
        """Return the number; fails as click's types do."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


def parse_person(target: Target, customer_id: str | None, user: str | None, anonymous: str | None) -> Person:
    """Read the options that name somebody; raises `click.UsageError`."""
    if (user is None) is (anonymous is None):
        raise click.UsageError("Name either a --user or an --anonymous id")
    if customer_id is None and not target.is_local:
        raise click.UsageError("Name the --customer whose user this is")
    return Person(customer_id=customer_id or demo.CUSTOMER, user=user, anonymous=anonymous)


class Parsed(click.ParamType[T]):
    """A type of option that a function reads; the function raises `ValueError` with what is wrong with a text."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str | T, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return what was read; a default may have its type already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_id(text: str) -> str:
    if not text:
        raise ValueError("it is empty")  # which an unset variable of a shell leaves
    return text


ID = Parsed("id", _parse_id)
"""The id of a customer or a user."""
SINCE = Parsed("time", parse_period)
"""How far back to look: `30m`, `24h`, `7d` or `all`."""


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--url` and `--stack`, and hand it the `target` they name."""

    @click.option("--url", default=LOCAL_URL, show_default=True, help="A running local server (destination serve).")
    @click.option("--stack", help="A CloudFormation stack instead, by your own AWS credentials.")
    @functools.wraps(command)
    def wrapped(*args: Any, url: str, stack: str | None, **options: Any) -> Any:  # noqa: ANN401 -- click's
        target = stack_target(stack) if stack else local_target(url)
        return command(*args, target=target, **options)

    return wrapped


def same_target() -> str:
    """Return the options by which the running command names its target, for a command that it suggests."""
    context = click.get_current_context()
    given = {
        name: value
        for option, name in (("url", "--url"), ("stack", "--stack"), ("table_name", "--table"))
        if (value := context.params.get(option))
        and context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT
    }
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given.items())


def json_option(text: str = "Print a JSON object, for programs.") -> Decorator:
    """Give a command `--json`, and hand it `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def limit_option(text: str = "How many, of the newest.") -> Decorator:
    """Give a command `--limit`."""
    return click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help=text)


def yes_option(text: str = "Don't ask.") -> Decorator:
    """Give a command `--yes`, which answers what it would ask."""
    return click.option("--yes", is_flag=True, help=text)


def confirm(question: str) -> None:
    """Ask a question; raises `click.ClickException` unless the answer is yes."""
    try:
        is_agreed = click.confirm(question, err=True)
    except click.Abort:  # the end of the input, or Control-C
        click.echo(err=True)
        is_agreed = False
    if not is_agreed:
        raise click.ClickException("Nothing was changed. To answer yes without being asked, add --yes.")


def schemas_option(text: str) -> Decorator:
    """Give a command `--schemas`, and hand it the `folder`."""
    path = click.Path(exists=True, file_okay=False, path_type=Path)
    return click.option("--schemas", "folder", type=path, help=text)


ca_file_option: Decorator = click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="A certificate authority to trust (serve --tls has its own).",
)
