"""Import API keys from a file: keys that customers already have, or keys of another deployment."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from destination.deployment.key_table import KeyRecord, KeyTable, parse_customer_id
from handler.keys import DEMO_KEY_PREFIX, is_well_formed

MIN_IMPORTED_KEY_CHARS = 8
"""Shorter keys can be guessed. The header line of a file (`key`, `api_key`) is shorter, too."""


def read_keys(text: str) -> Iterator[KeyRecord]:
    """Yield the keys in a CSV or JSON Lines file; raises `csv.Error` or `click.ClickException`."""
    if text.lstrip().startswith("{"):
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield _exported(line, number)
        return
    for number, row in enumerate(csv.reader(io.StringIO(text)), start=1):
        if row:
            yield _imported(row, number)


def _exported(line: str, number: int) -> KeyRecord:
    try:
        fields = json.loads(line)
        record = KeyRecord.from_exported(fields if isinstance(fields, dict) else {})
    except ValueError as error:
        raise click.ClickException(f"Line {number} is not a key from `destination keys export`: {error}") from error
    _check_customer(record.customer_id, number)
    return record


def _imported(row: list[str], number: int) -> KeyRecord:
    customer_id, key, label = [part.strip() for part in [*row, "", ""]][:3]
    if not key or len(row) > 3:  # noqa: PLR2004 -- customer, key and label
        raise click.ClickException(f"Line {number} is not `customer,key` or `customer,key,label`")
    if key.startswith(DEMO_KEY_PREFIX):
        raise click.ClickException(f"Line {number}: keys that start with {DEMO_KEY_PREFIX} are for local servers only")
    if not is_well_formed(key) or len(key) < MIN_IMPORTED_KEY_CHARS:
        raise click.ClickException(
            f"Line {number}: a key must be {MIN_IMPORTED_KEY_CHARS} to 256 printable ASCII characters without a colon; "
            "one that starts with ddk_ must be complete. The file must not have a header line"
        )
    _check_customer(customer_id, number)
    return KeyRecord.of(key, customer_id=customer_id, label=label or None)


def _check_customer(customer_id: str, number: int) -> None:
    try:
        parse_customer_id(customer_id)
    except ValueError as error:
        raise click.ClickException(f"Line {number}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class ImportedKeys:
    """The result of an import; `strangers` already belong to another customer, and were not changed."""

    imported: int
    replaced: int
    already_there: int
    strangers: list[KeyRecord]


def import_keys(table: KeyTable, records: Sequence[KeyRecord], *, replace: bool) -> ImportedKeys:
    """Add keys to a table; with `replace`, imported records overwrite existing ones, except revoked ones."""
    there_already = [record for record in records if not table.add(record)]
    owners = {record.key_hash: record.customer_id for record in table} if there_already else {}
    strangers = [record for record in there_already if owners.get(record.key_hash) != record.customer_id]
    replaced = [record for record in there_already if replace and record not in strangers and table.replace(record)]
    return ImportedKeys(
        imported=len(records) - len(there_already),
        replaced=len(replaced),
        already_there=len(there_already),
        strangers=strangers,
    )
