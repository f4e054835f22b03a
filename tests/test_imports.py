"""Test rules about imports that import-linter can't express.

Its contracts are in pyproject.toml, and `make check` runs them.
"""

import ast

import pytest

from destination.paths import ROOT

FUNCTIONS = sorted(path for package in ("handler", "consumer") for path in (ROOT / package).rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FUNCTIONS, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_module_creates_all_clients(path):
    makes_clients = bool({"boto3", "botocore.session"} & set(imports(path)))
    assert makes_clients == (path == ROOT / "handler" / "clients.py")


JUDGES = [
    path
    for room in ("segment", "simulation", "certification")
    for path in sorted((ROOT / "destination" / room).glob("*.py"))
    if path.stem != "catalog"  # writes a page, and judges nothing
]
"""The rooms that judge the product. Shared code would hide a fault of the product."""
SHARED = {
    "certification.checklist": {"handler.errors.STORE_ERRORS"},  # the exceptions of boto3, which judge nothing
    "certification.store_access": {"handler.errors.STORE_ERRORS", "handler.keys.new_key"},
    "certification.keys": {"handler.keys.new_key"},  # creates keys, as `destination keys create` does for a partner
    "certification.requests": {"handler.keys.new_key"},
    "certification.samples": {  # completes messages by the schemas that a partner has edited
        "handler.canonicalise.canonicalise",
        "handler.compile.read_schemas",
        "handler.decode.JsonObject",
        "handler.diagnose.FORMATS",
        "handler.diagnose.schema_registry",
        "handler.errors.Invalid",
        "handler.explain.explain",
        "handler.explain.spell_path",
        "handler.spec.SETTINGS",
        "handler.spec.TOP",
    },
    "simulation.contacts": {"consumer.contacts.table.ContactTable"},  # reads the output of `destination contacts`
    "simulation.play": {"handler.errors.STORE_ERRORS"},
    "simulation.setup": {"handler.errors.STORE_ERRORS", "handler.keys.new_key"},  # creates keys for the run
}
"""Module -> the modules of the product that it may import, and why."""
PRODUCT = ("handler", "consumer")


def judge(path):
    return f"{path.parent.name}.{path.stem}"


@pytest.mark.parametrize("path", JUDGES, ids=judge)
def test_judge_shares_no_code_with_the_product(path):
    names = {name for name in imports(path) if name.split(".")[0] in PRODUCT}
    packages = {name.rpartition(".")[0] for name in SHARED.get(judge(path), ())}
    assert names - packages == SHARED.get(judge(path), set())
