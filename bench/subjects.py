"""What is measured: functions, each in a process of its own that counts its own processor time."""

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import click

from bench import subject as subject_script
from bench.lambda_environment import destination_environment, lambda_environment, peer_environment
from bench.samples import ACCEPTED, DUPLICATE, QUEUED, REFUSED, SENT_AGAIN, UNAUTHORISED, Sample
from bench.store_server import DUPLICATES_TABLE, StoreServer
from destination.paths import ROOT

PEERS = ROOT / "bench" / "peers"
ANSWER_SECONDS = 120
"""For the calls of one line, and for loading; valgrind makes both fifty times slower."""

CAPTURE_NUMBER = 90_909_090
"""The number of the call whose write is taken for a pattern: it stands nowhere else in it."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Where a function is: the folders that it is looked up in, in that order, and its `module:name`."""

    folders: tuple[Path, ...]
    target: str


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The functions that are compared, as they lie in the checkout or in packages."""

    destination: Code
    stock: Code
    canonical: Code
    canonical_jsonschema: Code
    schemas: Path


def checkout_codes() -> Codes:
    """Return the functions of the checkout, which take their packages from the Python that runs them."""
    canonical = PEERS / "canonical"
    return Codes(
        destination=Code(folders=(ROOT,), target="handler.app:lambda_handler"),
        stock=Code(folders=(PEERS / "stock_client",), target="app:put_item"),
        canonical=Code(folders=(canonical,), target="app:lambda_handler"),
        canonical_jsonschema=Code(folders=(PEERS / "canonical_jsonschema", canonical), target="app:lambda_handler"),
        schemas=ROOT / "schemas",
    )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A function under test, and the event that it is called with."""

    name: str
    code: Code
    environment: Mapping[str, str]
    sample: Sample


def warm_subjects(codes: Codes, store: StoreServer, python: Sequence[str]) -> list[Subject]:
    """Return what `warm` compares; the first one is what the others are divided by.

    Stock clients write just what the destination writes, which is taken from what it sends.
    """
    table = {"EVENT_SINK": "dynamodb"}
    queue = {"EVENT_SINK": "sqs"}
    duplicates = {"EVENT_TABLE": DUPLICATES_TABLE}
    outside_lambda = {"AWS_LAMBDA_FUNCTION_NAME": ""}
    peers = peer_environment(codes.schemas)

    def destination(name: str, overrides: Mapping[str, str], sample: Sample) -> Subject:
        environment = destination_environment(store_url=store.url, overrides=overrides)
        return Subject(name=name, code=codes.destination, environment=environment, sample=sample)

    accepted = destination("destination, DynamoDB, accepted", table, ACCEPTED)
    queued = destination("destination, SQS, accepted", queue, QUEUED)
    put_item = captured(accepted, store, python, operation="PutItem", arguments=("TableName", "Item"))
    send_message = captured(
        queued, store, python, operation="SendMessage", arguments=("QueueUrl", "MessageBody", "MessageAttributes")
    )
    send_code = replace(codes.stock, target="app:send_message")
    return [
        Subject(name="stock put_item", code=codes.stock, environment={}, sample=put_item),
        Subject(name="stock send_message", code=send_code, environment={}, sample=send_message),
        accepted,
        destination("destination, DynamoDB, accepted, botocore's transport", {**table, **outside_lambda}, ACCEPTED),
        destination("destination, DynamoDB, duplicate", {**table, **duplicates}, DUPLICATE),
        destination("destination, DynamoDB, refused", table, REFUSED),
        destination("destination, DynamoDB, unauthorised", table, UNAUTHORISED),
        queued,
        destination("destination, SQS, sent again", queue, SENT_AGAIN),
        destination("destination, SQS, refused", queue, REFUSED),
        destination("destination, SQS, unauthorised", queue, UNAUTHORISED),
        Subject(name="canonical, Powertools' validate", code=codes.canonical, environment=peers, sample=ACCEPTED),
        Subject(
            name="canonical, jsonschema built once",
            code=codes.canonical_jsonschema,
            environment=peers,
            sample=ACCEPTED,
        ),
    ]


