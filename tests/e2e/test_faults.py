"""Test every fault of every store with the real function behind the local server's gateway: `make e2e-faults`.

For each fault, the answer must be 5xx before Segment gives up. The same message, sent again after the fault, must be
stored once. The same must hold for the transport that the function uses in Lambda, with as many tries as botocore's.
Seconds are measured at the server, and the end of the report has a table of them.
"""

import asyncio
import io
import json
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
import urllib3
import uvicorn
from local_server import serving
from rich.console import Console

from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import Account, LocalStack, create_local_stack
from destination.local.api import Api
from destination.local.embedded_aws import EmbeddedAws
from destination.local.faults import APPLIED, Fault, FaultProxy, Rule, Store
from destination.local.functions import Functions
from destination.segment.client import SEGMENT_TIMEOUT_SECONDS, segment_headers
from destination.segment.samples import sample_message
from handler.keys import Status

THREADS = 64
"""More processes than concurrent requests."""
MAX_WAIT_SECONDS = 30
"""For operations that take a second or two on an idle machine."""
LIBRARIES_GIVE_UP_SECONDS = 10
MAX_TRIES = 5
KEY = "faults-e2e"
INVALID = {"event": 17}


@dataclass(frozen=True, kw_only=True, eq=False)  # so that the object can be a key
class Row:
    """A store, and a message that needs it.

    `first` and `again` are its expected answers.
    """

    name: str
    store: Store
    at_least_once: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=dict)
    first: str = "200 stored"
    again: str = "200 duplicate"


SQS = {"EVENT_SINK": "sqs"}
READ_ONLY = {Store.KEYS, Store.ERASURES}
ROWS = (
    Row(name="key table", store=Store.KEYS),
    Row(name="event table", store=Store.EVENTS),
    Row(
        name="rejects table",
        store=Store.REJECTS,
        message=INVALID,
        first="400 invalid_message",
        again="400 invalid_message",
    ),
    Row(name="erasure table", store=Store.ERASURES, environment={"AFTER_ERASURE": "refuse"}),
    Row(
        name="queue",
        store=Store.QUEUE,
        at_least_once=True,
        environment=SQS,
        first="202 queued",
        again="202 queued",
    ),
    Row(
        name="FIFO queue",
        store=Store.QUEUE,
        environment={**SQS, "EVENT_QUEUE_URL": "fifo"},
        first="202 queued",
        again="202 queued",
    ),
)


