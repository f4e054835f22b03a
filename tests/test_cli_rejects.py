"""Test `destination rejects`: list, show, retry without loss, and purge."""

import base64
import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from local_server import MAX_WAIT_SECONDS, run, wait_until
from searches import some

from consumer.erasure.table import ErasureRequest, ErasureTable
from destination.deployment.main_thread import in_main_thread
from destination.deployment.reject_table import StoredRejects
from destination.deployment.retry import ErasedUsers, Fate, retry, sink_of
from destination.deployment.stack import LOCAL_STACK
from destination.deployment.target import Target
from destination.paths import SCHEMAS
from handler.canonicalise import canonicalise
from handler.decode import MAX_BODY_BYTES, parse_body
from handler.errors import InvalidMessage, Violation
from handler.judge import Judge
from handler.reject import Reject, RejectTable
from handler.spec import CALL_TYPES
from handler.timestamps import sortable
from handler.validate import Schemas

pytest_plugins = ["servers"]

DAY = 24 * 60 * 60
NO_EVENT = {"type": "track", "userId": "user-1", "messageId": "message-1", "timestamp": "2026-05-17T12:00:00Z"}
NO_EVENT_ANSWER = "event is required for track calls"
SETTINGS = {"region": "eu"}
SETTINGS_HEADER = base64.b64encode(json.dumps(SETTINGS).encode()).decode()


def rejects(*args, stdin=None):
    """Run `destination rejects` on the stack."""
    return run("rejects", *args, "--stack", LOCAL_STACK, stdin=stdin)


def listed(*options):
    """Return the JSON objects that `rejects list` prints."""
    result = rejects("list", "--json", *(options or ["--scan"]))
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def retried(*options):
    """Return the exit code of a retry, and its JSON counts that are not zero."""
    result = rejects("retry", "--json", *(options or ["--scan"]))
    counts = json.loads(result.stdout)
    return result.exit_code, {name: count for name, count in counts.items() if count}


@pytest.fixture
def fixed_schemas(tmp_path):
    """Return a folder of schemas in which a track call needs no event."""
    return schemas_with(tmp_path, track={"$schema": "http://json-schema.org/draft-07/schema#"})


def schemas_with(folder, **changed):
    for path in SCHEMAS.glob("*.json"):
        content = json.dumps(changed[path.stem]) if path.stem in changed else path.read_text()
        (folder / path.name).write_text(content)
    return str(folder)


def keep(destination, message, *, customer_id="demo", days_ago=0.0, settings_header=""):
    """Store a reject as the function does, `days_ago` days ago."""
    body = json.dumps(message, ensure_ascii=False)
    [canonical] = canonicalise(parse_body(body))
    table = RejectTable(destination.account.dynamodb(), destination.stack.stores.rejects_table, retention_days=30)
    assert table.keep(
        Reject(
            customer_id=customer_id,
            message=canonical,
            body=body,
            settings_header=settings_header,
            refusal=InvalidMessage((Violation(pointer="/event", message=NO_EVENT_ANSWER),)),
            rejected_at=time.time() - days_ago * DAY,
        )
    )


def messages(count, **fields):
    return [{**NO_EVENT, "messageId": f"message-{number}", **fields} for number in range(count)]


@contextmanager
def before(operation, handler) -> Iterator[None]:
    """Call `handler` before each request of `operation`, in every client."""
    events, event = boto3.DEFAULT_SESSION.events, f"before-send.dynamodb.{operation}"
    events.register_first(event, handler)
    try:
        yield
    finally:
        events.unregister(event, handler)


def answering(operation, body):
    """Replace the response body of `operation` with `body`, in every client."""
    raw = SimpleNamespace(stream=lambda: [body])
    return before(operation, lambda request, **_: AWSResponse(request.url, 200, {}, raw))


@contextmanager
def again_before_delete(destination, message) -> Iterator[None]:
    """Let the function refuse a message again just before its reject is deleted."""
    [body_hash] = [reject["body_hash"] for reject in listed() if reject["message_id"] == message["messageId"]]

    def keep_again(request, **_):
        if body_hash.encode() in request.body:
            keep(destination, message)

    with before("DeleteItem", keep_again):
        yield


