"""Step 5: write accepted messages to a sink. Each sink is one module of this package.

To add a sink: write a module with a class that implements `Sink`, and add both to `SINKS`. The setting `EVENT_SINK` is
the name of the module. The rest of the code asks a sink for its capabilities, never for its name.
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


class SinkSettings(Protocol):
    """The settings that a sink needs: from the function's environment, or from the outputs of a stack."""

    @property
    def event_table(self) -> str:
        """The name of the event table."""

    @property
    def event_queue_url(self) -> str:
        """The URL of the event queue."""

    @property
    def event_retention_days(self) -> int | str:
        """The number of days for which messages are stored; 0 means no limit."""


class Sink(Protocol):
    """Stores records durably."""

    service: ClassVar[str]
    """The AWS service that the sink calls, such as `dynamodb`."""
    is_queryable: ClassVar[bool]
    """Whether stored messages can be looked up, by the eraser and by commands."""
    deduplicates: ClassVar[bool]
    """Whether the sink recognises a message that is already stored, and reports a duplicate."""
    feeds_queue: ClassVar[bool]
    """Whether messages go to the event queue, which the consumer reads."""

    @classmethod
    def open(cls, settings: SinkSettings, connect: Callable[[str], Any]) -> Self:
        """Return the sink of a deployment; `connect` returns the client of a service by its name."""

    @staticmethod
    def address(settings: SinkSettings) -> str:
        """Return the place where a deployment's messages are stored, for output."""

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
