"""The command line of the bench: `python -m bench`. Each measurement is a module, and its docstring is its help."""

import functools
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.text import Text

from bench import batch, cold, cost, cost_model, hostile, instructions, load, soak, warm
from bench.figures import NotRunError, Options, Table
from bench.report import comparison, facts, printed
from destination.console import stdout
from destination.paths import ROOT

RESULTS = ROOT / "build" / "bench.json"
MEASUREMENTS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (warm, batch, cold, load, soak, instructions, hostile, cost)
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Measure what the function costs, side by side with others on this machine.

    \b
    Example:
      python -m bench all
    """


def _measuring(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all measurements."""

    @click.option("--quick", is_flag=True, help="Measure less often, for a first look.")
    @click.option(
        "--json",
        "results",
        type=click.Path(dir_okay=False, path_type=Path),
        default=RESULTS,
        help="The file to save the figures in, by default build/bench.json. Figures of other measurements stay.",
    )
    @click.option(
        "--compare",
        "old",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Print the ratios next to the ratios of an older file.",
    )
    @click.option(
        "--python",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Measure the packages with this Python, which has the version of the function's runtime.",
    )
    @functools.wraps(command)
    def wrapped(*, quick: bool, python: Path | None, results: Path, old: Path | None, **flags: bool) -> None:
        before = _read(old) if old else {}
        _read(results)  # another file must not be overwritten after minutes of work
        command(Options(quick=quick, python=python), results, before, **flags)

    return wrapped


def _add_command(name: str, *modules: ModuleType) -> click.Command:
    def run(options: Options, results: Path, before: dict[str, Any], **flags: bool) -> None:
        for module in modules:
            _measure(module, options, results, before, flags)

    help_text = inspect.getdoc(modules[0]) if len(modules) == 1 else "Measure everything, one after another."
    described = f"{help_text}\n\n\b\nExample:\n  python -m bench {name} --quick"
    return main.command(name, help=described)(_measuring(run))


for _name, _module in MEASUREMENTS.items():
    _add_command(_name, _module)
_add_command("all", *MEASUREMENTS.values())
main.commands["cost"].params += [
    click.Option(["--recorded"], is_flag=True, help="Measure nothing, and read bench/recorded.json."),
    click.Option(["--write"], is_flag=True, help="Write bench/recorded.json and docs/explanation/scale.md."),
]


@main.command("month")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=10, show_default=True)
@click.option(
    "--month",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Which month, from the first message. Without EventRetentionDays a table keeps all earlier months.",
)
def _month(*, rate: float, month: int) -> None:
    """Compute the price of a month at a rate of messages per second, from bench/recorded.json.

    \b
    Example:
      python -m bench month --rate 100 --month 12
    """
    data = cost_model.Data.load()
    click.echo(f"Month {month} at {rate:,.10g} messages/s of 1 KB, in dollars (docs/explanation/scale.md):")
    for store in cost_model.Store:
        click.echo(f"  {store:<14} {cost_model.month_dollars(data, data.case(store), rate, month=month):>12,.2f}")
    click.echo(f"  {cost_model.metrics_dollars(data):,.2f} of that is for metrics, whatever the rate")


def _measure(
    module: ModuleType, options: Options, results: Path, before: dict[str, Any], flags: dict[str, bool]
) -> None:
    """Measure, save and print."""
    name, console = module.__name__.rpartition(".")[2], stdout()
    told = facts()
    try:
        tables: list[Table] = module.measure(options, **flags)
    except NotRunError as error:
        console.print(Text(f"{name}: not run: {error}", "yellow"))
        return
    content = {**_read(results), name: {**told, "quick": options.quick, "tables": list(map(asdict, tables))}}
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    old = {table["name"]: Table.from_json(table) for table in before.get(name, {}).get("tables", [])}
    for table in tables:
        console.print(printed(table))
        if table.name in old:
            console.print(comparison(table, old[table.name]))


def _read(path: Path) -> dict[str, Any]:
    """Read a file of figures, or nothing if there is none; raises `click.ClickException` for another file."""
    if not path.exists():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        for part in content.values():
            for table in part["tables"]:
                Table.from_json(table)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.ClickException(
            f"{path} holds no figures of this bench: {error!r}. Delete it, or name another file by --json"
        ) from error
    return content


if __name__ == "__main__":
    main(prog_name="python -m bench")
