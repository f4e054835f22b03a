"""Select and read messages in the event table, which `handler/sinks/dynamodb.py` writes."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from destination.deployment.target import Key, Target
from handler.decode import JsonObject
from handler.items import read_json_attribute

MAX_SCANNED_ITEMS = 2000
"""A table on a local server with at most as many items is scanned, which takes less than half a second."""
KEYS_OF_A_CALL = 100
"""https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html"""
Item = Mapping[str, Any]
"""An item of the event table, as DynamoDB returns it."""


def fetch_items(target: Target, keys: Sequence[Key]) -> Iterator[Item]:
    """Yield the items of some keys of the event table, in no particular order, without missing ones."""
    client, table = target.account.dynamodb(), target.stores.event_table
    for begin in range(0, len(keys), KEYS_OF_A_CALL):
        part = keys[begin : begin + KEYS_OF_A_CALL]
        asked: Any = [{"subject": {"S": subject}, "position": {"S": position}} for subject, position in part]
        while asked:
            answer = client.batch_get_item(RequestItems={table: {"Keys": asked, "ConsistentRead": True}})
            yield from answer["Responses"].get(table, [])
            unprocessed: Any = answer.get("UnprocessedKeys", {})
            asked = unprocessed.get(table, {}).get("Keys")


@dataclass(frozen=True, kw_only=True)
class MessageSelection:
    """Selects messages of one subject, or (by a scan) of one customer or of all customers."""

    target: Target
    customer_id: str | None
    subject: str | None

    reads_all: bool = False
    """Whether the user asked to read the whole table."""

    def read(self, step: Callable[[], None] | None = None) -> Iterator[Item]:
        """Return the selected items, newest first; calls `step` for each item that it reads."""
        if self.subject is not None:
            return self.stream()
        items = []
        for item in self.stream():
            items.append(item)
            if step:
                step()
        return iter(sorted(items, key=time_of, reverse=True))

    def latest(self, limit: int, message_id: str | None = None) -> list[Item] | None:
        """Return the latest items by arrival, newest first, from a local server's list of requests.

        It does not scan the table. Returns None if a scan is needed: for a small table, a stack, or a server that keeps
        fewer messages than `limit`.
        """
        if self.reads_all or not self._is_large():
            return None
        keys = self.arrived(2 * limit, message_id)  # some items may have been deleted since
        found = {key_of(item): item for item in fetch_items(self.target, keys)}
        latest = [found[key] for key in keys if key in found][:limit]
        return sorted(latest, key=time_of, reverse=True) if len(latest) == limit else None

    def arrived(self, limit: int, message_id: str | None = None) -> Sequence[Key]:
        """Return the keys of the latest messages by arrival, latest first, as far as a local server keeps them."""
        if self.subject is not None or self.target.arrivals is None:
            return ()
        return self.target.arrivals(self.customer_id, message_id, limit)

    def _is_large(self) -> bool:
        if self.subject is not None or self.target.arrivals is None:
            return False
        described = self.target.account.dynamodb().describe_table(TableName=self.target.stores.event_table)
        return described["Table"].get("ItemCount", 0) > MAX_SCANNED_ITEMS

    def stream(self) -> Iterator[Item]:
        """Yield the selected items while they are read; a scan has no order."""
        return self._scan() if self.subject is None else self._query(self.subject)

    def _query(self, subject: str) -> Iterator[Item]:
        pages = self.target.account.dynamodb().get_paginator("query").paginate(
            TableName=self.target.stores.event_table,
            KeyConditionExpression="subject = :subject",
            ExpressionAttributeValues={":subject": {"S": subject}},
            ConsistentRead=True,
            ScanIndexForward=False,
        )  # fmt: skip
        for page in pages:
            yield from page["Items"]

    def _scan(self) -> Iterator[Item]:
        pages = self.target.account.dynamodb().get_paginator("scan").paginate(TableName=self.target.stores.event_table)
        for page in pages:
            yield from (item for item in page["Items"] if self.customer_id in (None, item["customer_id"]["S"]))


def time_of(item: Item) -> tuple[str, str]:
    """Return a sort key for items: the time of the message, then the time of storage."""
    return item["timestamp"]["S"], item["stored_at"]["S"]


def key_of(item: Item) -> Key:
    """Return the key of an item."""
    return item["subject"]["S"], item["position"]["S"]


def describe(message: JsonObject) -> str:
    """Return the most telling field of a canonical message, such as its event name; "" without one."""
    return value_text(next(filter(None, map(message.get, ("event", "name", "group_id", "previous_id"))), ""))


def value_text(value: object) -> str:
    """Return a string as it is, and any other JSON value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def to_json(item: Item) -> dict[str, Any]:
    """Return an item without DynamoDB's types and our compression."""
    documents = {name: read_json_attribute(item[name]) for name in ("message", "settings") if name in item}
    texts = {name: value["S"] for name, value in item.items() if "S" in value and name not in documents}
    numbers = {name: int(value["N"]) for name, value in item.items() if "N" in value}
    return {**texts, **numbers, **documents}
