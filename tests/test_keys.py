import tracemalloc
from datetime import UTC, datetime

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws
from strict_aws import KEEP_SESSION

from handler.errors import KeyStoreUnavailable
from handler.keys import (
    CHECKSUM_CHARS,
    KEY_PREFIX,
    MAX_CACHED_KEYS,
    MAX_KEY_CHARS,
    MAX_REFUSAL_AGE_SECONDS,
    READ_AGAIN_SECONDS,
    ApiKey,
    KeyStore,
    Status,
    checksum,
    hash_key,
    is_well_formed,
    new_key,
)

CACHE_SECONDS = 60
GRACE_SECONDS = 300

BODY = KEY_PREFIX + "7Yq2Lw9ZpTn4XbVs8RkEc3MdHg6JfA"
KEY = BODY + checksum(BODY)
FOREIGN_KEYS = ["segment", "4c1d-88", "two words", "~!@#$%^&*()", "x" * MAX_KEY_CHARS]


class Clock:
    now = 1_900_000_000.0

    def __call__(self):
        return self.now


class KeyTable:
    """Answers GetItem from memory, like a DynamoDB client, and counts the reads."""

    def __init__(self):
        self.items = {}
        self.fault = None
        self.reads = 0

    def put(self, key, status=Status.ACTIVE, **attributes):
        self.items[hash_key(key)] = {"customer_id": {"S": "acme"}, "status": {"S": status}, **attributes}

    def get_item(self, **request):
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        item = self.items.get(request["Key"]["key_hash"]["S"])
        return {"ConsumedCapacity": {}, **({"Item": item} if item else {})}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table():
    return KeyTable()


@pytest.fixture
def fault():
    return ReadTimeoutError(endpoint_url="https://dynamodb.test")


@pytest.fixture
def store(table, clock):
    return key_store(table, clock)


def key_store(client, clock, *, cache_seconds=CACHE_SECONDS, grace_seconds=GRACE_SECONDS, accept_demo_keys=False):
    return KeyStore(
        client,
        "keys",
        cache_seconds=cache_seconds,
        grace_seconds=grace_seconds,
        accept_demo_keys=accept_demo_keys,
        clock=clock,
    )


# The key itself


def test_new_keys_are_well_formed_and_distinct():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(is_well_formed(key) and len(key) == len(KEY) and key.startswith(KEY_PREFIX) for key in keys)


@pytest.mark.parametrize("place", range(len(KEY_PREFIX), len(KEY)))
def test_generated_key_with_a_wrong_character_is_not_well_formed(place):
    wrong = "x" if KEY[place] != "x" else "y"
    assert not is_well_formed(KEY[:place] + wrong + KEY[place + 1 :])


@pytest.mark.parametrize("place", range(len(KEY_PREFIX), len(KEY) - 1))
def test_generated_key_with_swapped_neighbours_is_not_well_formed(place):
    assert not is_well_formed(KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :])


@pytest.mark.parametrize("key", [KEY, *FOREIGN_KEYS])
def test_generated_and_imported_keys_are_well_formed(key):
    assert is_well_formed(key)


@pytest.mark.parametrize(
    "key",
    ["", "x" * (MAX_KEY_CHARS + 1), "a:b", "clé", "a\tb", "a\x7f", "\ud800", KEY_PREFIX, KEY[:-1], KEY + "0", BODY],
)
def test_impossible_keys_are_not_well_formed(key):
    assert not is_well_formed(key)


def test_checksum_has_a_fixed_length_of_letters_and_digits():
    checksums = [checksum(str(number)) for number in range(100)]
    assert all(len(text) == CHECKSUM_CHARS and text.isascii() and text.isalnum() for text in checksums)


def test_the_hash_is_sha_256_in_hexadecimal():
    assert hash_key("segment") == "03e71c6d7dc6bd4e89ceaf32f6488ca0aa69b0de784b706cac5818d680e9d97f"


def test_keys_of_earlier_versions_stay_well_formed():
    assert is_well_formed("ddk_7Yq2Lw9ZpTn4XbVs8RkEc3MdHg6JfA280Lfy")
    assert (MAX_REFUSAL_AGE_SECONDS, READ_AGAIN_SECONDS) == (5, 5)


# The table, as in AWS


