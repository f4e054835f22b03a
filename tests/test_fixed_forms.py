"""Test the stored and sent forms as literal values, because other versions and other programs read them.

A changed key or hash loses stored data: a resend is stored again, an API key is unknown, an erasure finds nobody.
"""

import pytest

from consumer.contacts.table import ContactTable
from consumer.erasure.subject import Link, linked_subject
from consumer.erasure.table import ErasureRequest, ErasureTable
from destination.deployment.stack import load_template
from handler.canonicalise import canonicalise, repeated
from handler.erased import tombstone_key
from handler.errors import InvalidMessage, Violation
from handler.items import json_text
from handler.keys import hash_key
from handler.record import Record
from handler.reject import Reject, RejectTable
from handler.sinks.dynamodb import EventTable
from handler.sinks.sqs import EventQueue

STORED_AT = 1_936_785_600.0
PAYLOAD = {
    "type": "Track",
    "userId": "ü#1",
    "anonymousId": "5f0c",
    "event": "Lamp Lit",
    "properties": {"b": [1, 2.5], "a": None, "é": "\u2028"},
    "originalTimestamp": "2031-05-17T12:00:00+02:00",
    "timestamp": "2031-05-17T10:00:01Z",
    "sentAt": "2031-05-17T10:00:02Z",
}
SETTINGS = {"list": 7, "é": "x"}
[MESSAGE] = canonicalise(PAYLOAD)

MESSAGE_ID = "derived-d62fa6ac8aaccf79162d7bb6078c35d976355df8168cc2f1242bd0c87c32d700"
SUBJECT = "acme%231#user#ü%231"
POSITION = f"2031-05-17T10:00:00.000000Z#{MESSAGE_ID}"
IDS = {"type": "track", "message_id": MESSAGE_ID, "user_id": "ü#1", "anonymous_id": "5f0c"}
BODY = (
    '{"type":"track","user_id":"ü#1","anonymous_id":"5f0c","event":"Lamp Lit",'
    '"properties":{"b":[1,2.5],"a":null,"é":"\u2028"},"original_timestamp":"2031-05-17T12:00:00+02:00",'
    f'"timestamp":"2031-05-17T10:00:01Z","sent_at":"2031-05-17T10:00:02Z","message_id":"{MESSAGE_ID}"}}'
)


class Confirming:
    """A DynamoDB or SQS client that records requests, and confirms all of them."""

    def __init__(self):
        self.asked = []

    def __getattr__(self, operation):
        def call(**parameters):
            self.asked.append(parameters)
            return {"ConsumedCapacity": {}, "MessageId": "m"}

        return call


def record(message=MESSAGE):
    return Record(customer_id="acme#1", message=message, settings=SETTINGS, stored_at=STORED_AT)


def texts(item):
    return {name: value["S"] for name, value in item.items() if "S" in value}


def test_event_table_item_has_its_fixed_form():
    client = Confirming()
    EventTable(client, "events", retention_days=30).write(record())
    [put] = client.asked
    assert texts(put["Item"]) == {
        "subject": SUBJECT,
        "position": POSITION,
        "customer_id": "acme#1",
        **IDS,
        "event": "Lamp Lit",
        "timestamp": "2031-05-17T10:00:01.000000Z",
        "stored_at": "2031-05-17T12:00:00.000000Z",
        "settings": '{"list":7,"é":"x"}',
        "message": BODY,
    }
    assert put["Item"]["expires_at"] == {"N": "1939377600"}


def test_event_queue_message_has_its_fixed_form():
    client = Confirming()
    EventQueue(client, "https://sqs/events").write(record())
    [sent] = client.asked
    attributes = {name: attribute["StringValue"] for name, attribute in sent["MessageAttributes"].items()}
    assert attributes == {"customer_id": "acme%231", "type": "track", "message_id": MESSAGE_ID}
    body = (
        f'{{"subject":"{SUBJECT}","position":"{POSITION}","customer_id":"acme#1","type":"track",'
        f'"message_id":"{MESSAGE_ID}","user_id":"ü#1","anonymous_id":"5f0c","event":"Lamp Lit",'
        '"timestamp":"2031-05-17T10:00:01.000000Z","stored_at":"2031-05-17T12:00:00.000000Z",'
        f'"settings":{{"list":7,"é":"x"}},"message":{BODY}}}'
    )
    escaped = {"ü": r"\u00fc", "é": r"\u00e9", "\u2028": r"\u2028"}
    assert sent["MessageBody"] == "".join(escaped.get(character, character) for character in body)


