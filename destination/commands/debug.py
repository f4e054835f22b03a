"""`destination debug`: the page of a deployed stack, from its logs and tables. It only reads."""

import asyncio
import socket

import click

from destination.console import printable, server_stdout
from destination.debugger.feed import MAX_ROWS
from destination.debugger.stack import StackDebugger
from destination.deployment.target import stack_target
from destination.watching.open_log import open_log

HOST = "127.0.0.1"


@click.command()
@click.option("--stack", required=True, help="A CloudFormation stack, with your own AWS credentials.")
@click.option(
    "--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="The port of the page; 0 picks one."
)
@click.option(
    "--last",
    default=100,
    show_default=True,
    type=click.IntRange(0, MAX_ROWS),
    help="Begin with this number of requests of the last hour. AWS charges for this query of CloudWatch Logs Insights.",
)
def debug(*, stack: str, port: int, last: int) -> None:
    """Show the requests of a stack on a page.

    The page shows new requests, API keys, stored messages and rejects. Only this machine can open it, and it changes
    nothing. Requests appear some seconds late. The log has neither users nor events: find stored messages by customer
    and user.

    \b
    Example:
      destination debug --stack direct-destination
    """
    target = stack_target(stack)
    debugger = StackDebugger(stack, target, open_log(target))
    console = server_stdout()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise click.ClickException(
                f"Can't listen on port {port} ({error.strerror}): choose another --port"
            ) from error
        listener.listen()
        console.print(f"The stack {printable(stack)} is shown at http://{HOST}:{listener.getsockname()[1]}/")
        console.print("Control-C ends it.")
        try:
            asyncio.run(debugger.run(listener, last))
        except KeyboardInterrupt:
            console.print("Stopped.", style="dim")