def captured(
    subject: Subject, store: StoreServer, python: Sequence[str], *, operation: str, arguments: Sequence[str]
) -> Sample:
    """Let a subject write once, and return the arguments of that write as an event for a stock client."""
    with SubjectProcess(subject, store, python) as process:
        process.call(first=CAPTURE_NUMBER, count=1)
    request = json.loads(store.received().last[operation])
    text = json.dumps({name: request[name] for name in arguments})
    return Sample(
        event=text.replace(str(CAPTURE_NUMBER), subject_script.NUMBER),
        status=202 if operation == "SendMessage" else 200,
    )


@dataclass(frozen=True, kw_only=True)
class Took:
    """What a call took, in seconds: of the processor, and from its begin to its end."""

    processor: float
    elapsed: float


class SubjectProcess:
    """A running subject; `python` is the command of an interpreter, such as one under valgrind."""

    def __init__(
        self,
        subject: Subject,
        store: StoreServer,
        python: Sequence[str],
        *,
        printed: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Start it; it loads beside what happens here until `wait_until_loaded`."""
        self.subject = subject
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `stop`
        task_root = subject.code.folders[-1]
        self._process = subprocess.Popen(  # noqa: S603 -- our own script
            [*python, "-P", subject_script.__file__, subject.code.target, str(printed or os.devnull), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            cwd=task_root,
            env={
                **lambda_environment(store_url=store.url, task_root=task_root),
                **subject.environment,
                "PYTHONPATH": os.pathsep.join(str(folder) for folder in subject.code.folders),
            },
        )
        self._answers = selectors.DefaultSelector()
        self._answers.register(self._stdout, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        try:
            self.wait_until_loaded()
        except click.ClickException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_loaded(self) -> None:
        """Wait for the function; raises `click.ClickException` with what it said when it can't load."""
        self._read()

    def call(self, *, first: int, count: int) -> float:
        """Call the function, and return its processor time per call, in seconds.

        Raises `click.ClickException` for an answer that is not the one that the sample asks for.
        """
        return self.send(self.subject.sample, first=first, count=count).processor

    def send(self, sample: Sample, *, first: int, count: int) -> Took:
        """Call the function with a sample, and return what a call took; raises as `call` does."""
        self._stdin.write(json.dumps({"event": sample.event, "first": first, "count": count}).encode() + b"\n")
        self._stdin.flush()
        told = self._read()
        response: dict[str, Any] = told["response"] or {}
        if response.get("statusCode") != sample.status or sample.word not in response.get("body", ""):
            raise click.ClickException(
                f"{self.subject.name}: the answer is {response} instead of {sample.status} {sample.word}"
            )
        return Took(processor=told["seconds"] / count, elapsed=told["elapsed"] / count)

    def stop(self) -> None:
        """End the process, which waits for work."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
        self._answers.close()
        self._complaints.close()

    @property
    def _stdin(self) -> Any:  # noqa: ANN401 -- Popen's are declared as optional
        return self._process.stdin

    @property
    def _stdout(self) -> Any:  # noqa: ANN401 -- Popen's are declared as optional
        return self._process.stdout

    def _read(self) -> dict[str, Any]:
        line = self._stdout.readline() if self._answers.select(ANSWER_SECONDS) else b""
        if not line:
            self._process.kill()
            self._process.wait()
            self._complaints.seek(0)
            complaint = self._complaints.read().decode(errors="replace").strip()
            raise click.ClickException(
                f"{self.subject.name}: it did not answer within {ANSWER_SECONDS} seconds or ended\n{complaint}"
            )
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def started(subjects: Sequence[Subject], store: StoreServer, python: Sequence[str]) -> Iterator[list[SubjectProcess]]:
    """Start a process for each subject, until the end of the context."""
    with ExitStack() as stack:
        processes = []
        for subject in subjects:
            processes.append(SubjectProcess(subject, store, python))
            stack.callback(processes[-1].stop)
        for process in processes:
            process.wait_until_loaded()
        yield processes
