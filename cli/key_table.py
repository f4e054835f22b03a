"""The key table as the partner's side of it: to create, list and change keys. `handler/keys.py` reads it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import click

from handler.keys import Status, hash_key

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY_ID_CHARS = 12


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """One row of the key table; `key_hash` is the only trace of the key itself, with its last four characters."""

    key_hash: str
    last_four: str
    customer_id: str
    status: str = Status.ACTIVE
    """One of `Status`, or the odd word that somebody wrote by hand."""
    created_at: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    expires_at: datetime | None = None
    scopes: frozenset[str] | None = None
    label: str | None = None

    @classmethod
    def of(cls, key: str, **fields: Any) -> Self:  # noqa: ANN401 -- the fields above
        """Describe a key."""
        return cls(key_hash=hash_key(key), last_four=key[-4:], **fields)

    @property
    def key_id(self) -> str:
        """How people name a key: the start of its hash."""
        return self.key_hash[:KEY_ID_CHARS]

    @property
    def standing(self) -> str:
        """The status as people see it: that of an active key whose time is over is `expired`."""
        is_over = self.expires_at is not None and self.expires_at <= datetime.now(UTC)
        return "expired" if self.status == Status.ACTIVE and is_over else self.status

    def to_item(self) -> dict[str, Any]:
        """Return the DynamoDB item."""
        item: dict[str, Any] = {
            "key_hash": {"S": self.key_hash},
            "last_four": {"S": self.last_four},
            "customer_id": {"S": self.customer_id},
            "status": {"S": self.status},
        }
        if self.created_at is not None:
            item["created_at"] = {"S": self.created_at.isoformat(timespec="seconds")}
        if self.expires_at is not None:
            item["expires_at"] = {"S": self.expires_at.isoformat(timespec="seconds")}
        if self.scopes is not None:
            item["scopes"] = {"SS": sorted(self.scopes)}
        if self.label is not None:
            item["label"] = {"S": self.label}
        return item

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """Read a DynamoDB item; one that somebody wrote by hand may lack what only people look at."""
        return cls(
            key_hash=item["key_hash"]["S"],
            last_four=item.get("last_four", {"S": ""})["S"],
            customer_id=item["customer_id"]["S"],
            status=item["status"]["S"],
            created_at=datetime.fromisoformat(item["created_at"]["S"]) if "created_at" in item else None,
            expires_at=datetime.fromisoformat(item["expires_at"]["S"]) if "expires_at" in item else None,
            scopes=frozenset(item["scopes"]["SS"]) if "scopes" in item else None,
            label=item["label"]["S"] if "label" in item else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "id": self.key_id,
            "customer_id": self.customer_id,
            "status": self.standing,
            "last_four": self.last_four,
            "label": self.label,
            "scopes": sorted(self.scopes) if self.scopes is not None else None,
            "created_at": self.created_at.isoformat(timespec="seconds") if self.created_at else None,
            "expires_at": self.expires_at.isoformat(timespec="seconds") if self.expires_at else None,
        }


class KeyTable:
    """Reads and writes key records."""

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self._name = name

    def put(self, record: KeyRecord) -> None:
        """Write a record, in place of what was there."""
        self._client.put_item(TableName=self._name, Item=record.to_item())

    def add(self, record: KeyRecord) -> bool:
        """Write a record unless its key is there already; tell whether it was written."""
        try:
            self._client.put_item(
                TableName=self._name, Item=record.to_item(), ConditionExpression="attribute_not_exists(key_hash)"
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def __iter__(self) -> Iterator[KeyRecord]:
        """Yield all records. The table holds a handful of keys per customer, so it is read whole."""
        for page in self._client.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True):
            yield from map(KeyRecord.from_item, page["Items"])

    def find(self, key_id: str) -> KeyRecord:
        """Return the record with an id, or the start of one; raises `click.ClickException` unless there is just one."""
        records = [record for record in self if record.key_hash.startswith(key_id)]
        if not records:
            raise click.ClickException(f"No key has the id {key_id}: `destination keys list` shows them")
        if len(records) > 1:
            raise click.ClickException(f"Several keys have an id that starts with {key_id}: give more of it")
        return records[0]
