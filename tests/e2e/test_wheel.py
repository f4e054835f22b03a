"""Test the wheel, in a folder that is not a checkout."""

import json
import os
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement

from destination.paths import ROOT

LOADED = """
import importlib.metadata, json, sys
import destination.command_line
owners = importlib.metadata.packages_distributions()
names = {name.partition(".")[0] for name in sys.modules}
print(json.dumps([destination.__file__, sorted({owner for name in names for owner in owners.get(name, ())})]))
"""
USED_IF_INSTALLED = {"certifi", "jsonpointer", "pip", "rfc3339-validator", "setuptools"}
"""Packages that other libraries import only if they are installed."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder with the installed wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # setuptools writes into the tree that it builds
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    for name in filter(None, files.split("\0")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", folder, source], check=True)
    [wheel] = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "packages", wheel], check=True)
    return folder / "packages"


@pytest.fixture
def run(installed, tmp_path):
    """Return a function that runs a program with the installed package, in an empty folder."""

    def run(*command):
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def destination(run, installed):
    """Return a function that runs a command."""
    return lambda *arguments: run(sys.executable, installed / "bin" / "destination", *arguments)


def test_commands_run_outside_a_checkout(destination):
    assert "certify" in destination("--help").stdout
    assert "rotate" in destination("keys", "--help").stdout
    assert json.loads(destination("ping", "track", "--print").stdout)["type"] == "track"
    assert "no faults" in destination("schemas", "check").stdout


def test_the_server_says_that_it_needs_a_checkout(destination):
    served = destination("serve")
    assert (served.returncode, served.stdout) == (1, "")
    assert served.stderr == (
        "Error: destination serve needs a checkout of the repository: run it there, with `make run`\n"
    )


def test_wheel_has_the_files_of_the_page(installed):
    for name in ("page", "samples.json"):
        source = ROOT / "destination" / "debugger" / name
        files = [source] if source.is_file() else [path for path in source.iterdir() if path.is_file()]
        for path in files:
            assert (installed / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_extra_declares_every_import_of_the_commands(run, installed):
    done = run(sys.executable, "-c", LOADED)
    file, loaded = json.loads(done.stdout)
    assert file.startswith(str(installed))
    assert set(map(normal, loaded)) - USED_IF_INSTALLED <= requirements("direct-destination", "cli")


def normal(name):
    return name.lower().replace("_", "-").replace(".", "-")


def requirements(name, extra=""):
    """Return a distribution and everything it requires, with one of its extras."""
    found, waiting = set(), [(name, extra)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for line in distribution(name).requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(requirement.name, wanted) for wanted in ("", *requirement.extras)]
    return {normal(name) for name, _ in found}
