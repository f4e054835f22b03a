"""Test the built function in Lambda's container, with the stores of a local server: `make e2e-container`.

`sam local invoke` answers every event, or carries it out, as events/README.md says. `sam local start-api` answers every
call type. If a store hangs, the function answers in time, and the resent message is stored once. The end of the report
has the measured times.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from urllib.parse import urlsplit

import pytest
import urllib3
from local_server import wait_until
from store_proxy import StoreProxy, store_proxy

from destination.deployment import demo
from destination.deployment.stack import FUNCTION, Account, load_template
from destination.local.embedded_aws_process import CONTAINER_BRIDGE
from destination.local.faults import LOOPBACK, Fault, Rule, Store
from destination.local.server import ENVIRONMENT_FILE
from destination.paths import ROOT
from destination.segment.client import SEGMENT_TIMEOUT_SECONDS, segment_headers

EVENTS = ROOT / "events"
SAM_COMMANDS = Path(__file__).parent / "sam_commands.py"
TABLES = (EVENTS / "README.md").read_text()
ROWS = re.findall(r"^\| `([\w-]+\.json)` \| .+ \| (\d+) \| `(\w+)` \|", TABLES, re.MULTILINE)
COUNTED = re.findall(r"^\| `([\w-]+\.json)` \| .+ \| (\d+) \| (\d+) \| ?[`\w ]*? ?\|$", TABLES, re.MULTILINE)
HANDED_OVER = re.findall(r"^\| `([\w-]+\.json)` \| .+ \| `(\w+Function)` \|", TABLES, re.MULTILINE)


def has_docker():
    """Return whether a Docker engine answers."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not has_docker(), reason="no Docker engine answers on this machine")