@pytest.fixture
def dynamodb():
    with mock_aws(config=KEEP_SESSION):
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            TableName="keys",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "key_hash", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "key_hash", "KeyType": "HASH"}],
        )
        yield client


@pytest.mark.parametrize(
    ("attributes", "api_key"),
    [
        (
            {"status": {"S": "active"}},
            ApiKey(customer_id="acme", status=Status.ACTIVE),
        ),
        (
            {"status": {"S": "suspended"}, "label": {"S": "until the bill is paid"}},
            ApiKey(customer_id="acme", status=Status.SUSPENDED),
        ),
        (
            {"status": {"S": "revoked"}, "expires_at": {"S": "2031-05-17T12:00:00+00:00"}},
            ApiKey(customer_id="acme", status=Status.REVOKED, expires_at=datetime(2031, 5, 17, 12, tzinfo=UTC)),
        ),
        (
            {"status": {"S": "active"}, "scopes": {"SS": ["page", "track"]}},
            ApiKey(customer_id="acme", status=Status.ACTIVE, scopes=frozenset({"page", "track"})),
        ),
    ],
)
def test_a_key_is_found_by_its_hash(dynamodb, clock, attributes, api_key):
    item = {"key_hash": {"S": hash_key(KEY)}, "customer_id": {"S": "acme"}, **attributes}
    dynamodb.put_item(TableName="keys", Item=item)
    assert key_store(dynamodb, clock).find(KEY) == api_key


def test_a_key_that_is_not_in_the_table_is_unknown(dynamodb, clock):
    assert key_store(dynamodb, clock).find(KEY) is None


def test_keys_are_read_consistently(dynamodb, clock):
    requests = []
    dynamodb.meta.events.register(
        "provide-client-params.dynamodb.GetItem", lambda params, **_rest: requests.append(params)
    )
    key_store(dynamodb, clock).find(KEY)
    assert [request["ConsistentRead"] for request in requests] == [True]


def test_a_missing_table_is_not_an_unknown_key(dynamodb, clock):
    dynamodb.delete_table(TableName="keys")
    with pytest.raises(KeyStoreUnavailable):
        key_store(dynamodb, clock).find(KEY)


def test_damaged_item_is_our_fault_and_not_an_unknown_key(table, store):
    table.put(KEY, status="sleepy")
    with pytest.raises(ValueError, match="sleepy"):
        store.find(KEY)


# Keys that need no read


@pytest.mark.parametrize("key", ["", "clé", KEY[:-1], "x" * (MAX_KEY_CHARS + 1)])
def test_malformed_key_is_unknown_without_a_read(table, store, key):
    assert store.find(key) is None
    assert table.reads == 0


@pytest.mark.parametrize(("accept_demo_keys", "customer_id"), [(True, "acme"), (False, None)])
def test_demo_keys_work_only_if_enabled(table, clock, accept_demo_keys, customer_id):
    table.put("demo-key-acme")
    found = key_store(table, clock, accept_demo_keys=accept_demo_keys).find("demo-key-acme")
    assert (found and found.customer_id) == customer_id
    assert table.reads == accept_demo_keys


# The cache


@pytest.mark.parametrize(("seconds", "reads"), [(0, 1), (CACHE_SECONDS - 1, 1), (CACHE_SECONDS, 2)])
def test_a_known_key_is_read_again_after_the_cache_time(table, store, clock, seconds, reads):
    table.put(KEY)
    store.find(KEY)
    clock.now += seconds
    assert store.find(KEY).customer_id == "acme"
    assert table.reads == reads


@pytest.mark.parametrize(("seconds", "status"), [(CACHE_SECONDS - 1, Status.ACTIVE), (CACHE_SECONDS, Status.REVOKED)])
def test_revoked_key_is_refused_within_the_cache_time(table, store, clock, seconds, status):
    table.put(KEY)
    store.find(KEY)
    table.put(KEY, Status.REVOKED)
    clock.now += seconds
    assert store.find(KEY).status is status


# A refusal is final, so it never rests on an old state


PAST, FUTURE = {"S": "2030-03-17T17:46:39+00:00"}, {"S": "2030-03-17T17:47:40+00:00"}
"""One second before the clock of these tests, and one minute after it."""
REFUSED = {
    "unknown": None,
    "suspended": {"status": Status.SUSPENDED},
    "revoked": {"status": Status.REVOKED},
    "expired": {"expires_at": PAST},
}


