"""Deploy the stack into an emulated account with `sam deploy`, and run `destination` and requests against it."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3
from local_server import MAX_WAIT_SECONDS

from destination.artifact import find_python, lambda_version
from destination.deployment.stack import load_template, stack_outputs
from destination.local.environment import local_environment
from destination.paths import ROOT

BUILT = ROOT / ".aws-sam" / "build"
REGION = "us-east-1"
ROOT_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""ministack treats these as the root user of the account."""
DEV_STACK = "direct-destination-dev"
"""The stack of the stage `dev`, as in samconfig.toml."""

RETRIED = {
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class EmulatedAccount:
    """An AWS account with IAM enforced, in a separate process, until `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._clients: dict[tuple[str, str], Any] = {}
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
        self.http = urllib3.PoolManager(retries=False, timeout=MAX_WAIT_SECONDS)

    def stop(self) -> None:
        """End the account. Its contents are gone."""
        self._process.kill()
        self._process.communicate()
        self.log.close()

    def environment(self, credentials: Mapping[str, str] = ROOT_CREDENTIALS) -> dict[str, str]:
        """Return the environment of a client of this account."""
        settings = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}
        return local_environment(
            {
                **settings,
                **credentials,
                "HOME": str(self.folder / "home"),
                "SAM_CLI_TELEMETRY": "0",
                "SAM_CLI_POLL_DELAY": "0.2",
                "COLUMNS": "160",
            }
        )

    def client(self, service: str, credentials: Mapping[str, str] = ROOT_CREDENTIALS) -> Any:
        """Return a boto3 client. Creating one takes 0.3 s."""
        key = (service, credentials["AWS_ACCESS_KEY_ID"])
        if key not in self._clients:
            self._clients[key] = boto3.client(
                service,
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
            )
        return self._clients[key]

    @cached_property
    def deployer(self) -> Mapping[str, str]:
        """Credentials of a user who has exactly the permissions of docs/deployer-policy.json."""
        return self._create_user("deployer")

    @cached_property
    def operator(self) -> Mapping[str, str]:
        """Credentials of a user who has exactly the permissions of docs/operator-policy.json."""
        return self._create_user("operator")

    def _create_user(self, name: str) -> Mapping[str, str]:
        iam = self.client("iam")
        document = (ROOT / "docs" / f"{name}-policy.json").read_text()
        policy = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}

    def sam(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run the SAM CLI in the checkout, as the deployer."""
        command = [shutil.which("sam"), *args]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment(self.deployer), capture_output=True, text=True, check=False
        )

    def make(self, target: str, stage: str, *options: str) -> str:
        """Run a target of the Makefile for a stage as the deployer, without a build. Return the output."""
        settings = [f"STAGE={stage}", f"ARGS={' '.join(options)}"]
        done = subprocess.run(
            [shutil.which("make"), "--old-file=build", target, *settings],
            cwd=ROOT,
            env=self.environment(self.deployer),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @cached_property
    def code(self) -> str:
        """Return where the first deployment put the artifact. It is one object, because all functions are the same."""
        s3 = self.client("s3")
        [bucket] = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
        found = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        [key] = [key for key in found if not key.endswith(".template")]
        return f"s3://{bucket}/{key}"


class DeployedStack:
    """A stack in an emulated account, deployed by its deployer, and used by its operator."""

    def __init__(self, account: EmulatedAccount, name: str = DEV_STACK) -> None:
        self.account = account
        self.name = name

    def deploy(self, **parameters: str) -> str:
        """Deploy the built artifact as `make deploy` does, and return the output of SAM."""
        printed = self._deploy(parameters)
        assert self.account.code
        return printed

    def update(
        self,
        *,
        code: Mapping[str, Path] | None = None,
        add: Mapping[str, Any] | None = None,
        edit: Callable[[dict[str, Any]], None] = lambda _: None,
        succeeds: bool = True,
        **parameters: str,
    ) -> str:
        """Deploy the template with changes, and return the output of SAM.

        `code` is other code of functions, `add` are more resources, and `edit` changes anything. All other functions
        have the code that is already uploaded. The template is JSON, because SAM then takes 2 s of processor time
        instead of 6 s.
        """
        template = load_template()
        for name, resource in template["Resources"].items():
            if resource["Type"] == "AWS::Serverless::Function":
                resource["Properties"]["CodeUri"] = str((code or {}).get(name, self.account.code))
        template["Resources"] |= add or {}
        edit(template)
        return self.deploy_template(template, succeeds=succeeds, **parameters)

    def deploy_template(self, template: Mapping[str, Any], *, succeeds: bool = True, **parameters: str) -> str:
        """Deploy a template, and return the output of SAM."""
        file = self.account.folder / "template.yaml"
        file.write_text(json.dumps(template))
        options = ["--template-file", str(file), "--config-file", str(ROOT / "samconfig.toml")]
        return self._deploy(parameters, *options, succeeds=succeeds)

    def _deploy(self, parameters: Mapping[str, str], *more: str, succeeds: bool = True) -> str:
        options = ["--config-env", "default", "--no-confirm-changeset", "--no-progressbar", "--stack-name", self.name]
        if parameters:
            options += ["--parameter-overrides", " ".join(f"{name}={value}" for name, value in parameters.items())]
        done = self.account.sam("deploy", *options, *more)
        printed = done.stdout + done.stderr
        assert (done.returncode == 0) is succeeds, printed
        return printed

    def outputs(self) -> dict[str, str]:
        """Return the outputs of the stack."""
        return stack_outputs(self.account.client("cloudformation"), self.name)

    @property
    def url(self) -> str:
        """Return where the emulated API Gateway serves the API. The path names it, as the host name does on AWS."""
        api = (urlsplit(self.outputs()["EndpointUrl"]).hostname or "").split(".")[0]
        return f"{self.account.endpoint}/_aws/execute-api/{api}/segment"

    def waiting(self, queue_url: str) -> int:
        """Return how many messages are in a queue."""
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        attributes = self.account.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(names))
        return sum(int(attributes["Attributes"][name]) for name in names)

    def ran(self, *args: str) -> None:
        """Run `destination`, which must succeed. A command that accepts `--stack` gets it unless it names a URL."""
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
            env=self.account.environment(self.account.operator),
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
            env=self.account.environment(self.account.operator),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def read(self, *args: str) -> Any:
        """Run a command with `--stack` and `--json`, and return the printed object, or the list of objects."""
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return parse_all(done.stdout)

    def create_key(self, customer: str) -> str:
        """Create an API key for a customer."""
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
        """Send a message, or a body of bytes, as Segment does, with its retries. Return status and answer."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        sent = {"Content-Type": "application/json", **urllib3.make_headers(basic_auth=f"{api_key}:"), **headers}
        url = self.url.removesuffix("/segment") + path
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            answer = self.account.http.request("POST", url, body=body, headers=sent)
            if answer.status not in RETRIED or not retries or time.monotonic() > deadline:
                return answer.status, json.loads(answer.data)
            time.sleep(0.5)

    def health(self) -> int:
        """Return the status of `GET /health`."""
        return self.account.http.request("GET", self.url.removesuffix("/segment") + "/health").status


def parse_all(text: str) -> list[Any]:
    """Parse consecutive JSON texts."""
    decoder, values, rest = json.JSONDecoder(), [], text.lstrip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values


def make_bare_python(folder: Path) -> Path:
    """Make an interpreter of Lambda's version without packages, so that a function imports only from its artifact."""
    python = find_python(lambda_version())
    if python is None:
        pytest.skip(f"this machine has no Python {lambda_version()}, which runs the functions")
    subprocess.run([python, "-m", "venv", "--without-pip", folder / "python"], check=True)
    return folder / "python" / "bin" / "python"


def eventually(check: Callable[[], object]) -> None:
    """Wait until a check holds."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while not check():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.3)
