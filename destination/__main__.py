"""Starts the command line: `destination`, or `python -m destination`."""

import signal


def main() -> None:
    """Load the commands, which takes a second, and run one.

    Until the command runs, Control-C ends the process at once: a `KeyboardInterrupt` in an import prints a traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from destination import command_line  # noqa: PLC0415 -- after the line above

    command_line.main()


if __name__ == "__main__":
    main()
