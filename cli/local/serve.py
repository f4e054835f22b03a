"""`destination serve`: the deployed shape on this machine. HTTP -> event -> function process -> embedded AWS.

What the embedded AWS then holds goes on to the functions that read its streams and queues.
"""

import asyncio
import json
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import click
import trustme
import uvicorn
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.markup import escape
from rich.text import Text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cli import demo
from cli.console import printable
from cli.key_table import KeyRecord, KeyTable
from cli.local import gateway
from cli.local.embedded_aws import EmbeddedAws
from cli.local.faults import FaultProxy, Rule
from cli.local.functions import Function, FunctionError, Functions, FunctionTimeoutError, Invocation
from cli.local.request_log import RequestLogFile, file_of
from cli.local.sources import EventSources
from cli.schemas.check import SCHEMAS, check_schemas
from cli.stack import (
    FUNCTION,
    LOCAL_FOLDER,
    Account,
    LocalStack,
    Stores,
    copy_stores,
    create_local_stack,
    load_template,
)
from cli.target import ABOUT_PATH, LOCAL_CA, LOCAL_URL
from handler.keys import is_well_formed

ENVIRONMENT_FILE = LOCAL_FOLDER / "env.json"
DEFAULTS = {"Consumer": "on"}
"""Parameters of template.yaml that are others on this machine, so that it shows the whole way of a message."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 picks a free one.",
)
@click.option("--tls", is_flag=True, help="Serve HTTPS, with a certificate of its own (its authority: .local/ca.pem).")
@click.option("--processes", default=4, show_default=True, type=click.IntRange(1, 100), help="Functions at once.")
@click.option("--api-key", help="Make this API key for the customer demo, beside the demo keys.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of template.yaml; repeatable."
)
@click.option("--endpoint-url", help="Another DynamoDB/SQS-compatible server to store in; missing stores are made.")
@click.option(
    "--faults",
    "fault_rate",
    default=0.0,
    type=click.FloatRange(0, 1),
    metavar="RATE",
    help="How likely each call of a store meets a fault, such as a time-out or a 500: 0.05 is one in twenty.",
)
@click.option("--faults-seed", type=int, help="Draws the same faults in the same order.")
@click.option("--json", "as_json", is_flag=True, help="Print the function's own log lines.")
def serve(
    *,
    host: str,
    port: int,
    tls: bool,
    processes: int,
    api_key: str | None,
    parameters: tuple[str, ...],
    endpoint_url: str | None,
    fault_rate: float,
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
    if faults := check_schemas(SCHEMAS):
        raise click.ClickException("The schemas have faults:\n" + "\n".join(map(str, faults)))
    console = Console(highlight=False, soft_wrap=True)
    listener = _listen(host, port)
    console.print("Starting an embedded AWS …", style="dim")
    embedded = EmbeddedAws()
    try:
        account = Account(endpoint_url=embedded.url)
        chosen = {**DEFAULTS, **_parse_parameters(parameters)}
        stack = create_local_stack(account, chosen)
        container_url = embedded.container_url
        if endpoint_url:
            stack = copy_stores(stack, account, Account(endpoint_url=endpoint_url))
            account = Account(endpoint_url=endpoint_url)
            container_url = endpoint_url
        _make_keys(account, stack, api_key)
        _write_environment_file(stack, container_url)
        proxy = None
        if fault_rate:
            proxy = FaultProxy(endpoint_url or embedded.url, [Rule(probability=fault_rate)], seed=faults_seed)
            stack = replace(stack, environment={**stack.environment, "AWS_ENDPOINT_URL": proxy.url})
        authority = f"[{host}]" if ":" in host else host
        url = f"{'https' if tls else 'http'}://{authority}:{listener.getsockname()[1]}"
        printed = _Printed(console, as_json=as_json)
        sources = EventSources(
            load_template(), chosen, stack.environment, account, tell=printed.tell, show=printed.show
        )
        for notice in sources.notices:
            console.print(f"{notice}.", style="yellow")
        console.print(f"Starting {processes} function processes …", style="dim")
        with closing(RequestLogFile(file_of(host, listener.getsockname()[1]))) as request_log:
            asyncio.run(
                _run(
                    Gateway(account, stack, console, as_json=as_json, request_log=request_log),
                    sources,
                    listener,
                    processes=processes,
                    proxy=proxy or nullcontext(),
                    certificate=_certificate(host) if tls else None,
                    welcome=lambda: _print_welcome(console, url, api_key or demo.GOOD_KEY, account, stack.stores),
                )
            )
    except KeyboardInterrupt:
        console.print("Stopped.", style="dim")
    finally:
        listener.close()
        embedded.stop()


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
    ENVIRONMENT_FILE.write_text(json.dumps({"Parameters": parameters}, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class _Access:
    """A request for the access log: what is known of it before its answer."""

    request: Request
    route: str = gateway.UNKNOWN
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.perf_counter)

    def values(self, response: Response, integration: Mapping[str, str]) -> dict[str, object]:
        """Return the values of the variables of an access log; `integration` are those about the function."""
        return {
            "requestId": self.request_id,
            "requestTime": gateway.log_time(self.at),
            "routeKey": self.route,
            "status": response.status_code,
            "responseLatency": round((time.perf_counter() - self.began) * 1000),
            "responseLength": len(response.body),
            "identity.sourceIp": gateway.source_ip_of(self.request) or gateway.UNKNOWN,
            **integration,
        }


INVOKED = {"integrationStatus": "200"}
"""What Lambda says to API Gateway, also of a function that raised."""


class Gateway:
    """The API of template.yaml in front of function processes, and the local server's word about itself.

    What function and API write is kept in `request_log`, where there is one.
    """

    def __init__(
        self,
        account: Account,
        stack: LocalStack,
        console: Console,
        *,
        as_json: bool,
        request_log: RequestLogFile | None = None,
    ) -> None:
        self._console = console
        self._as_json = as_json
        self._request_log = request_log
        self._about = {
            "endpoint_url": account.endpoint_url,
            "stores": asdict(stack.stores),
            "api_key": demo.GOOD_KEY,
            "request_log": str(request_log.path) if request_log else None,
        }
        resources = load_template()["Resources"]
        function = resources[FUNCTION]["Properties"]
        self._access_log = gateway.AccessLog(resources["Api"]["Properties"]["AccessLogSettings"]["Format"])
        routes = [event["Properties"] for event in function["Events"].values()]
        self._seconds = {route["Path"]: route["TimeoutInMillis"] / 1000 for route in routes}
        self.functions = Functions(Function.of(FUNCTION, function), stack.environment)
        self.app = Starlette(
            routes=[
                Route(ABOUT_PATH, self._tell_about),
                *(Route(route["Path"], self._invoke, methods=[route["Method"]]) for route in routes),
            ],
            exception_handlers={404: self._not_found, 405: self._not_found},
        )
        # An HTTP API answers 404 where Starlette is obliging.
        self.app.router.redirect_slashes = False
        for route in self.app.routes:
            if isinstance(route, Route) and route.methods is not None:
                route.methods.discard("HEAD")

    async def _tell_about(self, _request: Request) -> Response:
        return JSONResponse(self._about)

    async def _not_found(self, request: Request, _error: Exception) -> Response:
        return self._answer(_Access(request=request), 404, "Not Found", "no such route")

    async def _invoke(self, request: Request) -> Response:
        access = _Access(request=request, route=f"{request.method} {request.url.path}")
        body = await request.body()
        if len(body) > gateway.MAX_BODY_BYTES:
            return self._answer(access, 413, "Request Entity Too Large", "the body is larger than 10 MB")
        event = gateway.to_event(request, body, access.at)
        access = replace(access, request_id=event["requestContext"]["requestId"])
        try:
            invocation = await self.functions.invoke(
                event, integration_seconds=self._seconds[request.url.path], late=partial(self._log, request)
            )
        except FunctionTimeoutError:
            return self._answer(access, 503, "Service Unavailable", "the function did not answer in time")
        except FunctionError:
            return self._answer(access, 500, "Internal Server Error", "the function died")
        self._log(request, invocation)
        if invocation.raised:
            response: Response = gateway.own_answer(500, "Internal Server Error")
        else:
            response = gateway.to_response(invocation.response)
        self._note(access, response, INVOKED)
        return response

    def _answer(self, access: _Access, status: int, message: str, why: str) -> Response:
        """Answer without the function."""
        self._console.print(_line(access.request, status, why))
        response = gateway.own_answer(status, message)
        self._note(access, response, {"integrationErrorMessage": why})
        return response

    def _log(self, request: Request, invocation: Invocation) -> None:
        """Print and keep what the function printed."""
        for line in invocation.log.splitlines():
            if self._request_log and IS_REQUEST_LINE in line:
                self._request_log.write(line)
            self._console.print(Text(printable(line)) if self._as_json else _readable(request, line))

    def _note(self, access: _Access, response: Response, integration: Mapping[str, str]) -> None:
        if self._request_log:
            self._request_log.write(self._access_log.line(access.values(response, integration)))


IS_REQUEST_LINE = '"message": "request"'
"""What `handler/observe.py` writes into each, and escapes in texts of others."""


def _readable(request: Request, line: str) -> Text:
    """Say in one line what a request line says; other output of the function as it is."""
    try:
        facts: Mapping[str, Any] = json.loads(line)
        count = facts.get("messages")
        messages = [] if count is None else ["1 message" if count == 1 else f"{count} messages"]
        what = [facts["outcome"], facts.get("call_type"), facts.get("customer_id"), facts.get("message_id"), *messages]
        words = [str(word) for word in [*what, facts.get("code")] if word is not None]
        return _line(request, facts["status"], " ".join(words), facts["milliseconds"]["total"])
    except (ValueError, KeyError, TypeError):
        return Text(printable(line))


class _Printed:
    """What becomes visible of the functions that read streams and queues."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json

    def tell(self, function: str, text: str) -> None:
        """Print what happened to a function."""
        self._console.print(Text.assemble(_now(), (f" {function} {printable(text)}", "yellow")))

    def show(self, function: str, log: str) -> None:
        """Print what a function printed."""
        for line in log.splitlines():
            for text in [Text(line)] if self._as_json else _readable_facts(function, line):
                self._console.print(text)