@contextmanager
def failing_late(operation, text, *, count) -> Iterator[None]:
    """Let the call that contains `text` fail after `count` other calls. No other call is sent in between."""
    others = []
    failed = Event()

    def fail(request, **_):
        if text in request.body:
            wait_until(lambda: len(others) >= count)
            failed.set()
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, operation)
        others.append(request)
        assert len(others) <= count or failed.wait(MAX_WAIT_SECONDS)

    with before(operation, fail):
        yield


def wait_for_next_day(*, if_seconds_left):
    """Wait for midnight (UTC) if it is near, so that a test begins and ends on the same day."""
    seconds_left = DAY - time.time() % DAY
    if seconds_left < if_seconds_left:
        time.sleep(seconds_left)


def test_days_of_a_customer_include_today(deploy):
    wait_for_next_day(if_seconds_left=30)
    destination = deploy()
    for days_ago in (0, 6, 7, 20):
        keep(destination, {**NO_EVENT, "messageId": f"{days_ago} days"}, days_ago=days_ago)
    keep(destination, NO_EVENT, customer_id="acme")

    def ids(*options):
        return [reject["message_id"] for reject in listed(*options)]

    assert ids("--customer", "demo") == ["0 days", "6 days"]
    assert ids("--customer", "demo", "--days", "1") == ["0 days"]
    assert ids("--customer", "demo", "--days", "21") == ["0 days", "6 days", "7 days", "20 days"]
    assert ids("--customer", "demo", "--scan") == ["0 days", "6 days", "7 days", "20 days"]
    assert ids("--customer", "acme") == ["message-1"]
    assert set(ids("--scan")) == {"message-1", "0 days", "6 days", "7 days", "20 days"}
    assert set(ids("--scan", "--days", "8")) == {"message-1", "0 days", "6 days", "7 days"}
    assert ids("--customer", "nobody") == []


def test_list_is_newest_first_over_all_shards_up_to_the_limit(deploy):
    destination = deploy()
    for number in range(40):
        keep(destination, {**NO_EVENT, "messageId": str(number)}, days_ago=number / 10)
    assert [reject["message_id"] for reject in listed("--customer", "demo")] == [str(number) for number in range(40)]
    assert len(listed("--scan", "--limit", "7")) == 7
    printed = rejects("list", "--customer", "demo", "--limit", "7").stderr
    assert printed == "7 rejects of demo in the last 7 days; --limit shows more.\n"


def test_list_shows_sender_type_and_answer(deploy):
    destination = deploy()
    destination.post({**NO_EVENT, "userId": "[/b]\x1b[31m ü"})
    [reject] = listed()
    result = rejects("list", "--customer", "demo")
    [head, line] = result.stdout.splitlines()
    assert head.split() == ["Time", "(UTC)", "Customer", "Type", "Who", "Code", "Answer", "ID"]
    moment = reject["rejected_at"][:19].replace("T", " ")
    columns = f"{moment} demo track [/b]�[31m ü invalid_message {NO_EVENT_ANSWER} {reject['id']}"
    assert line.split() == columns.split()
    assert result.stderr == "1 reject of demo in the last 7 days.\n"
    assert reject["violations"] == [{"pointer": "/event", "message": NO_EVENT_ANSWER}]
    assert "body" not in reject


def test_show_prints_the_whole_reject(deploy):
    destination = deploy()
    body = json.dumps({**NO_EVENT, "long": "ü" * 100_000, "odd": "\x9b\ud800"}, indent=1)
    destination.post(body, headers={"x-segment-settings": SETTINGS_HEADER})
    [reject] = listed()
    for place in (["--customer", "demo"], ["--scan"]):
        shown = json.loads(rejects("show", reject["id"][:5], *place, "--json").stdout)
        assert shown == {**reject, "settings": SETTINGS, "body": body}
    for_people = json.loads(rejects("show", reject["id"], "--scan").stdout)
    assert for_people["body"] == {**NO_EVENT, "long": "ü" * 100_000, "odd": "\x9b\ud800"}


def test_show_prints_refused_settings_unchanged(deploy):
    deploy().post({**NO_EVENT, "event": "Lamp Lit"}, headers={"x-segment-settings": "***"})
    assert json.loads(rejects("show", listed()[0]["id"], "--scan", "--json").stdout)["settings"] == "***"


