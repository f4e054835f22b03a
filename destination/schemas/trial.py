"""Try schemas on the contents of a deployment: messages that passed, and rejects, each at its own time."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from destination.deployment.reject_table import StoredRejects
from destination.deployment.retry import ErasedUsers, Fate, retry
from destination.deployment.target import Target
from handler.errors import Invalid
from handler.items import read_json_attribute
from handler.judge import Judge

TRIED = ("customer_id", "type", "message", "settings")
"""The attributes of a stored message that are read."""

Kind = tuple[str, str, str]
"""Customer, call type, and answer, by which messages are counted."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Schemas, and the messages to try them on: of one customer or of all, with limits for stored and refused ones."""

    target: Target
    judge: Judge
    customer_id: str | None
    limit: int | None

    def stored(self) -> Iterator[Kind | None]:
        """Yield the new answer for each stored message, None if it passes again."""
        for item in itertools.islice(self._items(), self.limit):
            yield _judge(self.judge, item)

    def _items(self) -> Iterator[Mapping[str, Any]]:
        names = {f"#{name}": name for name in TRIED}
        chosen: dict[str, Any] = {}
        if self.customer_id is not None:
            values = {":customer": {"S": self.customer_id}}
            chosen = {"FilterExpression": "#customer_id = :customer", "ExpressionAttributeValues": values}
        pages = self.target.account.dynamodb().get_paginator("scan").paginate(
            TableName=self.target.stores.event_table,
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
            **chosen,
        )  # fmt: skip
        for page in pages:
            yield from page["Items"]

    def rejects(self) -> Iterator[Kind | None]:
        """Yield the old answer for each reject that would pass now, None if it is still refused."""
        table = StoredRejects(self.target.account.dynamodb(), self.target.stores.rejects_table)
        chosen = (reject for reject in table.everything() if self.customer_id in (None, reject.customer_id))
        erased = ErasedUsers.none(self.target)
        for verdict in retry(itertools.islice(chosen, self.limit), table, self.judge, None, erased):
            reject = verdict.reject
            passes = verdict.fate is Fate.PASSES
            yield (reject.customer_id, reject.call_type, reject.answer) if passes else None


def _judge(judge: Judge, item: Mapping[str, Any]) -> Kind | None:
    """Judge a stored message, which is canonical already."""
    customer_id, call_type = item["customer_id"]["S"], item["type"]["S"]
    settings = read_json_attribute(item["settings"]) if "settings" in item else {}
    try:
        judge.check_schemas(call_type, read_json_attribute(item["message"]), settings)
    except Invalid as refusal:
        return customer_id, call_type, str(refusal)
    return None
