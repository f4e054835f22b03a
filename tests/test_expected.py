"""Test the contacts that `destination simulate` expects, with hand-written messages."""

import pytest

from consumer.contacts.contact import MAX_TRAITS
from destination.segment.due import Due, Moments, read_sortable
from destination.simulation.expected import expected_contacts
from handler.canonicalise import canonicalise
from handler.timestamps import parse_time

NOW = "2031-05-17T12:00:00.000000Z"


def at(minute, day=17):
    return f"2031-05-{day}T10:{minute:02}:00.000000Z"


def message(call_type, minute, **fields):
    """Return a canonical message that was received when it happened."""
    times = {"originalTimestamp": at(minute), "receivedAt": at(minute)}
    return {"type": call_type, "userId": "u", "messageId": f"m{minute}", **times, **fields}


def contacts(*payloads):
    return expected_contacts([due(canonicalise(payload)[0]) for payload in payloads], now=NOW)


def due(message):
    """Return a message in the judge's form, with the times that the handler reads."""
    moments = Moments(
        original=None if message.time == "undated" else read_sortable(message.time),
        timestamp=None,
        received=time_of(message.body.get("received_at")),
    )
    return Due(customer_id="acme", body=message.body, moments=moments, settings={})


def time_of(text):
    return None if (time := parse_time(text)) is None else read_sortable(time)


def contact(contact_id="u", **parts):
    nothing = {"traits": {}, "groups": {}, "events": {}, "merged": [], "last_seen": at(0)}
    return {contact_id: {"id": contact_id, **nothing, **parts}}


def test_contact_is_a_user_or_otherwise_a_visitor():
    found = contacts(
        message("page", 0), message("page", 1, anonymousId="a"), message("page", 2, userId=None, anonymousId="a")
    )
    assert found == contact(last_seen=at(1)) | contact("a", last_seen=at(2))


def test_the_latest_value_of_a_trait_counts_in_any_order():
    found = contacts(
        message("identify", 2, traits={"plan": None}),
        message("identify", 1, traits={"plan": "pro", "name": "Ada"}),
    )
    assert found == contact(traits={"plan": None, "name": "Ada"}, last_seen=at(2))


@pytest.mark.parametrize(
    ("fields", "traits"),
    [({}, {"plan": "pro"}), ({"traits": {}}, {}), ({"context": {"traits": None}}, {}), ({"context": {}}, {})],
)
def test_identify_call_may_have_its_traits_in_context(fields, traits):
    [found] = contacts(message("identify", 0, **{"context": {"traits": {"plan": "pro"}}, **fields})).values()
    assert found["traits"] == traits


def test_later_message_id_wins_at_the_same_time():
    found = contacts(
        message("identify", 0, messageId="b", traits={"plan": "b"}),
        message("identify", 0, messageId="a", traits={"plan": "a"}),
    )
    assert found["u"]["traits"] == {"plan": "b"}


def test_events_are_counted():
    found = contacts(*(message("track", minute, event="Lamp Lit") for minute in range(3)))
    assert found == contact(events={"Lamp Lit": 3}, last_seen=at(2))


def test_account_has_traits_from_all_its_members():
    found = contacts(
        message("group", 0, groupId="g", traits={"name": "Old", "size": 1}),
        message("group", 1, groupId="g", userId="v", traits={"name": "New"}),
    )
    traits = {"name": "New", "size": 1}
    assert [one["groups"] for one in found.values()] == [{"g": traits}, {"g": traits}]


TIMES = {
    "ahead of its receipt": ({"originalTimestamp": at(0, day=18), "receivedAt": at(0)}, at(0)),
    "ahead of now, received nobody knows when": ({"originalTimestamp": at(0, day=19), "receivedAt": None}, NOW),
    "the only one": ({"originalTimestamp": None, "timestamp": at(5), "receivedAt": None}, at(5)),
    "unreadable": ({"originalTimestamp": "0000-00-00 00:00:00", "timestamp": at(5)}, ""),
    "years ago": ({"originalTimestamp": "1980-01-01T00:00:00Z"}, "1980-01-01T00:00:00.000000Z"),
}


