"""Look up API keys: SHA-256 of the key -> the customer that owns it, with a cache.

A key that we create is `ddk_`, 30 random characters (178 bits) and a checksum of 6 characters, all of them letters and
digits. So a mistyped key is refused without a read. Keys that a partner issued earlier may be any printable ASCII
without a colon. The key itself is never stored. A fast hash is enough, because keys are long and random.
"""

import hashlib
import hmac
import secrets
import string
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from handler.errors import STORE_ERRORS, KeyStoreUnavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

KEY_PREFIX = "ddk_"
DEMO_KEY_PREFIX = "demo-key-"
"""Keys with this prefix are published in `events/`: they work only on a local server."""

RANDOM_CHARS = 30
CHECKSUM_CHARS = 6
MAX_KEY_CHARS = 256

MAX_REFUSAL_AGE_SECONDS = 5
"""A 401 or 403 is final, so it never rests on a read of the key that is older than this.

It is not 0: a function environment reads the table for a bad key at most once in this time.
"""
MAX_CACHED_KEYS = 10_000
"""Each takes about 1 KB, so the cache takes at most 10 MB."""
LOGGED_HASH_CHARS = 4
"""Length of the start of a key's hash in request lines: enough to distinguish the few keys of a customer.

65,536 values are too few to confirm a guessed key, which matters for the short keys of some partners.
"""
READ_AGAIN_SECONDS = 5
"""After a failed read, a cached key is served for this time before the table is read again."""

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY_CHARS = frozenset(map(chr, range(0x20, 0x7F))) - {":"}


class Status(StrEnum):
    """The partner's decision about a key. Expiry is not a status: it follows from `expires_at`."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """The stored facts of a key. `scopes` are call types, None for all; `expires_at` has a time zone."""

    customer_id: str
    status: Status
    expires_at: datetime | None = None
    scopes: frozenset[str] | None = None
    key_hash: str = field(default="", compare=False)

    @property
    def logged_hash(self) -> str:
        """Return the start of the hash, which distinguishes the keys of a customer in request lines."""
        return self.key_hash[:LOGGED_HASH_CHARS]

    def has_expired(self, now: float) -> bool:
        """Return whether the key has expired; `now` is in seconds since 1970."""
        return self.expires_at is not None and self.expires_at <= datetime.fromtimestamp(now, UTC)

    def is_live(self, now: float) -> bool:
        """Return whether the key is active and has not expired; its scopes are checked elsewhere."""
        return self.status is Status.ACTIVE and not self.has_expired(now)


@dataclass(frozen=True, kw_only=True)
class _Cached:
    api_key: ApiKey | None
    read_at: float
    fresh_until: float

    def can_serve(self, now: float) -> bool:
        """Return whether the entry is fresh enough to use: a live key until `fresh_until`, others if `can_refuse`."""
        is_live = self.api_key is not None and self.api_key.is_live(now)
        return self.read_at <= now < self.fresh_until and (is_live or self.can_refuse(now))

    def can_refuse(self, now: float) -> bool:
        """Return whether the entry is fresh enough for a final refusal. A read in the future has no known age."""
        return self.read_at <= now < self.read_at + MAX_REFUSAL_AGE_SECONDS


def new_key() -> str:
    """Create an API key; it is shown once and never stored."""
    body = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARS))
    return body + checksum(body)


def checksum(body: str) -> str:
    """Return the CRC-32 of a key's first part in base 62. It detects typing errors and is not a proof."""
    rest = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def is_well_formed(key: str) -> bool:
    """Return whether a text can be an API key at all: if not, it is unknown without a read."""
    if not 0 < len(key) <= MAX_KEY_CHARS or not _KEY_CHARS.issuperset(key):
        return False
    if not key.startswith(KEY_PREFIX):
        return True
    return hmac.compare_digest(key[-CHECKSUM_CHARS:], checksum(key[:-CHECKSUM_CHARS]))


