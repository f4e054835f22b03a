"""Test the bench with real calls. No test depends on the speed of anything."""

import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from click import ClickException

from bench import batch, instructions, samples, warm
from bench.runtime import cold_start
from bench.samples import ACCEPTED, UNAUTHORISED, Sample
from bench.store_server import CUSTOMER_ID, DUPLICATES_TABLE, GOOD_KEY, UNKNOWN_KEY, StoreServer
from bench.subject import NUMBER
from bench.subjects import (
    CLIENT,
    LARGER,
    TRIMMED,
    Code,
    Subject,
    SubjectProcess,
    checkout_codes,
    destination,
    peer,
    warm_subjects,
)
from destination.deployment.clients import LOCAL_CREDENTIALS, LOCAL_REGION
from handler.keys import hash_key

PYTHON = [sys.executable]


@pytest.fixture(scope="module")
def store():
    with StoreServer() as store:
        yield store


def client(service, store, **options):
    return boto3.client(service, endpoint_url=store.url, region_name=LOCAL_REGION, **LOCAL_CREDENTIALS, **options)


@pytest.fixture(scope="module")
def dynamodb(store):
    return client("dynamodb", store)


def test_the_store_knows_one_key(dynamodb):
    def find(key):
        return dynamodb.get_item(TableName="keys", Key={"key_hash": {"S": hash_key(key)}}).get("Item")

    assert find(UNKNOWN_KEY) is None
    assert find(GOOD_KEY) == {
        "key_hash": {"S": hash_key(GOOD_KEY)},
        "customer_id": {"S": CUSTOMER_ID},
        "status": {"S": "active"},
    }


def test_the_store_returns_capacity_on_request(dynamodb):
    item = {"TableName": "events", "Item": {"subject": {"S": "é"}}}
    assert "ConsumedCapacity" not in dynamodb.put_item(**item)
    assert dynamodb.put_item(**item, ReturnConsumedCapacity="TOTAL")["ConsumedCapacity"]["TableName"] == "events"


def test_condition_fails_only_in_the_table_of_duplicates(dynamodb):
    item = {"Item": {"subject": {"S": "a"}}, "ConditionExpression": "attribute_not_exists(subject)"}
    dynamodb.put_item(TableName="events", **item)
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.put_item(TableName=DUPLICATES_TABLE, **item)


def test_store_accepts_messages(store):
    answer = client("sqs", store).send_message(QueueUrl=f"{store.url}/1/events", MessageBody="é")
    assert answer["MD5OfMessageBody"] == hashlib.md5("é".encode(), usedforsecurity=False).hexdigest()
    assert answer["MessageId"]


def test_store_accepts_messages_in_one_call(store):
    entries = [{"Id": "0", "MessageBody": "é"}, {"Id": "other", "MessageBody": "e"}]
    answer = client("sqs", store).send_message_batch(QueueUrl=f"{store.url}/1/events", Entries=entries)
    assert [sent["Id"] for sent in answer["Successful"]] == ["0", "other"]
    assert answer["Successful"][1]["MD5OfMessageBody"] == hashlib.md5(b"e", usedforsecurity=False).hexdigest()


def test_a_store_can_wait_before_each_response():
    with StoreServer(wait_seconds=0.05) as store:
        began = time.monotonic()
        client("dynamodb", store).put_item(TableName="events", Item={"subject": {"S": "a"}})
        assert time.monotonic() - began >= 0.05


def test_the_store_refuses_an_unknown_operation(dynamodb):
    with pytest.raises(dynamodb.exceptions.ClientError, match="UnknownOperationException"):
        dynamodb.list_tables()


def test_the_store_speaks_tls(tmp_path):
    authority = tmp_path / "ca.pem"
    with StoreServer(tls=True) as store:
        authority.write_bytes(store.authority)
        client("dynamodb", store, verify=str(authority)).put_item(TableName="events", Item={"subject": {"S": "a"}})
        assert store.received().counts == {"PutItem": 1}


PEER_CODES = {**checkout_codes().peers, CLIENT: checkout_codes().client, TRIMMED: checkout_codes().trimmed}


@pytest.mark.parametrize("name", PEER_CODES)
def test_a_peer_stores_a_message(name, store):
    before = store.received().counts["PutItem"]
    with SubjectProcess(peer(name, PEER_CODES[name]), store, PYTHON) as process:
        assert process.call(first=0, count=3).processor > 0
    received = store.received()
    assert received.counts["PutItem"] == before + 3
    assert "ajs-next-1773307792120-00000002" in received.last["PutItem"]


def test_a_wrong_response_is_an_error(store):
    subject = destination("it", checkout_codes().destination, store, Sample(event=UNAUTHORISED.event, status=200))
    with (
        SubjectProcess(subject, store, PYTHON) as process,
        pytest.raises(Exception, match=r"401.* instead of 200"),
    ):
        process.call(first=0, count=1)


@pytest.fixture(scope="module")
def subjects(store):
    return {subject.name: subject for subject in warm_subjects(checkout_codes(), store, PYTHON)}


