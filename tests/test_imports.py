"""The arrows: errors <- steps <- destination <- app, the consumers beside that, and the command line above all."""

import ast

import pytest

from destination.deployment.stack import ROOT

HANDLER = sorted((ROOT / "handler").glob("*.py"))
CONSUMER = sorted((ROOT / "consumer").glob("*.py"))
ORDER = (
    "errors",
    "spec",
    "split",
    "decode",
    "items",
    "timestamps",
    "patterns",
    "compile",
    "canonicalise",
    "settings",
    "keys",
    "authenticate",
    "time_limit",
    "explain",
    "diagnose",
    "validate",
    "record",
    "parallel",
    "erased",
    "reject",
    "write",
    "respond",
    "observe",
    "routes",
    "request",
    "judge",
    "destination",
    "health",
    "transport",
    "clients",
    "app",
)


CONSUMER_ORDER = (
    "errors",
    "clients",
    "stored",
    "contacts",
    "contact_table",
    "handle",
    "batch",
    "forward",
    "stream",
    "queue",
    "erasures",
    "erase",
    "eraser",
)
MODULES = [path for path in (*HANDLER, *CONSUMER) if path.stem != "__init__"]
ORDERS = {"handler": ORDER, "consumer": CONSUMER_ORDER}


def module(path):
    return f"{path.parent.name}.{path.stem}"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ORDERS)
def test_every_module_has_its_place(package):
    assert {path.stem for path in (ROOT / package).glob("*.py")} == {"__init__", *ORDERS[package]}


@pytest.mark.parametrize("path", MODULES, ids=module)
def test_a_module_imports_only_those_before_it(path):
    package, order = path.parent.name, ORDERS[path.parent.name]
    own = {name.split(".")[1] for name in imports(path) if name.startswith(f"{package}.")}
    assert own <= set(order[: order.index(path.stem)]) | {"__init__"}


@pytest.mark.parametrize("path", [*HANDLER, *CONSUMER], ids=module)
def test_a_function_never_imports_the_command_line(path):
    assert not {
        name for name in imports(path) if name.split(".")[0] in ("destination", "tests", "moto", "click", "rich")
    }


@pytest.mark.parametrize("path", HANDLER, ids=module)
def test_the_endpoint_never_imports_a_consumer(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "consumer"}


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if module(path) not in ("handler.app", "handler.clients")],
    ids=module,
)
def test_only_two_modules_make_clients(path):
    assert not {"boto3", "botocore.session"} & set(imports(path))


READERS = ("handler.app", "consumer.handle", "consumer.eraser", "consumer.forward", "consumer.stream")


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if module(path) not in READERS],
    ids=module,
)
def test_only_what_makes_clients_reads_the_environment(path):
    assert "os" not in imports(path)


JUDGES = [
    path
    for room in ("segment", "simulation", "certification")
    for path in sorted((ROOT / "destination" / room).glob("*.py"))
    if path.stem != "catalog"  # writes a page, and judges nothing
]
"""What judges the product. It would follow a fault of the product if it shared the product's code."""
SHARED = {
    "certification.checklist": {"handler.errors.STORE_ERRORS"},  # what boto3 raises, which is no judgement
    "certification.holdings": {"handler.errors.STORE_ERRORS", "handler.keys.new_key"},
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
    "simulation.contacts": {"consumer.contact_table.ContactTable"},  # reads what `destination contacts` prints
    "simulation.play": {"handler.errors.STORE_ERRORS"},
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
