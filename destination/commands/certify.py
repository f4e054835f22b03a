"""`destination certify`: run Segment's checklist against a running endpoint."""

import json
import secrets
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import click

from destination.certification.checklist import POINTS, chosen
from destination.certification.report import write_report
from destination.certification.run import open_wire, run, temporary_keys
from destination.certification.store_access import ApiKeys, StoreAccess
from destination.certification.transport import LOOPBACK
from destination.commands.options import FiniteRange, ca_file_option, json_option, parse_endpoint
from destination.console import Rows, stdout
from destination.deployment.stack import stack_outputs
from destination.deployment.target import LOCAL_URL, Target, local_target, stack_target
from destination.segment.client import SEGMENT_TIMEOUT_SECONDS


@click.command()
@click.option("--url", help=f"The endpoint: {LOCAL_URL}, or the stack's own. Without a path, /segment is used.")
@click.option("--api-key", help="A customer's API key, for an endpoint whose stores you can't access.")
@click.option("--stack", help="The CloudFormation stack behind the endpoint, with your own AWS credentials.")
@click.option(
    "--stores", metavar="URL", help="The local server whose stores --url writes to, if --url is another server."
)
@ca_file_option
@click.option("--only", "names", multiple=True, metavar="POINT", help="Only this point, or this group; repeatable.")
@click.option("--list", "only_list", is_flag=True, help="List the points without checking them.")
@click.option(
    "--report", "report_path", type=Path, help="A folder, or a file name without its suffix: .md and .html are added."
)
@click.option(
    "--timeout",
    "limit_seconds",
    default=float(SEGMENT_TIMEOUT_SECONDS),
    show_default=True,
    type=FiniteRange(0.01, 60),
    help="Upper bound for an answer, in seconds.",
)
@click.option("--all", "show_all", is_flag=True, help="Also list the points that passed.")
@json_option("Print JSON, for programs.")
def certify(
    *,
    url: str | None,
    api_key: str | None,
    stack: str | None,
    stores: str | None,
    ca_file: str | None,
    names: tuple[str, ...],
    only_list: bool,
    report_path: Path | None,
    limit_seconds: float,
    show_all: bool,
    as_json: bool,
) -> None:
    """Check an endpoint as Segment's reviewers do.

    It can write a report for Segment's review. With --stack, and for a local server, it creates API keys for two
    customers of its own and reads back the stored messages. At the end it removes everything. With only --api-key,
    points that need the stores are "not checked". Its messages, whose ids begin with certify-, then stay stored. A
    failed request is retried, as Segment does, and is a warning. Exits with 1 if a point fails, if nothing could be
    checked, or if something could not be removed.

    \b
    Example:
      destination certify --stack direct-destination --url https://destination.example.com/segment --report review
    """
    if only_list:
        _show_points(as_json=as_json)
        return
    try:
        points = chosen(names)
    except KeyError as error:
        raise click.BadParameter(
            f"there is no point {error.args[0]}: --list shows all points", param_hint="--only"
        ) from error
    endpoint_url, target = _endpoint(url, stack, stores, ca_file=ca_file, api_key=api_key)
    file_stem = _file_stem(report_path, endpoint_url)
    store_access = StoreAccess(target, f"certify-{secrets.token_hex(4)}") if target else None
    left: list[str] = []
    with open_wire(endpoint_url, ca_file, limit_seconds) as wire, ExitStack() as open_until_the_end:
        keys = ApiKeys(good=api_key or "")
        if store_access:
            keys = open_until_the_end.enter_context(temporary_keys(store_access, left))
            if api_key:
                click.echo("The --api-key is not used, because certify creates temporary keys.", err=True)
        report = run(wire, points, keys=keys, store_access=store_access, only=names)
        if as_json:
            click.echo(json.dumps(report.to_json(), indent=2))
        else:
            stdout().print(report.picture(all_points=show_all))
        if file_stem:
            write_report(report, file_stem)
    if report.has_failed or left:
        raise click.exceptions.Exit(1)


def _show_points(*, as_json: bool) -> None:
    """Print the points that can be checked."""
    if as_json:
        points = [{"id": point.id, "title": point.title, "source": point.source} for point in POINTS]
        click.echo(json.dumps(points, indent=2))
        return
    rows = Rows("Point", "Title")
    for point in POINTS:
        rows.add_row(point.id, point.title)
    stdout().print(rows)


def _endpoint(
    url: str | None, stack: str | None, stores: str | None, *, ca_file: str | None, api_key: str | None
) -> tuple[str, Target | None]:
    """Return the URL, and the deployment whose stores it writes to, if it is known."""
    if stack:
        if stores:
            raise click.UsageError("--stores and --stack exclude each other")
        target = stack_target(stack)
        return parse_endpoint(url or _stack_url(target, stack)), target
    endpoint_url = parse_endpoint(url or LOCAL_URL)
    if ca_file and not (endpoint_url.startswith("https:") or urlsplit(stores or "").scheme == "https"):
        raise click.UsageError(f"--ca-file is for https, and {endpoint_url} has no certificate")
    if stores:
        return endpoint_url, local_target(stores, ca_file=ca_file)
    if urlsplit(endpoint_url).hostname in LOOPBACK:
        try:
            return endpoint_url, local_target(urljoin(endpoint_url, "/"), ca_file=ca_file)
        except click.ClickException as error:
            if api_key is None:
                raise click.ClickException(
                    f"{error.message}; or name the --stores behind this URL, or an --api-key to send with"
                ) from error
    if api_key is None:
        raise click.UsageError(
            "Name an --api-key to send with, or the stores behind the endpoint: --stack, or --stores for a local server"
        )
    return endpoint_url, None


def _stack_url(target: Target, stack: str) -> str:
    outputs = stack_outputs(target.account.cloudformation(), stack)
    if "EndpointUrl" not in outputs:
        raise click.ClickException(f"The stack {stack} has no output EndpointUrl: name its endpoint with --url")
    return outputs["EndpointUrl"]


def _file_stem(path: Path | None, url: str) -> Path | None:
    """Return the path of the report without a suffix; raises `click.BadParameter` if it can't be written."""
    if path is None:
        return None
    if path.is_dir():
        path = path / f"certify-{urlsplit(url).hostname}-{datetime.now(UTC):%Y-%m-%d}"
    elif path.suffix in (".md", ".html"):
        path = path.with_suffix("")
    if not path.parent.is_dir():
        raise click.BadParameter(f"there is no folder {path.parent}", param_hint="--report")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise click.BadParameter(f"{path.parent} can't be written to", param_hint="--report") from error
    return path
