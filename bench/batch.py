"""*batch*: a message in a batch of `/v1/batch` against a single one to `/segment`, of the processor and of the clock.

One function with each store takes the same messages in turns, each with another id, one by one and in batches. What is
counted is the processor time of its own process, and how long the calls take, per message; a ratio is that of two
figures of the same round, as in `warm`. The store waits before each answer, as a service in another place does. One
that answers *at once* is the worst case for a batch: threads that write it hold each other up, where else they wait.

The *largest* batches are the two that a function may get, one of as many bytes as there may be and one of as many
messages. What they take of the processor, divided by the part of one that the function has (template.yaml's memory), is
what they take at the least there; the function begins no call of a store that its answer might not wait for.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench import samples
from bench.cost_model import ONE_PROCESSOR_MB, parameter
from bench.figures import Options, Row, Table, median
from bench.lambda_environment import destination_environment
from bench.packages import chosen_codes
from bench.samples import Sample
from bench.store_server import StoreServer
from bench.subjects import Code, Subject, SubjectProcess, Took, started
from destination.console import progress
from handler.settings import LIBRARY_ANSWER_SECONDS, STORE_CALL_SECONDS
from handler.split import MAX_BATCH_MESSAGES

SIZES = (1, 10, 100, 500)
LARGEST_OF_SAMPLES = 500
"""Of the messages of `samples` more are too many bytes."""
ROUNDS = 7
QUICK_ROUNDS = 2
MESSAGES = 200
QUICK_MESSAGES = 50
"""Of each kind in one round; of batches one at least."""
STORE_WAIT_SECONDS = 0.005
"""As docs/explanation/scale.md takes it for DynamoDB."""

SINGLE = "single"
MICROSECONDS = "processor µs"
PER_SECOND = "messages/s"
PROCESSOR_RATIO = "processor / single"
PACE_RATIO = "messages/s / single"
MILLISECONDS = "ms of a processor"
SECONDS = "s in Lambda"
SINKS = {"DynamoDB": ("dynamodb", samples.ACCEPTED), "SQS": ("sqs", samples.QUEUED)}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is sent: so many messages in one request."""

    name: str
    sample: Sample
    messages: int


def measure(options: Options) -> list[Table]:
    """Measure; raises `click.ClickException` where a function does not answer as it must."""
    codes, python = chosen_codes(options)
    rounds, messages = (QUICK_ROUNDS, QUICK_MESSAGES) if options.quick else (ROUNDS, MESSAGES)
    tables = []
    for wait_seconds, name in ((STORE_WAIT_SECONDS, "batch"), (0.0, "batch: at once")):
        with StoreServer(wait_seconds=wait_seconds) as store:
            times = compare(codes.destination, store, [str(python)], rounds=rounds, messages=messages)
        store_is = (
            f"a store that waits {wait_seconds * 1000:.0f} ms" if wait_seconds else "a store that answers at once"
        )
        tables.append(table(name, f"Messages in batches, {store_is}; medians of {rounds} rounds", times))
    with StoreServer() as store:
        return [*tables, largest(codes.destination, store, [str(python)], rounds=1 if options.quick else rounds)]


Times = Mapping[str, Mapping[str, Sequence[Took]]]
"""Sink -> name of a kind -> what a message took in each round."""


def compare(code: Code, store: StoreServer, python: Sequence[str], *, rounds: int, messages: int) -> Times:
    """Send all kinds in turns to a function with each sink."""
    times: dict[str, dict[str, list[Took]]] = {sink: defaultdict(list) for sink in SINKS}
    with (
        started(_subjects(code, store), store, python) as processes,
        progress("batch", total=(rounds + 1) * len(SINKS) * (1 + len(SIZES))) as advance,
    ):
        numbers = itertools.count()
        for number in range(rounds + 1):
            for process in processes:
                sink = process.subject.name
                kinds = list(_kinds(sink))
                for kind in kinds if number % 2 else reversed(kinds):
                    took = _send(process, kind, numbers, calls=max(messages // kind.messages, 1))
                    if number:  # the first round warms up
                        times[sink][kind.name].append(took)
                    advance()
    return times


def _kinds(sink: str) -> Iterator[Kind]:
    _, single = SINKS[sink]
    yield Kind(name=SINGLE, sample=single, messages=1)
    for size in SIZES:
        yield Kind(name=f"batch of {size}", sample=samples.batch(samples.ACCEPTED, size), messages=size)


def _subjects(code: Code, store: StoreServer) -> list[Subject]:
    """Return the destination with each sink."""
    return [
        Subject(
            name=sink,
            code=code,
            environment=destination_environment(store_url=store.url, overrides={"EVENT_SINK": setting}),
            sample=single,
        )
        for sink, (setting, single) in SINKS.items()
    ]


def _send(process: SubjectProcess, kind: Kind, numbers: Iterator[int], *, calls: int) -> Took:
    """Send, and return what each message took."""
    took = process.send(kind.sample, first=next(numbers) * MESSAGES, count=calls)
    return Took(processor=took.processor / kind.messages, elapsed=took.elapsed / kind.messages)


def table(name: str, title: str, times: Times) -> Table:
    """Divide what messages take by what single ones do, round by round."""
    rows = []
    for sink, kinds in times.items():
        for kind, tooks in kinds.items():
            pairs = list(zip(tooks, kinds[SINGLE], strict=True))
            figures = {
                MICROSECONDS: median(took.processor * 1e6 for took in tooks),
                PER_SECOND: median(1 / took.elapsed for took in tooks),
            }
            ratios = {
                PROCESSOR_RATIO: median(took.processor / single.processor for took, single in pairs),
                PACE_RATIO: median(single.elapsed / took.elapsed for took, single in pairs),
            }
            rows.append(Row(name=f"{sink}, {kind}", figures=figures, ratios=ratios))
    return Table(name=name, title=title, rows=tuple(rows), bar=PACE_RATIO)


LARGEST = (
    ("of 1 KB", samples.ACCEPTED, LARGEST_OF_SAMPLES),
    ("short", samples.SHORT, MAX_BATCH_MESSAGES),
)
"""The largest batches: a name, the message, and how many of it."""


def largest(
    code: Code,
    store: StoreServer,
    python: Sequence[str],
    *,
    rounds: int,
    batches: Sequence[tuple[str, Sample, int]] = LARGEST,
) -> Table:
    """Measure the largest batches, and what they take of the part of a processor that the function has."""
    share = parameter("MemorySize") / ONE_PROCESSOR_MB
    kinds = [Kind(name=name, sample=samples.batch(of, messages), messages=messages) for name, of, messages in batches]
    rows = []
    with started(_subjects(code, store), store, python) as processes:
        numbers = itertools.count()
        for process, kind in itertools.product(processes, kinds):
            tooks = [_send(process, kind, numbers, calls=1).processor * kind.messages for _ in range(rounds + 1)][1:]
            seconds = median(tooks)
            rows.append(
                Row(
                    name=f"{process.subject.name}, {kind.messages:,} messages, {kind.name}",
                    figures={MILLISECONDS: median([seconds * 1000]), SECONDS: median([seconds / share])},
                )
            )
    last_call = LIBRARY_ANSWER_SECONDS - STORE_CALL_SECONDS
    return Table(
        name="batch: largest",
        title=f"The largest batches, and their time at {100 * share:.0f} % of a processor, without waiting",
        rows=tuple(rows),
        bar=MILLISECONDS,
        notes=(f"The last call of a store may begin after {last_call:.1f} s.",),
    )
