"""Test that `destination simulate` sees what an eraser did, and what it did not do."""

import math
from collections import Counter

import pytest
from simulated import record_of

from consumer.erasure.subject import Eraser, Scope
from consumer.erasure.table import ErasureRequest, ErasureTable
from consumer.runtime.clients import background_client
from destination.deployment.stack import create_local_stack
from destination.deployment.target import Target
from destination.segment.due import Due, Moments, read_sortable, sha256
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.ledger import End, Ledger
from destination.simulation.reconcile import read_table, reconcile
from destination.simulation.traffic import Sending, Traffic
from destination.simulation.witness import Witness
from handler.canonicalise import canonicalise
from handler.errors import InvalidMessage, Violation
from handler.reject import Reject, RejectTable
from handler.sinks.dynamodb import EventTable
from handler.spec import CALL_TYPES

TYPES = tuple(call_type for call_type in CALL_TYPES if call_type != "delete")
TRAFFIC = Traffic(seed=28, customers=2, call_types=TYPES, deletes=0.1)
MESSAGES = 40
SUBJECTS = TRAFFIC.doomed_subjects


def recorded(parcel):
    return record_of(TRAFFIC, parcel)


def fingerprint(record):
    return Fingerprint.of_due(
        Due(
            customer_id=record.customer_id,
            body=record.message.body,
            settings=record.settings,
            moments=Moments(
                original=None if record.message.time == "undated" else read_sortable(record.message.time),
                timestamp=None,
            ),
        )
    )


DOOMED = [
    record
    for index in range(MESSAGES)
    if (record := recorded(TRAFFIC.parcel(Sending(index=index)))).subject in SUBJECTS
]
SUBJECT = DOOMED[0].subject
"""A user with messages, who will be erased."""


class Stage:
    """A deployment. The test plays its endpoint and its eraser."""

    def __init__(self, aws, scope=Scope.USER):
        self.target = Target(account=aws, stores=create_local_stack(aws, {"ErasureScope": scope}).stores)
        self.client = aws.dynamodb()
        self.ledger = Ledger()
        self.erasures = ErasureTable(self.client, self.target.stores.erasure_table)
        self.witness = self.new_witness()

    def new_witness(self):
        return Witness(self.target, TRAFFIC.customer_ids)

    def deliver(self, *sendings, end=End.ACCEPTED):
        for sending in sendings:
            record = recorded(TRAFFIC.parcel(sending))
            EventTable(self.client, self.target.stores.event_table, retention_days=0).write(record)
            self.note(sending, end)

    def note(self, sending, end):
        record = recorded(TRAFFIC.parcel(sending))
        self.ledger.messages[fingerprint(record)] = end
        if sending.deletes:
            self.ledger.deletes[record.subject] = fingerprint(record)

    def reject(self, subject, number):
        customer_id, _, user_id = subject.split("#")
        reject = Reject(
            customer_id=customer_id,
            message=canonicalise({"type": "track", "userId": user_id})[0],
            body=f"{number}",
            repeated=f"{number}",
            settings_header="",
            refusal=InvalidMessage((Violation(pointer="", message="no"),)),
            rejected_at=0,
        )
        assert RejectTable(self.client, self.target.stores.rejects_table, retention_days=1).keep(reject)

    def erase(self, subjects=SUBJECTS, requested_at="2031"):
        stores = self.target.stores
        eraser = Eraser(
            background_client("dynamodb"),
            event_table=stores.event_table,
            rejects_table=stores.rejects_table,
            erasures=self.erasures,
            scope=Scope(stores.erasure_scope),
            sleep=lambda _seconds: None,
        )
        for subject in subjects:
            customer_id = subject.split("#")[0]
            request = ErasureRequest(customer_id=customer_id, subject=subject, requested_at=requested_at)
            eraser.erase(request, until=math.inf)

    def receipt(self, subject=SUBJECT):
        [receipt] = self.erasures.receipts(subject.split("#")[0], user_hash=sha256(subject))
        return receipt

    def change(self, receipt, **changes):
        [(name, value)] = changes.items()
        self.client.update_item(
            TableName=self.target.stores.erasure_table,
            Key={
                "customer": {"S": receipt.customer_id},
                "erasure": {"S": f"{receipt.user_hash}#{receipt.requested_at}"},
            },
            UpdateExpression="SET #name = :value",
            ExpressionAttributeNames={"#name": name},
            ExpressionAttributeValues={":value": {"S": value} if isinstance(value, str) else {"N": str(value)}},
        )

    def judge(self):
        settled = self.witness.wait(self.ledger, tell=str, max_wait_seconds=0)
        return self.witness.judge(self.ledger, settled=settled)

    def reconcile(self):
        erasures = self.judge()
        subjects = {recorded(TRAFFIC.parcel(Sending(index=index))).subject for index in range(MESSAGES)}
        found = read_table(self.target, subjects=subjects, customer_ids=TRAFFIC.customer_ids)
        stored = Counter(Fingerprint.of_stored(one) for one in found if one.subject not in erasures.subjects)
        return reconcile(self.ledger, stored + erasures.proven)


