"""Segment's and RudderStack's libraries, unmodified, as clients of running local servers; run by `make e2e-libraries`.

Each runs in a process of its own, with the packages that `make .libraries/.installed` puts there, and makes the calls
that a customer's program makes. Between it and a server stands an endpoint that keeps what was sent and answered.
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

from destination.deployment.stack import ROOT
from handler.spec import snake_case

pytest_plugins = ["servers"]

INSTALLED = ROOT / ".libraries"
SCRIPTS = Path(__file__).parent / "libraries"
PATIENCE_SECONDS = 60
"""For what takes a few seconds, and ten more where a library waits as `Retry-After` tells."""
GZIP = b"\x1f\x8b"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library, and what it adds to a call: in `context.library`, and at the top. Without a module it is Node's."""

    name: str
    tells: tuple[str, str]
    module: str = ""
    gzip: bool = False
    channel: str | None = None

    @property
    def is_python(self) -> bool:
        """Whether it tells its callback what was answered; Node's reads the status only."""
        return bool(self.module)

    def command(self) -> list[str]:
        """Return the program that makes calls; skips the test where there was no npm to install the library."""
        if self.is_python:
            return [str(INSTALLED / self.name / "bin" / "python"), str(SCRIPTS / "send.py")]
        if not (INSTALLED / self.name).exists():
            pytest.skip("there was no npm on this machine when `make .libraries/.installed` ran")
        return [shutil.which("node") or "node", str(SCRIPTS / "send.js")]

    def stored(self, call: Json) -> Json:
        """Return the canonical message that a call becomes, without what the library makes up."""
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
"""The event of calls that leave their id and their time to the library, as most do."""
TRACKS = [{"type": "track", "userId": "user-17", "event": WITHOUT_ID, "properties": {"number": n}} for n in range(250)]
"""More than two batches of the libraries for Python, which take 100 at once, and many of Node's with its 15."""
OF_NOBODY = {"type": "track", "userId": "", "anonymousId": "", "event": WITHOUT_ID}
NOT_A_NUMBER = {"type": "track", "userId": "user-17", "event": WITHOUT_ID, "properties": {"price": float("nan")}}
"""Python's libraries send it as it is; for Node there is no such JSON."""


def calls() -> list[Json]:
    """Return a call of each type with all that it can tell, and an id and a time that are the caller's."""
    return [
        {**call, **OF_ALL, "messageId": str(uuid.uuid4()), "timestamp": f"2026-03-12T09:29:5{n}.120+00:00"}
        for n, call in enumerate(OF_EACH_TYPE)
    ]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A request and how it was answered, and whether the library got to hear that."""

    head: str
    gzip: bool
    batch: list[Json]
    status: int
    answer: Json
    heard: bool


@dataclass(frozen=True, kw_only=True)
class Passage:
    """An endpoint before servers, and what passed."""

    url: str
    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def taken(self) -> tuple[int, int]:
        """How many messages were told to be new, and how many duplicates, over all answers."""
        answers = [exchange.answer for exchange in self.exchanges]
        return sum(answer["accepted"] for answer in answers), sum(answer["duplicates"] for answer in answers)


@contextmanager
def passing(*servers: LocalServer, lose_answers: int = 0) -> Iterator[Passage]:
    """Run an endpoint that hands one request to each server, and all others to the last one.

    Of the first answers as many as said get lost: the connection is closed in their place.
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

    with urllib3.PoolManager(maxsize=50, retries=False, timeout=PATIENCE_SECONDS) as http, endpoint(answer) as front:
        passage = Passage(url=front.url.removesuffix("/segment"))
        yield passage


