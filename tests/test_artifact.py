"""Test the parts of the second half of `sam build`. tests/e2e/test_artifact.py tests the whole."""

import gzip
import json
import marshal
import os
import re
import ssl
import sys
from pathlib import Path

import botocore
import click
import pytest
from click.testing import CliRunner

from destination.artifact import (
    OURS,
    SERVICES,
    amazon_roots,
    compile_modules,
    compile_with,
    find_python,
    main,
    python_version,
    reduce_models,
    remove_unused_files,
)
from destination.deployment.stack import load_template
from handler.clients import AMAZON_ROOTS

BUNDLE = (Path(botocore.__file__).parent / "cacert.pem").read_text()


def test_amazons_roots_are_five_of_botocores():
    roots = amazon_roots(BUNDLE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=roots)
    assert len(context.get_ca_certs()) == 5
    assert all(block in BUNDLE for block in re.findall(r"-----BEGIN.*?END CERTIFICATE-----", roots, re.DOTALL))


def test_missing_root_certificate_is_an_error():
    with pytest.raises(click.ClickException, match=r"no certificate Amazon Root CA 3: update ROOTS"):
        amazon_roots(BUNDLE.replace("CN=Amazon Root CA 3 ", "CN=Amazon Root CA 33 "))


@pytest.fixture
def data(tmp_path):
    """Return botocore's data in its usual layout, for three services."""
    for service in ("dynamodb", "ec2", "sqs"):
        folder = tmp_path / service / "2012-08-10"
        folder.mkdir(parents=True)
        model = {"documentation": "<p>", "shapes": {"a": {"documentation": "<p>", "members": {"documentation": {}}}}}
        (folder / "service-2.json.gz").write_bytes(gzip.compress(json.dumps(model).encode()))
        (folder / "examples-1.json").write_text("{}")
    endpoints = {"partitions": [{"regions": {"x": {}}, "services": {"dynamodb": {"y": 1}, "ec2": {"z": 1}}}]}
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    reduce_models(tmp_path)
    return tmp_path


def test_two_services_remain_in_botocores_data(data):
    assert sorted(path.name for path in data.iterdir()) == ["dynamodb", "endpoints.json", "sqs"]
    [model] = (data / "sqs" / "2012-08-10").iterdir()
    assert json.loads(model.read_text()) == {"shapes": {"a": {"members": {"documentation": {}}}}}


def test_all_regions_remain_in_the_endpoints(data):
    [partition] = json.loads((data / "endpoints.json").read_text())["partitions"]
    assert partition == {
        "regions": {"x": {}},
        "services": {name: {"y": 1} if name == "dynamodb" else {} for name in SERVICES},
    }


def test_name_version_and_licence_of_a_package_remain(tmp_path):
    for name in ("METADATA", "LICENSE.txt", "RECORD", "WHEEL"):
        path = tmp_path / "six-1.17.0.dist-info" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("tests/test_six.py", "six.pyi", "py.typed", "six.py"):
        path = tmp_path / "six" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_unused_files(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"METADATA", "LICENSE.txt", "six.py"}


def test_a_python_is_found_by_its_version():
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert python_version(find_python(version)) == version
    assert find_python("2.1") is None
    assert python_version(Path("/nowhere/python")) is None


def test_build_without_lambdas_python_warns_about_the_cost(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "six.py").touch()
    compile_modules(tmp_path)
    assert "there is no Python 3.13 on this machine" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["six.py"]


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_compiled_modules_do_not_depend_on_folder_or_time(tmp_path):
    folders = [tmp_path / "one", tmp_path / "another" / "deeper one"]
    for at, folder in enumerate(folders):
        (folder / "package").mkdir(parents=True)
        source = folder / "package" / "module.py"
        source.write_text("WORDS = {'a', 'b', 'c'}\n\n\ndef find(word):\n    return word in {'x', 'y', 'z'}\n")
        os.utime(source, (at * 1000, at * 1000))
        compile_with(Path(sys.executable), folder)
    assert files_of(folders[0]) == files_of(folders[1])


def test_compiled_module_names_its_source_in_lambda(tmp_path):
    (tmp_path / "module.py").write_text("def find():\n    pass\n")
    compile_with(Path(sys.executable), tmp_path)
    [compiled] = tmp_path.rglob("*.pyc")
    code = marshal.loads(compiled.read_bytes()[16:])  # noqa: S302 -- compiled a moment ago
    assert code.co_filename == "/var/task/module.py"


def test_help_says_what_the_command_is():
    result = CliRunner().invoke(main, ["--help"])
    assert (result.exit_code, "cold starts" in result.stdout) == (0, True)


def test_name_of_the_roots_file_is_known_to_the_function():
    assert AMAZON_ROOTS.parent.name == "handler"


def made(folder):
    """Create a minimal function in a folder."""
    (folder / "botocore" / "data").mkdir(parents=True, exist_ok=True)
    (folder / "botocore" / "cacert.pem").write_text(BUNDLE, encoding="utf-8")
    result = CliRunner().invoke(main, [str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def test_builds_in_different_folders_are_identical(tmp_path):
    assert files_of(made(tmp_path / "one")) == files_of(made(tmp_path / "another" / "deeper"))


def test_older_files_are_replaced(tmp_path):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "old.json").touch()
    for _ in range(2):
        made(tmp_path)
    assert not (tmp_path / "schemas" / "old.json").exists()
    assert {"compiled.py", AMAZON_ROOTS.name, "app.py"} <= {path.name for path in (tmp_path / "handler").iterdir()}


def test_the_handler_of_every_function_is_packed():
    functions = [
        resource["Properties"]
        for resource in load_template()["Resources"].values()
        if resource["Type"] == "AWS::Serverless::Function"
    ]
    assert {function["Handler"].partition(".")[0] for function in functions} <= set(OURS)