@pytest.mark.parametrize(
    ("call_type", "deduplication_id"),
    [
        ("track", "ebd391ef54e4a5740e1fd29aa4cc059d296c8f8fdf0053821f195ab4a008573f"),
        ("delete", "8e8d68e46c346e89d0508de0139fdc0ebf0c8b72a7344261af33af1f7636f4c0"),
    ],
)
def test_fifo_ids_have_their_fixed_form(call_type, deduplication_id):
    client = Confirming()
    EventQueue(client, "https://sqs/events.fifo").write(record(*canonicalise({**PAYLOAD, "type": call_type})))
    [sent] = client.asked
    assert sent["MessageGroupId"] == "73e0e7ad37bf117e925cbdc865ba222fbeb4c1929ecfbbacf43f4bdf36c6b90d"
    assert sent["MessageDeduplicationId"] == deduplication_id


@pytest.mark.parametrize(
    ("of_batch", "body_hash"),
    [
        ({}, "896d2207395bd2b5fc4edc69b936090f8c8b71a02a114dcacb2f1537b4307506"),
        (
            {"repeated": json_text(repeated(MESSAGE.body)), "index": 3},
            "9a41f54b9dce7a556eda3013567770b7351f4a9e3e1b3d8e4524059177cfb15c",
        ),
    ],
)
def test_rejects_table_item_has_its_fixed_form(of_batch, body_hash):
    client = Confirming()
    reject = Reject(
        customer_id="acme#1",
        message=MESSAGE,
        body="{}",
        settings_header="eyJ4",
        refusal=InvalidMessage((Violation(pointer="/event", message="event is required"),)),
        rejected_at=STORED_AT,
        **of_batch,
    )
    assert RejectTable(client, "rejects", retention_days=30).keep(reject)
    [put] = client.asked
    assert texts(put["Item"]) == {
        "customer_day_shard": f"acme%231#2031-05-17#{body_hash[0]}",
        "body_hash": body_hash,
        "customer_id": "acme#1",
        **IDS,
        "subject": SUBJECT,
        "rejected_at": "2031-05-17T12:00:00.000000Z",
        "code": "invalid_message",
        "answer": "event is required",
        "violations": '[{"pointer": "/event", "message": "event is required"}]',
        "settings": "eyJ4",
        "body": "{}",
        **({"batch_index": "3"} if of_batch else {}),
    }
    assert put["Item"]["expires_at"] == {"N": "1939377600"}


def test_json_with_half_of_a_surrogate_pair_is_escaped():
    assert json_text({"é": ["\ud800", 1]}) == r'{"\u00e9":["\ud800",1]}'


def test_api_key_hash_has_its_fixed_form():
    assert hash_key("dd_live_key") == "511700bf82aa2619332c8ee6581bf1e1e449ed2ed1b4e2f1ca98eb7b7034bd90"


USER_HASH = "73e0e7ad37bf117e925cbdc865ba222fbeb4c1929ecfbbacf43f4bdf36c6b90d"


