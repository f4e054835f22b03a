"""What a message costs: what it uses of each service, by what AWS bills, times the prices of `prices.json`.

Measured figures come from `recorded.json`; all else that is not in the template is an `Assumption`. A GB is 1024³
bytes, as AWS bills it. What is billed for a request's duration is

    network time to the store + processor time / the memory's share of a processor + half a millisecond

The last one is what rounding up to whole milliseconds adds on average.
"""

import functools
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from destination.deployment.stack import load_template
from handler.errors import Refusal
from handler.parallel import CALLS_AT_ONCE
from handler.spec import CALL_TYPES
from handler.write import MAX_QUEUE_MESSAGES

PRICES = Path(__file__).parent / "prices.json"
RECORDED = Path(__file__).parent / "recorded.json"

KILOBYTE = 1024
GIGABYTE = 1024**3
HTTP_API_BYTES = 512 * KILOBYTE
"""One billed request of an HTTP API."""
WRITE_UNIT_BYTES = KILOBYTE
QUEUE_REQUEST_BYTES = 64 * KILOBYTE
STREAM_READ_BYTES = 1024 * KILOBYTE
STREAM_READ_RECORDS = 1000
"""GetRecords returns at most so much of either."""
ITEM_OVERHEAD_BYTES = 100
"""What DynamoDB adds to each item's size when it bills storage."""
LOG_EVENT_OVERHEAD_BYTES = 26
"""What CloudWatch adds to each line that it keeps."""
ONE_PROCESSOR_MB = 1769
"""https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html"""
MEGABYTES_PER_GIGABYTE = 1024
MONTH_HOURS = 730
MONTH_SECONDS = MONTH_HOURS * 3600
MILLION = 1_000_000
ROUNDING_MILLISECONDS = 0.5
"""What rounding a duration up to a whole millisecond adds on average."""


class Store(StrEnum):
    """Where messages go."""

    DYNAMODB = "DynamoDB"
    SQS = "SQS standard"
    FIFO = "SQS FIFO"


@dataclass(frozen=True, kw_only=True)
class Assumption:
    """What is neither measured nor written by AWS."""

    what: str
    value: float
    unit: str
    why: str


NETWORK = {
    Store.DYNAMODB: Assumption(
        what="time from a request to DynamoDB to its answer",
        value=5,
        unit="ms",
        why="AWS says single-digit milliseconds; not measured",
    ),
    Store.SQS: Assumption(
        what="time from a request to an SQS standard queue to its answer",
        value=8,
        unit="ms",
        why="half of the median from sender to receiver that others measured; not measured",
    ),
    Store.FIFO: Assumption(
        what="time from a request to an SQS FIFO queue to its answer",
        value=14,
        unit="ms",
        why="likewise",
    ),
}
RUNTIME = Assumption(
    what="processor time of Lambda's runtime client around a request",
    value=0.3,
    unit="ms",
    why="it reads the event and sends the answer; not measured",
)
PROCESSOR = Assumption(
    what="a Lambda processor's speed, by that of the machine that measured",
    value=1,
    unit="",
    why="not known; arm64 and x86_64 are taken to be as fast",
)
COLD_SHARE = Assumption(
    what="requests that meet a cold start",
    value=0.001,
    unit="of all",
    why="steady traffic; init is billed, and has the memory's share of a processor; Lambda may give it more",
)
ENVIRONMENT_START = Assumption(
    what="what Lambda takes to start an environment, before init",
    value=200,
    unit="ms",
    why="not billed; counts in the limits only; not measured",
)
ACTIVE_KEYS = Assumption(
    what="API keys that send at the same time",
    value=20,
    unit="keys",
    why="each environment reads each of them every `KeyCacheSeconds`",
)
USUAL_RATE = Assumption(
    what="rate where none is named",
    value=100,
    unit="messages/s",
    why="decides only how many reads of the key table a message costs",
)
ANSWER_BYTES = Assumption(
    what="an answer with its headers",
    value=500,
    unit="bytes",
    why="data out to the internet; the body has about 100",
)
STORED_MONTHS = Assumption(
    what="how long a stored message is kept and backed up in these sums",
    value=1,
    unit="months",
    why="each further month costs as much again; `EventRetentionDays` ends it",
)
RECEIVED_AT_ONCE = Assumption(
    what="messages that a consumer receives and deletes by one request",
    value=1,
    unit="messages",
    why="the shipped consumer takes one; your own may take 10. Requests that find an empty queue are left out",
)
LOG_SHARE = Assumption(
    what="what is left of a log line when CloudWatch has compressed it",
    value=0.15,
    unit="of its bytes",
    why="what AWS's calculator takes, from memory; not measured",
)
METRICS = Assumption(
    what="metrics in use: four sums, Accepted and Duplicate of seven call types, Refused of five, and ten codes",
    value=33,
    unit="metrics",
    why="one for each metric in all, for each call type and code that occurs, whatever the traffic",
)
TASKS = Assumption(what="tasks of the always-on collector, at least", value=2, unit="tasks", why="one may fail")
TASK_CPU = Assumption(what="a task's processors", value=0.5, unit="vCPU", why="small, on Fargate with arm64")
TASK_MEMORY = Assumption(what="a task's memory", value=1, unit="GB", why="the least that goes with its processors")
TASK_LOAD = Assumption(
    what="how busy tasks are before another one is added",
    value=0.6,
    unit="of their processors",
    why="peaks, a failed task",
)
TASK_SERVER = Assumption(
    what="processor time of a task's web server for a request",
    value=1,
    unit="ms",
    why="TLS ends at the balancer; beside the same work that the function does; not measured",
)
ADDRESSES = Assumption(
    what="public addresses of the balancer",
    value=2,
    unit="addresses",
    why="one in each of two zones; each task has one too",
)
HEADERS = Assumption(what="a request's headers", value=500, unit="bytes", why="they count as the balancer's data")

