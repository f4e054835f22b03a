"""The process under test: it loads one function as Lambda does, and measures calls of it.

The script uses nothing but the standard library, so any Python can run it, and only the function loads packages:

    python -P subject.py MODULE:FUNCTION PRINTED

The function's output goes to the file PRINTED.

Work comes as lines of JSON, `{"event", "first", "count"}`: `count` calls with the event, in which `NUMBER` is replaced
by numbers from `first` on. The answer is a line `{"seconds", "elapsed", "response"}`: the processor time of all calls
(user and system), their duration, and the last response. The first line, `{}`, says that the function is loaded.
"""

import gc
import importlib
import json
import os
import sys
import time

NUMBER = "@number@"


class Context:
    """Lambda's context object.

    https://docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    function_name = "bench"
    function_version = "$LATEST"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:bench"
    memory_limit_in_mb = "512"
    aws_request_id = "00000000-0000-4000-8000-000000000001"
    log_group_name = "/aws/lambda/bench"
    log_stream_name = "2026/03/12/[$LATEST]0123456789abcdef0123456789abcdef"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Return the rest of the time-out."""
        return 10_000


def main() -> None:
    """Load the function, and serve standard input until it ends."""
    target, printed = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    gc.collect()  # otherwise a call would collect what loading left behind
    print("{}", file=out, flush=True)
    context = Context()
    for line in sys.stdin:
        work = json.loads(line)
        numbers = range(work["first"], work["first"] + work["count"])
        events = [json.loads(work["event"].replace(NUMBER, f"{number:08d}")) for number in numbers]
        response = None
        began, began_at = time.process_time(), time.monotonic()
        for event in events:
            response = function(event, context)
        took = {"seconds": time.process_time() - began, "elapsed": time.monotonic() - began_at}
        print(json.dumps({**took, "response": response}), file=out, flush=True)


if __name__ == "__main__":
    main()
