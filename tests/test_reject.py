"""Test that messages refused by a schema are kept, with the whole function."""

import base64
import json
import zlib
from datetime import UTC, datetime

import pytest
from botocore.stub import Stubber

from handler.canonicalise import canonicalise
from handler.clients import connect
from handler.errors import InvalidMessage, RejectStoreUnavailable, Violation
from handler.items import read_text_attribute
from handler.reject import Reject, RejectTable

NO_EVENT = {"type": "track", "userId": "user-1", "messageId": "message-1"}


def rejects(destination):
    return destination.account.dynamodb().scan(TableName=destination.stack.stores.rejects_table)["Items"]


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_refused_message_is_kept_unchanged(sink, deploy):
    destination = deploy(EventSink=sink)
    body = '{ "type":"track" , "userId": "user-1", "messageId": "message-1", "x": 1.0, "x": 1.50}'
    settings = base64.b64encode(b'{"list": 7}').decode()
    before = datetime.now(UTC)
    answer = destination.post(body, headers={"x-segment-settings": settings})
    assert (answer.status, answer.body["kept"]) == (400, True)
    [item] = rejects(destination)
    texts = {name: value["S"] for name, value in item.items() if "S" in value}
    assert before <= datetime.fromisoformat(texts["rejected_at"]) <= datetime.now(UTC)
    assert texts["customer_day_shard"] == f"demo#{texts['rejected_at'][:10]}#{texts['body_hash'][0]}"
    assert (texts["body"], texts["settings"]) == (body, settings)
    assert {name: texts[name] for name in ("customer_id", "type", "message_id", "user_id", "code", "answer")} == {
        "customer_id": "demo",
        "type": "track",
        "message_id": "message-1",
        "user_id": "user-1",
        "code": "invalid_message",
        "answer": "event is required for track calls",
    }
    assert json.loads(texts["violations"]) == answer.body["violations"]
    assert int(item["expires_at"]["N"]) - datetime.now(UTC).timestamp() == pytest.approx(30 * 86400, abs=3600)


@pytest.mark.parametrize(
    ("who", "subject"),
    [
        ({"userId": "user-1", "anonymousId": "5f0c"}, "demo#user#user-1"),
        ({"anonymousId": "5f0c"}, "demo#anonymous#5f0c"),
        ({"userId": 17}, "demo#user#17"),
        ({"userId": {"id": 17}}, None),
        ({}, None),
    ],
)
def test_reject_has_the_subject_of_its_message(who, subject, deploy):
    destination = deploy()
    assert destination.post({"type": "track", **who}).status == 400
    [item] = rejects(destination)
    assert item.get("subject", {}).get("S") == subject


def test_reject_has_both_ids_of_its_user(deploy):
    destination = deploy()
    destination.post({**NO_EVENT, "anonymousId": "5f0c"})
    [item] = rejects(destination)
    assert (item["user_id"]["S"], item["anonymous_id"]["S"]) == ("user-1", "5f0c")


def test_message_with_refused_settings_is_kept(deploy):
    destination = deploy()
    answer = destination.post({**NO_EVENT, "event": "Lamp Lit"}, headers={"x-segment-settings": "***"})
    assert (answer.body["code"], answer.body["kept"]) == ("invalid_settings", True)
    assert [item["settings"]["S"] for item in rejects(destination)] == ["***"]


@pytest.mark.parametrize(
    ("message", "key", "status"),
    [
        (NO_EVENT, "nobody", 401),
        (NO_EVENT, "demo-key-suspended", 403),
        (NO_EVENT, "demo-key-scoped", 403),
        ({**NO_EVENT, "type": "video"}, "demo-key-good", 501),
        ("{", "demo-key-good", 400),
        ([], "demo-key-good", 400),
        ({"userId": "user-1"}, "demo-key-good", 400),
    ],
)
def test_messages_refused_before_the_schema_are_not_kept(message, key, status, deploy):
    destination = deploy()
    answer = destination.post(message, key=key)
    assert (answer.status, "kept" in answer.body, rejects(destination)) == (status, False, [])


def test_a_write_key_is_never_kept(deploy):
    destination = deploy()
    destination.post({**NO_EVENT, "writeKey": "secret", "Write Key": "secret too", "extra": "é"})
    [item] = rejects(destination)
    assert json.loads(item["body"]["S"]) == {**NO_EVENT, "extra": "é"}
    assert "secret" not in str(item)


