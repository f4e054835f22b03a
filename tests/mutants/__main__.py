"""Build small faults into handler/ and consumer/, one at a time, and run the tests that should notice each.

A fault that no test notices is a survivor: a test is missing, or the fault changes nothing that anybody could see.
Equivalent faults of the second kind are listed in equivalent.toml, with the reason. Each fault is tried in a separate
process, which imports the changed text instead of the file. No file changes, so several runs may share a checkout.
Tests that start processes do not see the fault.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import resource
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from tests.mutants.operators import Mutant, mutants_of

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
PACKAGES = ("handler", "consumer")

TESTS = {
    "handler/app": "app destination erased write",
    "handler/authenticate": "authenticate destination library_routes keys",
    "handler/canonicalise": "fixed_forms canonicalise timestamps library_routes record hostile",
    "handler/clients": "clients transport app",
    "handler/compile": "compile validate",
    "handler/decode": "decode split json library_routes",
    "handler/destination": "destination library_routes store_faults reject erased write",
    "handler/diagnose": "validate compile",
    "handler/erased": "fixed_forms erased health library_routes store_faults",
    "handler/errors": "respond destination authenticate library_routes reject docs",
    "handler/explain": "validate cli_schemas",
    "handler/judge": "destination library_routes erased validate cli_rejects",
    "handler/items": "fixed_forms write stored contacts",
    "handler/keys": "fixed_forms keys health key_races authenticate destination store_faults",
    "handler/observe": "observe destination library_routes watched",
    "handler/parallel": "parallel write erased",
    "handler/patterns": "patterns backtracking compile",
    "handler/record": "fixed_forms record write reject",
    "handler/reject": "fixed_forms reject health library_routes store_faults",
    "handler/request": "request destination library_routes",
    "handler/respond": "respond destination library_routes",
    "handler/routes": "request destination library_routes reject",
    "handler/settings": "settings clients app destination template",
    "handler/spec": "canonicalise validate schemas request library_routes record",
    "handler/split": "split library_routes",
    "handler/timestamps": "timestamps canonicalise",
    "handler/validate": "validate compile schemas destination",
    "handler/sinks/__init__": "app settings sinks write",
    "handler/sinks/dynamodb": "fixed_forms sinks write health store_faults library_routes destination",
    "handler/sinks/sqs": "fixed_forms sinks write health store_faults library_routes destination",
    "consumer/runtime/batch": "consumers eraser",
    "consumer/runtime/clients": "consumers erase eraser strict_aws stack",
    "consumer/contacts/table": "fixed_forms contact_table expected_contacts events",
    "consumer/contacts/contact": "fixed_forms contacts contact_table expected_contacts",
    "consumer/erasure/subject": "fixed_forms erase eraser",
    "consumer/errors": "consumers contact_table",
    "consumer/eraser": "eraser events",
    "consumer/erasure/table": "fixed_forms erase eraser erased cli_erasures",
    "consumer/runtime/forward": "consumers eraser",
    "consumer/handle": "contact_table consumers",
    "consumer/queue": "consumers",
    "consumer/runtime/stored": "stored consumers",
    "consumer/stream": "consumers",
}
"""Module -> the modules of tests that should notice its faults, `tests/test_<name>.py`.

By default it is the module's own name. The tests of the limits are for all modules.
"""

LOADED_BEFORE = (
    "aws_lambda_powertools.metrics",
    "aws_lambda_powertools.utilities.batch",
    "boto3",
    "click",
    "fastjsonschema",
    "hypothesis",
    "jsonschema",
    "moto.cloudformation",
    "moto.dynamodb",
    "moto.sqs",
    "rich.console",
    "samtranslator.translator.transform",
    "starlette.applications",
    "uvicorn",
    "yaml",
)
"""Modules that tests import and no fault changes. They are loaded once, before the processes of the faults begin."""

SPARE_SECONDS = 30
SLOWER = 4
"""A fault may slow its tests down by this factor. A larger factor counts as noticed: the tests do not end."""
MAX_MEMORY_BYTES = 4 << 30
"""Memory limit of one process, because a fault may let a loop collect data without end."""
FAILED = pytest.ExitCode.TESTS_FAILED


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on a mutant. `by` is the test that failed first, or the other reason why the tests ended."""

    mutant: Mutant
    is_noticed: bool
    by: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        parts = ("path", "line", "kind", "old", "new")
        return {
            **{name: getattr(self.mutant, name) for name in parts},
            "noticed": self.is_noticed,
            "by": self.by,
            "seconds": round(self.seconds, 1),
        }


@dataclass
class Experience:
    """Results of earlier runs of some tests: the time of each, and which tests noticed faults of a module."""

    seconds: dict[str, float] = field(default_factory=dict)
    noticed: Counter[str] = field(default_factory=Counter)

    def order(self, items: list[pytest.Item]) -> None:
        """Sort tests: first those that noticed the most faults, then the quick ones."""
        items.sort(key=lambda item: (-self.noticed[item.nodeid], self.seconds.get(item.nodeid, 0)))


