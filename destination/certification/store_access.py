"""The stored data of a run: temporary keys, and the data of their customers.

The run has two customers of its own: one for almost all messages, and a bystander whose data nothing may touch. At the
end, cleanup removes exactly what the run created.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from destination.certification.expected import Item, hashed, message_of, subject_key, subject_keys
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.parallel import in_parallel
from destination.deployment.reject_table import Contents, KeptReject, StoredRejects, last_days
from destination.deployment.target import Target
from destination.segment.contract import DELETE, JsonObject
from destination.segment.receipts import ErasureReceipt, receipts
from handler.errors import STORE_ERRORS
from handler.keys import new_key

KEY_LABEL = "destination certify"
KEY_LIFETIME = timedelta(days=1)
"""The lifetime of the temporary keys, in case the run is killed before it removes them."""
POLL_SECONDS = 2.0
LOCAL_POLL_SECONDS = 0.2
"""The poll interval; a local server reads its streams as often."""
QUIET_POLLS = 4
"""Cleanup ends after this many polls in a row without new data: streams deliver messages to the consumer later."""
MAX_WAIT_SECONDS = 45
"""Upper bound for functions that run after the answer: a stream's, with its cold start, and the eraser's wait of up
to 20 s."""
MAX_WAIT_WITH_FAILURES_SECONDS = 180
"""The same if requests failed: then the eraser's calls fail too, and its stream retries after a pause."""

EVENT_KEY = ("subject", "position")
"""The key attributes of the event table."""

_Place = tuple[str, dict[str, Any]]
"""A table, and the key of an item in it."""


@dataclass(frozen=True, kw_only=True)
class ApiKeys:
    """The keys of a run; without access to the stores there is only a valid one."""

    good: str
    expired: str | None = None
    revoked: str | None = None
    suspended: str | None = None
    scoped: str | None = None
    used: str | None = None
    """A valid key that is revoked after use."""
    bystander: str | None = None
    """A valid key of the other customer."""

    @property
    def all(self) -> list[str]:
        """All existing keys."""
        return [key for key in asdict(self).values() if key]


