"""The command line: `destination`, or `python -m cli`."""

import signal
import threading

import click

from cli.certification.catalog import catalog_page
from cli.certification.certify import certify
from cli.contacts import contacts
from cli.debugger.debug import debug
from cli.erase import erase
from cli.erasures import erasures
from cli.importing.commands import import_
from cli.keys import keys
from cli.local.serve import serve
from cli.messages import messages
from cli.ping import ping
from cli.rejects import rejects
from cli.replay import replay
from cli.schemas.commands import schemas
from cli.simulation.simulate import simulate
from cli.watching.status import status
from cli.watching.tail import tail
from cli.watching.trace import trace
from handler.errors import STORE_ERRORS


class _Command(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        """Run a command, which Control-C ends, and tell what AWS said in a sentence."""
        _heed_control_c()
        try:
            return super().invoke(ctx)
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
    contacts,
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
