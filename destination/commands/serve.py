"""`destination serve`: run the destination on this machine."""

from urllib.parse import urlsplit

import click

from destination.commands.options import Parsed, json_option
from destination.console import server_stdout
from destination.debugger.local import LocalDebugger
from destination.local import server as local
from destination.local.faults import KINDS, REDELIVERY, Orders, parse_orders
from destination.local.server import Options
from destination.paths import require_checkout
from destination.web.addresses import is_host_name


def _parse_host_name(text: str) -> str:
    if not is_host_name(text):
        raise ValueError(f"{text} is not a host name: write only the name, such as abc.ngrok.app")
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
    help="Also answer to this host name, such as a tunnel for Segment; repeatable. It reaches only the API.",
)
@click.option("--docker", is_flag=True, help="Let containers on this machine use the stores, as `sam local` does.")
@click.option("--tls", is_flag=True, help="Serve HTTPS, with a certificate of its own (its authority: .local/ca.pem).")
@click.option(
    "--processes", default=4, show_default=True, type=click.IntRange(1, 100), help="Number of function processes."
)
@click.option("--api-key", help="Create this API key for the customer demo, in addition to the demo keys.")
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of template.yaml; repeatable."
)
@click.option("--endpoint-url", help="Another DynamoDB/SQS-compatible server to store in; missing stores are created.")
@click.option(
    "--faults",
    "orders",
    default="0",
    type=Parsed("faults", parse_orders),
    metavar="RATE|KIND:RATE,...",
    help="Probability that a store call meets a fault, such as a time-out or a 500: 0.05 is one in twenty. By kind: "
    f"throttle:0.1,partial:0.05. Kinds: {', '.join((*KINDS, REDELIVERY))}.",
)
@click.option("--faults-seed", type=int, help="The same seed draws the same faults in the same order.")
@json_option("Print the function's own log lines.")
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

    Stored data is gone when it ends, unless --endpoint-url names a server that keeps it.

    \b
    Example:
      destination serve --port 8081 --parameter EventSink=sqs
    """
    require_checkout("destination serve")
    if endpoint_url and urlsplit(endpoint_url).scheme not in ("http", "https"):
        raise click.BadParameter(f"{endpoint_url} is not a URL: write http://host:port", param_hint="--endpoint-url")
    options = Options(
        host=host,
        port=port,
        allowed_hosts=frozenset(allowed_hosts),
        for_containers=docker,
        tls=tls,
        processes=processes,
        api_key=api_key,
        parameters=parameters,
        endpoint_url=endpoint_url,
        orders=orders,
        faults_seed=faults_seed,
        as_json=as_json,
    )
    local.serve(options, server_stdout(), LocalDebugger)