IN_LAMBDA = {"AWS_LAMBDA_FUNCTION_NAME": "faults-e2e"}
"""With this the function uses its own transport (handler/transport.py)."""
IN_LAMBDA_ROWS = {
    row.name: replace(row, name=f"{row.name}, as in Lambda", environment={**row.environment, **IN_LAMBDA})
    for row in ROWS
    if row.name in ("key table", "event table", "queue")
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The result of a fault: the first answer with its number of tries, the next answer, and the keys in the store."""

    answer: "Answer"
    tries: int
    again: "Answer"
    copies: list[str]

    @property
    def outcome(self) -> tuple[str, int, str, int]:
        """Return everything except the time."""
        return str(self.answer), self.tries, str(self.again), len(self.copies)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """An embedded AWS with the stores of the template and a key."""

    account: Account
    stack: LocalStack

    @property
    def keys(self) -> KeyTable:
        return KeyTable(self.account.dynamodb(), self.stack.stores.key_table)

    def queue_url(self, kind: str) -> str:
        [url] = [
            url
            for url in self.account.sqs().list_queues()["QueueUrls"]
            if "DeadLetter" not in url and (kind == "fifo") == url.endswith(".fifo")
        ]
        return url

    def environment(self, proxy: FaultProxy, environment: dict[str, str]) -> dict[str, str]:
        changes = {"AWS_ENDPOINT_URL": proxy.url, **environment}
        if kind := changes.get("EVENT_QUEUE_URL"):
            changes["EVENT_QUEUE_URL"] = self.queue_url(kind)
        return {**self.stack.environment, **changes}

    def copies(self, row: Row) -> dict[str, list[str]]:
        """Return everything in a store: message id -> the key of each copy (docs/reference/storage.md)."""
        copies = defaultdict(list)
        for record in self.queued(row) if row.store is Store.QUEUE else self.stored(row):
            key = "body_hash" if row.store is Store.REJECTS else "position"
            copies[record["message_id"]].append(record[key])
        return copies

    def stored(self, row: Row) -> Iterator[dict[str, str]]:
        table = self.stack.stores.rejects_table if row.store is Store.REJECTS else self.stack.stores.event_table
        for page in self.account.dynamodb().get_paginator("scan").paginate(TableName=table):
            for item in page["Items"]:
                yield {name: value["S"] for name, value in item.items() if "S" in value}

    def queued(self, row: Row) -> Iterator[dict[str, str]]:
        sqs, url = self.account.sqs(), self.queue_url(row.environment.get("EVENT_QUEUE_URL", "standard"))
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                yield json.loads(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


@pytest.fixture(scope="module")
def cloud():
    aws = EmbeddedAws()
    account = Account(endpoint_url=aws.url)
    cloud = Cloud(account=account, stack=create_local_stack(account, {}))
    cloud.keys.put(KeyRecord.of(KEY, customer_id="acme"))
    yield cloud
    aws.stop()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Return the answer to a message in one word: the code of a refusal, or "-" if API Gateway answered by itself."""

    status: int
    word: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.status} {self.word}"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A destination with one function process behind a proxy."""

    proxy: FaultProxy
    functions: Functions
    url: str
    http: urllib3.PoolManager

    async def send(self, message: dict[str, Any], key: str = KEY, path: str = "/segment") -> Answer:
        """Send a message as Segment does, or as a library does with another path."""
        headers, body = segment_headers(key), json.dumps(message).encode()
        options = {"headers": headers, "body": body, "timeout": MAX_WAIT_SECONDS, "retries": False}
        answer = await asyncio.to_thread(self.http.request, "POST", self.url + path, **options)
        content = json.loads(answer.data)
        return Answer(
            status=answer.status,
            word=content.get("code", content.get("status", "counted" if "accepted" in content else "-")),
            seconds=float(answer.headers[SECONDS_HEADER]),
        )

    async def send_again(self, message: dict[str, Any], path: str = "/segment") -> Answer:
        """Send a message once more, as Segment does. Retry while the server replaces a process that was given up."""
        for _ in range(MAX_TRIES):
            if (answer := await self.send(message, path=path)).status != 503:
                break
            await asyncio.sleep(0.2)
        return answer


SECONDS_HEADER = "seconds"


def timed(app):
    """Add a header with the seconds until the server began to answer."""

    async def timed_app(scope, receive, send):
        began = time.perf_counter()

        async def send_timed(event):
            if event["type"] == "http.response.start":
                event["headers"].append((SECONDS_HEADER.encode(), f"{time.perf_counter() - began:.3f}".encode()))
            await send(event)

        await app(scope, receive, send_timed)

    return timed_app


@asynccontextmanager
async def endpoint(cloud: Cloud, environment: dict[str, str], *, processes: int = 1) -> AsyncIterator[Endpoint]:
    async with FaultProxy(str(cloud.account.endpoint_url)) as proxy:
        stack = replace(cloud.stack, environment=cloud.environment(proxy, environment))
        api = Api(cloud.account, stack, Console(file=io.StringIO()), as_json=True)
        await api.functions.start(processes)
        server = uvicorn.Server(uvicorn.Config(timed(api.app), lifespan="off", log_level="critical"))
        with socket.create_server(("127.0.0.1", 0)) as listener, urllib3.PoolManager() as http:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            yield Endpoint(proxy=proxy, functions=api.functions, url=url, http=http)
            server.should_exit = True
            await serving
        await api.functions.stop()


def play(scene):
    """Run a coroutine outside the main thread, because a server would replace the main thread's signal handlers."""

    async def with_threads():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        return await scene

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, with_threads()).result()


