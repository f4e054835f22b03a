"""The command line of the bench: `python -m bench`."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from bench import batch, cold, cost, cost_model, hostile, instructions, load, soak, warm
from bench.figures import NotRunError, Options, Table
from bench.machine import facts
from bench.report import comparison, picture
from destination.console import stdout
from destination.paths import ROOT

RESULTS = ROOT / "build" / "bench.json"


MONTH_HELP = """Compute what a month costs at a rate of messages, from what bench/recorded.json keeps.

\b
Example:
  python -m bench month --rate 100"""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A command: what it is called, what it tells about itself, and what it does.

    `measure` raises `NotRunError` where this machine lacks something. `flags` are options of its own command, with
    their help; `measure` takes each as a keyword.
    """

    name: str
    help: str
    measure: Callable[..., list[Table]]
    flags: Mapping[str, str] = field(default_factory=dict)


MEASUREMENTS = (
    Measurement(
        name="warm",
        help="""Measure the processor time of one request to a loaded function.

        The destination with both sinks, and what becomes of a message, beside boto3's put_item as it comes, and a
        function as the documentation of Powertools shows it. --python measures the packages, not the checkout.""",
        measure=warm.measure,
    ),
    Measurement(
        name="batch",
        help="""Measure messages in a batch against single ones: processor time each, and how many per second.

        Per second counts against a store that waits before it answers, as DynamoDB does.""",
        measure=batch.measure,
    ),
    Measurement(
        name="cold",
        help="""Measure what the first request to a new Lambda environment waits for, and the size of the packages.

        The built destination runs under Lambda's runtime emulator, beside a function that does nothing but put.""",
        measure=cold.measure,
    ),
    Measurement(
        name="load",
        help="""Measure requests per second, and how long they take, of the local server and an emulated function.""",
        measure=load.measure,
    ),
    Measurement(
        name="soak",
        help="""Send 20,000 messages to the local server in portions: requests per second and memory after each.

        The consumer and the eraser are on. An answer of 5xx or a lost message is an error.""",
        measure=soak.measure,
    ),
    Measurement(
        name="instructions",
        help="""Count the machine instructions of one warm request, by perf or valgrind.""",
        measure=instructions.measure,
    ),
    Measurement(
        name="hostile",
        help="""Measure bodies that are made to cost much processor time, against plain JSON of the same size.

        Before the API key is known, where anybody can send them, and after that.""",
        measure=hostile.measure,
    ),
    Measurement(
        name="cost",
        help="""Compute what messages cost in dollars, from what is measured here and the prices in bench/prices.json.

        By store, size, memory and rate, with the limits of AWS that a rate meets.""",
        measure=cost.measure,
        flags={
            "write": "Save what was measured in bench/recorded.json, update the tables of docs/explanation/scale.md.",
            "recorded": "Measure nothing, and read bench/recorded.json.",
        },
    ),
)


def main_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that all have."""

    @click.option("--quick", is_flag=True, help="Measure less often: for a first look.")
    @click.option(
        "--json",
        "results",
        type=click.Path(dir_okay=False, path_type=Path),
        default=RESULTS,
        help="Where the figures go, by default build/bench.json; those of other measurements in it stay.",
    )
    @click.option(
        "--compare",
        "old",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Show the ratios beside those of an older file.",
    )
    @click.option(
        "--python",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A Python of the function's runtime; by default one on the path, or of pyenv.",
    )
    @click.option(
        "--artifact",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="A built function, such as .aws-sam/build/DestinationFunction; by default it is built from the checkout.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,  # noqa: ANN401 -- click's
        quick: bool,
        results: Path,
        old: Path | None,
        python: Path | None,
        artifact: Path | None,
        **options: Any,  # noqa: ANN401 -- click's
    ) -> None:
        measuring = Options(quick=quick, python=python, artifact=artifact)
        before = _read(old) if old else {}
        _read(results)  # so that a file that is something else is not overwritten after minutes of work
        command(*args, measuring=measuring, results=results, before=before, **options)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Measure what the function costs, side by side with others on this machine.

    \b
    Example:
      python -m bench all
    """


def _command(
    measurements: tuple[Measurement, ...], name: str, help_text: str, flags: Mapping[str, str] | None = None
) -> click.Command:
    def run(*, measuring: Options, results: Path, before: Mapping[str, Any], **flags: bool) -> None:
        for measurement in measurements:
            _measure(measurement, measuring, results, before, flags)

    described = f"{inspect.cleandoc(help_text)}\n\n\b\nExample:\n  python -m bench {name} --quick"
    command = main.command(name, help=described)(main_options(run))
    command.params.extend(click.Option([f"--{flag}"], is_flag=True, help=text) for flag, text in (flags or {}).items())
    return command


for each in MEASUREMENTS:
    _command((each,), each.name, each.help, each.flags)
_command(MEASUREMENTS, "all", "Measure all of it, one after the other.")


@main.command("month", help=MONTH_HELP)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=10, show_default=True)
def _month(*, rate: float) -> None:
    data = cost_model.Data.load()
    click.echo(
        f"A month at {rate:,.10g} messages per second, of 1 KB, in dollars of us-east-1 (docs/explanation/scale.md):"
    )
    for store in cost_model.Store:
        click.echo(f"  {store:<14} {cost_model.month_dollars(data, data.case(store), rate):>12,.2f}")
    click.echo(f"  {cost_model.metrics_dollars(data):,.2f} of that is for metrics, whatever the rate")


def _measure(
    measurement: Measurement, options: Options, results: Path, before: Mapping[str, Any], flags: Mapping[str, bool]
) -> None:
    """Measure, put it into a file, and show it."""
    console = stdout()
    told = facts()
    try:
        tables = measurement.measure(options, **flags)
    except NotRunError as error:
        console.print(Text(f"{measurement.name}: not run: {error}", "yellow"))
        console.print()
        return
    content = _read(results)
    content[measurement.name] = {
        **told,
        "quick": options.quick,
        "tables": [asdict(table) for table in tables],
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    for table in tables:
        console.print(picture(table))
    old = {table["name"]: Table.from_json(table) for table in before.get(measurement.name, {}).get("tables", [])}
    for table in tables:
        if table.name in old:
            console.print(comparison(table, old[table.name]))


def _read(path: Path) -> dict[str, Any]:
    """Read a file of figures, nothing where there is none; raises `click.ClickException` for another file."""
    try:
        content = json.loads(path.read_bytes())
        for part in content.values():
            for table in part["tables"]:
                Table.from_json(table)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.ClickException(f"{path} holds no figures of this bench: {error!r}") from error
    found: dict[str, Any] = content
    return found


if __name__ == "__main__":
    main(prog_name="python -m bench")