def set_up(stage):
    """Deliver all messages, then the deletes."""
    stage.deliver(*(Sending(index=index) for index in range(MESSAGES)))
    stage.reject(SUBJECT, 1)
    stage.reject(SUBJECT, 2)
    stage.witness.read(SUBJECTS)
    stage.deliver(*(Sending(index=index, deletes=True) for index in range(len(SUBJECTS))))
    return stage


@pytest.fixture
def stage(aws):
    return set_up(Stage(aws))


def test_erased_users_are_seen(stage):
    stage.erase()
    erasures = stage.judge()
    assert not erasures.failed
    assert (erasures.erased, erasures.receipts) == (len(SUBJECTS), len(SUBJECTS))
    assert (erasures.messages, erasures.rejects) == (len(DOOMED), 2)
    result = stage.reconcile()
    assert (result.failed, result.messages, result.stored) == (
        False,
        MESSAGES + len(SUBJECTS),
        MESSAGES + len(SUBJECTS),
    )


def test_simulate_waits_for_a_slow_eraser(stage):
    assert stage.witness.wait(stage.ledger, tell=lambda _text: stage.erase())


def test_simulate_waits_while_items_are_deleted(stage):
    table = stage.target.stores.event_table
    keys = [{"subject": {"S": one.subject}, "position": {"S": one.position}} for one in DOOMED[:2]]

    def erase_slowly(_text):
        if keys:
            stage.client.delete_item(TableName=table, Key=keys.pop())
        else:
            stage.erase()

    assert stage.witness.wait(stage.ledger, tell=erase_slowly, max_wait_seconds=0)


def test_simulate_gives_up_an_eraser_that_does_not_run(stage):
    erasures = stage.judge()
    assert (erasures.settled, erasures.erased, erasures.receipts) == (False, 0, 0)
    assert erasures.not_erased == len(DOOMED) + 2 + len(SUBJECTS)
    assert erasures.receipts_wrong == len(SUBJECTS)
    assert not stage.reconcile().lost


def test_remaining_message_is_found(stage):
    stage.erase()
    EventTable(stage.client, stage.target.stores.event_table, retention_days=0).write(DOOMED[0])
    assert (stage.judge().not_erased, stage.judge().failed) == (1, True)


def test_remaining_reject_is_found(stage):
    stage.erase()
    stage.reject(SUBJECT, 3)
    assert (stage.judge().not_erased, stage.judge().failed) == (1, True)


def test_remaining_delete_is_not_carried_out(stage):
    stage.erase()
    stage.deliver(Sending(index=0, deletes=True))
    erasures = stage.judge()
    assert (erasures.settled, erasures.not_erased, erasures.receipts_wrong) == (False, 1, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": 0},
        {"messages": 99},
        {"rejects": 3},
        {"linked_messages": 1},
        {"linked_rejects": 1},
        {"finished_at": ""},
    ],
    ids=str,
)
def test_receipt_with_other_content_is_wrong(stage, changes):
    stage.erase()
    stage.change(stage.receipt(), **changes)
    erasures = stage.judge()
    assert (erasures.receipts_wrong, erasures.failed) == (1, True)
    assert erasures.settled == ("finished_at" not in changes)


def test_accepted_delete_without_a_receipt_is_wrong(stage):
    stage.erase(set(SUBJECTS) - {SUBJECT})
    erasures = stage.judge()
    assert (erasures.settled, erasures.receipts_wrong, erasures.erased) == (False, 1, len(SUBJECTS) - 1)