def test_unknown_or_ambiguous_id_is_an_error(deploy):
    destination = deploy()
    for message in messages(17):
        keep(destination, message)
    starts = [reject["id"][0] for reject in listed()]
    several = next(start for start in starts if starts.count(start) > 1)
    for command in ("show", "retry"):
        result = rejects(command, several, "--customer", "demo")
        assert (result.exit_code, result.stderr) == (
            1,
            f"Error: Several rejects have an id that starts with {several}: give more characters\n",
        )
        result = rejects(command, "0" * 12, "--customer", "demo")
        assert result.exit_code == 1
        assert (
            "No reject of demo in the last 7 days has the id 000000000000: `destination rejects list`" in result.stderr
        )
        for wrong in ("xyz", ""):
            result = rejects(command, wrong, "--customer", "demo")
            assert result.exit_code == 2
            assert "is not the id of a reject" in result.stderr


def test_id_shared_by_two_customers_is_an_error(deploy):
    destination = deploy()
    for customer_id in ("demo", "acme"):
        keep(destination, NO_EVENT, customer_id=customer_id)
    reject_id = listed()[0]["id"]
    for command in ("show", "retry"):
        result = rejects(command, reject_id, "--scan")
        assert (result.exit_code, result.stderr) == (
            1,
            f"Error: Several rejects have an id that starts with {reject_id}: give more characters, or --customer\n",
        )
    shown = rejects("show", reject_id, "--scan", "--customer", "acme", "--json")
    assert json.loads(shown.stdout)["customer_id"] == "acme"


def test_same_body_on_two_days_has_one_id(deploy):
    destination = deploy()
    keep(destination, NO_EVENT, days_ago=2)
    keep(destination, NO_EVENT)
    newest, older = listed()
    assert newest["id"] == older["id"]
    assert json.loads(rejects("show", newest["id"], "--scan", "--json").stdout)["rejected_at"] == newest["rejected_at"]


@pytest.mark.parametrize(("sink", "word"), [({}, "stored"), ({"EventSink": "sqs"}, "queued")], ids=["dynamodb", "sqs"])
def test_retried_message_is_stored_as_the_function_stores_it(sink, word, deploy, fixed_schemas):
    destination = deploy(**sink)
    message = {**NO_EVENT, "UserID": "user-1", "writeKey": "secret", "properties": {"n": 1.50, "ü": "\ud800"}}
    destination.post(message, headers={"x-segment-settings": SETTINGS_HEADER})
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 1, word: 1})
    assert listed() == []
    [record] = destination.records()
    destination.post(
        {**message, "event": "Lamp Lit", "messageId": "message-2"}, headers={"x-segment-settings": SETTINGS_HEADER}
    )
    [accepted] = [record for record in destination.records() if record["message_id"] == "message-2"]
    del accepted["event"], accepted["message"]["event"]
    same = {"message_id": "message-1", "position": record["position"], "stored_at": record["stored_at"]}
    assert record == {**accepted, **same, "message": {**accepted["message"], "message_id": "message-1"}}
    assert "secret" not in str(record)


def test_retried_message_expires_like_an_accepted_one(deploy, fixed_schemas):
    destination = deploy(EventRetentionDays="7")
    destination.post(NO_EVENT)
    retried("--scan", "--schemas", fixed_schemas)
    [item] = destination.account.dynamodb().scan(TableName=destination.stack.stores.event_table)["Items"]
    assert int(item["expires_at"]["N"]) - time.time() == pytest.approx(7 * DAY, abs=60)


def test_message_without_a_time_gets_the_time_of_its_reject(deploy, fixed_schemas):
    destination = deploy()
    keep(destination, {name: value for name, value in NO_EVENT.items() if name != "timestamp"}, days_ago=3)
    [reject] = listed()
    retried("--scan", "--schemas", fixed_schemas)
    [record] = destination.stored()
    assert record["timestamp"] == reject["rejected_at"] < record["stored_at"]


def test_largest_kept_body_can_be_retried(deploy, fixed_schemas):
    destination = deploy()
    keep(destination, {**NO_EVENT, "properties": {"text": "a" * MAX_BODY_BYTES}})
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 1, "stored": 1})


