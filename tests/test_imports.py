"""What import-linter can't say of imports; its contracts are in pyproject.toml, and `make check` runs them."""

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
def test_only_one_module_makes_clients(path):
    makes_clients = bool({"boto3", "botocore.session"} & set(imports(path)))
    assert makes_clients == (path == ROOT / "handler" / "clients.py")


JUDGES = [
    path
    for room in ("segment", "simulation", "certification")
    for path in sorted((ROOT / "destination" / room).glob("*.py"))
    if path.stem != "catalog"  # writes a page, and judges nothing
]
"""What judges the product. It would follow a fault of the product if it shared the product's code."""
SHARED = {
    "certification.checklist": {"handler.errors.STORE_ERRORS"},  # what boto3 raises, which is no judgement
    "certification.store_access": {"handler.errors.STORE_ERRORS", "handler.keys.new_key"},
    "certification.keys": {"handler.keys.new_key"},  # makes keys, as `destination keys create` does for a partner
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
    "simulation.contacts": {"consumer.contacts.table.ContactTable"},  # reads what `destination contacts` prints
    "simulation.play": {"handler.errors.STORE_ERRORS"},
    "simulation.setup": {"handler.errors.STORE_ERRORS", "handler.keys.new_key"},  # makes keys for the run
}
"""Module -> what it may import from the product, and why."""
PRODUCT = ("handler", "consumer")


def judge(path):
    return f"{path.parent.name}.{path.stem}"


@pytest.mark.parametrize("path", JUDGES, ids=judge)
def test_the_judge_shares_no_code_with_the_product(path):
    names = {name for name in imports(path) if name.split(".")[0] in PRODUCT}
    packages = {name.rpartition(".")[0] for name in SHARED.get(judge(path), ())}
    assert names - packages == SHARED.get(judge(path), set())
