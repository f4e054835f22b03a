"""Fixtures: the stores of template.yaml on moto, and the whole function in front of them."""

import base64
import copyreg
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from coverage import Coverage

os.environ["POWERTOOLS_SERVICE_NAME"] = "tests"  # Powertools reads this when the consumers are imported.

COVERAGE = Coverage.current()
REPOSITORY = Path(__file__).parent.parent
PRODUCT = [
    path.relative_to(REPOSITORY).with_suffix("")
    for folder in ("handler", "consumer")
    for path in (REPOSITORY / folder).rglob("*.py")
]
"""The modules whose coverage is measured. Their imports are traced, as module-level code counts too."""
for module in PRODUCT:
    if module != Path("handler", "app"):  # it needs the tables
        importlib.import_module(".".join(module.parts).removesuffix(".__init__"))
if COVERAGE:
    COVERAGE.stop()  # importing the rest and collecting the tests takes 40 % longer with it

import moto.core.responses
import pytest
from botocore.endpoint import Endpoint
from botocore.handlers import BUILTIN_HANDLERS
from botocore.session import Session
from hypothesis import HealthCheck, is_hypothesis_test, settings
from moto import mock_aws
from moto.backends import get_backend
from moto.core.botocore_stubber import BotocoreStubber
from moto.core.models import DEFAULT_ACCOUNT_ID, RESPONSES_METHODS
from moto.core.serialize import BaseJSONSerializer
from searches import DEFAULT_EXAMPLES, examples
from strict_aws import KEEP_SESSION, strict_aws

from destination.deployment import demo
from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import (
    ROOT,
    Account,
    LocalStack,
    copy_tables,
    create_local_stack,
    load_template,
    local_store_name,
)
from handler.compile import compile_schemas, read_schemas
from handler.items import read_json_attribute
from handler.sinks import SINKS, sink_named
from handler.validate import SCHEMA_NAMES

Json = dict[str, Any]

# The same examples each time, so that the change under test is the cause of a failure. One deployment may serve all
# examples of a test.
settings.register_profile(
    "reproducible",
    database=None,
    deadline=None,
    derandomize=True,
    max_examples=examples(DEFAULT_EXAMPLES),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("reproducible")


RUNNING = pytest.StashKey[Coverage | None]()
LAST_TRACED = pytest.StashKey[str]()
"""The module of the last test if that was traced, else ""."""
TRACED_TESTS = {module.name for module in PRODUCT} | {
    "consumers",
    "contact_table",
    "contacts",
    "erase",
    "events",
    "library_routes",
    "write",
}
"""Test modules that are traced: those named after a module, and some more."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Stop coverage until the first traced test. A worker of xdist starts its own coverage after the imports above."""
    coverage = Coverage.current()
    if coverage:
        coverage.stop()
    session.config.stash[RUNNING] = coverage or COVERAGE


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Function) -> Generator[None, Any, Any]:
    """Trace only the test modules in `TRACED_TESTS`, without tests that have many examples.

    Tracing slows a test down by a third. `fail_under` in pyproject.toml shows that the traced tests cover everything.
    """
    coverage = item.config.stash[RUNNING]
    has_many_examples = is_hypothesis_test(item.function) or item.get_closest_marker("many_examples")
    module = item.module.__name__
    if coverage is None or has_many_examples or module.removeprefix("test_") not in TRACED_TESTS:
        item.config.stash[LAST_TRACED] = ""
        return (yield)
    if item.config.stash.get(LAST_TRACED, "") != module:
        item.config.stash[LAST_TRACED] = module
        clear_caches()
    coverage.start()
    try:
        return (yield)
    finally:
        coverage.stop()


def clear_caches() -> None:
    """Clear the caches of the product's functions, so that their lines run, even if an untraced test called them."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("consumer.", "handler.")):
            for function in vars(module).values():
                if hasattr(function, "cache_clear"):
                    function.cache_clear()


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function without tracing. It calls no code of ours, and tracing would double its time."""

    @wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **named)
        finally:
            sys.settrace(tracer)

    return wrapped