def message(**fields: Any) -> dict[str, Any]:
    return {**sample_message("track", datetime.now(UTC)), **fields}


# The table


async def meet(cloud: Cloud, row: Row, fault: Fault, all_started: asyncio.Barrier) -> tuple[str, Cell]:
    """Send a message to a function that has just started and meets a fault, end the fault, and send the same message
    again.
    """
    body = message(**row.message)
    async with endpoint(cloud, row.environment) as destination:
        await all_started.wait()
        if fault is Fault.REFUSED and row.store is Store.KEYS:
            await destination.proxy.close_port()  # otherwise only from the store's first request on
        destination.proxy.rules = (Rule(stores=frozenset({row.store}), faults=(fault,)),)
        answer = await destination.send(body)
        tries = destination.proxy.requests[row.store]
        destination.proxy.rules = ()
        await destination.proxy.open_port()
        again = await destination.send_again(body)
    return body["messageId"], Cell(answer=answer, tries=tries, again=again, copies=[])


async def meet_all(cloud: Cloud, row: Row, faults: Collection[Fault] = tuple(Fault)) -> dict[Fault, Cell]:
    all_started = asyncio.Barrier(len(faults))
    met = await asyncio.gather(*(meet(cloud, row, fault, all_started) for fault in faults))
    copies = cloud.copies(row)
    return {
        fault: replace(cell, copies=copies[message_id]) for fault, (message_id, cell) in zip(faults, met, strict=True)
    }


def late(seconds: dict[Fault, float], limit: float) -> list[Fault]:
    """Return the faults that were answered too late. They are tried alone then: together they keep a machine busy."""
    return [fault for fault, taken in seconds.items() if taken >= limit]


@pytest.fixture(scope="module")
def cells_of(cloud, report):
    """Return a function that plays a row, once."""

    @cache
    def cells_of(row):
        cells = play(meet_all(cloud, row))
        for fault in late({fault: cell.answer.seconds for fault, cell in cells.items()}, SEGMENT_TIMEOUT_SECONDS):
            cells |= play(meet_all(cloud, row, [fault]))
        report.append(f"{row.name:<34}answered                         after   tries   sent again           copies")
        report.extend(
            f"  {fault:<32}{cell.answer!s:<30}{cell.answer.seconds:5.2f} s   {cell.tries}       {cell.again!s:<21}"
            f"{len(cell.copies)}"
            for fault, cell in cells.items()
        )
        return cells

    return cells_of


@pytest.fixture(scope="module", params=(*ROWS, *IN_LAMBDA_ROWS.values()), ids=lambda row: row.name)
def row_and_cells(request, cells_of):
    return request.param, cells_of(request.param)


@pytest.mark.parametrize("fault", Fault, ids=str)
def test_fault_is_answered_5xx_and_the_resend_is_stored_once(row_and_cells, fault):
    row, cells = row_and_cells
    cell = cells[fault]
    assert cell.answer.status in (500, 503)
    assert cell.answer.seconds < SEGMENT_TIMEOUT_SECONDS
    is_applied = fault in APPLIED and row.store not in READ_ONLY
    assert str(cell.again) == (row.again if is_applied else row.first)
    assert len(set(cell.copies)) == 1
    assert len(cell.copies) == 1 or row.at_least_once


@pytest.mark.parametrize("fault", Fault, ids=str)
@pytest.mark.parametrize("row", [row for row in ROWS if row.name in IN_LAMBDA_ROWS], ids=lambda row: row.name)
def test_lambdas_transport_gives_the_same_result_and_tries(cells_of, row, fault):
    assert cells_of(IN_LAMBDA_ROWS[row.name])[fault].outcome == cells_of(row)[fault].outcome


# A batch

BATCH = "/v1/batch"
BATCH_MESSAGES = 12
BATCH_ROWS = [IN_LAMBDA_ROWS["event table"], IN_LAMBDA_ROWS["queue"], ROWS[-1]]


