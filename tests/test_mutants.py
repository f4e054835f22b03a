"""Test the faults that `make mutants` builds into a module."""

import ast

import pytest

from tests.mutants.__main__ import PACKAGES, ROOT, TESTS, all_mutants, equivalent, watchers_of
from tests.mutants.operators import mutants_of


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("a = b < c", {"a = b <= c"}),
        ("a = b in c is d", {"a = b not in c is d", "a = b in c is not d"}),
        ("a = b and c", {"a = (b or c)", "a = (c)", "a = (b)"}),
        ("a = not b", {"a = (b)"}),
        ("a = b + c", {"a = (b - c)"}),
        ("a = 1", {"a = 2"}),
        ("a = True", {"a = False"}),
        ("a = 'x'", {"a = 'x~'"}),
        ("a = f'x{b}'", {"a = f'x{b}~'"}),
        ("a = b if c else d", {"a = b if True else d", "a = b if False else d"}),
        ("a = [b for b in c if d]", {"a = [b for b in c if True]"}),
        ("a = (b, c)", {"a = (c,)", "a = (b,)"}),
        ("a = {b: c, d: e}", {"a = {d: e}", "a = {b: c}"}),
        ("a = b(c, d=e)", {"a = b(c)"}),
        ("a = b.get(c, d)", {"a = b.get(c)"}),
        ("@a\ndef b(): pass", {""}),
        ("a()", {"pass"}),
        ("raise a('text', 1)", {"pass", "raise a('text', 2)"}),
        ("def a():\n    return b", {"return None"}),
        ("def a():\n    b()\n    c = d", {"pass", "c = d\nb()"}),
        ("def a():\n    b = c()\n    d = e()", set()),
        ("def a():\n    b = c()\n    d = e(b)", {"d = e(b)\nb = c()"}),
        ("try: a = b\nexcept C: a = d", {"except Exception: a = d", "except (): a = d"}),
        (
            "try: a = b\nexcept (C, D): a = d",
            {"except Exception: a = d", "except (C,): a = d", "except (D,): a = d"},
        ),
        (
            "with suppress(A, B): c = d",
            {"with suppress(B): c = d", "with suppress(A): c = d", "with suppress(Exception): c = d"},
        ),
        ("def a():\n    '''Text.'''", set()),
        ("def a(b: 'c') -> 'd':\n    assert b, 'text'", set()),
        ("@dataclass(frozen=True)\nclass A:\n    b: int", set()),
        ("if TYPE_CHECKING:\n    a = 1", set()),
        ("A = Mapping[str, int]", set()),
    ],
)
def test_a_statement_has_these_faults(source, faults):
    source = f"{source}\n"
    found = mutants_of("handler/lamp.py", source)
    assert {mutant.new for mutant in found} == faults
    for mutant in found:
        ast.parse(mutant.source)


def test_fault_knows_its_line_and_changes_only_that():
    source = "a = 'é'\nb = 1  # why\nc = (\n    'é',\n    2,\n)\n"
    found = {(mutant.line, mutant.old, mutant.new): mutant.source for mutant in mutants_of("handler/lamp.py", source)}
    assert found[2, "b = 1  # why", "b = 2  # why"] == source.replace("b = 1", "b = 2")
    assert found[5, "2,", "3,"] == source.replace("2,", "3,")


def test_the_tests_of_each_module_exist():
    assert all(watchers_of(f"{module}.py") for module in TESTS)


MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def test_all_modules_have_tests():
    with_code = [path for path in MODULES if len(ast.parse(path.read_text()).body) > 1]
    assert all(watchers_of(path.relative_to(ROOT).as_posix()) for path in with_code)


def test_a_module_without_tests_is_named():
    assert watchers_of("handler/transport.py") == ["tests/test_transport.py", "tests/test_limits.py"]
    with pytest.raises(
        SystemExit, match=r"^tests/test_lamp\.py does not exist\. Name the tests of handler/lamp\.py in "
    ):
        watchers_of("handler/lamp.py")


def test_equivalent_faults_have_a_reason():
    assert all(one.keys() == {"path", "old", "new", "reason"} and one["reason"] for one in equivalent())


@pytest.mark.parametrize("path", sorted({one["path"] for one in equivalent()}))
def test_equivalent_faults_exist_in_the_current_text(path):
    known = {(one["old"], one["new"]) for one in equivalent() if one["path"] == path}
    found = {(mutant.old, mutant.new) for mutant in all_mutants([path])}
    assert known <= found, "adapt tests/mutants/equivalent.toml"
