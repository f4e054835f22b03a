"""Packages as they are deployed: the destination's own artifact, and its peers put together by the same rules."""

import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from bench.figures import FOLDER, Options
from bench.pythons import lambda_python, run
from bench.subjects import PEERS, Code, Codes, checkout_codes
from destination.artifact import lambda_version
from destination.deployment.stack import FUNCTION
from destination.paths import ROOT

SCHEMAS = ROOT / "schemas"
BUILD_INPUTS = ("Makefile", ".ci", "destination", "handler", "requirements.txt", "schemas")
"""What the artifact is made from."""
PINS = ("requirements.txt", "requirements-dev.txt")
ZIP_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A function to compare with: folders of which each later one replaces files of those before."""

    name: str
    folders: tuple[Path, ...]

    @property
    def requirements(self) -> Path:
        """What it asks of pip, without versions."""
        return self.folders[-1] / "requirements.txt"


BARE_PUT = Peer(name="bare put", folders=(PEERS / "bare_put",))
CANONICAL = Peer(name="canonical, Powertools' validate", folders=(PEERS / "canonical",))
CANONICAL_JSONSCHEMA = Peer(
    name="canonical, jsonschema built once", folders=(PEERS / "canonical", PEERS / "canonical_jsonschema")
)


def destination_package(options: Options) -> Path:
    """Return the built destination: the one that `--artifact` names, else one that is built from this checkout.

    The build is what `sam build` does, and is kept for as long as nothing changes that it is made from.
    """
    if options.artifact:
        if not (options.artifact / "handler" / "app.py").exists():
            raise click.BadParameter(f"{options.artifact} holds no built {FUNCTION}", param_hint="--artifact")
        return options.artifact.resolve()
    python = lambda_python(options)

    def build(folder: Path) -> None:
        # The environment of this very process is not made anew, even if make thinks that it should be.
        command = ["make", "--old-file=.venv/.installed", f"build-{FUNCTION}", f"ARTIFACTS_DIR={folder}"]
        path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
        run([*command], cwd=ROOT, env={**os.environ, "PATH": path})

    return _kept("destination", [ROOT / name for name in BUILD_INPUTS], build)


def peer_package(peer: Peer) -> Path:
    """Return a peer with its packages, installed as the destination's are, at the same versions."""

    def build(folder: Path) -> None:
        constraints = folder.with_name("constraints.txt")
        constraints.write_text("\n".join(_pins()) + "\n")
        run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
                *("--only-binary=:all:", "--implementation", "cp", "--python-version", lambda_version()),
                *("--platform", f"manylinux2014_{platform.machine()}", "--target", folder),
                *("--constraint", constraints, "--requirement", peer.requirements),
            ]
        )
        constraints.unlink()
        for source in peer.folders:
            for path in source.glob("*.py"):
                shutil.copy(path, folder)
        shutil.copytree(SCHEMAS, folder / "schemas")

    return _kept(peer.folders[-1].name, [*peer.folders, SCHEMAS, *(ROOT / name for name in PINS)], build)


def _pins() -> list[str]:
    """Return `name==version` for all that the project pins, without the hashes."""
    texts = [(ROOT / name).read_text() for name in PINS]
    return list(dict.fromkeys(pin for text in texts for pin in re.findall(r"^[\w.-]+==[^\s;]+", text, re.MULTILINE)))


def _kept(name: str, inputs: Iterable[Path], build: Callable[[Path], None]) -> Path:
    """Return a folder that `build` filled, now or in an earlier run from the same inputs."""
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


def chosen_codes(options: Options) -> tuple[Codes, Path]:
    """Return the functions to compare, and the Python for them.

    They are those of the checkout, on the Python that runs this, or the packages where `--python` names another one.
    """
    if options.python is None:
        return checkout_codes(), Path(sys.executable)
    python = lambda_python(options)
    return packaged_codes(options), python


def packaged_codes(options: Options) -> Codes:
    """Return the functions as they are deployed."""
    bare_put = peer_package(BARE_PUT)
    return Codes(
        destination=Code(folders=(destination_package(options),), target="handler.app:lambda_handler"),
        stock=Code(folders=(PEERS / "stock_client", bare_put), target="app:put_item"),
        canonical=Code(folders=(peer_package(CANONICAL),), target="app:lambda_handler"),
        canonical_jsonschema=Code(folders=(peer_package(CANONICAL_JSONSCHEMA),), target="app:lambda_handler"),
        schemas=SCHEMAS,
    )


def is_compiled(package: Path) -> bool:
    """Whether a package brings its modules compiled."""
    return any(package.rglob("*.pyc"))


def compile_package(package: Path, python: Path) -> None:
    """Compile all modules of a package, to be believed without a look at their sources."""
    run([python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", package])


def size_bytes(package: Path) -> int:
    """Return the size of a package as Lambda unpacks it."""
    return sum(path.stat().st_size for path in package.rglob("*") if path.is_file())


def zipped_bytes(package: Path) -> int:
    """Return the size of a package as it is uploaded."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=ZIP_LEVEL) as archive:
            for path in sorted(package.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(package))
        return file.tell()
