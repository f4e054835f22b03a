"""Test the comparison of the stores with the sent messages."""

import time
import zlib
from collections import Counter

import pytest
from simulated import record_of

from destination.deployment.stack import Account, create_local_stack
from destination.deployment.target import Target
from destination.simulation.fingerprint import Fingerprint, reject_key
from destination.simulation.ledger import End, Ledger, SentReject
from destination.simulation.reconcile import MAX_EMPTY_RECEIVES, QueueDrain, read_table, reconcile
from destination.simulation.rejects import compare_rejects
from destination.simulation.traffic import Sending, Traffic
from handler.canonicalise import Message
from handler.errors import MissingType
from handler.reject import Reject, RejectTable
from handler.sinks.dynamodb import EventTable
from handler.sinks.sqs import EventQueue

TRAFFIC = Traffic(seed=1, customers=3)
PARCELS = [TRAFFIC.parcel(Sending(index=index)) for index in range(40)]
RECORDS = [record_of(TRAFFIC, parcel, stored_at=time.time()) for parcel in PARCELS]
FINGERPRINTS = [Fingerprint.of_due(TRAFFIC.due(parcel)) for parcel in PARCELS]
OTHERS = Traffic(seed=2, customers=1)
OTHER = record_of(OTHERS, OTHERS.parcel(Sending(index=0)))


def ledger(*ends):
    """Return the ledger of messages with these ends."""
    return Ledger(messages=dict(zip(FINGERPRINTS, ends, strict=False)))


def compare(ends, stored, **circumstances):
    return reconcile(ledger(*ends), {FINGERPRINTS[at]: times for at, times in stored.items()}, **circumstances)


def test_everything_stored_once_is_correct():
    result = compare([End.ACCEPTED, End.ACCEPTED], {0: 1, 1: 1})
    assert (result.messages, result.stored, result.lost, result.stored_twice, result.failed) == (2, 2, 0, 0, False)


@pytest.mark.parametrize(
    ("end", "cause"),
    [(End.ACCEPTED, "lost_accepted"), (End.REFUSED, "lost_refused"), (End.GIVEN_UP, "lost_given_up")],
)
def test_finished_message_that_is_not_stored_is_lost(end, cause):
    result = compare([End.ACCEPTED, end], {0: 1})
    assert (result.lost, getattr(result, cause), result.failed) == (1, 1, True)


def test_given_up_message_that_is_stored_is_not_lost():
    assert not compare([End.GIVEN_UP], {0: 1}).failed


def test_unfinished_message_is_not_lost():
    result = compare([End.UNFINISHED, End.UNFINISHED], {1: 1})
    assert (result.stored, result.lost, result.failed) == (1, 0, False)


def test_every_additional_item_counts():
    result = compare([End.ACCEPTED] * 3, {0: 1, 1: 2, 2: 3})
    assert (result.stored, result.stored_twice, result.failed) == (3, 3, True)


def test_a_queue_may_double():
    result = compare([End.ACCEPTED], {0: 2}, may_double=True)
    assert (result.stored_twice, result.failed) == (1, False)


def test_unsent_message_in_the_store_is_a_fault():
    result = compare([End.ACCEPTED], {0: 1, 1: 2})
    assert (result.stored_unsent, result.stored_otherwise, result.stored, result.failed) == (2, 0, 1, True)


def test_messages_of_earlier_runs_are_not_a_fault():
    result = compare([End.ACCEPTED], {0: 1, 1: 2}, may_have_sent=True)
    assert (result.stored_unsent, result.failed) == (2, False)


def test_message_with_other_content_is_stored_otherwise_and_not_lost():
    other = FINGERPRINTS[0]._replace(content=FINGERPRINTS[1].content)
    result = reconcile(ledger(End.ACCEPTED), {other: 1})
    assert (result.stored, result.stored_otherwise, result.stored_unsent) == (1, 1, 0)
    assert (result.lost, result.stored_twice, result.failed) == (0, 0, True)


def test_missing_messages_may_be_held_by_other_consumers():
    result = compare([End.ACCEPTED, End.ACCEPTED], {0: 1}, others_seen=7)
    assert (result.others_may_hold, result.lost_accepted, result.is_wrong, result.failed) == (True, 1, False, True)


