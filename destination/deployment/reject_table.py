"""The rejects table for the partner: find, read and delete rejects. The endpoint writes it by `handler/reject.py`."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import click

from destination.deployment.parallel import in_parallel
from destination.deployment.target import Target
from handler.items import read_text_attribute
from handler.record import escape

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

REJECT_ID_CHARS = 12
SHARDS = "0123456789abcdef"
"""The shards of a customer and day; the first digit of a reject's hash selects its shard."""

HEAD = (
    "customer_day_shard",
    "body_hash",
    "customer_id",
    "type",
    "message_id",
    "user_id",
    "anonymous_id",
    "rejected_at",
    "batch_index",
    "code",
    "answer",
    "violations",
)
"""The attributes of a reject without its contents."""
CONTENTS = ("body", "settings")


@dataclass(frozen=True, kw_only=True)
class KeptReject:
    """The facts of a reject without its contents; `facts` are the texts of `HEAD`, and some may be missing."""

    facts: Mapping[str, str]

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> Self:
        """Read a DynamoDB item."""
        return cls(facts={name: item[name]["S"] for name in HEAD if name in item})

    @property
    def body_hash(self) -> str:
        """SHA-256 of the settings header and the body, in hexadecimal."""
        return self.facts["body_hash"]

    @property
    def reject_id(self) -> str:
        """The id of a reject in commands: the start of its hash."""
        return self.body_hash[:REJECT_ID_CHARS]

    @property
    def customer_id(self) -> str:
        """The customer who sent the message."""
        return self.facts["customer_id"]

    @property
    def call_type(self) -> str:
        """The call type of the message, "" if it has none."""
        return self.facts.get("type", "")

    @property
    def answer(self) -> str:
        """The text of the error response."""
        return self.facts["answer"]

    @property
    def rejected_at(self) -> str:
        """The time of the rejection, as sortable UTC."""
        return self.facts["rejected_at"]

    @property
    def key(self) -> dict[str, Any]:
        """The key of the item."""
        return {name: {"S": self.facts[name]} for name in ("customer_day_shard", "body_hash")}

    @property
    def key_text(self) -> tuple[str, str]:
        """The key as two texts."""
        return self.facts["customer_day_shard"], self.body_hash

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        index = {"batch_index": int(self.facts["batch_index"])} if "batch_index" in self.facts else {}
        return {"id": self.reject_id, **self.facts, "violations": json.loads(self.facts["violations"]), **index}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The contents of a reject: the body, and `X-Segment-Settings`, "" if there was none."""

    body: str
    settings_header: str


class StoredRejects:
    """Finds, reads and deletes rejects. The client must treat an unconfirmed response as an error."""

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self._name = name

    def of_customer(self, customer_id: str, days: Iterable[date], *, hash_start: str = "") -> Iterator[KeptReject]:
        """Yield the rejects of a customer on some days (UTC), day by day, newest first within each day.

        The start of a hash selects the shard, so one query a day is enough instead of sixteen.
        """
        for day in days:
            shards = [f"{escape(customer_id)}#{day}#{digit}" for digit in hash_start[:1] or SHARDS]
            found = in_parallel(lambda shard: list(self._query(shard, hash_start)), shards)
            yield from newest_first(reject for rejects in found for reject in rejects)

    def _query(self, shard: str, hash_start: str) -> Iterator[KeptReject]:
        condition, values = "customer_day_shard = :shard", {":shard": {"S": shard}}
        if hash_start:
            condition += " AND begins_with(body_hash, :start)"
            values[":start"] = {"S": hash_start}
        pages = self._client.get_paginator("query").paginate(
            TableName=self._name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
            **_only(HEAD),
        )
        for page in pages:
            yield from map(KeptReject.from_item, page["Items"])

    def everything(self) -> Iterator[KeptReject]:
        """Yield all rejects, in no particular order."""
        pages = self._client.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True, **_only(HEAD))
        for page in pages:
            yield from map(KeptReject.from_item, page["Items"])

    def find(self, customer_day_shard: str, body_hash: str) -> KeptReject | None:
        """Return the reject with a key, None if it is gone."""
        key = {"customer_day_shard": {"S": customer_day_shard}, "body_hash": {"S": body_hash}}
        item = self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True, **_only(HEAD)).get("Item")
        return KeptReject.from_item(item) if item else None

    def has(self, reject: KeptReject) -> bool:
        """Return whether a reject, or the same body of the same day, is still in the table."""
        return self.find(*reject.key_text) is not None

    def contents(self, reject: KeptReject) -> Contents | None:
        """Read the contents of a reject; None if it is gone."""
        item = self._client.get_item(
            TableName=self._name, Key=reject.key, ConsistentRead=True, **_only(CONTENTS)
        ).get("Item")  # fmt: skip
        if item is None:
            return None
        return Contents(body=read_text_attribute(item["body"]), settings_header=item["settings"]["S"])

    def delete(self, reject: KeptReject) -> bool:
        """Delete a reject, and return whether it is gone. If the same body was rejected again meanwhile, it stays."""
        try:
            self._client.delete_item(
                TableName=self._name,
                Key=reject.key,
                ConditionExpression="attribute_not_exists(body_hash) OR rejected_at = :found",
                ExpressionAttributeValues={":found": {"S": reject.rejected_at}},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True


def newest_first(rejects: Iterable[KeptReject]) -> list[KeptReject]:
    """Sort rejects, newest first."""
    return sorted(rejects, key=lambda reject: (reject.rejected_at, reject.body_hash), reverse=True)


def last_days(days: int, today: date) -> list[date]:
    """Return today and the days before it, newest first."""
    return [today - timedelta(days=number) for number in range(days)]


def _only(names: Iterable[str]) -> dict[str, Any]:
    """Return the arguments to read only these attributes; reserved words of DynamoDB need placeholders."""
    aliases = {f"#{name}": name for name in names}
    return {"ProjectionExpression": ", ".join(aliases), "ExpressionAttributeNames": aliases}


DEFAULT_DAYS = 7


@dataclass(frozen=True, kw_only=True)
class RejectSelection:
    """Rejects of one customer in the last days, or (by a scan) of one customer or of all; no days means all."""

    target: Target
    customer_id: str | None
    days: int | None
    scan: bool

    @property
    def table(self) -> StoredRejects:
        """The table to read."""
        return StoredRejects(self.target.account.dynamodb(), self.target.stores.rejects_table)

    def read(self, *, hash_start: str = "") -> Iterable[KeptReject]:
        """Return the selected rejects, newest first."""
        today = datetime.now(UTC).date()
        if not self.scan and self.customer_id is not None:
            days = last_days(self.days or DEFAULT_DAYS, today)
            return self.table.of_customer(self.customer_id, days, hash_start=hash_start)
        first_day = str(last_days(self.days, today)[-1]) if self.days else ""
        return newest_first(
            reject
            for reject in self.table.everything()
            if self.customer_id in (None, reject.customer_id)
            and reject.rejected_at >= first_day
            and reject.body_hash.startswith(hash_start)
        )

    def find(self, reject_id: str) -> list[KeptReject]:
        """Return the rejects with an id, newest first: one body, maybe of several days; raises `ClickException`."""
        rejects = list(self.read(hash_start=reject_id))
        if not rejects:
            raise click.ClickException(
                f"No reject {self} has the id {reject_id}: `destination rejects list` shows them"
            )
        if len({(reject.customer_id, reject.body_hash) for reject in rejects}) > 1:
            otherwise = "" if self.customer_id else ", or --customer"
            raise click.ClickException(
                f"Several rejects have an id that starts with {reject_id}: give more characters{otherwise}"
            )
        return rejects

    def choose(self, reject_ids: Sequence[str]) -> list[KeptReject]:
        """Return the rejects with these ids, or all without ids: each once, oldest first, as the messages happened."""
        found = itertools.chain.from_iterable(map(self.find, reject_ids)) if reject_ids else self.read()
        unique = {reject.key_text: reject for reject in found}
        return newest_first(unique.values())[::-1]

    def __str__(self) -> str:
        """Return a description of the selection, to follow the word `rejects`."""
        whose = f"of {self.customer_id}" if self.customer_id else "of all customers"
        days = self.days or (None if self.scan else DEFAULT_DAYS)
        return f"{whose} in the last {days} days" if days else whose
