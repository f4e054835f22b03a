"""Run the deployed shape on this machine: HTTP -> event -> function process -> embedded AWS.

The embedded AWS's streams and queues feed the functions that read them.
"""

import asyncio
import json
import random
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.text import Text

from destination.console import printable
from destination.deployment import demo
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import Account, LocalStack, copy_stores, create_local_stack, load_template
from destination.deployment.target import LOCAL_CA, Target
from destination.local.api import Api
from destination.local.background import first_to_end
from destination.local.consumer_edits import CONSUMER, ConsumerEdits
from destination.local.edits import SchemaEdits
from destination.local.embedded_aws import EmbeddedAws
from destination.local.faults import FaultProxy, Orders
from destination.local.functions import FunctionError
from destination.local.observer import Observer
from destination.local.printed import Printed, print_welcome
from destination.local.sources import EventSources
from destination.local.traffic import ServerTraffic
from destination.paths import LOCAL_FOLDER, ROOT, SCHEMAS
from destination.watching.log_file import RequestLogFile, file_of
from destination.web.addresses import parse_address
from destination.web.server import Server
from handler.keys import is_well_formed

if TYPE_CHECKING:
    import trustme

ENVIRONMENT_FILE = LOCAL_FOLDER / "env.json"
DEFAULTS = {"Consumer": "on", "KeyCacheSeconds": "1"}
"""Defaults of template.yaml's parameters on this machine, so that the effect of a change is visible at once."""
RESTART = "Start the server again"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- not addresses to send to
"""The address by which this machine reaches itself if a server listens on all addresses."""

Observe = Callable[[Target, str, str | None], Observer]
"""Creates an observer from the deployment, the URL of the server, and its certificate authority, if any."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a local server; `api_key` is one more key of the customer demo."""

    host: str
    port: int
    allowed_hosts: frozenset[str]
    for_containers: bool
    tls: bool
    processes: int
    api_key: str | None
    parameters: tuple[str, ...]
    endpoint_url: str | None
    orders: Orders
    faults_seed: int | None
    as_json: bool


def serve(options: Options, console: Console, observe: Observe) -> None:
    """Serve until Control-C; raises `click.ClickException` if a part fails that the server can't do without."""
    with closing(_listen(options.host, options.port)) as listener:
        console.print("Starting an embedded AWS …", style="dim")
        embedded = EmbeddedAws(for_containers=options.for_containers)
        try:
            _serve(options, console, observe, listener, embedded)
        except KeyboardInterrupt:
            console.print("Stopped.", style="dim")
        finally:
            embedded.stop()


def _serve(
    options: Options, console: Console, observe: Observe, listener: socket.socket, embedded: EmbeddedAws
) -> None:
    parameters = {**DEFAULTS, **_parse_parameters(options.parameters)}
    account, stack, container_url = _make_stores(options, parameters, embedded)
    _make_keys(account, stack, options.api_key)
    _write_environment_file(stack, container_url)
    proxy = None
    if options.orders.rules:
        proxy = FaultProxy(options.endpoint_url or embedded.url, options.orders.rules, seed=options.faults_seed)
        stack = replace(stack, environment={**stack.environment, "AWS_ENDPOINT_URL": proxy.url})
    port = listener.getsockname()[1]
    url = _url(ANY_HOST.get(options.host, options.host), port, tls=options.tls)
    certificate = _certificate(options.host) if options.tls else None
    observer = observe(Target(account=account, stores=stack.stores), url, str(LOCAL_CA) if options.tls else None)
    traffic = ServerTraffic()
    with ExitStack() as until_the_end:
        request_log = until_the_end.enter_context(closing(RequestLogFile(file_of(options.host, port))))
        printed = Printed(console, as_json=options.as_json, request_log=request_log, observer=observer)
        sources = _event_sources(options, parameters, stack, account, traffic=traffic, printed=printed)
        for notice in sources.notices:
            console.print(f"{notice}.", style="yellow")
        console.print(f"Starting {options.processes} function processes …", style="dim")
        checkouts = Path(
            until_the_end.enter_context(TemporaryDirectory(prefix="direct-destination-", ignore_cleanup_errors=True))
        )
        api = Api(
            account,
            stack,
            console,
            traffic=traffic,
            as_json=options.as_json,
            request_log=request_log,
            observer=observer,
            allowed_hosts=options.allowed_hosts | _own_name(options.host),
            has_faults=bool(options.orders.rules),
        )
        edits = SchemaEdits(
            SCHEMAS,
            checkouts,
            api.functions,
            tell=lambda text: console.print(text, style="yellow"),
            notify=observer.notify,
            judge_by=observer.judge_by,
        )
        edits.begin()
        consumer_edits = ConsumerEdits(
            ROOT / CONSUMER, checkouts, sources, tell=lambda text: console.print(Text(printable(text), "yellow"))
        )
        consumer_edits.begin()
        running = _Running(
            api=api,
            sources=sources,
            observer=observer,
            proxy=proxy or nullcontext(),
            certificate=certificate,
            work=(edits.watch, consumer_edits.watch),
            explained=consumer_edits.explained,
            watches=[*([] if options.endpoint_url else [embedded.watch]), api.functions.watch, *sources.watches],
        )
        api_key = options.api_key or demo.GOOD_KEY
        asyncio.run(
            running.run(
                listener, options.processes, lambda: print_welcome(console, url, api_key, account, stack.stores)
            )
        )


