"""Run Segment's and RudderStack's unmodified libraries against local servers: `make e2e-libraries`.

Each library runs in its own process, with the packages that `make .libraries/.installed` installs. It makes the calls
that a customer's program makes. An endpoint between the library and the server records requests and answers.
"""

import gzip
import itertools
import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import urllib3
from endpoint import Received, endpoint, response
from local_server import LocalServer, serving

from destination.paths import ROOT
from handler.spec import snake_case

pytest_plugins = ["servers"]

INSTALLED = ROOT / ".libraries"
SCRIPTS = Path(__file__).parent / "libraries"
MAX_WAIT_SECONDS = 60
"""For operations that take a few seconds, or ten more if a library waits for `Retry-After`."""
GZIP = b"\x1f\x8b"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library, and what it adds to a call: in `context.library`, and at the top level.

    Without `module` it is a Node library.
    """

    name: str
    tells: tuple[str, str]
    module: str = ""
    gzip: bool = False
    channel: str | None = None

    @property
    def is_python(self) -> bool:
        """Return whether the library passes the answer to its callback. Node libraries read only the status."""
        return bool(self.module)

    def command(self) -> list[str]:
        """Return the program that makes the calls. Skips the test if npm was not there to install the library."""
        if self.is_python:
            return [str(INSTALLED / self.name / "bin" / "python"), str(SCRIPTS / "send.py")]
        if not (INSTALLED / self.name).exists():
            pytest.skip("there was no npm on this machine when `make .libraries/.installed` ran")
        return [shutil.which("node") or "node", str(SCRIPTS / "send.js")]

    def stored(self, call: Json) -> Json:
        """Return the canonical message that a call becomes, without the fields that the library generates."""
        message = {snake_case(name): value for name, value in call.items()}
        context = {snake_case(name): value for name, value in call.get("context", {}).items()}
        message["context"] = {**context, "library": dict(zip(("name", "version"), self.tells, strict=True))}
        message.setdefault("integrations", {})
        if "timestamp" in message:
            message["timestamp"] = datetime.fromisoformat(message["timestamp"])
        if self.channel:  # RudderStack
            message["channel"] = self.channel
            message["integrations"] = message["integrations"] or {"All": True}
            if call["type"] == "identify":
                message["context"]["traits"] = message.pop("traits")
        if not self.is_python:
            message["_metadata"] = {"jsRuntime": "node"}
            if call["type"] == "page":
                message["properties"] = {**message["properties"], "category": message["category"]}
        return message


SEGMENT = {"module": "segment.analytics"}
RUDDERSTACK = {"module": "rudderstack.analytics", "channel": "server"}
PLAIN = [
    Library(name="segment-analytics-python-2.3.3", tells=("analytics-python", "2.3.3"), **SEGMENT),
    Library(name="segment-analytics-python-2.4.0", tells=("analytics-python", "2.4.0"), **SEGMENT),
    Library(name="rudder-sdk-python-2.1.9", tells=("analytics-python", "2.1.9"), **RUDDERSTACK),
    Library(name="node", tells=("@segment/analytics-node", "3.1.0")),
]
COMPRESSING = [replace(library, gzip=True) for library in PLAIN if library.is_python]


def of(libraries: Iterable[Library]) -> pytest.MarkDecorator:
    """Run a test with each library."""
    return pytest.mark.parametrize(
        "library", libraries, ids=lambda library: library.name + (" gzip" if library.gzip else "")
    )


OF_ALL = {
    "context": {
        "ip": "192.0.2.17",
        "locale": "de-AT",
        "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
        "page": {"url": "https://example.com/größe?q=%20&a=1", "title": "Größe „L“"},
        "ours": {"inOurCasing": [1, 2.5, None]},
    },
    "integrations": {"All": False, "Salesforce": True, "Amplitude": {"session_id": 1741771792}},
}
OURS = {
    "plan": "größer 💡 \u2028",
    "price": 39.9,
    "seats": 17,
    "trial": False,
    "left": None,
    "note": "",
    "first name": "Zoë",
    "dotted.key": {"deep": [{"a": [1, "2", 0.5]}]},
    "since": "2026-03-12",
}
OF_EACH_TYPE = [
    {"type": "identify", "userId": "user-17", "anonymousId": "anonymous-17", "traits": OURS},
    {"type": "track", "userId": "user-17", "event": "Größe geändert", "properties": OURS},
    {"type": "page", "anonymousId": "anonymous-17", "category": "Docs", "name": "Prices", "properties": OURS},
    {"type": "screen", "userId": "user-17", "category": "Docs", "name": "Prices", "properties": OURS},
    {"type": "group", "userId": "user-17", "groupId": "group-17", "traits": OURS},
    {"type": "alias", "userId": "user-17", "previousId": "anonymous-17"},
]
WITHOUT_ID = "Lamp Lit"
"""The event of calls without an id and a time of their own. Most programs leave both to the library."""
TRACKS = [{"type": "track", "userId": "user-17", "event": WITHOUT_ID, "properties": {"number": n}} for n in range(250)]
"""More than two batches of the Python libraries, which send up to 100, and many batches of the Node library's 15."""
OF_NOBODY = {"type": "track", "userId": "", "anonymousId": "", "event": WITHOUT_ID}
NOT_A_NUMBER = {"type": "track", "userId": "user-17", "event": WITHOUT_ID, "properties": {"price": float("nan")}}
"""Python's libraries send NaN unchanged. Node can't write it as JSON."""