# In the process of a mutant


class Changed(SourceFileLoader):
    """Loads a module from a changed text in place of its file."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 -- importlib calls it so
        """Compile the changed text."""
        return compile(self._text, self.path, "exec", dont_inherit=True)


class ChangedModules:
    """Finds the one module that is changed."""

    def __init__(self, mutant: Mutant, root: Path) -> None:
        self._name = mutant.path.removesuffix(".py").replace("/", ".")
        self._loader = Changed(self._name, str(root / mutant.path), mutant.source)

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Return the loader of the changed module, or None for other modules."""
        return spec_from_file_location(name, self._loader.path, loader=self._loader) if name == self._name else None


class Plugin:
    """Runs tests in the order of earlier results, and reports on them."""

    def __init__(self, experience: Experience) -> None:
        self._experience = experience
        self.failed = ""
        self.seconds: Counter[str] = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Order the tests."""
        self._experience.order(items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module of tests that can't be imported."""
        if report.failed:
            self.failed = self.failed or f"{report.nodeid} (import)"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long a test took, and whether it failed."""
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid


def run_tests(mutant: Mutant | None, tests: Sequence[str], experience: Experience, root: Path, out: Connection) -> None:
    """Run tests with or without a mutant, up to the first failure, and send the results."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    os.chdir(root)
    sys.dont_write_bytecode = True
    if mutant is not None:
        sys.meta_path.insert(0, ChangedModules(mutant, root))
    plugin = Plugin(experience)
    quiet = ("-W", "ignore::pytest.PytestAssertRewriteWarning")  # because the module was loaded before
    options = ["-q", "-x", *quiet, "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--rootdir", str(root)]
    code = pytest.main([*options, *tests], plugins=[plugin])
    out.send((int(code), plugin.failed, dict(plugin.seconds)))
    out.close()
    os._exit(0)


# In the process that starts the others


@dataclass(frozen=True, kw_only=True)
class Running:
    """The process of a mutant, and the time when it has to end."""

    mutant: Mutant | None
    process: Any
    results: Connection
    began: float
    ends: float


class Laboratory:
    """Tries mutants of the modules below a root, `jobs` at a time."""

    def __init__(self, root: Path, *, jobs: int) -> None:
        self._root = root
        self._jobs = jobs
        self._processes = multiprocessing.get_context("fork")

    def try_out(self, mutants: Sequence[Mutant], tests: Sequence[str]) -> Iterator[Verdict]:
        """Yield the verdicts on mutants of one module. Raises `SystemExit` if the tests fail without a mutant."""
        experience = Experience()
        (code, failed, seconds), took = self._wait_for(self._start(None, tests, experience, limit=3600))
        if code:
            raise SystemExit(f"The tests fail as they are, in {failed or tests}: run them with pytest.")
        experience.seconds = seconds
        limit = took * SLOWER + SPARE_SECONDS
        waiting, running = list(mutants), list[Running]()
        while waiting or running:
            while waiting and len(running) < self._jobs:
                running.append(self._start(waiting.pop(0), tests, experience, limit=limit))
            first_end = min(one.ends for one in running)
            wait([one.results for one in running], timeout=max(0.0, first_end - time.monotonic()))
            for one in [one for one in running if one.results.poll() or time.monotonic() > one.ends]:
                running.remove(one)
                yield self._judge(one, experience)

    def _judge(self, one: Running, experience: Experience) -> Verdict:
        (code, failed, _), took = self._wait_for(one)
        if code == FAILED:
            experience.noticed[failed] += 1
        assert one.mutant is not None
        return Verdict(mutant=one.mutant, is_noticed=code != 0, by=failed, seconds=took)

    def _start(self, mutant: Mutant | None, tests: Sequence[str], experience: Experience, *, limit: float) -> Running:
        results, sender = self._processes.Pipe(duplex=False)
        process = self._processes.Process(target=run_tests, args=(mutant, tests, experience, self._root, sender))
        process.start()
        sender.close()
        now = time.monotonic()
        return Running(mutant=mutant, process=process, results=results, began=now, ends=now + limit)

    def _wait_for(self, one: Running) -> tuple[tuple[int, str, dict[str, float]], float]:
        """Return exit code, first failure and durations of the tests, and the total time."""
        outcome: tuple[int, str, dict[str, float]]
        try:
            is_over = one.results.poll(max(0.0, one.ends - time.monotonic()))
            outcome = one.results.recv() if is_over else (-1, f"(time limit of {one.ends - one.began:.0f} s)", {})
        except EOFError:
            outcome = (-1, "(the process of the tests ended)", {})
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.process.pid, 9)
        one.process.join()
        return outcome, time.monotonic() - one.began


