"""What happens to each message after it was stored: yours to write. As it is, it keeps contacts.

`handle` is called with one message and the customer whose API key sent it. What you can rely on:

- At least once. A message may come again, later or concurrently, so do nothing twice that must happen once.
  Its `message_id`, user and `original_timestamp` (`timestamp` if there is none) identify it. A `delete` usually comes
  twice: from the event table, and from the queue when it was carried out.
- Order. From the event table and from a FIFO queue, the messages of one user come in the order in which they were
  stored, which is not the order in which they happened. A message from the event table that fails does not hold back
  the later ones: it comes again from the queue, after them. In a FIFO queue it holds back the later ones of its user. A
  standard queue and a replay keep no order.
- Form. `docs/reference/storage.md` describes a message: the spec's names in snake_case, no write keys. `timestamp` and
  `received_at` are always there, as UTC text that sorts. Nothing is received after it was stored.
- Failure. To return means done. An exception means that the message comes again: up to 5 times from a queue. A message
  of the event table that fails goes to the queue first. After that it is moved to the dead letters, whole. Raise
  `PermanentFailure` (`consumer/errors.py`) for what no retry can cure: the message is moved there at once. No message
  waits for another customer's.
- Time. 30 seconds for each message. What takes longer may fail.
- `delete` messages come too: erase what you keep of that user until the `received_at` of the `delete`. The user is
  named by `user_id`, or by `anonymous_id` where an operator erased a visitor. Older messages may come after it, so
  remember it. It is in the queue before the event table forgets it, and is among the dead letters if it fails for
  good. If it takes longer than the time, keep your progress and raise: it comes again.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

from consumer.contacts.table import ContactTable
from consumer.runtime.clients import patient_client
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
