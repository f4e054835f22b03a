"""Deploys the stack into an emulated account by `sam deploy`, and runs `destination` and requests against it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3
from local_server import PATIENCE_SECONDS

from destination.artifact import find_python, lambda_version
from destination.deployment.stack import ROOT, load_template, stack_outputs
from destination.local.environment import local_environment

BUILT = ROOT / ".aws-sam" / "build"
REGION = "us-east-1"
ROOT_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""ministack takes them for the root user of the account."""
DEV_STACK = "direct-destination-dev"
"""The stack of the stage `dev`, as samconfig.toml has it."""

RETRIED = {
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class EmulatedAccount:
    """An AWS account with IAM enforced, in a process of its own, until `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = (folder / "account.log").open("w")
        home = folder / "home"
        home.mkdir()
        settings = {
            **ROOT_CREDENTIALS,
            "AUTH": "true",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "HOME": str(home),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deployed.account", str(make_bare_python(folder))],
            cwd=Path(__file__).parent.parent,
            env=local_environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        port = self._process.stdout.readline().strip()
        if not port:
            self.stop()
            raise RuntimeError(f"The account did not start: {(folder / 'account.log').read_text()}")
        self.endpoint = f"http://127.0.0.1:{port}"
        self.http = urllib3.PoolManager(retries=False, timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        """End it; what it holds is gone."""
        self._process.kill()
        self._process.communicate()
        self.log.close()

    def environment(self, credentials: Mapping[str, str] = ROOT_CREDENTIALS) -> dict[str, str]:
        """Return the environment of a client of this account."""
        settings = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        return local_environment(
            {**settings, **credentials, "HOME": str(self.folder / "home"), "SAM_CLI_TELEMETRY": "0", "COLUMNS": "160"}
        )

    def client(self, service: str, credentials: Mapping[str, str] = ROOT_CREDENTIALS) -> Any:
        """Return a client of boto3."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        )

    def sam(self, *args: str, credentials: Mapping[str, str] = ROOT_CREDENTIALS) -> subprocess.CompletedProcess[str]:
        """Run the SAM CLI in the checkout."""
        command = [shutil.which("sam"), *args]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment(credentials), capture_output=True, text=True, check=False
        )


class DeployedStack:
    """A stack in an emulated account."""

    def __init__(self, account: EmulatedAccount, name: str = DEV_STACK) -> None:
        self.account = account
        self.name = name

    def deploy(
        self,
        template: Path | None = None,
        credentials: Mapping[str, str] = ROOT_CREDENTIALS,
        *,
        succeeds: bool = True,
        **parameters: str,
    ) -> str:
        """Deploy the built template as `make deploy` does, and return what SAM printed."""
        options = ["--config-env", "default", "--no-confirm-changeset", "--no-progressbar", "--stack-name", self.name]
        if template:
            options += ["--template-file", str(template), "--config-file", str(ROOT / "samconfig.toml")]
        if parameters:
            options += ["--parameter-overrides", " ".join(f"{name}={value}" for name, value in parameters.items())]
        done = self.account.sam("deploy", *options, credentials=credentials)
        printed = done.stdout + done.stderr
        assert (done.returncode == 0) is succeeds, printed
        return printed

    def delete(self) -> None:
        """Delete it by `sam delete`."""
        done = self.account.sam("delete", "--stack-name", self.name, "--no-prompts", "--region", REGION)
        assert done.returncode == 0, done.stdout + done.stderr

    def outputs(self) -> dict[str, str]:
        """Return the outputs of the stack."""
        return stack_outputs(self.account.client("cloudformation"), self.name)

    @property
    def url(self) -> str:
        """Where the emulated API Gateway serves the API: the path names it, as the host name does on AWS."""
        api = (urlsplit(self.outputs()["EndpointUrl"]).hostname or "").split(".")[0]
        return f"{self.account.endpoint}/_aws/execute-api/{api}/segment"

    def waiting(self, queue_url: str) -> int:
        """Return how many messages are in a queue."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        attributes = self.account.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(names))
        return sum(int(attributes["Attributes"][name]) for name in names)

    def ran(self, *args: str) -> None:
        """Run `destination`, which must succeed; a command that takes `--stack` gets it unless it names a URL."""
        done = self.run_here(*args) if "--url" in args else self.run(*args)
        assert done.returncode == 0, done.stdout + done.stderr

    def certify(self) -> None:
        """Run `destination certify`, which must find no fault."""
        self.ran("certify", "--stack", self.name, "--url", self.url)

    @contextmanager
    def started(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Run `destination` with `--stack` until the end of the context."""
        command = [sys.executable, "-m", "destination", *args, "--stack", self.name]
        with subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.account.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `destination` with `--stack`."""
        return self.run_here(*args, "--stack", self.name, stdin=stdin)

    def run_here(self, *args: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `destination`."""
        return subprocess.run(
            [sys.executable, "-m", "destination", *args],
            cwd=ROOT,
            env=self.account.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def read(self, *args: str) -> Any:
        """Run a command with `--stack` and `--json`, and return the object that it printed, or the list of them."""
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return parse_all(done.stdout)

    def create_key(self, customer: str) -> str:
        """Give a customer an API key."""
        done = self.run("keys", "create", "--customer", customer, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return str(json.loads(done.stdout)["api_key"])

    def post(
        self,
        api_key: str,
        message: Mapping[str, Any] | bytes,
        path: str = "/segment",
        *,
        retries: bool = True,
        **headers: str,
    ) -> tuple[int, Any]:
        """Send a message, or a body of bytes, as Segment does, with its retries; return status and answer."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent = {"Content-Type": "application/json", **urllib3.make_headers(basic_auth=f"{api_key}:"), **headers}
        url = self.url.removesuffix("/segment") + path
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.account.http.request("POST", url, body=body, headers=sent)
            if answer.status not in RETRIED or not retries or time.monotonic() > deadline:
                return answer.status, json.loads(answer.data)
            time.sleep(0.5)

    def health(self) -> int:
        """Return the status of `GET /health`."""
        return self.account.http.request("GET", self.url.removesuffix("/segment") + "/health").status


def parse_all(text: str) -> list[Any]:
    """Parse JSON texts that follow each other."""
    decoder, values, rest = json.JSONDecoder(), [], text.lstrip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values


def edited_template(
    folder: Path,
    *,
    code: Mapping[str, Path] | None = None,
    add: Mapping[str, Any] | None = None,
    edit: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Write the template with changes into a folder: other code of functions, more resources, or any edit."""
    template = load_template()
    for name, resource in template["Resources"].items():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = str((code or {}).get(name, BUILT / name))
    template["Resources"] |= add or {}
    edit(template)
    file = folder / "template.yaml"
    file.unlink(missing_ok=True)  # it may be a link into the checkout
    file.write_text(json.dumps(template))
    return file


def make_bare_python(folder: Path) -> Path:
    """Make an interpreter of Lambda's version without packages: what a function imports comes from its artifact."""
    python = find_python(lambda_version())
    if python is None:
        pytest.skip(f"this machine has no Python {lambda_version()}, which runs the functions")
    subprocess.run([python, "-m", "venv", "--without-pip", folder / "python"], check=True)
    return folder / "python" / "bin" / "python"


def eventually(check: Callable[[], object]) -> None:
    """Wait until a check holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.3)
