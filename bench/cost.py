"""*cost*: what a message costs in dollars, and which limit is met first, from what is measured here and a price table.

Measured are the processor time of a request by size and store, the bytes that are written for it, and its line in the
log; the prices are in `prices.json`, and the rest is `cost_model`. `--write` keeps what was measured in
`recorded.json`, and updates the tables of `docs/explanation/scale.md`; `--recorded` measures nothing, and reads that
file.
"""

import base64
import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

from bench import cost_docs, samples
from bench.cost_model import KILOBYTE, NETWORK, RECORDED, Batch, Recorded, Sample, Store, load_prices
from bench.figures import NotRunError, Options, Table, median
from bench.lambda_environment import destination_environment
from bench.machine import facts
from bench.packages import chosen_codes
from bench.store_server import StoreServer
from bench.subject import NUMBER
from bench.subjects import Code, Subject, SubjectProcess, captured, started
from destination.console import progress
from destination.deployment.stack import ROOT
from handler.items import item_bytes

COMMAND = "python -m bench cost --write"
SIZES_KB = (1, 4, 32, 300)
ROUNDS = 9
QUICK_ROUNDS = 3
CALLS = 40
"""Calls of each function in one round."""
BATCH_KB = 1
BATCH_MESSAGES = 100
"""What Segment's libraries send at once."""
COLD_RESULTS = ROOT / "build" / "bench.json"
COLD_ROW = "destination, .pyc"


def measure(options: Options, *, write: bool = False, recorded: bool = False) -> list[Table]:
    """Measure, unless `recorded`, and compute; raises `NotRunError` where nothing is recorded yet."""
    if recorded and not RECORDED.exists():
        raise NotRunError(f"nothing is recorded: {COMMAND}")
    figures = Recorded.load() if recorded else measured(options)
    if write:
        RECORDED.write_text(json.dumps(asdict(figures), indent=2, ensure_ascii=False) + "\n")
        cost_docs.DOCS.write_text(cost_docs.rewritten(cost_docs.DOCS.read_text(), load_prices(), figures))
    return cost_docs.tables(load_prices(), figures)


def measured(options: Options) -> Recorded:
    """Measure what prices are multiplied by."""
    codes, python = chosen_codes(options)
    with StoreServer() as store:
        subjects = {
            (sink, size): store_subject(sink, size, code=codes.destination, store_url=store.url)
            for sink in Store
            for size in SIZES_KB
        }
        command = [str(python)]
        times = _times(list(subjects.values()), store, command, rounds=QUICK_ROUNDS if options.quick else ROUNDS)
        written = {key: stored_bytes(key[0], subject, store, command) for key, subject in subjects.items()}
        line_bytes = measured_line_bytes(subjects[Store.DYNAMODB, SIZES_KB[0]], store, command)
    batches = measured_batches(codes.destination, command, rounds=QUICK_ROUNDS if options.quick else ROUNDS)
    told = facts()
    return Recorded(
        date=told["date"],
        command=COMMAND,
        commit=told["commit"],
        processor=told["machine"]["processor"],
        python=told["versions"]["python"],
        request_line_bytes=line_bytes,
        **_cold_start(),
        samples=tuple(
            Sample(
                store=sink,
                kilobytes=size,
                processor_microseconds=median(seconds * 1e6 for seconds in times[subject.name]),
                stored_bytes=written[sink, size],
            )
            for (sink, size), subject in subjects.items()
        ),
        batches=batches,
    )


def measured_batches(code: Code, python: Sequence[str], *, rounds: int) -> tuple[Batch, ...]:
    """Measure batches against single messages, with a store that waits as DynamoDB does."""
    with StoreServer(wait_seconds=NETWORK[Store.DYNAMODB].value / 1000) as store:
        return tuple(_measured_batch(sink, code, store, python, rounds=rounds) for sink in Store)


def _measured_batch(sink: Store, code: Code, store: StoreServer, python: Sequence[str], *, rounds: int) -> Batch:
    single = store_subject(sink, BATCH_KB, code=code, store_url=store.url)
    together = replace(single, sample=samples.batch(single.sample, BATCH_MESSAGES))
    ratios = []
    with SubjectProcess(single, store, python) as process:
        for number in range(rounds + 1):
            one = process.send(single.sample, first=number * CALLS, count=CALLS)
            all_of_them = process.send(together.sample, first=number * CALLS, count=1)
            ratios.append(all_of_them.processor / BATCH_MESSAGES / one.processor)
    return Batch(
        store=sink,
        kilobytes=BATCH_KB,
        messages=BATCH_MESSAGES,
        processor_ratio=median(ratios[1:]),  # without the one that warms up
        line_bytes=measured_line_bytes(together, store, python),
    )


