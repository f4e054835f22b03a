"""The key store: SHA-256 of an API key -> the customer it was given to, with a cache.

A key of ours is `ddk_`, 30 random characters (178 bits) and 6 of checksum, all of them letters and digits, so that a
mistyped one is refused without a read. Keys that a partner gave out before may be any printable ASCII without a colon.
The key itself is never stored; because keys are long and random, a fast hash is right.
"""

import hashlib
import hmac
import secrets
import string
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from handler.errors import STORE_ERRORS, KeyStoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

KEY_PREFIX = "ddk_"
DEMO_KEY_PREFIX = "demo-key-"
"""Keys with this prefix are published in `events/`: they work on a local server only."""

RANDOM_CHARS = 30
CHECKSUM_CHARS = 6
MAX_KEY_CHARS = 256

UNKNOWN_CACHE_SECONDS = 5
MAX_CACHED_KEYS = 10_000
"""At about 1 KB each: 10 MB at the most."""
READ_AGAIN_SECONDS = 5
"""How long the store is left alone after a failed read while a cached key still serves."""

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY_CHARS = frozenset(map(chr, range(0x20, 0x7F))) - {":"}


class Status(StrEnum):
    """What the partner decided about a key; that it expired is told by its time."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What the key store knows of a key. `scopes` are call types, None for all; `expires_at` has a time zone."""

    customer_id: str
    status: Status
    expires_at: datetime | None = None
    scopes: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class _Cached:
    api_key: ApiKey | None
    read_at: float
    fresh_until: float


def new_key() -> str:
    """Make an API key; it is shown once and never stored."""
    body = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARS))
    return body + checksum(body)


def checksum(body: str) -> str:
    """Return the CRC-32 of a key's first part in base 62; it finds typing errors and proves nothing."""
    rest = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def is_well_formed(key: str) -> bool:
    """Whether this can be an API key at all: what is not is unknown without a read."""
    if not 0 < len(key) <= MAX_KEY_CHARS or not _KEY_CHARS.issuperset(key):
        return False
    if not key.startswith(KEY_PREFIX):
        return True
    return hmac.compare_digest(key[-CHECKSUM_CHARS:], checksum(key[:-CHECKSUM_CHARS]))


def hash_key(key: str) -> str:
    """Return the partition key of the key table: SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyStore:
    """Finds API keys in the key table, and remembers them.

    A key that was read counts for `cache_seconds`: that is the bound for a revocation to bite. When the table can't be
    read, it goes on counting until `grace_seconds` after it was last read. A key that is not there is remembered for
    `UNKNOWN_CACHE_SECONDS`, apart from the others, so that a flood of unknown keys pushes nobody out.
    """

    def __init__(  # noqa: PLR0913 -- each is one setting, and all are named at the only call
        self,
        client: "DynamoDBClient",
        table: str,
        *,
        cache_seconds: float,
        grace_seconds: float,
        accept_demo_keys: bool,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._table = table
        self._cache_seconds = cache_seconds
        self._grace_seconds = grace_seconds
        self._accept_demo_keys = accept_demo_keys
        self._clock = clock
        self._known: OrderedDict[str, _Cached] = OrderedDict()
        self._unknown: OrderedDict[str, _Cached] = OrderedDict()

    def find(self, key: str) -> ApiKey | None:
        """Return what is known of an API key, None for an unknown one.

        Raises `KeyStoreUnavailable` when the table can't be read and no cached key may stand in.
        """
        key_hash = hash_key(key)
        now = self._clock()
        cached = self._known.get(key_hash) or self._unknown.get(key_hash)
        if cached is not None and now < cached.fresh_until:
            return cached.api_key
        if not is_well_formed(key) or (key.startswith(DEMO_KEY_PREFIX) and not self._accept_demo_keys):
            return None
        try:
            api_key = self._read(key_hash)
        except KeyStoreUnavailable:
            if cached is None or cached.api_key is None or now >= (grace_ends := cached.read_at + self._grace_seconds):
                raise
            self._remember(key_hash, replace(cached, fresh_until=min(now + READ_AGAIN_SECONDS, grace_ends)))
            return cached.api_key
        lifetime = min(self._cache_seconds, UNKNOWN_CACHE_SECONDS) if api_key is None else self._cache_seconds
        self._remember(key_hash, _Cached(api_key=api_key, read_at=now, fresh_until=now + lifetime))
        return api_key

    def probe(self) -> None:
        """Read a key that nobody has; raises `KeyStoreUnavailable`."""
        self._read("health")

    def _read(self, key_hash: str) -> ApiKey | None:
        try:
            answer = self._client.get_item(
                TableName=self._table,
                Key={"key_hash": {"S": key_hash}},
                ConsistentRead=True,
                ReturnConsumedCapacity="TOTAL",
            )
        except STORE_ERRORS as error:
            raise KeyStoreUnavailable from error
        if "ConsumedCapacity" not in answer:
            # botocore reads a garbled answer as an empty one, which would be a false, and final, 401
            raise KeyStoreUnavailable
        return _api_key(answer["Item"]) if "Item" in answer else None

    def _remember(self, key_hash: str, entry: _Cached) -> None:
        self._known.pop(key_hash, None)
        self._unknown.pop(key_hash, None)
        cache = self._unknown if entry.api_key is None else self._known
        cache[key_hash] = entry
        if len(cache) > MAX_CACHED_KEYS:
            cache.popitem(last=False)


def _api_key(item: "dict[str, AttributeValueTypeDef]") -> ApiKey:
    expires_at = datetime.fromisoformat(item["expires_at"]["S"]) if "expires_at" in item else None
    if expires_at is not None and expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)  # as somebody wrote it by hand
    return ApiKey(
        customer_id=item["customer_id"]["S"],
        status=Status(item["status"]["S"]),
        expires_at=expires_at,
        scopes=frozenset(item["scopes"]["SS"]) if "scopes" in item else None,
    )