@pytest.fixture(params=REFUSED.values(), ids=REFUSED)
def refusing(request, table):
    """Return a table with a key in a refused state."""
    if request.param is not None:
        table.put(KEY, **request.param)
    return table


def is_refused(store, clock):
    api_key = store.find(KEY)
    return api_key is None or not api_key.is_live(clock.now)


@pytest.mark.parametrize(
    ("seconds", "reads"), [(0, 1), (MAX_REFUSAL_AGE_SECONDS - 0.1, 1), (MAX_REFUSAL_AGE_SECONDS, 2)]
)
def test_refused_key_is_read_again_after_five_seconds(refusing, store, clock, seconds, reads):
    assert is_refused(store, clock)
    clock.now += seconds
    assert is_refused(store, clock)
    assert refusing.reads == reads


def test_refused_key_works_five_seconds_after_it_became_live(refusing, store, clock):
    store.find(KEY)
    refusing.put(KEY)
    clock.now += MAX_REFUSAL_AGE_SECONDS
    assert not is_refused(store, clock)


@pytest.mark.parametrize("seconds", [MAX_REFUSAL_AGE_SECONDS, CACHE_SECONDS, GRACE_SECONDS - 1])
def test_refused_key_is_not_refused_while_the_table_cannot_be_read(refusing, store, clock, fault, seconds):
    store.find(KEY)
    refusing.fault = fault
    clock.now += seconds
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)


def test_key_that_expires_while_it_is_cached_is_read_again(table, store, clock):
    table.put(KEY, expires_at=FUTURE)
    store.find(KEY)
    table.put(KEY)
    clock.now += CACHE_SECONDS - 0.1
    assert not is_refused(store, clock)
    assert table.reads == 1
    table.put(KEY, expires_at=FUTURE)
    clock.now += 0.1
    store.find(KEY)
    clock.now += MAX_REFUSAL_AGE_SECONDS
    table.put(KEY)
    assert not is_refused(store, clock)


def test_key_that_expires_in_the_grace_time_is_not_refused(table, store, clock, fault):
    table.put(KEY, expires_at=FUTURE)
    store.find(KEY)
    table.fault = fault
    clock.now += CACHE_SECONDS - 1
    assert not is_refused(store, clock)
    clock.now += 1
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)


def test_refusal_read_in_the_future_is_not_trusted(refusing, store, clock):
    store.find(KEY)
    refusing.put(KEY)
    clock.now -= 3600
    assert not is_refused(store, clock)


def test_key_read_in_the_future_is_not_used_in_an_outage(table, store, clock, fault):
    table.put(KEY)
    store.find(KEY)
    table.fault = fault
    clock.now -= 3600
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)


@pytest.mark.parametrize(
    ("seconds", "reads"), [(0, 1), (MAX_REFUSAL_AGE_SECONDS - 0.1, 1), (MAX_REFUSAL_AGE_SECONDS, 2)]
)
def test_key_is_confirmed_by_a_read_of_the_last_five_seconds(table, store, clock, seconds, reads):
    table.put(KEY)
    api_key = store.find(KEY)
    clock.now += seconds
    assert store.confirm(api_key).customer_id == "acme"
    assert table.reads == reads


def test_confirmed_state_replaces_the_cached_one(table, store, clock):
    table.put(KEY)
    api_key = store.find(KEY)
    clock.now += MAX_REFUSAL_AGE_SECONDS
    table.items.clear()
    assert store.confirm(api_key) is None
    assert store.find(KEY) is None
    assert table.reads == 2


def test_key_is_not_confirmed_while_the_table_cannot_be_read(table, store, clock, fault):
    table.put(KEY)
    api_key = store.find(KEY)
    table.fault = fault
    clock.now += MAX_REFUSAL_AGE_SECONDS
    with pytest.raises(KeyStoreUnavailable):
        store.confirm(api_key)


@pytest.mark.parametrize(("seconds", "found"), [(MAX_REFUSAL_AGE_SECONDS - 1, False), (MAX_REFUSAL_AGE_SECONDS, True)])
def test_a_new_key_works_as_soon_as_its_absence_is_forgotten(table, store, clock, seconds, found):
    store.find(KEY)
    table.put(KEY)
    clock.now += seconds
    assert (store.find(KEY) is not None) is found


