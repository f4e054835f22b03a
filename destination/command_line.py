"""The group of all commands, and what they share: errors of AWS, Control-C, and output that can't be written."""

import errno
import signal
import sys
import threading
from typing import Any

import click

from destination.commands.catalog_page import catalog_page
from destination.commands.certify import certify
from destination.commands.contacts import contacts
from destination.commands.debug import debug
from destination.commands.erase import erase
from destination.commands.erasures import erasures
from destination.commands.import_ import import_
from destination.commands.keys import keys
from destination.commands.messages import messages
from destination.commands.ping import ping
from destination.commands.queue import queue
from destination.commands.rejects import rejects
from destination.commands.replay import replay
from destination.commands.schemas import schemas
from destination.commands.serve import serve
from destination.commands.simulate import simulate
from destination.commands.status import status
from destination.commands.subject import subject
from destination.commands.tail import tail
from destination.commands.trace import trace
from destination.console import standard_streams
from destination.deployment.clients import ignore_unwritable_key_log
from handler.errors import STORE_ERRORS

INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Control-C, as shells report it."""


class _Command(click.Group):
    def main(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 -- click's arguments
        """Run a command whose output can't control the terminal; the exit code is 1 if the output can't be written."""
        code: Any = 0
        with standard_streams() as output:
            try:
                try:
                    super().main(*args, **options)
                except SystemExit as end:
                    code = end.code
                output.flush()
            except OSError as error:
                code = 1
                if error is not output.fault:
                    click.echo(f"Error: {error}", err=True)
            if output.fault and code == INTERRUPTED:  # a server that can't print ends itself this way
                code = 1
            if output.fault and output.fault.errno != errno.EPIPE:  # a reader may close a pipe early
                code = code or 1
                click.echo(f"Error: Standard output can't be written: {output.fault.strerror}", err=True)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command that Control-C can interrupt, and report an error of AWS in a sentence."""
        ignore_unwritable_key_log()
        try:
            _raise_on_control_c()
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            click.echo(err=True)  # ends the line with the terminal's ^C
            raise click.exceptions.Exit(INTERRUPTED) from error
        except STORE_ERRORS as error:
            raise click.ClickException(f"AWS answered: {error}") from error


def _raise_on_control_c() -> None:
    """Raise `KeyboardInterrupt` on SIGINT, which so far ends the process, or is ignored if a script started it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="direct-destination", prog_name="destination")
def main() -> None:
    """Run, test and operate a Segment Direct destination.

    \b
    Example:
      destination serve
    """


for command in (
    certify,
    catalog_page,
    serve,
    keys,
    ping,
    import_,
    messages,
    simulate,
    rejects,
    erase,
    erasures,
    subject,
    contacts,
    queue,
    replay,
    schemas,
    trace,
    tail,
    debug,
    status,
):
    main.add_command(command)
