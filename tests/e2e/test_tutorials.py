"""Run the commands of the tutorials as their pages show them: `make e2e-tutorials`.

A `sh` block is a script. A `text` block after it is the output: its lines occur in this order, and `…` is any text.
"""

import re
import shutil
import subprocess
import sys
import time

import pytest
from deployed.stack import BUILT, DeployedStack, EmulatedAccount
from local_server import serving

from destination.paths import ROOT

TUTORIALS = ROOT / "docs" / "tutorials"
PAGE_URL = "http://127.0.0.1:8080"
MAX_WAIT_SECONDS = 60
REPEATABLE = re.compile(r"destination (\w+ )?(list|show|trace|ping)\b")
BLOCK = re.compile(r"^```(sh|text)\n(.+?)^```$", re.MULTILINE | re.DOTALL)


def steps(page):
    """Return the scripts of a page, each with the output that the page shows, or an empty text."""
    found = []
    for kind, text in BLOCK.findall((TUTORIALS / page).read_text()):
        if kind == "sh":
            found.append([text, ""])
        else:
            found[-1][1] = text
    return found


def pattern(shown):
    """Return a regular expression for an output on a page: other lines may be in between, and `…` is any text."""
    lines = [re.escape(" ".join(line.split())).replace("…", ".*") for line in shown.splitlines()]
    return re.compile(".*?".join(lines), re.DOTALL)


def normalised(printed):
    """Return a text with single spaces, and without table frames."""
    return "\n".join(" ".join(line.split()) for line in printed.splitlines())


def play(script, shown, **options):
    """Run a script until it prints the expected output. Return the output."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while True:
        done = subprocess.run(
            [shutil.which("bash"), "-euc", script], cwd=ROOT, capture_output=True, text=True, check=False, **options
        )
        printed = done.stdout + done.stderr
        if done.returncode == 0 and pattern(shown).search(normalised(printed)):
            return printed
        # The consumer and the eraser run after the answer, and a function that has just been deployed may be late.
        assert REPEATABLE.search(script), f"{script}\n{printed}\nexpected:\n{shown}"
        assert time.monotonic() < deadline, f"{script}\n{printed}\nexpected:\n{shown}"
        time.sleep(0.5)


def test_first_message(tmp_path):
    (start, greeting), *rest = steps("first-message.md")
    assert start == "make run\n"
    with serving(tmp_path) as server:
        assert pattern(greeting.replace(PAGE_URL, server.url)).search(normalised(server.output))
        for script, shown in rest:
            command = re.sub(r"^\.venv/bin/destination .+", rf"\g<0> --url {server.url}", script, flags=re.MULTILINE)
            command = command.replace(".venv/bin/destination", f"{sys.executable} -m destination")
            play(command.replace(PAGE_URL, server.url), shown)


@pytest.mark.skipif(not (BUILT / "template.yaml").exists(), reason="nothing is built: make build")
def test_first_deployment(tmp_path):
    account = EmulatedAccount(tmp_path)
    stack = DeployedStack(account)
    environment = {**account.environment(), "PATH": f"{ROOT}/.venv-sam/bin:/usr/local/bin:/usr/bin:/bin"}
    key = "ddk_…"
    try:
        for script, shown in steps("first-deployment.md"):
            command = script.replace("ddk_…", key)
            if "https://…/segment" in command:
                command = command.replace("https://…/segment", stack.url)
            # The build exists, and keys are not cached, so certify need not wait for a revocation.
            command = command.replace(
                "make deploy", "make -o build deploy ARGS='--parameter-overrides KeyCacheSeconds=0'"
            )
            command = command.replace(".venv/bin/", f"{ROOT}/.venv/bin/")
            printed = play(command, shown, env=environment, input="y\n" * 3)
            if "keys create" in script:
                key = re.search(r"ddk_\w+", printed)[0]
        stacks = account.client("cloudformation").describe_stacks()["Stacks"]
        assert stack.name not in [stack["StackName"] for stack in stacks]
    finally:
        account.stop()