def test_a_deleted_key_becomes_unknown(table, store, clock):
    table.put(KEY)
    store.find(KEY)
    table.items.clear()
    clock.now += CACHE_SECONDS
    assert store.find(KEY) is None


@pytest.mark.parametrize("is_known", [True, False])
def test_a_cache_time_of_zero_reads_every_time(table, clock, is_known):
    if is_known:
        table.put(KEY)
    store = key_store(table, clock, cache_seconds=0)
    for reads in (1, 2, 3):
        store.find(KEY)
        assert table.reads == reads


def test_flood_of_unknown_keys_evicts_no_known_key(table, store):
    table.put(KEY)
    for key in (KEY, *(f"unknown-{number}" for number in range(MAX_CACHED_KEYS + 1))):
        store.find(key)
    assert is_remembered(KEY, table, store)
    assert is_remembered("unknown-1", table, store)
    assert not is_remembered("unknown-0", table, store)


def test_flood_of_unknown_keys_needs_at_most_ten_megabytes(table, store):
    keys = [f"unknown-{number}" for number in range(2 * MAX_CACHED_KEYS)]
    tracemalloc.start()
    for key in keys:
        store.find(key)
    taken, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 10_000_000
    assert table.reads == len(keys)


def test_cache_of_known_keys_is_bounded(table, store):
    for key in (f"known-{number}" for number in range(MAX_CACHED_KEYS + 1)):
        table.put(key)
        store.find(key)
    assert is_remembered("known-1", table, store)
    assert not is_remembered("known-0", table, store)


def is_remembered(key, table, store):
    reads = table.reads
    store.find(key)
    return table.reads == reads


# The grace time


@pytest.mark.parametrize("seconds", [CACHE_SECONDS, GRACE_SECONDS - 1])
def test_cached_key_works_in_the_grace_time_of_an_outage(table, store, clock, fault, seconds):
    table.put(KEY)
    store.find(KEY)
    table.fault = fault
    clock.now += seconds
    assert store.find(KEY).customer_id == "acme"


@pytest.mark.parametrize("seconds", [GRACE_SECONDS, GRACE_SECONDS + 1])
def test_cached_key_does_not_work_after_the_grace_time(table, store, clock, fault, seconds):
    table.put(KEY)
    store.find(KEY)
    table.fault = fault
    clock.now += seconds
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)


def test_failed_reads_do_not_lengthen_the_grace_time(table, store, clock, fault):
    table.put(KEY)
    store.find(KEY)
    table.fault = fault
    clock.now += GRACE_SECONDS - 1
    store.find(KEY)
    clock.now += 1
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)


@pytest.mark.parametrize(("seconds", "reads"), [(READ_AGAIN_SECONDS - 1, 2), (READ_AGAIN_SECONDS, 3)])
def test_table_is_not_read_for_a_while_after_a_failed_read(table, clock, fault, seconds, reads):
    store = key_store(table, clock)
    table.put(KEY)
    store.find(KEY)
    table.fault = fault
    clock.now += CACHE_SECONDS
    store.find(KEY)
    clock.now += seconds
    store.find(KEY)
    assert table.reads == reads


def test_revoked_key_is_refused_once_the_table_is_readable(table, store, clock, fault):
    table.put(KEY)
    store.find(KEY)
    table.put(KEY, Status.REVOKED)
    table.fault = fault
    clock.now += CACHE_SECONDS
    store.find(KEY)
    table.fault = None
    clock.now += READ_AGAIN_SECONDS
    assert store.find(KEY).status is Status.REVOKED


def test_deleted_key_stays_unknown_in_an_outage(table, store, clock, fault):
    table.put(KEY)
    store.find(KEY)
    table.items.clear()
    clock.now += CACHE_SECONDS
    store.find(KEY)
    table.fault = fault
    clock.now += MAX_REFUSAL_AGE_SECONDS
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)


@pytest.mark.parametrize("was_read_before", [True, False])
def test_unknown_key_gets_no_final_answer_in_an_outage(table, store, clock, fault, was_read_before):
    if was_read_before:
        store.find(KEY)
        clock.now += MAX_REFUSAL_AGE_SECONDS
    table.fault = fault
    with pytest.raises(KeyStoreUnavailable):
        store.find(KEY)