def test_still_refused_messages_stay_and_are_counted_by_answer(deploy):
    destination = deploy()
    for message in [*messages(3), {**NO_EVENT, "type": "group"}]:
        destination.post(message)
    before = listed()
    answers = {NO_EVENT_ANSWER: 3, "groupId is required for group calls": 1}
    assert retried() == (1, {"tried": 4, "still_refused": 4, "answers": answers})
    assert (listed(), destination.stored()) == (before, [])
    printed = rejects("retry", "--scan").stdout
    assert printed.startswith("Tried 4 rejects of all customers: 4 still refused.\n")
    assert f"3\t{NO_EVENT_ANSWER}" in printed.splitlines()


@pytest.mark.parametrize("case", [NO_EVENT, {**NO_EVENT, "type": "group"}, {**NO_EVENT, "event": "Lamp Lit"}])
def test_retry_gives_the_same_answer_as_the_function(case, deploy):
    destination = deploy()
    answer = destination.post(case, headers={"x-segment-settings": "***" if "event" in case else SETTINGS_HEADER})
    assert retried() == (1, {"tried": 1, "still_refused": 1, "answers": {answer.body["message"]: 1}})


def test_switched_off_call_type_is_still_refused(deploy, fixed_schemas):
    destination = deploy(SupportedCallTypes="identify")
    keep(destination, NO_EVENT)
    answers = {"track calls are not supported": 1}
    assert retried("--scan", "--schemas", fixed_schemas) == (1, {"tried": 1, "still_refused": 1, "answers": answers})


def test_message_too_large_to_store_stays(deploy, fixed_schemas):
    destination = deploy(EventSink="sqs")
    keep(destination, {**NO_EVENT, "properties": {"text": "ü" * 300_000}})
    answers = {"Message is too large": 1}
    assert retried("--scan", "--schemas", fixed_schemas) == (1, {"tried": 1, "still_refused": 1, "answers": answers})
    assert len(listed()) == 1


def test_dry_run_changes_nothing(deploy, fixed_schemas):
    destination = deploy()
    for message in [*messages(2), {**NO_EVENT, "type": "group"}]:
        destination.post(message)
    before = listed()
    code, counts = retried("--scan", "--schemas", fixed_schemas, "--dry-run")
    assert (code, counts["would_pass"], counts["still_refused"], counts["dry_run"]) == (1, 2, 1, True)
    assert (listed(), destination.stored()) == (before, [])


def test_retry_can_be_limited_to_a_customer_or_to_ids(deploy, fixed_schemas):
    destination = deploy()
    for customer_id in ("demo", "acme"):
        for message in messages(3):
            keep(destination, message, customer_id=customer_id)
    first, second = [reject["id"] for reject in listed("--customer", "acme")][:2]
    options = ("--customer", "acme", "--schemas", fixed_schemas)
    assert retried(first, second, first, *options) == (0, {"tried": 2, "stored": 2})
    assert retried(*options) == (0, {"tried": 1, "stored": 1})
    assert {reject["customer_id"] for reject in listed()} == {"demo"}
    assert {record["subject"] for record in destination.stored()} == {"acme#user#user-1"}


def test_message_that_was_resent_and_accepted_is_a_duplicate(deploy, fixed_schemas):
    destination = deploy()
    destination.post(NO_EVENT)
    destination.post({**NO_EVENT, "event": "Lamp Lit"})
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 1, "duplicates": 1})
    assert listed() == []
    assert len(destination.stored()) == 1


def test_second_retry_does_nothing(deploy, fixed_schemas):
    destination = deploy()
    for message in messages(20):
        destination.post(message)
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 20, "stored": 20})
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {})
    assert len(destination.stored()) == 20


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_at(client, operation, number):
    """End the process at the call with this number."""
    calls = []

    def kill(**_):
        calls.append(operation)
        if len(calls) >= number:
            raise Killed

    client.meta.events.register(f"before-call.dynamodb.{operation}", kill)
    return client


@pytest.fixture
def twenty_rejects(deploy, prepare):
    destination = deploy()
    prepare("twenty rejects", lambda: [destination.post(message) for message in messages(20)])
    return destination


