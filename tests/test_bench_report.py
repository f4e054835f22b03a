"""What the bench shows, and its options; `tests/e2e/test_bench.py` measures."""

import inspect
import json
import sys

import pytest
from click.testing import CliRunner

from bench import batch, samples
from bench.__main__ import MEASUREMENTS, main
from bench.figures import Row, Table
from bench.packages import zipped_bytes
from bench.report import bar, comparison, picture
from bench.samples import ACCEPTED
from destination.console import stdout
from handler.decode import MAX_BATCH_BYTES


def test_the_largest_batch_of_samples_is_nearly_as_large_as_one_may_be():
    body = json.loads(samples.batch(ACCEPTED, batch.LARGEST_OF_SAMPLES).event)["body"]
    assert 0.9 < len(body.encode()) / MAX_BATCH_BYTES < 1


def test_a_package_is_counted_as_it_is_uploaded(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("a" * 100_000)
    assert 100 < zipped_bytes(tmp_path) < 1000


@pytest.fixture
def table():
    rows = (Row(name="one", figures={"µs": 200.0}, ratios={"/ one": 1.0}), Row(name="two", figures={"µs": 50.0}))
    return Table(name="warm", title="Title", rows=rows, bar="µs", notes=("A note.",))


def printed(part):
    console = stdout()
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def test_a_table_is_drawn_with_bars(table):
    text = printed(picture(table))
    assert "█" * 40 in text
    assert "A note." in text
    assert [bar(0), bar(1 / 320), bar(1)] == ["", "▏", "█" * 40]


def test_two_runs_are_set_side_by_side(table):
    old = Table(name="warm", title="Title", rows=(Row(name="one", figures={}, ratios={"/ one": 2.0}),), bar="µs")
    text = printed(comparison(table, old))
    assert "-50 %" in text
    assert "new" in text


def run(*args):
    return CliRunner(catch_exceptions=False).invoke(main, args, prog_name="python -m bench")


@pytest.mark.parametrize("name", [*(measurement.name for measurement in MEASUREMENTS), "all"])
def test_every_command_shows_an_example(name):
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"python -m bench {name}" in result.output
    assert f"Example:\n  python -m bench {name}" in inspect.cleandoc(main.commands[name].help).replace("\b\n", "")


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"warm": {}}', '{"warm": {"tables": [{"rows": 1}]}}'])
@pytest.mark.parametrize("option", ["--compare", "--json"])
def test_a_file_of_something_else_is_refused_before_anything_is_measured(content, option, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(content)
    result = run("cold", option, str(path))
    assert result.exit_code == 1
    assert "holds no figures" in result.output
    assert path.read_text() == content


@pytest.mark.parametrize("option", ["--python", "--artifact"])
def test_what_is_no_python_or_no_package_is_refused(option, tmp_path):
    given = tmp_path / "given"
    given.touch() if option == "--python" else given.mkdir()
    result = run("warm", "--python", sys.executable, option, str(given), "--json", str(tmp_path / "bench.json"))
    assert result.exit_code in (1, 2)
    assert str(given) in result.output or "is not Python" in result.output
