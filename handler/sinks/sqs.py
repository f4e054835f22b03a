"""The event queue: one SQS message for each record, in a standard or a FIFO queue.

`docs/reference/storage.md` describes the messages.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from handler.decode import JsonObject
from handler.errors import STORE_ERRORS, EventStoreUnavailable, InternalError, MessageTooLarge, Refusal
from handler.parallel import call_with_retries, run_concurrently
from handler.record import Record, escape, sha256
from handler.sinks import Outcome
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageAttributeValueTypeDef

MAX_QUEUE_MESSAGE_BYTES = 1024 * 1024
"""SQS's limit for body and attributes together: for one message, and for all messages of one call."""
MAX_QUEUE_MESSAGES = 10
"""SQS's limit for the messages of one call."""


class EventQueue:
    """Sends records to an SQS queue, standard or FIFO.

    The client must treat an unconfirmed response as an error: see `handler/clients.py`.
    """

    service: ClassVar[str] = "sqs"
    variable: ClassVar[str] = "EVENT_QUEUE_URL"
    is_queryable: ClassVar[bool] = False
    deduplicates: ClassVar[bool] = False
    feeds_queue: ClassVar[bool] = True

    def __init__(self, client: "SQSClient", queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url
        self._is_fifo = queue_url.endswith(".fifo")

    @classmethod
    def open(cls, address: str, connect: Callable[[str], Any], *, retention_days: int) -> Self:  # noqa: ARG003
        """Return the event queue with this URL. SQS itself deletes messages, after the retention of the queue."""
        return cls(connect(cls.service), address)

    def write(self, record: Record) -> Outcome:
        """Send a record."""
        try:
            self._client.send_message(QueueUrl=self._queue_url, **self._message(record))
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        return Outcome.QUEUED

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Send records, ten per call. Calls to a FIFO queue are sequential, so that the order is kept.

        If SQS accepts only some of the ten, the others are sent again after them.
        """
        outcomes: list[Outcome | Refusal] = [Outcome.QUEUED] * len(records)
        messages = {}
        for number, record in enumerate(records):
            try:
                messages[str(number)] = self._message(record)
            except MessageTooLarge as refusal:
                outcomes[number] = refusal
            except Exception as bug:  # noqa: BLE001 -- affects this record alone; the outcome keeps it
                outcomes[number] = InternalError(bug)

        def send(messages: JsonObject) -> None:
            call_with_retries(lambda: self._send(messages), check_deadline)

        parts = list(_parts(messages))
        if self._is_fifo:
            for part in parts:
                send(part)
        else:
            run_concurrently(send, parts)
        return outcomes

    def probe(self) -> None:
        """Read the queue's ARN, which shows that the queue exists."""
        try:
            self._client.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error

    def _send(self, messages: JsonObject) -> None:
        """Send messages by their ids, and remove those that SQS confirms; raises if some are left."""
        entries: list[Any] = [{"Id": name, **message} for name, message in messages.items()]
        try:
            answer = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        for sent in answer.get("Successful", []):
            del messages[sent["Id"]]
        if messages:
            raise EventStoreUnavailable

    def _message(self, record: Record) -> JsonObject:
        """Return the arguments of a send call, without the queue."""
        facts = record.facts
        content = {
            "subject": record.subject,
            "position": record.position,
            **facts,
            "settings": record.settings,
            "message": record.message.body,
        }
        message: JsonObject = {
            "MessageBody": json.dumps(content, separators=(",", ":")),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": escape(facts[name])}
                for name in ("customer_id", "type", "message_id")
            },
        }
        if _message_bytes(message) > MAX_QUEUE_MESSAGE_BYTES:
            raise MessageTooLarge
        return {**message, **(self._fifo_ids(record) if self._is_fifo else {})}

    def _fifo_ids(self, record: Record) -> JsonObject:
        """Return the ids for order and deduplication; SQS accepts at most 128 ASCII characters for each.

        A `delete` never counts as a duplicate of a message of another type.
        """
        erasure = f"\n{DELETE}" if record.message.type == DELETE else ""
        return {
            "MessageGroupId": sha256(record.subject),
            "MessageDeduplicationId": sha256(f"{record.subject}\n{record.position}{erasure}"),
        }


def _parts(messages: JsonObject) -> Iterator[JsonObject]:
    """Yield the messages in groups that SQS accepts in one call."""
    part: JsonObject = {}
    part_bytes = 0
    for name, message in messages.items():
        message_bytes = _message_bytes(message)
        if len(part) == MAX_QUEUE_MESSAGES or part_bytes + message_bytes > MAX_QUEUE_MESSAGE_BYTES:
            yield part
            part, part_bytes = {}, 0
        part[name] = message
        part_bytes += message_bytes
    if part:
        yield part


def _message_bytes(message: JsonObject) -> int:
    """Return the size as SQS counts it: the body, which is ASCII, and the attributes."""
    attributes: dict[str, MessageAttributeValueTypeDef] = message["MessageAttributes"]
    return len(message["MessageBody"]) + sum(
        len(name) + len(attribute["DataType"]) + len(attribute["StringValue"].encode())
        for name, attribute in attributes.items()
    )
