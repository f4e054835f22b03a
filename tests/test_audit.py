"""Test that the judge of `destination simulate` names what is wrong with a stored message."""

import time
from collections import Counter
from dataclasses import replace

import pytest
from simulated import record_of

from destination.deployment.stack import Account, create_local_stack
from destination.deployment.target import Target
from destination.simulation import audit as promises
from destination.simulation.audit import Audit
from destination.simulation.fingerprint import Fingerprint, variant_of
from destination.simulation.ledger import Book, Copy, End, Ledger
from destination.simulation.reconcile import QueueDrain, read_table
from destination.simulation.traffic import Sending, Traffic
from handler.sinks.dynamodb import EventTable
from handler.sinks.sqs import EventQueue

TYPES = ("identify", "track", "page", "group")
TRAFFIC = Traffic(seed=1, customers=3, call_types=TYPES)
MESSAGES = 12
DAYS = 30
NOW = time.time()


def entered(*, copies=1):
    """Return a ledger in which all messages were accepted, and each copy after the one before."""
    ledger = Ledger()
    for index in range(MESSAGES):
        book = Book(sending=Sending(index=index))
        for copy in range(copies):
            due = TRAFFIC.due(TRAFFIC.parcel(Sending(index=index, copy=copy)))
            variant = variant_of(due.facts["timestamp"], due.body)
            book.copies[variant] = Copy(begun=10.0 * copy, accepted=10.0 * copy + 1)
        fingerprint = Fingerprint.of_due(due)
        ledger.messages[fingerprint] = End.ACCEPTED
        ledger.books[fingerprint] = book
    return ledger


class Table:
    """An event table with the messages, as the handler writes them."""

    def __init__(self, aws, *, copy=0):
        stores = create_local_stack(aws, {"EventRetentionDays": str(DAYS)}).stores
        self.target = Target(account=aws, stores=stores)
        self.client = aws.dynamodb()
        sink = EventTable(self.client, stores.event_table, retention_days=DAYS)
        self.records = [
            record_of(TRAFFIC, TRAFFIC.parcel(Sending(index=index, copy=copy)), stored_at=NOW)
            for index in range(MESSAGES)
        ]
        for record in self.records:
            sink.write(record)

    def change(self, place, **changes):
        """Change an attribute of a stored message. None removes it."""
        record = self.records[place]
        key = {"subject": {"S": record.subject}, "position": {"S": record.position}}
        item = self.client.get_item(TableName=self.target.stores.event_table, Key=key)["Item"]
        self.client.delete_item(TableName=self.target.stores.event_table, Key=key)
        item = {name: value for name, value in (item | changes).items() if value is not None}
        if changes != {"subject": None}:
            self.client.put_item(TableName=self.target.stores.event_table, Item=item)

    def breaches(self, ledger=None, **circumstances):
        """Return the findings of the audit."""
        ledger = ledger or entered()
        audit = Audit(self.target, TRAFFIC, ledger, **{"began_at": NOW - 1, "may_have_sent": False} | circumstances)
        counts = Counter()
        subjects = {record.subject for record in self.records} | {"elsewhere", f"{TRAFFIC.customer_ids[1]}#user#u"}
        for stored in read_table(self.target, subjects=subjects, customer_ids=TRAFFIC.customer_ids):
            fingerprint = Fingerprint.of_stored(stored)
            counts[fingerprint] += 1
            audit.take(stored, fingerprint)
        audit.finish(counts)
        return ledger.breaches


@pytest.fixture
def table(aws):
    return Table(aws)


def test_audit_finds_nothing_in_the_handlers_items(table):
    assert list(table.breaches().lines()) == []


