"""`destination serve`: the deployed shape on this machine. HTTP -> event -> function process -> embedded AWS.

What the embedded AWS then holds goes on to the functions that read its streams and queues.
"""

import asyncio
import json
import random
import shlex
import socket
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.text import Text

from destination.commands.options import Parsed
from destination.console import printable, server_stdout
from destination.debugger.feed import Feed
from destination.debugger.local import LocalDebugger
from destination.debugger.server import PageServer
from destination.deployment import demo
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import Account, LocalStack, Stores, copy_stores, create_local_stack, load_template
from destination.deployment.target import LOCAL_CA, LOCAL_URL, Target
from destination.local.api import Api
from destination.local.background import first_to_end
from destination.local.consumer_edits import CONSUMER, ConsumerEdits
from destination.local.edits import SchemaEdits
from destination.local.embedded_aws import EmbeddedAws
from destination.local.faults import KINDS, REDELIVERY, FaultProxy, Orders, parse_orders
from destination.local.printed import Printed
from destination.local.sources import EventSources
from destination.local.traffic import Traffic
from destination.paths import LOCAL_FOLDER, ROOT, SCHEMAS
from destination.watching.log_file import RequestLogFile, file_of
from destination.web.addresses import is_host_name, parse_address
from handler.keys import is_well_formed

if TYPE_CHECKING:
    import trustme

ENVIRONMENT_FILE = LOCAL_FOLDER / "env.json"
DEFAULTS = {"Consumer": "on", "KeyCacheSeconds": "1"}
"""Parameters of template.yaml that are others on this machine, so that one sees at once what comes of what one does."""
RESTART = "Start the server again"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- they are no places to send to
"""How this machine reaches itself, where a server listens on all addresses."""

Watch = Callable[[], Coroutine[Any, Any, str]]
"""Waits until something is broken that the server can't do without, and says what."""


