"""The contacts that the consumer keeps, compared with those that the messages of `destination simulate` make."""

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

PATIENCE_SECONDS = 120
"""For which the contacts of a customer may stay as they are without being right."""
LOOK_SECONDS = 1
READING_SHARE = 5
"""One of so many seconds may go into reading: it holds up the consumer that it waits for."""
SHOWN_DIFFERENCES = 20
MAX_SHOWN_CHARS = 60

ABSENT = object()
"""Stands for what one of two documents lacks; `null` is a value."""

Expected = Callable[[str], Mapping[str, JsonObject]]
"""Returns the contacts that a customer must have, by their ids."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What is wrong with a contact.

    `expected` and `found` are JSON, cut short, of a `part` of it, "" where there is none; `part` is "" where the whole
    contact is missing or superfluous.
    """

    customer_id: str
    contact_id: str
    part: str
    expected: str
    found: str

    def __str__(self) -> str:
        """Say it in a sentence."""
        if self.part:
            what = f"{self.part} is {self.found or 'missing'} and should be {self.expected or 'absent'}"
        else:
            what = "is there, though no message tells of it" if self.found else "is missing"
        return printable(f"{self.customer_id}: {_short(self.contact_id)} {what}")

    def to_json(self) -> dict[str, str]:
        """Return what `--json` prints."""
        return {
            "customer": self.customer_id,
            "contact": self.contact_id,
            "part": self.part,
            "expected": self.expected,
            "found": self.found,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many contacts there should be, how many are other, missing or superfluous, and in what, by examples."""

    contacts: int
    wrong: int
    differences: tuple[Difference, ...]


def compare_contacts(
    target: Target,
    customer_ids: Iterable[str],
    expected_of: Expected,
    *,
    tell: Callable[[str], object],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Comparison:
    """Wait until the consumer has caught up, customer by customer, and compare; raises `STORE_ERRORS`.

    When it is given up with one customer, the others are compared as they are.
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
                f"Waiting for the consumer: {_ids(wrong):,} of {customer_id}'s {len(expected):,} contacts are to come …"
            )
            if found != last:
                last, changed = found, time.monotonic()
            if not wrong or differences or time.monotonic() - changed >= patience_seconds:
                break
            time.sleep(max(LOOK_SECONDS, (READING_SHARE - 1) * (time.monotonic() - began)))
        differences += wrong
    return Comparison(contacts=contacts, wrong=_ids(differences), differences=tuple(differences[:SHOWN_DIFFERENCES]))


def remains_of_erased(target: Target, customer_id: str, user_ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what the raw contact table still holds of users who were erased: the user id, and the name of an item.

    A contact leaves an item that says when it was erased, under a hash. It must not name the user, and the items of
    what the user did must be gone. Raises `STORE_ERRORS`.
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
    """Read all contacts of a customer, by their ids."""
    table = ContactTable(target.account.dynamodb(), target.stores.contact_table, customer=customer_id)
    return {profile.contact_id: table.to_json(profile) for profile in table.profiles()}


def differences_of(
    customer_id: str, expected: Mapping[str, JsonObject], found: Mapping[str, JsonObject]
) -> Iterator[Difference]:
    """Yield what is wrong with the contacts of a customer."""
    for contact_id in sorted(expected.keys() | found.keys()):
        for part, wanted, there in _parts(expected.get(contact_id, ABSENT), found.get(contact_id, ABSENT)):
            yield Difference(
                customer_id=customer_id, contact_id=contact_id, part=part, expected=_short(wanted), found=_short(there)
            )


def _parts(expected: Any, found: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401 -- JSON
    """Yield the parts that differ of two documents, each with its name: a trait, the traits of an account, a count."""
    if _json(expected) == _json(found):
        return
    if isinstance(expected, dict) and isinstance(found, dict) and name in ("", "traits", "groups", "events"):
        for key in sorted(expected.keys() | found.keys()):
            part = f"{name}.{key}" if name else key
            yield from _parts(expected.get(key, ABSENT), found.get(key, ABSENT), part)
    else:
        yield name, expected, found


def _json(document: object) -> str:
    """Spell a document such that others differ: in Python `1 == True`, in JSON not. What is absent has no JSON."""
    return "" if document is ABSENT else json.dumps(document, sort_keys=True)


def _ids(differences: Iterable[Difference]) -> int:
    return len({(difference.customer_id, difference.contact_id) for difference in differences})


def _short(value: object) -> str:
    text = "" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
