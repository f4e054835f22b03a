"""Test that `destination simulate` sees faults of the contacts that a consumer keeps."""

import json
from functools import cache

import pytest
from searches import some
from simulated import record_of

from consumer.contacts import contact as contacts
from consumer.contacts.table import ContactTable
from consumer.runtime.stored import read_queue_message
from destination.deployment.target import Target
from destination.simulation import expected
from destination.simulation.contacts import (
    SHOWN_DIFFERENCES,
    compare_contacts,
    differences_of,
    read_contacts,
    remains_of_erased,
)
from destination.simulation.expected import expected_contacts
from destination.simulation.traffic import Sending, Traffic
from handler.spec import CALL_TYPES

TYPES = tuple(call_type for call_type in CALL_TYPES if call_type != "delete")
TRAFFIC = Traffic(seed=1, customers=2, call_types=TYPES, replays=0.1, deletes=0.3)
NOW = "2031-05-17T12:00:00.000000Z"
CUSTOMER = TRAFFIC.customer_ids[0]


@cache
def parcels_of(customer_id, messages=120):
    """Return the stored messages of a customer: the messages, then the deletes."""
    deletes = (Sending(index=index, deletes=True) for index in range(len(TRAFFIC.doomed)))
    sendings = (*(Sending(index=index) for index in range(messages)), *deletes)
    parcels = (TRAFFIC.parcel(sending) for sending in sendings)
    return [parcel for parcel in parcels if TRAFFIC.customer_ids[parcel.customer] == customer_id]


def expected_of(customer_id):
    return expected_contacts([TRAFFIC.due(parcel) for parcel in parcels_of(customer_id)], now=NOW)


@pytest.fixture
def target(shared_account, make_stack):
    return Target(account=shared_account, stores=make_stack({"Consumer": "on"}).stores)


def consume(target, customer_id, *, backwards=False):
    """Pass the stored messages of a customer to the consumer."""
    table = ContactTable(target.account.dynamodb(), target.stores.contact_table, customer=customer_id)
    for parcel in parcels_of(customer_id)[:: -1 if backwards else 1]:
        record = record_of(TRAFFIC, parcel)
        content = {"subject": record.subject, **record.facts, "stored_at": NOW, "message": record.message.body}
        table.take(read_queue_message(json.dumps(content)).message)


@pytest.fixture
def consumed(target, prepare):
    """Return a target with a consumer that has handled all messages in order."""

    def consume_all():
        for customer_id in TRAFFIC.customer_ids:
            consume(target, customer_id)
        return target

    return prepare("expected contacts", consume_all)


def compare(target):
    return compare_contacts(target, TRAFFIC.customer_ids, expected_of, tell=str, max_wait_seconds=0)


@pytest.mark.many_examples
@pytest.mark.parametrize("backwards", some([False, True]))
def test_consumer_makes_the_expected_contacts(request, backwards):
    target = request.getfixturevalue("target" if backwards else "consumed")
    for customer_id in TRAFFIC.customer_ids if backwards else ():
        consume(target, customer_id, backwards=True)
    comparison = compare(target)
    assert [str(difference) for difference in comparison.differences] == []
    assert (comparison.wrong, comparison.contacts) == (0, sum(len(expected_of(each)) for each in TRAFFIC.customer_ids))


def test_messages_cover_every_contact_feature():
    contacts = [contact for customer_id in TRAFFIC.customer_ids for contact in expected_of(customer_id).values()]
    for part in ("traits", "groups", "events", "merged"):
        assert any(contact[part] for contact in contacts)
    assert any(contact["last_seen"] == "" for contact in contacts)
    names = {(CUSTOMER, TRAFFIC.due(parcel).body.get("user_id")) for parcel in parcels_of(CUSTOMER)}
    assert not names <= {(CUSTOMER, name) for name in expected_of(CUSTOMER)}  # a delete has left nothing of some


