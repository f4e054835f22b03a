"""Step 3b, if `AfterErasure` is `refuse`: refuse messages that happened before their user was erased.

The eraser (`consumer/erasure/subject.py`) leaves a tombstone for each user: a hash and an end time
(`docs/explanation/privacy.md`).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from handler.canonicalise import Message
from handler.errors import STORE_ERRORS, ErasureStoreUnavailable, UserErased
from handler.parallel import run_concurrently
from handler.record import escape, sha256, subject_of
from handler.spec import DELETE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

MAX_BATCH_GET_KEYS = 100
"""https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html"""

Key = dict[str, "AttributeValueTypeDef"]
Ask = Callable[[Callable[[], None]], None]


class Erasures(Protocol):
    """Knows which users were erased."""

    def refusals(self, customer_id: str, messages: Sequence[Message], ask: Ask) -> Sequence[UserErased | None]:
        """Return a `UserErased` for each message that happened before its user was erased, None for the others.

        `ask` makes a store call, with the deadline and retries of the route. Raises `ErasureStoreUnavailable`.
        """

    def probe(self) -> None:
        """Check that the store answers; raises `ErasureStoreUnavailable`."""


class NoErasures:
    """Refuses nothing: if `AfterErasure` is `store`, messages of erased users are stored again."""

    def refusals(self, _customer_id: str, messages: Sequence[Message], _ask: Ask) -> Sequence[None]:
        """Return None for each message."""
        return [None] * len(messages)

    def probe(self) -> None:
        """Do nothing: there is no store."""


class Tombstones:
    """Reads the tombstones of the erasure table. The client must treat an unconfirmed response as an error.

    A `delete` is never refused. A message without a readable time counts as new.
    """

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def refusals(self, customer_id: str, messages: Sequence[Message], ask: Ask) -> list[UserErased | None]:
        """Look up the users of all messages at once."""
        keys = [_key_of(customer_id, message) for message in messages]
        found: dict[str, Key] = {}

        def read(part: dict[str, Key]) -> None:
            ask(lambda: self._read(part, found))

        run_concurrently(read, list(_parts({_hash(key): key for key in keys if key is not None})))
        return [
            UserErased() if key is not None and _is_erased(message, found.get(_hash(key))) else None
            for key, message in zip(keys, messages, strict=True)
        ]

    def probe(self) -> None:
        """Read a tombstone that never exists."""
        self._get({"customer": {"S": "health"}, "erasure": {"S": "health"}})

    def _read(self, keys: dict[str, Key], found: dict[str, Key]) -> None:
        """Add the tombstones of some keys to `found`, and remove the keys that were read; raises if keys are left."""
        items, unread = self._get(*keys.values()) if len(keys) == 1 else self._get_batch(list(keys.values()))
        found.update({_hash(item): item for item in items})
        for name in keys.keys() - {_hash(key) for key in unread}:
            del keys[name]
        if keys:
            raise ErasureStoreUnavailable  # DynamoDB throttled these

    def _get(self, key: Key) -> tuple[list[Key], list[Key]]:
        """Read one tombstone; returns the items, and the keys that were not read."""
        try:
            answer = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        except STORE_ERRORS as error:
            raise ErasureStoreUnavailable from error
        return [answer["Item"]] if "Item" in answer else [], []

    def _get_batch(self, keys: list[Key]) -> tuple[list[Key], list[Key]]:
        """Read several tombstones; returns the items, and the keys that were not read."""
        try:
            answer = self._client.batch_get_item(
                RequestItems={self._table: {"Keys": keys, "ConsistentRead": True}}, ReturnConsumedCapacity="TOTAL"
            )
        except STORE_ERRORS as error:
            raise ErasureStoreUnavailable from error
        unread = answer["UnprocessedKeys"][self._table]["Keys"] if answer.get("UnprocessedKeys") else []
        # Some emulators report no capacity, but name the table in the response.
        if not answer.get("ConsumedCapacity") and not unread and self._table not in answer["Responses"]:
            raise ErasureStoreUnavailable
        return answer["Responses"].get(self._table, []), [dict(key) for key in unread]


def tombstone_key(customer_id: str, subject: str) -> Key:
    """Return the key of a subject's tombstone. It has a hash of the subject, so it identifies nobody."""
    return {"customer": {"S": escape(customer_id)}, "erasure": {"S": sha256(subject)}}


def _key_of(customer_id: str, message: Message) -> Key | None:
    """Return the key of the tombstone to look up for a message; None if no tombstone can refuse it."""
    subject = subject_of(customer_id, message.body)
    if subject is None or message.timestamp is None or message.type == DELETE:
        return None
    return tombstone_key(customer_id, subject)


def _is_erased(message: Message, tombstone: "Key | None") -> bool:
    return tombstone is not None and str(message.timestamp) <= tombstone["requested_at"]["S"]


def _hash(key: Key) -> str:
    return key["erasure"]["S"]


def _parts(keys: dict[str, Key]) -> Iterator[dict[str, Key]]:
    """Yield the keys in groups of the size that DynamoDB accepts."""
    rest = iter(keys.items())
    while part := dict(islice(rest, MAX_BATCH_GET_KEYS)):
        yield part