ACCEPTED_CALL = "destination, DynamoDB, accepted"


def test_warm_divides_by_a_stock_client_with_the_same_size(store, subjects):
    names = ["stock put_item", ACCEPTED_CALL, f"stock put_item{LARGER}", f"{ACCEPTED_CALL}{LARGER}"]
    table = warm.compare([subjects[name] for name in names], store, PYTHON, rounds=2, calls=5)
    stock, accepted, stock_larger, larger = (row[warm.RATIO] for row in table.rows.values())
    assert stock == stock_larger == 1
    assert min(accepted, larger) > 0
    assert subjects[names[3]].reference == names[2]


def test_all_warm_subjects_give_the_expected_response(store, subjects):
    for subject in subjects.values():
        with SubjectProcess(subject, store, PYTHON) as process:
            assert process.call(first=0, count=1).processor > 0


def test_the_subjects_of_instructions_exist(subjects):
    assert {*instructions.SUBJECTS, *instructions.QUICK_SUBJECTS} <= set(subjects)


def test_stock_client_writes_the_same_item_as_the_destination(subjects):
    item = json.loads(subjects["stock put_item"].sample.event)
    message = json.loads(subjects["stock send_message"].sample.event)
    assert NUMBER in item["Item"]["message"]["S"]
    larger = json.loads(subjects[f"stock put_item{LARGER}"].sample.event)
    assert len(larger["Item"]["message"]["S"]) > len(item["Item"]["message"]["S"])
    assert NUMBER in message["MessageBody"]
    assert set(item) == {"TableName", "Item"}


@pytest.mark.parametrize(
    "sample",
    [*(samples.batch(ACCEPTED, size) for size in batch.SIZES), samples.batch(samples.SHORT, 3)],
    ids=lambda sample: sample.word,
)
def test_batch_is_fully_accepted_with_new_ids_each_time(sample, store, subjects):
    with SubjectProcess(subjects[ACCEPTED_CALL], store, PYTHON) as process:
        before = store.received().counts["PutItem"]
        process.send(sample, first=7, count=1)
        written = store.received().counts["PutItem"] - before
        assert f'"accepted": {written},' in sample.word
        assert "ajs-next-1773307792120-00000007-" in store.received().last["PutItem"]


def test_batches_are_divided_by_single_messages(store):
    table = batch.compare(checkout_codes().destination, store, PYTHON, rounds=1, messages=1)
    names = ["single", *(f"batch of {size}" for size in batch.SIZES)]
    assert list(table.rows) == [f"{sink}, {name}" for sink in ("DynamoDB", "SQS") for name in names]
    for name, row in table.rows.items():
        ratios = {row[batch.PROCESSOR_RATIO], row[batch.PACE_RATIO]}
        assert (ratios == {1}) == name.endswith("single")
        assert min(row.values()) > 0


def test_the_largest_batches_take_longer_with_a_share_of_a_processor(store):
    # On a busy machine, the function would run out of time with larger batches.
    batches = {"small": samples.batch(ACCEPTED, 2), "short": samples.batch(samples.SHORT, 3)}
    table = batch.largest(checkout_codes().destination, store, PYTHON, rounds=1, batches=batches)
    assert list(table.rows) == [f"{sink}, {name}" for sink in batch.SINKS for name in batches]
    for row in table.rows.values():
        part = row[batch.MILLISECONDS] / 1000 / row[batch.SECONDS]
        assert part == pytest.approx(512 / 1769, rel=0.01)


RUNTIME_CLIENT = """
import os, sys, urllib.request
api = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"
def ask(path, body=None):
    with urllib.request.urlopen(f"{api}/{path}", body) as answer:
        return answer.headers["Lambda-Runtime-Aws-Request-Id"], answer.read()
request_id, event = ask("next")
ask(f"{request_id}/response", event)
ask("next")
"""
"""A minimal runtime client. Its function returns the event."""


@pytest.fixture
def echo(tmp_path):
    (tmp_path / "awslambdaric.py").write_text(RUNTIME_CLIENT)
    code = Code(folders=(tmp_path,), target="any:thing")
    sample = Sample(event=json.dumps({"statusCode": 200, "number": NUMBER}), status=200)
    return Subject(name="echo", code=code, environment={}, sample=sample)


def test_a_cold_start_lasts_until_the_response(echo, tmp_path):
    start = cold_start(Path(sys.executable), echo, "http://unused", tmp_path / "log", 1)
    assert min(start.init, start.first_request, start.processor) > 0
    assert start.total == start.init + start.first_request


@pytest.mark.parametrize("fault", ["status", "no runtime"])
def test_a_cold_start_without_the_right_response_is_an_error(fault, echo, tmp_path):
    if fault == "status":
        echo = replace(echo, sample=replace(echo.sample, status=202))
    else:
        (tmp_path / "awslambdaric.py").write_text("raise SystemExit('it does not start')")
    with pytest.raises(ClickException, match="echo: "):
        cold_start(Path(sys.executable), echo, "http://unused", tmp_path / "log", 1)