@pytest.mark.parametrize(("end", "others"), [(End.ACCEPTED, 0), (End.REFUSED, 7), (End.GIVEN_UP, 7)])
def test_only_accepted_messages_may_be_held_by_other_consumers(end, others):
    assert not compare([end], {}, others_seen=others).others_may_hold


@pytest.mark.parametrize("wrong", ["refused", "accepted_though_invalid"])
def test_a_wrong_judgement_is_a_failure_although_nothing_is_lost(wrong):
    book = ledger(End.ACCEPTED)
    setattr(book, wrong, 1)
    assert reconcile(book, {FINGERPRINTS[0]: 1}).failed


def test_best_end_of_several_deliveries_counts():
    book = Ledger(messages={FINGERPRINTS[0]: End.UNFINISHED})
    for end in (End.REFUSED, End.ACCEPTED, End.GIVEN_UP):
        book.settle(FINGERPRINTS[0], end, tries=1)
    assert book.messages[FINGERPRINTS[0]] is End.ACCEPTED


@pytest.fixture
def target(aws):
    return Target(account=aws, stores=create_local_stack(aws, {}).stores)


@pytest.mark.parametrize("is_local", [False, True], ids=["stack", "local"])
def test_items_per_message_are_counted(target, is_local):
    table = target.stores.event_table
    client = target.account.dynamodb()
    sink = EventTable(client, table, retention_days=0)
    for record in (*RECORDS, *RECORDS[:5], OTHER):
        sink.write(record)
    [item] = client.query(
        TableName=table,
        KeyConditionExpression="subject = :s and #p = :p",
        ExpressionAttributeNames={"#p": "position"},
        ExpressionAttributeValues={":s": {"S": RECORDS[0].subject}, ":p": {"S": RECORDS[0].position}},
    )["Items"]
    client.put_item(TableName=table, Item={**item, "position": {"S": "2020-01-01T00:00:00.000000Z#elsewhere"}})
    account = Account(endpoint_url=client.meta.endpoint_url if is_local else None)
    reached = Target(account=account, stores=target.stores)
    assert reached.is_local == is_local
    subjects = {record.subject for record in RECORDS}
    stored = read_table(reached, subjects=subjects, customer_ids=TRAFFIC.customer_ids)
    found = Counter(map(Fingerprint.of_stored, stored))
    [moved] = found - Counter(FINGERPRINTS)
    assert found - Counter([moved]) == Counter(FINGERPRINTS)
    assert moved.content == FINGERPRINTS[0].content


