"""The measured functions, each in a process that counts its own processor time."""

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Self, cast

import click

from bench import samples
from bench import subject as subject_script
from bench.lambda_environment import destination_environment, lambda_environment, peer_environment
from bench.samples import Sample
from bench.store_server import DUPLICATES_TABLE, StoreServer
from destination.paths import ROOT
from handler.items import read_text_attribute

PEERS = ROOT / "bench" / "peers"
STOCK = "stock put_item"
LARGER = ", 1.5 KB"
"""The other rows send a message of about 1 KB."""
BARE = "bare put"
TRIMMED = "bare put, in our package"
CLIENT = "bare put, with our client"
PEER_FOLDERS = {
    BARE: ("bare_put",),
    "canonical, Powertools' validate": ("canonical",),
    "canonical, jsonschema built once": ("canonical", "canonical_jsonschema"),
}
"""Each later folder replaces files of those before; the last one has the requirements."""
CAPTURE_NUMBER = 90_909_090
"""The number of a call whose write becomes a stock client's event; it occurs nowhere else in it."""


@dataclass(frozen=True, kw_only=True)
class Code:
    """Where a function is: the folders that Python searches for it, in that order, and its `module:name`."""

    folders: tuple[Path, ...]
    target: str


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The functions that are compared, from the checkout or from packages; `peers` has the names of `PEER_FOLDERS`."""

    destination: Code
    trimmed: Code
    client: Code
    stock: Code
    peers: Mapping[str, Code]

    @classmethod
    def of(cls, package: Path, peers: Mapping[str, tuple[Path, ...]]) -> Self:
        """Return the functions in a package of the destination, and in folders of its peers."""
        return cls(
            destination=Code(folders=(package,), target="handler.app:lambda_handler"),
            trimmed=Code(folders=(PEERS / "bare_put", package), target="app:lambda_handler"),
            client=Code(folders=(PEERS / "bare_put_client", package), target="app:lambda_handler"),
            stock=Code(folders=(PEERS / "stock_client", *peers[BARE]), target="app:put_item"),
            peers={name: Code(folders=folders, target="app:lambda_handler") for name, folders in peers.items()},
        )


def checkout_codes() -> Codes:
    """Return the functions of the checkout, which use the packages of the Python that runs them."""
    peers = {name: tuple(PEERS / folder for folder in reversed(folders)) for name, folders in PEER_FOLDERS.items()}
    return Codes.of(ROOT, peers)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A function under test, the event that it is called with, and the stock client that it is compared with."""

    name: str
    code: Code
    environment: Mapping[str, str]
    sample: Sample
    reference: str = STOCK


def destination(name: str, code: Code, store: StoreServer, sample: Sample, **overrides: str) -> Subject:
    """Return the destination with a store and some variables of its own."""
    environment = destination_environment(store_url=store.url, overrides=overrides)
    return Subject(name=name, code=code, environment=environment, sample=sample)


def warm_subjects(codes: Codes, store: StoreServer, python: Sequence[str]) -> list[Subject]:
    """Return the functions that `warm` compares; stock clients write the same, uncompressed."""

    def ours(name: str, sample: Sample, **overrides: str) -> Subject:
        return destination(f"destination, {name}", codes.destination, store, sample, **overrides)

    accepted = ours("DynamoDB, accepted", samples.ACCEPTED)
    queued = ours("SQS, accepted", samples.QUEUED, EVENT_SINK="sqs")
    larger = replace(ours(f"DynamoDB, accepted{LARGER}", samples.order(1.5, status=200)), reference=STOCK + LARGER)
    put_item, put_larger = (
        captured(each, store, python, "PutItem", "TableName", "Item") for each in (accepted, larger)
    )
    send_message = captured(queued, store, python, "SendMessage", "QueueUrl", "MessageBody", "MessageAttributes")
    send_code = replace(codes.stock, target="app:send_message")
    return [
        Subject(name=STOCK, code=codes.stock, environment={}, sample=put_item),
        Subject(name=STOCK + LARGER, code=codes.stock, environment={}, sample=put_larger, reference=STOCK + LARGER),
        Subject(name="stock send_message", code=send_code, environment={}, sample=send_message),
        peer(CLIENT, codes.client),
        accepted,
        larger,
        ours("DynamoDB, accepted, botocore's transport", samples.ACCEPTED, AWS_LAMBDA_FUNCTION_NAME=""),
        ours("DynamoDB, duplicate", samples.DUPLICATE, EVENT_TABLE=DUPLICATES_TABLE),
        ours("DynamoDB, refused", samples.REFUSED),
        ours("DynamoDB, unauthorised", samples.UNAUTHORISED),
        queued,
        *(peer(name, code) for name, code in codes.peers.items()),
    ]