@pytest.mark.parametrize(("times", "event_time"), TIMES.values(), ids=TIMES)
def test_event_time_is_the_key_time_and_not_after_the_receipt(times, event_time):
    assert contacts(message("page", 0, **times)) == contact(last_seen=event_time)


def test_alias_merges_earlier_and_later_messages():
    found = contacts(
        message("track", 0, userId=None, anonymousId="a", event="Lamp Lit"),
        message("alias", 1, previousId="a"),
        message("identify", 2, userId=None, anonymousId="a", traits={"plan": "pro"}),
        message("track", 3, event="Lamp Lit"),
    )
    assert found == contact(traits={"plan": "pro"}, events={"Lamp Lit": 2}, merged=["a"], last_seen=at(3))


def test_delete_erases_earlier_messages():
    found = contacts(
        message("track", 0, event="Lamp Lit"),
        message("delete", 1),
        message("track", 2, event="Lamp Lit"),
        message("page", 0, userId="other"),
    )
    assert found == contact(events={"Lamp Lit": 1}, last_seen=at(2)) | contact("other")


def test_contact_without_later_messages_disappears():
    assert contacts(message("track", 0, event="Lamp Lit"), message("delete", 0, messageId="d")) == {}


@pytest.mark.parametrize("minute", [1, 3], ids=["the alias came first", "the delete came first"])
def test_delete_erases_visitors_merged_before(minute):
    found = contacts(
        message("track", 0, userId=None, anonymousId="a", event="Lamp Lit"),
        message("alias", minute, previousId="a"),
        message("delete", 2),
        message("page", 4, userId=None, anonymousId="a"),
    )
    was_later = {"merged": ["a"], "events": {"Lamp Lit": 1}}
    assert found == contact("u" if minute > 2 else "a", **(was_later if minute > 2 else {}), last_seen=at(4))


def test_alias_cannot_affect_another_user():
    found = contacts(
        message("page", 0, userId="victim"), message("alias", 1, previousId="victim"), message("delete", 2)
    )
    assert found == contact("victim")
    later = contacts(message("page", 0, userId="victim"), message("alias", 1, previousId="victim"))
    assert later == contact("victim") | contact(last_seen=at(1))


@pytest.mark.parametrize("times", [{"originalTimestamp": "0000-00-00 00:00:00"}, {"originalTimestamp": at(1, day=16)}])
def test_delete_erases_up_to_its_receipt(times):
    found = contacts(
        message("page", 0),
        message("page", 2),
        message("delete", 1, **times),
    )
    assert found == contact(last_seen=at(2))
    assert contacts(message("page", 0), message("delete", 1, receivedAt=None, **times)) == {}


def test_inactive_message_does_not_change_last_seen():
    inactive = {"context": {"active": False}, "traits": {"plan": "pro"}}
    found = contacts(message("page", 0), message("identify", 1, **inactive))
    assert found == contact(traits={"plan": "pro"}, last_seen=at(0))
    assert contacts(message("identify", 1, **inactive)) == contact(traits={"plan": "pro"}, last_seen="")


def test_overlong_and_surplus_values_are_left_out():
    many = {f"trait {number:03}": number for number in range(MAX_TRAITS + 10)}
    found = contacts(
        message("identify", 0, traits={"bio": "short"}),
        message("identify", 1, traits={"bio": "x" * 2000, "x" * 2000: 1}),
        message("group", 2, groupId="g", traits=many),
    )
    left_out = {"traits": ["bio"], "groups": ["g"], "more": True}
    kept = {name: number for name, number in many.items() if number >= 10}
    assert found == contact(groups={"g": kept}, left_out=left_out, last_seen=at(2))
