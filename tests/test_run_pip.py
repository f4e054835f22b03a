"""Test how the Makefile runs pip: only the user's package indexes count, and no other setting."""

import ast
import os
import subprocess
import sys

import pytest

from destination.paths import ROOT

FILE = """
[global]
user = true
quiet = 2
target = /elsewhere
prefix = /elsewhere
require-hashes = true
no-binary = :all:
index-url = https://global.example/simple
trusted-host = global.example
extra-index-url =
    https://one.example/%20
    https://two.example
[install]
index-url = https://install.example/simple
user = true
[download]
index-url = https://download.example/simple
"""
SPOILING = {
    **dict.fromkeys(["PIP_USER", "PIP_REQUIRE_VIRTUALENV", "PIP_REQUIRE_HASHES", "PIP_DRY_RUN", "PIP_ISOLATED"], "1"),
    **dict.fromkeys(["PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PYTHONPATH", "PYTHONHOME"], "/elsewhere"),
    "PIP_PLATFORM": "win32",
    "PIP_QUIET": "3",
    "PIP_NO_BINARY": ":all:",
    "PYTHONSAFEPATH": "1",
}


@pytest.fixture
def settings(tmp_path):
    """Return a function that returns the settings of a pip, run with a configuration file and variables."""
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    file = tmp_path / ".config" / "pip" / "pip.conf"
    file.write_text(FILE)

    def settings(**variables):
        others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        run = subprocess.run(
            [sys.executable, "-I", str(ROOT / ".ci" / "run_pip.py"), "config", "list"],
            env={**others, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / ".config"), **variables},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        pairs = [line.partition("=") for line in run.stdout.splitlines()]
        return {name.removeprefix(":env:."): ast.literal_eval(value) for name, _, value in pairs}

    settings.file = file
    return settings


def test_only_the_indexes_of_a_file_count(settings):
    told = settings()
    told.pop("cert", None)  # of this machine, if it has one
    assert told == {
        "config-file": os.devnull,
        "index-url": "https://install.example/simple",
        "trusted-host": "global.example",
        "extra-index-url": "\nhttps://one.example/%20\nhttps://two.example",
    }


def test_variables_override_files_and_count_only_for_indexes(settings):
    given = {"PIP_INDEX_URL": "https://variable.example", "PIP_CERT": "/authority.pem", "PIP_NO_INDEX": "1"}
    told = settings(**given, **SPOILING)
    assert told["index-url"] == "https://variable.example"
    assert (told["cert"], told["no-index"]) == ("/authority.pem", "1")
    assert told.keys() == {"config-file", "index-url", "cert", "no-index", "trusted-host", "extra-index-url"}


def test_a_file_that_a_variable_names_counts(settings, tmp_path):
    (tmp_path / "other.conf").write_text("[global]\nuser = true\nproxy = http://proxy.example\n")
    assert settings(PIP_CONFIG_FILE=str(tmp_path / "other.conf"))["proxy"] == "http://proxy.example"


def test_variable_can_disable_all_files(settings):
    assert settings(PIP_CONFIG_FILE=os.devnull) == {"config-file": os.devnull}


def test_pip_reports_an_unreadable_file(settings):
    settings.file.write_text("[global\n")
    with pytest.raises(subprocess.CalledProcessError) as failed:
        settings()
    assert "Configuration file could not be loaded" in failed.value.stderr
    assert "Traceback" not in failed.value.stderr


def test_makefile_uses_only_this_pip():
    for file in ("Makefile", ".ci/run"):
        assert "-m pip" not in (ROOT / file).read_text()