@pytest.mark.many_examples
@pytest.mark.parametrize(
    ("number", "operation"), some(list(itertools.product([1, 7, 20], ["GetItem", "PutItem", "DeleteItem"])))
)
def test_killed_retry_loses_nothing(operation, number, twenty_rejects, aws, fixed_schemas):
    destination = twenty_rejects
    client = killed_at(aws.dynamodb(), operation, number)
    account = type("Dying", (), {"dynamodb": lambda _: client, "store_client": lambda *_: client})()
    target = Target(account=account, stores=destination.stack.stores)
    table = StoredRejects(client, target.stores.rejects_table)
    judge = Judge(schemas=Schemas.load(Path(fixed_schemas)), supported_call_types=frozenset(CALL_TYPES))
    with pytest.raises(Killed):
        list(retry(list(table.everything()), table, judge, sink_of(target), ErasedUsers.of(target)))
    stored = {record["message_id"] for record in destination.stored()}
    assert stored | {reject["message_id"] for reject in listed()} == {message["messageId"] for message in messages(20)}
    code, counts = retried("--scan", "--schemas", fixed_schemas)
    assert (code, counts.get("stored", 0) + len(stored), listed()) == (0, 20, [])
    assert len(destination.stored()) == 20


def test_reject_deleted_meanwhile_is_skipped(deploy, fixed_schemas):
    destination = deploy()
    destination.post(NO_EVENT)
    table = StoredRejects(destination.account.dynamodb(), destination.stack.stores.rejects_table)
    found = list(table.everything())
    table.delete(found[0])
    table.delete(found[0])
    judge = Judge(schemas=Schemas.load(Path(fixed_schemas)), supported_call_types=frozenset(CALL_TYPES))
    target = Target(account=destination.account, stores=destination.stack.stores)
    assert [verdict.fate for verdict in retry(found, table, judge, sink_of(target), ErasedUsers.of(target))] == [
        Fate.GONE
    ]
    assert destination.stored() == []


# Erased users


def erasures_of(destination):
    return ErasureTable(destination.account.dynamodb(), destination.stack.stores.erasure_table)


def request_of(subject="demo#user#user-1", *, minutes=0.0):
    """Return an erasure request, `minutes` minutes from now."""
    moment = sortable(datetime.now(UTC) + timedelta(minutes=minutes))
    return ErasureRequest(customer_id="demo", subject=subject, requested_at=moment)


ERASED = [
    ("demo#user#user-1", {}),
    ("demo#user#user-1", {"anonymousId": "visitor"}),
    ("demo#anonymous#visitor", {"userId": None, "anonymousId": "visitor"}),
]


@pytest.mark.many_examples
@pytest.mark.parametrize(
    ("sink", "mode", "erased"), some(list(itertools.product(["dynamodb", "sqs"], ["refuse", "store"], ERASED)))
)
def test_reject_of_an_erased_user_is_deleted_and_not_stored(sink, mode, erased, deploy, fixed_schemas):
    subject, ids = erased
    destination = deploy(EventSink=sink, AfterErasure=mode)
    destination.post({**NO_EVENT, **ids})
    erasures_of(destination).leave_tombstone(request_of(subject, minutes=1))
    expected = (0, {"tried": 1, "of_erased_users": 1})
    code, counts = retried("--scan", "--schemas", fixed_schemas, "--dry-run")
    assert (code, counts) == (0, {**expected[1], "dry_run": True})
    assert len(listed()) == 1
    assert retried("--scan", "--schemas", fixed_schemas) == expected
    assert (destination.records(), listed()) == ([], [])


@pytest.mark.parametrize("mode", ["store", "refuse"])
def test_reject_newer_than_the_erasure_is_stored(mode, deploy, fixed_schemas):
    destination = deploy(AfterErasure=mode)
    destination.post({**NO_EVENT, "timestamp": sortable(datetime.now(UTC))})
    erasures_of(destination).leave_tombstone(request_of(minutes=-1))
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 1, "stored": 1})
    assert len(destination.stored()) == 1


class Burying:
    """A sink that leaves a tombstone just before or after its write, like an eraser that works at the same time."""

    def __init__(self, sink, leave_tombstone, *, before):
        self.sink, self.leave_tombstone, self.before = sink, leave_tombstone, before

    def write(self, record):
        if self.before:
            self.leave_tombstone()
        outcome = self.sink.write(record)
        if not self.before:
            self.leave_tombstone()
        return outcome


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_user_who_is_erased_during_the_write_is_erased_again(sink, before, deploy, fixed_schemas):
    destination = deploy(EventSink=sink)
    destination.post(NO_EVENT)
    target = Target(account=destination.account, stores=destination.stack.stores)
    table = StoredRejects(destination.account.dynamodb(), target.stores.rejects_table)
    judge = Judge(schemas=Schemas.load(Path(fixed_schemas)), supported_call_types=frozenset(CALL_TYPES))
    first = request_of()
    burying = Burying(sink_of(target), lambda: erasures_of(destination).leave_tombstone(first), before=before)
    verdicts = list(retry(list(table.everything()), table, judge, burying, ErasedUsers.of(target)))
    assert [verdict.fate for verdict in verdicts] == [Fate.ERASED]
    assert listed() == []
    [delete] = [record for record in destination.stored() if record["type"] == "delete"]
    assert delete["subject"] == "demo#user#user-1"
    assert delete["stored_at"] > first.requested_at
    if sink == "sqs":
        # The eraser puts the delete into the queue.
        assert [record["type"] for record in destination.records()] == ["track"]


