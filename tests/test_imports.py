"""The arrows of the architecture: errors <- steps <- destination <- app, and the command line above all."""

import ast

import pytest

from cli.stack import ROOT

HANDLER = sorted((ROOT / "handler").glob("*.py"))
ORDER = (
    "errors",
    "decode",
    "items",
    "spec",
    "timestamps",
    "compile",
    "canonicalise",
    "settings",
    "request",
    "keys",
    "authenticate",
    "explain",
    "diagnose",
    "validate",
    "record",
    "reject",
    "write",
    "respond",
    "observe",
    "destination",
    "transport",
    "clients",
    "app",
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_place():
    assert {path.stem for path in HANDLER} == {"__init__", *ORDER}


@pytest.mark.parametrize("path", [path for path in HANDLER if path.stem != "__init__"], ids=lambda path: path.stem)
def test_a_module_imports_only_those_before_it(path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("handler.")}
    assert own <= set(ORDER[: ORDER.index(path.stem)]) | {"__init__"}


@pytest.mark.parametrize("path", HANDLER, ids=lambda path: path.stem)
def test_the_function_never_imports_the_command_line(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("cli", "tests", "moto", "click", "rich")}


@pytest.mark.parametrize(
    "path", [path for path in HANDLER if path.stem not in ("app", "clients")], ids=lambda path: path.stem
)
def test_only_app_reads_the_environment_and_makes_clients(path):
    assert not {"os", "boto3", "botocore.session"} & set(imports(path))
