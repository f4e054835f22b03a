"""Tables and pictures of `docs/explanation/scale.md`, between marks that name them; the bench prints them too."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.cost_limits import ALL, HOT_USER_SHARE, OUTAGE, Limit, limits
from bench.cost_model import (
    ASSUMPTIONS,
    METRICS,
    MILLION,
    MONTH_SECONDS,
    USUAL_RATE,
    Case,
    Price,
    Prices,
    Recorded,
    Store,
    bill,
    charges,
    collector_dollars,
    collector_tasks,
    dollars,
    front_dollars,
    log_bytes,
    month_dollars,
    possible_metrics,
    template,
)
from bench.figures import Row, Table
from bench.report import bar, number
from destination.deployment.stack import ROOT

DOCS = ROOT / "docs" / "explanation" / "scale.md"

MEMORIES_MB = (128, 256, 512, 1024, 1769)
RATES = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000)
COLLECTOR_RATES = (1, 10, 100, 1_000, 10_000)
REPLAYED = 20 * MILLION
REPLAY_RATES = (100, 500, 1_000, 2_000, 5_000, 10_000)
REPLAY_SIZES_KB = (1, 4, 32)
PARTS = {"HTTP API": "H", "Lambda": "L", "DynamoDB": "D", "SQS": "S", "Logs": "g"}
"""What pays, and the letter that draws it."""
PICTURE_COLUMNS = 60
DECADES = 5
"""The picture of limits ends at 100,000 messages per second."""
SUM = "sum"
INTEL_SUM = "sum, x86_64"
BISECTIONS = 60


@dataclass(frozen=True, kw_only=True)
class Source:
    """What all is computed from."""

    prices: Prices
    recorded: Recorded

    def case(self, store: Store = Store.DYNAMODB, kilobytes: int = 1, rate: float | None = None) -> Case:
        """Return a case with the defaults of the template."""
        parameters = template()["Parameters"]
        return Case(
            recorded=self.recorded,
            sample=self.recorded.sample(store, kilobytes),
            memory_mb=parameters["MemorySize"]["Default"],
            architecture=parameters["Architecture"]["Default"],
            rate=USUAL_RATE.value if rate is None else rate,
        )

    def batches(self) -> list[Case]:
        """Return a case for each kind of batch that was measured."""
        return [replace(self.case(each.store, each.kilobytes), batch=each) for each in self.recorded.batches]

    def cases(self) -> list[Case]:
        """Return a case for each store and size."""
        return [self.case(store, size) for store in Store for size in self.recorded.sizes]


def tables(prices: Prices, recorded: Recorded) -> list[Table]:
    """Return what is shown, and kept in the file of results."""
    source = Source(prices=prices, recorded=recorded)
    return [
        by_message(source),
        by_batch(source),
        by_item(source, Store.DYNAMODB),
        by_memory(source),
        by_rate(source),
        beside_collector(source),
        replay(source),
    ]


def by_message(source: Source) -> Table:
    """Split what a million messages cost by what pays."""
    return Table(
        name="cost: messages",
        title="Dollars per million messages, 512 MB, arm64",
        rows=tuple(_paid(source, source.cases())),
        bar=SUM,
    )


def by_batch(source: Source) -> Table:
    """Split likewise what they cost in batches."""
    return Table(
        name="cost: batches",
        title="Dollars per million messages in batches, 512 MB, arm64",
        rows=tuple(_paid(source, source.batches())),
        bar=SUM,
    )


def _paid(source: Source, cases: Iterable[Case]) -> Iterator[Row]:
    for case in cases:
        parts = dollars(source.prices, case)
        intel = dollars(source.prices, replace(case, architecture="x86_64"))
        figures = {
            "HTTP API": parts["HTTP API"],
            "Lambda requests": _item(source.prices, case, "Lambda", "requests"),
            "Lambda GB-s": _item(source.prices, case, "Lambda", "GB-s"),
            **{part: parts.get(part, 0) for part in ("DynamoDB", "SQS", "Logs")},
        }
        yield Row(name=_name(case), figures={**figures, SUM: sum(parts.values()), INTEL_SUM: sum(intel.values())})


def by_item(source: Source, *stores: Store) -> Table:
    """Split what a million messages cost a store by what it bills."""

    def row(case: Case) -> Row:
        part = "DynamoDB" if case.sample.store is Store.DYNAMODB else "SQS"
        bills = bill(source.prices, charges(case), MILLION)
        items = {charge.item: spent for charge, spent in bills if charge.part == part}
        return Row(name=_name(case), figures={**items, SUM: sum(items.values())})

    return Table(
        name=f"cost: {', '.join(stores)}",
        title=f"Dollars per million messages: {', '.join(stores)}",
        rows=tuple(row(case) for case in source.cases() if case.sample.store in stores),
        bar=SUM,
    )


def by_memory(source: Source) -> Table:
    """Compare memories: durations, and what a million requests of each architecture cost Lambda."""

    def row(memory: int) -> Row:
        case = replace(source.case(), memory_mb=memory)
        intel = replace(case, architecture="x86_64")
        return Row(
            name=f"{memory:,} MB",
            figures={
                "% of a processor": 100 * case.processor_share,
                "ms": case.milliseconds,
                "cold ms": case.cold_milliseconds,
                "requests $": _item(source.prices, case, "Lambda", "requests"),
                "GB-s arm64 $": _item(source.prices, case, "Lambda", "GB-s"),
                "GB-s x86_64 $": _item(source.prices, intel, "Lambda", "GB-s"),
                "300 KB: ms": replace(source.case(kilobytes=300), memory_mb=memory).milliseconds,
            },
        )

    return Table(
        name="cost: memory",
        title="Memory: DynamoDB, 1 KB; dollars per million messages",
        rows=tuple(row(memory) for memory in MEMORIES_MB),
        bar="GB-s arm64 $",
    )


def by_rate(source: Source) -> Table:
    """Show how the month's bill grows."""

    def row(rate: int) -> Row:
        case = source.case(rate=rate)
        months = {f"{store} $": month_dollars(source.prices, source.case(store, rate=rate)) for store in Store}
        million = rate * MONTH_SECONDS / MILLION
        return Row(name=f"{rate:,}", figures={"million a month": million, "environments busy": case.busy, **months})

    return Table(
        name="cost: rates",
        title="Dollars a month by messages per second, 1 KB, metrics included",
        rows=tuple(row(rate) for rate in RATES),
        bar="DynamoDB $",
    )


