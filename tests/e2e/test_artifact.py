"""What `sam build` put together for Lambda; run by .ci/run after it."""

import re

import pytest

from cli.stack import FUNCTION, ROOT

ARTIFACT = ROOT / ".aws-sam" / "build" / FUNCTION
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("folder", ["handler", "schemas"])
def test_it_mirrors_the_checkout(folder):
    def files(root):
        return {path.name: path.read_bytes() for path in (root / folder).iterdir() if path.is_file()}

    assert files(ARTIFACT) == files(ROOT)


def test_it_holds_nothing_of_ours_but_the_function_and_its_schemas():
    assert not {"cli", "tests", "docs", "bench", "events", "template.yaml"} & {path.name for path in ARTIFACT.iterdir()}


@pytest.mark.parametrize("package", PINNED)
def test_it_holds_each_package_as_pinned(package):
    assert list(ARTIFACT.glob(f"{package.replace('-', '_')}-{PINNED[package]}.dist-info"))


@pytest.mark.parametrize("processor", ["x86_64", "aarch64"])
def test_its_compiled_parts_run_on_both_processors(processor):
    compiled = {path.name.partition(".")[0] for path in ARTIFACT.rglob("*.so")}
    for_processor = {path.name.partition(".")[0] for path in ARTIFACT.rglob(f"*.cpython-313-{processor}-linux-gnu.so")}
    assert compiled == for_processor != set()
