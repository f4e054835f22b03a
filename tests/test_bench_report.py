"""Test tables, comparisons and options of the bench. `tests/e2e/test_bench.py` measures."""

import inspect
import json
from dataclasses import asdict, replace
from functools import partial

import pytest
from click.testing import CliRunner

from bench import batch, samples
from bench.__main__ import MEASUREMENTS, main
from bench.figures import Table, take_turns
from bench.packages import zipped_bytes
from bench.report import comparison, printed
from bench.samples import ACCEPTED
from destination.console import stdout
from handler.decode import MAX_BATCH_BYTES


def test_the_largest_batch_of_samples_nearly_reaches_the_limit():
    body = json.loads(samples.batch(ACCEPTED, batch.LARGEST_OF_SAMPLES).event)["body"]
    assert 0.9 < len(body.encode()) / MAX_BATCH_BYTES < 1


def test_size_of_a_package_is_the_size_of_its_zip_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("a" * 100_000)
    assert 100 < zipped_bytes(tmp_path) < 1000


@pytest.fixture
def table():
    rows = {"one": {"µs": 200.0, "/ one": 1.0}, "two": {"µs": 50.0}}
    return Table(name="warm", title="Title", rows=rows, notes=["A note."])


def shown(part):
    console = stdout()
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def test_a_table_shows_each_figure_and_its_notes(table):
    lines = shown(printed(table)).splitlines()
    assert lines[0] == "Title"
    assert [line.split() for line in lines[1:4]] == [["µs", "/", "one"], ["one", "200", "1.00"], ["two", "50.0"]]
    assert "A note." in lines


def test_the_ratios_of_two_runs_are_compared(table):
    old = Table(name="warm", title="Title", rows={"one": {"µs": 100.0, "/ one": 2.0}})
    text = shown(comparison(table, old))
    assert "-50 %" in text
    assert "+100 %" not in text  # absolute figures differ between machines


def test_figures_without_ratios_are_compared(table):
    rows = {name: {"µs": row["µs"]} for name, row in table.rows.items()}
    old = Table(name="warm", title="Title", rows={"one": {"µs": 100.0}})
    text = shown(comparison(replace(table, rows=rows), old))
    assert "+100 %" in text
    assert "new" in text


def test_a_saved_table_is_read_again(table):
    assert Table.from_json(json.loads(json.dumps(asdict(table)))) == table


def test_runs_take_turns_and_the_first_round_is_dropped():
    calls = []

    def run(name, number):
        calls.append((name, number))
        return number

    assert take_turns("test", {name: partial(run, name) for name in "ab"}, 2) == {"a": [1, 2], "b": [1, 2]}
    assert calls == [("b", 0), ("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 2)]


def run(*args):
    return CliRunner(catch_exceptions=False).invoke(main, args, prog_name="python -m bench")


@pytest.mark.parametrize("name", [*MEASUREMENTS, "all", "month"])
def test_commands_show_an_example(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"python -m bench {name}" in result.output
    assert f"Example:\n  python -m bench {name}" in inspect.cleandoc(main.commands[name].help).replace("\b\n", "")


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"warm": {}}', '{"warm": {"tables": [{"rows": 1}]}}'])
@pytest.mark.parametrize("option", ["--compare", "--json"])
def test_another_file_is_refused_before_anything_is_measured(content, option, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    result = run("cold", option, str(path))
    assert result.exit_code == 1
    assert "holds no figures" in result.output
    assert path.read_text() == content


def test_file_that_is_not_a_python_interpreter_is_refused(tmp_path):
    given = tmp_path / "given"
    given.touch()
    result = run("warm", "--python", str(given), "--json", str(tmp_path / "bench.json"))
    assert result.exit_code == 2
    assert "is not Python" in result.output
