"""Test that the product's own tools notice broken promises: faults are built into a copy of the product, one at a time.

The faults are data: `tests/cases/sabotage.toml`. A copy serves all faults of the same server. By default some faults
are tried, and others for each commit. `make sabotage` tries all.
"""

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from contextlib import ExitStack, contextmanager

import pytest
from local_server import serving, wait_until

from destination.paths import ROOT

DATA = tomllib.loads((ROOT / "tests" / "cases" / "sabotage.toml").read_text())
FAULTS = {fault["name"]: {"server": "table", "slow": False, **fault} for fault in DATA["fault"]}
LINES = [
    {"type": "track", "event": "Lamp Lit", "userId": f"user-{number}", "timestamp": "2026-02-01T00:00:00Z"}
    for number in range(20)
]
HISTORY, SCHEMAS = "history.jsonl.gz", "schemas-that-refuse-nothing"
SAMPLE = 5
GIT, PS = (shutil.which(name) or name for name in ("git", "ps"))
MAX_WAIT_SECONDS = 600
NO_AWS = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def commit():
    """Return the commit, which selects the faults to try, or "" without version control."""
    asked = subprocess.run([GIT, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return asked.stdout.strip()


def chosen():
    """Return the faults to try: all, the faults with a text in their name, or some quick ones of one server."""
    wanted = os.environ.get("SABOTAGE", "")
    if wanted:
        names = [name for name in FAULTS if wanted == "all" or wanted in name]
        if not names:
            pytest.exit(f"no fault has {wanted!r} in its name: tests/cases/sabotage.toml lists them", returncode=2)
    else:
        quick = [name for name, fault in FAULTS.items() if fault["server"] == "table" and not fault["slow"]]
        names = random.Random(commit()).sample(quick, SAMPLE)  # noqa: S311 -- the same ones for a commit
    return sorted(names, key=lambda name: FAULTS[name]["server"])


def copy_product(folder):
    """Copy the files under version control, as they are in the working tree."""
    listed = subprocess.run([GIT, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    (folder / HISTORY).write_bytes(gzip.compress("\n".join(map(json.dumps, LINES)).encode()))
    shutil.copytree(folder / "schemas", folder / SCHEMAS)
    for path in (folder / SCHEMAS).glob("[!c]*.json"):
        path.write_text("{}")
    return folder


class Copy:
    """A copy of the product that a server runs from, and its tools."""

    def __init__(self, server):
        self.server = server
        self._folder = server.checkout
        self._reloads = 0

    def run(self, *command):
        """Run a tool of the copy on its server."""
        words = [{"HISTORY": HISTORY, "SCHEMAS": SCHEMAS}.get(word, word) for word in command]
        return subprocess.run(
            [sys.executable, "-m", "destination", *words, "--url", self.server.url],
            cwd=self._folder,
            env={**NO_AWS, "COLUMNS": "240"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MAX_WAIT_SECONDS,
            check=False,
        )

    @contextmanager
    def sabotaged(self, fault):
        """Build a fault into the copy, and restore the original at the end."""
        path = self._folder / fault["file"]
        healthy = path.read_text()
        path.write_text(healthy.replace(fault["old"], fault["new"]))
        try:
            self._reload()
            yield
        finally:
            path.write_text(healthy)

    def _reload(self):
        """Make the server restart its functions: an edit of the schemas does it, and an edit of the consumer."""
        before = self.server.output
        self._reloads += 1
        for name, comment in (("schemas/common.json", "\n"), ("consumer/__init__.py", f"# {self._reloads}\n")):
            with (self._folder / name).open("a") as file:
                file.write(comment)
        for words in ("schemas/ changed", "consumer/ changed"):
            wait_until(lambda words=words: self.server.output.count(words) > before.count(words))

    def functions(self):
        """Return the ids of the processes of the functions."""
        listed = subprocess.run([PS, "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True)
        lines = [line.split(None, 2) for line in listed.stdout.splitlines()]
        return [
            int(pid)
            for pid, parent, words in lines
            if int(parent) == self.server.process.pid and "function_process" in words
        ]


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """Return a function that gives the copy of a server.

    There is one copy at a time, so the faults are sorted by server.
    """
    with ExitStack() as running:
        current = {}

        def copy(name):
            if name not in current:
                running.close()
                current.clear()
                folder = copy_product(tmp_path_factory.mktemp(name))
                options = ("--processes", "2", *DATA["servers"].get(name, name.split()))
                current[name] = Copy(running.enter_context(serving(folder, *options)))
            return current[name]

        yield copy


@pytest.mark.parametrize("name", FAULTS)
def test_fault_applies_to_the_text(name):
    fault = FAULTS[name]
    times = (ROOT / fault["file"]).read_text().count(fault["old"])
    assert times == 1, f"{fault['file']} has the old text of this fault {times} times: adapt tests/cases/sabotage.toml"


@pytest.mark.parametrize("name", chosen(), ids=lambda name: f"{FAULTS[name]['server']}: {name}")
def test_fault_is_noticed(name, copies):
    fault = FAULTS[name]
    copy = copies(fault["server"])
    with copy.sabotaged(fault):
        for message in fault.get("sends", ()):
            copy.server.post(message)
        ended = copy.run(*fault["tool"])
    assert ended.returncode == 1, f"{fault['tool'][0]} did not notice that {name}:\n{ended.stdout}"
    unsaid = [text for text in fault["says"] if not re.search(text, ended.stdout)]
    assert not unsaid, f"{fault['tool'][0]} does not say {unsaid}:\n{ended.stdout}"


@contextmanager
def disturbed(copy):
    """Kill a function's process now and then, and pause another one for a moment."""
    over = threading.Event()
    chance = random.Random(17)  # noqa: S311 -- repeatable

    def disturb():
        while not over.wait(2):
            if functions := copy.functions():
                os.kill(chance.choice(functions), signal.SIGKILL)
            if functions := copy.functions():
                paused = chance.choice(functions)
                os.kill(paused, signal.SIGSTOP)
                over.wait(0.5)
                os.kill(paused, signal.SIGCONT)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


HEALTHY = [
    ("simulate", "--messages", "150", "--duplicates", "0.2", "--invalid", "0.1", "--time-scale", "3600"),
    ("simulate", "--messages", "150", "--route", "batch", "--time-scale", "3600"),
    ("certify",),
]


@pytest.mark.parametrize("tool", HEALTHY if os.environ.get("SABOTAGE") == "all" else HEALTHY[:1], ids=" ".join)
def test_healthy_copy_under_kills_pauses_and_faults_passes(tool, copies):
    copy = copies("--faults 0.08 --faults-seed 7")
    with disturbed(copy):
        ended = copy.run(*tool)
    assert ended.returncode == 0, ended.stdout