def test_erasure_table_items_have_their_fixed_form():
    client = Confirming()
    request = ErasureRequest(
        customer_id="acme#1", subject=SUBJECT, requested_at="2031-05-17T12:00:00.000000Z", message_id="d-1"
    )
    table = ErasureTable(client, "erasures")
    table.leave_tombstone(request)
    progress = table.begin(request, scope="linked", now="2031-05-17T12:00:01.000000Z")
    table.note(progress.linking(["l"]).counting("messages", frozenset({"k"})))
    tombstone, _, receipt = (put["Item"] for put in client.asked)
    assert tombstone == {
        **tombstone_key("acme#1", SUBJECT),
        "customer": {"S": "acme%231"},
        "erasure": {"S": USER_HASH},
        "requested_at": {"S": "2031-05-17T12:00:00.000000Z"},
    }
    assert receipt == {
        "customer": {"S": "acme%231"},
        "erasure": {"S": f"{USER_HASH}#2031-05-17T12:00:00.000000Z"},
        "customer_id": {"S": "acme#1"},
        "user_hash": {"S": USER_HASH},
        "requested_at": {"S": "2031-05-17T12:00:00.000000Z"},
        "started_at": {"S": "2031-05-17T12:00:01.000000Z"},
        "scope": {"S": "linked"},
        "message_id": {"S": "d-1"},
        "linked_ids": {"N": "1"},
        "messages": {"N": "1"},
        "rejects": {"N": "0"},
        "linked_messages": {"N": "0"},
        "linked_rejects": {"N": "0"},
        "finished_at": {"S": ""},
        "page": {"SS": ["k"]},
        "links": {"SS": ["l"]},
    }


def test_subject_of_a_linked_id_has_its_fixed_form():
    assert linked_subject("acme#1", Link("previous", "ü#1")) == "acme%231#anonymous#ü%231"


NOON = "2031-05-17T12:00:00.000000Z"
USER = "88173365bd531521456c693ae13f50e2cd88ce581ce953ac7af930dcef50c864"
VISITOR = "8ffddbd8c735811613cc54c81e45c9690f82c377795459460cdfd66812dcd6bc"


def test_contact_table_items_have_their_fixed_form(aws):
    client = aws.dynamodb()
    declared = load_template()["Resources"]["ContactTable"]["Properties"]
    names = ("BillingMode", "AttributeDefinitions", "KeySchema")
    client.create_table(TableName="contacts", **{name: declared[name] for name in names})
    common = {"message_id": "m#1", "user_id": "ü#1", "original_timestamp": NOON, "received_at": NOON}
    for message in (
        {"type": "identify", "traits": {"b": [1, 2.5], "é": "x"}},
        {"type": "group", "group_id": "g#1", "traits": {"plan": "pro"}},
        {"type": "track", "event": "Lamp #1"},
        {"type": "track", "event": "Lamp #1", "original_timestamp": "2031-05-18T12:00:00.000000Z"},
        {"type": "alias", "previous_id": "5f0c"},
    ):
        ContactTable(client, "contacts", customer="acme#1").take({**common, **message})
    items = {
        item["item"]["S"]: {name: next(iter(value.values())) for name, value in item.items()}
        for item in client.scan(TableName="contacts", ConsistentRead=True)["Items"]
    }
    assert {item["customer"] for item in items.values()} == {"acme%231"}
    assert {name: item["facts"] for name, item in items.items() if "facts" in item} == {
        "account#378557794dfe2bda5b699cdc0ad7bac79c2e4b469659032a1be6cf620a3a095b": (
            f'{{"id":"g#1","last_seen":"{NOON}","traits":{{"plan":["{NOON}","m#1","pro"]}}}}'
        ),
        f"contact#{USER}": (
            f'{{"id":"ü#1","last_seen":"{NOON}","traits":{{"b":["{NOON}","m#1",[1,2.5]],"é":["{NOON}","m#1","x"]}},'
            f'"groups":{{"g#1":["{NOON}","m#1",null]}},"has_parts":true}}'
        ),
        f"contact#{VISITOR}": f'{{"id":"5f0c","merged_into":["{NOON}","m#1","{USER}"]}}',
    }
    seen = f"seen#{USER}#2031-05-17#6dc21f9d578a7eebfbdbef892e78a87483c54c8aef4395325c22f6ea753fc0c5"
    assert items[f"part#{USER}#{VISITOR}"]["time"] == NOON
    assert items[seen]["event"] == "Lamp #1"
    assert set(items[seen]["messages"]) == {
        f"{NOON}#b06b2a652660",
        f"2031-05-18T12:00:00.000000Z#b06b2a652660#{NOON}",
    }
    assert len(items) == 5