def beside_collector(source: Source) -> Table:
    """Compare the HTTP API and Lambda with a collector that is always on, by the month."""

    def row(rate: int) -> Row:
        case = source.case(rate=rate)
        return Row(
            name=f"{rate:,}",
            figures={
                "HTTP API and Lambda $": front_dollars(source.prices, case),
                "collector $": collector_dollars(source.prices, case),
                "its tasks": collector_tasks(case),
            },
        )

    return Table(
        name="cost: collector",
        title="Dollars a month before the store, by messages per second, 1 KB",
        rows=tuple(row(rate) for rate in COLLECTOR_RATES),
        bar="HTTP API and Lambda $",
        notes=(f"They cost the same at {break_even(source):.0f} messages per second.",),
    )


def break_even(source: Source) -> float:
    """Return the rate at which the HTTP API and Lambda cost what the smallest collector does."""
    low, high = 0.0, float(COLLECTOR_RATES[-1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        case = source.case(rate=middle)
        if front_dollars(source.prices, case) < collector_dollars(source.prices, case):
            low = middle
        else:
            high = middle
    return low


def replay(source: Source) -> Table:
    """Show what a replay costs, metrics not counted."""

    def row(kilobytes: int) -> Row:
        figures = {
            f"{store} $": sum(dollars(source.prices, source.case(store, kilobytes), REPLAYED).values())
            for store in Store
        }
        return Row(name=f"{kilobytes} KB", figures=figures)

    return Table(
        name="cost: replay",
        title=f"Dollars for {REPLAYED:,} replayed messages",
        rows=tuple(row(size) for size in REPLAY_SIZES_KB),
        bar="DynamoDB $",
    )


def rewritten(text: str, prices: Prices, recorded: Recorded) -> str:
    """Return a page with what stands between its marks replaced; raises `KeyError` for a mark of an unknown name."""
    source = Source(prices=prices, recorded=recorded)
    return _MARKED.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]](source)}\n{match[3]}", text)


