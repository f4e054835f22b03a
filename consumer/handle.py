"""Your own code for each stored message. The shipped version keeps contacts.

`handle` is called with one message and the customer whose API key sent it. You can rely on this:

- At least once. A message may be delivered again, later or concurrently, so make every action idempotent. Its
  `message_id`, user and `original_timestamp` (`timestamp` if there is none) identify it. A `delete` usually arrives
  twice: from the event table, and from the queue after it was carried out.
- Order. From the event table and from a FIFO queue, the messages of one user arrive in the order in which they were
  stored. They may have happened in another order. A failed message from the event table does not hold
  back later ones: it is delivered again from the queue, after them. In a FIFO queue it holds back the later messages of
  its user. A standard queue and a replay keep no order.
- Form. `docs/reference/storage.md` describes a message: the spec's names in snake_case, no write keys. `timestamp` and
  `received_at` are always present, as sortable UTC text. `received_at` is never later than the time of storage.
- Failure. Returning means success. After an exception the message is delivered again: up to 5 times from a queue. A
  failed message from the event table goes to the queue first. After that it is moved to the dead letters, whole. If no
  retry can help, raise `PermanentFailure` (`consumer/errors.py`): the message is moved there at once. No message waits
  for another customer's message.
- Time. 30 seconds for each message. If it takes longer, it may fail.
- `delete` messages arrive too: erase your data of that user until the `received_at` of the `delete`. The user is named
  by `user_id`, or by `anonymous_id` if an operator erased a visitor. Older messages may arrive after it, so remember
  it. It is in the queue before it is removed from the event table, and in the dead letters if it always fails. If it
  takes longer than 30 seconds, save your progress and raise an exception: it is delivered again.
"""

import os
from functools import cache
from typing import TYPE_CHECKING

from consumer.contacts.table import ContactTable
from consumer.runtime.clients import background_client
from handler.decode import JsonObject

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def handle(message: JsonObject, customer: str) -> None:
    """Handle one message of a customer."""
    ContactTable(_client(), os.environ["CONTACT_TABLE"], customer=customer).take(message)


@cache
def _client() -> "DynamoDBClient":
    """Return the client that all messages share."""
    client: DynamoDBClient = background_client("dynamodb")
    return client