def test_reject_stays_if_its_tombstone_cannot_be_read(deploy, fixed_schemas):
    destination = deploy()
    destination.post(NO_EVENT)
    destination.account.dynamodb().delete_table(TableName=destination.stack.stores.erasure_table)
    result = rejects("retry", "--scan", "--schemas", fixed_schemas)
    assert result.exit_code == 1
    assert "The messages that were not stored are still among the rejects: run this again" in result.stderr
    assert (destination.stored(), len(listed())) == ([], 1)


def test_reject_stays_if_its_message_cannot_be_stored(deploy, fixed_schemas):
    destination = deploy()
    for message in messages(3):
        destination.post(message)
    destination.account.dynamodb().delete_table(TableName=destination.stack.stores.event_table)
    result = rejects("retry", "--scan", "--schemas", fixed_schemas)
    assert result.exit_code == 1
    assert result.stdout == "Tried 0 rejects of all customers.\n"
    assert "Error: AWS answered: An error occurred (ResourceNotFoundException)" in result.stderr
    assert "The messages that were not stored are still among the rejects: run this again" in result.stderr
    assert len(listed()) == 3


def test_failed_retry_stops_and_counts_what_was_stored(deploy, fixed_schemas):
    destination = deploy()
    for number, message in enumerate(messages(40)):
        keep(destination, message, days_ago=1 - number / 100)  # message-2 is tried third
    with failing_late("PutItem", b'#message-2"', count=10):
        result = rejects("retry", "--scan", "--schemas", fixed_schemas, "--json")
    assert result.exit_code == 1
    assert "Error: AWS answered: An error occurred (AccessDeniedException)" in result.stderr
    stored = len(destination.stored())
    assert 10 <= stored < 39
    printed = json.loads(result.stdout)
    assert (printed["tried"], printed["stored"], len(listed())) == (stored, stored, 40 - stored)


@contextmanager
def deleted_before(destination, operation):
    """Delete every reject before each call of `operation`, as a faulty retry or another command would."""
    table = StoredRejects(destination.account.dynamodb(), destination.stack.stores.rejects_table)

    def delete(**_):
        for reject in list(table.everything()):
            table.delete(reject)

    with before(operation, delete):
        yield


@pytest.mark.parametrize("is_json", [False, True])
def test_failed_retry_names_missing_rejects(is_json, deploy, fixed_schemas):
    destination = deploy()
    destination.post(NO_EVENT)
    [reject] = listed()
    destination.account.dynamodb().delete_table(TableName=destination.stack.stores.event_table)
    with deleted_before(destination, "PutItem"):
        result = rejects("retry", "--scan", "--schemas", fixed_schemas, *(["--json"] if is_json else []))
    assert result.exit_code == 1
    assert f"1 reject not confirmed as stored, and not among the rejects any more: {reject['id']}." in result.stderr
    assert "is still among the rejects" not in result.stderr
    assert ('"missing": 1' if is_json else "Tried 1 reject of all customers: 1 missing.") in result.stdout


def test_failed_retry_does_not_claim_that_unread_rejects_exist(deploy, fixed_schemas):
    destination = deploy()
    destination.post(NO_EVENT)
    client = destination.account.dynamodb()

    def drop(**_):
        for table in (destination.stack.stores.event_table, destination.stack.stores.rejects_table):
            client.delete_table(TableName=table)

    with before("PutItem", drop):
        result = rejects("retry", "--scan", "--schemas", fixed_schemas)
    assert result.exit_code == 1
    assert "1 reject not confirmed as stored. Whether they are still in the table is not known" in result.stderr
    assert "is still among the rejects" not in result.stderr


