"""The folders that commands read and write: in a checkout, or in the package that pip installed."""

from pathlib import Path

import click

_CHECKOUT = Path(__file__).parents[1]
IS_CHECKOUT = (_CHECKOUT / "template.yaml").exists()
ROOT = _CHECKOUT if IS_CHECKOUT else Path(__file__).parent / "shipped"
"""Has `events/` and `schemas/`; only a checkout has the rest of the repository."""
SCHEMAS = ROOT / "schemas"
LOCAL_FOLDER = (ROOT if IS_CHECKOUT else Path.cwd()) / ".local"
"""Files that a local server leaves for other tools: the environment for `sam local`, and its certificate authority."""


def require_checkout(what: str) -> None:
    """Raise `click.ClickException` if the package was installed without the repository."""
    if not IS_CHECKOUT:
        raise click.ClickException(f"{what} needs a checkout of the repository: run it there, with `make run`")
