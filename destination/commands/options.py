"""Options and option types that several commands share."""

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
    """Return the URL to post to; raises `click.BadParameter` if it is invalid."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        # raises for names that no name server would resolve
        is_url = is_url and bool((parts.hostname or "").encode("idna"))
    except ValueError:
        is_url = False
    if is_url and "@" in parts.netloc:
        raise click.BadParameter("a URL with credentials would be shown: leave them out", param_hint="--url")
    if not url.isascii():
        raise click.BadParameter(f"{url} is not ASCII: write its host as xn--…", param_hint="--url")
    if not is_url or " " in url:
        raise click.BadParameter(f"{url} is not a URL: write https://host/segment", param_hint="--url")
    return (parts._replace(path="/segment") if parts.path in ("", "/") else parts).geturl()


class FiniteRange(click.FloatRange):
    """A float range that also refuses infinity and NaN, which `click.FloatRange` accepts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 -- click's
        """Return the number; fails like click's types."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def parse_person(target: Target, customer_id: str | None, user: str | None, anonymous: str | None) -> Person:
    """Return the person in the options; raises `click.UsageError`."""
    if (user is None) is (anonymous is None):
        raise click.UsageError("Name either a --user or an --anonymous id")
    if customer_id is None and not target.is_local:
        raise click.UsageError("Name this user's customer with --customer")
    return Person(customer_id=customer_id or demo.CUSTOMER, user=user, anonymous=anonymous)


class Parsed(click.ParamType[T]):
    """An option type with a parse function, which raises `ValueError` with the reason if a text is invalid."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: str | T, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return the parsed value; a default may have its type already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _parse_id(text: str) -> str:
    if not text:
        raise ValueError("it is empty")  # an unset shell variable gives an empty text
    return text


ID = Parsed("id", _parse_id)
"""The id of a customer or a user."""
SINCE = Parsed("time", parse_period)
"""A period until now: `30m`, `24h`, `7d` or `all`."""


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--url` and `--stack` to a command, and pass it the `target`."""

    @click.option("--url", default=LOCAL_URL, show_default=True, help="A running local server (destination serve).")
    @click.option("--stack", help="A CloudFormation stack instead, with your own AWS credentials.")
    @functools.wraps(command)
    def wrapped(*args: Any, url: str, stack: str | None, **options: Any) -> Any:  # noqa: ANN401 -- click's options
        target = stack_target(stack) if stack else local_target(url)
        return command(*args, target=target, **options)

    return wrapped


def same_target() -> str:
    """Return the options by which the running command selects its target, for a command that it suggests."""
    context = click.get_current_context()
    given = {
        name: value
        for option, name in (("url", "--url"), ("stack", "--stack"), ("table_name", "--table"))
        if (value := context.params.get(option))
        and context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT
    }
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given.items())


def json_option(text: str = "Print a JSON object, for programs.") -> Decorator:
    """Add `--json` to a command, and pass it `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=text)


def limit_option(text: str = "How many, newest first.") -> Decorator:
    """Add `--limit` to a command."""
    return click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help=text)


def yes_option(text: str = "Don't ask.") -> Decorator:
    """Add `--yes` to a command, which skips its confirmation."""
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
    """Add `--schemas` to a command, and pass it the `folder`."""
    path = click.Path(exists=True, file_okay=False, path_type=Path)
    return click.option("--schemas", "folder", type=path, help=text)


ca_file_option: Decorator = click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="A certificate authority to trust (serve --tls has its own).",
)
