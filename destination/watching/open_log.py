"""Open the log of a deployment."""

import click

from destination.deployment.target import LocalLogFile, Target
from destination.watching.cloud_log import CloudLog
from destination.watching.local_log import LocalLog
from destination.watching.request_log import RequestLog


def open_log(target: Target) -> RequestLog:
    """Return the request log of a deployment; raises `click.ClickException` if it does not name one."""
    if target.logs is None:
        raise click.ClickException(
            "This local server is of an older version, which does not keep a request log: restart it"
            if target.is_local
            else "This stack is of an older version, which does not name its log groups: deploy it again"
        )
    if isinstance(target.logs, LocalLogFile):
        return LocalLog(target.logs.file)
    return CloudLog(target.account.logs(), target.logs)