ASSUMPTIONS = (
    *NETWORK.values(),
    RUNTIME,
    PROCESSOR,
    COLD_SHARE,
    ENVIRONMENT_START,
    ACTIVE_KEYS,
    USUAL_RATE,
    ANSWER_BYTES,
    STORED_MONTHS,
    RECEIVED_AT_ONCE,
    LOG_SHARE,
    METRICS,
    TASKS,
    TASK_CPU,
    TASK_MEMORY,
    TASK_LOAD,
    TASK_SERVER,
    ADDRESSES,
    HEADERS,
)


@dataclass(frozen=True, kw_only=True)
class Tier:
    """Dollars for `Price.per` units, up to a quantity in a month; None for the last tier."""

    dollars: float
    up_to: float | None = None


@dataclass(frozen=True, kw_only=True)
class Price:
    """What AWS asks for something, where that was read, and on which day it was valid."""

    what: str
    unit: str
    per: int
    tiers: Sequence[Tier]
    source: str
    valid: str
    verified: str
    note: str

    def dollars(self, quantity: float) -> float:
        """Return what a month's quantity costs."""
        total, begin = 0.0, 0.0
        for tier in self.tiers:
            end = quantity if tier.up_to is None else min(quantity, tier.up_to)
            total += max(end - begin, 0) * tier.dollars / self.per
            begin = end
        return total


Prices = Mapping[str, Price]


@functools.cache
def template() -> dict[str, Any]:
    """Return template.yaml, read once."""
    return load_template()


def parameter(name: str) -> float:
    """Return the default of one of the stack's parameters."""
    default: float = template()["Parameters"][name]["Default"]
    return default


