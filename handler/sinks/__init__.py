"""Step 5: write accepted messages to a sink. Each sink is one module of this package.

To add a sink: write a module with a class that implements `Sink`, and name both in `SINKS`. The setting `EVENT_SINK` is
the name of the module. The rest of the code asks a sink for its capabilities and never for its name.
"""

import importlib
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self

from handler.errors import Refusal
from handler.record import Record

SINKS = {"dynamodb": "EventTable", "sqs": "EventQueue"}
"""Module -> the class in it. The first one is the default."""


class Outcome(StrEnum):
    """What became of a record."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    QUEUED = "queued"


class SinkSettings(Protocol):
    """What sinks are opened with: the settings of the function, or the outputs of a stack."""

    @property
    def event_table(self) -> str:
        """The name of the event table."""

    @property
    def event_queue_url(self) -> str:
        """The URL of the event queue."""

    @property
    def event_retention_days(self) -> int | str:
        """How long stored messages are kept; 0 for ever."""


class Sink(Protocol):
    """Where records go. What is returned is durable."""

    service: ClassVar[str]
    """The AWS service that it calls, such as `dynamodb`."""
    is_queryable: ClassVar[bool]
    """Whether messages stay and can be looked up, so that the eraser and the commands find them."""
    deduplicates: ClassVar[bool]
    """Whether a message that is already stored is known, and answered as a duplicate."""
    feeds_queue: ClassVar[bool]
    """Whether messages go to the event queue, from which the consumer takes them."""

    @classmethod
    def open(cls, settings: SinkSettings, connect: Callable[[str], Any]) -> Self:
        """Return the sink of a deployment; `connect` returns the client of a service by its name."""

    @staticmethod
    def address(settings: SinkSettings) -> str:
        """Return where the messages of a deployment go, for people."""

    def write(self, record: Record) -> Outcome:
        """Store a record; raises `MessageTooLarge` before any write, or `EventStoreUnavailable`."""

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Store the records of a batch, and return what became of each.

        A record that is too large, or that causes an unexpected exception (`InternalError`), does not stop the others.
        `check_deadline` raises if there is no time for a call. After that, or `EventStoreUnavailable`, any of them
        may be stored.
        """

    def probe(self) -> None:
        """Ask whether the store answers, and leave it as it is; raises `EventStoreUnavailable`."""


def sink_named(name: str) -> type[Sink]:
    """Return the class of a sink, and import only that one; raises `KeyError` for an unknown name."""
    sink: type[Sink] = getattr(importlib.import_module(f"{__name__}.{name}"), SINKS[name])
    return sink
