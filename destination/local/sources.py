"""Lambda's event source mappings on this machine: all functions of template.yaml that read streams and queues.

docs/reference/cli.md tells what differs from Lambda.
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
"""In seconds. A call that fails is made again anyway."""


NICENESS = 10
"""Of the processes of these functions, so that requests get a processor first."""


class EventSource(Protocol):
    """What brings records to a function."""

    async def run(self) -> None:
        """Bring them until it is cancelled."""


class EventSources:
    """The functions of a template that read streams and queues, a process of each, and what reads for them.

    `traffic` are the requests that go first. `tell` is told what happens, and `show` what a function printed. Both
    begin with the function's name. `notices` say what does not run, for want of a stream or queue. `redelivers` draws
    whether a batch that is done is handed over again. Raises `click.ClickException` for what is not played here.
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
        """Return what reads for an event of a function, None where there is nothing to read."""
        match content["Type"]:
            case "DynamoDB":
                return self._stores.stream_source(StreamMapping.of(event, content["Properties"]), consumer)
            case "SQS":
                return self._stores.queue_source(QueueMapping.of(event, content["Properties"]), consumer)
        return None

    async def start(self) -> None:
        """Start the functions; raises `click.ClickException` when one can't load."""
        await asyncio.gather(*(functions.start(1) for functions in self._functions))

    def use(self, folder: Path) -> None:
        """Let the functions start in a checkout."""
        for functions in self._functions:
            functions.use(folder)

    async def move(self, folder: Path) -> None:
        """Replace the functions' processes by those of another checkout, if all of them can start there.

        Raises `click.ClickException`, `FunctionError` or `TimeoutError` if not, and changes nothing then. A batch that
        is being handed over ends in the old process.
        """
        for functions in self._functions:
            await functions.try_out(folder)
        for functions in self._functions:
            functions.use(folder)
            await functions.renew()

    async def run(self) -> None:
        """Read and hand over until it is cancelled, which ends what is under way."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(source.run())

    @property
    def watches(self) -> list[Callable[[], Coroutine[Any, Any, str]]]:
        """What waits, for each function, until its process can't be replaced, and says so."""
        return [functions.watch for functions in self._functions]

    async def stop(self) -> None:
        """End the functions' processes."""
        await asyncio.gather(*(functions.stop() for functions in self._functions))


def _exists(resource: Mapping[str, Any], template: Mapping[str, Any], parameters: Mapping[str, str]) -> bool:
    """Tell whether a resource's condition holds; raises `click.ClickException` for one of another form."""
    if "Condition" not in resource:
        return True
    match template["Conditions"][resource["Condition"]]:
        case {"Fn::Equals": [{"Ref": str(parameter)}, value]}:
            return bool(parameters.get(parameter, template["Parameters"][parameter]["Default"]) == value)
    raise click.ClickException(f"template.yaml: {resource['Condition']} is more than !Equals [!Ref PARAMETER, VALUE]")


class _Stores:
    """The streams and queues of a template on a server, which may have none."""

    def __init__(
        self, account: Account, resources: Mapping[str, Any], traffic: ServerTraffic, *, are_queues_filled: bool
    ) -> None:
        self._url = account.endpoint_url
        self._resources = resources
        self._traffic = traffic
        # A queue that requests do not fill is neither read after each of them, nor is it behind them.
        self._queue_traffic = traffic if are_queues_filled else ServerTraffic()
        self._dynamodb = connect(account, "dynamodb")
        self._streams = connect(account, "dynamodbstreams")
        self._sqs = connect(account, "sqs")
        self._unread: list[tuple[str, str]] = []
        self._unwritten: list[tuple[str, str]] = []

    def notices(self) -> list[str]:
        """Say what is missing, and for whom."""
        return [
            f"{self._url} has no {_each(store for store, _ in missing)}: {_each(name for _, name in missing)} {what}"
            for missing, what in (
                (self._unread, "can't read there"),
                (self._unwritten, "can leave no word there of what is given up"),
            )
            if missing
        ]

    def stream_source(self, mapping: StreamMapping, consumer: Consumer) -> StreamSource | None:
        """Return what reads a table's stream, None where the server has none."""
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
        """Return what reads a queue, None where the server has none."""
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


def connect(account: Account, service: str) -> Any:  # noqa: ANN401 -- its client
    """Return a client that gives up soon, for one who asks again."""
    return account.client(service, POLL_CONFIG)
