"""The contents of a deployment for the page: API keys, stored messages, and rejects, judged by the current schemas."""

import base64
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

from destination.debugger.layout import lay_out_value
from destination.debugger.marks import mask_write_keys
from destination.debugger.rendering import render_content
from destination.debugger.rows import about_of
from destination.deployment.event_table import Item, MessageSelection, to_json
from destination.deployment.key_table import KeyRecord, KeyTable, parse_customer_id, parse_expiry
from destination.deployment.reject_table import DEFAULT_DAYS, KeptReject, StoredRejects, last_days, newest_first
from destination.deployment.retry import ErasedUsers, Fate, RetryResult, retry, sink_of
from destination.deployment.target import Target
from handler.items import read_json_attribute
from handler.judge import Judge
from handler.keys import Status, new_key
from handler.record import subject_key
from handler.spec import CALL_TYPES

MAX_MESSAGES = 200
MAX_REJECTS = 100
"""Limit for the rejects of one request."""
MAX_SORTED = 20_000
"""Limit for the messages that are read to sort them by the time of storage."""
BY_EVENT, BY_STORED = "event", "stored"
SORTED_BY = {BY_EVENT: "timestamp", BY_STORED: "stored_at"}
"""The item attributes by which the page sorts messages."""


@dataclass(frozen=True, kw_only=True)
class StoreView:
    """Reads and changes the stores of a deployment; `load_judge` reads the current schemas.

    Methods raise `click.ClickException` for problems that a person can fix, and one of `STORE_ERRORS`.
    """

    target: Target
    dynamodb: Any
    load_judge: Callable[[], Judge]

    @property
    def _keys(self) -> KeyTable:
        return KeyTable(self.dynamodb, self.target.stores.key_table)

    @property
    def _rejects(self) -> StoredRejects:
        return StoredRejects(self.dynamodb, self.target.stores.rejects_table)

    def keys(self) -> list[dict[str, Any]]:
        """Return all API keys without their secrets, newest last for each customer."""
        records = sorted(self._keys, key=lambda record: (record.customer_id, str(record.created_at)))
        return [record.to_json() for record in records]

    def create_key(self, *, customer_id: str, label: str, expires: str, scopes: Sequence[str]) -> dict[str, Any]:
        """Create an API key and return it; it can't be shown again."""
        if unknown := set(scopes) - set(CALL_TYPES):
            raise click.ClickException(f"There is no call type {', '.join(sorted(unknown))}")
        key = new_key()
        try:
            record = KeyRecord.of(
                key,
                customer_id=parse_customer_id(customer_id.strip()),
                label=label.strip() or None,
                expires_at=parse_expiry(expires.strip()) if expires.strip() else None,
                scopes=frozenset(scopes) or None,
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        self._keys.add(record)
        return {"api_key": key, "key": record.to_json()}

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Revoke a key permanently."""
        record = self._keys.set_status(self._keys.find(key_id), Status.REVOKED)
        if record is None:
            raise click.ClickException("This key was deleted")
        return record.to_json()

    def messages(
        self, *, customer_id: str, user: str, anonymous: str, message_id: str = "", by: str = BY_EVENT
    ) -> dict[str, Any]:
        """Return the newest stored messages of a user, of an anonymous visitor, of a customer, or of all.

        They are sorted by the time of the event, or by the time of storage. A `message_id` selects one of them.
        """
        if by not in SORTED_BY:
            raise click.ClickException(f"Messages are sorted by {' or '.join(SORTED_BY)}")
        subject = None
        if user or anonymous:
            if not customer_id:
                raise click.ClickException("Name the customer of this user")
            subject = subject_key(customer_id, "user" if user else "anonymous", user or anonymous)
        elif not self.target.is_local:
            raise click.ClickException("Name a customer, and a user or an anonymous id: the table has no other index")
        selection = MessageSelection(target=self.target, customer_id=customer_id or None, subject=subject)
        latest = selection.latest(1, message_id) if message_id else selection.latest(MAX_MESSAGES)
        items: Iterator[Item] = iter(selection.read() if latest is None else latest)
        if message_id:
            items = (item for item in items if item["message_id"]["S"] == message_id)
        if by == BY_STORED:  # the newest ones may be anywhere in the table
            items = iter(sorted(itertools.islice(items, MAX_SORTED), key=_time_of(by), reverse=True))
        newest = sorted(itertools.islice(items, MAX_MESSAGES), key=_time_of(by), reverse=True)
        more = sum(1 for _ in items) if self.target.is_local else 0
        is_latest = latest is not None and not message_id
        return {"messages": [_message(item) for item in newest], "more": more, "latest": is_latest}

    def message(self, subject: str, position: str) -> dict[str, Any] | None:
        """Return one whole stored message, None if it is gone."""
        key = {"subject": {"S": subject}, "position": {"S": position}}
        item = self.dynamodb.get_item(TableName=self.target.stores.event_table, Key=key, ConsistentRead=True).get(
            "Item"
        )
        return item and mask_write_keys(lay_out_value(to_json(item))).to_json()

    def rejects(self, *, customer_id: str) -> dict[str, Any]:
        """Return the newest rejects of a customer or of all, each with the verdict of the current schemas."""
        if not (customer_id or self.target.is_local):
            raise click.ClickException("Name a customer: on AWS, the rejects of all customers are not read")
        found = newest_first(self._found(customer_id))
        shown = found[:MAX_REJECTS]
        try:
            judge = self.load_judge()
        except click.ClickException:  # the schemas are being edited
            results = {}
        else:
            results = {
                one.reject.body_hash: one
                for one in retry(shown, self._rejects, judge, None, ErasedUsers.none(self.target))
            }
        return {
            "rejects": [_reject(reject, results.get(reject.body_hash)) for reject in shown],
            "more": len(found) - len(shown),
        }

    def _found(self, customer_id: str) -> Iterable[KeptReject]:
        if not self.target.is_local:
            return self._rejects.of_customer(customer_id, last_days(DEFAULT_DAYS, datetime.now(UTC).date()))
        return (reject for reject in self._rejects.everything() if customer_id in ("", reject.customer_id))

    def reject(self, key: str) -> dict[str, Any] | None:
        """Return one whole reject with the verdict of the current schemas; None if it is gone."""
        reject = self._rejects.find(*_parse_key(key))
        contents = None if reject is None else self._rejects.contents(reject)
        if reject is None or contents is None:
            return None
        result = next(iter(retry([reject], self._rejects, self.load_judge(), None, ErasedUsers.none(self.target))))
        return {
            "reject": _reject(reject, result),
            **render_content(contents.body),
            "violations": json.loads(reject.facts["violations"]),
            "answer_today": result.answer or None,
            "settings": contents.settings_header,
        }

    def retry(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Judge rejects by the current schemas, and store those that pass."""
        found = {key: self._rejects.find(*_parse_key(key)) for key in keys}
        there = [reject for reject in found.values() if reject is not None]
        erased = ErasedUsers.of(self.target)
        results = retry(there, self._rejects, self.load_judge(), sink_of(self.target), erased)
        said = {_key(one.reject): {"fate": one.fate, "answer": one.answer} for one in results}
        return [{"key": key, **said.get(key, {"fate": Fate.GONE, "answer": ""})} for key in keys]


def _time_of(by: str) -> Callable[[Item], str]:
    return lambda item: str(item[SORTED_BY[by]]["S"])


def _message(item: Item) -> dict[str, Any]:
    def text(name: str) -> str:
        return str(item.get(name, {"S": ""})["S"])

    def time(name: str) -> str:
        return text(name).replace("T", " ")[: len("2020-05-09 23:54:49.200")]

    kind = "user" if "user_id" in item else "anonymous"
    return {
        "time": time("timestamp"),
        "stored": time("stored_at"),
        "customer": text("customer_id"),
        "type": text("type"),
        "who": text(f"{kind}_id"),
        "who_kind": kind,
        "what": about_of(read_json_attribute(item["message"])),
        **{name: text(name) for name in ("message_id", "subject", "position")},
    }


def _reject(reject: KeptReject, result: RetryResult | None) -> dict[str, Any]:
    facts = reject.facts
    return {
        "id": reject.reject_id,
        "key": _key(reject),
        "customer": reject.customer_id,
        "time": reject.rejected_at.replace("T", " ")[: len("2020-05-09 23:54:49")],
        "type": reject.call_type,
        "who": facts.get("user_id") or facts.get("anonymous_id") or "",
        "code": facts["code"],
        "answer": reject.answer,
        "passes": result and result.fate is Fate.PASSES,
    }


def _key(reject: KeptReject) -> str:
    """Return an id of a reject for a URL."""
    key = json.dumps([reject.facts["customer_day_shard"], reject.body_hash])
    return base64.urlsafe_b64encode(key.encode()).decode()


def _parse_key(key: str) -> Sequence[str]:
    try:
        shard, body_hash = json.loads(base64.urlsafe_b64decode(key))
    except (ValueError, TypeError, RecursionError) as error:
        raise click.ClickException("This is not the key of a reject") from error
    if not all(isinstance(part, str) and part for part in (shard, body_hash)):
        raise click.ClickException("This is not the key of a reject")
    return shard, body_hash
