"""What the stores hold against what was sent."""

from collections import Counter

import pytest

from cli.deliver import End, Ledger
from cli.reconcile import MAX_EMPTY_RECEIVES, QueueDrain, read_table, reconcile
from cli.stack import Account, create_local_stack
from cli.target import Target
from cli.traffic import Sending, Traffic, identity_of
from handler.write import EventQueue, EventTable

TRAFFIC = Traffic(seed=1, customers=3)
RECORDS = [TRAFFIC.record(TRAFFIC.parcel(Sending(index=index))) for index in range(40)]
IDENTITIES = [identity_of(record.facts) for record in RECORDS]
OTHERS = Traffic(seed=2, customers=1)
OTHER = OTHERS.record(OTHERS.parcel(Sending(index=0)))


def ledger(*ends):
    """Return the ledger of messages that ended so."""
    return Ledger(messages=dict(zip(IDENTITIES, ends, strict=False)))


def compare(ends, stored, *, may_double=False):
    return reconcile(ledger(*ends), {IDENTITIES[at]: times for at, times in stored.items()}, may_double=may_double)


def test_all_that_was_sent_and_stored_once_is_well():
    result = compare([End.ACCEPTED, End.ACCEPTED], {0: 1, 1: 1})
    assert (result.messages, result.stored, result.lost, result.stored_twice, result.failed) == (2, 2, 0, 0, False)


@pytest.mark.parametrize(
    ("end", "cause"),
    [(End.ACCEPTED, "lost_accepted"), (End.REFUSED, "lost_refused"), (End.GIVEN_UP, "lost_given_up")],
)
def test_what_ended_and_is_not_stored_is_lost(end, cause):
    result = compare([End.ACCEPTED, end], {0: 1})
    assert (result.lost, getattr(result, cause), result.failed) == (1, 1, True)


def test_what_was_given_up_but_is_stored_is_not_lost():
    assert not compare([End.GIVEN_UP], {0: 1}).failed


def test_what_did_not_end_is_not_lost():
    result = compare([End.UNFINISHED, End.UNFINISHED], {1: 1})
    assert (result.stored, result.lost, result.failed) == (1, 0, False)


def test_every_superfluous_item_counts():
    result = compare([End.ACCEPTED] * 3, {0: 1, 1: 2, 2: 3})
    assert (result.stored, result.stored_twice, result.failed) == (3, 3, True)


def test_a_standard_queue_may_double():
    result = compare([End.ACCEPTED], {0: 2}, may_double=True)
    assert (result.stored_twice, result.failed) == (1, False)


def test_what_is_there_from_other_runs_is_no_matter():
    assert not compare([End.ACCEPTED], {0: 1, 1: 2}).failed


@pytest.mark.parametrize("wrong", ["refused", "accepted_though_invalid"])
def test_a_wrong_judgement_is_a_failure_although_nothing_is_lost(wrong):
    book = ledger(End.ACCEPTED)
    setattr(book, wrong, 1)
    assert reconcile(book, {IDENTITIES[0]: 1}, may_double=False).failed


def test_of_several_deliveries_the_best_end_counts():
    book = Ledger(messages={IDENTITIES[0]: End.UNFINISHED})
    for end in (End.REFUSED, End.ACCEPTED, End.GIVEN_UP):
        book.settle(IDENTITIES[0], end, tries=1)
    assert book.messages[IDENTITIES[0]] is End.ACCEPTED


@pytest.fixture
def target(aws):
    return Target(account=aws, stores=create_local_stack(aws, {}).stores)


@pytest.mark.parametrize("is_local", [False, True], ids=["stack", "local"])
def test_a_table_tells_how_often_it_holds_each_message(target, is_local):
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
    assert stored == Counter(IDENTITIES) + Counter(IDENTITIES[:1])


@pytest.fixture
def queue_url(aws):
    return create_local_stack(aws, {"EventSink": "sqs"}).stores.event_queue_url


def test_a_queue_is_drained_of_what_is_its_own(aws, queue_url):
    sink = EventQueue(aws.sqs(), queue_url)
    for record in (*RECORDS[:12], *RECORDS[:2], OTHER):
        sink.write(record)
    drain = QueueDrain(aws.sqs(), queue_url, TRAFFIC.customer_ids, wait_seconds=0)
    assert drain.take()
    assert drain.finish(set(IDENTITIES[:12])) == Counter(IDENTITIES[:12]) + Counter(IDENTITIES[:2])
    [left] = aws.sqs().receive_message(QueueUrl=queue_url, MessageAttributeNames=["All"])["Messages"]
    assert left["MessageAttributes"]["customer_id"]["StringValue"] == OTHER.customer_id


@pytest.mark.parametrize(("expected", "receives"), [(1, 2), (2, 1 + MAX_EMPTY_RECEIVES)], ids=["all", "one missing"])
def test_a_queue_is_asked_again_while_messages_are_missing(aws, queue_url, expected, receives):
    EventQueue(aws.sqs(), queue_url).write(RECORDS[0])
    client = aws.sqs()
    asked = []
    client.meta.events.register("before-call.sqs.ReceiveMessage", lambda **call: asked.append(call))
    drain = QueueDrain(client, queue_url, TRAFFIC.customer_ids, wait_seconds=0)
    assert drain.finish(set(IDENTITIES[:expected])) == Counter(IDENTITIES[:1])
    assert len(asked) == receives
