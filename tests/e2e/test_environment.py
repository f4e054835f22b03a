"""Test local servers and commands in an environment that would break or redirect programs that read it."""

import asyncio
import os
import subprocess
import uuid

import boto3
import pytest
from local_server import MAX_WAIT_SECONDS, make_checkout, run, serving, start, wait_until

from destination.deployment.clients import local_client
from destination.deployment.stack import LOCAL_STACK, Account
from destination.local.environment import local_environment
from destination.local.functions import Function, Functions

pytest_plugins = ["servers"]

NOWHERE = "http://127.0.0.1:1"
SETTINGS = {
    **dict.fromkeys(
        [
            *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
            *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS"),
            *("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_CLOUDFORMATION", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"),
            *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        ],
        NOWHERE,
    ),
    **dict.fromkeys(["NO_PROXY", "no_proxy"], "example.com"),
    **dict.fromkeys(
        [
            *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_MAX_ATTEMPTS"),
            *("AWS_RETRY_MODE", "AWS_DEFAULTS_MODE", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_METADATA_SERVICE_TIMEOUT"),
            *("AWS_ACCOUNT_ID_ENDPOINT_MODE", "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_CSM_PORT", "MOTO_ACCOUNT_ID"),
            *("AWS_AUTH_SCHEME_PREFERENCE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_SDK_UA_APP_ID"),
            *("AWS_ENDPOINT_DISCOVERY_ENABLED", "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES", "AWS_EXECUTION_ENV"),
        ],
        "no such: thing/!",
    ),
    **dict.fromkeys(
        [
            "AWS_USE_FIPS_ENDPOINT",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "AWS_CSM_ENABLED",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
        ],
        "true",
    ),
    **dict.fromkeys(
        [*("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "AWS_DATA_PATH", "BOTO_CONFIG")],
        "/nonexistent/file",
    ),
    "AWS_LAMBDA_FUNCTION_NAME": "another",
    "AFTER_ERASURE": "nonsense",
    "POWERTOOLS_LOG_LEVEL": "nonsense",
    "TZ": "Asia/Kathmandu",
    "LC_ALL": "C",
    "PYTHONOPTIMIZE": "2",
    "PYTHONDONTWRITEBYTECODE": "1",
    "TMPDIR": "/nonexistent/folder",
}
"""Variables that a user's shell may have. Their values break or redirect programs that read them."""


@pytest.fixture
def broken_files(tmp_path):
    """Return variables that name unreadable AWS settings files."""
    file = tmp_path / "config"
    file.write_text("[default\nendpoint_url = nowhere")
    return {"AWS_CONFIG_FILE": str(file), "AWS_SHARED_CREDENTIALS_FILE": str(file)}


def set_all(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


# Clients of a local server


@pytest.mark.parametrize("name", SETTINGS)
def test_client_of_a_local_server_ignores_each_setting(monkeypatch, other_aws, name):
    monkeypatch.setenv(name, SETTINGS[name])
    assert "TableNames" in Account(endpoint_url=other_aws.url).dynamodb().list_tables()


@pytest.mark.parametrize("service", ["dynamodb", "dynamodbstreams", "sqs", "cloudformation", "logs", "cloudwatch"])
def test_client_of_a_local_server_ignores_all_settings_together(monkeypatch, other_aws, broken_files, service):
    set_all(monkeypatch, {**SETTINGS, **broken_files})
    client = local_client(service, other_aws.url)
    assert (client.meta.endpoint_url, client.meta.region_name) == (other_aws.url, "us-east-1")
    if service == "sqs":
        assert client.list_queues()["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_settings_in_the_home_folder_count_only_for_aws(monkeypatch, other_aws, tmp_path):
    (tmp_path / ".aws").mkdir()
    settings = f"[default]\nendpoint_url = {NOWHERE}\nmax_attempts = abc\nregion = mars\nservices = s\n"
    (tmp_path / ".aws" / "config").write_text(f"{settings}[services s]\ndynamodb =\n  endpoint_url = {NOWHERE}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "TableNames" in Account(endpoint_url=other_aws.url).dynamodb().list_tables()


def test_configured_authorities_are_used_for_https(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/authority.pem")
    assert "AWS_CA_BUNDLE" in local_environment({"AWS_ENDPOINT_URL": "https://127.0.0.1:1"})
    assert "AWS_CA_BUNDLE" not in local_environment({"AWS_ENDPOINT_URL": NOWHERE})


# Processes


def test_function_process_has_only_its_given_variables(monkeypatch, tmp_path, broken_files):
    set_all(monkeypatch, {**SETTINGS, **broken_files, "SECRET_OF_THE_SHELL": "x", "PYTHONPATH": "/nonexistent"})
    (tmp_path / "told.py").write_text("import os\ndef lambda_handler(event, context):\n    return dict(os.environ)\n")
    (tmp_path / "destination").symlink_to(os.path.realpath("destination"))
    (tmp_path / "handler").symlink_to(os.path.realpath("handler"))
    (tmp_path / "consumer").symlink_to(os.path.realpath("consumer"))

    async def ask():
        functions = Functions(
            Function(name="Told", handler="told.lambda_handler", timeout_seconds=10), {"EVENT_TABLE": "events"}
        )
        functions.use(tmp_path)
        await functions.start(1)
        try:
            return (await functions.invoke({})).response
        finally:
            await functions.stop()

    told = asyncio.run(ask())
    assert told["EVENT_TABLE"] == "events"
    assert told["TZ"] == ":UTC"
    given = {name for name, value in told.items() if value == {**SETTINGS, **broken_files}.get(name)}
    assert given <= {"TMPDIR"}
    assert "SECRET_OF_THE_SHELL" not in told
    assert "PYTHONPATH" not in told


def test_local_server_works_in_any_environment(tmp_path, broken_files):
    environment = {**os.environ, **SETTINGS, **broken_files, "PYTHONSAFEPATH": "1", "PYTHONPATH": "/nonexistent"}
    environment.pop("PYTHONDONTWRITEBYTECODE")  # otherwise every process would compile all modules
    environment.pop("HOME", None)
    user = str(uuid.uuid4())
    with serving(tmp_path, "--processes", "1", env=environment) as server:
        assert server.post({"type": "track", "userId": user, "event": "Lamp Lit"}).status == 200
        assert server.post({"type": "delete", "userId": user}).status == 202
        wait_until(lambda: "EraserFunction erased" in server.output)
        for command in (["keys", "list"], ["messages", "list"], ["contacts", "list"], ["ping", "all"]):
            with start(
                server.checkout, *command, "--url", server.url, env=environment, stdout=subprocess.PIPE
            ) as process:
                printed = process.communicate(timeout=MAX_WAIT_SECONDS)[0]
            assert process.returncode == 0, printed


# Stacks, with the user's own settings


@pytest.fixture(autouse=True)
def _fresh_session(monkeypatch):
    """Let boto3 read the settings again."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        ({"AWS_MAX_ATTEMPTS": "abc"}, "Your AWS settings can't be used"),
        ({"AWS_RETRY_MODE": "odd"}, "odd"),
        ({"AWS_DEFAULTS_MODE": "odd"}, "odd"),
        ({"AWS_REGION": "not a region!"}, "not a region!"),
        ({"AWS_ENDPOINT_URL": "nowhere"}, "Invalid endpoint: nowhere"),
        ({"AWS_ENDPOINT_URL": NOWHERE}, NOWHERE),
        ({"AWS_ENDPOINT_URL": "https://127.0.0.1:1", "AWS_CA_BUNDLE": "/nonexistent"}, "https://127.0.0.1:1"),
        ({"HTTPS_PROXY": NOWHERE, "HTTP_PROXY": NOWHERE}, "proxy"),
        ({"HTTPS_PROXY": "http://[", "HTTP_PROXY": "http://["}, ""),
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [["keys", "list"], ["status"], ["messages", "list"]], ids=str)
def test_wrong_aws_setting_is_reported_in_one_line(monkeypatch, variables, sentence, command):
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}
    set_all(monkeypatch, {**given, **variables})
    result = run(*command, "--stack", LOCAL_STACK)
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert sentence in line


def test_broken_aws_files_are_reported_in_one_line(monkeypatch, broken_files):
    set_all(monkeypatch, broken_files)
    for options in (["--stack", LOCAL_STACK], ["--table", "keys"]):
        result = run("keys", "list", *options)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert "Unable to parse config file" in result.stderr


def test_unknown_profile_does_not_stop_a_local_server(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with start(
        make_checkout(tmp_path),
        "serve",
        "--port",
        "0",
        "--endpoint-url",
        NOWHERE,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
    ) as process:
        printed = process.communicate(timeout=MAX_WAIT_SECONDS)[0]
    assert printed.splitlines()[-1].startswith(f"Error: {NOWHERE} does not answer as DynamoDB")
