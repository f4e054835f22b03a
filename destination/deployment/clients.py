"""Create boto3 clients: for AWS with the user's own settings, and for servers that stand in for AWS without them.

The user's environment, profiles, configuration files and proxies are for AWS. A local server must work whatever they
contain, and its data must not pass through a proxy.
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
"""Environment variables for certificate authorities, in the order in which botocore reads them."""
KEY_LOG_VARIABLE = "SSLKEYLOGFILE"
"""The file to which TLS libraries append the keys of connections; urllib3 and botocore fail if they can't write it."""


def ignore_unwritable_key_log() -> None:
    """Warn if the file of `SSLKEYLOGFILE` can't be written, and unset the variable: no connection needs it."""
    path = os.environ.get(KEY_LOG_VARIABLE)
    if path and (reason := _why_not_writable(path)):
        del os.environ[KEY_LOG_VARIABLE]
        click.echo(
            f"{KEY_LOG_VARIABLE} is ignored, because {path} can't be written ({reason}): correct the variable, or "
            "unset it",
            err=True,
        )


def _why_not_writable(path: str) -> str | None:
    """Return why a file can't be appended to, None if it can; a missing file is not created."""
    try:
        if os.path.exists(path):  # noqa: PTH110 -- for a name with NUL, this is False, while Path.exists raises
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
        elif not os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK):  # noqa: PTH120
            return "its folder does not exist, or can't be written"
    except OSError as error:
        return str(error.strerror)
    except ValueError as error:
        return str(error)
    return None


def aws_client(service: str, config: Config | None = None) -> Any:  # noqa: ANN401 -- a boto3 client
    """Return a client for AWS; raises `BotoCoreError` or `click.ClickException` if the user's settings are wrong."""
    import boto3  # noqa: PLC0415 -- slow to import, and commands for a local server don't need it

    new_client: Any = boto3.client  # the stubs declare it for each service by name
    try:
        # boto3 itself reads only AWS_DEFAULT_REGION.
        return new_client(service, config=config, region_name=os.environ.get("AWS_REGION") or None)
    except BotoCoreError:
        raise
    # botocore's errors from numbers, URLs and files in the settings
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise click.ClickException(f"Your AWS settings can't be used (AWS_* variables, ~/.aws): {error}") from error


def local_client(service: str, endpoint_url: str, config: Config | None = None) -> Any:  # noqa: ANN401 -- a client
    """Return a client for a server that stands in for AWS; raises `click.ClickException` for an invalid URL."""
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
        raise click.ClickException(f"{endpoint_url} is not the URL of a server: {error}") from error


@cache
def _isolated_session() -> Session:
    """Return a session that reads neither the environment nor the user's files."""
    variables = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }
    no_file = (None, None, os.devnull, None)
    return Session(session_vars={**variables, "config_file": no_file, "credentials_file": no_file})
