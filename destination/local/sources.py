"""Lambda's event source mappings on this machine: all functions of template.yaml that read streams and queues.

docs/reference/cli.md lists the differences from Lambda.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import click
from botocore.config import Config

from destination.deployment.stack import Account, local_store_name
from destination.local.batches import Consumer
from destination.local.function_process import Invocation
from destination.local.functions import Function, Functions
from destination.local.mappings import QueueMapping, StreamMapping
from destination.local.queues import QueueSource
from destination.local.streams import StreamSource
from destination.local.traffic import ServerTraffic
from handler.decode import JsonObject
from handler.errors import STORE_ERRORS
from handler.sinks import sink_named

POLL_CONFIG = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
"""In seconds. A failed call is repeated anyway."""


NICENESS = 10
"""Niceness of these functions' processes, so that requests get a processor first."""


class EventSource(Protocol):
    """Delivers records to a function."""

    async def run(self) -> None:
        """Deliver records until cancelled."""


class EventSources:
    """The functions of a template that read streams and queues, with a process for each, and their event sources.

    The requests in `traffic` go first. `tell` is called with a report of each event, and `show` with a function's
    output; both begin with the function's name. `notices` lists functions that can't run because a stream or queue is
    missing. `redelivers` decides at random whether a finished batch is delivered again. Raises `click.ClickException`
    for a property that is not emulated.
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        parameters: Mapping[str, str],
        environment: Mapping[str, str],
        account: Account,
        *,
        traffic: ServerTraffic,
        tell: Callable[[str, str], None],
        show: Callable[[str, str], None],
        redelivers: Callable[[], bool] = lambda: False,
    ) -> None:
        self._redelivers = redelivers
        sink = parameters.get("EventSink", template["Parameters"]["EventSink"]["Default"])
        self._stores = _Stores(account, template["Resources"], traffic, are_queues_filled=sink_named(sink).feeds_queue)
        self._tell = tell
        self._show = show
        self._functions: list[Functions] = []
        self._sources: list[EventSource] = []
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Serverless::Function" and _exists(resource, template, parameters):
                self._add(Function.of(name, resource["Properties"]), resource["Properties"]["Events"], environment)
        self.notices = self._stores.notices()

    def _add(self, function: Function, events: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str]) -> None:
        functions = Functions(function, environment, niceness=NICENESS)

        def tell(text: str) -> None:
            self._tell(function.name, text)

        async def invoke(event: JsonObject) -> Invocation:
            invocation = await functions.invoke(event)
            self._show(function.name, invocation.log)
            return invocation

        consumer = Consumer(name=function.name, invoke=invoke, tell=tell, redelivers=self._redelivers)
        sources = [
            source
            for event, content in events.items()
            if (source := self._source(f"{function.name}.{event}", content, consumer))
        ]
        if sources:
            self._functions.append(functions)
            self._sources += sources

    def _source(self, event: str, content: Mapping[str, Any], consumer: Consumer) -> EventSource | None:
        """Return the event source for an event of a function, None if its stream or queue is missing."""
        match content["Type"]:
            case "DynamoDB":
                return self._stores.stream_source(StreamMapping.of(event, content["Properties"]), consumer)
            case "SQS":
                return self._stores.queue_source(QueueMapping.of(event, content["Properties"]), consumer)
        return None

    async def start(self) -> None:
        """Start the functions; raises `click.ClickException` if one can't load."""
        await asyncio.gather(*(functions.start(1) for functions in self._functions))

    def use(self, folder: Path) -> None:
        """Let the functions start in a checkout."""
        for functions in self._functions:
            functions.use(folder)

    async def move(self, folder: Path) -> None:
        """Replace the functions' processes by processes of another checkout, if all of them can start there.

        Otherwise raises `click.ClickException`, `FunctionError` or `TimeoutError`, and changes nothing. A batch that is
        being processed ends in the old process.
        """
        for functions in self._functions:
            await functions.try_out(folder)
        for functions in self._functions:
            functions.use(folder)
            await functions.renew()

    async def run(self) -> None:
        """Read and deliver until cancelled, which also ends running batches."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(source.run())

    @property
    def watches(self) -> list[Callable[[], Coroutine[Any, Any, str]]]:
        """The waits, one for each function, for a process that can't be replaced."""
        return [functions.watch for functions in self._functions]

    async def stop(self) -> None:
        """End the functions' processes."""
        await asyncio.gather(*(functions.stop() for functions in self._functions))


