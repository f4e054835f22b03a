"""The cost model: what one message uses of AWS's services, times their prices; and the limits that a rate meets.

The data is in three files: `prices.json`, `assumptions.toml` (with the limits), and `recorded.json`, which
`python -m bench cost --write` measures. Parameters of the stack have the defaults of template.yaml.
"""

import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from destination.deployment.stack import load_template
from handler.parallel import CALLS_AT_ONCE
from handler.sinks.sqs import MAX_QUEUE_MESSAGES

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "recorded.json"

MILLION = 1_000_000
GIGABYTE = 1024**3
"""AWS bills gigabytes of 1024³ bytes."""
HTTP_API_REQUEST_KB = 512
"""AWS bills each 512 KB of a request as one request."""
WRITE_UNIT_BYTES = 1024
QUEUE_REQUEST_BYTES = 64 * 1024
ITEM_OVERHEAD_BYTES = 100
"""DynamoDB bills so many bytes more for the storage of an item."""
LOG_LINE_OVERHEAD_BYTES = 26
ONE_PROCESSOR_MB = 1769
"""https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html"""
ROUNDING_MS = 0.5
"""Lambda rounds a duration up to whole milliseconds, which adds half of one on average."""
MONTH_HOURS = 730
MONTH_SECONDS = MONTH_HOURS * 3600

Entry = Mapping[str, Any]
"""A price, an assumption or a limit; its fields are those in its file."""


class Store(StrEnum):
    """Where accepted messages are written."""

    DYNAMODB = "DynamoDB"
    SQS = "SQS standard"
    FIFO = "SQS FIFO"


@cache
def assumptions() -> dict[str, Any]:
    """Read `assumptions.toml`, once; `limits` is a list, the rest are single assumptions."""
    return tomllib.loads((FOLDER / "assumptions.toml").read_text())


def assumed(name: str) -> float:
    """Return the value of an assumption."""
    value: float = assumptions()[name]["value"]
    return value


