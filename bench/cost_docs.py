"""The tables of the cost model, for the terminal and for `docs/explanation/scale.md`, where marks name the places."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from bench.cost_model import (
    MONTH_SECONDS,
    Case,
    Data,
    Entry,
    Store,
    assumptions,
    charges,
    dollars,
    met_limits,
    month_dollars,
)
from bench.figures import Table
from bench.report import number
from destination.paths import ROOT

DOCS = ROOT / "docs" / "explanation" / "scale.md"
MEMORIES_MB = (128, 256, 512, 1024, 1769)
RATES = (1, 10, 50, 100, 500, 1_000, 10_000)
PARTS = (
    *("HTTP API", "Lambda requests", "Lambda GB-s"),
    *("DynamoDB writes", "DynamoDB storage", "DynamoDB backup", "SQS", "Logs"),
)
SUM = "sum"


def by_message(data: Data) -> Table:
    """Split the price of a million messages by part."""

    def row(case: Case) -> dict[str, float]:
        parts = dollars(data, charges(case))
        return {**{part: parts.get(part, 0) for part in PARTS}, SUM: sum(parts.values())}

    rows = {case.name: row(case) for case in data.cases()}
    return Table(name="cost: messages", title="Dollars per million messages", rows=rows)


def by_memory(data: Data) -> Table:
    """Compare the durations and the prices of memory sizes."""

    def row(case: Case) -> dict[str, float]:
        prices = {
            f"GB-s {architecture} $": dollars(data, charges(replace(case, architecture=architecture)))["Lambda GB-s"]
            for architecture in ("arm64", "x86_64")
        }
        return {"ms": case.milliseconds, "cold ms": case.cold_milliseconds, **prices}

    rows = {f"{memory:,} MB": row(replace(data.case(), memory_mb=memory)) for memory in MEMORIES_MB}
    title = "Memory: DynamoDB, 1 KB; dollars per million messages"
    return Table(name="cost: memory", title=title, rows=rows)


def by_rate(data: Data) -> Table:
    """Show how the bill of a month grows with the rate."""

    def row(rate: int) -> dict[str, float]:
        environments = rate * data.case().milliseconds / 1000
        months = {f"{store} $": month_dollars(data, data.case(store), rate) for store in Store}
        return {"million a month": rate * MONTH_SECONDS / 1e6, "environments in use": environments, **months}

    rows = {f"{rate:,}": row(rate) for rate in RATES}
    title = "Dollars a month by messages per second, 1 KB, with metrics"
    return Table(name="cost: rates", title=title, rows=rows)


def tables(data: Data) -> list[Table]:
    """Return the tables for the terminal and the file of results."""
    return [by_message(data), by_memory(data), by_rate(data)]


def rewritten(text: str, data: Data) -> str:
    """Return a page with new tables between its marks; raises `KeyError` for a mark with an unknown name."""
    return _MARKED.sub(lambda match: f"{match[1]}\n{BLOCKS[match[2]](data)}\n{match[3]}", text)


_MARKED = re.compile(r"(<!-- cost: (\w+) -->)\n.*?(<!-- end -->)", re.DOTALL)


def _months(data: Data) -> str:
    met = [
        ", ".join(
            limit["name"] if limit["store"] == "all" else f"{limit['name']} ({limit['store']})"
            for rate, limit in met_limits(data)
            if low < rate <= high
        )
        for low, high in zip((0, *RATES), RATES, strict=False)
    ]
    return _markdown(by_rate(data), "messages/s", last=("limits met first", met))


def _limits(data: Data) -> str:
    rows = [
        [number(rate), limit["name"], limit["store"], limit["when"], value, limit["ask"]]
        for rate, limit in met_limits(data)
        for value in [f"[{limit['value']:,} {limit['unit']}]({limit['source']})"]
    ]
    return _grid(
        ["messages/s", "limit", "store", "when it counts", "value", "what to ask, and whom"], rows, numbers=[0]
    )


def _assumptions(_: Data) -> str:
    entries = [entry for name, entry in assumptions().items() if name != "limits"]
    rows = [[entry["what"], f"{entry['value']:,} {entry['unit']}", entry["why"]] for entry in entries]
    return _grid(["what", "value", "why"], rows)


def _measured(data: Data) -> str:
    rows = [
        [
            case.name,
            number(case.processor_ms / case.messages),
            f"{case.stored_bytes:,}",
            f"{case.write_units:,}" if case.store is Store.DYNAMODB else "",
            f"{case.line_bytes:,}",
        ]
        for case in data.cases()
    ]
    told = (
        "Times measured on {date:.10} at commit `{commit}`, Python {python}, {processor}; bytes on {bytes_date:.10}. "
        "Cold start (`python -m bench cold`): init {init_ms:.0f} ms, first request {first_request_ms:.1f} ms."
    ).format_map(data.recorded)
    header = ["message", "processor ms per message", "bytes written", "write units", "bytes of the request's log line"]
    return f"{told}\n\n{_grid(header, rows, numbers=range(1, 5))}"


def _prices(data: Data) -> str:
    rows = [
        [
            price["what"],
            _tiers(price),
            f"[{price['valid']}]({price['source']})",
            "; ".join(filter(None, (price["verified"], price["note"]))),
        ]
        for price in data.prices.values()
    ]
    return _grid(["what", "dollars", "valid on", "verified by"], rows)


def _tiers(price: Entry) -> str:
    tiers = [f"{tier['dollars']:.10f}".rstrip("0").rstrip(".") for tier in price["tiers"]]
    per = f"{price['per']:,} " if price["per"] > 1 else ""
    return f"{', then '.join(tiers)} per {per}{price['unit']}"


BLOCKS: Mapping[str, Callable[[Data], str]] = {
    "messages": lambda data: _markdown(by_message(data), "message"),
    "memory": lambda data: _markdown(by_memory(data), "memory"),
    "months": _months,
    "limits": _limits,
    "assumptions": _assumptions,
    "measured": _measured,
    "prices": _prices,
}


def _markdown(table: Table, first: str, last: tuple[str, Sequence[str]] | None = None) -> str:
    """Write a table of the bench, with a column of texts at its end if there is one."""
    names = table.columns
    rows = [[name, *map(_figure, row.values())] for name, row in table.rows.items()]
    if last:
        rows = [[*cells, text] for cells, text in zip(rows, last[1], strict=True)]
    return _grid([first, *names, *(last[:1] if last else ())], rows, numbers=range(1, len(names) + 1))


def _figure(value: float) -> str:
    return "" if not value else f"{value:,.0f}" if value == round(value) else number(value)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """Write a Markdown table; `numbers` are the columns that are aligned to the right."""
    right = set(numbers)
    ruler = ["---:" if column in right else "---" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ruler, *rows))