def _parse_host_name(text: str) -> str:
    if not is_host_name(text):
        raise ValueError(f"{text} is not a host name: write it alone, such as abc.ngrok.app")
    return text.lower()


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 picks a free one.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    type=Parsed("name", _parse_host_name),
    multiple=True,
    help="Answer to this host name too, such as the name of a tunnel for Segment; repeatable. It reaches the API only.",
)
@click.option("--docker", is_flag=True, help="Let containers on this machine use the stores, as `sam local` does.")
@click.option("--tls", is_flag=True, help="Serve HTTPS, with a certificate of its own (its authority: .local/ca.pem).")
@click.option("--processes", default=4, show_default=True, type=click.IntRange(1, 100), help="Functions at once.")
@click.option("--api-key", help="Make this API key for the customer demo, beside the demo keys.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of template.yaml; repeatable."
)
@click.option("--endpoint-url", help="Another DynamoDB/SQS-compatible server to store in; missing stores are made.")
@click.option(
    "--faults",
    "orders",
    default="0",
    type=Parsed("faults", parse_orders),
    metavar="RATE|KIND:RATE,...",
    help="How likely each call of a store meets a fault, such as a time-out or a 500: 0.05 is one in twenty. By kind: "
    f"throttle:0.1,partial:0.05. Kinds: {', '.join((*KINDS, REDELIVERY))}.",
)
@click.option("--faults-seed", type=int, help="Draws the same faults in the same order.")
@click.option("--json", "as_json", is_flag=True, help="Print the function's own log lines.")
def serve(
    *,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    docker: bool,
    tls: bool,
    processes: int,
    api_key: str | None,
    parameters: tuple[str, ...],
    endpoint_url: str | None,
    orders: Orders,
    faults_seed: int | None,
    as_json: bool,
) -> None:
    """Run the destination on this machine, with an embedded AWS.

    What is stored is gone when it ends, unless --endpoint-url names a server that keeps it.

    \b
    Example:
      destination serve --port 8081 --parameter EventSink=sqs
    """
    if endpoint_url and urlsplit(endpoint_url).scheme not in ("http", "https"):
        raise click.BadParameter(f"{endpoint_url} is no URL: write http://host:port", param_hint="--endpoint-url")
    console = server_stdout()
    listener = _listen(host, port)
    console.print("Starting an embedded AWS …", style="dim")
    embedded = EmbeddedAws(for_containers=docker)
    try:
        account = Account(endpoint_url=embedded.url)
        chosen = {**DEFAULTS, **_parse_parameters(parameters)}
        stack = create_local_stack(account, chosen)
        container_url = embedded.container_url
        if endpoint_url:
            stack = copy_stores(stack, account, Account(endpoint_url=endpoint_url))
            account = Account(endpoint_url=endpoint_url)
            container_url = endpoint_url
            embedded.stop()
        _make_keys(account, stack, api_key)
        _write_environment_file(stack, container_url)
        proxy = None
        if orders.rules:
            proxy = FaultProxy(endpoint_url or embedded.url, orders.rules, seed=faults_seed)
            stack = replace(stack, environment={**stack.environment, "AWS_ENDPOINT_URL": proxy.url})
        url = _url(ANY_HOST.get(host, host), listener.getsockname()[1], tls=tls)
        certificate = _certificate(host) if tls else None
        printed = Printed(console, as_json=as_json)
        debugger = LocalDebugger(
            Target(account=account, stores=stack.stores),
            url,
            ca_file=str(LOCAL_CA) if tls else None,
        )
        traffic = Traffic()
        chance = random.Random(faults_seed)  # noqa: S311 -- redeliveries are no secrets
        sources = EventSources(
            load_template(),
            chosen,
            stack.environment,
            account,
            traffic=traffic,
            tell=printed.tell,
            show=printed.show,
            redelivers=lambda: chance.random() < orders.redelivery,
        )
        for notice in sources.notices:
            console.print(f"{notice}.", style="yellow")
        console.print(f"Starting {processes} function processes …", style="dim")
        with (
            closing(RequestLogFile(file_of(host, listener.getsockname()[1]))) as request_log,
            TemporaryDirectory(prefix="direct-destination-", ignore_cleanup_errors=True) as checkouts,
        ):
            api = Api(
                account,
                stack,
                console,
                traffic=traffic,
                as_json=as_json,
                request_log=request_log,
                debugger=debugger,
                allowed_hosts=frozenset(allowed_hosts) | _own_name(host),
                has_faults=bool(orders.rules),
            )
            edits = SchemaEdits(
                SCHEMAS,
                Path(checkouts),
                api.functions,
                tell=lambda text: console.print(text, style="yellow"),
                notify=debugger.feed.notify,
                judge_by=debugger.judge_by,
            )
            edits.begin()
            consumer_edits = ConsumerEdits(
                ROOT / CONSUMER,
                Path(checkouts),
                sources,
                tell=lambda text: console.print(Text(printable(text), "yellow")),
            )
            consumer_edits.begin()
            asyncio.run(
                _run(
                    api,
                    sources,
                    (edits.watch, consumer_edits.watch),
                    debugger.feed,
                    listener,
                    processes=processes,
                    proxy=proxy or nullcontext(),
                    certificate=certificate,
                    watches=[*([] if endpoint_url else [embedded.watch]), api.functions.watch, *sources.watches],
                    welcome=lambda: _print_welcome(console, url, api_key or demo.GOOD_KEY, account, stack.stores),
                )
            )
    except KeyboardInterrupt:
        console.print("Stopped.", style="dim")
    finally:
        listener.close()
        embedded.stop()


def _url(host: str, port: int, *, tls: bool) -> str:
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _own_name(host: str) -> frozenset[str]:
    """Return the name by which the server was told to listen, if it is one."""
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
    """Write what `sam local invoke` and `start-api` take as --env-vars; samconfig.toml names the file."""
    LOCAL_FOLDER.mkdir(exist_ok=True)
    parameters = {**stack.environment, "AWS_ENDPOINT_URL": container_url}
    ENVIRONMENT_FILE.write_text(json.dumps({"Parameters": parameters}, indent=2) + "\n", "utf-8")