async def meet_batch(cloud: Cloud, row: Row, fault: Fault, all_started: asyncio.Barrier) -> tuple[list[str], Cell]:
    """Let all calls of a batch meet a fault, end the fault, and send the same batch again, as a library does."""
    messages = [message() for _ in range(BATCH_MESSAGES)]
    async with endpoint(cloud, row.environment) as destination:
        await all_started.wait()
        destination.proxy.rules = (Rule(stores=frozenset({row.store}), faults=(fault,)),)
        answer = await destination.send({"batch": messages}, path=BATCH)
        tries = destination.proxy.requests[row.store]
        destination.proxy.rules = ()
        await destination.proxy.open_port()
        again = await destination.send_again({"batch": messages}, path=BATCH)
    ids = [body["messageId"] for body in messages]
    return ids, Cell(answer=answer, tries=tries, again=again, copies=[])


async def meet_batches(
    cloud: Cloud, row: Row, faults: Collection[Fault] = tuple(Fault)
) -> dict[Fault, tuple[list[str], Cell]]:
    all_started = asyncio.Barrier(len(faults))
    met = await asyncio.gather(*(meet_batch(cloud, row, fault, all_started) for fault in faults))
    return dict(zip(faults, met, strict=True))


@pytest.mark.parametrize("row", BATCH_ROWS, ids=lambda row: row.name)
def test_batch_is_503_during_a_fault_and_its_resend_is_stored(cloud, report, row):
    met = play(meet_batches(cloud, row))
    for fault in late({fault: cell.answer.seconds for fault, (_, cell) in met.items()}, LIBRARIES_GIVE_UP_SECONDS):
        met |= play(meet_batches(cloud, row, [fault]))
    copies = cloud.copies(row)
    for fault, (message_ids, cell) in met.items():
        assert (cell.answer.status, str(cell.again)) == (503, "200 counted"), fault
        assert cell.answer.seconds < LIBRARIES_GIVE_UP_SECONDS, fault
        for message_id in message_ids:
            assert len(set(copies[message_id])) == 1, fault
            assert len(copies[message_id]) == 1 or row.at_least_once, fault
    slowest = max(cell.answer.seconds for _, cell in met.values())
    report.append(f"{row.name}, a batch of {BATCH_MESSAGES} with each fault: 503 after {slowest:.2f} s at most")


# Random faults


def test_local_server_with_faults_stores_every_message_once(tmp_path, report):
    messages = [message() for _ in range(60)]

    def deliver(body):
        """Send a message until it succeeds, and return the statuses of all answers."""
        statuses = [server.post(body).status]
        while statuses[-1] >= 500 and len(statuses) < 100:
            statuses.append(server.post(body).status)
        return statuses

    with serving(tmp_path, "--faults", "0.3", "--faults-seed", "2") as server, ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(deliver, messages))
        table = server.account.dynamodb().scan(TableName=server.stores.event_table)["Items"]
    stored = [item["message_id"]["S"] for item in table]
    assert sorted(stored) == sorted(body["messageId"] for body in messages)
    assert {final for *_, final in statuses} == {200}
    failed = sum(len(before) for *before, _ in statuses)
    assert failed
    report.append(f"60 messages with faults at random: {failed} answers of 5xx, {len(stored)} stored")


# The deadline


async def start_and_hang(cloud, fault):
    """Send a message while the function's process is still starting."""
    async with endpoint(cloud, {}, processes=0) as destination:
        destination.proxy.rules = (Rule(stores=frozenset({Store.EVENTS}), faults=(fault,)),)
        body = message()
        answer, _ = await asyncio.gather(destination.send(body), destination.functions.start(1))
        destination.proxy.rules = ()
        return answer, await destination.send_again(body)


@pytest.mark.parametrize(
    ("fault", "first"), [(Fault.HANGS_AFTER, "503 event_store_unavailable"), (Fault.DRIBBLES, "503 -")], ids=str
)
def test_cold_start_counts_towards_the_deadline(cloud, report, fault, first):
    answer, again = play(start_and_hang(cloud, fault))
    assert [str(answer), str(again)] == [first, "200 duplicate"]
    assert answer.seconds < SEGMENT_TIMEOUT_SECONDS
    report.append(f"cold start, {fault}: {answer} after {answer.seconds:.2f} s")


