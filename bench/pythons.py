"""The Python that Lambda runs the function with: where it is on this machine, and Lambda's runtime client for it."""

import hashlib
import subprocess
from pathlib import Path

import click

from bench.figures import FOLDER, NotRunError, Options
from destination.artifact import find_python, lambda_version, python_version

RUNTIME_CLIENT = "awslambdaric==4.2.2"
"""What runs a function in Lambda's own images. https://pypi.org/project/awslambdaric/"""
SECONDS = 300
"""For installing a few packages."""


def lambda_python(options: Options) -> Path:
    """Return a Python like the function's; raises `NotRunError` where there is none."""
    version = lambda_version()
    if options.python is None:
        if (found := find_python(version)) is None:
            raise NotRunError(f"there is no Python {version} on this machine: install it, or name it with --python")
        return found
    if python_version(options.python) != version:
        raise click.BadParameter(f"{options.python} is not Python {version}, which the function runs on")
    return options.python


def runtime_python(python: Path) -> Path:
    """Return a Python like Lambda's: nothing is installed in it but the runtime client.

    It is made once and kept; raises `click.ClickException` where that fails.
    """
    digest = hashlib.sha256(f"{python} {RUNTIME_CLIENT}".encode()).hexdigest()[:12]
    folder = FOLDER / f"runtime-{digest}"
    made = folder / "bin" / "python"
    if not (folder / ".made").exists():
        run([python, "-m", "venv", "--clear", folder])
        run([made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", RUNTIME_CLIENT])
        (folder / ".made").touch()
    return made


def run(command: list[str | Path], *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command; raises `click.ClickException` with what it said where it fails."""
    words = " ".join(str(word) for word in command)
    try:
        done = subprocess.run(  # noqa: S603 -- our own commands
            command,
            cwd=cwd,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise click.ClickException(f"{words}: {error}") from error
    if done.returncode:
        raise click.ClickException(f"{words} failed:\n{done.stdout.strip()}")
