"""The key table for the partner: create, list and change keys. The endpoint reads it by `handler/keys.py`."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import click

from handler.keys import Status, hash_key, new_key
from handler.spec import CALL_TYPES
from handler.timestamps import parse_time

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

KEY_ID_CHARS = 12
MAX_CUSTOMER_ID_CHARS = 256


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """One row of the key table; of the key itself, it has only the hash and the last four characters."""

    key_hash: str
    last_four: str
    customer_id: str
    status: str = Status.ACTIVE
    """One of `Status`, or any other word that somebody wrote by hand."""
    created_at: datetime | None = field(default_factory=lambda: datetime.now(UTC))
    expires_at: datetime | None = None
    scopes: frozenset[str] | None = None
    label: str | None = None

    @classmethod
    def of(cls, key: str, **fields: Any) -> Self:  # noqa: ANN401 -- the fields above
        """Return the record of a key."""
        return cls(key_hash=hash_key(key), last_four=key[-4:], **fields)

    @property
    def key_id(self) -> str:
        """The id of the key in commands: the start of its hash."""
        return self.key_hash[:KEY_ID_CHARS]

    @property
    def effective_status(self) -> str:
        """The status for display: an active key after its end is `expired`."""
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
        """Read a DynamoDB item; if somebody wrote it by hand, fields for display may be missing."""
        return cls(
            key_hash=item["key_hash"]["S"],
            last_four=item.get("last_four", {"S": ""})["S"],
            customer_id=item["customer_id"]["S"],
            status=item["status"]["S"],
            created_at=_in_utc(datetime.fromisoformat(item["created_at"]["S"])) if "created_at" in item else None,
            expires_at=_in_utc(datetime.fromisoformat(item["expires_at"]["S"])) if "expires_at" in item else None,
            scopes=frozenset(item["scopes"]["SS"]) if "scopes" in item else None,
            label=item["label"]["S"] if "label" in item else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "id": self.key_id,
            "customer_id": self.customer_id,
            "status": self.effective_status,
            "last_four": self.last_four,
            "label": self.label,
            "scopes": sorted(self.scopes) if self.scopes is not None else None,
            "created_at": self.created_at.isoformat(timespec="seconds") if self.created_at else None,
            "expires_at": self.expires_at.isoformat(timespec="seconds") if self.expires_at else None,
        }

    def exported(self) -> dict[str, Any]:
        """Return the line of `destination keys export`, from which another table can import the key."""
        return {
            "key_hash": self.key_hash,
            "last_four": self.last_four,
            "customer_id": self.customer_id,
            "status": self.status,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "expires_at": self.expires_at.isoformat() if self.expires_at else None,
            "scopes": sorted(self.scopes) if self.scopes is not None else None,
            "label": self.label,
        }

    @classmethod
    def from_exported(cls, fields: Mapping[str, Any]) -> Self:
        """Read a line that `exported` returned; raises `ValueError` with the reason."""
        expected = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != expected:
            raise ValueError(f"it must have exactly the fields {', '.join(sorted(expected))}")
        if not re.fullmatch("[0-9a-f]{64}", str(fields["key_hash"])):
            raise ValueError("key_hash must be a SHA-256 in hexadecimal")
        for name in ("last_four", "customer_id"):
            if not isinstance(fields[name], str):
                raise ValueError(f"{name} must be a string")  # noqa: TRY004 -- a bad value in a file
        if fields["status"] not in set(Status):
            raise ValueError(f"status must be one of {', '.join(Status)}")
        scopes, label = fields["scopes"], fields["label"]
        if scopes is not None and not (
            isinstance(scopes, list) and scopes and all(scope in CALL_TYPES for scope in scopes)
        ):
            raise ValueError(f"scopes must be null, or some of {', '.join(CALL_TYPES)}")
        if label is not None and not isinstance(label, str):
            raise ValueError("label must be null or a string")
        return cls(
            **{name: fields[name] for name in ("key_hash", "last_four", "customer_id", "label")},
            status=Status(fields["status"]),
            created_at=_time(fields, "created_at"),
            expires_at=_time(fields, "expires_at"),
            scopes=None if scopes is None else frozenset(scopes),
        )


def _in_utc(time: datetime) -> datetime:
    """Add the time zone to a time without one, which somebody wrote by hand; the function does the same."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _time(fields: Mapping[str, Any], name: str) -> datetime | None:
    if fields[name] is None:
        return None
    try:
        time = datetime.fromisoformat(fields[name])
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None or parse_time(fields[name]) is None:
        raise ValueError(f"{name} must be null, or a time with a time zone such as 2027-01-31T12:00:00+00:00")
    return time


