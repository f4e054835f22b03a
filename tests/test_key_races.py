"""Test two commands that change one key concurrently: the second runs between the read and a write of the first."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product

import boto3
import pytest
from local_server import run
from searches import some

from destination.deployment.key_table import KeyRecord, KeyTable
from handler.keys import Status, new_key

KEY = new_key()
CUSTOMER = "acme"
RECORD = KeyRecord.of(KEY, customer_id=CUSTOMER, label="web shop", expires_at=datetime(2099, 1, 2, tzinfo=UTC))


def exported(status):
    return json.dumps(replace(RECORD, status=status).exported())


COMMANDS = {
    "revoke": ("revoke", RECORD.key_id, "--yes"),
    "suspend": ("suspend", RECORD.key_id),
    "resume": ("resume", RECORD.key_id),
    "rotate": ("rotate", RECORD.key_id, "--overlap", "7d"),
    "rotate at once": ("rotate", RECORD.key_id, "--overlap", "0h"),
    **{f"import {status}": ("import", "-", "--replace") for status in Status},
}
STARTS = [Status.ACTIVE, Status.SUSPENDED]


def writes(outer):
    """Return the numbers of the writes that a command can be interrupted before."""
    return range(2 if outer.startswith(("rotate", "import")) else 1)


def races(*outers):
    """Return each of these commands with each write that it can be interrupted before."""
    return [(outer, write) for outer in outers for write in writes(outer)]


def each_race(*outers):
    """Interrupt each of these commands before each of its writes."""
    return pytest.mark.parametrize(("outer", "write"), races(*outers))


class Race:
    """A key table in which a command interrupts another one before a write."""

    def __init__(self, aws, table_name):
        self.table = KeyTable(aws.dynamodb(), table_name)
        self.name = table_name
        self.results = {}

    def start(self, status):
        self.table.put(replace(RECORD, status=status))

    def run(self, name):
        stdin = exported(name.removeprefix("import ")) if name.startswith("import") else None
        return run("keys", *COMMANDS[name], "--table", self.name, stdin=stdin)

    def interrupt(self, outer, act, *, write=0):
        """Run a command, and another action before one of its writes. Return both results."""
        writes, returned = itertools.count(), []

        def hook(**_):
            if next(writes) == write:
                returned.append(act())

        events = [f"before-call.dynamodb.{name}" for name in ("PutItem", "UpdateItem")]
        for event in events:
            boto3.DEFAULT_SESSION.events.register_first(event, hook)
        result = self.run(outer)
        for event in events:
            boto3.DEFAULT_SESSION.events.unregister(event, hook)
        return result, returned

    def race(self, outer, inner, *, write):
        """Run a command, and another one before one of its writes.

        Return whether that write exists and the other succeeded.
        """
        _result, returned = self.interrupt(outer, lambda: self.run(inner), write=write)
        return [result.exit_code for result in returned] == [0]

    @property
    def record(self):
        return self.table.find(RECORD.key_hash)

    @property
    def others(self):
        return [record for record in self.table if record.key_hash != RECORD.key_hash]


@pytest.fixture
def race(shared_account, prepare):
    create_table = partial(
        shared_account.dynamodb().create_table,
        TableName="keys",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "key_hash", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "key_hash", "KeyType": "HASH"}],
    )
    prepare("key races", create_table)
    return Race(shared_account, "keys")


each_start = pytest.mark.parametrize("start", STARTS)


@pytest.mark.many_examples
@pytest.mark.parametrize(
    ("start", "revoking", "interrupted"),
    some(list(product(STARTS, ["revoke", "import revoked"], races(*COMMANDS)))),
    ids=str,
)
def test_key_that_is_revoked_meanwhile_stays_revoked(race, start, revoking, interrupted):
    outer, write = interrupted
    race.start(start)
    happened = race.race(outer, revoking, write=write)
    if happened or "revoke" in outer:
        assert race.record.status == Status.REVOKED
        assert {record.status for record in race.others} <= {Status.REVOKED}


@pytest.mark.many_examples
@pytest.mark.parametrize(
    ("inner", "start", "interrupted"), some(list(product(COMMANDS, STARTS, races("revoke", "import revoked")))), ids=str
)
def test_revocation_wins_whatever_changes_meanwhile(race, inner, start, interrupted):
    outer, write = interrupted
    race.start(start)
    race.race(outer, inner, write=write)
    assert race.record.status == Status.REVOKED


@each_race("rotate", "rotate at once")
@pytest.mark.parametrize("inner", ["suspend", "import suspended"])
def test_rotation_never_bypasses_a_suspension(race, outer, inner, write):
    race.start(Status.ACTIVE)
    if race.race(outer, inner, write=write):
        assert race.record.status == Status.SUSPENDED
        assert Status.ACTIVE not in {record.status for record in race.others}


@each_race("suspend", "resume", "revoke", "rotate")
@each_start
def test_key_that_ends_meanwhile_does_not_live_longer(race, start, outer, write):
    race.start(start)
    if race.race(outer, "rotate at once", write=write):
        assert race.record.expires_at <= datetime.now(UTC) + timedelta(seconds=1)


@each_race("suspend", "resume", "revoke")
@each_start
def test_change_of_status_keeps_fields_changed_meanwhile(race, start, outer, write):
    race.start(start)
    race.table.put(replace(RECORD, status=start, label="old", expires_at=None))
    if race.race(outer, f"import {start}", write=write):
        assert (race.record.label, race.record.expires_at) == (RECORD.label, RECORD.expires_at)


@pytest.mark.parametrize(
    ("outer", "write", "exit_code"),
    [
        ("revoke", 0, 1),
        ("suspend", 0, 1),
        ("resume", 0, 1),
        ("rotate", 0, 1),
        ("rotate", 1, 1),
        ("import active", 1, 0),
    ],
)
def test_key_deleted_meanwhile_stays_deleted(race, aws, outer, write, exit_code):
    race.start(Status.ACTIVE)
    key = {"key_hash": {"S": RECORD.key_hash}}
    result, returned = race.interrupt(
        outer, lambda: aws.dynamodb().delete_item(TableName=race.name, Key=key), write=write
    )
    assert len(returned) == 1
    assert {record.status for record in race.table} <= {Status.REVOKED}
    assert RECORD.key_hash not in {record.key_hash for record in race.table}
    assert result.exit_code == exit_code


def test_late_rotation_is_an_error(race):
    race.start(Status.ACTIVE)
    result, _ = race.interrupt("rotate", lambda: race.run("suspend"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Somebody else changed this key at the same time" in result.stderr
    assert race.run("rotate").exit_code == 0


@pytest.mark.parametrize("written", ["2031-01-02", "2031-01-02T00:00:00Z", "2031-01-02T02:00:00+02:00"])
def test_end_that_was_written_by_hand_is_kept_or_moved(race, aws, written):
    item = {**RECORD.to_item(), "expires_at": {"S": written}}
    aws.dynamodb().put_item(TableName=race.name, Item=item)
    assert race.record.expires_at == datetime(2031, 1, 2, tzinfo=UTC)
    assert run("keys", "list", "--table", race.name).exit_code == 0
    assert race.run("rotate").exit_code == 0
    assert race.record.expires_at < datetime.now(UTC) + timedelta(days=8)