def test_missing_reject_is_not_reported_as_kept(deploy):
    destination = deploy()
    destination.post(NO_EVENT)
    table = StoredRejects(destination.account.dynamodb(), destination.stack.stores.rejects_table)

    found = list(table.everything())

    class Deleting(Judge):
        def refusals(self, *arguments, **options):
            table.delete(found[0])
            return super().refusals(*arguments, **options)

    judge = Deleting(schemas=Schemas.load(SCHEMAS), supported_call_types=frozenset(CALL_TYPES))
    target = Target(account=destination.account, stores=destination.stack.stores)
    verdicts = list(retry(found, table, judge, sink_of(target), ErasedUsers.none(target)))
    assert [verdict.fate for verdict in verdicts] == [Fate.MISSING]


def test_reject_that_is_renewed_during_a_retry_stays(deploy, fixed_schemas):
    destination = deploy()
    keep(destination, NO_EVENT)
    with again_before_delete(destination, NO_EVENT):
        assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 1, "stored": 1})
    assert len(listed()) == 1
    assert retried("--scan", "--schemas", fixed_schemas) == (0, {"tried": 1, "duplicates": 1})


PRINTED_FOR_NONE = {"retry": "Tried 0 rejects of all customers.\n", "purge": "Deleted 0 rejects of all customers.\n"}


CALLS = [
    ("list --scan", "Scan"),
    ("list --customer demo", "Query"),
    ("show {id} --customer demo", "GetItem"),
    ("retry --scan --schemas {fixed_schemas}", "GetItem"),
    ("retry --scan --schemas {fixed_schemas}", "PutItem"),
    ("retry --scan --schemas {fixed_schemas}", "DeleteItem"),
    ("purge --scan --yes", "DeleteItem"),
]
UNCONFIRMED = [b"", b"{}", b"null", b'{"Item": {"customer_id": {"S": "ac\xff', b"<html>"]


@pytest.mark.many_examples
@pytest.mark.parametrize(("call", "body"), some(list(itertools.product(CALLS, UNCONFIRMED))), ids=repr)
def test_response_without_confirmation_is_a_store_error(call, body, deploy, fixed_schemas):
    command, operation = call
    destination = deploy()
    keep(destination, NO_EVENT)
    [reject] = listed()
    words = command.format(id=reject["id"], fixed_schemas=fixed_schemas).split()
    with answering(operation, body):
        result = rejects(*words)
    assert (result.exit_code, result.stdout) == (1, PRINTED_FOR_NONE.get(words[0], ""))
    assert "Error: AWS answered: " in result.stderr
    assert operation == "DeleteItem" or listed() == [reject]  # moto deletes the item, although the response is replaced


def test_faulty_schemas_stop_a_retry_before_it_starts(deploy, tmp_path):
    deploy().post(NO_EVENT)
    result = rejects("retry", "--scan", "--schemas", schemas_with(tmp_path, track=[]))
    assert result.exit_code == 1
    assert (
        "Error: The schemas have faults, so nothing was done.\ntrack.json: this must be a JSON object" in result.stderr
    )
    assert len(listed()) == 1


def test_purge_asks_for_confirmation(deploy):
    destination = deploy()
    keep(destination, NO_EVENT)
    refused = rejects("purge", "--customer", "demo", stdin="n\n")
    assert (refused.exit_code, len(listed())) == (1, 1)
    assert "Delete 1 reject of demo in the last 7 days permanently? [y/N]: " in refused.stderr
    assert rejects("purge", "--customer", "demo", stdin="y\n").exit_code == 0
    assert listed() == []


def test_purge_keeps_rejects_that_are_renewed_meanwhile(deploy):
    destination = deploy()
    for message in messages(3):
        keep(destination, message)
    with again_before_delete(destination, messages(1)[0]):
        result = rejects("purge", "--scan", "--yes")
    assert result.stdout.startswith("Deleted 2 rejects of all customers; 1 arrived again meanwhile and stayed.\n")
    assert [reject["message_id"] for reject in listed()] == ["message-0"]