@pytest.mark.parametrize(
    "members",
    [
        '"context": {"writeKey": "secret"}, "context": {}',
        '"context": [{"writeKey": "secret"}]',
        '"_metadata": {"context": [[{"write_key": "secret"}]]}',
        '"writeKey": "secret", "writeKey": "secret"',
        '"\\u0077riteKey": "secret"',
    ],
)
def test_hidden_write_key_is_never_kept(members, deploy):
    destination = deploy()
    answer = destination.post(f'{{"type": "track", "userId": "user-1", "messageId": "message-1", {members}}}')
    assert answer.body["kept"] is True
    assert "secret" not in str(rejects(destination))


def test_a_body_without_its_write_key_does_not_grow(deploy):
    destination = deploy()
    message = {**NO_EVENT, "properties": {"text": "漢" * 1000, "list": [1, 2]}}
    destination.post({**message, "writeKey": "secret"})
    [item] = rejects(destination)
    assert read_text_attribute(item["body"]) == json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def test_the_same_body_with_other_settings_is_another_reject(deploy):
    destination = deploy()
    settings = {"e30=", "***", ""}
    for header in settings:
        destination.post(NO_EVENT, headers={"x-segment-settings": header})
    assert {item["settings"]["S"] for item in rejects(destination)} == settings


def test_the_same_body_is_kept_once_a_day(deploy):
    destination = deploy()
    assert [destination.post(NO_EVENT).body["kept"] for _ in range(3)] == [True] * 3
    assert len(rejects(destination)) == 1


def test_many_bodies_are_spread_over_sixteen_partitions(deploy):
    destination = deploy()
    for number in range(200):
        destination.post({**NO_EVENT, "messageId": f"message-{number}"})
    assert len({item["customer_day_shard"]["S"] for item in rejects(destination)}) == 16


@pytest.mark.parametrize("odd", [{}, [], 1.5, True, "\ud800", "\x00"])
def test_a_message_with_anything_as_an_id_is_kept(odd, deploy):
    destination = deploy()
    answer = destination.post({**NO_EVENT, "userId": odd, "messageId": odd, "anonymousId": odd})
    assert (answer.status, answer.body["kept"]) == (400, True)
    assert len(rejects(destination)) == 1


def test_a_long_body_is_kept_compressed(deploy):
    destination = deploy()
    body = json.dumps({**NO_EVENT, "properties": {"text": "long " * 100_000}})
    assert destination.post(body).body["kept"] is True
    [item] = rejects(destination)
    assert zlib.decompress(item["body"]["B"]).decode() == body


def test_a_body_too_large_to_keep_gets_its_400(deploy):
    destination = deploy()
    noise = base64.b64encode(zlib.compress(json.dumps([hash(str(n)) for n in range(40_000)]).encode(), 9)).decode()
    answer = destination.post({**NO_EVENT, "properties": {"noise": noise}})
    assert (answer.status, answer.body["kept"], rejects(destination)) == (400, False, [])


def test_retention_of_0_days_keeps_nothing(deploy):
    destination = deploy(RejectsRetentionDays="0")
    answer = destination.post(NO_EVENT)
    assert (answer.status, answer.body["kept"], rejects(destination)) == (400, False, [])


def test_reject_that_cannot_be_kept_is_503(deploy):
    answer = deploy(environment={"REJECTS_TABLE": "nowhere"}).post(NO_EVENT)
    assert (answer.status, answer.body["code"]) == (503, "reject_store_unavailable")


@pytest.mark.usefixtures("aws")
def test_garbled_confirmation_is_not_accepted():
    [message] = canonicalise(NO_EVENT)
    refusal = InvalidMessage((Violation(pointer="/event", message="event is required"),))
    client = connect("dynamodb")
    reject = Reject(
        customer_id="acme", message=message, body="{}", settings_header="", refusal=refusal, rejected_at=0.0
    )
    stub = Stubber(client)
    stub.add_response("put_item", {})
    with stub, pytest.raises(RejectStoreUnavailable):
        RejectTable(client, "rejects", retention_days=30).keep(reject)


def test_reject_is_not_written_without_enough_time(deploy):
    destination = deploy()
    event = {
        "headers": {"authorization": "Basic " + base64.b64encode(b"demo-key-good:").decode()},
        "requestContext": {"requestId": "test", "timeEpoch": (datetime.now(UTC).timestamp() - 3) * 1000},
        "body": json.dumps(NO_EVENT),
    }
    answer = destination.send(event)
    assert (answer.status, answer.body["code"], rejects(destination)) == (503, "deadline_close", [])
