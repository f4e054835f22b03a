"""`destination catalog-page`: a draft of the destination's public page in Segment's catalogue."""

import re
from pathlib import Path

import click

from destination.certification.catalog import TODO, Partner, page_of
from destination.certification.samples import Samples
from destination.commands.options import Parsed, target_options
from destination.deployment.target import Target
from destination.paths import SCHEMAS


def _parse_web_address(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s()<>]+", text):  # any other text would not be a link
        raise ValueError(f"{text} is not the URL of a page: write https://…")
    return text


WEB_ADDRESS = Parsed("URL", _parse_web_address)


@click.command(name="catalog-page")
@click.option("--name", required=True, help="The destination's name in the catalogue.")
@click.option("--website", type=WEB_ADDRESS, help="Your website: a URL.")
@click.option("--support", help="The e-mail address or URL of your support.")
@click.option("--keys-at", type=WEB_ADDRESS, help="The page where your customers find their API key: a URL.")
@click.option("--rate", type=click.IntRange(1), help="The messages per second that you accept, including replays.")
@click.option("--output", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="A file to write to.")
@target_options
def catalog_page(
    *,
    target: Target,
    name: str,
    website: str | None,
    support: str | None,
    keys_at: str | None,
    rate: int | None,
    output: Path | None,
) -> None:
    """Draft the public page for Segment's catalogue.

    It uses the deployed configuration and schemas/. The page is Markdown in the order of Segment's template. Facts that
    only you know are marked with TODO.

    \b
    Example:
      destination catalog-page --stack direct-destination --name Acme --output acme.md
    """
    partner = Partner(name=name, website=website, support=support, keys_at=keys_at, rate=rate)
    page = page_of(partner, target, Samples(SCHEMAS))
    if output is None:
        click.echo(page)
    else:
        try:
            output.write_text(page + "\n", "utf-8")
        except OSError as error:
            raise click.ClickException(f"{output} can't be written: {error.strerror}") from error
    if left := page.count(TODO):
        click.echo(f"{left} places are left for you to fill in, each marked {TODO}.", err=True)
