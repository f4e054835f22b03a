"""The second half of `sam build`: `python -m destination.artifact FOLDER`, after pip has installed the packages there.

All functions of the template get the same artifact, and differ only in their handlers.

Most steps speed up cold starts, because a customer's message waits for them. Python reads compiled modules instead of
compiling them. botocore reads two services' models instead of choosing among four hundred. TLS loads five root
certificates instead of a hundred and twenty.
"""

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from destination.deployment.stack import FUNCTION, load_template
from destination.paths import ROOT, SCHEMAS
from destination.schemas.check import check_schemas
from handler.clients import AMAZON_ROOTS
from handler.compile import compile_schemas, read_schemas
from handler.sinks import SINKS, sink_named
from handler.validate import SCHEMA_NAMES

SERVICES = {"dynamodb", "sqs", *(sink_named(name).service for name in SINKS)}
"""The AWS services that the functions call: for keys, rejects, erasures, the consumer, and each sink."""
OURS = ("consumer", "handler", "schemas")
"""The folders of the checkout that are added."""
ROOTS = (*(f"Amazon Root CA {number}" for number in range(1, 5)), "Starfield Services Root Certificate Authority - G2")
"""Amazon Trust Services: https://www.amazontrust.com/repository/"""
LAMBDA_FOLDER = "/var/task"
"""Where Lambda unpacks a function: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html"""


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Make a function of the packages that pip has installed in FOLDER: add our code, and prepare it for cold starts.

    `sam build` runs it through the Makefile.

    \b
    Example:
      python -m destination.artifact .aws-sam/build/DestinationFunction
    """
    if faults := check_schemas(SCHEMAS):
        raise click.ClickException("\n".join(["The schemas have faults, so nothing was built.", *map(str, faults)]))
    for name in OURS:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    compiled = compile_schemas(read_schemas(folder / "schemas"), SCHEMA_NAMES)
    (folder / "handler" / "compiled.py").write_text(compiled, encoding="utf-8")
    roots = amazon_roots((folder / "botocore" / "cacert.pem").read_text(encoding="utf-8"))
    (folder / "handler" / AMAZON_ROOTS.name).write_text(roots, encoding="utf-8")
    reduce_models(folder / "botocore" / "data")
    remove_unused_files(folder)
    compile_modules(folder)


def amazon_roots(bundle: str) -> str:
    """Return Amazon's certificates from a bundle; raises `click.ClickException` if one is missing."""
    found = []
    for name in ROOTS:
        certificate = re.search(rf"# Subject: CN={name} .*?-----END CERTIFICATE-----\n", bundle, re.DOTALL)
        if certificate is None:
            raise click.ClickException(
                f"botocore's cacert.pem has no certificate {name}: update ROOTS in destination/artifact.py"
            )
        found.append(certificate[0])
    return "".join(found)


def reduce_models(data: Path) -> None:
    """Remove botocore's data except the models of the called services, and their documentation."""
    for folder in data.iterdir():
        if folder.is_dir() and folder.name not in SERVICES:
            shutil.rmtree(folder)
    for path in [*data.rglob("*.json"), *data.rglob("*.json.gz")]:
        document = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        path.unlink()
        if path.name.startswith("examples-"):
            continue
        if path.name == "endpoints.json":
            for partition in document["partitions"]:
                partition["services"] = {name: partition["services"].get(name, {}) for name in sorted(SERVICES)}
        path.with_name(path.name.removesuffix(".gz")).write_text(json.dumps(_without_documentation(document)))


def _without_documentation(document: Any) -> Any:  # noqa: ANN401 -- JSON
    if isinstance(document, list):
        return [_without_documentation(entry) for entry in document]
    if isinstance(document, dict):
        return {
            name: _without_documentation(value)
            for name, value in document.items()
            if not (name == "documentation" and isinstance(value, str))
        }
    return document


def remove_unused_files(folder: Path) -> None:
    """Remove files that the function never reads. Names, versions and licences of packages stay, for scanners."""
    for path in [folder / "bin", folder / "boto3" / "data", folder / "boto3" / "examples", *folder.rglob("tests")]:
        shutil.rmtree(path, ignore_errors=True)
    for path in [*folder.rglob("*.pyi"), *folder.rglob("py.typed"), *folder.glob("*.dist-info/*")]:
        if path.is_file() and path.name != "METADATA" and not path.name.startswith("LICEN"):
            path.unlink()


def compile_modules(folder: Path) -> None:
    """Compile all modules with Lambda's version of Python; without it, warn that cold starts will be slow."""
    version = lambda_version()
    python = find_python(version)
    if python is None:
        click.secho(
            f"Warning: there is no Python {version} on this machine, so the function's modules are not compiled: "
            "its cold starts will take two to three times as long.",
            fg="yellow",
            err=True,
        )
        return
    compile_with(python, folder)


def compile_with(python: Path, folder: Path) -> None:
    """Compile all modules reproducibly: the same sources give the same bytes, in every folder and at any time.

    A compiled module contains the path of its source for tracebacks: here the path in Lambda. It contains no time,
    because Lambda does not check it against its source, which never changes there.
    """
    options = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", LAMBDA_FOLDER]
    subprocess.run([python, "-I", "-m", "compileall", *options, str(folder)], check=True)  # noqa: S603 -- a Python


def lambda_version() -> str:
    """Return the version of the function's runtime, such as `3.13`."""
    runtime: str = load_template()["Resources"][FUNCTION]["Properties"]["Runtime"]
    return runtime.removeprefix("python")


def find_python(version: str) -> Path | None:
    """Find a Python of a version, such as `3.13`: this one, one on the PATH, or one of pyenv's."""
    candidates = [Path(sys.executable)]
    if found := shutil.which(f"python{version}"):
        candidates.append(Path(found))
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python{version}"), reverse=True)
    return next((path for path in candidates if python_version(path) == version), None)


def python_version(path: Path) -> str | None:
    """Return the version of an interpreter, such as `3.13`; None if it does not run."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([path, "-c", ask], capture_output=True, text=True, check=False)  # noqa: S603 -- a Python
    except OSError:
        return None
    return answer.stdout.strip() or None


if __name__ == "__main__":
    main(prog_name="python -m destination.artifact")