class _Left:
    """Descriptions of the data that could not be removed."""

    def __init__(self) -> None:
        self.sentences: dict[str, str] = {}

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Turn a store error into a description, so that it stops the removal of one thing only."""
        try:
            yield
        except STORE_ERRORS as error:
            self.sentences.setdefault(what, f"{what} could not be removed: {error}")


class StoreAccess:
    """The stores of a deployment, restricted to one run's customers."""

    def __init__(self, target: Target, customer_id: str) -> None:
        self.target = target
        self.customer_id = customer_id
        self._key_hashes: list[str] = []
        self.bystander_id = f"{customer_id}-bystander"
        self._deletes: set[str] = set()
        self._client = target.account.dynamodb()
        self._subjects: set[str] = set()
        self.max_wait_seconds = MAX_WAIT_SECONDS
        self._poll_seconds = LOCAL_POLL_SECONDS if target.is_local else POLL_SECONDS

    @property
    def customer_ids(self) -> tuple[str, str]:
        """The customers whose data is removed at the end."""
        return self.customer_id, self.bystander_id

    @property
    def is_queue(self) -> bool:
        """Return whether messages go to a queue, from which others may receive them first."""
        return not self.target.stores.sink.is_queryable

    @property
    def call_types(self) -> frozenset[str]:
        """The call types that the deployment supports."""
        return frozenset(self.target.stores.supported_call_types.split(","))

    def make_keys(self, *, scope: str) -> ApiKeys:
        """Create the keys, the scoped one for one call type only; raises `STORE_ERRORS`."""
        now = datetime.now(UTC)
        made: dict[str, dict[str, Any]] = {
            "good": {},
            "expired": {"expires_at": now - timedelta(hours=1)},
            "revoked": {"status": "revoked"},
            "suspended": {"status": "suspended"},
            "scoped": {"scopes": frozenset({scope})},
            "used": {},
            "bystander": {"customer_id": self.bystander_id},
        }
        keys = {name: new_key() for name in made}
        table = KeyTable(self._client, self.target.stores.key_table)
        for name, own in made.items():
            fields = {"customer_id": self.customer_id, "label": KEY_LABEL, "expires_at": now + KEY_LIFETIME, **own}
            record = KeyRecord.of(keys[name], **fields)
            self._key_hashes.append(record.key_hash)
            table.put(record)
        return ApiKeys(**keys)

    def revoke(self, key: str) -> None:
        """Revoke a temporary key; raises `STORE_ERRORS`."""
        expires_at = datetime.now(UTC) + KEY_LIFETIME
        fields = {"customer_id": self.customer_id, "label": KEY_LABEL, "expires_at": expires_at}
        table = KeyTable(self._client, self.target.stores.key_table)
        table.put(KeyRecord.of(key, **fields, status="revoked"))

    def note(self, message: JsonObject) -> None:
        """Remember the possible users of a message in Segment's spelling before it is sent, for the removal."""
        self._subjects |= subject_keys(self.customer_id, message)

    def note_plain(self, plain: JsonObject) -> None:
        """Remember the keys of a message, and its user if it is a delete; the eraser gets no deletes from a queue."""
        subject = subject_key(self.customer_id, plain)
        self._subjects.add(subject)
        if plain.get("type") == DELETE and not self.is_queue:
            self._deletes.add(subject)

    def note_bystander(self, plain: JsonObject) -> None:
        """Remember a message of the other customer."""
        self._subjects.add(subject_key(self.bystander_id, plain))

    def items_of(self, plain: JsonObject, *, customer_id: str | None = None) -> list[Item]:
        """Return the stored items of a message's user."""
        return list(self._events(subject_key(customer_id or self.customer_id, plain)))

    def stored(self, plain: JsonObject) -> list[Item]:
        """Return the stored items with the id of a message; there should be one, equal to the sent message."""
        return [item for item in self.items_of(plain) if message_of(item).get("message_id") == plain["messageId"]]

    @property
    def retention_days(self) -> int:
        """Days after which stored messages expire, 0 for never."""
        return int(self.target.stores.event_retention_days)

    def rejects_of(self, user_id: str, *, customer_id: str | None = None) -> int:
        """Count the rejects of a user."""
        rejects = self._rejects(customer_id or self.customer_id)
        return sum(1 for reject in rejects if reject.facts.get("user_id") == user_id)

    def contacts_with(self, text: str, *, customer_id: str | None = None) -> int:
        """Count the items of the contact table that contain a text."""
        items = self._query(self.target.stores.contact_table, "customer", customer_id or self.customer_id)
        return sum(1 for item in items if text in str(item))

    def raw_reject(self, reject: KeptReject) -> Item:
        """Return all attributes of a reject."""
        table = self.target.stores.rejects_table
        return self._client.get_item(TableName=table, Key=reject.key, ConsistentRead=True).get("Item", {})

    def kept(self, message_id: str) -> tuple[KeptReject, Contents | None] | None:
        """Return the reject of a message, if there is one."""
        table = StoredRejects(self._client, self.target.stores.rejects_table)
        for reject in self._rejects(self.customer_id):
            if reject.facts.get("message_id") == message_id:
                return reject, table.contents(reject)
        return None

    def _rejects(self, customer_id: str) -> Iterator[KeptReject]:
        table = StoredRejects(self._client, self.target.stores.rejects_table)
        return table.of_customer(customer_id, last_days(2, datetime.now(UTC).date()))

    def is_erased(self, plain: JsonObject) -> bool:
        """Wait until a user has a finished erasure and no unfinished one. Returns whether that happened in time."""
        subject = subject_key(self.customer_id, plain)
        return self.wait_for(lambda: any(self._receipts(subject)) and self._is_settled(subject))

    def is_requested(self, plain: JsonObject) -> bool:
        """Return whether a `delete` was stored: it is there until it is carried out, and then leaves a receipt."""
        subject = subject_key(self.customer_id, plain)
        if any(item["type"]["S"] == DELETE for item in self._events(subject)):
            return True
        return any(self._receipts(subject))

    @property
    def stays(self) -> list[str]:
        """Descriptions of data that nobody can remove."""
        if not self.is_queue:
            return []
        queue = self.target.stores.event_queue_url
        return [f"Messages of {self.customer_id} stay in the queue {queue} until its consumer receives them."]

    @property
    def tables(self) -> list[str]:
        """The tables that may have data of the customer."""
        stores = self.target.stores
        return [
            *(stores.key_table, stores.event_table, stores.rejects_table),
            *(stores.erasure_table, stores.contact_table),
        ]

    def remove(self) -> list[str]:
        """Remove the keys and all data of the customer, and return descriptions of the rest."""
        left = _Left()
        stores, client = self.target.stores, self._client
        for key_hash in self._key_hashes:
            with left.noting(f"A key of {self.customer_id} in {stores.key_table}, which ends within a day,"):
                client.delete_item(TableName=stores.key_table, Key={"key_hash": {"S": key_hash}})
        time.sleep(self._poll_seconds)  # for a request that was running when the run ended
        of_customer = f"Data of {self.customer_id} in"
        with left.noting(f"{of_customer} {stores.erasure_table}"):
            if not self.wait_for(lambda: all(map(self._is_settled, self._deletes))):
                left.sentences["erasures"] = (
                    f"Erasures of {self.customer_id} are not finished: their receipts stay, and identify nobody "
                    "(destination erasures list)."
                )
        with left.noting(f"{of_customer} {stores.rejects_table}"):
            for customer_id in self.customer_ids:
                self._delete([(stores.rejects_table, reject.key) for reject in self._rejects(customer_id)])
        with left.noting(f"{of_customer} {stores.event_table}"):
            self._delete(self._stored_messages())
        quiet, polls = 0, self.max_wait_seconds / self._poll_seconds
        while quiet < QUIET_POLLS and polls > 0:
            deleted = 0
            for table, sort_key in ((stores.erasure_table, "erasure"), (stores.contact_table, "item")):
                with left.noting(f"{of_customer} {table}"):
                    deleted += self._delete(self._written_later(table, sort_key))
            if stores.consumer != "on":
                break
            time.sleep(self._poll_seconds)
            quiet = 0 if deleted else quiet + 1
            polls -= 1
        if polls <= 0:
            left.sentences["late"] = f"Items of {self.customer_id} still appeared when the time was over."
        return list(left.sentences.values())

    def _stored_messages(self) -> list[_Place]:
        table = self.target.stores.event_table
        of_subjects = in_parallel(lambda subject: list(self._events(subject)), self._subjects)
        return [(table, {name: item[name] for name in EVENT_KEY}) for items in of_subjects for item in items]

    def _written_later(self, table: str, sort_key: str) -> list[_Place]:
        """Return the data that the eraser or the consumer has written since."""
        return [
            (table, {"customer": item["customer"], sort_key: item[sort_key]})
            for customer_id in self.customer_ids
            for item in self._query(table, "customer", customer_id)
        ]

    def _delete(self, places: list[_Place]) -> int:
        """Delete items, and count them."""
        deleted = in_parallel(lambda place: self._client.delete_item(TableName=place[0], Key=place[1]), places)
        return sum(1 for _ in deleted)

    def _is_settled(self, subject: str) -> bool:
        """Return whether no erasure is running or about to begin: the eraser deletes a `delete` last."""
        is_waiting = any(item["type"]["S"] == DELETE for item in self._events(subject))
        return not is_waiting and all(receipt.finished_at for receipt in self._receipts(subject))

    def _receipts(self, subject: str) -> Iterator[ErasureReceipt]:
        table = self.target.stores.erasure_table
        return receipts(self._client, table, self.customer_id, user_hash=hashed(subject))

    def wait_for(self, happened: Callable[[], bool], seconds: float | None = None) -> bool:
        """Poll until a condition is true. Returns whether it became true."""
        polls = (seconds or self.max_wait_seconds) / self._poll_seconds
        while not happened():
            if polls <= 0:
                return False
            polls -= 1
            time.sleep(self._poll_seconds)
        return True

    def _events(self, subject: str) -> Iterator[dict[str, Any]]:
        if not subject:  # a message without a user has none
            return iter(())
        return self._query(self.target.stores.event_table, "subject", subject)

    def _query(self, table: str, name: str, value: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="#name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": {"S": value}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]