DAMAGES = {
    "another message": {"message": {"S": '{"type":"track"}'}},
    "no JSON": {"message": {"S": '{"type":'}},
    "not compressed": {"message": {"B": b"{}"}},
    "not UTF-8": {"message": {"B": zlib.compress(b"\xff")}},
    "no message": {"message": None},
    "settings that nobody has": {"settings": {"S": '{"region":"us"}'}},
    "another event": {"event": {"S": "Order Cancelled"}},
    "an attribute that nobody knows": {"write_key": {"S": "x"}},
    "a number that nobody knows": {"version": {"N": "2"}},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_changed_items_are_found(target, damage):
    client, table = target.account.dynamodb(), target.stores.event_table
    record = RECORDS[0]
    EventTable(client, table, retention_days=0).write(record)
    key = {"subject": {"S": record.subject}, "position": {"S": record.position}}
    item = client.get_item(TableName=table, Key=key)["Item"] | damage
    client.put_item(TableName=table, Item={name: value for name, value in item.items() if value})
    [item] = read_table(target, subjects={record.subject}, customer_ids=TRAFFIC.customer_ids)
    stored = Fingerprint.of_stored(item)
    assert stored.identity == FINGERPRINTS[0].identity
    assert stored.content != FINGERPRINTS[0].content


@pytest.fixture
def queue_url(aws):
    return create_local_stack(aws, {"EventSink": "sqs"}).stores.event_queue_url


def test_only_own_messages_are_taken_from_the_queue(aws, queue_url):
    sink = EventQueue(aws.sqs(), queue_url)
    for record in (*RECORDS[:12], *RECORDS[:2], OTHER):
        sink.write(record)
    drain = QueueDrain(aws.sqs(), queue_url, TRAFFIC.customer_ids, wait_seconds=0)
    assert drain.take()
    assert drain.finish(set(FINGERPRINTS[:12])) == Counter(FINGERPRINTS[:12]) + Counter(FINGERPRINTS[:2])
    assert drain.others_seen == 1
    [left] = aws.sqs().receive_message(QueueUrl=queue_url, MessageAttributeNames=["All"])["Messages"]
    assert left["MessageAttributes"]["customer_id"]["StringValue"] == OTHER.customer_id


@pytest.mark.parametrize(("forgets", "times"), [(True, 1), (False, 2)])
def test_message_delivered_again_by_a_fifo_queue_counts_once(aws, forgets, times):
    parameters = {"EventSink": "sqs", "EventQueueType": "fifo"}
    sink = EventQueue(aws.sqs(), url := create_local_stack(aws, parameters).stores.event_queue_url)
    drain = QueueDrain(aws.sqs(), url, TRAFFIC.customer_ids, forgets=forgets, wait_seconds=0)
    for _ in range(2):
        sink.write(RECORDS[0])
        assert drain.take()
    assert drain.stored == {FINGERPRINTS[0]: times}


@pytest.mark.parametrize(("expected", "receives"), [(1, 2), (2, 1 + MAX_EMPTY_RECEIVES)], ids=["all", "one missing"])
def test_queue_is_polled_while_messages_are_missing(aws, queue_url, expected, receives):
    EventQueue(aws.sqs(), queue_url).write(RECORDS[0])
    client = aws.sqs()
    asked = []
    client.meta.events.register("before-call.sqs.ReceiveMessage", lambda **call: asked.append(call))
    drain = QueueDrain(client, queue_url, TRAFFIC.customer_ids, wait_seconds=0)
    assert drain.finish(set(FINGERPRINTS[:expected])) == Counter(FINGERPRINTS[:1])
    assert len(asked) == receives


OWN, OTHERS_OWN = TRAFFIC.customer_ids[0], "acme"


def keep(target, number, *, customer_id=OWN):
    """Keep a reject of a batch as the function does."""
    body = json_of(number)
    reject = Reject(
        customer_id=customer_id,
        message=Message(body={}, time="", timestamp=None),
        body=body,
        repeated=body,
        settings_header="",
        refusal=MissingType(),
        rejected_at=time.time(),
        index=0,
    )
    assert RejectTable(target.account.dynamodb(), target.stores.rejects_table, retention_days=1).keep(reject)


def rejected(*bodies, kept=()):
    """Return a ledger of messages that may be among the rejects (`bodies`), and that must be there (`kept`)."""
    keys = {body: reject_key(OWN, {"number": body}, "") for body in bodies}
    sent = {
        keys[body]: SentReject(sending=Sending(index=0), subject=f"subject of {body}", code="missing_type")
        for body in bodies
    }
    return Ledger(rejects=sent, kept={keys[body] for body in kept})


def json_of(number):
    return f'{{"number":"{number}"}}'


REJECTS = {
    "all that must be": (rejected("1", "2", kept=("1", "2")), (2, 0, 0)),
    "one that may be": (rejected("1", "2", kept=("1",)), (2, 0, 0)),
    "one that is missing": (rejected("1", "2", "3", kept=("1", "3")), (2, 1, 0)),
    "one that nobody sent": (rejected("1", kept=("1",)), (1, 0, 1)),
    "one that is erased": (rejected("1", "2", "gone", kept=("1", "2", "gone")), (2, 0, 0)),
}


@pytest.mark.parametrize("is_local", [False, True], ids=["stack", "local"])
@pytest.mark.parametrize(("book", "told"), REJECTS.values(), ids=REJECTS)
def test_rejects_are_compared_with_the_refusals(target, book, told, is_local):
    client = target.account.dynamodb()
    keep(target, "1")
    keep(target, "2")
    keep(target, "1", customer_id=OTHERS_OWN)
    reached = Target(account=Account(endpoint_url=client.meta.endpoint_url if is_local else None), stores=target.stores)
    found = compare_rejects(reached, book, TRAFFIC, erased={"subject of gone"})
    assert (found.kept, found.missing, found.unsent) == told