def _listen(host: str, port: int) -> socket.socket:
    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)  # asyncio sends at once only where this is told
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise click.ClickException(
            f"Can't listen on {host}:{port} ({error.strerror}): choose another --port"
        ) from error
    return listener


def _certificate(host: str) -> "trustme.LeafCert":
    """Make an authority and a certificate; clients need the authority, so it is written to a file."""
    import trustme  # noqa: PLC0415 -- slow, and few servers need it

    authority = trustme.CA()
    LOCAL_FOLDER.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(LOCAL_CA))
    return authority.issue_cert("localhost", "127.0.0.1", "::1", host)


async def _run(
    api: Api,
    sources: EventSources,
    edits: Iterable[Callable[[], Coroutine[Any, Any, None]]],
    feed: Feed,
    listener: socket.socket,
    *,
    processes: int,
    proxy: AbstractAsyncContextManager[object],
    certificate: "trustme.LeafCert | None",
    watches: Iterable[Watch],
    welcome: Callable[[], None],
) -> None:
    certificate_file = certificate.private_key_and_cert_chain_pem.tempfile() if certificate else nullcontext()
    async with proxy:
        try:
            await asyncio.gather(api.functions.start(processes), sources.start())
            with certificate_file as path:
                server = PageServer(api.app, feed, ssl_certfile=path)
                listener.listen()  # requests wait from now on, so that the welcome speaks the truth
                welcome()
                async with asyncio.TaskGroup() as group:
                    beside = [group.create_task(work()) for work in (sources.run, *edits)]
                    broken = group.create_task(first_to_end(watch() for watch in watches))
                    broken.add_done_callback(lambda _: server.end())
                    await server.serve(sockets=[listener])
                    await asyncio.sleep(0)  # Control-C, which uvicorn passes on, is felt here
                    fault = broken.result() if broken.done() else None
                    for task in (*beside, broken):
                        task.cancel()
            if fault is not None:
                raise click.ClickException(f"{fault}. {RESTART}")
        finally:
            await asyncio.gather(api.functions.stop(), sources.stop())


def _print_welcome(console: Console, url: str, api_key: str, account: Account, stores: Stores) -> None:
    body = {"type": "track", "event": "Signed Up", "userId": "user-1", "properties": {"plan": "pro"}}
    ca = f"--cacert {shlex.quote(str(LOCAL_CA))} " if url.startswith("https") else ""
    option = "" if url == LOCAL_URL else f" --url {url}"
    console.print(Text.assemble("\nThe destination listens at ", (f"{url}/segment", "bold")))
    console.print(Text.assemble("See what it does at       ", (f"{url}/", "bold")))
    console.print(Text.assemble("API key: ", (api_key, "bold"), f"   (customer {demo.CUSTOMER})\n"))
    console.print("Send it a message:\n")
    console.print(
        f"  curl {ca}-i -u {shlex.quote(api_key + ':')} -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(json.dumps(body))} \\\n    {url}/segment\n",
        markup=False,
    )
    if stores.event_sink == "sqs":
        console.print(f"Messages go to the queue       {stores.event_queue_url}")
    else:
        console.print(f"See what is stored:            .venv/bin/destination messages list{option}")
    if stores.consumer == "on":
        console.print(f"See what is made of it:        .venv/bin/destination contacts list{option}")
    console.print(f"A message of each call type:   .venv/bin/destination ping all{option}")
    if stores.event_sink == "dynamodb":
        console.print(f"Erase a user:                  .venv/bin/destination erase --user {body['userId']}{option}")
        console.print(f"See who was erased:            .venv/bin/destination erasures list{option}")
    console.print(f"Its stores answer at           {account.endpoint_url}")
    if url.startswith("https"):
        console.print(
            "A browser warns of its certificate, which only this machine knows: go on, or trust .local/ca.pem"
        )
    console.print("Control-C ends it. What an embedded AWS stored is gone then.\n")
