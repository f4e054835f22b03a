"""The folders that commands read and write: those of a checkout, or of the package that pip installed."""

from pathlib import Path

import click

_CHECKOUT = Path(__file__).parents[1]
IS_CHECKOUT = (_CHECKOUT / "template.yaml").exists()
ROOT = _CHECKOUT if IS_CHECKOUT else Path(__file__).parent / "shipped"
"""Has `events/` and `schemas/`; the rest of the repository is only in a checkout."""
SCHEMAS = ROOT / "schemas"
LOCAL_FOLDER = (ROOT if IS_CHECKOUT else Path.cwd()) / ".local"
"""What a local server leaves for others: the environment for `sam local`, and the authority of its certificate."""


def need_checkout(what: str) -> None:
    """Raise `click.ClickException` where the package was installed without the repository."""
    if not IS_CHECKOUT:
        raise click.ClickException(f"{what} needs a checkout of the repository: run it there, with `make run`")