def calls() -> list[Json]:
    """Return a call of each type with all fields, and an id and a time that the caller chose."""
    return [
        {**call, **OF_ALL, "messageId": str(uuid.uuid4()), "timestamp": f"2026-03-12T09:29:5{n}.120+00:00"}
        for n, call in enumerate(OF_EACH_TYPE)
    ]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request, its answer, and whether the library received the answer."""

    head: str
    gzip: bool
    batch: list[Json]
    status: int
    answer: Json
    heard: bool


@dataclass(frozen=True, kw_only=True)
class Passage:
    """An endpoint in front of servers, with the exchanges that it passed on."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def taken(self) -> tuple[int, int]:
        """Return the accepted messages and the duplicates, summed over all answers."""
        answers = [exchange.answer for exchange in self.exchanges]
        return sum(answer["accepted"] for answer in answers), sum(answer["duplicates"] for answer in answers)


@contextmanager
def passing(*servers: LocalServer, lose_answers: int = 0) -> Iterator[Passage]:
    """Run an endpoint that passes one request to each server, and all others to the last one.

    It drops the first `lose_answers` answers: it closes the connection instead.
    """
    numbers = itertools.count()  # Node's library sends several requests at once

    def answer(received: Received) -> list[bytes]:
        number = next(numbers)
        server = servers[min(number, len(servers) - 1)]
        request, *lines = received.head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        reply = http.request("POST", server.url + request.split()[1], headers=headers, body=received.body)
        compressed = received.body.startswith(GZIP)
        exchange = Exchange(
            head=received.head,
            gzip=compressed,
            batch=json.loads(gzip.decompress(received.body) if compressed else received.body)["batch"],
            status=reply.status,
            answer=json.loads(reply.data),
            heard=number >= lose_answers,
        )
        passage.exchanges.append(exchange)
        kept = [f"{name}: {value}" for name, value in reply.headers.items() if name.lower() == "retry-after"]
        return response(reply.status, reply.data.decode(), *kept) if exchange.heard else []

    with urllib3.PoolManager(maxsize=50, retries=False, timeout=MAX_WAIT_SECONDS) as http, endpoint(answer) as front:
        passage = Passage(url=front.url.removesuffix("/segment"))
        yield passage