def load_prices(path: Path = PRICES) -> Prices:
    """Read the table of prices."""
    content: dict[str, dict[str, Any]] = json.loads(path.read_bytes())["prices"]
    return {
        name: Price(**{**price, "tiers": tuple(Tier(**tier) for tier in price["tiers"])})
        for name, price in content.items()
    }


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A message of `kilobytes` that was sent to a store: what that took of the processor, and what was written."""

    store: Store
    kilobytes: int
    processor_microseconds: float
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Messages of `kilobytes` in one request: the processor time of each by that of a single one, and all its lines."""

    store: Store
    kilobytes: int
    messages: int
    processor_ratio: float
    line_bytes: int

    @property
    def calls(self) -> int:
        """Return how many calls of the store come after each other: some go beside each other, but of a FIFO queue."""
        sent = self.messages if self.store is Store.DYNAMODB else math.ceil(self.messages / MAX_QUEUE_MESSAGES)
        return sent if self.store is Store.FIFO else math.ceil(sent / CALLS_AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What was measured: when, by what command, on what. Milliseconds are those of `python -m bench cold`."""

    date: str
    command: str
    commit: str | None
    processor: str
    python: str
    request_line_bytes: int
    init_milliseconds: float
    first_request_milliseconds: float
    samples: Sequence[Sample]
    batches: Sequence[Batch]

    @classmethod
    def load(cls, path: Path = RECORDED) -> Self:
        """Read what was measured."""
        content: dict[str, Any] = json.loads(path.read_bytes())
        samples = tuple(Sample(**{**sample, "store": Store(sample["store"])}) for sample in content["samples"])
        batches = tuple(Batch(**{**batch, "store": Store(batch["store"])}) for batch in content["batches"])
        return cls(**{**content, "samples": samples, "batches": batches})

    def sample(self, store: Store, kilobytes: int) -> Sample:
        """Return one of the samples; raises `StopIteration` where there is none."""
        return next(sample for sample in self.samples if (sample.store, sample.kilobytes) == (store, kilobytes))

    @property
    def sizes(self) -> list[int]:
        """Return the sizes of messages, in KB."""
        return sorted({sample.kilobytes for sample in self.samples})


@dataclass(frozen=True, kw_only=True)
class Case:
    """Messages of one kind, and the function that takes them, one in each request, or a `batch`."""

    recorded: Recorded
    sample: Sample
    memory_mb: int
    architecture: str
    rate: float = USUAL_RATE.value
    batch: Batch | None = None

    @property
    def messages(self) -> int:
        """Return how many there are in a request."""
        return self.batch.messages if self.batch else 1

    @property
    def processor_share(self) -> float:
        """Return how much of a processor the memory buys; more than one is of no use to one thread."""
        return min(self.memory_mb / ONE_PROCESSOR_MB, 1)

    @property
    def processor_milliseconds(self) -> float:
        """Return what a request takes of a whole processor."""
        messages = self.batch.messages * self.batch.processor_ratio if self.batch else 1
        return (messages * self.sample.processor_microseconds / 1000 + RUNTIME.value) / PROCESSOR.value

    @property
    def milliseconds(self) -> float:
        """Return how long a request takes a warm function."""
        calls = self.batch.calls if self.batch else 1
        return calls * NETWORK[self.sample.store].value + self.processor_milliseconds / self.processor_share

    @property
    def billed_milliseconds(self) -> float:
        """Return what is billed for a request on average, cold starts included."""
        return self.milliseconds + ROUNDING_MILLISECONDS + COLD_SHARE.value * self._init_milliseconds

    @property
    def cold_milliseconds(self) -> float:
        """Return how long a request takes that meets a cold start."""
        processor = (self.recorded.first_request_milliseconds + RUNTIME.value) / PROCESSOR.value
        waiting = ENVIRONMENT_START.value + NETWORK[self.sample.store].value
        return waiting + self._init_milliseconds + processor / self.processor_share

    @property
    def _init_milliseconds(self) -> float:
        return self.recorded.init_milliseconds / PROCESSOR.value / self.processor_share

    @property
    def busy(self) -> float:
        """Return how many environments are busy at once (Little's law)."""
        return self.rate / self.messages * self.milliseconds / 1000

    @property
    def write_units(self) -> int:
        """Return what DynamoDB counts for one write."""
        return math.ceil(self.sample.stored_bytes / WRITE_UNIT_BYTES)


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What one message uses of something that has a price."""

    part: str
    item: str
    price: str
    quantity: float


def charges(case: Case) -> list[Charge]:
    """Return all that a message uses, but for what is paid by the month."""
    return [*front_charges(case), *_key_charges(case), *_store_charges(case), *_log_charges(case)]


def front_charges(case: Case) -> Iterator[Charge]:
    """Yield what an always-on collector would do instead."""
    each = 1 / case.messages
    requests = math.ceil(case.messages * case.sample.kilobytes * KILOBYTE / HTTP_API_BYTES)
    gigabyte_seconds = case.billed_milliseconds / 1000 * case.memory_mb / MEGABYTES_PER_GIGABYTE
    yield Charge(part="HTTP API", item="requests", price="http_api_requests", quantity=requests * each)
    yield replace(data_out(), quantity=data_out().quantity * each)
    yield Charge(part="Lambda", item="requests", price="lambda_requests", quantity=each)
    yield Charge(part="Lambda", item="GB-s", price=f"lambda_{case.architecture}", quantity=gigabyte_seconds * each)


def data_out() -> Charge:
    """Return what the answer uses."""
    return Charge(part="HTTP API", item="data out", price="data_out", quantity=ANSWER_BYTES.value / GIGABYTE)


def _key_charges(case: Case) -> Iterator[Charge]:
    seconds = parameter("KeyCacheSeconds")
    reads_per_second = ACTIVE_KEYS.value * max(math.ceil(case.busy), 1) / seconds
    reads = min(reads_per_second / case.rate, 1)
    yield Charge(part="DynamoDB", item="key reads", price="dynamodb_reads", quantity=reads)


def _store_charges(case: Case) -> Iterator[Charge]:
    if case.sample.store is Store.DYNAMODB:
        yield from _table_charges(case)
    else:
        price = "sqs_fifo" if case.sample.store is Store.FIFO else "sqs_standard"
        sent_at_once = min(case.messages, MAX_QUEUE_MESSAGES)
        yield from _queue_charges(case.sample.stored_bytes, price, sent_at_once)


def _table_charges(case: Case) -> Iterator[Charge]:
    stored = case.sample.stored_bytes
    gigabyte_months = (stored + ITEM_OVERHEAD_BYTES) / GIGABYTE * STORED_MONTHS.value
    stream_reads = max(stored / STREAM_READ_BYTES, 1 / STREAM_READ_RECORDS)
    yield Charge(part="DynamoDB", item="writes", price="dynamodb_writes", quantity=case.write_units)
    yield Charge(part="DynamoDB", item="storage", price="dynamodb_storage", quantity=gigabyte_months)
    yield Charge(part="DynamoDB", item="backup", price="dynamodb_backup", quantity=gigabyte_months)
    yield Charge(part="DynamoDB", item="stream", price="dynamodb_stream_reads", quantity=stream_reads)


def _queue_charges(message_bytes: int, price: str, sent_at_once: int) -> Iterator[Charge]:
    at_once = RECEIVED_AT_ONCE.value
    send = math.ceil(message_bytes * sent_at_once / QUEUE_REQUEST_BYTES) / sent_at_once
    receive = math.ceil(message_bytes * at_once / QUEUE_REQUEST_BYTES) / at_once
    for item, quantity in (("send", send), ("receive", receive), ("delete", 1 / at_once)):
        yield Charge(part="SQS", item=item, price=price, quantity=quantity)


def _log_charges(case: Case) -> Iterator[Charge]:
    sizes = log_bytes(case.recorded)
    if case.batch:
        sizes = {name: size / case.messages for name, size in {**sizes, "request line": case.batch.line_bytes}.items()}
    kept = sum(sizes.values()) + LOG_EVENT_OVERHEAD_BYTES * len(sizes) / case.messages
    months = parameter("LogRetentionDays") * 24 / MONTH_HOURS
    for name, size in sizes.items():
        yield Charge(part="Logs", item=name, price="logs", quantity=size / GIGABYTE)
    yield Charge(part="Logs", item="storage", price="log_storage", quantity=kept * LOG_SHARE.value * months / GIGABYTE)


_REQUEST_ID = "6f9a1c9e-6f0b-4c3e-9a54-0d3c6c1f8a11"
LAMBDA_LINES = {
    "START": f"START RequestId: {_REQUEST_ID} Version: $LATEST\n",
    "END": f"END RequestId: {_REQUEST_ID}\n",
    "REPORT": f"REPORT RequestId: {_REQUEST_ID}\tDuration: 8.21 ms\tBilled Duration: 9 ms\tMemory Size: 512 MB\t"
    "Max Memory Used: 75 MB\t\n",
}
"""What Lambda itself writes for each request. https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html"""
_ACCESS = {
    "requestId": "JKJaXmPLvHcESHA=",
    "requestTime": "12/Mar/2026:09:30:00 +0000",
    "routeKey": "POST /segment",
    "status": "200",
    "responseLatency": "14",
    "integrationStatus": "200",
    "responseLength": "107",
    "identity.sourceIp": "192.0.2.10",
}


def log_bytes(recorded: Recorded) -> dict[str, float]:
    """Return the bytes of each line that a request leaves; raises `KeyError` for an unknown word in the access log."""
    access_format = template()["Resources"]["Api"]["Properties"]["AccessLogSettings"]["Format"]
    access = re.sub(r"\$context\.([\w.]+)", lambda match: _ACCESS[match[1]], access_format)
    return {
        "request line": recorded.request_line_bytes,
        **{f"Lambda's {name}": len(line) for name, line in LAMBDA_LINES.items()},
        "access log": len(access),
    }


def bill(prices: Prices, used: Iterable[Charge], messages: float) -> list[tuple[Charge, float]]:
    """Return each charge with the dollars of so many messages in a month; charges of one price share its tiers."""
    used = list(used)
    quantities: dict[str, float] = defaultdict(float)
    for charge in used:
        quantities[charge.price] += charge.quantity * messages
    averages = {name: prices[name].dollars(total) / total for name, total in quantities.items() if total}
    return [(charge, averages.get(charge.price, 0) * charge.quantity * messages) for charge in used]


def by_part(bills: Iterable[tuple[Charge, float]]) -> dict[str, float]:
    """Add up dollars by part."""
    sums: dict[str, float] = defaultdict(float)
    for charge, dollars in bills:
        sums[charge.part] += dollars
    return dict(sums)


def dollars(prices: Prices, case: Case, messages: float = MILLION) -> dict[str, float]:
    """Return what messages cost by part."""
    return by_part(bill(prices, charges(case), messages))


def month_dollars(prices: Prices, case: Case) -> float:
    """Return what a month at a case's rate costs, metrics included."""
    return sum(dollars(prices, case, case.rate * MONTH_SECONDS).values()) + prices["metrics"].dollars(METRICS.value)


def collector_tasks(case: Case) -> int:
    """Return how many tasks an always-on collector takes for a case's rate."""
    busy = case.rate * (case.processor_milliseconds - RUNTIME.value + TASK_SERVER.value) / 1000
    return max(math.ceil(busy / (TASK_CPU.value * TASK_LOAD.value)), round(TASKS.value))


def collector_dollars(prices: Prices, case: Case) -> float:
    """Return what a month of an always-on collector costs; its store and its logs cost what ours do."""
    tasks = collector_tasks(case)
    request_bytes = case.sample.kilobytes * KILOBYTE + HEADERS.value + ANSWER_BYTES.value
    messages = case.rate * MONTH_SECONDS
    quantities = {
        "fargate_cpu": tasks * TASK_CPU.value * MONTH_HOURS,
        "fargate_memory": tasks * TASK_MEMORY.value * MONTH_HOURS,
        "balancer_hours": MONTH_HOURS,
        "balancer_units": messages * request_bytes / GIGABYTE,
        "public_addresses": (tasks + ADDRESSES.value) * MONTH_HOURS,
        "data_out": messages * data_out().quantity,
    }
    return sum(prices[name].dollars(quantity) for name, quantity in quantities.items())


def front_dollars(prices: Prices, case: Case) -> float:
    """Return what a month of the HTTP API and Lambda costs."""
    return sum(spent for _, spent in bill(prices, front_charges(case), case.rate * MONTH_SECONDS))


def possible_metrics() -> int:
    """Count the metrics that there can be: sums, each by call type, two by any other type too, and codes."""
    codes = len({kind.code for kind in _refusals(Refusal)} | {"internal_error"})
    sums, by_another_type = 4, 2
    return sums + sums * len(CALL_TYPES) + by_another_type + codes


def _refusals(base: type[Refusal]) -> Iterator[type[Refusal]]:
    for kind in base.__subclasses__():
        if "code" in vars(kind):
            yield kind
        yield from _refusals(kind)
