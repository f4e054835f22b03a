"""The process under test: it loads one function as Lambda does, and tells the processor time of calling it.

A script that imports nothing of ours and nothing but the standard library, so that any Python can run it, and what it
loads is the function's own:

    python -P subject.py MODULE:FUNCTION PRINTED [--processor-clock]

What the function prints goes to the file PRINTED. With `--processor-clock` the function's own timings count processor
time, because its clock `time.perf_counter` is `time.process_time` from the start. Work comes in as lines of JSON,
`{"event", "first", "count"}`: as many calls, of an event in whose text `NUMBER` is replaced by a number from `first`
on. For each line one goes out: the processor time of all the calls together in seconds, of this process with its
system calls, how long they took, and the last response, `{"seconds", "elapsed", "response"}`. The first line that goes
out, `{}`, tells that the function is loaded.
"""

import gc
import importlib
import json
import os
import sys
import time

NUMBER = "@number@"


class Context:
    """What Lambda hands to a function beside the event.

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
        """Return what is left of the time-out."""
        return 10_000


def main() -> None:
    """Load the function and serve standard input until it ends."""
    target, printed, *options = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    if "--processor-clock" in options:
        time.perf_counter = time.process_time
        time.perf_counter_ns = time.process_time_ns
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    gc.collect()  # what loading left behind; or else one of the calls does it, of which it is not typical
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
