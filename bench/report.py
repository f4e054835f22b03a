"""How tables are printed and compared with an older run, and the facts that are saved with them."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from bench.figures import RATIO, Table
from destination.paths import ROOT

PACKAGES = ("boto3", "botocore", "aws-lambda-powertools", "jsonschema", "urllib3")


def printed(table: Table) -> RenderableType:
    """Lay out a table for the terminal."""
    rows = RichTable("", box=None, padding=(0, 2, 0, 0))
    for column in table.columns:
        rows.add_column(column, justify="right", no_wrap=True)
    for name, row in table.rows.items():
        rows.add_row(Text(name), *(number(row.get(column)) for column in table.columns))
    return Group(Text(table.title, "bold"), rows, *(Text(note, "dim") for note in table.notes), "")


def comparison(table: Table, old: Table) -> RenderableType:
    """Compare the ratios of two runs, or all figures if the table has no ratios."""
    columns = [column for column in table.columns if RATIO in column] or table.columns
    rows = RichTable("", "", box=None, padding=(0, 2, 0, 0))
    for name in ("before", "now", "change"):
        rows.add_column(name, justify="right", no_wrap=True)
    for name, row in table.rows.items():
        for column in (column for column in columns if column in row):
            past, now = old.rows.get(name, {}).get(column), row[column]
            rows.add_row(Text(name), column, number(past), number(now), _change(past, now))
    return Group(Text(f"{table.title}: compared", "bold"), rows, "")


def number(value: float | None) -> str:
    """Write a figure with three significant digits."""
    if value is None:
        return ""
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"  # noqa: PLR2004 -- digits


def _change(past: float | None, value: float) -> Text:
    if not past:
        return Text("new" if past is None else "")
    percent = 100 * (value / past - 1)
    return Text(f"{percent:+.0f} %", "" if abs(percent) < 5 else "red" if percent > 0 else "green")  # noqa: PLR2004 -- noise


def facts() -> dict[str, Any]:
    """Return the date, the commit, the machine, and the versions that matter most."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    describe = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]  # a + if files differ from the commit
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 -- constant
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or None,
        "processor": model[1] if model else platform.machine(),
        "load": round(os.getloadavg()[0], 1),  # figures of a busy machine are doubtful
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