def peer(name: str, code: Code) -> Subject:
    """Return a function to compare with; its response has another body."""
    sample = replace(samples.ACCEPTED, word="")
    return Subject(name=name, code=code, environment=peer_environment(), sample=sample)


def captured(subject: Subject, store: StoreServer, python: Sequence[str], operation: str, *arguments: str) -> Sample:
    """Let a subject write once; return the arguments of that write as an event for a stock client.

    A stock client writes a message as text, whether or not the destination compresses it.
    """
    with SubjectProcess(subject, store, python) as process:
        process.send(subject.sample, first=CAPTURE_NUMBER, count=1)
    request = json.loads(store.received().last[operation])
    if "B" in request.get("Item", {}).get("message", {}):
        octets = base64.b64decode(request["Item"]["message"]["B"])
        request["Item"]["message"] = {"S": read_text_attribute({"B": octets})}
    text = json.dumps({name: request[name] for name in arguments})
    status = 202 if operation == "SendMessage" else 200
    return Sample(event=text.replace(str(CAPTURE_NUMBER), subject_script.NUMBER), status=status)


@dataclass(frozen=True, kw_only=True)
class Took:
    """The seconds that a call took: of the processor, and from start to end."""

    processor: float
    elapsed: float


class SubjectProcess:
    """A running subject; `python` is the command of an interpreter, such as one under valgrind.

    `printed` is the file for the function's log.
    """

    def __init__(
        self,
        subject: Subject,
        store: StoreServer,
        python: Sequence[str],
        *,
        printed: Path | None = None,
    ) -> None:
        """Start the process, and wait until it has loaded the function."""
        self.subject = subject
        task_root = subject.code.folders[-1]
        self._process = subprocess.Popen(  # noqa: S603 -- our own script
            [*python, "-P", subject_script.__file__, subject.code.target, str(printed or os.devnull)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=task_root,
            env={
                **lambda_environment(store_url=store.url, task_root=task_root),
                **subject.environment,
                "PYTHONPATH": os.pathsep.join(map(str, subject.code.folders)),
            },
        )
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which ends it

    def call(self, *, first: int, count: int) -> Took:
        """Call the function with its own sample; return what one call took."""
        return self.send(self.subject.sample, first=first, count=count)

    def send(self, sample: Sample, *, first: int, count: int) -> Took:
        """Call the function with a sample; return what one call took.

        Raises `click.ClickException` for another response than the sample expects.
        """
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(json.dumps({"event": sample.event, "first": first, "count": count}) + "\n")
        stdin.flush()
        told = self._read()
        response: dict[str, Any] = told["response"] or {}
        if response.get("statusCode") != sample.status or sample.word not in response.get("body", ""):
            expected = f"{sample.status} {sample.word}".strip()
            raise click.ClickException(f"{self.subject.name}: the response is {response} instead of {expected}")
        return Took(processor=told["seconds"] / count, elapsed=told["elapsed"] / count)

    def _read(self) -> dict[str, Any]:
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            self._process.communicate()
            status = self._process.returncode
            raise click.ClickException(f"{self.subject.name}: its process ended with exit code {status}; see above")
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def started(subjects: Sequence[Subject], store: StoreServer, python: Sequence[str]) -> Iterator[list[SubjectProcess]]:
    """Run a process for each subject until the end of the context."""
    with ExitStack() as stack:
        yield [stack.enter_context(SubjectProcess(subject, store, python)) for subject in subjects]
