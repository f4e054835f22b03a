"""A stack on an embedded AWS, and a `destination debug` that shows it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3
from local_server import MAX_WAIT_SECONDS, wait_until
from request_lines import function_line

from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from destination.deployment.stack import STORE_OUTPUTS, Account, create_local_stack
from destination.local.embedded_aws import SERVICES, EmbeddedAws
from destination.paths import ROOT

LOG_GROUPS = {"FunctionLogGroupName": "prod-Function", "ApiLogGroupName": "prod-Api"}


class Stack:
    """A stack with its stores and logs, and the page that shows it."""

    def __init__(self, aws, folder):
        self.account = Account(endpoint_url=aws.url)
        self.stores = create_local_stack(self.account, {}).stores
        outputs = {output: getattr(self.stores, name) for name, output in STORE_OUTPUTS.items()} | LOG_GROUPS
        template = {
            "Resources": {"Any": {"Type": "AWS::SQS::Queue"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
        self.account.cloudformation().create_stack(StackName="prod", TemplateBody=json.dumps(template))
        self.logs = self.account.logs()
        for group in LOG_GROUPS.values():
            self.create_group(group)
        environment = {**LOCAL_CREDENTIALS, "aws_default_region": LOCAL_REGION, "aws_endpoint_url": aws.url}
        self.printed = folder / "printed"
        with self.printed.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "destination", "debug", "--stack", "prod", "--port", "0", "--last", "0"],
                cwd=ROOT,
                env={**os.environ, **{name.upper(): value for name, value in environment.items()}},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(lambda: "Control-C" in self.printed.read_text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.printed.read_text()
        [self.url] = [word.rstrip("/") for word in self.printed.read_text().split() if word.startswith("http")]
        self.http = urllib3.PoolManager(retries=False, timeout=MAX_WAIT_SECONDS)

    def log(self, group, line):
        """Write a line into the log, as Lambda or API Gateway does."""
        event = {"timestamp": int(time.time() * 1000), "message": line}
        self.logs.put_log_events(logGroupName=f"prod-{group}", logStreamName="s", logEvents=[event])

    def ask(self, path, **fields):
        """Return status and body of an answer."""
        answer = self.http.request("GET", f"{self.url}/_local{path}", fields=fields)
        return answer.status, json.loads(answer.data)

    def get(self, path, **fields):
        """Return the JSON that the page gets."""
        status, body = self.ask(path, **fields)
        assert status == 200, body
        return body

    def create_group(self, group):
        """Make a log group."""
        self.logs.create_log_group(logGroupName=group)
        self.logs.create_log_stream(logGroupName=group, logStreamName="s")

    def snapshot(self):
        """Return the first event that the page gets."""
        answer = self.http.request("GET", f"{self.url}/_local/live", preload_content=False)
        answer.readline()
        snapshot = json.loads(answer.readline().removeprefix(b"data: "))
        answer.close()
        return snapshot

    def rows(self):
        """Return all rows that the page gets."""
        return self.snapshot()["rows"]

    def is_followed(self):
        """Write a line, and return whether the page shows a row by now. The page shows no older requests."""
        self.log("Function", function_line(request_id="first"))
        return bool(self.rows())

    def row(self, request_id):
        """Wait for the row of a request."""

        def found():
            return [row for row in self.rows() if row["id"].startswith(request_id)]

        wait_until(found)
        return found()[0]


@contextmanager
def debugged_stack(folder: Path) -> Iterator[Stack]:
    """Return a stack with a page that runs until the end of the context."""
    aws = EmbeddedAws(services=(*SERVICES, "logs"))
    try:
        stack = Stack(aws, folder)
        try:
            wait_until(stack.is_followed)
            yield stack
        finally:
            stack.process.send_signal(signal.SIGINT)
            assert stack.process.wait(MAX_WAIT_SECONDS) == 0
            stack.http.clear()
    finally:
        aws.stop()