MAX_SHOWN_CHARS = 40
"""Of a fact: hashes say enough by then."""
_FOR_MACHINES = ("_aws", "level", "location", "message", "service", "timestamp", "traceback", "xray_trace_id")
"""What log lines hold beside their facts."""


def _readable_facts(function: str, line: str) -> Iterator[Text]:
    """Say in one line what a line about an outcome says, its traceback below; other output of a function as it is.

    A line that only counts, for CloudWatch, is left out.
    """
    try:
        facts = json.loads(line)
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.keys().isdisjoint({"outcome", "_aws"}):
        yield Text(line)
    elif "outcome" in facts:
        words = [
            f"{name}={str(value)[:MAX_SHOWN_CHARS]}"
            for name, value in facts.items()
            if isinstance(value, str | int | float) and name not in ("outcome", *_FOR_MACHINES)
        ]
        yield Text.assemble(_now(), (f" {function} {printable(' '.join([str(facts['outcome']), *words]))}", "dim"))
        yield from (Text(printable(row)) for row in str(facts.get("traceback", "")).splitlines())


_COLOURS = {2: "green", 4: "yellow", 5: "red"}


def _line(request: Request, status: int, words: str, milliseconds: float | None = None) -> Text:
    took = f"  {milliseconds:.1f} ms" if milliseconds is not None else ""
    return Text.assemble(
        _now(),
        f" {request.method} {printable(request.url.path)} ",
        (str(status), _COLOURS.get(status // 100, "")),
        f" {printable(words)}",
        (took, "dim"),
    )


def _now() -> tuple[str, str]:
    return datetime.now().astimezone().strftime("%H:%M:%S"), "dim"


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


def _certificate(host: str) -> trustme.LeafCert:
    """Make an authority and a certificate; clients need the authority, so it is written to a file."""
    authority = trustme.CA()
    LOCAL_FOLDER.mkdir(exist_ok=True)
    authority.cert_pem.write_to_path(str(LOCAL_CA))
    return authority.issue_cert("localhost", "127.0.0.1", "::1", host)


async def _run(
    gateway_: Gateway,
    sources: EventSources,
    listener: socket.socket,
    *,
    processes: int,
    proxy: AbstractAsyncContextManager[object],
    certificate: trustme.LeafCert | None,
    welcome: Callable[[], None],
) -> None:
    certificate_file = certificate.private_key_and_cert_chain_pem.tempfile() if certificate else nullcontext()
    async with proxy:
        try:
            await asyncio.gather(gateway_.functions.start(processes), sources.start())
            with certificate_file as path:
                config = uvicorn.Config(gateway_.app, ssl_certfile=path, lifespan="off", log_level="critical")
                server = uvicorn.Server(config)
                listener.listen()  # requests wait from now on, so that the welcome speaks the truth
                welcome()
                async with asyncio.TaskGroup() as group:
                    reading = group.create_task(sources.run())
                    await server.serve(sockets=[listener])
                    await asyncio.sleep(0)  # Control-C, which uvicorn passes on, is felt here
                    reading.cancel()
        finally:
            await asyncio.gather(gateway_.functions.stop(), sources.stop())


def _print_welcome(console: Console, url: str, api_key: str, account: Account, stores: Stores) -> None:
    body = {"type": "track", "event": "Signed Up", "userId": "user-1", "properties": {"plan": "pro"}}
    ca = f"--cacert {shlex.quote(str(LOCAL_CA))} " if url.startswith("https") else ""
    option = "" if url == LOCAL_URL else f" --url {url}"
    console.print(f"\nThe destination listens at [bold]{url}/segment[/bold]")
    console.print(f"API key: [bold]{escape(api_key)}[/bold]   (customer {demo.CUSTOMER})\n")
    console.print("Send it a message:\n")
    console.print(
        f"  curl {ca}-i -u {shlex.quote(api_key + ':')} -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(json.dumps(body))} \\\n    {url}/segment\n",
        markup=False,
    )
    if stores.event_sink == "sqs":
        console.print(f"Messages go to the queue       {stores.event_queue_url}", markup=False)
    else:
        console.print(f"See what is stored:            .venv/bin/destination messages list{option}", markup=False)
    if stores.consumer == "on":
        console.print(f"See what is made of it:        .venv/bin/destination contacts list{option}", markup=False)
    console.print(f"A message of each call type:   .venv/bin/destination ping all{option}", markup=False)
    if stores.event_sink == "dynamodb":
        console.print(
            f"Erase a user:                  .venv/bin/destination erase --user {body['userId']}{option}", markup=False
        )
        console.print(f"See who was erased:            .venv/bin/destination erasures list{option}", markup=False)
    console.print(f"Its stores answer at           {account.endpoint_url}", markup=False)
    console.print("Control-C ends it. What an embedded AWS stored is gone then.\n")