def test_receipt_of_an_unnamed_user_is_wrong(stage):
    stage.erase()
    stage.erase([f"{TRAFFIC.customer_ids[0]}#user#somebody"])
    assert (stage.judge().receipts_wrong, stage.judge().failed) == (1, True)


def test_erased_message_of_another_user_is_lost(stage):
    [other, *_] = (
        record
        for index in range(MESSAGES)
        if (record := recorded(TRAFFIC.parcel(Sending(index=index)))).subject not in SUBJECTS
    )
    stage.erase()
    key = {"subject": {"S": other.subject}, "position": {"S": other.position}}
    stage.client.delete_item(TableName=stage.target.stores.event_table, Key=key)
    assert (stage.reconcile().lost_accepted, stage.judge().failed) == (1, False)


def test_unstored_message_of_an_erased_user_is_lost(aws):
    stage = Stage(aws)
    lost = next(index for index in range(MESSAGES) if TRAFFIC.is_doomed(index))
    stage.note(Sending(index=lost), End.ACCEPTED)
    stage.witness.read(SUBJECTS)
    stage.deliver(*(Sending(index=index, deletes=True) for index in range(len(SUBJECTS))))
    stage.erase()
    assert (stage.reconcile().lost_accepted, stage.judge().failed) == (1, False)


def test_receipts_of_a_resent_delete_are_summed(stage):
    stage.erase()
    stage.deliver(Sending(index=0, copy=1, deletes=True))
    stage.erase(SUBJECTS[:1], requested_at="2032")
    erasures = stage.judge()
    assert (erasures.failed, erasures.erased, erasures.receipts) == (False, len(SUBJECTS), len(SUBJECTS) + 1)


def test_receipts_of_earlier_runs_do_not_count(stage):
    stage.erase()
    stage.witness, stage.ledger = stage.new_witness(), Ledger()
    assert set_up(stage).judge().receipts == 0
    stage.erase(requested_at="2032")
    assert (stage.judge().failed, stage.judge().messages) == (False, len(DOOMED))


def test_message_written_although_given_up_is_counted(aws):
    stage = Stage(aws)
    stage.deliver(*(Sending(index=index) for index in range(MESSAGES)), end=End.GIVEN_UP)
    stage.witness.read(SUBJECTS)
    stage.deliver(*(Sending(index=index, deletes=True) for index in range(len(SUBJECTS))), end=End.GIVEN_UP)
    stage.erase()
    erasures = stage.judge()
    assert (erasures.failed, erasures.erased, erasures.messages) == (False, len(SUBJECTS), len(DOOMED))
    assert not stage.reconcile().failed


def test_user_stays_if_the_delete_never_arrived(aws):
    stage = Stage(aws)
    stage.deliver(*(Sending(index=index) for index in range(MESSAGES)))
    stage.witness.read(SUBJECTS)
    for index in range(len(SUBJECTS)):
        stage.note(Sending(index=index, deletes=True), End.GIVEN_UP)
    assert (stage.judge().failed, stage.judge().erased) == (False, 0)
    assert (stage.reconcile().stored, stage.reconcile().lost_given_up) == (MESSAGES, len(SUBJECTS))


def test_linked_ids_are_erased_with_the_scope_linked(aws):
    stage = set_up(Stage(aws, Scope.LINKED))
    linked = {one for index in range(MESSAGES) if TRAFFIC.is_doomed(index) for one in links(index)}
    assert linked
    stage.erase()
    erasures = stage.judge()
    assert (erasures.failed, erasures.messages > len(DOOMED)) == (False, True)
    assert linked < erasures.subjects
    assert not stage.reconcile().failed
    stage.change(stage.receipt(), linked_messages=99)
    assert stage.judge().receipts_wrong == 1


def links(index):
    """Yield the subjects of anonymous ids that a message of a user names."""
    record = recorded(TRAFFIC.parcel(Sending(index=index)))
    anonymous_id = record.message.body.get("anonymous_id")
    if anonymous_id and record.subject in SUBJECTS:
        yield f"{record.customer_id}#anonymous#{anonymous_id.replace('#', '%23')}"
