"""Measure messages in a batch against single ones: processor time each, and how many per second.

One function for each sink takes single messages and batches in turns. The store waits before each response, as
DynamoDB does. Both figures are per message, and the ratios are to single messages of the same round.

The largest batches are one of as many bytes, and one of as many messages as allowed. "s in Lambda" is their processor
time with the memory of template.yaml, without the wait for the store.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from bench import samples
from bench.cost_model import ONE_PROCESSOR_MB, assumed, parameter
from bench.figures import Options, Table, median, median_ratio, take_turns
from bench.packages import chosen_codes
from bench.samples import Sample
from bench.store_server import StoreServer
from bench.subjects import Code, SubjectProcess, Took, destination, started
from handler.settings import LIBRARY_ANSWER_SECONDS, STORE_CALL_SECONDS
from handler.split import MAX_BATCH_MESSAGES

SIZES = (1, 10, 100, 500)
LARGEST_OF_SAMPLES = 500
"""More messages of `samples` would be too many bytes."""
ROUNDS, MESSAGES = 7, 200
QUICK_ROUNDS, QUICK_MESSAGES = 2, 50
"""Messages of each kind in one round, in at least one request."""

PROCESSOR_RATIO = "processor / single"
PACE_RATIO = "messages/s / single"
MILLISECONDS = "ms of a processor"
SECONDS = "s in Lambda"
SINKS = {"DynamoDB": ("dynamodb", samples.ACCEPTED), "SQS": ("sqs", samples.QUEUED)}


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` for a wrong response."""
    codes, python = chosen_codes(options)
    rounds, messages = (QUICK_ROUNDS, QUICK_MESSAGES) if options.quick else (ROUNDS, MESSAGES)
    with StoreServer(wait_seconds=assumed("network_dynamodb_ms") / 1000) as store:
        batches = compare(codes.destination, store, python, rounds=rounds, messages=messages)
    with StoreServer() as store:
        return [batches, largest(codes.destination, store, python, rounds=rounds)]


def _send(process: SubjectProcess, sample: Sample, messages: int, requests: int, number: int) -> Took:
    """Send requests with so many messages each; return what one message took."""
    took = process.send(sample, first=number * MESSAGES, count=requests)
    return Took(processor=took.processor / messages, elapsed=took.elapsed / messages)


def compare(code: Code, store: StoreServer, python: Sequence[str], *, rounds: int, messages: int) -> Table:
    """Compare batches of all sizes with single messages, for each sink."""
    rows = {}
    for sink, (setting, single) in SINKS.items():
        with SubjectProcess(destination(sink, code, store, single, EVENT_SINK=setting), store, python) as process:
            alone = f"{sink}, single"
            kinds = {f"{sink}, batch of {size}": (samples.batch(samples.ACCEPTED, size), size) for size in SIZES}
            runs = {
                name: partial(_send, process, sample, size, max(messages // size, 1))
                for name, (sample, size) in {alone: (single, 1), **kinds}.items()
            }
            times = take_turns("batch", runs, rounds)
        for name, tooks in times.items():
            rows[name] = {
                "processor µs": median(took.processor * 1e6 for took in tooks),
                "messages/s": median(1 / took.elapsed for took in tooks),
                PROCESSOR_RATIO: median_ratio(
                    (took.processor for took in tooks), (took.processor for took in times[alone])
                ),
                PACE_RATIO: median_ratio((took.elapsed for took in times[alone]), (took.elapsed for took in tooks)),
            }
    return Table(name="batch", title=f"Messages in batches; medians of {rounds} rounds", rows=rows)


LARGEST = {
    f"{LARGEST_OF_SAMPLES:,} messages of 1 KB": samples.batch(samples.ACCEPTED, LARGEST_OF_SAMPLES),
    f"{MAX_BATCH_MESSAGES:,} short messages": samples.batch(samples.SHORT, MAX_BATCH_MESSAGES),
}


def largest(
    code: Code, store: StoreServer, python: Sequence[str], *, rounds: int, batches: Mapping[str, Sample] = LARGEST
) -> Table:
    """Measure the largest batches, and how long they take with the function's share of a processor."""
    share = parameter("MemorySize") / ONE_PROCESSOR_MB
    subjects = [destination(sink, code, store, single, EVENT_SINK=setting) for sink, (setting, single) in SINKS.items()]
    with started(subjects, store, python) as processes:
        runs = {
            f"{process.subject.name}, {name}": partial(_send, process, sample, 1, 1)
            for process in processes
            for name, sample in batches.items()
        }
        times = take_turns("batch", runs, rounds)
    seconds = {name: median(took.processor for took in tooks) for name, tooks in times.items()}
    return Table(
        name="batch: largest",
        title=f"The largest batches, and their time at {share:.0%} of a processor, without waiting",
        rows={name: {MILLISECONDS: 1000 * time, SECONDS: time / share} for name, time in seconds.items()},
        notes=(f"The last call of a store may start after {LIBRARY_ANSWER_SECONDS - STORE_CALL_SECONDS:.1f} s.",),
    )
