"""The receipts of erasures, as the proofs read them: the names of keys and attributes are written out here.

docs/explanation/privacy.md describes the erasure table. Items without `started_at` are tombstones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from destination.segment.due import escaped


@dataclass(frozen=True, kw_only=True)
class ErasureReceipt:
    """The receipt of a `delete`; `finished_at` is "" until it is finished.

    The counts are of the erased items of the user, and of the ids linked to the user. A fault may leave attributes out.
    """

    user_hash: str
    requested_at: str
    finished_at: str
    messages: int
    rejects: int
    linked_messages: int
    linked_rejects: int

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "ErasureReceipt":
        """Read an item of the erasure table."""
        attributes: dict[str, Any] = {name: item.get(name, {}).get("S", "") for name in TEXTS}
        attributes |= {name: int(item.get(name, {}).get("N", 0)) for name in COUNTS}
        return cls(**attributes)


TEXTS = ("user_hash", "requested_at", "finished_at")
COUNTS = ("messages", "rejects", "linked_messages", "linked_rejects")


def receipts(client: Any, table: str, customer_id: str, *, user_hash: str = "") -> Iterator[ErasureReceipt]:  # noqa: ANN401 -- a client
    """Yield the receipts of a customer, or of one user; raises boto3's errors."""
    condition, values = "customer = :customer", {":customer": {"S": escaped(customer_id)}}
    if user_hash:
        condition += " AND begins_with(erasure, :hash)"
        values[":hash"] = {"S": user_hash}
    pages = client.get_paginator("query").paginate(
        TableName=table,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        ConsistentRead=True,
    )
    for page in pages:
        yield from (ErasureReceipt.of(item) for item in page["Items"] if "started_at" in item)
