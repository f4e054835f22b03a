"""Test `make mutants`: it names the faults that no test notices."""

import json
import subprocess
import sys

from destination.paths import ROOT

LAMP = """
def lit(hours):
    while hours > 24:
        hours -= 24
    return hours >= 6
"""
TEST = """
from lamp import lit

def test_by_day():
    assert lit(7)

def test_next_night():
    assert not lit(25)
"""
RUN = """
import json, sys
from pathlib import Path
from tests.mutants.__main__ import Laboratory
from tests.mutants import __main__
from tests.mutants.operators import mutants_of

__main__.SPARE_SECONDS = 5
root = Path(sys.argv[1])
mutants = mutants_of("lamp.py", (root / "lamp.py").read_text())
print(json.dumps([one.to_json() for one in Laboratory(root, jobs=2).try_out(mutants, ["test_lamp.py"])]))
"""


def run(folder, test):
    (folder / "lamp.py").write_text(LAMP)
    (folder / "test_lamp.py").write_text(test)
    return subprocess.run([sys.executable, "-c", RUN, folder], cwd=ROOT, capture_output=True, text=True, check=False)


def test_faults_that_no_test_notices_are_named(tmp_path):
    verdicts = {one["new"]: one for one in json.loads(run(tmp_path, TEST).stdout)}
    assert {new for new, one in verdicts.items() if not one["noticed"]} == {
        "while hours >= 24:",
        "hours -= 25",
        "return hours > 6",
        "return hours >= 7",
    }
    assert verdicts["return None"]["by"] == "test_lamp.py::test_by_day"
    assert verdicts["while False:"]["by"] == "test_lamp.py::test_next_night"
    assert verdicts["pass"]["by"].startswith("(time limit of ")
    assert (tmp_path / "lamp.py").read_text() == LAMP


def test_tests_that_fail_without_a_fault_are_named(tmp_path):
    ended = run(tmp_path, "def test_nothing():\n    assert not 1\n")
    assert ended.returncode == 1
    assert "The tests fail as they are, in test_lamp.py::test_nothing" in ended.stderr
