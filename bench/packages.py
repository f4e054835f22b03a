"""Packages as they are deployed: the built destination, its peers built alike, and a Python like Lambda's."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from bench.figures import FOLDER, NotRunError, Options
from bench.subjects import PEER_FOLDERS, PEERS, Codes, checkout_codes
from destination.artifact import find_python, lambda_version, python_version
from destination.paths import ROOT

BUILD_INPUTS = ("Makefile", ".ci", "consumer", "destination", "handler", "requirements.txt", "schemas")
"""The artifact is made from these."""
PINS = ("requirements.txt", "requirements-dev.txt")
RUNTIME_CLIENT = "awslambdaric==4.2.2"
"""It runs a function in Lambda's own images. https://pypi.org/project/awslambdaric/"""
ZIP_LEVEL = 6


def lambda_python(options: Options) -> Path:
    """Return a Python of the function's version; raises `NotRunError` if there is none."""
    version = lambda_version()
    python = options.python or find_python(version)
    if python is None:
        raise NotRunError(f"there is no Python {version} on this machine: install it, or name it with --python")
    if python_version(python) != version:
        raise click.BadParameter(f"{python} is not Python {version}, which the function runs on")
    return python


def runtime_python(python: Path) -> Path:
    """Return a Python in which only Lambda's runtime client is installed; it is made once and kept."""
    digest = hashlib.sha256(f"{python} {RUNTIME_CLIENT}".encode()).hexdigest()[:12]
    folder = FOLDER / f"runtime-{digest}"
    made = folder / "bin" / "python"
    if not (folder / ".made").exists():
        _run(python, "-m", "venv", "--clear", folder)
        _run(made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", RUNTIME_CLIENT)
        (folder / ".made").touch()
    return made


def destination_package(options: Options) -> Path:
    """Build the destination from this checkout, as `sam build` does; it is kept until its inputs change."""
    path = os.pathsep.join([str(lambda_python(options).parent), os.environ.get("PATH", "")])

    def build(folder: Path) -> None:
        folder.mkdir()
        # Make must not reinstall the environment of this process.
        _run("make", "-C", ROOT, "--old-file=.venv/.installed", "function", f"ARTIFACTS_DIR={folder}", path=path)

    return _kept("destination", [ROOT / name for name in BUILD_INPUTS], build)


def peer_package(name: str) -> Path:
    """Return a peer with its packages, installed by the options and at the versions of the destination."""
    folders = [PEERS / folder for folder in PEER_FOLDERS[name]]
    pins = re.findall(r"^[\w.-]+==[^\s;]+", "\n".join((ROOT / file).read_text() for file in PINS), re.MULTILINE)

    def build(folder: Path) -> None:
        constraints = folder.with_name("constraints.txt")
        constraints.write_text("\n".join(dict.fromkeys(pins)) + "\n")
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--only-binary=:all:", "--implementation", "cp", "--python-version", lambda_version()),
            *("--platform", f"manylinux2014_{platform.machine()}", "--target", folder),
            *("--constraint", constraints, "--requirement", folders[-1] / "requirements.txt"),
        )
        for path in (path for source in folders for path in source.glob("*.py")):
            shutil.copy(path, folder)

    return _kept(folders[-1].name, [PEERS, *(ROOT / pin for pin in PINS)], build)


def _kept(name: str, inputs: Iterable[Path], build: Callable[[Path], None]) -> Path:
    """Return a folder that `build` made, now or in an earlier run from the same inputs."""
    digest = hashlib.sha256()
    for path in sorted(path for given in inputs for path in (given.rglob("*") if given.is_dir() else [given])):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    kept = FOLDER / "packages" / f"{name}-{digest.hexdigest()[:12]}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            made = Path(folder) / "made"
            build(made)
            for outdated in kept.parent.glob(f"{name}-" + "?" * 12):
                shutil.rmtree(outdated)
            made.rename(kept)
    return kept


def _run(*command: str | Path, path: str | None = None) -> None:
    """Run a command; raises `click.ClickException` with its output if it fails."""
    env = {**os.environ, "PATH": path} if path else None
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603 -- ours
    if done.returncode:
        raise click.ClickException(f"{' '.join(map(str, command))} failed:\n{done.stdout.strip()}")


def chosen_codes(options: Options) -> tuple[Codes, list[str]]:
    """Return the functions to compare and the command of their Python.

    By default they are those of the checkout, on the Python that runs this; with `--python`, the packages.
    """
    if options.python is None:
        return checkout_codes(), [sys.executable]
    return packaged_codes(options)


def packaged_codes(options: Options) -> tuple[Codes, list[str]]:
    """Return the functions as they are deployed, and the command of a Python like Lambda's."""
    python = lambda_python(options)
    codes = Codes.of(destination_package(options), {name: (peer_package(name),) for name in PEER_FOLDERS})
    return codes, [str(python)]


def size_bytes(package: Path) -> int:
    """Return the size of a package as Lambda unpacks it."""
    return sum(path.stat().st_size for path in package.rglob("*") if path.is_file())


def zipped_bytes(package: Path) -> int:
    """Return the size of a package as it is uploaded."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=ZIP_LEVEL) as archive:
            for path in sorted(path for path in package.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(package))
        return file.tell()
