"""Run `sam` commands for the tests, each in a fork, because loading `sam` takes a second.

The program runs with the Python of the SAM CLI. It reads the arguments of each command as a line of JSON. It writes the
exit code, the standard output and the standard error as a line of JSON.
"""

import json
import os
import sys
import tempfile

import yaml

yaml.SafeLoader = yaml.CSafeLoader  # This parser is ten times as fast, and each command reads the template twice.

from samcli.cli.main import cli  # noqa: E402 -- it keeps the loader that it finds
from samcli.commands.local.cli_common import invoke_context  # noqa: E402 -- it keeps the loader that it finds
from samcli.commands.local.invoke import cli as invoke  # noqa: E402 -- it keeps the loader that it finds

LOADED = (invoke, invoke_context)
"""The SAM CLI loads these modules when `sam local invoke` begins, so each fork would load them again."""

for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if not child:
            nothing = os.open(os.devnull, os.O_RDONLY)
            for descriptor, source in enumerate((nothing, out.fileno(), errors.fileno())):
                os.dup2(source, descriptor)
            sys.argv = ["sam", *json.loads(line)]
            cli(prog_name="sam")  # it ends the process
        _, status = os.waitpid(child, 0)
        printed = []
        for stream in (out, errors):
            stream.seek(0)
            printed.append(stream.read().decode())
    sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), *printed]) + "\n")
    sys.stdout.flush()