@cache
def parameter(name: str) -> Any:  # noqa: ANN401 -- a number or a text
    """Return the default of a parameter of template.yaml."""
    return load_template()["Parameters"][name]["Default"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A measured request with one or more messages of a size, and the function that takes it.

    `processor_ms` and `line_bytes` are of the whole request, `stored_bytes` of each message.
    """

    store: Store
    kilobytes: int
    messages: int
    processor_ms: float
    stored_bytes: int
    line_bytes: int
    init_ms: float
    first_request_ms: float
    memory_mb: int = field(default_factory=lambda: parameter("MemorySize"))
    architecture: str = field(default_factory=lambda: parameter("Architecture"))

    @property
    def name(self) -> str:
        """The case in a few words."""
        batch = f", batch of {self.messages}" if self.messages > 1 else ""
        return f"{self.store}, {self.kilobytes} KB{batch}"

    @property
    def network_ms(self) -> float:
        """The time of one call of the store."""
        return assumed(f"network_{self.store.name.lower()}_ms")

    @property
    def calls_in_sequence(self) -> int:
        """How many calls of the store wait for each other; a FIFO queue takes no concurrent calls."""
        calls = self.messages if self.store is Store.DYNAMODB else math.ceil(self.messages / MAX_QUEUE_MESSAGES)
        return calls if self.store is Store.FIFO else math.ceil(calls / CALLS_AT_ONCE)

    def throttled(self, processor_ms: float) -> float:
        """Return how long work takes with the share of a processor that the memory buys."""
        return processor_ms / min(self.memory_mb / ONE_PROCESSOR_MB, 1)

    @property
    def milliseconds(self) -> float:
        """The duration of a request in a warm function."""
        processor_ms = self.processor_ms + assumed("runtime_ms")
        return self.calls_in_sequence * self.network_ms + self.throttled(processor_ms)

    @property
    def cold_milliseconds(self) -> float:
        """The duration of a request that meets a cold start."""
        processor_ms = self.init_ms + self.first_request_ms + assumed("runtime_ms")
        return assumed("environment_start_ms") + self.network_ms + self.throttled(processor_ms)

    @property
    def write_units(self) -> int:
        """The write units of one message in DynamoDB."""
        return math.ceil(self.stored_bytes / WRITE_UNIT_BYTES)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Prices by name, and what was measured: where, when, and the fields of each `Case`."""

    prices: Mapping[str, Entry]
    recorded: Entry

    @classmethod
    def load(cls) -> Self:
        """Read the files."""
        prices = json.loads((FOLDER / "prices.json").read_bytes())["prices"]
        return cls(prices=prices, recorded=json.loads(RECORDED.read_bytes()))

    def cases(self) -> list[Case]:
        """Return a case for each store, size and number of messages that was measured."""
        cold = {name: self.recorded[name] for name in ("init_ms", "first_request_ms")}
        return [Case(**{**case, **cold, "store": Store(case["store"])}) for case in self.recorded["cases"]]

    def case(self, store: Store = Store.DYNAMODB, kilobytes: int = 1) -> Case:
        """Return the case of a single message."""
        wanted = (store, kilobytes, 1)
        return next(case for case in self.cases() if (case.store, case.kilobytes, case.messages) == wanted)


Charge = tuple[str, str, float]
"""A part of the bill, the name of its price, and the quantity that one message uses."""


def charges(case: Case) -> list[Charge]:
    """List what one message uses; the month's metrics are not in it."""
    request = 1 / case.messages
    billed_requests = math.ceil(case.messages * case.kilobytes / HTTP_API_REQUEST_KB)
    billed_ms = case.milliseconds + ROUNDING_MS + assumed("cold_share") * case.throttled(case.init_ms)
    gigabyte_seconds = billed_ms / 1000 * case.memory_mb / 1024
    log_bytes = case.line_bytes + assumed("lambda_log_bytes") + assumed("access_log_bytes")
    kept_bytes = (log_bytes + LOG_LINE_OVERHEAD_BYTES * assumed("log_lines")) * assumed("log_compression")
    log_months = parameter("LogRetentionDays") * 24 / MONTH_HOURS
    return [
        ("HTTP API", "http_api_requests", billed_requests * request),
        ("HTTP API", "data_out", assumed("answer_bytes") / GIGABYTE * request),
        ("Lambda requests", "lambda_requests", request),
        ("Lambda GB-s", f"lambda_{case.architecture}", gigabyte_seconds * request),
        *(_table_charges(case) if case.store is Store.DYNAMODB else _queue_charges(case)),
        ("Logs", "logs", log_bytes / GIGABYTE * request),
        ("Logs", "log_storage", kept_bytes / GIGABYTE * log_months * request),
    ]


def _table_charges(case: Case) -> list[Charge]:
    gigabyte_months = (case.stored_bytes + ITEM_OVERHEAD_BYTES) / GIGABYTE * assumed("stored_months")
    return [
        ("DynamoDB writes", "dynamodb_writes", case.write_units),
        ("DynamoDB storage", "dynamodb_storage", gigabyte_months),
        ("DynamoDB backup", "dynamodb_backup", gigabyte_months),
    ]


def _queue_charges(case: Case) -> list[Charge]:
    price = "sqs_fifo" if case.store is Store.FIFO else "sqs_standard"
    at_once = assumed("received_at_once")
    sent, received = (
        math.ceil(case.stored_bytes * messages / QUEUE_REQUEST_BYTES) / messages
        for messages in (min(case.messages, MAX_QUEUE_MESSAGES), at_once)
    )
    return [("SQS", price, sent + received + 1 / at_once)]  # the last one deletes


def price_dollars(price: Entry, quantity: float) -> float:
    """Return the price of a month's quantity, tier by tier."""
    total, start = 0.0, 0.0
    for tier in price["tiers"]:
        end = min(quantity, tier.get("up_to", math.inf))
        total += max(end - start, 0) * tier["dollars"] / price["per"]
        start = end
    return total


def dollars(data: Data, used: Iterable[Charge], messages: float = MILLION) -> dict[str, float]:
    """Return the dollars of each part for so many messages in a month; charges of one price share its tiers."""
    used = list(used)
    totals: dict[str, float] = defaultdict(float)
    for _, price, quantity in used:
        totals[price] += quantity * messages
    sums: dict[str, float] = defaultdict(float)
    for part, price, quantity in used:
        sums[part] += price_dollars(data.prices[price], totals[price]) * quantity * messages / totals[price]
    return dict(sums)


def metrics_dollars(data: Data) -> float:
    """Return the price of a month's custom metrics."""
    return price_dollars(data.prices["metrics"], assumed("metrics"))


def month_dollars(data: Data, case: Case, rate: float, *, month: int = 1) -> float:
    """Return the price of a month at a rate of messages per second, with metrics.

    A table that keeps its messages also holds the messages of earlier months: `month` counts from the first message.
    """
    parts = dollars(data, charges(case), rate * MONTH_SECONDS)
    kept = parts.get("DynamoDB storage", 0) + parts.get("DynamoDB backup", 0)
    return sum(parts.values()) + kept * (month - 1) + metrics_dollars(data)


def uses(case: Case) -> dict[str, float]:
    """Return what one message per second uses of each kind of limit."""
    busiest = assumed("busiest_user")
    return {
        "request": 1,
        "request of the busiest user": busiest,
        "environment": case.milliseconds / 1000,  # Little's law
        "new environment": case.cold_milliseconds / 1000,
        "write units": case.write_units,
        "write units of the busiest user": case.write_units * busiest,
    }


def met_limits(data: Data) -> list[tuple[float, Entry]]:
    """Return the limits for messages of 1 KB, each with the rate that meets it, the lowest first."""
    used = uses(data.case())
    met = [(limit["value"] / used[limit["uses"]], limit) for limit in assumptions()["limits"]]
    return sorted(met, key=itemgetter(0))
