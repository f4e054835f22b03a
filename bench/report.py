"""How figures are shown: tables with a bar for each row, and a comparison with an older run."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from bench.figures import Row, Table

BAR_COLUMNS = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"


def picture(table: Table) -> RenderableType:
    """Draw a table: figures, ratios, and a bar of one of them."""
    figures, ratios = _columns(table.rows)
    rows = RichTable("", box=None, padding=(0, 2, 0, 0))
    for name in (*figures, *ratios):
        rows.add_column(name, justify="right", no_wrap=True)
    rows.add_column("", no_wrap=True)
    largest = max((_value(row, table.bar) or 0 for row in table.rows), default=0)
    for row in table.rows:
        drawn = bar((_value(row, table.bar) or 0) / largest if largest else 0)
        numbers = [number(row.figures.get(name)) for name in figures]
        quotients = [number(row.ratios.get(name)) for name in ratios]
        rows.add_row(Text(row.name), *numbers, *quotients, Text(drawn, "cyan"))
    return Group(Text(table.title, "bold"), rows, *(Text(note, "dim") for note in table.notes), "")


def comparison(table: Table, old: Table) -> RenderableType:
    """Set the ratios of two runs side by side, and figures where there are no ratios."""
    before = {row.name: row for row in old.rows}
    rows = RichTable(
        "", "", box=None, padding=(0, 2, 0, 0), title=table.title, title_justify="left", title_style="bold"
    )
    for name in ("before", "now", "change"):
        rows.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        for name, value in (row.ratios or row.figures).items():
            past = _value(before[row.name], name) if row.name in before else None
            rows.add_row(Text(row.name), name, number(past), number(value), _change(past, value))
    return Group(Text(f"{table.title}: compared", "bold"), rows, "")


def bar(share: float) -> str:
    """Draw a share of the largest value, to an eighth of a column."""
    eighths = round(max(share, 0) * BAR_COLUMNS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def number(value: float | None) -> str:
    """Write a figure with three digits that count."""
    if value is None:
        return ""
    if abs(value) >= 100:  # noqa: PLR2004 -- three digits before the point
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004 -- two digits before the point


def _change(past: float | None, value: float) -> Text:
    if not past:
        return Text("new" if past is None else "")
    percent = 100 * (value / past - 1)
    return Text(f"{percent:+.0f} %", "" if abs(percent) < 5 else "red" if percent > 0 else "green")  # noqa: PLR2004 -- noise


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the names of all figures and of all ratios, in the order in which they come first."""
    return (
        list(dict.fromkeys(name for row in rows for name in row.figures)),
        list(dict.fromkeys(name for row in rows for name in row.ratios)),
    )


def _value(row: Row, name: str) -> float | None:
    return row.figures.get(name, row.ratios.get(name))
