"""The rules of contacts, without a store."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.contacts import (
    Contact,
    Fact,
    Profile,
    contact_of,
    erasure_time,
    event_of,
    event_time,
    key_of,
    members_of,
    previous_of,
    root_of,
    said_of_account,
    said_of_contact,
    said_of_previous,
)

MORNING, NOON, EVENING = (f"2031-05-17T{hour}:00:00.000000Z" for hour in ("08", "12", "20"))
RECEIVED_AT = "2031-05-20T00:00:00.000000Z"


def message(call_type="track", *, time=NOON, **fields):
    return {
        "type": call_type,
        "message_id": "m-1",
        "user_id": "u-1",
        "timestamp": time,
        "received_at": RECEIVED_AT,
        **fields,
    }


def said(call_type="identify", **fields):
    return said_of_contact(message(call_type, **fields), "acme")


def joined(*parts):
    whole = Contact()
    for part in parts:
        whole = whole.join(part)
    return whole


def text(contact):
    """Spell a contact as it is stored; to Python `1 == True`."""
    return json.dumps(contact.to_json())


# When a message happened


@pytest.mark.parametrize(
    ("fields", "time"),
    [
        ({}, NOON),
        ({"original_timestamp": MORNING}, MORNING),
        ({"original_timestamp": "2020-05-09 23:54:49.2 +0000 UTC m=+70366.29"}, "2020-05-09T23:54:49.200000Z"),
        ({"original_timestamp": "at dusk"}, ""),
        ({"timestamp": "2031-05-21T00:00:00.000000Z"}, "2031-05-21T00:00:00.000000Z"),
        ({"timestamp": "2031-05-21T00:00:00.000001Z"}, ""),
        ({"timestamp": "9999-12-31T23:59:59Z"}, ""),
        ({"timestamp": "0001-01-01T00:00:00Z"}, "0001-01-01T00:00:00.000000Z"),
        ({"timestamp": "9999-12-31T23:59:59Z", "received_at": "9999-12-31T00:00:00Z"}, "9999-12-31T23:59:59.000000Z"),
    ],
)
def test_the_event_time_is_what_resends_repeat_unless_its_clock_is_wrong(fields, time):
    assert event_time(message(**fields)) == time


@pytest.mark.parametrize(("time", "until"), [(NOON, NOON), ("2032-01-01T00:00:00Z", RECEIVED_AT)])
def test_a_delete_without_a_known_time_erases_until_its_receipt(time, until):
    assert erasure_time(message("delete", time=time)) == until


# What a message says


@pytest.mark.parametrize(
    ("fields", "contact_id"),
    [({}, "u-1"), ({"anonymous_id": "a-1"}, "u-1"), ({"user_id": None, "anonymous_id": "a-1"}, "a-1")],
)
def test_a_contact_is_known_by_its_user_id_else_by_its_anonymous_id(fields, contact_id):
    assert contact_of(message(**fields)) == contact_id


@pytest.mark.parametrize("call_type", ["identify", "track", "page", "screen", "group", "alias"])
def test_every_message_tells_when_the_contact_was_seen(call_type):
    contact = said(call_type)
    assert (contact.contact_id, contact.last_seen) == ("u-1", NOON)


@pytest.mark.parametrize(
    ("call_type", "values"), [("identify", {"plan": "pro"}), ("track", {}), ("page", {}), ("group", {})]
)
def test_the_traits_of_a_contact_are_those_of_identify_calls(call_type, values):
    assert said(call_type, traits={"plan": "pro"}).values == values


@pytest.mark.parametrize(
    ("call_type", "fields", "values"),
    [
        ("identify", {}, {"plan": "pro"}),
        ("identify", {"traits": {"plan": "free"}}, {"plan": "free"}),
        ("identify", {"traits": {}}, {}),
        ("track", {}, {}),
    ],
)
def test_an_identify_call_without_traits_may_have_them_in_its_context(call_type, fields, values):
    assert said(call_type, context={"traits": {"plan": "pro"}}, **fields).values == values


@pytest.mark.parametrize("context", [None, [], "pro", {}, {"traits": None}, {"traits": ["pro"]}])
def test_a_context_without_traits_tells_none(context):
    assert said(context=context).values == {}


def test_the_traits_of_a_group_call_are_those_of_the_account():
    account = said_of_account(message("group", group_id="g-1", traits={"plan": "pro"}))
    assert (account.contact_id, account.values) == ("g-1", {"plan": "pro"})


def test_a_group_call_makes_the_contact_a_member():
    assert list(said("group", group_id="g-1").groups) == ["g-1"]


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        (event_of, {"type": "track"}),
        (event_of, {"type": "track", "event": ""}),
        (event_of, {"type": "track", "event": 7}),
        (event_of, {"type": "page", "event": "Lamp Lit"}),
        (previous_of, {"type": "alias"}),
        (previous_of, {"type": "alias", "previous_id": "u-1"}),
        (previous_of, {"type": "identify", "previous_id": "a-1"}),
    ],
)
def test_what_a_message_lacks_or_has_in_vain_is_passed_over(told, fields):
    assert told(message(**fields)) is None


@pytest.mark.parametrize("traits", [None, [], "pro", 7])
def test_traits_that_are_no_object_are_passed_over(traits):
    assert said(traits=traits).values == {}


@pytest.mark.parametrize("others", [("acme", "u-2"), ("umbrella", "u-1"), ("acme#u-1", ""), ("acme", "\ud800")])
def test_no_two_contacts_share_a_key(others):
    assert key_of("acme", "u-1") != key_of(*others)


# Joining


def test_the_latest_value_of_each_trait_counts():
    contact = joined(
        said(time=NOON, traits={"plan": "pro", "city": "Oslo"}),
        said(time=EVENING, traits={"plan": None}),
        said(time=MORNING, traits={"plan": "free", "pet": "cat"}),
    )
    assert contact.values == {"plan": None, "city": "Oslo", "pet": "cat"}


def test_an_unknown_time_is_older_than_all():
    contact = joined(said(time=MORNING, traits={"plan": "pro"}), said(time="at dusk", traits={"plan": "free"}))
    assert (contact.values, contact.last_seen) == ({"plan": "pro"}, MORNING)


def test_what_happened_until_an_erasure_is_void_whichever_comes_first():
    before, after = said(time=NOON, traits={"plan": "pro"}), said(time=EVENING, traits={"city": "Oslo"})
    erasure = said("delete", time=NOON)
    assert joined(before, erasure, after) == joined(erasure, before, after) == joined(after, before, erasure)
    assert joined(before, erasure, after).values == {"city": "Oslo"}


def test_what_remains_of_an_erased_contact_is_when_and_hashes():
    erased = joined(
        said(traits={"name": "Ada"}),
        said("group", group_id="g-1"),
        said("alias", previous_id="a-1"),
        said_of_previous(message("alias", user_id="u-2", previous_id="u-1"), "acme"),
        said("delete", time=EVENING),
    )
    assert erased.to_json() == {"merged": [key_of("acme", "a-1")], "deleted_at": EVENING}


@pytest.mark.parametrize("values", [("free", "pro"), (1, True), (None, {}), ({"a": 1}, {"a": 2})], ids=str)
def test_of_values_that_share_time_and_message_id_it_is_not_the_first_or_last_to_come_that_counts(values):
    one, other = (said(traits={"plan": value}) for value in values)
    assert text(joined(one, other)) == text(joined(other, one))


TIMES = st.sampled_from(["", MORNING, NOON, EVENING])
FACTS = st.builds(
    Fact, time=TIMES, message_id=st.sampled_from(["m-1", "m-2"]), value=st.sampled_from([1, True, "1", None, {"a": 1}])
)
NAMES = st.sampled_from(["plan", "city"])
SAID = st.one_of(
    st.builds(
        Contact,
        contact_id=st.just("u-1"),
        last_seen=st.just(EVENING),
        traits=st.dictionaries(NAMES, FACTS),
        groups=st.dictionaries(NAMES, FACTS),
        merged=st.frozensets(NAMES),
    ),
    st.builds(Contact, contact_id=st.just("u-1"), merged_into=FACTS),
    st.builds(Contact, deleted_at=st.sampled_from([MORNING, NOON, EVENING])),
)


@given(st.lists(SAID, min_size=1, max_size=6).flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
def test_no_order_of_what_is_said_makes_a_difference(orders):
    parts, others = orders
    assert text(joined(*parts)) == text(joined(*others))


@given(st.lists(SAID, min_size=1, max_size=6), st.data())
def test_what_is_said_again_makes_no_difference(parts, data):
    again = data.draw(st.lists(st.sampled_from(parts)))
    assert text(joined(*parts, *again)) == text(joined(*parts))


@given(st.lists(SAID, max_size=4))
def test_a_contact_is_read_as_it_was_stored(parts):
    contact = joined(*parts)
    assert Contact.from_json(json.loads(text(contact))) == contact


# Contacts that are merged


def merged(*aliases):
    """Return what reads the contacts that some aliases leave, each of them of a later hour; keys are the ids."""
    contacts = {}
    for hour, (previous, user) in enumerate(aliases):
        pointer = Fact(time=f"2031-05-17T{hour:02}:00:00.000000Z", message_id="m", value=user)
        for key, part in (
            (user, Contact(contact_id=user, last_seen=pointer.time, merged=frozenset({previous}))),
            (previous, Contact(contact_id=previous, merged_into=pointer)),
        ):
            contacts[key] = contacts.get(key, Contact()).join(part)
    return lambda key: contacts.get(key, Contact())


@pytest.mark.parametrize(
    ("aliases", "groups"),
    [
        (["ab"], ["ab"]),
        (["ab", "bc"], ["abc"]),
        (["bc", "ab"], ["abc"]),
        (["ab", "ac"], ["ac", "b"]),
        (["ab", "ba"], ["ab"]),
        (["ba", "ab", "cb"], ["abc"]),
        (["ab", "bc", "ca"], ["abc"]),
        (["ab", "bc", "ca", "de", "ea"], ["abcde"]),
        (["ab", "ba", "bc"], ["abc"]),
    ],
)
def test_contacts_that_were_merged_are_one_whatever_way_one_finds_them(aliases, groups):
    read = merged(*map(tuple, aliases))
    for group in groups:
        [root] = {root_of(key, read) for key in group}
        assert "".join(sorted(members_of(root, read(root), read))) == group


@pytest.mark.parametrize("aliases", [["ab", "ba"], ["ba", "ab"]])
def test_of_contacts_that_are_merged_into_each_other_the_first_key_stands_for_all(aliases):
    assert root_of("b", merged(*map(tuple, aliases))) == "a"


def test_a_profile_is_its_members_in_one():
    root = joined(
        said(time=NOON, traits={"plan": "pro"}), said("group", group_id="g-1"), said("alias", previous_id="a-1")
    )
    visitor = joined(
        said(time=EVENING, user_id="a-1", traits={"plan": "free", "pet": "cat"}),
        said("group", user_id="a-1", group_id="g-2"),
        said_of_previous(message("alias", previous_id="a-1"), "acme"),
    )
    profile = Profile.of({"root": root, "visitor": visitor})
    assert (profile.contact_id, profile.merged, profile.last_seen) == ("u-1", ["a-1"], EVENING)
    assert (profile.traits, profile.groups) == ({"plan": "free", "pet": "cat"}, ["g-1", "g-2"])


def test_the_erasure_of_one_member_leaves_the_others_theirs():
    root = joined(said(time=MORNING, traits={"plan": "pro"}))
    erased = joined(
        said("delete", user_id="a-1", time=NOON),
        said(user_id="a-1", time=EVENING, traits={"pet": "cat"}),
    )
    assert Profile.of({"root": root, "erased": erased}).traits == {"plan": "pro", "pet": "cat"}
