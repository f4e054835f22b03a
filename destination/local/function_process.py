"""A process that runs a function of template.yaml.

`python -m destination.local.function_process NAME HANDLER SECONDS` starts it.

It reads events as lines of JSON, and writes an invocation as a line of JSON for each. It imports only the modules that
it needs, because several such processes start with each local server.
"""

import importlib
import io
import json
import os
import sys
import time
import traceback
import uuid
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """The result of one event: the function's response, or its exception; and its output."""

    response: Any = None
    raised: bool = False
    log: str


class Context:
    """Lambda's context object.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    def __init__(self, function_name: str, timeout_seconds: float) -> None:
        self.function_name = function_name
        self.aws_request_id = str(uuid.uuid4())
        self._end = time.monotonic() + timeout_seconds

    def get_remaining_time_in_millis(self) -> int:
        """Return the rest of the function's time."""
        return max(0, round((self._end - time.monotonic()) * 1000))


def run(name: str, handler: str, timeout_seconds: float) -> None:
    """Process events from standard input until it closes, which it does when the parent ends."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # Programs that the function starts, and libraries in C, would otherwise write among the invocations.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # A Lambda function's log is its standard output. It is replaced before the function is loaded, because the
    # function's logger keeps it.
    log = sys.stdout = sys.stderr = io.StringIO()

    def send(response: object = None, *, raised: bool = False) -> None:
        out.write(json.dumps(asdict(Invocation(response=response, raised=raised, log=log.getvalue()))) + "\n")
        out.flush()
        log.seek(0)
        log.truncate()

    try:
        module, _, function_name = handler.rpartition(".")
        # Loaded only now, with its environment complete, as in Lambda.
        function = getattr(importlib.import_module(module), function_name)
    except Exception:  # noqa: BLE001 -- any exception; the parent reports it
        traceback.print_exc()
        send(raised=True)
        return
    send()
    for line in sys.stdin:
        try:
            send(function(json.loads(line), Context(name, timeout_seconds)))
        except Exception:  # noqa: BLE001 -- Lambda logs it, also for a response that is not JSON, and answers an error
            traceback.print_exc()
            send(raised=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], float(sys.argv[3]))