_MARKED = re.compile(r"(<!-- cost: (\w+) -->)\n.*?(<!-- end -->)", re.DOTALL)


def _measured(source: Source) -> str:
    recorded = source.recorded
    rows = [
        [
            f"{sample.kilobytes} KB",
            sample.store,
            number(sample.processor_microseconds / 1000),
            f"{sample.stored_bytes:,}",
            str(source.case(sample.store, sample.kilobytes).write_units) if sample.store is Store.DYNAMODB else "",
        ]
        for sample in sorted(recorded.samples, key=lambda sample: sample.kilobytes)
    ]
    told = (
        f"`{recorded.command}` on {recorded.date[:10]} at commit `{recorded.commit}`, Python {recorded.python}, "
        f"{recorded.processor}. Cold start (`python -m bench cold`): init {number(recorded.init_milliseconds)} ms, "
        f"first request {number(recorded.first_request_milliseconds)} ms."
    )
    return f"{told}\n\n{_grid(['message', 'store', 'processor ms', 'bytes written', 'write units'], rows, texts=2)}"


def _told_of_batches(source: Source) -> str:
    ratios = {f"{each.store} {number(each.processor_ratio)}" for each in source.recorded.batches}
    return f"Of the processor a message takes, by what a single one does: {', '.join(sorted(ratios))}."


def _picture(source: Source) -> str:
    lines = []
    for case in source.cases():
        parts = dollars(source.prices, case)
        total = sum(parts.values())
        drawn = "".join(letter * round(PICTURE_COLUMNS * parts.get(part, 0) / total) for part, letter in PARTS.items())
        lines.append(f"{_name(case):<22}{drawn:<{PICTURE_COLUMNS + 2}} ${number(total)}")
    legend = "   ".join(f"{letter} {part}" for part, letter in PARTS.items())
    return _drawing([*lines, "", f"each line is all of its sum    {legend}"])


def _logs(source: Source) -> str:
    sizes = log_bytes(source.recorded)
    bills = bill(source.prices, charges(source.case()), MILLION)
    spent = {charge.item: paid for charge, paid in bills if charge.part == "Logs"}
    rows = [[name, f"{sizes[name]:,}" if name in sizes else "", number(paid)] for name, paid in spent.items()]
    total = [SUM, f"{sum(sizes.values()):,}", number(sum(spent.values()))]
    return _grid(["line", "bytes", "$ per million"], [*rows, total], texts=1)


def _metrics(source: Source) -> str:
    price, most = source.prices["metrics"], possible_metrics()
    return (
        f"{METRICS.value} metrics cost ${price.dollars(METRICS.value):.2f} a month, and all {most} that can occur "
        f"${price.dollars(most):.2f}, however many messages there are."
    )


def _growth(source: Source) -> str:
    newly = [
        _names(limit for limit in _all_limits(source) if low < limit.rate <= high)
        for low, high in zip((0, *RATES), RATES, strict=False)
    ]
    return _markdown(by_rate(source), "messages/s", texts={"newly met, in this order": newly})


def _limits(source: Source) -> str:
    rows = [[number(limit.rate), limit.name, limit.store, limit.when, limit.ask] for limit in _all_limits(source)]
    return _grid(["messages/s", "limit", "store", "when it counts", "what to ask, and whom"], rows, texts=5)


def _all_limits(source: Source) -> list[Limit]:
    """Return those of all stores, the lowest first; those that all have are DynamoDB's."""
    found: dict[str, Limit] = {}
    for store in Store:
        for limit in limits(source.case(store)):
            found.setdefault(limit.name, limit)
    return sorted(found.values(), key=lambda limit: limit.rate)


def _limits_picture(source: Source) -> str:
    lines = [
        f"{limit.name:<32}{bar(math.log10(limit.rate) / DECADES):<42}{number(limit.rate)}"
        for limit in _all_limits(source)
    ]
    return _drawing(["messages per second; each 8 columns are ten times more", "", *lines])


