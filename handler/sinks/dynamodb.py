"""The event table: one conditional put is both the write and the duplicate check.

The puts of a batch run concurrently, because DynamoDB's batch operations take no conditions.
`docs/reference/storage.md` describes the attributes.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from handler.errors import (
    STORE_ERRORS,
    EventStoreUnavailable,
    InternalError,
    MessageTooLarge,
    Refusal,
    Unavailable,
)
from handler.items import MAX_ITEM_BYTES, SECONDS_PER_DAY, json_text, save_units
from handler.parallel import call_with_retries, run_concurrently
from handler.record import Record
from handler.sinks import Outcome
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


class EventTable:
    """Writes records to a DynamoDB table; with a retention of 0 days they never expire.

    The client must treat an unconfirmed response as an error: see `handler/clients.py`.

    A `delete` does not expire: the eraser deletes it after carrying it out. If a message of another type has the same
    key, the `delete` replaces it, because that message is to be erased anyway.
    """

    service: ClassVar[str] = "dynamodb"
    variable: ClassVar[str] = "EVENT_TABLE"
    is_queryable: ClassVar[bool] = True
    deduplicates: ClassVar[bool] = True
    feeds_queue: ClassVar[bool] = False

    def __init__(self, client: "DynamoDBClient", table: str, *, retention_days: int) -> None:
        self._client = client
        self._table = table
        self._retention_seconds = retention_days * SECONDS_PER_DAY

    @classmethod
    def open(cls, address: str, connect: Callable[[str], Any], *, retention_days: int) -> Self:
        """Return the event table with this name."""
        return cls(connect(cls.service), address, retention_days=retention_days)

    def write(self, record: Record, *, is_repeated: bool = False) -> Outcome:
        """Put a record unless its key exists. An expired item counts as absent; TTL deletes it later.

        If a put is repeated, by botocore or by the caller (`is_repeated`), the first try may have been stored although
        its response was lost. Then the item in the table equals this record, and it is not a duplicate.
        """
        item = self._item(record)
        if save_units(item, "message", "settings") > MAX_ITEM_BYTES:
            raise MessageTooLarge
        condition: dict[str, Any] = {
            "ConditionExpression": "attribute_not_exists(subject) OR expires_at <= :now",
            "ExpressionAttributeValues": {":now": {"N": str(int(record.stored_at))}},
        }
        if record.message.type == DELETE:
            condition["ConditionExpression"] += " OR #type <> :delete"
            condition["ExpressionAttributeNames"] = {"#type": "type"}
            condition["ExpressionAttributeValues"][":delete"] = {"S": DELETE}
        try:
            self._client.put_item(
                TableName=self._table,
                Item=item,
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **condition,
            )
        except self._client.exceptions.ConditionalCheckFailedException as error:
            is_repeated = is_repeated or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            is_own = is_repeated and error.response.get("Item") == item
            return Outcome.STORED if is_own else Outcome.DUPLICATE
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error
        return Outcome.STORED

    def write_all(self, records: Sequence[Record], check_deadline: Callable[[], None]) -> Sequence[Outcome | Refusal]:
        """Put records concurrently."""

        def write(record: Record) -> Outcome | Refusal:
            tries = itertools.count()
            try:
                return call_with_retries(lambda: self.write(record, is_repeated=next(tries) > 0), check_deadline)
            except MessageTooLarge as refusal:
                return refusal
            except Unavailable:
                raise
            except Exception as bug:  # noqa: BLE001 -- affects this record alone; the outcome keeps it
                return InternalError(bug)

        return run_concurrently(write, records)

    def probe(self) -> None:
        """Try a put that never succeeds: its condition is that the item exists, and no item has this key."""
        try:
            self._client.put_item(
                TableName=self._table,
                Item={"subject": {"S": "health"}, "position": {"S": "health"}},
                ConditionExpression="attribute_exists(subject)",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return
        except STORE_ERRORS as error:
            raise EventStoreUnavailable from error

    def _item(self, record: Record) -> "dict[str, AttributeValueTypeDef]":
        item: dict[str, AttributeValueTypeDef] = {
            "subject": {"S": record.subject},
            "position": {"S": record.position},
            **{name: {"S": text} for name, text in record.facts.items()},
            "message": {"S": json_text(record.message.body)},
        }
        if record.settings:
            item["settings"] = {"S": json_text(record.settings)}
        if self._retention_seconds and record.message.type != DELETE:
            item["expires_at"] = {"N": str(int(record.stored_at) + self._retention_seconds)}
        return item