async def drop_connections(cloud):
    """Call a host that neither accepts nor refuses connections, as behind a wrong security group."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):
            async with endpoint(cloud, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{address[1]}"}) as destination:
                return await destination.send(message())


def test_host_that_drops_connections_is_given_up_in_time(cloud, report):
    answer = play(drop_connections(cloud))
    assert str(answer) == "503 key_store_unavailable"
    assert answer.seconds < SEGMENT_TIMEOUT_SECONDS
    report.append(f"no connection: {answer} after {answer.seconds:.2f} s")


async def hang_sequentially(cloud):
    """Let the first read of the key hang, and both tries of the write."""
    async with endpoint(cloud, {}) as destination:
        hanging = Rule(stores=frozenset({Store.EVENTS}), faults=(Fault.HANGS_BEFORE,))
        destination.proxy.rules = (replace(hanging, stores=frozenset({Store.KEYS})), hanging)
        answering = asyncio.create_task(destination.send(message()))
        while not destination.proxy.requests[Store.KEYS]:  # noqa: ASYNC110 -- the proxy counts, and tells nobody
            await asyncio.sleep(0.01)
        destination.proxy.rules = (hanging,)
        return await answering, destination.proxy.requests


def test_both_store_calls_fit_into_the_deadline(cloud, report):
    answer, requests = play(hang_sequentially(cloud))
    assert str(answer) == "503 event_store_unavailable"
    assert answer.seconds < SEGMENT_TIMEOUT_SECONDS
    assert requests == {Store.KEYS: 2, Store.EVENTS: 2}
    report.append(f"one key read and both writes time out: {answer} after {answer.seconds:.2f} s")


# The key store


CACHE_SECONDS = 1
GRACE_SECONDS = 4
CACHE = {"KEY_CACHE_SECONDS": str(CACHE_SECONDS), "KEY_GRACE_SECONDS": str(GRACE_SECONDS)}


async def outlast_an_outage(cloud):
    async with endpoint(cloud, CACHE) as destination:
        began = time.monotonic()
        answers = [await destination.send(message())]
        destination.proxy.rules = (Rule(stores=frozenset({Store.KEYS}), faults=(Fault.UNAVAILABLE,)),)
        for seconds in (CACHE_SECONDS + 0.2, GRACE_SECONDS + 0.5):
            await asyncio.sleep(began + seconds - time.monotonic())
            answers.append(await destination.send(message()))
        destination.proxy.rules = ()
        answers.append(await destination.send(message()))
        return [str(answer) for answer in answers]


def test_cached_key_works_in_an_outage_until_its_grace_time_ends(cloud):
    answers = play(outlast_an_outage(cloud))
    assert answers == ["200 stored", "200 stored", "503 key_store_unavailable", "200 stored"]


async def revoke(cloud):
    key = "faults-e2e-revoked"
    record = KeyRecord.of(key, customer_id="acme")
    cloud.keys.put(record)
    async with endpoint(cloud, CACHE) as destination:
        before = await destination.send(message(), key)
        cloud.keys.put(replace(record, status=Status.REVOKED))
        await asyncio.sleep(CACHE_SECONDS)
        return [str(before), str(await destination.send(message(), key))]


def test_revoked_key_is_refused_within_the_cache_time(cloud):
    assert play(revoke(cloud)) == ["200 stored", "401 revoked_key"]


async def flood(cloud, keys):
    async with endpoint(cloud, {}) as destination:
        answers = {str(await destination.send(message(), key)) for key in keys}
        return answers, destination.proxy.requests


@pytest.mark.parametrize(
    ("keys", "reads"),
    [
        pytest.param(["unknown"] * 50, {Store.KEYS: 1}, id="the same"),
        pytest.param([f"ddk_{number:036}" for number in range(50)], {}, id="mistyped ones"),
    ],
)
def test_flood_of_unknown_keys_causes_few_reads(cloud, keys, reads):
    assert play(flood(cloud, keys)) == ({"401 unknown_key"}, reads)