def _make_stores(
    options: Options, parameters: dict[str, str], embedded: EmbeddedAws
) -> tuple[Account, LocalStack, str]:
    """Create the stores; return them, and how containers reach them."""
    account = Account(endpoint_url=embedded.url)
    stack = create_local_stack(account, parameters)
    if not options.endpoint_url:
        return account, stack, embedded.container_url
    other = Account(endpoint_url=options.endpoint_url)
    stack = copy_stores(stack, account, other)
    embedded.stop()
    return other, stack, options.endpoint_url


def _event_sources(
    options: Options,
    parameters: dict[str, str],
    stack: LocalStack,
    account: Account,
    *,
    traffic: ServerTraffic,
    printed: Printed,
) -> EventSources:
    """Return the event sources, which pass the records of streams and the messages of queues to the functions."""
    chance = random.Random(options.faults_seed)  # noqa: S311 -- redeliveries are not secrets
    return EventSources(
        load_template(),
        parameters,
        stack.environment,
        account,
        traffic=traffic,
        tell=printed.tell,
        show=printed.show,
        redelivers=lambda: chance.random() < options.orders.redelivery,
    )


def _url(host: str, port: int, *, tls: bool) -> str:
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _own_name(host: str) -> frozenset[str]:
    """Return the host name on which the server listens, None for an address."""
    return frozenset() if parse_address(host) else frozenset({host.lower()})


def _parse_parameters(parameters: tuple[str, ...]) -> dict[str, str]:
    pairs = [parameter.partition("=") for parameter in parameters]
    for name, equals, _ in pairs:
        if not equals:
            raise click.BadParameter(f"{name} has no value: write {name}=VALUE", param_hint="--parameter")
    return {name: value for name, _, value in pairs}


def _make_keys(account: Account, stack: LocalStack, api_key: str | None) -> None:
    table = KeyTable(account.dynamodb(), stack.stores.key_table)
    try:
        demo.seed_keys(table)
        if api_key is not None:
            if not is_well_formed(api_key):
                raise click.BadParameter(
                    "an API key is up to 256 printable ASCII characters without a colon; one that starts with ddk_ "
                    "must be complete",
                    param_hint="--api-key",
                )
            table.put(KeyRecord.of(api_key, customer_id=demo.CUSTOMER, label="--api-key"))
    except (BotoCoreError, ClientError) as error:
        raise click.ClickException(f"The keys can't be written: {error}") from error


def _write_environment_file(stack: LocalStack, container_url: str) -> None:
    """Write the file that `sam local invoke` and `start-api` take as --env-vars; samconfig.toml names it."""
    LOCAL_FOLDER.mkdir(exist_ok=True)
    parameters = {**stack.environment, "AWS_ENDPOINT_URL": container_url}
    ENVIRONMENT_FILE.write_text(json.dumps({"Parameters": parameters}, indent=2) + "\n", "utf-8")


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # asyncio disables Nagle's algorithm only if the protocol is given
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise click.ClickException(
            f"Can't listen on {host}:{port} ({error.strerror}): choose another --port"
        ) from error
    return listener


def _certificate(host: str) -> "trustme.LeafCert":
    """Create an authority and a certificate; clients need the authority, so it is written to a file."""
    import trustme  # noqa: PLC0415 -- slow to import, and few servers need it

    authority = trustme.CA()
    LOCAL_FOLDER.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(LOCAL_CA))
    return authority.issue_cert("localhost", "127.0.0.1", "::1", host)


@dataclass(frozen=True, kw_only=True)
class _Running:
    """The parts of a server; each of `watches` waits for a failure that the server can't survive."""

    api: Api
    sources: EventSources
    observer: Observer
    proxy: AbstractAsyncContextManager[object]
    certificate: "trustme.LeafCert | None"
    work: Iterable[Callable[[], Coroutine[Any, Any, None]]]
    watches: Iterable[Callable[[], Coroutine[Any, Any, str]]]
    explained: Callable[[click.ClickException], click.ClickException]

    async def run(self, listener: socket.socket, processes: int, welcome: Callable[[], None]) -> None:
        """Start the functions, serve until the end, and stop them."""
        async with self.proxy:
            try:
                try:
                    await asyncio.gather(self.api.functions.start(processes), self.sources.start())
                except click.ClickException as error:
                    raise self.explained(error) from error
                except FunctionError as error:
                    raise click.ClickException(str(error)) from error
                fault = await self._serve(listener, welcome)
                if fault is not None:
                    raise click.ClickException(f"{fault}. {RESTART}")
            finally:
                await asyncio.gather(self.api.functions.stop(), self.sources.stop())

    async def _serve(self, listener: socket.socket, welcome: Callable[[], None]) -> str | None:
        """Serve until the end; return the failure that ended it."""
        pem = self.certificate.private_key_and_cert_chain_pem.tempfile() if self.certificate else nullcontext()
        with pem as path:
            server = Server(self.api.app, self.observer.close, ssl_certfile=path)
            listener.listen()  # requests wait from now on, so the welcome is true
            welcome()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work()) for work in (self.sources.run, *self.work)]
                broken = group.create_task(first_to_end(watch() for watch in self.watches))
                broken.add_done_callback(lambda _: server.end())
                await server.serve(sockets=[listener])
                await asyncio.sleep(0)  # Control-C, which uvicorn raises again, arrives here
                fault = broken.result() if broken.done() else None
                for task in (*tasks, broken):
                    task.cancel()
        return fault