def send(library: Library, url: str, key: str, calls: list[Json]) -> list[Json]:
    """Make calls with a library, and return the errors that it reported."""
    told = {"module": library.module, "host": url, "key": key, "gzip": library.gzip, "calls": calls}
    run = subprocess.run(
        library.command(),
        input=json.dumps(told),
        env={"NODE_PATH": str(INSTALLED / library.name / "node_modules")},  # and nothing else, such as proxies
        check=False,
        text=True,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@dataclass(frozen=True, kw_only=True)
class Customer:
    """A customer whom no other test knows, and its key, which must come out nowhere."""

    name: str
    key: str
    server: LocalServer

    def lines(self, *command: str) -> list[Json]:
        """Return what a list holds of the customer."""
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
    """Return a stored message as `Library.stored` has it: what a library makes up must be there, and is left out."""
    known = {**message, "timestamp": datetime.fromisoformat(message["timestamp"])}
    del known["sent_at"]
    if "_metadata" in known:
        known["_metadata"] = {name: value for name, value in known["_metadata"].items() if name != "nodeVersion"}
    if known.get("event") == WITHOUT_ID:
        del known["message_id"], known["timestamp"]
    return known


def in_order(messages: Iterable[Json]) -> list[Json]:
    """Order messages by what they say."""
    return sorted(messages, key=lambda message: json.dumps(message, sort_keys=True, default=str))


def assert_arrived(library: Library, sent: list[Json], messages: list[Json]) -> None:
    """Assert that messages are those that were sent, field by field, each with an id of its own."""
    assert len({message["message_id"] for message in messages}) == len(messages) == len(sent)
    assert in_order(map(known, messages)) == in_order(map(library.stored, sent))


def assert_at_once(library: Library, sent: list[Json], passage: Passage) -> None:
    """Assert that a library sent each call once, in batches compressed or not as it was told, and was answered 200."""
    assert {(exchange.status, exchange.gzip) for exchange in passage.exchanges} == {(200, library.gzip)}
    assert sum(len(exchange.batch) for exchange in passage.exchanges) == len(sent)
    assert sum(passage.taken) == len(sent)


@of([*PLAIN, *COMPRESSING])
def test_all_calls_are_stored_as_they_were_made(library, customer):
    sent = [*calls(), *TRACKS]
    with passing(customer.server) as passage:
        assert send(library, passage.url, customer.key, sent) == []
    assert len(passage.exchanges) > 2
    assert_at_once(library, sent, passage)
    assert_arrived(library, sent, customer.stored())


@of(PLAIN)
def test_all_calls_are_queued_as_they_were_made(library, queue_server):
    customer, sent = new_customer(queue_server), [*calls(), *TRACKS[:20]]
    with passing(queue_server) as passage:
        assert send(library, passage.url, customer.key, sent) == []
    assert_at_once(library, sent, passage)
    assert_arrived(library, sent, customer.queued())


@of(PLAIN)
def test_what_is_sent_twice_is_stored_once(library, customer):
    sent = calls()
    with passing(customer.server) as passage:
        assert send(library, passage.url, customer.key, [*sent, *sent]) == []
    assert sum(passage.taken) == 2 * len(sent)
    assert passage.taken[1] >= len(sent)  # more where a store that has much to do confirms a write too late
    assert_arrived(library, sent, customer.stored())


@of(PLAIN)
def test_a_library_that_does_not_hear_an_answer_sends_again_and_all_is_stored_once(library, customer):
    sent = [*calls(), *TRACKS[:110]]
    with passing(customer.server, lose_answers=1) as passage:
        assert send(library, passage.url, customer.key, sent) == []
    [unheard] = [exchange for exchange in passage.exchanges if not exchange.heard]
    assert sum(passage.taken) == len(sent) + len(unheard.batch)
    assert passage.taken[1] >= len(unheard.batch)
    assert_arrived(library, sent, customer.stored())


@pytest.fixture(scope="module", autouse=True)
def after_outage(server, tmp_path_factory) -> Iterator[Callable[[Library], Any]]:
    """Let each library meet a server that answers 503 once, beside the other tests, since one of them then waits 10 s.

    Returns what tells of a library the customer, what was sent, what passed, and the errors that it reported.
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
def test_a_library_goes_on_after_an_outage(library, after_outage):
    customer, sent, passage, errors = after_outage(library)
    assert errors == []
    assert [exchange.status for exchange in passage.exchanges].count(503) == 1
    assert_arrived(library, sent, customer.stored())


@of(PLAIN)
def test_a_wrong_key_is_told_at_once(library, server):
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
def test_a_batch_of_which_nothing_is_accepted_is_told_at_once(library, customer):
    with passing(customer.server) as passage:
        [error] = send(library, passage.url, customer.key, [OF_NOBODY])
    [exchange] = passage.exchanges
    assert (exchange.status, exchange.answer["code"]) == (400, "nothing_accepted")
    assert error["code"] == ("nothing_accepted" if library.is_python else "delivery_failure")


def test_the_docs_name_what_is_tested():
    page = (ROOT / "docs" / "reference" / "libraries.md").read_text()
    rows = re.findall(r"^\| `([@/\w-]+)` \| ([\d., ]+) \|", page, re.MULTILINE)
    documented = {(name, version) for name, versions in rows for version in versions.split(", ")}
    assert documented == {(library.name.rpartition("-")[0] or library.tells[0], library.tells[1]) for library in PLAIN}