DAMAGES = {
    "another message": ({"message": {"S": '{"type":"track"}'}}, promises.SAME_CONTENT, "message"),
    "another event": ({"event": {"S": "Order Cancelled"}}, promises.SAME_CONTENT, "event"),
    "an attribute more": ({"write_key": {"S": "secret"}}, promises.SAME_CONTENT, "write_key"),
    "another position": ({"position": {"S": "elsewhere"}}, promises.OWN_KEY, "position"),
    "another subject": ({"subject": {"S": "elsewhere"}}, promises.OWN_KEY, "subject"),
    "hours for days": ({"expires_at": {"N": str(int(NOW) + DAYS * 3600)}}, "EventRetentionDays", "108,000 seconds"),
    "no expiry": ({"expires_at": None}, "EventRetentionDays", "found never"),
    "no time of storing": ({"stored_at": None}, "stored_at", "expected a time"),
    "a time of storing of long ago": ({"stored_at": {"S": "2001-01-01T00:00:00.000000Z"}}, "stored_at", "2001"),
    "another timestamp": ({"timestamp": {"S": "2001-01-01T00:00:00.000000Z"}}, promises.KNOWN_COPY, "sentAt"),
    "nothing": ({"subject": None}, promises.NOT_LOST, "found none"),
}


@pytest.mark.parametrize(("changes", "promise", "words"), DAMAGES.values(), ids=DAMAGES)
def test_changed_message_is_named(table, changes, promise, words):
    table.change(3, **changes)
    breaches = table.breaches()
    text = "\n".join(breaches.lines())
    assert promise in text
    assert words in text
    assert table.records[3].customer_id in text


def test_message_stored_under_another_customer_is_named(table):
    other = TRAFFIC.customer_ids[1]
    table.change(3, subject={"S": f"{other}#user#u"}, customer_id={"S": other})
    assert f"found it is stored for the customer {other}" in "\n".join(table.breaches().lines())


@pytest.mark.parametrize(
    ("stored_at", "found"),
    [
        ("2001-01-01T00:00:00.000000Z", "found none"),
        ("2099-01-01T00:00:00.000000Z", "found it is stored for the customer stranger"),
    ],
)
def test_lost_message_is_not_looked_for_in_items_of_earlier_runs(table, stored_at, found):
    table.target = replace(table.target, account=Account(endpoint_url=table.client.meta.endpoint_url))
    stranger = {"subject": {"S": "stranger#user#u"}, "customer_id": {"S": "stranger"}, "stored_at": {"S": stored_at}}
    table.change(3, **stranger)
    assert found in "\n".join(table.breaches().lines())


def test_copy_that_replaced_the_first_is_found(aws):
    table = Table(aws, copy=1)
    breaches = table.breaches(entered(copies=2))
    assert breaches.times == {promises.FIRST_WRITE: MESSAGES}


def test_either_of_two_concurrent_copies_may_be_first(aws):
    ledger = entered(copies=2)
    for book in ledger.books.values():
        for copy in book.copies.values():
            copy.begun = 0
    assert not Table(aws, copy=1).breaches(ledger)


def test_item_of_an_earlier_run_may_be_any_copy(aws):
    assert not Table(aws, copy=1).breaches(entered(copies=1), may_have_sent=True)


ENVELOPES = {
    "another type": ("MessageAttributes", "type"),
    "another message id": ("MessageAttributes", "message_id"),
    "another group": ("MessageGroupId", None),
    "another deduplication id": ("MessageDeduplicationId", None),
}


@pytest.mark.parametrize(("part", "name"), ENVELOPES.values(), ids=ENVELOPES)
def test_a_queue_message_with_a_wrong_envelope_is_named(aws, part, name):
    stores = create_local_stack(aws, {"EventSink": "sqs", "EventQueueType": "fifo"}).stores
    target = Target(account=aws, stores=stores)
    ledger, client = entered(), aws.sqs()
    sink = EventQueue(client, stores.event_queue_url)
    audit = Audit(target, TRAFFIC, ledger, began_at=NOW - 1, may_have_sent=False)

    def spoil(params, **_call):
        if name:
            params[part][name]["StringValue"] = "wrong"
        else:
            params[part] = "wrong"

    sink.write(record_of(TRAFFIC, TRAFFIC.parcel(Sending(index=0)), stored_at=NOW))
    client.meta.events.register("provide-client-params.sqs.SendMessage", spoil)
    sink.write(record_of(TRAFFIC, TRAFFIC.parcel(Sending(index=1)), stored_at=NOW))
    drain = QueueDrain(client, stores.event_queue_url, TRAFFIC.customer_ids, wait_seconds=0)
    drain.audit = audit.take
    drain.finish(frozenset())
    assert ledger.breaches.times == {f"a queue message has the expected {name or part}": 1}
