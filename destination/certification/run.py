"""Run the checklist once, with temporary API keys if the stores are known."""

import secrets
import signal
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version

import click

from destination.certification.checklist import findings
from destination.certification.examination import CARRIERS, Examination
from destination.certification.points import Finding, Point
from destination.certification.report import Report, shown_url
from destination.certification.samples import Samples
from destination.certification.store_access import ApiKeys, StoreAccess
from destination.certification.wire import Wire
from destination.console import progress
from destination.deployment.target import trusted_authority
from destination.paths import SCHEMAS

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a run like Control-C."""


def run(
    wire: Wire, points: Sequence[Point], *, keys: ApiKeys, store_access: StoreAccess | None, only: Sequence[str]
) -> Report:
    """Check the points."""
    samples, began_at = Samples(SCHEMAS), datetime.now(UTC)
    name = store_access.customer_id if store_access else f"certify-{secrets.token_hex(4)}"
    found: list[Finding] = []
    notes = store_access.stays if store_access else []
    for key in keys.all:
        wire.keep_secret(key)
    examination = Examination(wire, name=name, keys=keys, samples=samples, store_access=store_access)
    with progress("Certifying", total=len(points)) as step:
        for finding in findings(examination, points):
            found.append(finding)
            step()
    if store_access is None and any(exchange.is_accepted for exchange in wire.exchanges):
        notes.append(
            "The messages of this run stay stored for the customer of the API key. Their ids start with "
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


def open_wire(url: str, ca_file: str | None, limit_seconds: float) -> Wire:
    """Return a client for an endpoint; raises `click.ClickException` for an invalid authority."""
    authority = trusted_authority(url, ca_file) if url.startswith("https:") else None
    try:
        return Wire(url, limit_seconds=limit_seconds, ca_file=authority)
    except ssl.SSLError as error:
        raise click.ClickException(f"{authority} does not have the certificate of an authority: {error}") from error


@contextmanager
def temporary_keys(store_access: StoreAccess, left: list[str]) -> Iterator[ApiKeys]:
    """Create temporary keys, and finally remove them and their messages; add descriptions of the rest to `left`.

    Raises `STORE_ERRORS` if no key can be created. Any signal that ends the process lets it remove them first.
    """
    before = {number: signal.signal(number, signal.default_int_handler) for number in ENDINGS}
    try:
        yield store_access.make_keys(scope=next(name for name in CARRIERS if name in store_access.call_types))
    finally:
        click.echo(f"Removing the data of {store_access.customer_id} …", err=True)
        try:
            left += store_access.remove()
        except KeyboardInterrupt:
            tables = ", ".join(store_access.tables)
            left.append(
                f"Interrupted: items of {store_access.customer_id} may stay in {tables}; its keys end within a day."
            )
            raise
        finally:
            for sentence in left or ["Removed."]:
                click.echo(sentence, err=True)
            for number, handler in before.items():
                signal.signal(number, handler)
