"""Clients of AWS by the user's own settings, and clients of servers that stand in for AWS, by none of them.

The user's environment, profiles, configuration files and proxies are for AWS. A local server must work whatever they
say, and its data must not pass through a proxy.
"""

import os
from functools import cache
from typing import Any

import click
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
from botocore.exceptions import BotoCoreError
from botocore.session import Session

LOCAL_REGION = "us-east-1"
LOCAL_CREDENTIALS = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
CA_VARIABLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
"""Variables that name certificate authorities, as botocore reads them."""
KEY_LOG_VARIABLE = "SSLKEYLOGFILE"
"""Names a file to which TLS libraries append the keys of connections; urllib3 and botocore fail if they can't."""


def ignore_unwritable_key_log() -> None:
    """Say that the file of `SSLKEYLOGFILE` can't be written, and unset the variable: no connection needs it."""
    path = os.environ.get(KEY_LOG_VARIABLE)
    if path and (reason := _why_not_writable(path)):
        del os.environ[KEY_LOG_VARIABLE]
        click.echo(
            f"{KEY_LOG_VARIABLE} is ignored, because {path} can't be written ({reason}): correct the variable, or "
            "unset it",
            err=True,
        )


def _why_not_writable(path: str) -> str | None:
    """Return why nothing can be appended to a file, None if it can; a file that is not there is not created."""
    try:
        if os.path.exists(path):  # noqa: PTH110 -- a name with a NUL is False here
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
        elif not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK):  # noqa: PTH120
            return "its folder does not exist, or can't be written"
    except OSError as error:
        return str(error.strerror)
    except ValueError as error:
        return str(error)
    return None


def aws_client(service: str, config: Config | None = None) -> Any:  # noqa: ANN401 -- its client
    """Return a client of AWS; raises `BotoCoreError` or `click.ClickException` where the user's settings are wrong."""
    import boto3  # noqa: PLC0415 -- slow, and commands for a local server do without it

    new_client: Any = boto3.client  # declared for each service by its name
    try:
        # boto3 itself reads AWS_DEFAULT_REGION only.
        return new_client(service, config=config, region_name=os.environ.get("AWS_REGION") or None)
    except BotoCoreError:
        raise
    except (ValueError, TypeError, KeyError, OSError) as error:  # of botocore, which reads numbers, URLs and files
        raise click.ClickException(f"Your AWS settings can't be used (AWS_* variables, ~/.aws): {error}") from error


def local_client(service: str, endpoint_url: str, config: Config | None = None) -> Any:  # noqa: ANN401 -- its client
    """Return a client of a server that stands in for AWS; raises `click.ClickException` for a URL that is not valid."""
    verify: bool | str = True
    if endpoint_url.startswith("https:"):
        verify = next((os.environ[name] for name in CA_VARIABLES if os.environ.get(name)), True)
    direct = Config(proxies={})
    try:
        return _isolated_session().create_client(
            service,
            endpoint_url=endpoint_url,
            region_name=LOCAL_REGION,
            config=config.merge(direct) if config else direct,
            verify=verify,
            **LOCAL_CREDENTIALS,  # type: ignore[arg-type]  # texts, all of them
        )
    except ValueError as error:
        raise click.ClickException(f"{endpoint_url} is not a URL of a server: {error}") from error


@cache
def _isolated_session() -> Session:
    """Return a session that reads neither the environment nor files of the user."""
    variables = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    no_file = (None, None, os.devnull, None)
    return Session(session_vars={**variables, "config_file": no_file, "credentials_file": no_file})