BotocoreStubber.__call__ = untraced(BotocoreStubber.__call__)
Endpoint.create_request = untraced(Endpoint.create_request)
Session.create_client = untraced(Session.create_client)
moto.core.responses.method_names_from_class = cache(moto.core.responses.method_names_from_class)
"""Moto calls this for each request. It takes a tenth of the request's time."""
RESPONSES_METHODS.clear()
"""Moto prepares thousands of answers for the library `requests` in each test, and nothing here uses that library."""

serialize_structure = BaseJSONSerializer._serialize_type_structure  # noqa: SLF001


def serialize_attribute(self: Any, serialized: Json, value: Any, shape: Any, key: str) -> None:
    """Serialize a structure, but copy the text or number of an item.

    Moto looks for each of the ten types of an attribute value by several spellings, half of the time of a read.
    """
    if shape.name == "AttributeValue" and value.keys() in ({"S"}, {"N"}) and type(*value.values()) is str:
        serialized[key] = value
    else:
        serialize_structure(self, serialized, value, shape, key)


BaseJSONSerializer._serialize_type_structure = serialize_attribute  # noqa: SLF001

SERVICES = sorted({"cloudformation", "dynamodb", "sqs", *(sink_named(name).service for name in SINKS)})
MOTO = {service: f"https://{service}.{LOCAL_REGION}.amazonaws.com" for service in SERVICES}
"""The point where moto intercepts requests within this process."""
OTHER_DYNAMODB = os.environ.get("TEST_DYNAMODB_URL")
"""A server that replaces moto's DynamoDB. .ci/run names dynalite here, and every result must be the same."""
TABLE_MAKERS = {"deploy", "dynamodb"}
"""Fixtures of tests that must run on the other DynamoDB too.

Other tests that use AWS are about CloudFormation, or start a moto server.
"""


SERVER_FIXTURES = {"server", "queue_server"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that use a whole local server.

    With another DynamoDB, deselect the tests that do not use it, and the many examples of hypothesis.
    """
    for item in items:
        if not SERVER_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker("processes")
    if OTHER_DYNAMODB:
        others = {
            item for item in items if TABLE_MAKERS.isdisjoint(item.fixturenames) or is_hypothesis_test(item.function)
        }
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


WAITING = {"Delay": 0.01, "MaxAttempts": 3000}
"""Seconds between two polls, and the number of polls."""
STORE_TABLES = {
    local_store_name(name, resource)
    for name, resource in load_template()["Resources"].items()
    if resource["Type"] == "AWS::DynamoDB::Table"
}
"""The tables of the template."""


@cache
def other_client() -> Any:
    """Return a client of the other DynamoDB."""
    return Account(endpoint_url=OTHER_DYNAMODB).dynamodb()


def wait_for_table(parsed: Json, **_: object) -> None:
    """Wait until a created table exists, as in AWS. moto's tables exist at once."""
    if "TableDescription" in parsed:
        waiter = other_client().get_waiter("table_exists")
        waiter.wait(TableName=parsed["TableDescription"]["TableName"], WaiterConfig=WAITING)


if OTHER_DYNAMODB:
    # Register for every client of every session, because moto's mock may begin a new session.
    BUILTIN_HANDLERS.append(("after-call.dynamodb.CreateTable", wait_for_table))


@cache
def key_names(table: str) -> list[str]:
    """Return the names of the key attributes of a table in the other DynamoDB."""
    return [key["AttributeName"] for key in other_client().describe_table(TableName=table)["Table"]["KeySchema"]]


def empty_table(table: str) -> None:
    """Delete all items of a table in the other DynamoDB."""
    for page in other_client().get_paginator("scan").paginate(TableName=table):
        for item in page["Items"]:
            other_client().delete_item(TableName=table, Key={name: item[name] for name in key_names(table)})


@pytest.fixture(autouse=bool(OTHER_DYNAMODB))
def other_dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every client call the other DynamoDB, and leave no item there.

    The tables of the template stay for the next test, because creating them takes longer than most tests.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", OTHER_DYNAMODB)
    yield
    for name in other_client().list_tables()["TableNames"]:
        if name in STORE_TABLES:
            empty_table(name)
        else:
            other_client().delete_table(TableName=name)
            other_client().get_waiter("table_not_exists").wait(TableName=name, WaiterConfig=WAITING)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    """AWS, emulated by moto within this process, with rules that are stricter than moto's."""
    for name, value in {**LOCAL_CREDENTIALS, "aws_default_region": LOCAL_REGION}.items():
        monkeypatch.setenv(name.upper(), value)
    for service, url in {**MOTO, "dynamodb": OTHER_DYNAMODB or MOTO["dynamodb"]}.items():
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service.upper()}", url)
    with mock_aws(config=KEEP_SESSION), strict_aws():
        yield Account()