def hash_key(key: str) -> str:
    """Return the partition key of the key table: SHA-256 in hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class KeyStore:
    """Finds API keys in the key table, and caches them.

    The client must treat an unconfirmed response as an error: an empty response would cause a wrong, and final, 401.

    A cached live key is used for `cache_seconds`, which is the upper bound for a revocation to take effect. While the
    table can't be read, the key is used until `grace_seconds` after the last read. A cached key that is unknown,
    revoked, suspended or expired is used for `MAX_REFUSAL_AGE_SECONDS` only. Unknown keys have a cache of their own, so
    that a flood of them evicts no known key.
    """

    def __init__(  # noqa: PLR0913 -- each parameter is one setting, named at the only call
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
        """Return the stored facts of an API key, None for an unknown key.

        A key that is unknown or not live was read within `MAX_REFUSAL_AGE_SECONDS`. Raises `KeyStoreUnavailable` if the
        table can't be read and no cached key can be used.
        """
        key_hash = hash_key(key)
        now = self._clock()
        cached = self._cached(key_hash)
        if cached is not None and cached.can_serve(now):
            return cached.api_key
        if not is_well_formed(key) or (key.startswith(DEMO_KEY_PREFIX) and not self._accept_demo_keys):
            return None
        try:
            return self._refresh(key_hash, now)
        except KeyStoreUnavailable:
            if cached is None or cached.api_key is None or not cached.api_key.is_live(now):
                raise
            grace_ends = cached.read_at + self._grace_seconds
            if not cached.read_at <= now < grace_ends:
                raise
            self._remember(key_hash, replace(cached, fresh_until=min(now + READ_AGAIN_SECONDS, grace_ends)))
            return cached.api_key

    def confirm(self, api_key: ApiKey) -> ApiKey | None:
        """Return the facts of a found key, read within `MAX_REFUSAL_AGE_SECONDS`. Call it before a final refusal.

        Raises `KeyStoreUnavailable` if the table can't be read.
        """
        now = self._clock()
        cached = self._cached(api_key.key_hash)
        if cached is not None and cached.can_refuse(now):
            return cached.api_key
        return self._refresh(api_key.key_hash, now)

    def probe(self) -> None:
        """Read a key that never exists; raises `KeyStoreUnavailable`."""
        self._read("health")

    def _read(self, key_hash: str) -> ApiKey | None:
        try:
            answer = self._client.get_item(
                TableName=self._table,
                Key={"key_hash": {"S": key_hash}},
                ConsistentRead=True,
            )
        except STORE_ERRORS as error:
            raise KeyStoreUnavailable from error
        return _api_key(key_hash, answer["Item"]) if "Item" in answer else None

    def _refresh(self, key_hash: str, now: float) -> ApiKey | None:
        api_key = self._read(key_hash)
        self._remember(key_hash, _Cached(api_key=api_key, read_at=now, fresh_until=now + self._cache_seconds))
        return api_key

    def _cached(self, key_hash: str) -> _Cached | None:
        return self._known.get(key_hash) or self._unknown.get(key_hash)

    def _remember(self, key_hash: str, entry: _Cached) -> None:
        self._known.pop(key_hash, None)
        self._unknown.pop(key_hash, None)
        cache = self._unknown if entry.api_key is None else self._known
        cache[key_hash] = entry
        if len(cache) > MAX_CACHED_KEYS:
            cache.popitem(last=False)


def _api_key(key_hash: str, item: "dict[str, AttributeValueTypeDef]") -> ApiKey:
    expires_at = datetime.fromisoformat(item["expires_at"]["S"]) if "expires_at" in item else None
    if expires_at is not None and expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)  # an item that was written by hand may have no time zone
    return ApiKey(
        customer_id=item["customer_id"]["S"],
        status=Status(item["status"]["S"]),
        expires_at=expires_at,
        scopes=frozenset(item["scopes"]["SS"]) if "scopes" in item else None,
        key_hash=key_hash,
    )
