"""What happens to each message after it was stored: yours to write. As it is, it keeps contacts.

`handle` is called with one message and the customer whose API key sent it. What you can rely on:

- At least once. A message may come again, later or beside itself, so do nothing twice that must happen once.
  Its `message_id`, user and `original_timestamp` (`timestamp` where there is none) tell whether you know it.
- Order. From the event table and from a FIFO queue, the messages of one user come as they were stored, which is not as
  they happened, and one that failed holds back the later ones. A standard queue and a replay keep no order.
- Form. A message is as `docs/storage.md` describes it: the spec's names in snake_case, no write keys. `timestamp` and
  `received_at` are always there, as UTC text that sorts. Nothing is received after it was stored.
- Failure. To return means done. An exception means that the message comes again: up to 10 times from the event table,
  5 times from a queue. Then it waits among the dead letters, and is not lost.
- Time. 60 seconds for up to 100 messages of the event table, 30 seconds for up to 10 of a queue.
- `delete` messages come too: erase what you keep of that user until the `received_at` of the `delete`. The user is
  named by `user_id`, or by `anonymous_id` where an operator erased a visitor. One that failed, or that a failed one
  holds back, comes again from the queue, maybe after later messages. Where no order is kept, older messages may come
  after it, so remember it. If it takes longer than the time, keep your progress and raise: it comes again.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

from consumer.clients import patient_client
from consumer.contact_table import ContactTable
from handler.decode import JsonObject

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def handle(message: JsonObject, customer: str) -> None:
    """Take one message of a customer."""
    ContactTable(_client(), os.environ["CONTACT_TABLE"], customer=customer).take(message)


@cache
def _client() -> "DynamoDBClient":
    """Return the client, which all messages share."""
    client: DynamoDBClient = patient_client("dynamodb")
    return client
