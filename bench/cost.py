"""Compute what messages cost in dollars, from what is measured here and the prices in bench/prices.json.

By store, size, memory and rate, with the limits of AWS that a rate meets. Measured are the processor time of a request,
the bytes that are written for a message, and the bytes of the request's log line; `cost_model` has the rest.
"""

import base64
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import cost_docs, samples
from bench.cost_model import RECORDED, Data, Store, assumed
from bench.figures import Options, Table, median, take_turns
from bench.packages import chosen_codes
from bench.report import facts
from bench.store_server import StoreServer
from bench.subjects import Code, Subject, SubjectProcess, destination, started
from destination.paths import ROOT
from handler.items import item_bytes

SIZES_KB = (1, 4, 32, 300)
BATCH = "batch"
BATCH_MESSAGES = 100
"""Segment's libraries send so many at once."""
KINDS = {
    **{f"{size} KB": {"kilobytes": size, "messages": 1} for size in SIZES_KB},
    BATCH: {"kilobytes": 1, "messages": BATCH_MESSAGES},
}
ROUNDS, QUICK_ROUNDS = 9, 3
CALLS = 40
"""Single messages of each size in one round."""
COLD_RESULTS = ROOT / "build" / "bench.json"
COLD_ROW = "destination, .pyc"


def measure(options: Options, *, write: bool = False, recorded: bool = False) -> list[Table]:
    """Measure, unless `recorded`, and compute."""
    data = Data.load()
    if not recorded:
        data = replace(data, recorded=measured(options))
    if write:
        RECORDED.write_text(json.dumps(data.recorded, indent=2, ensure_ascii=False) + "\n")
        cost_docs.DOCS.write_text(cost_docs.rewritten(cost_docs.DOCS.read_text(), data))
    return cost_docs.tables(data)


def measured(options: Options) -> dict[str, Any]:
    """Measure each case; return the content of `recorded.json`.

    `bytes_date` is when bytes were measured. They are the same on any machine, so they may be newer than the times.
    """
    codes, python = chosen_codes(options)
    # The store waits as DynamoDB does: the threads of a batch would otherwise compete for the processor.
    with StoreServer(wait_seconds=assumed("network_dynamodb_ms") / 1000) as store:
        subjects = [store_subject(sink, codes.destination, store) for sink in Store]
        times = _times(subjects, store, python, rounds=QUICK_ROUNDS if options.quick else ROUNDS)
        cases = [
            {"store": subject.name, **KINDS[kind], "processor_ms": median(times[f"{subject.name} {kind}"]), **written}
            for subject in subjects
            for kind, written in zip(KINDS, written_bytes(subject, store, python), strict=True)
        ]
    told = facts()
    machine = {name: told[name] for name in ("date", "commit", "processor", "python")}
    return {**machine, **_cold_start(), "bytes_date": told["date"], "cases": cases}


def _requests(sink: Store) -> dict[str, samples.Sample]:
    """Return a request of each kind."""
    status = 200 if sink is Store.DYNAMODB else 202
    singles = {kind: samples.order(size["kilobytes"], status=status) for kind, size in KINDS.items()}
    return {**singles, BATCH: samples.batch(singles[BATCH], BATCH_MESSAGES)}


def store_subject(sink: Store, code: Code, store: StoreServer) -> Subject:
    """Return the destination with a store."""
    queue = "events.fifo" if sink is Store.FIFO else "events"
    setting = "dynamodb" if sink is Store.DYNAMODB else "sqs"
    url = f"{store.url}/123456789012/{queue}"
    return destination(sink, code, store, _requests(sink)["1 KB"], EVENT_SINK=setting, EVENT_QUEUE_URL=url)


def _times(
    subjects: Sequence[Subject], store: StoreServer, python: Sequence[str], *, rounds: int
) -> Mapping[str, list[float]]:
    """Send all requests in turns; return the milliseconds of processor time of each by round."""

    def run(process: SubjectProcess, request: samples.Sample, count: int, number: int) -> float:
        return process.send(request, first=number * CALLS, count=count).processor * 1000

    with started(subjects, store, python) as processes:
        runs = {
            f"{process.subject.name} {kind}": partial(run, process, request, 1 if kind == BATCH else CALLS)
            for process in processes
            for kind, request in _requests(Store(process.subject.name)).items()
        }
        return take_turns("cost", runs, rounds)


def written_bytes(subject: Subject, store: StoreServer, python: Sequence[str]) -> Iterator[dict[str, int]]:
    """Send a request of each kind; yield the bytes of a stored message and of the request's log line."""
    sink, stored = Store(subject.name), []
    with tempfile.TemporaryDirectory() as folder:
        printed = Path(folder) / "lines"
        with SubjectProcess(subject, store, python, printed=printed) as process:
            process.call(first=1, count=1)  # the first line tells more
            for kind, request in _requests(sink).items():
                process.send(request, first=0, count=1)
                stored.append(_stored_bytes(sink, store.received().last, is_batch=kind == BATCH))
        lines = printed.read_bytes().splitlines(keepends=True)[1:]
    for message, line in zip(stored, lines, strict=True):
        yield {"stored_bytes": message, "line_bytes": len(line)}


def _stored_bytes(sink: Store, last: Mapping[str, str], *, is_batch: bool) -> int:
    """Return the size of the message that was written last, as its store counts it."""
    if sink is Store.DYNAMODB:
        item = json.loads(last["PutItem"])["Item"]
        return item_bytes({name: _decoded(attribute) for name, attribute in item.items()})
    message = json.loads(last["SendMessageBatch"])["Entries"][-1] if is_batch else json.loads(last["SendMessage"])
    attributes = message["MessageAttributes"].items()
    texts = [text for name, attribute in attributes for text in (name, *attribute.values())]
    return sum(len(text.encode()) for text in (message["MessageBody"], *texts))


def _decoded(attribute: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- DynamoDB's attributes, whose types boto3's stubs spell
    """Return an attribute with its bytes, which are in Base64 in the request."""
    return {kind: base64.b64decode(value) if kind == "B" else value for kind, value in attribute.items()}


def _cold_start() -> dict[str, float]:
    """Return the last cold start that `bench cold` measured here, or the recorded one."""
    try:
        tables = json.loads(COLD_RESULTS.read_bytes())["cold"]["tables"]
        figures = next(table["rows"][COLD_ROW] for table in tables if table["name"] == "cold")
        return {"init_ms": figures["init"], "first_request_ms": figures["first request"]}
    except (OSError, LookupError, StopIteration):
        kept = Data.load().recorded
        return {name: kept[name] for name in ("init_ms", "first_request_ms")}