def _collector(source: Source) -> str:
    table = beside_collector(source)
    return f"{_markdown(table, 'messages/s')}\n\n{' '.join(table.notes)}"


def _replay_hours(source: Source) -> str:
    rows = [
        [
            f"{rate:,}",
            number(REPLAYED / rate / 3600),
            _names(limit for limit in _all_limits(source) if limit.rate <= rate and limit.when != OUTAGE),
        ]
        for rate in REPLAY_RATES
    ]
    return _grid(["messages/s", "hours", "limits met"], rows, texts=0, last_texts=1)


def _assumptions(_: Source) -> str:
    rows = [[each.what, f"{each.value:,} {each.unit}".strip(), each.why] for each in (*ASSUMPTIONS, HOT_USER_SHARE)]
    return _grid(["what", "value", "why"], rows, texts=3)


def _prices(source: Source) -> str:
    rows = [
        [
            price.what,
            _tiers(price),
            f"[{price.valid}]({price.source})",
            f"{price.verified}{'; ' * bool(price.note)}{price.note}",
        ]
        for price in source.prices.values()
    ]
    return _grid(["what", "dollars", "believed valid on", "verified by"], rows, texts=4)


def _tiers(price: Price) -> str:
    first, *others = (f"{tier.dollars:.10f}".rstrip("0").rstrip(".") for tier in price.tiers)
    then = f", then {', '.join(others)}" if others else ""
    return f"{first}{then} per {f'{price.per:,} ' if price.per > 1 else ''}{price.unit}"


BLOCKS: Mapping[str, Callable[[Source], str]] = {
    "measured": _measured,
    "messages": lambda source: _markdown(by_message(source), "message"),
    "batches": lambda source: f"{_markdown(by_batch(source), 'message')}\n\n{_told_of_batches(source)}",
    "picture": _picture,
    "tables": lambda source: _markdown(by_item(source, Store.DYNAMODB), "message"),
    "queues": lambda source: _markdown(by_item(source, Store.SQS, Store.FIFO), "message"),
    "memory": lambda source: _markdown(by_memory(source), "memory"),
    "logs": _logs,
    "metrics": _metrics,
    "collector": _collector,
    "growth": _growth,
    "limits": _limits,
    "limits_picture": _limits_picture,
    "replay": lambda source: _markdown(replay(source), "message"),
    "replay_hours": _replay_hours,
    "assumptions": _assumptions,
    "prices": _prices,
}


def _name(case: Case) -> str:
    together = f", {case.messages} at once" if case.batch else ""
    return f"{case.sample.store}, {case.sample.kilobytes} KB{together}"


def _item(prices: Prices, case: Case, part: str, item: str) -> float:
    bills = bill(prices, charges(case), MILLION)
    return sum(spent for charge, spent in bills if (charge.part, charge.item) == (part, item))


def _names(met: Iterable[Limit]) -> str:
    return ", ".join(limit.name + (f" ({limit.store})" if limit.store != ALL else "") for limit in met)


def _markdown(table: Table, first: str, texts: Mapping[str, Sequence[str]] | None = None) -> str:
    texts = texts or {}
    names = list(dict.fromkeys(name for row in table.rows for name in row.figures))
    rows = [
        [row.name, *(_figure(row.figures.get(name)) for name in names), *(column[index] for column in texts.values())]
        for index, row in enumerate(table.rows)
    ]
    return _grid([first, *names, *texts], rows, texts=1, last_texts=len(texts))


def _figure(value: float | None) -> str:
    """Write a number, nothing where there is none, and what is counted without a point."""
    return "" if not value else f"{value:,.0f}" if value == round(value) else number(value)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int, last_texts: int = 0) -> str:
    """Make a table whose first and last columns are texts, and those between numbers."""
    numbers = len(header) - texts - last_texts
    ruler = ["---"] * texts + ["---:"] * numbers + ["---"] * last_texts
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows))


def _drawing(lines: Iterable[str]) -> str:
    return "\n".join(("```", *(line.rstrip() for line in lines), "```"))
