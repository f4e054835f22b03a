"""Servers that all tests of a session share (a pytest plugin)."""

from collections.abc import Iterator

import pytest
from local_server import LocalServer, serving

from destination.local.embedded_aws import EmbeddedAws


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[LocalServer]:
    """Return a local server that stores in a table and reads the key for each request."""
    options = ("--parameter", "KeyCacheSeconds=0", "--processes", "2")
    with serving(tmp_path_factory.mktemp("server"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def queue_server(tmp_path_factory) -> Iterator[LocalServer]:
    """Return a local server that sends to a queue without a consumer, and prints the function's own lines."""
    options = ("--parameter", "EventSink=sqs", "--parameter", "Consumer=off", "--processes", "1", "--json")
    with serving(tmp_path_factory.mktemp("queue_server"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def other_aws() -> Iterator[EmbeddedAws]:
    """Return an empty server that speaks the protocols of AWS."""
    aws = EmbeddedAws()
    yield aws
    aws.stop()
