"""Test what a cold start loads before the first message is answered."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
from local_server import serving

from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from destination.paths import ROOT
from handler.compile import compile_schemas, read_schemas
from handler.validate import SCHEMA_NAMES

UNAVOIDABLE = "import sys, json, botocore.session; botocore.session.get_session().create_client('dynamodb'); "
TOLD = "print(json.dumps(sorted(sys.modules)))"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cold"), "--processes", "1") as server:
        yield server


@pytest.fixture
def function(server, tmp_path):
    """Return a function that runs Python in the folder of the built function, with the stores of a local server."""
    for name in ("handler", "schemas"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    compiled = compile_schemas(read_schemas(tmp_path / "schemas"), SCHEMA_NAMES)
    (tmp_path / "handler" / "compiled.py").write_text(compiled)
    environment = {name.upper(): value for name, value in asdict(server.stores).items()}
    environment |= {name.upper(): value for name, value in LOCAL_CREDENTIALS.items()}
    environment |= {"AWS_DEFAULT_REGION": LOCAL_REGION, "AWS_ENDPOINT_URL": server.account.endpoint_url}
    environment |= {"AWS_LAMBDA_FUNCTION_NAME": "test", "PATH": os.environ["PATH"]}

    def run(code):
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return [json.loads(line) for line in finished.stdout.splitlines()]

    return run


def event(name):
    return json.loads((ROOT / "events" / f"{name}.json").read_text())


def test_cold_start_loads_little_besides_botocore(function):
    [before] = function(UNAVOIDABLE + TOLD)
    [after] = function("import handler.app, json, sys; " + TOLD)
    more = {name for name in set(after) - set(before) if name.partition(".")[0] != "handler"}
    assert more <= {"gc", "secrets"}
    assert not {"boto3", "fastjsonschema", "jsonschema"} & {name.partition(".")[0] for name in after}


def test_only_a_refused_message_loads_the_explaining_modules(function):
    answered = "import handler.app, json, sys; print(handler.app.lambda_handler({!r}, None)['statusCode']); "
    *_, status, modules = function(answered.format(event("track")) + TOLD)
    assert (status, "jsonschema" in modules, "fastjsonschema" in modules) == (200, False, False)
    *_, status, modules = function(answered.format(event("missing-event")) + TOLD)
    assert (status, "jsonschema" in modules) == (400, True)
