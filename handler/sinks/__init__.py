"""Step 5: write accepted messages to a sink. Each sink is one module of this package.

To add a sink: write a module with a class that implements `Sink`, and add both to `SINKS`. The setting `EVENT_SINK` is
the name of the module. The rest of the code asks a sink for its capabilities, never for its name. CONTRIBUTING.md has
the recipe.
"""

import importlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self

from handler.errors import Refusal
from handler.record import Record

SINKS = {"dynamodb": "EventTable", "sqs": "EventQueue"}
"""Module -> its class. The first one is the default."""


class Outcome(StrEnum):
    """The result of writing a record."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUEUED = "queued"


class Sink(Protocol):
    """Stores records durably."""

    service: ClassVar[str]
    """The AWS service that the sink calls, such as `dynamodb`."""
    variable: ClassVar[str]
    """The environment variable with the address of the store, such as `EVENT_TABLE`."""
    is_queryable: ClassVar[bool]
    """Whether stored messages can be looked up, by the eraser and by commands."""
    deduplicates: ClassVar[bool]
    """Whether the sink recognises a message that is already stored, and reports a duplicate."""
    feeds_queue: ClassVar[bool]
    """Whether messages go to the event queue, which the consumer reads."""

    @classmethod
    def open(cls, address: str, connect: Callable[[str], Any], *, retention_days: int) -> Self:
        """Return the sink that writes to the store at this address.

        `connect` returns the client of a service by its name. A retention of 0 days means no limit.
        """

    def write(self, record: Record) -> Outcome:
        """Store a record; raises `MessageTooLarge` before any write, or `EventStoreUnavailable`."""

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Store the records of a batch, and return the result of each.

        A record that is too large, or that causes an unexpected exception (`InternalError`), does not stop the others.
        `check_deadline` raises if there is no time for a call. After that error, or after `EventStoreUnavailable`, any
        of the records may be stored.
        """

    def probe(self) -> None:
        """Check that the store answers, without changing it; raises `EventStoreUnavailable`."""


def sink_named(name: str) -> type[Sink]:
    """Return the class of a sink, and import only its module; raises `KeyError` for an unknown name."""
    sink: type[Sink] = getattr(importlib.import_module(f"{__name__}.{name}"), SINKS[name])
    return sink
