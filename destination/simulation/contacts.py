"""Compare the contacts that the consumer keeps with those expected from the messages of `destination simulate`."""

import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from consumer.contacts.table import ContactTable
from destination.console import printable
from destination.deployment.target import Target
from destination.segment.contract import JsonObject
from destination.segment.due import escaped, sha256

MAX_WAIT_SECONDS = 120
"""The comparison is given up if a customer's contacts stay wrong and unchanged for this time."""
POLL_SECONDS = 1
READING_SHARE = 5
"""Reading may take one of this many seconds, because it slows down the consumer."""
SHOWN_DIFFERENCES = 20
MAX_SHOWN_CHARS = 60

ABSENT = object()
"""Stands for a part that is missing in one of two documents; `null` is a value."""

Expected = Callable[[str], Mapping[str, JsonObject]]
"""Returns the expected contacts of a customer by id."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A difference in a contact.

    `expected` and `found` are shortened JSON of a `part` of it, "" for a missing one. `part` is "" if the whole contact
    is missing or unexpected.
    """

    customer_id: str
    contact_id: str
    part: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Return a sentence about the difference."""
        if self.part:
            what = f"{self.part} is {self.found or 'missing'} and should be {self.expected or 'absent'}"
        else:
            what = "exists, although no message implies it" if self.found else "is missing"
        return printable(f"{self.customer_id}: {_short(self.contact_id)} {what}")

    def to_json(self) -> dict[str, str]:
        """Return the form for `--json`."""
        return {
            "customer": self.customer_id,
            "contact": self.contact_id,
            "part": self.part,
            "expected": self.expected,
            "found": self.found,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The number of expected contacts, how many are different, missing or unexpected, and examples of differences."""

    contacts: int
    wrong: int
    differences: tuple[Difference, ...]


def compare_contacts(
    target: Target,
    customer_ids: Iterable[str],
    expected_of: Expected,
    *,
    tell: Callable[[str], object],
    max_wait_seconds: float = MAX_WAIT_SECONDS,
) -> Comparison:
    """Wait until the consumer has caught up, customer by customer, and compare; raises `STORE_ERRORS`.

    After the wait for one customer is given up, the others are compared without a wait.
    """
    contacts = 0
    differences: list[Difference] = []
    for customer_id in customer_ids:
        expected = expected_of(customer_id)
        contacts += len(expected)
        last, changed = None, time.monotonic()
        while True:
            began = time.monotonic()
            found = read_contacts(target, customer_id)
            wrong = list(differences_of(customer_id, expected, found))
            tell(
                f"Waiting for the consumer: {_ids(wrong):,} of {customer_id}'s {len(expected):,} contacts are missing "
                "or outdated …"
            )
            if found != last:
                last, changed = found, time.monotonic()
            if not wrong or differences or time.monotonic() - changed >= max_wait_seconds:
                break
            time.sleep(max(POLL_SECONDS, (READING_SHARE - 1) * (time.monotonic() - began)))
        differences += wrong
    return Comparison(contacts=contacts, wrong=_ids(differences), differences=tuple(differences[:SHOWN_DIFFERENCES]))


def remains_of_erased(target: Target, customer_id: str, user_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the remains of erased users in the raw contact table: the user id, and the name of an item.

    A contact leaves an item with the time of its erasure, under a hash. It must not name the user, and the items with
    the user's events must be gone. Raises `STORE_ERRORS`.
    """
    users = {sha256(f"{escaped(customer_id)}#{escaped(user_id)}"): user_id for user_id in user_ids}
    pages = (
        target.account.dynamodb()
        .get_paginator("query")
        .paginate(
            TableName=target.stores.contact_table,
            KeyConditionExpression="#customer = :customer",
            ExpressionAttributeNames={"#customer": "customer"},
            ExpressionAttributeValues={":customer": {"S": escaped(customer_id)}},
            ConsistentRead=True,
        )
    )
    for item in (item for page in pages for item in page["Items"]):
        kind, _, rest = item["item"]["S"].partition("#")
        user_id = users.get(rest.partition("#")[0])
        if user_id is None:
            continue
        names = {json.dumps(user_id), json.dumps(user_id, ensure_ascii=False)}
        text = _text(item.get("facts", {}))
        if kind == "seen" or (kind == "contact" and (any(name in text for name in names) or "@example.com" in text)):
            yield user_id, item["item"]["S"]


def _text(attribute: Mapping[str, Any]) -> str:
    if "B" in attribute:
        return zlib.decompress(attribute["B"]).decode()
    return str(attribute.get("S", ""))


def read_contacts(target: Target, customer_id: str) -> dict[str, JsonObject]:
    """Read all contacts of a customer, by id."""
    table = ContactTable(target.account.dynamodb(), target.stores.contact_table, customer=customer_id)
    return {profile.contact_id: table.to_json(profile) for profile in table.profiles()}


def differences_of(
    customer_id: str, expected: Mapping[str, JsonObject], found: Mapping[str, JsonObject]
) -> Iterator[Difference]:
    """Yield the differences in the contacts of a customer."""
    for contact_id in sorted(expected.keys() | found.keys()):
        for part, wanted, there in _parts(expected.get(contact_id, ABSENT), found.get(contact_id, ABSENT)):
            yield Difference(
                customer_id=customer_id, contact_id=contact_id, part=part, expected=_short(wanted), found=_short(there)
            )


def _parts(expected: Any, found: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401 -- JSON
    """Yield the parts in which two documents differ, each with its name: a trait, the traits of an account, a count."""
    if _json(expected) == _json(found):
        return
    if isinstance(expected, dict) and isinstance(found, dict) and name in ("", "traits", "groups", "events"):
        for key in sorted(expected.keys() | found.keys()):
            part = f"{name}.{key}" if name else key
            yield from _parts(expected.get(key, ABSENT), found.get(key, ABSENT), part)
    else:
        yield name, expected, found


def _json(document: object) -> str:
    """Return a text that differs for different documents: in Python `1 == True`, in JSON not. "" if absent."""
    return "" if document is ABSENT else json.dumps(document, sort_keys=True)


def _ids(differences: Iterable[Difference]) -> int:
    return len({(difference.customer_id, difference.contact_id) for difference in differences})


def _short(value: object) -> str:
    text = "" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
