"""`destination certify`: Segment's checklist, played against a running endpoint."""

import json
import secrets
import signal
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import click

from destination.certification.checklist import POINTS, chosen, findings
from destination.certification.examination import CARRIERS, Examination
from destination.certification.holdings import ApiKeys, Holdings
from destination.certification.points import Finding, Point
from destination.certification.report import Report, shown_url
from destination.certification.samples import Samples
from destination.certification.transport import LOOPBACK
from destination.certification.wire import Wire
from destination.commands.options import FiniteRange, parse_endpoint
from destination.console import progress, stdout
from destination.deployment.stack import stack_outputs
from destination.deployment.target import LOCAL_URL, Target, local_target, stack_target, trusted_authority
from destination.paths import SCHEMAS
from destination.segment.client import SEGMENT_TIMEOUT_SECONDS

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""They end a run as Control-C does."""


@click.command()
@click.option("--url", help=f"The endpoint: {LOCAL_URL}, or the stack's own. Without a path, /segment is meant.")
@click.option("--api-key", help="A customer's API key, for an endpoint whose stores are not at hand.")
@click.option("--stack", help="The CloudFormation stack behind it, by your own AWS credentials.")
@click.option("--stores", metavar="URL", help="The local server whose stores --url writes to, where it is not itself.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False),
    help="A certificate authority to trust (serve --tls has its own).",
)
@click.option("--only", "names", multiple=True, metavar="POINT", help="Only this point, or this group; repeatable.")
@click.option("--list", "only_list", is_flag=True, help="List the points and check nothing.")
@click.option("--report", "report_path", type=Path, help="A folder, or a file without its ending: .md and .html.")
@click.option(
    "--timeout",
    "limit_seconds",
    default=float(SEGMENT_TIMEOUT_SECONDS),
    show_default=True,
    type=FiniteRange(0.01, 60),
    help="The seconds that an answer may take.",
)
@click.option("--all", "show_all", is_flag=True, help="List the points that passed, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
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

    It can write a report to hand in. With --stack, and for a local server, it makes API keys for two customers of its
    own, reads back what was stored, and removes all of that at the end. With --api-key alone it says "not checked" of
    what only the stores tell, and its messages, whose ids start with certify-, stay stored. A request that fails is
    sent again, as Segment does, and is a warning. Exits with 1 when a point fails, when nothing could be checked, or
    when something could not be removed.

    \b
    Example:
      destination certify --stack direct-destination --url https://destination.example.com/segment --report review
    """
    if only_list:
        for point in POINTS:
            click.echo(f"{point.id:<24} {point.title}")
        return
    try:
        points = chosen(names)
    except KeyError as error:
        raise click.BadParameter(
            f"there is no point {error.args[0]}: --list shows them", param_hint="--only"
        ) from error
    endpoint_url, target = _endpoint(url, stack, stores, ca_file=ca_file, api_key=api_key)
    file_stem = _file_stem(report_path, endpoint_url)
    holdings = Holdings(target, f"certify-{secrets.token_hex(4)}") if target else None
    left: list[str] = []
    with _wire(endpoint_url, ca_file, limit_seconds) as wire, ExitStack() as open_until_the_end:
        keys = ApiKeys(good=api_key or "")
        if holdings:
            keys = open_until_the_end.enter_context(_temporary(holdings, left))
            if api_key:
                click.echo("The --api-key is not used: there are temporary ones.", err=True)
        report = _run(wire, points, keys=keys, holdings=holdings, only=names)
        if as_json:
            click.echo(json.dumps(report.to_json(), indent=2))
        else:
            stdout().print(report.picture(all_points=show_all))
        if file_stem:
            _write(report, file_stem)
    if report.has_failed or left:
        raise click.exceptions.Exit(1)


def _run(
    wire: Wire, points: Sequence[Point], *, keys: ApiKeys, holdings: Holdings | None, only: Sequence[str]
) -> Report:
    """Check the points."""
    samples, began_at = Samples(SCHEMAS), datetime.now(UTC)
    name = holdings.customer_id if holdings else f"certify-{secrets.token_hex(4)}"
    found: list[Finding] = []
    notes = holdings.stays if holdings else []
    for key in keys.all:
        wire.keep_secret(key)
    examination = Examination(wire, name=name, keys=keys, samples=samples, holdings=holdings)
    with progress("Certifying", total=len(points)) as step:
        for finding in findings(examination, points):
            found.append(finding)
            step()
    if holdings is None and any(exchange.is_accepted for exchange in wire.exchanges):
        notes.append(
            "The messages of this run stay stored, as those of the customer of the API key: their ids start with "
            f"certify-, and their users' ids with {name}."
        )
    return Report(
        url=shown_url(wire.url),
        only=only,
        name=name,
        began_at=began_at,
        version=version("direct-destination"),
        findings=found,
        notes=notes,
        wire=wire,
    )


def _endpoint(
    url: str | None, stack: str | None, stores: str | None, *, ca_file: str | None, api_key: str | None
) -> tuple[str, Target | None]:
    """Return the URL, and the deployment whose stores it writes to, where that is known."""
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


def _wire(url: str, ca_file: str | None, limit_seconds: float) -> Wire:
    authority = trusted_authority(url, ca_file) if url.startswith("https:") else None
    try:
        return Wire(url, limit_seconds=limit_seconds, ca_file=authority)
    except ssl.SSLError as error:
        raise click.ClickException(f"{authority} holds no certificate of an authority: {error}") from error


@contextmanager
def _temporary(holdings: Holdings, left: list[str]) -> Iterator[ApiKeys]:
    """Make temporary keys, and remove them and all that was stored by them; add what could not be to `left`.

    Raises `STORE_ERRORS` where none can be made. Whatever asks the process to end lets it remove them first.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDINGS}
    try:
        yield holdings.make_keys(scope=next(name for name in CARRIERS if name in holdings.call_types))
    finally:
        click.echo(f"Removing what is stored of {holdings.customer_id} …", err=True)
        try:
            left += holdings.remove()
        except KeyboardInterrupt:
            tables = ", ".join(holdings.tables)
            left.append(f"Broken off: items of {holdings.customer_id} may stay in {tables}; its keys end within a day.")
            raise
        finally:
            for sentence in left or ["Removed."]:
                click.echo(sentence, err=True)
            for number, handler in before.items():
                signal.signal(number, handler)


def _file_stem(path: Path | None, url: str) -> Path | None:
    """Return where the report goes, without an ending; raises `click.BadParameter` where nothing can be written."""
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


def _write(report: Report, stem: Path) -> None:
    for ending, text in ((".md", report.markdown()), (".html", report.html())):
        file = stem.with_name(stem.name + ending)
        try:
            file.write_text(text, "utf-8")
        except OSError as error:
            raise click.ClickException(f"{file} can't be written: {error.strerror}") from error
        click.echo(f"Written: {file}", err=True)