def test_consumer_that_does_not_run_is_given_up(target):
    comparison = compare(target)
    assert comparison.wrong == comparison.contacts > SHOWN_DIFFERENCES == len(comparison.differences)
    assert str(comparison.differences[0]).endswith(" is missing")


def test_a_contact_that_was_changed_is_found(consumed):
    client, table = consumed.account.dynamodb(), consumed.stores.contact_table
    item = next(item for item in client.scan(TableName=table)["Items"] if "event" in item)
    client.delete_item(TableName=table, Key={name: item[name] for name in ("customer", "item")})
    comparison = compare(consumed)
    assert comparison.wrong == 1
    assert comparison.differences[0].part == f"events.{item['event']['S']}"


def test_simulate_waits_for_a_slow_consumer(target, request):
    def catch_up(_text):
        request.getfixturevalue("consumed")

    assert compare_contacts(target, TRAFFIC.customer_ids, expected_of, tell=catch_up).wrong == 0


def test_contacts_are_read_as_the_command_prints_them(consumed):
    assert read_contacts(consumed, CUSTOMER).keys() == expected_of(CUSTOMER).keys()


CONTACT = {"id": "u", "traits": {"plan": "pro", "none": None}, "groups": {"g": {"size": 1}}, "merged": []}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"traits": {"plan": "free", "none": None}}, ("traits.plan", '"pro"', '"free"')),
        ({"traits": {"plan": "pro"}}, ("traits.none", "null", "")),
        ({"traits": {**CONTACT["traits"], "more": None}}, ("traits.more", "", "null")),
        ({"groups": {"g": {"size": True}}}, ("groups.g", '{"size": 1}', '{"size": true}')),
        ({"groups": {}}, ("groups.g", '{"size": 1}', "")),
        ({"merged": ["a"]}, ("merged", "[]", '["a"]')),
    ],
)
def test_differences_are_described(changes, told):
    [difference] = differences_of("acme", {"u": CONTACT}, {"u": {**CONTACT, **changes}})
    assert (difference.part, difference.expected, difference.found) == told
    assert difference.to_json() == {
        "customer": "acme",
        "contact": "u",
        **dict(zip(("part", "expected", "found"), told, strict=True)),
    }


@pytest.mark.parametrize(
    ("expected", "found", "sentence"),
    [
        ({"u": CONTACT}, {}, 'acme: "u" is missing'),
        ({}, {"u": CONTACT}, 'acme: "u" exists, although no message implies'),
    ],
)
def test_a_whole_contact_may_differ(expected, found, sentence):
    [difference] = differences_of("acme", expected, found)
    assert str(difference).startswith(sentence)


def test_a_long_value_is_cut_and_no_text_steers_the_terminal():
    found = {"u": {**CONTACT, "traits": {"plan": "\x1b[31m" + "x" * 1000, "none": None}}}
    [difference] = differences_of("acme", {"u": CONTACT}, found)
    assert len(str(difference)) < 200
    assert "\x1b" not in str(difference)


def test_raw_table_keeps_nothing_of_an_erased_user(target):
    consume(target, CUSTOMER)
    erased = {
        TRAFFIC.due(parcel).body["user_id"] for parcel in parcels_of(CUSTOMER) if TRAFFIC.due(parcel).type == "delete"
    } - expected_of(CUSTOMER).keys()
    assert len(erased) > 3
    assert list(remains_of_erased(target, CUSTOMER, erased)) == []


def test_leftovers_of_an_erased_user_are_named(target):
    consume(target, CUSTOMER)
    users = list(expected_of(CUSTOMER))
    remains = list(remains_of_erased(target, CUSTOMER, users))
    assert {item.partition("#")[0] for _, item in remains} == {"contact", "seen"}
    assert {user for user, _ in remains} <= set(users)


@pytest.mark.parametrize("name", ["MAX_TRAITS", "MAX_GROUPS", "MAX_FACT_BYTES", "MAX_TEXT_CHARS"])
def test_the_judge_has_the_limits_of_the_shipped_consumer(name):
    assert getattr(expected, name) == getattr(contacts, name)
