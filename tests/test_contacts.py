"""Test the rules of contacts, without a store."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.contacts.contact import (
    MAX_FACT_BYTES,
    MAX_GROUPS,
    MAX_TEXT_CHARS,
    MAX_TRAITS,
    Contact,
    Fact,
    Profile,
    account_in,
    contact_in,
    contact_key,
    contact_of,
    erasure_time,
    event_of,
    event_time,
    key_of,
    previous_in,
    previous_of,
    visitor_key_of,
)
from consumer.errors import PermanentFailure
from handler.canonicalise import canonicalise, canonicalise_batch
from handler.items import MAX_ITEM_BYTES

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
    return contact_in(message(call_type, **fields))


def joined(*parts):
    whole = Contact()
    for part in parts:
        whole = whole.join(part)
    return whole


def text(contact):
    """Return a contact as stored JSON text. (In Python, `1 == True`.)"""
    return json.dumps(contact.to_json())


# The time of a message


@pytest.mark.parametrize(
    ("fields", "time"),
    [
        ({}, NOON),
        ({"original_timestamp": MORNING}, MORNING),
        ({"original_timestamp": "2020-05-09 23:54:49.2 +0000 UTC m=+70366.29"}, "2020-05-09T23:54:49.200000Z"),
        ({"original_timestamp": "at dusk"}, ""),
        ({"timestamp": "2031-05-20T00:00:00.000001Z"}, RECEIVED_AT),
        ({"timestamp": "9999-12-31T23:59:59Z"}, RECEIVED_AT),
        ({"timestamp": "0001-01-01T00:00:00Z"}, "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_event_time_is_repeated_by_resends_and_not_after_the_receipt(fields, time):
    assert event_time(message(**fields)) == time


@pytest.mark.parametrize("time", [NOON, "2032-01-01T00:00:00Z", "at dusk"])
def test_delete_erases_up_to_its_receipt(time):
    assert erasure_time(message("delete", time=time)) == RECEIVED_AT


# The content of a message


@pytest.mark.parametrize(
    ("fields", "contact_id"),
    [({}, "u-1"), ({"anonymous_id": "a-1"}, "u-1"), ({"user_id": None, "anonymous_id": "a-1"}, "a-1")],
)
def test_contact_id_is_the_user_id_or_else_the_anonymous_id(fields, contact_id):
    assert contact_of(message(**fields)) == contact_id


def test_message_without_an_id_fails_permanently():
    with pytest.raises(PermanentFailure, match="neither a user_id nor an anonymous_id"):
        contact_of(message(user_id=None))


def test_user_and_visitor_with_the_same_id_are_two_contacts():
    user, visitor = message(user_id="x", anonymous_id="a"), message(user_id=None, anonymous_id="x")
    assert contact_key(user, "acme") == key_of("acme", "x")
    assert contact_key(visitor, "acme") == visitor_key_of("acme", "x") != key_of("acme", "x")


ACTIVITY = {
    "spec": ({"context": {"active": False}}, False),
    "another casing": ({"Context": {"Active": False}}, False),
    "active": ({"context": {"active": True}}, True),
    "null": ({"context": {"active": None}}, True),
    "an encrypted value": ({"context": {"active": "x=="}}, True),
    "without it": ({"context": {}}, True),
    "no object": ({"context": "active"}, True),
    "none": ({}, True),
}
CALLS = ["identify", "track", "page", "screen", "group", "alias"]


@pytest.mark.parametrize("call_type", CALLS)
@pytest.mark.parametrize(("fields", "is_activity"), ACTIVITY.values(), ids=ACTIVITY)
def test_only_activity_changes_last_seen(call_type, fields, is_activity):
    payload = {"type": call_type, "userId": "u-1", "messageId": "m", "timestamp": NOON, "groupId": "g", **fields}
    for [canonical] in (canonicalise(payload), canonicalise_batch({"batch": [payload]})):
        seen = joined(contact_in({**canonical.body, "received_at": RECEIVED_AT}))
        assert (seen.contact_id, seen.last_seen) == ("u-1", NOON if is_activity else None)
        account = account_in({**canonical.body, "type": "group", "received_at": RECEIVED_AT})
        assert account.last_seen == (NOON if is_activity else None)


def test_activity_flag_of_a_batch_applies_to_its_messages():
    entries = [
        {"type": "identify", "userId": "u-1", "messageId": "m", "timestamp": NOON, **own}
        for own in ({}, {"context": {"active": True}})
    ]
    said_inactive, said_active = canonicalise_batch({"context": {"active": False}, "batch": entries})
    times = [contact_in({**one.body, "received_at": RECEIVED_AT}).last_seen for one in (said_inactive, said_active)]
    assert times == [None, NOON]


def test_inactive_message_updates_traits_and_keeps_last_seen():
    contact = joined(
        said(time=MORNING, traits={"plan": "free"}), said(traits={"plan": "pro"}, context={"active": False})
    )
    assert (contact.values, contact.last_seen) == ({"plan": "pro"}, MORNING)
    assert joined(contact, said("delete", received_at=MORNING)).values == {"plan": "pro"}
    assert joined(contact, said("delete", received_at=NOON)).to_json() == {"deleted_at": NOON}


@pytest.mark.parametrize("call_type", CALLS)
def test_every_call_type_sets_last_seen(call_type):
    contact = said(call_type)
    assert (contact.contact_id, contact.last_seen) == ("u-1", NOON)


@pytest.mark.parametrize(
    ("call_type", "values"), [("identify", {"plan": "pro"}), ("track", {}), ("page", {}), ("group", {})]
)
def test_contact_traits_come_from_identify_calls(call_type, values):
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
def test_identify_call_may_have_its_traits_in_context(call_type, fields, values):
    assert said(call_type, context={"traits": {"plan": "pro"}}, **fields).values == values


@pytest.mark.parametrize("context", [None, [], "pro", {}, {"traits": None}, {"traits": ["pro"]}])
def test_context_without_traits_gives_no_traits(context):
    assert said(context=context).values == {}


def test_account_traits_come_from_group_calls():
    account = account_in(message("group", group_id="g-1", traits={"plan": "pro"}))
    assert (account.contact_id, account.values) == ("g-1", {"plan": "pro"})


def test_group_call_makes_the_contact_a_member():
    assert list(said("group", group_id="g-1").groups) == ["g-1"]


@pytest.mark.parametrize(
    ("read", "fields"),
    [
        (event_of, {"type": "track"}),
        (event_of, {"type": "track", "event": ""}),
        (event_of, {"type": "track", "event": 7}),
        (event_of, {"type": "page", "event": "Lamp Lit"}),
        (previous_of, {"type": "alias"}),
        (previous_of, {"type": "alias", "previous_id": "u-1"}),
        (previous_of, {"type": "identify", "previous_id": "a-1"}),
        (previous_of, {"type": "alias", "previous_id": "a-1", "user_id": None, "anonymous_id": "a-2"}),
    ],
)
def test_missing_or_useless_fields_are_ignored(read, fields):
    assert read(message(**fields)) is None


@pytest.mark.parametrize("traits", [None, [], "pro", 7])
def test_traits_that_are_not_an_object_are_ignored(traits):
    assert said(traits=traits).values == {}


@pytest.mark.parametrize("others", [("acme", "u-2"), ("umbrella", "u-1"), ("acme#u-1", ""), ("acme", "\ud800")])
def test_contacts_have_distinct_keys(others):
    assert key_of("acme", "u-1") != key_of(*others)
    assert visitor_key_of("acme", "u-1") not in (visitor_key_of(*others), key_of(*others))
    assert visitor_key_of("acme", "u-1") != key_of("acme", "anonymous#u-1")


# Joining


def test_the_latest_value_of_each_trait_counts():
    contact = joined(
        said(time=NOON, traits={"plan": "pro", "city": "Oslo"}),
        said(time=EVENING, traits={"plan": None}),
        said(time=MORNING, traits={"plan": "free", "pet": "cat"}),
    )
    assert contact.values == {"plan": None, "city": "Oslo", "pet": "cat"}


def test_unknown_time_is_older_than_any_other():
    contact = joined(said(time=MORNING, traits={"plan": "pro"}), said(time="at dusk", traits={"plan": "free"}))
    assert (contact.values, contact.last_seen) == ({"plan": "pro"}, MORNING)


def test_erasure_removes_older_facts_in_any_order():
    before, after = said(time=NOON, traits={"plan": "pro"}), said(time=EVENING, traits={"city": "Oslo"})
    erasure = said("delete", received_at=NOON)
    assert joined(before, erasure, after) == joined(erasure, before, after) == joined(after, before, erasure)
    assert joined(before, erasure, after).values == {"city": "Oslo"}


def test_erased_contact_keeps_only_its_time_and_whether_it_has_parts():
    erased = joined(
        said(traits={"name": "Ada"}),
        said("group", group_id="g-1"),
        said("alias", previous_id="a-1"),
        previous_in(message("alias", user_id="u-2", previous_id="u-1"), "acme"),
        said("delete", received_at=EVENING),
    )
    assert erased.to_json() == {"deleted_at": EVENING, "has_parts": True}


@pytest.mark.parametrize("values", [("free", "pro"), (1, True), (None, {}), ({"a": 1}, {"a": 2})], ids=str)
def test_ties_do_not_depend_on_arrival_order(values):
    one, other = (said(traits={"plan": value}) for value in values)
    assert text(joined(one, other)) == text(joined(other, one))


TIMES = st.sampled_from(["", MORNING, NOON, EVENING])
KEPT_FACTS = st.builds(
    Fact, time=TIMES, message_id=st.sampled_from(["m-1", "m-2"]), value=st.sampled_from([1, True, "1", None, {"a": 1}])
)
FACTS = KEPT_FACTS | st.builds(Fact, time=TIMES, message_id=st.just("m-1"), is_left_out=st.sampled_from([True]))
NAMES = st.sampled_from(["plan", "city"])
SAID = st.one_of(
    st.builds(
        Contact,
        contact_id=st.just("u-1"),
        last_seen=st.none() | st.sampled_from(["", MORNING]),
        updated=st.sampled_from([MORNING, EVENING]),
        traits=st.dictionaries(NAMES, FACTS),
        groups=st.dictionaries(NAMES, KEPT_FACTS),
        has_parts=st.booleans(),
        cut_at=st.none() | TIMES,
    ),
    st.builds(
        Contact,
        contact_id=st.just("u-1"),
        merged_into=st.builds(Fact, time=TIMES, message_id=st.just("m-1"), value=NAMES),
    ),
    st.builds(Contact, deleted_at=st.sampled_from([MORNING, NOON, EVENING])),
)


@given(st.lists(SAID, min_size=1, max_size=6).flatmap(lambda parts: st.tuples(st.just(parts), st.permutations(parts))))
def test_order_of_messages_makes_no_difference(orders):
    parts, others = orders
    assert text(joined(*parts)) == text(joined(*others))


@given(st.lists(SAID, min_size=1, max_size=6), st.data())
def test_repeated_messages_make_no_difference(parts, data):
    again = data.draw(st.lists(st.sampled_from(parts)))
    assert text(joined(*parts, *again)) == text(joined(*parts))


@given(st.lists(SAID, max_size=4))
def test_contact_is_read_back_unchanged(parts):
    contact = joined(*parts)
    assert Contact.from_json(json.loads(text(contact))) == contact


@pytest.mark.parametrize(
    "stored", [{"id": "u-1", "last_seen": NOON}, {"id": "u-1", "last_seen": NOON, "merged": ["x"]}]
)
def test_contact_of_an_earlier_version_can_be_read(stored):
    assert Contact.from_json(stored) == Contact(contact_id="u-1", last_seen=NOON, updated=NOON)


# Limits


def shuffled(parts):
    """Yield several orders of the parts."""
    for seed in range(8):
        parts = [*parts]
        random.Random(seed).shuffle(parts)  # noqa: S311 -- to be repeatable, not secret
        yield parts


@pytest.mark.parametrize(
    "value",
    ["x" * MAX_FACT_BYTES, ["x" * 100] * 11, {"a": {"b": "ж" * MAX_FACT_BYTES}}, "\ud800" * 200],
    ids=["text", "array", "object", "escaped"],
)
def test_overlong_value_is_left_out_and_replaces_older_ones(value):
    parts = [said(time=MORNING, traits={"bio": "short", "plan": "pro"}), said(time=NOON, traits={"bio": value})]
    for order in shuffled(parts):
        contact = joined(*order)
        assert (contact.values, contact.left_out, contact.is_whole) == ({"plan": "pro"}, ["bio"], False)
    assert joined(*parts, said(time=EVENING, traits={"bio": "short"})).is_whole
    assert joined(*parts, said("delete", received_at=NOON)).is_whole


def test_value_of_maximum_length_is_kept():
    fixed = len(json.dumps(["bio", [NOON, "m-1", ""]]))
    for length, is_whole in ((MAX_FACT_BYTES - fixed, True), (MAX_FACT_BYTES - fixed + 1, False)):
        assert said(traits={"bio": "x" * length}).is_whole is is_whole


def test_overlong_name_is_dropped():
    for contact in (
        joined(said(traits={"x" * MAX_FACT_BYTES: 1, "plan": "pro"})),
        joined(said(traits={"plan": "pro"}), said("group", group_id="x" * MAX_FACT_BYTES)),
    ):
        assert (contact.values, contact.left_out, contact.cut_at, contact.groups) == ({"plan": "pro"}, [], NOON, {})


def test_newest_traits_are_kept_in_any_order_of_arrival():
    times = [f"2031-05-17T12:{number // 60:02}:{number % 60:02}.000000Z" for number in range(MAX_TRAITS + 40)]
    parts = [said(time=time, traits={f"trait {number}": number}) for number, time in enumerate(times)]
    parts += [said(time=EVENING, traits={f"trait {number}": "x" * 500, "long": "x" * 2000}) for number in range(5)]
    wholes = {text(joined(*order)) for order in shuffled(parts)}
    [whole] = map(Contact.from_json, map(json.loads, wholes))
    newest = {f"trait {number}" for number in (*range(5), *range(46, MAX_TRAITS + 40))}
    assert whole.traits.keys() == {*newest, "long"}
    assert whole.cut_at == times[45]
    parts.append(said("delete", received_at=times[100]))
    wholes = {text(joined(*order)) for order in shuffled(parts)}
    [whole] = map(Contact.from_json, map(json.loads, wholes))
    assert (len(whole.traits), whole.cut_at) == (MAX_TRAITS + 40 - 101 + 6, None)


def test_the_newest_groups_are_kept():
    contact = joined(*(said("group", group_id=f"g-{number:03}") for number in range(MAX_GROUPS + 10)))
    assert sorted(contact.groups) == [f"g-{number:03}" for number in range(10, MAX_GROUPS + 10)]
    assert not contact.is_whole


def test_contact_at_all_limits_fits_into_an_item():
    message_id = "m" * 100
    names = [f"{number:03}\ud800" for number in range(MAX_TRAITS)]
    room = MAX_FACT_BYTES - len(json.dumps([names[0], [NOON, message_id, ""]]))
    whole = joined(
        said(user_id="\x00" * 2 * MAX_TEXT_CHARS, message_id=message_id, traits=dict.fromkeys(names, "x" * room)),
        *(
            said("group", group_id=f"{number:02}".ljust(room + 4, "g"), message_id=message_id)
            for number in range(MAX_GROUPS)
        ),
        previous_in(message("alias", previous_id="a-1", message_id=message_id), "acme"),
    )
    assert (len(whole.traits), len(whole.groups), whole.is_whole) == (MAX_TRAITS, MAX_GROUPS, True)
    stored = json.dumps(whole.to_json(), ensure_ascii=False).encode("utf-8", "backslashreplace")
    assert 0.9 * MAX_ITEM_BYTES < len(stored) < MAX_ITEM_BYTES - 2048  # its key and version


# Contacts that are merged


def test_profile_combines_its_members():
    root = joined(
        said(time=NOON, traits={"plan": "pro"}), said("group", group_id="g-1"), said("alias", previous_id="a-1")
    )
    visitor = joined(
        said(time=EVENING, user_id="a-1", traits={"plan": "free", "pet": "cat"}),
        said("group", user_id="a-1", group_id="g-2"),
        previous_in(message("alias", previous_id="a-1"), "acme"),
    )
    profile = Profile.of({"root": root, "visitor": visitor})
    assert (profile.contact_id, profile.merged, profile.last_seen) == ("u-1", ["a-1"], EVENING)
    assert (profile.traits, profile.groups) == ({"plan": "free", "pet": "cat"}, ["g-1", "g-2"])


def test_erasing_one_member_keeps_the_others_traits():
    root = joined(said(time=MORNING, traits={"plan": "pro"}))
    erased = joined(
        said("delete", user_id="a-1", received_at=NOON),
        said(user_id="a-1", time=EVENING, traits={"pet": "cat"}),
    )
    assert Profile.of({"root": root, "erased": erased}).traits == {"plan": "pro", "pet": "cat"}