# Choosing


def watchers_of(path: str) -> list[str]:
    """Return the modules of tests that should notice the faults of a module. Raises `SystemExit` if there are none."""
    module = path.removesuffix(".py")
    tests = [f"tests/test_{name}.py" for name in (*TESTS.get(module, Path(module).name).split(), "limits")]
    if missing := [test for test in tests if not (ROOT / test).exists()]:
        raise SystemExit(f"{missing[0]} does not exist. Name the tests of {path} in TESTS of {Path(__file__).name}.")
    return tests


def equivalent() -> list[dict[str, str]]:
    """Return the mutants that nobody can notice, with the reasons."""
    mutants: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text()).get("mutant", [])
    return mutants


def is_equivalent(mutant: Mutant, known: Sequence[dict[str, str]]) -> bool:
    """Return whether a mutant is in the list."""
    return any(all(getattr(mutant, name) == one[name] for name in ("path", "old", "new")) for one in known)


def all_mutants(places: Sequence[str]) -> list[Mutant]:
    """Return the mutants of files or folders, or of a line: `handler/decode.py:109`."""
    found = []
    for place in places or PACKAGES:
        name, _, line = place.partition(":")
        path = ROOT / name
        if not path.is_dir() and (path.suffix != ".py" or not path.is_file()):
            sys.exit(f"{name} is not a module or a folder of modules, such as handler/decode.py")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            mutants = mutants_of(file.relative_to(ROOT).as_posix(), file.read_text())
            found += [mutant for mutant in mutants if not line or str(mutant.line) == line]
    if not found:
        sys.exit(f"There is no fault to build into {' '.join(places)}")
    return found


# The command

EXAMPLE = """examples:
  make mutants ARGS="--sample 40 --seed 7"          40 faults of all modules, always the same for a seed
  make mutants ARGS="handler/decode.py"             all faults of a module
  make mutants ARGS="handler/decode.py:109 --list"  show the faults of a line, and try none
"""


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Build small faults into the code, and show the faults that no test notices.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("places", nargs="*", metavar="PLACE", help="files, folders or FILE:LINE; default: all modules")
    parser.add_argument("--sample", type=int, metavar="N", help="try N of the faults, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which sample; default: 0")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), metavar="N", help="at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all faults")
    parser.add_argument("--list", action="store_true", help="show the faults, and try none")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Try mutants, print the survivors, and return 1 if there are any."""
    options = read_arguments(arguments)
    known = equivalent()
    mutants = [mutant for mutant in all_mutants(options.places) if not is_equivalent(mutant, known)]
    if options.sample is not None and options.sample < len(mutants):
        mutants = random.Random(options.seed).sample(mutants, options.sample)  # noqa: S311 -- repeatable by its seed
    if options.list:
        for mutant in mutants:
            print(shown(mutant))
        return 0
    if stale := [
        one for one in known if not any(is_equivalent(mutant, [one]) for mutant in all_mutants([one["path"]]))
    ]:
        places = ", ".join(f"{one['path']} ({one['old']})" for one in stale)
        print(f"{EQUIVALENT.name} has faults that the code no longer has: {places}", file=sys.stderr)
    os.nice(5)
    verdicts = []
    for verdict in try_all(mutants, jobs=options.jobs):
        verdicts.append(verdict)
        if not verdict.is_noticed:
            print(shown(verdict.mutant), file=sys.stderr if options.json else sys.stdout, flush=True)
        elif not options.json and sys.stdout.isatty():
            print(f"{verdict.mutant.name} is noticed by {verdict.by}", end="\n", flush=True)
    survivors = sum(not verdict.is_noticed for verdict in verdicts)
    if options.json:
        print(json.dumps({"survivors": survivors, "mutants": [verdict.to_json() for verdict in verdicts]}))
    else:
        noticed = len(verdicts) - survivors
        print(
            f"{len(verdicts)} faults: {noticed} noticed ({noticed / max(1, len(verdicts)):.1%}), {survivors} survived"
        )
    return 1 if survivors else 0


def try_all(mutants: Sequence[Mutant], *, jobs: int) -> Iterator[Verdict]:
    """Yield the verdicts on mutants, module by module."""
    for name in LOADED_BEFORE:
        importlib.import_module(name)
    modules: defaultdict[str, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        modules[mutant.path].append(mutant)
    laboratory = Laboratory(ROOT, jobs=jobs)
    for path, ones in modules.items():
        yield from laboratory.try_out(ones, watchers_of(path))


def shown(mutant: Mutant) -> str:
    """Return a mutant as a place and a difference."""
    old = [f"  - {line}" for line in mutant.old.splitlines()]
    new = [f"  + {line}" for line in mutant.new.splitlines()]
    return "\n".join([mutant.name, *old, *new])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
