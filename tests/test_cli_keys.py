"""Test `destination keys`, and requests with these keys."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from local_server import run

from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import create_local_stack
from handler.keys import Status, hash_key, new_key

pytest_plugins = ["servers"]

TRACK = {"type": "track", "userId": "key-tester", "event": "Key Tried"}


@pytest.fixture
def customer():
    """Return a customer that no other test uses."""
    return f"customer-{uuid.uuid4()}"


@pytest.fixture
def make_key(server, customer):
    """Create a key for that customer, and return its record."""

    def make_key(*options):
        return server.json("keys", "create", "--customer", customer, *options)

    return make_key


@pytest.fixture
def answer(server):
    """Return the answer to a request with a key."""

    def answer(key, message=TRACK):
        reply = server.post(message, key=key)
        return (reply.status, reply.body.get("code"))

    return answer


ACCEPTED = (200, None)


def test_a_key_is_shown_once_and_works(server, customer, answer):
    made = server.run("keys", "create", "--customer", customer)
    key = made.stdout.splitlines()[0].removeprefix("API key: ")
    assert "it is not stored and can't be shown again" in made.stderr
    assert answer(key) == ACCEPTED
    shown = server.run("keys", "show", hash_key(key)).stdout
    assert f"customer id: {customer}" in shown
    assert key not in shown + server.run("keys", "list").stdout


def test_key_has_its_given_attributes(make_key, server, customer):
    made = make_key("--label", "web shop", "--scope", "track", "--scope", "page", "--expires", "2031-01-31")
    key = made.pop("api_key")
    created = datetime.fromisoformat(made["created_at"])
    assert datetime.now(UTC) - created < timedelta(minutes=5)
    assert made == {
        "id": hash_key(key)[:12],
        "customer_id": customer,
        "status": "active",
        "last_four": key[-4:],
        "label": "web shop",
        "scopes": ["page", "track"],
        "created_at": made["created_at"],
        "expires_at": "2031-01-31T00:00:00+00:00",
    }
    assert server.json("keys", "show", made["id"]).items() >= made.items()
    assert server.json("keys", "list", "--customer", customer) == [made]


def last_use(server, key_id, *options):
    shown = server.json("keys", "show", key_id, *options)
    return shown["last_used_at"], shown["last_answer"]


def test_last_use_is_shown_for_each_key_of_a_customer(make_key, server, answer):
    used, unused = make_key(), make_key()
    assert answer(used["api_key"]) == ACCEPTED
    used_at, status = last_use(server, used["id"])
    assert (status, datetime.now(UTC) - datetime.fromisoformat(used_at) < timedelta(minutes=5)) == (200, True)
    assert last_use(server, unused["id"]) == (None, None)
    assert "last used: not in the last 7 days\n" in server.run("keys", "show", unused["id"]).stdout


def test_a_refused_request_is_a_use_of_its_key(make_key, server, answer):
    made = make_key("--expires", "0h")
    assert answer(made["api_key"]) == (401, "expired_key")
    assert last_use(server, made["id"])[1] == 401
    assert ", answered 401\n" in server.run("keys", "show", made["id"]).stdout


def test_table_without_a_log_shows_no_last_use(aws):
    stack = create_local_stack(aws, {})
    KeyTable(aws.dynamodb(), stack.stores.key_table).put(KeyRecord.of("a", customer_id="acme"))
    named = (hash_key("a"), "--table", stack.stores.key_table)
    assert "last used: (unknown: a table has no log)\n" in run("keys", "show", *named).stdout
    shown = json.loads(run("keys", "show", *named, "--json").stdout)
    assert [value for name, value in shown.items() if name.startswith("last_use")] == [None, None]


@pytest.mark.parametrize(("written", "span"), [("90d", timedelta(days=90)), ("12h", timedelta(hours=12))])
def test_expiry_may_be_a_duration(make_key, written, span):
    expires_at = datetime.fromisoformat(make_key("--expires", written)["expires_at"])
    assert timedelta() <= datetime.now(UTC) + span - expires_at < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2031-01-31", "2031-01-31T00:00:00+00:00"),
        ("2031-01-31T12:00:00Z", "2031-01-31T12:00:00+00:00"),
        ("2031-01-31 12:00+02:00", "2031-01-31T12:00:00+02:00"),
    ],
)
def test_expiry_may_be_a_time(make_key, written, meant):
    assert make_key("--expires", written)["expires_at"] == meant


def test_expired_key_is_refused(make_key, answer, server, customer):
    assert answer(make_key("--expires", "0h")["api_key"]) == (401, "expired_key")
    assert "expired" in server.run("keys", "list", "--customer", customer).stdout


def test_a_scope_limits_a_key(make_key, answer):
    key = make_key("--scope", "identify")["api_key"]
    assert answer(key) == (403, "call_type_not_allowed")
    assert answer(key, {"type": "identify", "userId": "key-tester"}) == ACCEPTED


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--customer", "acme", "--expires", "soon"],
            "soon is not a time: write 90d, 12h, 2027-01-31 or 2027-01-31T12:0",
        ),
        (["--customer", "acme", "--expires", "2027-13-01"], "2027-13-01 is not a time"),
        (["--customer", "acme", "--expires", "1796123100000"], "1796123100000 is not a time"),
        (["--customer", "acme", "--scope", "sing"], "'sing' is not one of 'identify', 'track'"),
        (["--customer", " "], "a customer id is 1 to 256 printable characters"),
        (["--customer", "a\nb"], "a customer id is 1 to 256 printable characters"),
        (["--customer", "x" * 257], "a customer id is 1 to 256 printable characters"),
        ([], "Missing option '--customer'"),
    ],
)
def test_invalid_key_options_are_refused(server, options, sentence):
    result = server.run("keys", "create", *options)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_list_has_one_line_per_key(make_key, server, customer):
    made = make_key("--label", "[/b] shop", "--scope", "track")
    everything = make_key()
    [head, *lines] = server.run("keys", "list", "--customer", customer).stdout.splitlines()
    assert " ".join(head.split()) == "ID Customer Status Ends in Label May send Created Expires"
    assert sorted(line.split()[0] for line in lines) == sorted([made["id"], everything["id"]])
    [line] = [line for line in lines if made["id"] in line]
    assert f"active\t…{made['last_four']}" in line
    assert "[/b] shop" in line
    assert "everything" not in line


def test_revoked_key_stays_refused(make_key, answer, server):
    made = make_key()
    assert server.json("keys", "revoke", made["id"], "--yes")["status"] == "revoked"
    assert answer(made["api_key"]) == (401, "revoked_key")
    for command in ("resume", "suspend"):
        refused = server.run("keys", command, made["id"])
        assert (refused.exit_code, refused.stderr) == (
            1,
            "Error: This key is revoked permanently: create a new one\n",
        )
    assert answer(made["api_key"]) == (401, "revoked_key")
    assert server.run("keys", "revoke", made["id"], "--yes").exit_code == 0


@pytest.mark.parametrize(("typed", "status"), [("n\n", "active"), ("", "active"), ("y\n", "revoked")])
def test_revoke_asks_for_confirmation(typed, status, make_key, server):
    made = make_key()
    result = server.run("keys", "revoke", made["id"], stdin=typed)
    assert f"Revoke …{made['last_four']} of {made['customer_id']}? This can't be undone." in result.stderr
    assert result.exit_code == (0 if status == "revoked" else 1)
    assert server.json("keys", "show", made["id"])["status"] == status


def test_rotation_shows_when_the_old_key_ends(make_key, server):
    old = make_key()
    told = server.run("keys", "rotate", old["id"], "--overlap", "48h").stderr
    end = datetime.fromisoformat(server.json("keys", "show", old["id"])["expires_at"])
    assert f"The old key, …{old['last_four']}, ends at {end:%Y-%m-%d %H:%M} UTC." in told
    assert f"destination keys revoke {old['id']} --url {server.url}\n" in told
    assert f"To see when it was last used, run: destination keys show {old['id']} --url {server.url}\n" in told


def test_suspended_key_is_refused_until_resumed(make_key, answer, server):
    made = make_key()
    assert "status: suspended" in server.run("keys", "suspend", made["id"]).stdout
    assert answer(made["api_key"]) == (403, "suspended_key")
    resumed = server.run("keys", "resume", made["id"])
    assert "status: active" in resumed.stdout
    assert resumed.stderr == "Functions that refuse the key now may do so for 5 seconds.\n"
    assert answer(made["api_key"]) == ACCEPTED


def test_rotated_key_keeps_working_for_the_overlap(make_key, answer, server):
    old = make_key("--label", "web shop", "--scope", "track")
    new = server.json("keys", "rotate", old["id"], "--overlap", "48h")
    assert answer(old["api_key"]) == answer(new["api_key"]) == ACCEPTED
    assert {name: new[name] for name in ("customer_id", "label", "scopes", "expires_at")} == {
        "customer_id": old["customer_id"],
        "label": "web shop",
        "scopes": ["track"],
        "expires_at": None,
    }
    ends_at = datetime.fromisoformat(server.json("keys", "show", old["id"])["expires_at"])
    assert timedelta() <= datetime.now(UTC) + timedelta(hours=48) - ends_at < timedelta(minutes=5)


def test_key_rotated_without_overlap_stops_at_once(make_key, answer, server):
    old = make_key()
    new = server.json("keys", "rotate", old["id"], "--overlap", "0h")
    assert answer(old["api_key"]) == (401, "expired_key")
    assert answer(new["api_key"]) == ACCEPTED


def test_rotation_never_extends_the_old_key(make_key, server):
    old = make_key("--expires", "1h")
    server.json("keys", "rotate", old["id"], "--overlap", "30d")
    assert server.json("keys", "show", old["id"])["expires_at"] == old["expires_at"]


def test_a_revoked_key_is_not_rotated(make_key, server):
    old = make_key()
    server.json("keys", "revoke", old["id"], "--yes")
    result = server.run("keys", "rotate", old["id"])
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: This key is revoked: create a new one with `destination keys create`\n",
    )


def test_unknown_id_is_an_error(server):
    result = server.run("keys", "revoke", "000000000000")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: No key has the id 000000000000: `destination keys list` shows all keys\n",
    )


def test_ambiguous_id_changes_nothing(aws):
    stack = create_local_stack(aws, {})
    table = KeyTable(aws.dynamodb(), stack.stores.key_table)
    for key_hash in ("abc1", "abc2"):
        table.put(KeyRecord(key_hash=key_hash, last_four="0000", customer_id="acme"))
    result = run("keys", "revoke", "abc", "--table", stack.stores.key_table)
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: Several keys have an id that starts with abc: give more characters\n",
    )
    assert {record.status for record in table} == {Status.ACTIVE}


def test_key_item_may_lack_informative_attributes(server, customer):
    item = {"key_hash": {"S": hash_key(customer)}, "customer_id": {"S": customer}, "status": {"S": "active"}}
    server.account.dynamodb().put_item(TableName=server.stores.key_table, Item=item)
    [listed] = server.json("keys", "list", "--customer", customer)
    assert (listed["created_at"], listed["last_four"]) == (None, "")
    assert "suspended" in server.run("keys", "suspend", listed["id"]).stdout
    assert customer in server.run("keys", "list").stdout


def test_unknown_status_is_shown_and_can_be_repaired(server, customer):
    item = {"key_hash": {"S": hash_key(customer)}, "customer_id": {"S": customer}, "status": {"S": "Actve"}}
    server.account.dynamodb().put_item(TableName=server.stores.key_table, Item=item)
    [listed] = server.json("keys", "list", "--customer", customer)
    assert listed["status"] == "Actve"
    assert "Actve" in server.run("keys", "list").stdout
    assert server.json("keys", "resume", listed["id"])["status"] == "active"


# import


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # with the byte order mark that Excel writes
def test_existing_keys_can_be_imported(server, customer, answer, tmp_path, encoding):
    ours, theirs = new_key(), f"key-{encoding} of {customer}"
    file = tmp_path / "keys.csv"
    file.write_text(f'{customer},{ours}\n\n"{customer}", {theirs} ,"web, Größe 2"\n', encoding=encoding)
    assert server.run("keys", "import", str(file)).stdout == "Imported 2 keys; 0 existed already.\n"
    assert answer(ours) == answer(theirs) == ACCEPTED
    listed = server.json("keys", "list", "--customer", customer)
    assert {record["label"] for record in listed} == {None, "web, Größe 2"}


def test_keys_can_be_imported_from_standard_input(server, customer, answer):
    key = new_key()
    result = server.json("keys", "import", "-", stdin=f"{customer},{key}\n")
    assert result == {"imported": 1, "replaced": 0, "already_there": 0, "of_another_customer": 0}
    assert answer(key) == ACCEPTED


def test_import_does_not_change_existing_keys(server, make_key, answer, customer):
    made = make_key()
    server.json("keys", "revoke", made["id"], "--yes")
    result = server.json("keys", "import", "-", stdin=f"{customer},{made['api_key']}\n")
    assert result == {"imported": 0, "replaced": 0, "already_there": 1, "of_another_customer": 0}
    assert answer(made["api_key"]) == (401, "revoked_key")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("acme", "Line 2 is not `customer,key` or `customer,key,label`"),
        ("acme,", "Line 2 is not `customer,key` or `customer,key,label`"),
        ("acme,some-key,label,more", "Line 2 is not `customer,key` or `customer,key,label`"),
        (",some-key", "Line 2: a customer id is 1 to 256 printable characters"),
        ("acme,demo-key-good", "Line 2: keys that start with demo-key- are for local servers only"),
        ("acme,some:key", "Line 2: a key must be 8 to 256 printable ASCII characters without a colon"),
        ("acme,schlüssel", "Line 2: a key must be 8 to 256 printable ASCII characters without a colon"),
        (f"acme,ddk_{'a' * 35}", "one that starts with ddk_ must be complete"),
        (b"acme,schl\xfcssel", "This is not CSV in UTF-8"),
        ("acme," + 200_000 * "x", "This is not CSV in UTF-8"),
    ],
)
def test_bad_line_stops_the_whole_import(server, customer, line, sentence):
    line = line if isinstance(line, bytes) else line.encode()
    result = server.run("keys", "import", "-", stdin=b"%s,%s\n%s\n" % (customer.encode(), new_key().encode(), line))
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert server.json("keys", "list", "--customer", customer) == []


def test_header_line_is_refused(server, customer):
    result = server.run("keys", "import", "-", stdin=f"customer,api_key\n{customer},{new_key()}\n")
    assert result.exit_code == 1
    assert "The file must not have a header line" in result.stderr


def test_key_of_another_customer_is_reported_and_not_changed(server, make_key, customer):
    made = make_key()
    result = server.run("keys", "import", "-", stdin=f"somebody-else,{made['api_key']}\n")
    assert result.exit_code == 1
    assert "already belong to another customer" in result.stderr
    assert [key["id"] for key in server.json("keys", "list", "--customer", customer)] == [made["id"]]


def test_expiry_in_the_past_is_refused(server, customer):
    result = server.run("keys", "create", "--customer", customer, "--expires", "2020-01-01")
    assert result.exit_code == 2
    assert "2020-01-01 is in the past" in result.stderr


def test_missing_file_is_an_error(server):
    result = server.run("keys", "import", "nowhere.csv")
    assert result.exit_code == 2
    assert "'nowhere.csv': No such file or directory" in result.stderr


# export, and import of an export


def exported(stack_table):
    result = run("keys", "export", "--table", stack_table)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def tables(aws):
    """The names of two key tables."""
    stack = create_local_stack(aws, {})
    name = stack.stores.key_table
    described = aws.dynamodb().describe_table(TableName=name)["Table"]
    aws.dynamodb().create_table(
        TableName=f"{name}-other",
        AttributeDefinitions=described["AttributeDefinitions"],
        KeySchema=described["KeySchema"],
        BillingMode="PAY_PER_REQUEST",
    )
    table = KeyTable(aws.dynamodb(), name)
    table.add(KeyRecord.of(new_key(), customer_id="acme", label="web, Größe 2", scopes=frozenset({"page", "track"})))
    table.add(KeyRecord.of(new_key(), customer_id="{umbra}", expires_at=datetime(2036, 1, 2, tzinfo=UTC)))
    table.add(KeyRecord.of(new_key(), customer_id="acme", status=Status.REVOKED, created_at=None))
    return name, f"{name}-other"


def test_exported_keys_are_imported_unchanged(aws, tables):
    old, new = tables
    result = run("keys", "import", "-", "--table", new, stdin=exported(old))
    assert result.stdout == "Imported 3 keys; 0 existed already.\n"
    items = [aws.dynamodb().scan(TableName=name)["Items"] for name in tables]
    assert sorted(items[0], key=str) == sorted(items[1], key=str)


def test_export_contains_no_key(aws, tables):
    key = new_key()
    KeyTable(aws.dynamodb(), tables[0]).add(KeyRecord.of(key, customer_id="acme"))
    assert hash_key(key) in exported(tables[0])
    assert key not in exported(tables[0])


def test_import_can_take_over_a_revocation(aws, tables):
    old, new = tables
    run("keys", "import", "-", "--table", new, stdin=exported(old))
    table = KeyTable(aws.dynamodb(), old)
    for record in table:
        table.put(replace(record, status=Status.REVOKED))
    left = run("keys", "import", "-", "--table", new, stdin=exported(old))
    assert (left.exit_code, left.stdout) == (0, "Imported 0 keys; 3 existed already.\n")
    assert {record.status for record in KeyTable(aws.dynamodb(), new)} == {Status.ACTIVE, Status.REVOKED}
    won = run("keys", "import", "-", "--replace", "--table", new, stdin=exported(old))
    assert (won.exit_code, won.stdout) == (
        0,
        "Imported 0 keys, and replaced 3; 0 are revoked here, and stay revoked.\n",
    )
    assert {record.status for record in KeyTable(aws.dynamodb(), new)} == {Status.REVOKED}


def test_import_never_undoes_a_revocation(aws, tables):
    old, new = tables
    file = exported(old)
    run("keys", "import", "-", "--table", new, stdin=file)
    table = KeyTable(aws.dynamodb(), new)
    for record in table:
        table.put(replace(record, status=Status.REVOKED))
    result = run("keys", "import", "-", "--replace", "--table", new, stdin=file)
    assert result.stdout == "Imported 0 keys, and replaced 1; 2 are revoked here, and stay revoked.\n"
    assert {record.status for record in table} == {Status.REVOKED}


def test_import_never_takes_the_key_of_another_customer(aws, tables):
    old, new = tables
    for record in KeyTable(aws.dynamodb(), old):
        KeyTable(aws.dynamodb(), new).put(replace(record, customer_id="somebody-else"))
    result = run("keys", "import", "-", "--replace", "--table", new, stdin=exported(old))
    assert result.exit_code == 1
    assert "already belong to another customer" in result.stderr
    assert {record.customer_id for record in KeyTable(aws.dynamodb(), new)} == {"somebody-else"}


EXPORTED = KeyRecord.of("some-key-of-theirs", customer_id="acme").exported()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "Line 2 is not a key from `destination keys export`"),
        ("[]", "it must have exactly the fields created_at"),
        (json.dumps({**EXPORTED, "more": 1}), "it must have exactly the fields created_at"),
        (json.dumps({**EXPORTED, "key_hash": "some-key-of-theirs"}), "key_hash must be a SHA-256"),
        (json.dumps({**EXPORTED, "customer_id": ""}), "Line 2: a customer id is 1 to 256 printable characters"),
        (json.dumps({**EXPORTED, "customer_id": 7}), "customer_id must be a string"),
        (json.dumps({**EXPORTED, "last_four": None}), "last_four must be a string"),
        (json.dumps({**EXPORTED, "status": "actve"}), "status must be one of active, suspended, revoked"),
        (json.dumps({**EXPORTED, "expires_at": "soon"}), "expires_at must be null, or a time with a time zone"),
        (json.dumps({**EXPORTED, "expires_at": "2036-01-02"}), "expires_at must be null, or a time with a time zone"),
        (json.dumps({**EXPORTED, "created_at": 7}), "created_at must be null, or a time with a time zone"),
        (
            json.dumps({**EXPORTED, "expires_at": "2027-01-31_12:00:00+00:00"}),
            "expires_at must be null, or a time with a time zone",
        ),
        (json.dumps({**EXPORTED, "scopes": []}), "scopes must be null, or some of identify"),
        (json.dumps({**EXPORTED, "scopes": "track"}), "scopes must be null, or some of identify"),
        (json.dumps({**EXPORTED, "scopes": [{}]}), "scopes must be null, or some of identify"),
        (json.dumps({**EXPORTED, "label": 7}), "label must be null or a string"),
    ],
)
def test_bad_line_of_an_export_stops_the_whole_import(aws, tables, line, sentence):
    result = run("keys", "import", "-", "--table", tables[1], stdin=f"{json.dumps(EXPORTED)}\n{line}\n")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert not [*KeyTable(aws.dynamodb(), tables[1])]
