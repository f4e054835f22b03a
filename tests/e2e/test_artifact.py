"""Test the artifact that `sam build` makes for Lambda: `make e2e-artifact`."""

import io
import re
import subprocess
import zipfile

import pytest

from destination.artifact import find_python, lambda_version
from destination.deployment.stack import FUNCTION, load_template
from destination.paths import ROOT

BUILD = ROOT / ".aws-sam" / "build"
ARTIFACT = BUILD / FUNCTION
FUNCTIONS = [
    name for name, resource in load_template()["Resources"].items() if resource["Type"] == "AWS::Serverless::Function"
]
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
BUILT = {"compiled.py", "amazon-roots.pem"}
MAX_ZIPPED_BYTES = 7_000_000
"""A larger artifact takes longer to load at a cold start."""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_all_functions_have_the_same_artifact(function):
    assert contents(BUILD / function) == contents(ARTIFACT)


def test_build_in_another_folder_is_identical(tmp_path):
    """SAM names an upload by its content, so identical builds are one upload and one version."""
    folder = tmp_path / "deeper" / "folder"
    make = ["make", "--silent", f"build-{FUNCTION}", f"ARTIFACTS_DIR={folder}"]
    subprocess.run(make, cwd=ROOT, check=True)
    assert contents(folder) == contents(ARTIFACT)


@pytest.mark.parametrize("folder", ["consumer", "handler", "schemas"])
def test_artifact_mirrors_the_checkout(folder):
    def files(root):
        paths = [path for path in (root / folder).iterdir() if path.is_file() and path.name not in BUILT]
        return {path.name: path.read_bytes() for path in paths}

    assert files(ARTIFACT) == files(ROOT)


def test_artifact_has_the_files_for_cold_starts():
    assert {path.name for path in (ARTIFACT / "handler").iterdir()} >= BUILT
    assert {path.name for path in (ARTIFACT / "botocore" / "data").iterdir() if path.is_dir()} == {"dynamodb", "sqs"}


def test_artifact_has_only_the_functions_and_their_schemas():
    assert not {"destination", "tests", "docs", "bench", "events", "template.yaml"} & {
        path.name for path in ARTIFACT.iterdir()
    }


@pytest.mark.parametrize("package", PINNED)
def test_artifact_has_each_package_as_pinned(package):
    [metadata] = ARTIFACT.glob(f"{package.replace('-', '_')}-{PINNED[package]}.dist-info/METADATA")
    assert f"\nVersion: {PINNED[package]}\n" in metadata.read_text()


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_compiled_parts_run_on_both_processors(processor):
    compiled = {path.name.partition(".")[0] for path in ARTIFACT.rglob("*.so")}
    for_processor = {path.name.partition(".")[0] for path in ARTIFACT.rglob(f"*.cpython-313-{processor}-linux-gnu.so")}
    assert compiled == for_processor != set()


@pytest.mark.skipif(find_python(lambda_version()) is None, reason="there is no Python to compile modules with")
def test_all_modules_are_compiled_for_lambdas_python():
    modules = {path.with_suffix("") for path in ARTIFACT.rglob("*.py")}
    compiled = {path.parent.parent / path.name.removesuffix(".cpython-313.pyc") for path in ARTIFACT.rglob("*.pyc")}
    assert modules == compiled


def test_artifact_is_small():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in ARTIFACT.rglob("*"):
            archive.write(path, path.relative_to(ARTIFACT))
    assert len(packed.getvalue()) < MAX_ZIPPED_BYTES