def store_subject(sink: Store, kilobytes: int, *, code: Code, store_url: str) -> Subject:
    """Return the destination with a store, and a message for it."""
    return Subject(
        name=f"{sink}, {kilobytes} KB",
        code=code,
        environment=destination_environment(store_url=store_url, overrides=_overrides(sink, store_url)),
        sample=sample(kilobytes, status=200 if sink is Store.DYNAMODB else 202),
    )


def sample(kilobytes: int, *, status: int) -> samples.Sample:
    """Make an event whose body has just so many KB, filled up with products as a big order has them."""
    event = json.loads(samples.ACCEPTED.event)
    body = json.loads(event["body"])
    wanted = kilobytes * KILOBYTE  # what takes the place of NUMBER is as long
    draw = Random(kilobytes)  # noqa: S311 -- to be repeatable, not secret
    size = _size(body)
    while size + _size(product := _product(draw)) + len(",") <= wanted:
        body["properties"]["products"].append(product)
        size += _size(product) + len(",")
    body["context"]["page"]["title"] += "." * (wanted - size)
    event["body"] = _encoded(body)
    event["headers"]["content-length"] = str(kilobytes * KILOBYTE)
    return samples.Sample(event=json.dumps(event), status=status)


def _product(draw: Random) -> dict[str, Any]:
    name = " ".join(draw.choices(("green", "black", "tea", "pot", "cup", "spoon", "tin", "box"), k=3))
    return {
        "product_id": f"{draw.getrandbits(64):016x}",
        "sku": f"G-{draw.randint(1, 99999)}",
        "name": name,
        "price": round(draw.uniform(1, 200), 2),
        "quantity": draw.randint(1, 9),
        "url": f"https://shop.example.com/{name.replace(' ', '-')}",
    }


def _encoded(body: Mapping[str, Any]) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _size(body: Mapping[str, Any]) -> int:
    return len(_encoded(body).encode())


def _overrides(sink: Store, store_url: str) -> dict[str, str]:
    if sink is Store.DYNAMODB:
        return {"EVENT_SINK": "dynamodb"}
    name = "events.fifo" if sink is Store.FIFO else "events"
    return {"EVENT_SINK": "sqs", "EVENT_QUEUE_URL": f"{store_url}/123456789012/{name}"}


def _times(
    subjects: Sequence[Subject], store: StoreServer, python: Sequence[str], *, rounds: int
) -> Mapping[str, list[float]]:
    """Call all in turns, and return the seconds of processor time per call by round."""
    times: dict[str, list[float]] = defaultdict(list)
    with started(subjects, store, python) as processes, progress("cost", total=rounds * len(subjects)) as advance:
        for process in processes:
            process.call(first=0, count=CALLS)
        for number in range(1, rounds + 1):
            for process in processes if number % 2 else reversed(processes):
                times[process.subject.name].append(process.call(first=number * CALLS, count=CALLS))
                advance()
    return times


def stored_bytes(sink: Store, subject: Subject, store: StoreServer, python: Sequence[str]) -> int:
    """Let a function write, and return the size of that as the store counts it."""
    if sink is Store.DYNAMODB:
        put = captured(subject, store, python, operation="PutItem", arguments=("Item",))
        item = json.loads(put.event.replace(NUMBER, "00000000"))["Item"]
        return item_bytes({name: _decoded(attribute) for name, attribute in item.items()})
    sent = captured(subject, store, python, operation="SendMessage", arguments=("MessageBody", "MessageAttributes"))
    message = json.loads(sent.event.replace(NUMBER, "00000000"))
    attributes = message["MessageAttributes"].items()
    texts = [text for name, attribute in attributes for text in (name, *attribute.values())]
    return sum(len(text.encode()) for text in (message["MessageBody"], *texts))


def _decoded(attribute: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- DynamoDB's attributes, whose types boto3's stubs spell
    """Return an attribute with its octets, which stand in Base64 on the wire."""
    return {kind: base64.b64decode(value) if kind == "B" else value for kind, value in attribute.items()}


def measured_line_bytes(subject: Subject, store: StoreServer, python: Sequence[str]) -> int:
    """Return the bytes of the lines that a function prints for a request."""
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "lines"
        with SubjectProcess(subject, store, python, printed=printed) as process:
            process.call(first=0, count=CALLS)
        return round(printed.stat().st_size / CALLS)


def _cold_start() -> dict[str, float]:
    """Return what `cold` measured here, else what is recorded; raises `NotRunError` where neither is there."""
    try:
        tables = json.loads(COLD_RESULTS.read_bytes())["cold"]["tables"]
        [figures] = [row["figures"] for table in tables for row in table["rows"] if row["name"] == COLD_ROW][:1]
        return {"init_milliseconds": figures["init"], "first_request_milliseconds": figures["first request"]}
    except (FileNotFoundError, KeyError, ValueError):
        if not RECORDED.exists():
            raise NotRunError("no cold start was measured yet: python -m bench cold") from None
    kept = Recorded.load()
    return {
        "init_milliseconds": kept.init_milliseconds,
        "first_request_milliseconds": kept.first_request_milliseconds,
    }