class SharedAccount(Account):
    """Makes each client once for all tests, because that takes 8 ms.

    A test that registers events at a client makes its own client with the fixture `aws`.
    """

    store_client, cloudformation = cache(Account.store_client), cache(Account.cloudformation)


SHARED_ACCOUNT = SharedAccount()


@pytest.fixture
def shared_account(aws: Account) -> SharedAccount:
    """Return AWS, as the fixture `aws` does, with clients that all tests share."""
    assert aws
    return SHARED_ACCOUNT


copyreg.pickle(threading.Condition, lambda _: (threading.Condition, ()))
"""`deepcopy` needs this, because each of moto's queues has a condition.

Nothing waits for the condition between two tests.
"""


def moto_state() -> dict[str, Json]:
    """Return the attributes of moto's backends: the whole state of the services."""
    return {service: vars(get_backend(service)[DEFAULT_ACCOUNT_ID][LOCAL_REGION]) for service in SERVICES}


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The result of a preparation, and a copy of moto's state after it."""

    returned: Any
    state: dict[str, Json]

    @untraced
    def restore(self) -> Any:
        """Put the copy back, and return what the preparation returned."""
        for service, attributes in deepcopy(self.state).items():
            moto_state()[service].update(attributes)
        return self.returned


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A response of the function, its body as JSON."""

    status: int
    headers: Json
    body: Json


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """The whole function, loaded as Lambda loads it, and its stores."""

    function: Callable[[Json, object], Json]
    account: Account
    stack: LocalStack

    def send(self, event: Json) -> Answer:
        """Invoke the function with an event."""
        response = self.function(event, None)
        return Answer(status=response["statusCode"], headers=response["headers"], body=json.loads(response["body"]))

    def post(
        self,
        message: object,
        *,
        key: str | None = demo.GOOD_KEY,
        headers: Json | None = None,
        path: str = "/segment",
        is_base64: bool = False,
    ) -> Answer:
        """Send a message or any text, as Segment does, or as a library does with another path.

        An empty key sends no credentials.
        """
        credentials = {} if key is None else {"authorization": f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"}
        return self.send(
            {
                "routeKey": f"POST {path}",
                "headers": {**credentials, **(headers or {})},
                "requestContext": {"requestId": "test"},
                "body": message if isinstance(message, str) else json.dumps(message),
                "isBase64Encoded": is_base64,
            }
        )

    def add_key(self, key: str, **fields: Any) -> None:
        """Add an API key to the key table."""
        self.keys.put(KeyRecord.of(key, **{"customer_id": demo.CUSTOMER, **fields}))

    @property
    def keys(self) -> KeyTable:
        """The key table."""
        return KeyTable(self.account.dynamodb(), self.stack.stores.key_table)

    def stored(self) -> list[Json]:
        """Return the records in the event table, `message` and `settings` decoded."""
        items = self.account.dynamodb().scan(TableName=self.stack.stores.event_table)["Items"]
        return [
            {
                name: read_json_attribute(value) if name in ("message", "settings") else value["S"]
                for name, value in item.items()
                if name != "expires_at"
            }
            for item in items
        ]

    def queued(self) -> list[Json]:
        """Take the messages from the event queue, `Body` decoded."""
        answer = self.account.sqs().receive_message(
            QueueUrl=self.stack.stores.event_queue_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return [{**message, "Body": json.loads(message["Body"])} for message in answer.get("Messages", [])]

    def records(self) -> list[Json]:
        """Return the content of either sink, in one form."""
        if self.stack.stores.sink.is_queryable:
            return [{"settings": {}, **record} for record in self.stored()]
        return [message["Body"] for message in self.queued()]


@pytest.fixture(scope="session")
def compiled() -> ModuleType:
    """Compile the schemas once, as for the artifact."""
    module = ModuleType("handler.compiled")
    exec(compile_schemas(read_schemas(ROOT / "schemas"), SCHEMA_NAMES), module.__dict__)  # noqa: S102 -- our own code
    return module


@pytest.fixture(scope="session")
def snapshots() -> dict[str, Snapshot]:
    """Return the snapshots of all tests by their names."""
    return {}


@pytest.fixture
def prepare(aws: Account, snapshots: dict[str, Snapshot]) -> Callable[..., Any]:
    """Prepare AWS for a test: with a function the first time, and from a snapshot later.

    A snapshot replaces everything that is stored. It saves time: a stack takes 40 ms without it, and 2 ms with it.
    """
    assert aws

    def prepare(name: str, function: Callable[[], Any], *, is_in_moto: bool = not OTHER_DYNAMODB) -> Any:
        if name in snapshots:
            return snapshots[name].restore()
        returned = function()
        if is_in_moto:
            snapshots[name] = Snapshot(returned=returned, state=deepcopy(moto_state()))
        return returned

    return prepare


@pytest.fixture
def make_stack(prepare: Callable[..., Any]) -> Callable[[Json], LocalStack]:
    """Create the stores of the template, and the demo keys."""

    def make_stack(parameters: Json) -> LocalStack:
        def create() -> LocalStack:
            SHARED_ACCOUNT.sqs()  # before a test changes where its clients connect to
            stack = create_local_stack(SHARED_ACCOUNT, parameters)
            if not OTHER_DYNAMODB:
                seed_keys(stack)
            return stack

        def seed_keys(stack: LocalStack) -> None:
            demo.seed_keys(KeyTable(SHARED_ACCOUNT.dynamodb(), stack.stores.key_table))

        is_first = not any(state.get("tables") or state.get("queues") for state in moto_state().values())
        name = f"stack {json.dumps(parameters, sort_keys=True)}"
        stack = prepare(name, create, is_in_moto=True) if is_first else create()
        if OTHER_DYNAMODB:
            copy_tables(Account(endpoint_url=MOTO["dynamodb"]).dynamodb(), SHARED_ACCOUNT.dynamodb())
            seed_keys(stack)
        return stack

    return make_stack


@pytest.fixture
def deploy(
    make_stack: Callable[[Json], LocalStack], compiled: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Deployment]:
    """Deploy the template with parameters and environment variables.

    The demo keys are in the key table.

    `AWS_ENDPOINT_URL` tells the function that it is on a local server. The endpoints of the services are moto's.
    """

    monkeypatch.setitem(sys.modules, compiled.__name__, compiled)

    def deploy(*, environment: Json | None = None, **parameters: str) -> Deployment:
        stack = make_stack(parameters)
        variables = {**stack.environment, "AWS_ENDPOINT_URL": "http://localhost", **(environment or {})}
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        sys.modules.pop("handler.app", None)
        app = importlib.import_module("handler.app")
        return Deployment(function=app.lambda_handler, account=SHARED_ACCOUNT, stack=stack)

    return deploy


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[Json]]:
    """Return a function that reads the lines written since its last call."""
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
