"""The built function in Lambda's container, before the stores of a local server; run by .ci/run after `sam build`.

`sam local invoke` answers every event as events/README.md says, and `sam local start-api` every call type.
"""

import json
import re
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest

from cli.stack import ROOT

EVENTS = ROOT / "events"
ROW = re.compile(r"^\| `([\w-]+\.json)` \| .+ \| (\d+) \| `(\w+)` \|", re.MULTILINE)
ROWS = ROW.findall((EVENTS / "README.md").read_text())


@contextmanager
def running(*command, until):
    """Run a command in the background until the block ends; begin when a line of its output holds a text."""
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if until in line:
                    break
            else:
                pytest.fail("".join(lines))
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def local_server():
    with running(sys.executable, "-m", "cli", "serve", "--port", "0", "--processes", "1", until="Control-C"):
        yield


@pytest.mark.usefixtures("local_server")
@pytest.mark.parametrize(("file", "status", "code"), ROWS)
def test_sam_local_invoke_answers_what_the_table_says(file, status, code):
    invoke = ["sam", "local", "invoke", "--event", str(EVENTS / file), "--skip-pull-image"]
    run = subprocess.run(invoke, cwd=ROOT, check=True, text=True, capture_output=True)
    answer = json.loads(run.stdout.splitlines()[-1])
    body = json.loads(answer["body"])
    assert (str(answer["statusCode"]), body.get("code", body.get("status"))) == (status, code), run.stderr


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.usefixtures("local_server")
def test_sam_local_start_api_takes_a_message_of_each_call_type():
    port = str(free_port())
    start = ["sam", "local", "start-api", "--port", port, "--skip-pull-image", "--warm-containers", "EAGER"]
    with running(*start, until="Running on"):
        ping = [sys.executable, "-m", "cli", "ping", "all", "--json", "--api-key", "demo-key-good"]
        run = subprocess.run(
            [*ping, "--url", f"http://127.0.0.1:{port}"], cwd=ROOT, check=False, text=True, capture_output=True
        )
    answers = json.loads(run.stdout)
    assert [answer["status"] for answer in answers] == [200] * 6 + [202], run.stderr