def _exists(resource: Mapping[str, Any], template: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
    """Return whether a resource's condition is true; raises `click.ClickException` for an unsupported form."""
    if "Condition" not in resource:
        return True
    match template["Conditions"][resource["Condition"]]:
        case {"Fn::Equals": [{"Ref": str(parameter)}, value]}:
            return bool(parameters.get(parameter, template["Parameters"][parameter]["Default"]) == value)
    raise click.ClickException(f"template.yaml: {resource['Condition']} is more than !Equals [!Ref PARAMETER, VALUE]")


class _Stores:
    """The streams and queues of a template on a server, which may lack them."""

    def __init__(
        self, account: Account, resources: Mapping[str, Any], traffic: ServerTraffic, *, are_queues_filled: bool
    ) -> None:
        self._url = account.endpoint_url
        self._resources = resources
        self._traffic = traffic
        # A queue that requests do not fill need not be read after each request, and need not wait for requests.
        self._queue_traffic = traffic if are_queues_filled else ServerTraffic()
        self._dynamodb = connect(account, "dynamodb")
        self._streams = connect(account, "dynamodbstreams")
        self._sqs = connect(account, "sqs")
        self._unread: list[tuple[str, str]] = []
        self._unwritten: list[tuple[str, str]] = []

    def notices(self) -> list[str]:
        """Return the missing streams and queues, and the functions that need them."""
        return [
            f"{self._url} has no {_each(store for store, _ in missing)}: {_each(name for _, name in missing)} {what}"
            for missing, what in (
                (self._unread, "can't read there"),
                (self._unwritten, "can't report there what it gives up"),
            )
            if missing
        ]

    def stream_source(self, mapping: StreamMapping, consumer: Consumer) -> StreamSource | None:
        """Return the event source for a table's stream, None if the server has none."""
        stream_arn = self._stream_arn(mapping.table)
        if stream_arn is None:
            self._unread.append((f"stream of {mapping.table}", consumer.name))
            return None
        dead_letter_url = None
        if mapping.on_failure:
            dead_letter_url = self._queue_url(mapping.on_failure)
            if dead_letter_url is None:
                self._unwritten.append((f"queue {mapping.on_failure}", consumer.name))
        return StreamSource(
            mapping,
            consumer,
            streams=self._streams,
            stream_arn=stream_arn,
            sqs=self._sqs,
            dead_letter_url=dead_letter_url,
            traffic=self._traffic,
        )

    def queue_source(self, mapping: QueueMapping, consumer: Consumer) -> QueueSource | None:
        """Return the event source for a queue, None if the server has none."""
        url = self._queue_url(mapping.queue)
        if url is None:
            self._unread.append((f"queue {mapping.queue}", consumer.name))
            return None
        attributes = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
        return QueueSource(
            mapping,
            consumer,
            sqs=self._sqs,
            queue_url=url,
            queue_arn=attributes["QueueArn"],
            traffic=self._queue_traffic,
        )

    def _stream_arn(self, table: str) -> str | None:
        try:
            described = self._dynamodb.describe_table(TableName=local_store_name(table, self._resources[table]))
            arn: str = described["Table"]["LatestStreamArn"]
            self._streams.describe_stream(StreamArn=arn)
        except (*STORE_ERRORS, KeyError):
            return None
        return arn

    def _queue_url(self, queue: str) -> str | None:
        try:
            url: str = self._sqs.get_queue_url(QueueName=local_store_name(queue, self._resources[queue]))["QueueUrl"]
        except (*STORE_ERRORS, KeyError):
            return None
        return url


def _each(names: Iterable[str]) -> str:
    """Join names, each once."""
    return ", ".join(dict.fromkeys(names))


def connect(account: Account, service: str) -> Any:  # noqa: ANN401 -- a boto3 client
    """Return a client with short time-outs, for callers that retry."""
    return account.client(service, POLL_CONFIG)
