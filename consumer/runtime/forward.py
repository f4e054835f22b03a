"""Send a message on: to the event queue, whose consumer retries it alone, or to the dead-letter queue.

A message is always sent whole. It usually has the form that `handler/sinks/sqs.py` gives a queued message. An item of
the event table that is too large for that form, or that can't be read, is sent in the format of DynamoDB's stream.
`consumer/runtime/stored.py` reads both forms.
"""

import json
import os
import uuid
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from consumer.runtime.clients import background_client
from consumer.runtime.stored import Image, Unreadable, record_of
from handler.errors import MessageTooLarge
from handler.record import sha256
from handler.sinks.sqs import EventQueue

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from mypy_boto3_sqs import SQSClient


class ForwardQueue:
    """A queue, standard or FIFO, to which messages are sent on.

    The client must treat an unconfirmed response as an error: see `consumer/runtime/clients.py`.
    """

    def __init__(self, client: "SQSClient", url: str) -> None:
        self._client = client
        self._url = url
        self._records = EventQueue(client, url)

    def send_item(self, image: Image) -> None:
        """Send an item of the event table; raises `EventStoreUnavailable` or one of `STORE_ERRORS`."""
        try:
            self._records.write(record_of(image))
        except (MessageTooLarge, Unreadable):
            self._send(json.dumps(image), group=sha256(image["subject"]["S"]), attributes={})

    def send_copy(self, record: "SQSRecord") -> None:
        """Send an unchanged message of another queue; raises one of `STORE_ERRORS`."""
        texts = {
            name: {"DataType": "String", "StringValue": attribute["stringValue"]}
            for name, attribute in (record.get("messageAttributes") or {}).items()
            if attribute.get("stringValue")
        }
        self._send(record.body, group=record["attributes"].get("MessageGroupId"), attributes=texts)

    def _send(self, body: str, *, group: str | None, attributes: Mapping[str, Any]) -> None:
        # A dead letter that fails again within five minutes of its redrive must not count as its own duplicate.
        fifo: dict[str, Any] = {"MessageGroupId": group, "MessageDeduplicationId": str(uuid.uuid4())}
        self._client.send_message(
            QueueUrl=self._url,
            MessageBody=body,
            MessageAttributes=attributes,
            **(fifo if self._url.endswith(".fifo") else {}),
        )


@cache
def dead_letters(*, is_fifo: bool) -> ForwardQueue:
    """Return the dead-letter queue of the event queue, standard or FIFO."""
    url = os.environ["EVENT_FIFO_DEAD_LETTER_QUEUE_URL"] if is_fifo else os.environ["EVENT_DEAD_LETTER_QUEUE_URL"]
    return ForwardQueue(background_client("sqs"), url)
