"""Step 4b: keep refused messages for a while, because a 400 is final for Segment.

The partner wrote the schema, so the mistake may be the partner's. The body is stored as it arrived, without a write
key, together with the answer and its reasons. The key spreads the rejects of one customer over sixteen partitions. The
same body with the same settings makes only one item a day. The eraser finds the rejects of a user by the index on
`subject`. `docs/reference/storage.md` describes the attributes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from handler.canonicalise import Message
from handler.errors import STORE_ERRORS, Refusal, RejectStoreUnavailable
from handler.items import MAX_ITEM_BYTES, SECONDS_PER_DAY, save_units
from handler.record import escape, sha256, subject_of, utf8
from handler.timestamps import sortable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A refused message of a customer, with its answer; `rejected_at` is in seconds since 1970.

    `repeated` is the part of the body that resends share; None means the whole body.

    `settings_header` is `X-Segment-Settings` as it arrived, "" without one; `index` is the position in a batch.
    """

    customer_id: str
    message: Message
    body: str
    settings_header: str
    refusal: Refusal
    rejected_at: float
    index: int | None = None
    repeated: str | None = None

    @property
    def facts(self) -> Mapping[str, str]:
        """The attributes to search by, as text. A refused message may lack any of them, or have it in another type."""
        names = ("type", "message_id", "user_id", "anonymous_id")
        texts = {name: self.message.body.get(name) for name in names}
        return {
            "customer_id": self.customer_id,
            **{name: utf8(text) for name, text in texts.items() if isinstance(text, str)},
            "rejected_at": sortable(datetime.fromtimestamp(self.rejected_at, UTC)),
            "code": self.refusal.code,
            "answer": str(self.refusal),
            "violations": json.dumps([asdict(violation) for violation in self.refusal.violations]),
            "settings": utf8(self.settings_header),
            **({} if self.index is None else {"batch_index": str(self.index)}),
        }


class RejectTable:
    """Keeps rejects in a DynamoDB table; with a retention of 0 days it keeps none.

    The client must treat an unconfirmed response as an error: see `handler/clients.py`.
    """

    def __init__(self, client: "DynamoDBClient", table: str, *, retention_days: int) -> None:
        self._client = client
        self._table = table
        self._retention_seconds = retention_days * SECONDS_PER_DAY

    def keep(self, reject: Reject) -> bool:
        """Store a reject, and return whether it was stored: one that is too large is not.

        Raises `RejectStoreUnavailable`, so that Segment retries the message.
        """
        if not self._retention_seconds:
            return False
        item = self._item(reject)
        if save_units(item, "body") > MAX_ITEM_BYTES:
            return False
        try:
            self._client.put_item(TableName=self._table, Item=item)
        except STORE_ERRORS as error:
            raise RejectStoreUnavailable from error
        return True

    def probe(self) -> None:
        """Try a put that never succeeds: its condition is that the item exists, and no item has this key.

        Raises `RejectStoreUnavailable`.
        """
        try:
            self._client.put_item(
                TableName=self._table,
                Item={"customer_day_shard": {"S": "health"}, "body_hash": {"S": "health"}},
                ConditionExpression="attribute_exists(body_hash)",
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return
        except STORE_ERRORS as error:
            raise RejectStoreUnavailable from error

    def _item(self, reject: Reject) -> "dict[str, AttributeValueTypeDef]":
        body_hash = sha256(f"{utf8(reject.settings_header)}\n{reject.repeated or reject.body}")
        day = reject.facts["rejected_at"][: len("2020-05-09")]
        subject = subject_of(reject.customer_id, reject.message.body)
        return {
            "customer_day_shard": {"S": f"{escape(reject.customer_id)}#{day}#{body_hash[0]}"},
            "body_hash": {"S": body_hash},
            **{name: {"S": text} for name, text in reject.facts.items()},
            **({"subject": {"S": subject}} if subject else {}),
            "body": {"S": reject.body},
            "expires_at": {"N": str(int(reject.rejected_at) + self._retention_seconds)},
        }
