"""The command line: `destination`, or `python -m destination`."""

import contextlib
import signal

# To load the commands takes a second. Control-C ends the process then, without the traceback of an import.
with contextlib.suppress(ValueError):  # only the main thread may
    _control_c = signal.signal(signal.SIGINT, signal.SIG_DFL)

import errno
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

with contextlib.suppress(ValueError):
    signal.signal(signal.SIGINT, _control_c)

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that Control-C ended, as shells report it."""


class _Command(click.Group):
    def main(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 -- click's
        """Run a command whose output can't steer the terminal; when it can't be written, the exit code is 1."""
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
            if output.fault and code == INTERRUPTED:  # how a server ends that can't print
                code = 1
            if output.fault and output.fault.errno != errno.EPIPE:  # a reader may close a pipe when it has enough
                code = code or 1
                click.echo(f"Error: Standard output can't be written: {output.fault.strerror}", err=True)
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command, which Control-C ends, and report an error of AWS in a sentence."""
        _heed_control_c()
        ignore_unwritable_key_log()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            click.echo(err=True)  # after the ^C of the terminal
            raise click.exceptions.Exit(INTERRUPTED) from error
        except STORE_ERRORS as error:
            raise click.ClickException(f"AWS answered: {error}") from error


def _heed_control_c() -> None:
    """Let SIGINT end a command that a shell started in the background of a script: such a one inherits to ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
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

if __name__ == "__main__":
    main()
