"""Servers that a whole test session shares (a pytest plugin)."""

from collections.abc import Iterator

import pytest
from local_server import LocalServer, serving

from destination.local.embedded_aws import EmbeddedAws


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[LocalServer]:
    """Return a local server that stores in a table and reads keys anew for each request."""
    options = ("--parameter", "KeyCacheSeconds=0", "--processes", "2")
    with serving(tmp_path_factory.mktemp("server"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def queue_server(tmp_path_factory) -> Iterator[LocalServer]:
    """Return a local server that sends to a queue, from which nobody takes, and prints the function's own lines."""
    options = ("--parameter", "EventSink=sqs", "--parameter", "Consumer=off", "--processes", "1", "--json")
    with serving(tmp_path_factory.mktemp("queue_server"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def other_aws() -> Iterator[EmbeddedAws]:
    """Return a server that speaks AWS's protocols, with nothing in it."""
    aws = EmbeddedAws()
    yield aws
    aws.stop()
