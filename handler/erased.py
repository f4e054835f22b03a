"""Step 3 b, where `AfterErasure` is `refuse`: what happened before its user was erased is not stored again.

The eraser (`consumer/erase.py`) leaves a tombstone for each user: a hash, and until when. `docs/privacy.md` tells more.
"""

from typing import TYPE_CHECKING

from handler.canonicalise import Message
from handler.errors import STORE_ERRORS, ErasureStoreUnavailable, UserErased
from handler.record import escape, sha256, subject_of
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, GetItemOutputTypeDef


class Tombstones:
    """Reads the tombstones of the erasure table."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def check(self, customer_id: str, message: Message) -> None:
        """Raise `UserErased` for a message of an erased user that happened before; a `delete` always passes.

        A message that does not tell when it happened is a new one. Raises `ErasureStoreUnavailable`.
        """
        subject = subject_of(customer_id, message.body)
        if subject is None or message.timestamp is None or message.type == DELETE:
            return
        answer = self._read(tombstone_key(customer_id, subject))
        if "Item" in answer and message.timestamp <= answer["Item"]["requested_at"]["S"]:
            raise UserErased

    def probe(self) -> None:
        """Read a tombstone that nobody has; raises `ErasureStoreUnavailable`."""
        self._read({"customer": {"S": "health"}, "erasure": {"S": "health"}})

    def _read(self, key: "dict[str, AttributeValueTypeDef]") -> "GetItemOutputTypeDef":
        try:
            answer = self._client.get_item(
                TableName=self._table, Key=key, ConsistentRead=True, ReturnConsumedCapacity="TOTAL"
            )
        except STORE_ERRORS as error:
            raise ErasureStoreUnavailable from error
        if "ConsumedCapacity" not in answer:
            raise ErasureStoreUnavailable  # botocore reads a garbled answer as an empty one, which confirms nothing
        return answer


def tombstone_key(customer_id: str, subject: str) -> "dict[str, AttributeValueTypeDef]":
    """Return the key of a subject's tombstone, which names nobody: the subject is hashed."""
    return {"customer": {"S": escape(customer_id)}, "erasure": {"S": sha256(subject)}}