class KeyTable:
    """Reads and writes key records.

    Each change is a conditional update of one attribute, so concurrent commands can't undo each other's changes. A
    revoked key stays revoked.
    """

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._client = client
        self._name = name

    def put(self, record: KeyRecord) -> None:
        """Write a record, replacing an existing one."""
        self._client.put_item(TableName=self._name, Item=record.to_item())

    def add(self, record: KeyRecord) -> bool:
        """Write a record unless its key exists; return whether it was written."""
        try:
            self._client.put_item(
                TableName=self._name, Item=record.to_item(), ConditionExpression="attribute_not_exists(key_hash)"
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def replace(self, record: KeyRecord) -> bool:
        """Replace a record of the same customer; return whether it was written.

        A record of another customer is not changed. A revoked record is replaced only by a revoked one.
        """
        try:
            self._client.put_item(
                TableName=self._name, Item=record.to_item(), **_condition(record.status, customer_id=record.customer_id)
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def set_status(self, record: KeyRecord, status: Status) -> KeyRecord | None:
        """Change the status of a key, and return its new record; None if the key was revoked or deleted meanwhile."""
        condition = _condition(status, customer_id=record.customer_id)
        condition["ExpressionAttributeValues"][":status"] = {"S": status}
        try:
            answer = self._client.update_item(
                TableName=self._name,
                Key={"key_hash": {"S": record.key_hash}},
                UpdateExpression="SET #status = :status",
                ReturnValues="ALL_NEW",
                **condition,
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return None
        return KeyRecord.from_item(answer["Attributes"])

    def end(self, record: KeyRecord, ends_at: datetime) -> bool:
        """Set the end of a key, unless it ends earlier; returns False if the key has changed since it was read."""
        key = {"key_hash": {"S": record.key_hash}}
        item = self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True).get("Item")
        if item is None or KeyRecord.from_item(item) != record:
            return False
        if record.expires_at is not None and record.expires_at <= ends_at:
            return True
        # If the first try was made but its response was lost, the retry finds the end that the first one wrote.
        was = "expires_at = :was" if "expires_at" in item else "attribute_not_exists(expires_at)"
        values = {":ends": {"S": ends_at.isoformat(timespec="seconds")}, ":status": {"S": record.status}}
        try:
            self._client.update_item(
                TableName=self._name,
                Key=key,
                UpdateExpression="SET expires_at = :ends",
                ConditionExpression=f"#status = :status AND ({was} OR expires_at = :ends)",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={**values, **({":was": item["expires_at"]} if "expires_at" in item else {})},
            )
        except self._client.exceptions.ConditionalCheckFailedException:
            return False
        return True

    def __iter__(self) -> Iterator[KeyRecord]:
        """Yield all records by a scan: the table has only a few keys per customer."""
        for page in self._client.get_paginator("scan").paginate(TableName=self._name, ConsistentRead=True):
            yield from map(KeyRecord.from_item, page["Items"])

    def rotate(self, old: KeyRecord, ends_at: datetime) -> tuple[str, KeyRecord]:
        """Create a key like an old one, which then ends at a time; raises `click.ClickException` if that fails."""
        if old.status == Status.REVOKED:
            raise click.ClickException("This key is revoked: create a new one with `destination keys create`")
        key = new_key()
        record = KeyRecord.of(key, customer_id=old.customer_id, label=old.label, scopes=old.scopes, status=old.status)
        self.add(record)
        if not self.end(old, ends_at):
            self.set_status(record, Status.REVOKED)  # the new key must not outlive a revocation of the old one
            raise click.ClickException(
                "Somebody else changed this key at the same time, so it was not rotated. Check it with "
                "`destination keys show`, and run this again"
            )
        return key, record

    def find(self, key_id: str) -> KeyRecord:
        """Return the record with an id, or the start of one; raises `click.ClickException` unless one matches."""
        records = [record for record in self if record.key_hash.startswith(key_id)]
        if not records:
            raise click.ClickException(f"No key has the id {key_id}: `destination keys list` shows all keys")
        if len(records) > 1:
            raise click.ClickException(f"Several keys have an id that starts with {key_id}: give more characters")
        return records[0]


def parse_customer_id(text: str) -> str:
    """Return a customer id; raises `ValueError` for a text that can't be one."""
    if not text.strip() or not text.isprintable() or len(text) > MAX_CUSTOMER_ID_CHARS:
        raise ValueError(f"a customer id is 1 to {MAX_CUSTOMER_ID_CHARS} printable characters")
    return text


def parse_expiry(text: str) -> datetime:
    """Return a future time from a date, a time, or a number of hours or days from now; raises `ValueError`."""
    now = datetime.now(UTC)
    if span := re.fullmatch(r"(\d{1,6})([hd])", text):
        return now + timedelta(hours=int(span[1]) * (24 if span[2] == "d" else 1))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or parse_time(text) is None:  # fromisoformat reads epoch milliseconds as a year
        raise ValueError(f"{text} is not a time: write 90d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z")
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    if time <= now:
        raise ValueError(f"{text} is in the past")
    return time


def _condition(status: str, *, customer_id: str) -> dict[str, Any]:
    """Return the condition for a status change: the key belongs to the customer, and a revoked one stays revoked."""
    values = {":customer": {"S": customer_id}}
    if status == Status.REVOKED:
        is_allowed = "attribute_exists(#status)"
    else:
        is_allowed = "#status <> :revoked"
        values[":revoked"] = {"S": Status.REVOKED.value}
    return {
        "ConditionExpression": f"customer_id = :customer AND {is_allowed}",
        "ExpressionAttributeNames": {"#status": "status"},
        "ExpressionAttributeValues": values,
    }