@contextmanager
def running(printed, *command, until):
    """Run a command that prints to a file until the block ends. The block begins when the file contains a text."""
    with (
        printed.open("w") as output,
        subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            while until not in printed.read_text():
                assert process.poll() is None, printed.read_text()
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def local_server(tmp_path_factory):
    """Run a local server, and return its endpoint."""
    serve = (sys.executable, "-m", "destination", "serve", "--docker", "--port", "0", "--processes", "1")
    printed = tmp_path_factory.mktemp("serve") / "printed"
    with running(printed, *serve, until="Control-C"):
        yield next(word for word in printed.read_text().split() if word.endswith("/segment"))


@pytest.fixture(scope="module")
def invoke(local_server):  # noqa: ARG001 -- the server has written the environment
    """Return a function that runs a built function with an event. It returns the answer and the standard error."""
    python = Path(shutil.which("sam")).with_name("python")
    with subprocess.Popen([python, SAM_COMMANDS], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as sam:

        def invoke(function, file):
            command = ["local", "invoke", function, "--event", str(EVENTS / file), "--skip-pull-image"]
            sam.stdin.write(json.dumps(command) + "\n")
            sam.stdin.flush()
            exit_code, out, errors = json.loads(sam.stdout.readline())
            assert exit_code == 0, errors
            return json.loads(out.splitlines()[-1]), errors

        yield invoke
        sam.stdin.close()


@pytest.mark.parametrize(("file", "status", "code"), ROWS)
def test_sam_local_invoke_answers_as_the_table_says(invoke, file, status, code):
    answer, printed = invoke(FUNCTION, file)
    body = json.loads(answer["body"])
    assert (str(answer["statusCode"]), body.get("code", body.get("status"))) == (status, code), printed


@pytest.mark.parametrize(("file", "status", "accepted"), COUNTED)
def test_sam_local_invoke_accepts_library_requests(invoke, file, status, accepted):
    answer, printed = invoke(FUNCTION, file)
    body = json.loads(answer["body"])
    assert (str(answer["statusCode"]), body["accepted"] + body["duplicates"]) == (status, int(accepted)), printed


@pytest.mark.parametrize(("file", "function"), HANDED_OVER)
def test_sam_local_invoke_runs_the_other_functions(invoke, file, function):
    answer, printed = invoke(function, file)
    assert answer == {"batchItemFailures": []}, printed


@contextmanager
def start_api(printed, *options):
    """Run `sam local start-api` until the block ends."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    start = ("sam", "local", "start-api", "--port", str(port), "--skip-pull-image", *options)
    with running(printed, *start, until="Running on"):
        yield f"http://{LOOPBACK}:{port}"


WARM = ("--warm-containers", "EAGER")


@pytest.mark.usefixtures("local_server")
def test_sam_local_start_api_accepts_every_call_type(tmp_path):
    with start_api(tmp_path / "printed", *WARM) as url:
        ping = [sys.executable, "-m", "destination", "ping", "all", "--json", "--api-key", demo.GOOD_KEY, "--url", url]
        run = subprocess.run(ping, cwd=ROOT, check=False, text=True, capture_output=True)
    answers = json.loads(run.stdout)
    assert [answer["status"] for answer in answers] == [200] * 6 + [202], run.stderr


NOT_LIKE_AN_API = {"body.not-utf8", "libraries.gzip", "request.keep-alive"}
NOT_ON_THIS_MACHINE = {f"transport.{name}" for name in ("https", "certificate", "tls", "old-tls", "host")}
NEVER_CHECKED = {"answers.cold", "errors.retry-after", "faults.store", "faults.bug", "faults.throttled"}


def test_sam_local_start_api_passes_certify_with_known_exceptions(tmp_path, local_server):
    with start_api(tmp_path / "printed", *WARM) as url:
        stores = local_server.removesuffix("/segment")
        certify = [sys.executable, "-m", "destination", "certify", "--json", "--url", url, "--stores", stores]
        run = subprocess.run(certify, cwd=ROOT, check=False, text=True, capture_output=True)
    points = {point["id"]: point["verdict"] for point in json.loads(run.stdout)["points"]}
    unchecked = NOT_LIKE_AN_API | NOT_ON_THIS_MACHINE | NEVER_CHECKED
    assert {name for name, verdict in points.items() if verdict != "pass"} == unchecked, run.stdout
    assert {points[name] for name in unchecked} == {"not checked"}
    assert run.returncode == 0


# The deadline


MAX_WAIT_SECONDS = 60
TEMPLATE = load_template()
PROPERTIES = TEMPLATE["Resources"][FUNCTION]["Properties"]
FUNCTION_SECONDS = PROPERTIES["Timeout"]
INTEGRATION_SECONDS = PROPERTIES["Events"]["Segment"]["Properties"]["TimeoutInMillis"] / 1000
PROCESSORS = TEMPLATE["Parameters"]["MemorySize"]["Default"] / 1769
"""Lambda's share, https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html"""
DURATION = re.compile(r"^REPORT .*\tDuration: ([\d.]+) ms", re.MULTILINE)
CONTAINER = re.compile(r"^SAM_CONTAINER_ID: (\w+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Api:
    """A running `sam local start-api`, and the proxy between its containers and their stores."""

    name: str
    url: str
    printed: Path
    proxy: StoreProxy
    http: urllib3.PoolManager
    events: tuple[Account, str]

    def send(self, body):
        """Send a message as Segment does, with a longer time-out."""
        answer = self.http.request(
            "POST",
            f"{self.url}/segment",
            headers=segment_headers(demo.GOOD_KEY),
            body=json.dumps(body).encode(),
            timeout=MAX_WAIT_SECONDS,
            retries=False,
        )
        content = json.loads(answer.data)
        return f"{answer.status} {content.get('code', content.get('status', '-'))}"

    def durations(self):
        """Return the seconds of each invocation as Lambda reports them in the container, including the function's
        start.
        """
        return [float(milliseconds) / 1000 for milliseconds in DURATION.findall(self.printed.read_text())]

    def copies(self, body):
        """Count the records of a message."""
        account, table = self.events
        items = account.dynamodb().scan(TableName=table)["Items"]
        return sum(item["message_id"]["S"] == body["messageId"] for item in items)


@contextmanager
def proxied_api(folder, name, *options):
    """Run an API with a function that reads the key for each request, and a proxy in front of its stores."""
    environment = json.loads(ENVIRONMENT_FILE.read_text())["Parameters"]
    seen = urlsplit(environment["AWS_ENDPOINT_URL"])
    stores_url = f"http://{LOOPBACK}:{seen.port}"
    host = CONTAINER_BRIDGE if seen.hostname == CONTAINER_BRIDGE else LOOPBACK
    with store_proxy(stores_url, host=host) as proxy, urllib3.PoolManager() as http:
        changes = {
            "AWS_ENDPOINT_URL": f"http://{seen.hostname}:{urlsplit(proxy.url).port}",
            "KEY_CACHE_SECONDS": "0",
            "KEY_GRACE_SECONDS": "0",
        }
        (folder / "env.json").write_text(json.dumps({"Parameters": {**environment, **changes}}))
        with start_api(folder / "printed", "--env-vars", str(folder / "env.json"), *options) as url:
            yield Api(
                name=name,
                url=url,
                printed=folder / "printed",
                proxy=proxy,
                http=http,
                events=(Account(endpoint_url=stores_url), environment["EVENT_TABLE"]),
            )


def message():
    return {"type": "track", "userId": "keeper-17", "event": "Lamp Lit", "messageId": str(uuid.uuid4())}


@pytest.fixture(scope="module", params=["cold", "warm"])
def api(request, local_server, tmp_path_factory):  # noqa: ARG001 -- the server has written the environment
    """Return an API that makes a container for each request, or an API that keeps one warm container."""
    name = request.param
    with proxied_api(tmp_path_factory.mktemp(name), name, *(WARM if name == "warm" else ())) as api:
        if name == "warm":
            assert api.send(message()) == "200 stored"
        yield api


@dataclass(frozen=True, kw_only=True)
class Met:
    """The answers to a message while a store hung, and afterwards.

    `seconds` are Lambda's, without the start of the container.
    """

    answers: list[str]
    copies: int
    seconds: float


def meet(api, store, fault):
    """Send a message during a fault, end the fault, and send the same message again."""
    body = message()
    ended = len(api.durations())
    api.proxy.rules = (Rule(stores=frozenset({store}), faults=(fault,)),)
    answer = api.send(body)
    api.proxy.rules = ()
    again = api.send(body)
    wait_until(lambda: len(api.durations()) > ended)
    return Met(answers=[answer, again], copies=api.copies(body), seconds=api.durations()[ended])


@pytest.mark.parametrize(
    ("store", "fault", "answers"),
    [
        (Store.KEYS, Fault.HANGS_BEFORE, ["503 key_store_unavailable", "200 stored"]),
        (Store.EVENTS, Fault.HANGS_BEFORE, ["503 event_store_unavailable", "200 stored"]),
        (Store.EVENTS, Fault.HANGS_AFTER, ["503 event_store_unavailable", "200 duplicate"]),
    ],
)
def test_function_itself_answers_if_a_store_hangs(api, report, store, fault, answers):
    met = meet(api, store, fault)
    assert (met.answers, met.copies) == (answers, 1)
    assert met.seconds < INTEGRATION_SECONDS
    report.append(f"{api.name}, {store}, {fault}: {answers[0]} after {met.seconds:.2f} s, then {answers[1]}")


def test_resend_after_a_dribbling_store_is_a_duplicate(api):
    """`sam local` has no integration time-out. API Gateway would have answered before Segment gave up."""
    body = message()
    api.proxy.rules = (Rule(stores=frozenset({Store.EVENTS}), faults=(Fault.DRIBBLES,)),)
    with ThreadPoolExecutor(1) as executor:
        answering = executor.submit(api.send, body)
        assert not wait([answering], SEGMENT_TIMEOUT_SECONDS).done
        api.proxy.rules = ()
        again = api.send(body)
        answer = answering.result()
    assert (answer, again, api.copies(body)) == ("502 -", "200 duplicate", 1)
    assert f"timed out after {FUNCTION_SECONDS} seconds" in api.printed.read_text()


@pytest.mark.usefixtures("local_server")
def test_cold_start_with_lambdas_processor_share_is_in_time(tmp_path, report):
    with proxied_api(tmp_path, f"cold, {PROCESSORS:.2f} of a processor", *WARM) as api:
        containers = CONTAINER.findall(api.printed.read_text())  # of all functions
        update = ["docker", "update", "--cpus", f"{PROCESSORS:.2f}", *containers]
        subprocess.run(update, check=True, capture_output=True)
        met = meet(api, Store.EVENTS, Fault.HANGS_AFTER)
    assert (met.answers, met.copies) == (["503 event_store_unavailable", "200 duplicate"], 1)
    assert met.seconds < INTEGRATION_SECONDS
    report.append(f"{api.name}, {Store.EVENTS}, {Fault.HANGS_AFTER}: {met.answers[0]} after {met.seconds:.2f} s")
