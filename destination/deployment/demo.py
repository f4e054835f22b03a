"""The demo keys that a local server has from its start, and that the files in `events/` use.

Their values are public, so the function accepts them only on a local server.
"""

from datetime import UTC, datetime

from destination.deployment.key_table import KeyRecord, KeyTable
from handler.keys import DEMO_KEY_PREFIX, Status

CUSTOMER = "demo"
GOOD_KEY = f"{DEMO_KEY_PREFIX}good"

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

KEYS = (
    KeyRecord.of(GOOD_KEY, customer_id=CUSTOMER, label="good"),
    KeyRecord.of(f"{DEMO_KEY_PREFIX}expired", customer_id=CUSTOMER, label="expired", expires_at=_LONG_AGO),
    KeyRecord.of(f"{DEMO_KEY_PREFIX}revoked", customer_id=CUSTOMER, label="revoked", status=Status.REVOKED),
    KeyRecord.of(f"{DEMO_KEY_PREFIX}suspended", customer_id=CUSTOMER, label="suspended", status=Status.SUSPENDED),
    KeyRecord.of(f"{DEMO_KEY_PREFIX}scoped", customer_id=CUSTOMER, label="scoped", scopes=frozenset({"identify"})),
)


def seed_keys(table: KeyTable) -> None:
    """Put the demo keys into a key table; idempotent."""
    for record in KEYS:
        table.put(record)
