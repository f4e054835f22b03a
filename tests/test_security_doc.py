"""Test that the tests named in docs/explanation/security.md exist."""

import ast
import re

import pytest

from destination.commands.serve import serve
from destination.paths import ROOT

PAGE = (ROOT / "docs" / "explanation" / "security.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_test_exists(file, name):
    module = ast.parse((ROOT / "tests" / file).read_text())
    assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def test_all_threats_name_a_test():
    rows = re.findall(r"^\| (?!threat |---)(.+) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 20
    assert [row for row in rows if "::" not in row] == []


def test_the_local_server_listens_on_loopback():
    [host] = [option for option in serve.params if option.name == "host"]
    assert host.default == "127.0.0.1"