def send(library: Library, url: str, key: str, calls: list[Json]) -> list[Json]:
    """Make calls with a library, and return the errors that it reported."""
    told = {"module": library.module, "host": url, "key": key, "gzip": library.gzip, "calls": calls}
    run = subprocess.run(
        library.command(),
        input=json.dumps(told),
        env={"NODE_PATH": str(INSTALLED / library.name / "node_modules")},  # without other variables, such as proxies
        check=False,
        text=True,
        capture_output=True,
        timeout=MAX_WAIT_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@dataclass(frozen=True, kw_only=True)
class Customer:
    """A customer that only one test uses, and its key, which no output may contain."""

    name: str
    key: str
    server: LocalServer

    def lines(self, *command: str) -> list[Json]:
        """Return the JSON objects that a list command prints for the customer."""
        result = self.server.run(*command, "--customer", self.name, "--limit", "100000", "--json")
        assert self.key not in result.output + self.server.output
        return [json.loads(line) for line in result.stdout.splitlines()]

    def stored(self) -> list[Json]:
        """Return the canonical messages in the event table."""
        of_subjects = (("--user", "user-17"), ("--anonymous", "anonymous-17"))
        return [item["message"] for subject in of_subjects for item in self.lines("messages", "list", *subject)]

    def queued(self) -> list[Json]:
        """Take all messages from the queue, and return the canonical ones."""
        sqs, bodies = self.server.account.sqs(), []
        queue = {"QueueUrl": self.server.stores.event_queue_url, "MaxNumberOfMessages": 10}
        while messages := sqs.receive_message(**queue).get("Messages"):
            bodies += [message["Body"] for message in messages]
        assert self.key not in "".join(bodies) + self.server.output
        return [item["message"] for item in map(json.loads, bodies) if item["customer_id"] == self.name]


def new_customer(server: LocalServer) -> Customer:
    name = f"customer-{uuid.uuid4()}"
    return Customer(name=name, key=server.json("keys", "create", "--customer", name)["api_key"], server=server)


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[LocalServer]:
    """Return a local server that stores in a table."""
    with serving(tmp_path_factory.mktemp("server"), "--parameter", "Consumer=off", "--processes", "2") as server:
        yield server


@pytest.fixture
def customer(server) -> Customer:
    return new_customer(server)


def known(message: Json) -> Json:
    """Return a stored message in the form of `Library.stored`: without the generated fields, which must be present."""
    known = {**message, "timestamp": datetime.fromisoformat(message["timestamp"])}
    del known["sent_at"]
    if "_metadata" in known:
        known["_metadata"] = {name: value for name, value in known["_metadata"].items() if name != "nodeVersion"}
    if known.get("event") == WITHOUT_ID:
        del known["message_id"], known["timestamp"]
    return known


def in_order(messages: Iterable[Json]) -> list[Json]:
    """Sort messages by their content."""
    return sorted(messages, key=lambda message: json.dumps(message, sort_keys=True, default=str))


def assert_arrived(library: Library, sent: list[Json], messages: list[Json]) -> None:
    """Assert that these are the sent messages, field by field, each with a unique id."""
    assert len({message["message_id"] for message in messages}) == len(messages) == len(sent)
    assert in_order(map(known, messages)) == in_order(map(library.stored, sent))


def assert_at_once(library: Library, sent: list[Json], passage: Passage) -> None:
    """Assert that a library sent each call once, with the chosen compression, and got 200."""
    assert {(exchange.status, exchange.gzip) for exchange in passage.exchanges} == {(200, library.gzip)}
    assert sum(len(exchange.batch) for exchange in passage.exchanges) == len(sent)
    assert sum(passage.taken) == len(sent)


@of([*PLAIN, *COMPRESSING])
def test_all_calls_are_stored_as_sent(library, customer):
    sent = [*calls(), *TRACKS]
    with passing(customer.server) as passage:
        assert send(library, passage.url, customer.key, sent) == []
    assert len(passage.exchanges) > 2
    assert_at_once(library, sent, passage)
    assert_arrived(library, sent, customer.stored())


@of(PLAIN)
def test_all_calls_are_queued_as_sent(library, queue_server):
    customer, sent = new_customer(queue_server), [*calls(), *TRACKS[:20]]
    with passing(queue_server) as passage:
        assert send(library, passage.url, customer.key, sent) == []
    assert_at_once(library, sent, passage)
    assert_arrived(library, sent, customer.queued())


@of(PLAIN)
def test_call_sent_twice_is_stored_once(library, customer):
    sent = calls()
    with passing(customer.server) as passage:
        assert send(library, passage.url, customer.key, [*sent, *sent]) == []
    assert sum(passage.taken) == 2 * len(sent)
    assert passage.taken[1] >= len(sent)  # more if a busy store confirms a write too late
    assert_arrived(library, sent, customer.stored())


@of(PLAIN)
def test_lost_answer_makes_the_library_resend_and_stores_once(library, customer):
    sent = [*calls(), *TRACKS[:110]]
    with passing(customer.server, lose_answers=1) as passage:
        assert send(library, passage.url, customer.key, sent) == []
    [unheard] = [exchange for exchange in passage.exchanges if not exchange.heard]
    assert sum(passage.taken) == len(sent) + len(unheard.batch)
    assert passage.taken[1] >= len(unheard.batch)
    assert_arrived(library, sent, customer.stored())


@pytest.fixture(scope="module", autouse=True)
def after_outage(server, tmp_path_factory) -> Iterator[Callable[[Library], Any]]:
    """Let each library meet a server that answers 503 once, concurrently with the other tests, because a library may
    wait 10 s.

    Yields a function: library -> its customer, the sent calls, the passage, and the errors that the library reported.
    """

    def meet(library: Library, customer: Customer) -> Any:
        sent = [*calls(), *TRACKS[:110]]
        with passing(maintained, server) as passage:
            return customer, sent, passage, send(library, passage.url, customer.key, sent)

    options = ("--parameter", "Maintenance=on", "--parameter", "Consumer=off", "--processes", "1")
    customers = [new_customer(server) for _ in PLAIN]
    with serving(tmp_path_factory.mktemp("maintained"), *options) as maintained, ThreadPoolExecutor() as threads:
        met = {
            library: threads.submit(meet, library, customer) for library, customer in zip(PLAIN, customers, strict=True)
        }
        yield lambda library: met[library].result()


@of(PLAIN)
def test_library_delivers_after_an_outage(library, after_outage):
    customer, sent, passage, errors = after_outage(library)
    assert errors == []
    assert [exchange.status for exchange in passage.exchanges].count(503) == 1
    assert_arrived(library, sent, customer.stored())


@of(PLAIN)
def test_wrong_key_is_reported_at_once(library, server):
    with passing(server) as passage:
        [error] = send(library, passage.url, "demo-key-of-nobody", calls()[:1])
    [exchange] = passage.exchanges
    assert (exchange.status, exchange.answer["code"]) == (401, "unknown_key")
    if library.is_python:
        assert error["code"] == "unknown_key"
        assert exchange.answer["message"] in error["error"]
    else:
        assert error["error"].startswith("Error: [401]")


@of(PLAIN)
def test_bad_messages_are_rejects_and_the_others_are_stored(library, customer):
    good, bad, codes = calls(), [OF_NOBODY], ["invalid_message"]
    if library.is_python:
        bad, codes = [*bad, NOT_A_NUMBER], [*codes, "number_out_of_range"]
    with passing(customer.server) as passage:
        assert send(library, passage.url, customer.key, [*good[:2], *bad, *good[2:]]) == []
    [exchange] = passage.exchanges
    assert [(entry["index"], entry["code"]) for entry in exchange.answer["rejected"]] == list(enumerate(codes, start=2))
    assert_arrived(library, good, customer.stored())
    assert sorted(reject["code"] for reject in customer.lines("rejects", "list")) == codes


@of(PLAIN)
def test_fully_refused_batch_is_reported_at_once(library, customer):
    with passing(customer.server) as passage:
        [error] = send(library, passage.url, customer.key, [OF_NOBODY])
    [exchange] = passage.exchanges
    assert (exchange.status, exchange.answer["code"]) == (400, "nothing_accepted")
    assert error["code"] == ("nothing_accepted" if library.is_python else "delivery_failure")


def test_docs_name_the_tested_libraries():
    page = (ROOT / "docs" / "reference" / "libraries.md").read_text()
    rows = re.findall(r"^\| `([@/\w-]+)` \| ([\d., ]+) \|", page, re.MULTILINE)
    documented = {(name, version) for name, versions in rows for version in versions.split(", ")}
    assert documented == {(library.name.rpartition("-")[0] or library.tells[0], library.tells[1]) for library in PLAIN}