def test_failed_purge_counts_what_it_deleted(deploy):
    destination = deploy()
    for message in messages(40):
        keep(destination, message)
    third = listed("--scan")[2]
    with failing_late("DeleteItem", third["body_hash"].encode(), count=10):
        result = rejects("purge", "--scan", "--yes", "--json")
    assert result.exit_code == 1
    assert "Error: AWS answered: An error occurred (AccessDeniedException)" in result.stderr
    left = len(listed())
    assert 1 < left <= 30
    assert json.loads(result.stdout) == {"deleted": 40 - left, "came_again": 0, "customers": {"demo": 40 - left}}


@pytest.mark.parametrize("option", ["--days", "--older-than"])
def test_number_of_days_has_an_upper_limit(option, deploy):
    deploy()
    result = rejects("purge", "--scan", "--yes", option, "999999")
    assert result.exit_code == 2
    assert "999999 is not in the range 1<=x<=3660" in result.stderr


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--scan"], []),
        (["--scan", "--older-than", "10"], ["acme 1", "demo 1", "demo 8"]),
        (["--customer", "demo"], ["acme 1", "acme 20", "demo 20", "demo 8"]),
        (["--customer", "demo", "--days", "10"], ["acme 1", "acme 20", "demo 20"]),
        (["--customer", "demo", "--scan"], ["acme 1", "acme 20"]),
        (["--customer", "demo", "--scan", "--older-than", "7"], ["acme 1", "acme 20", "demo 1"]),
        (["--customer", "nobody"], ["acme 1", "acme 20", "demo 1", "demo 20", "demo 8"]),
    ],
    ids=" ".join,
)
def test_purge_deletes_only_the_selected_rejects(options, left, deploy):
    destination = deploy()
    for customer_id, days_ago in (("demo", 1), ("demo", 8), ("demo", 20), ("acme", 1), ("acme", 20)):
        keep(
            destination,
            {**NO_EVENT, "messageId": f"{customer_id} {days_ago}"},
            customer_id=customer_id,
            days_ago=days_ago,
        )
    result = rejects("purge", *options, "--yes", "--json")
    assert sorted(reject["message_id"] for reject in listed()) == left
    printed = json.loads(result.stdout)
    assert printed["deleted"] == sum(printed["customers"].values()) == 5 - len(left)


def test_purge_counts_deleted_rejects_by_customer(deploy):
    destination = deploy()
    for message in messages(3):
        keep(destination, message, customer_id="acme", days_ago=20)
    lines = rejects("purge", "--scan", "--older-than", "14", "--yes").stdout.splitlines()
    assert lines[0] == "Deleted 3 rejects of all customers, older than 14 days."
    assert lines[2].split() == ["3", "acme"]


@pytest.mark.parametrize(
    "command", [["list"], ["show", "ab"], ["retry"], ["purge", "--yes"]], ids=lambda words: words[0]
)
def test_stack_is_not_scanned_without_the_scan_option(command, deploy):
    deploy()
    result = rejects(*command)
    assert result.exit_code == 2
    assert "Name a --customer, or use --scan to read the whole table" in result.stderr


def test_older_than_needs_the_scan_option(deploy):
    deploy()
    result = rejects("purge", "--customer", "demo", "--older-than", "10", "--yes")
    assert result.exit_code == 2
    assert "--older-than needs --scan" in result.stderr


def test_local_server_needs_no_scan_option(server):
    customer_id = f"rejected-{time.time_ns()}"
    key = server.json("keys", "create", "--customer", customer_id)["api_key"]
    assert server.post(NO_EVENT, key=key).status == 400
    lines = server.run("rejects", "list", "--json").stdout.splitlines()
    [reject] = [found for found in map(json.loads, lines) if found["customer_id"] == customer_id]
    assert server.json("rejects", "show", reject["id"])["settings"] == {}
    retry = server.run("rejects", "retry", reject["id"], "--customer", customer_id, "--dry-run")
    assert retry.exit_code == 1
    assert server.json("rejects", "purge", "--customer", customer_id, "--yes") == {
        "deleted": 1,
        "came_again": 0,
        "customers": {customer_id: 1},
    }


def test_judge_works_in_any_thread():
    judge = Judge(schemas=Schemas.load(SCHEMAS), supported_call_types=frozenset(CALL_TYPES))
    messages = [*canonicalise({"type": "track", "userId": "u", "event": "E"}), *canonicalise({"type": "track"})]
    with ThreadPoolExecutor() as threads:
        passed, refusal = threads.submit(in_main_thread, lambda: judge.refusals(messages, "")).result()
    assert (passed, refusal.code) == (None, "invalid_message")
