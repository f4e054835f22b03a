"""The contact table: whatever order messages come in, however often, beside each other and interrupted."""

import itertools
import json
import random
from collections import Counter
from threading import Semaphore, Thread

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from strict_aws import RefusedByAws

from cli.stack import load_template
from consumer.contact_table import MAX_TRIES, Conflict, ContactTable
from consumer.contacts import key_of
from consumer.handle import handle

DAY_BEFORE, MORNING, NOON, EVENING = (
    f"2031-05-{time}:00:00.000000Z" for time in ("16T12", "17T08", "17T12", "17T20")
)  # fmt: skip
RECEIVED_AT = "2031-05-18T00:00:00.000000Z"
UNKNOWN = "at dusk"
NASTY = "#%\x00\x1f\t\n\x7f\x85\u2028\ufffe\uffff\ud800é😀"
TABLE = "contacts"


@pytest.fixture
def dynamodb(aws):
    client = aws.dynamodb()
    declared = load_template()["Resources"]["ContactTable"]["Properties"]
    names = ("BillingMode", "AttributeDefinitions", "KeySchema")
    client.create_table(TableName=TABLE, **{name: declared[name] for name in names})
    return client


def message(call_type, user="u", *, time=NOON, **fields):
    return {
        "type": call_type,
        "user_id": user,
        "message_id": "m-1",
        "original_timestamp": time,
        "timestamp": RECEIVED_AT,
        "received_at": RECEIVED_AT,
        **fields,
    }


def track(user="u", **fields):
    return message("track", user, **{"event": "Lamp Lit", **fields})


def table_of(client, customer="acme"):
    return ContactTable(client, TABLE, customer=customer, sleep=lambda _: None)


def take(client, *messages, customer="acme"):
    for one in messages:
        table_of(client, customer).take(one)


def shown(client, customer="acme"):
    table = table_of(client, customer)
    return sorted(map(table.to_json, table.profiles()), key=lambda contact: contact["id"])


def items(client, customer="acme"):
    """Return what is stored of a customer, less how often it was changed."""
    query = client.get_paginator("query").paginate(
        TableName=TABLE,
        KeyConditionExpression="customer = :customer",
        ExpressionAttributeValues={":customer": {"S": customer}},
    )
    found = [item for page in query for item in page["Items"]]
    return [{name: value for name, value in item.items() if name != "version"} for item in found]


# The same contacts from the same messages


def expected(messages, customer):
    """Say from all messages at once what contacts there are, as `shown` does."""

    def time(one):
        known = one["original_timestamp"] != UNKNOWN
        return one["original_timestamp"] if known else RECEIVED_AT if one["type"] == "delete" else ""

    def age(one):
        return time(one), one["message_id"]

    became = {(one["user_id"], one["previous_id"]) for one in messages if one["type"] == "alias"}
    erased = {(one["user_id"], time(one)) for one in messages if one["type"] == "delete"}
    while more := {(part, until) for user, until in erased for whole, part in became if user == whole} - erased:
        erased |= more

    def counts(user, one):
        return all(time(one) > until for whom, until in erased if whom == user)

    said = [one for one in messages if one["type"] != "delete" and counts(one["user_id"], one)]
    aliases = [
        one
        for one in messages
        if one["type"] == "alias" and one["user_id"] != one["previous_id"] and counts(one["previous_id"], one)
    ]
    aliases.sort(key=lambda one: (*age(one), key_of(customer, one["user_id"])))
    merged_into = {one["previous_id"]: one["user_id"] for one in aliases}

    def root(user):
        path = []
        while user in merged_into and user not in path:
            path.append(user)
            user = merged_into[user]
        return min(path[path.index(user) :], key=lambda one: key_of(customer, one)) if user in path else user

    def latest(key, of):
        ordered = sorted(of, key=lambda one: (*age(one), json.dumps(one["traits"]["plan"])))
        return {one[key]: one["traits"] for one in ordered}

    accounts = latest("group_id", [one for one in messages if one["type"] == "group"])
    users = {one["user_id"] for one in said} | merged_into.keys()
    contacts = []
    for user in sorted(user for user in users if root(user) == user):
        own = [one for one in said if root(one["user_id"]) == user]
        tracked = {(one["event"], one["user_id"], age(one)) for one in own if one["type"] == "track"}
        contacts.append(
            {
                "id": user,
                "traits": latest("type", [one for one in own if one["type"] == "identify"]).get("identify", {}),
                "groups": {one["group_id"]: accounts[one["group_id"]] for one in own if one["type"] == "group"},
                "last_seen": max(map(time, own)),
                "events": dict(Counter(event for event, _, _ in tracked)),
                "merged": sorted(other for other in users - {user} if root(other) == user),
            }
        )
    return contacts


class Killed(BaseException):
    """The function ends here."""


class Worker:
    """A function that stops before each call of the store until it is its turn."""

    def __init__(self, aws):
        self.client = aws.dynamodb()
        self.client.meta.events.register("before-call.dynamodb", self._wait)
        self.turn, self.stopped = Semaphore(0), Semaphore(0)
        self.message, self.failure, self.is_killed = None, None, False

    def start(self, one, customer):
        self.message, self.failure, self.is_killed = one, None, False
        Thread(target=self._take, args=(one, customer)).start()
        self.stopped.acquire()

    def go_on(self, *, killed=False):
        """Make one call, or end in its place; return the message if that is to come again."""
        again, self.is_killed = self.message, killed
        self.turn.release()
        self.stopped.acquire()
        if self.failure is not None and not isinstance(self.failure, Killed):
            raise self.failure
        return again if self.failure else None

    def finish(self):
        while self.message:
            self.go_on()

    def _take(self, one, customer):
        try:
            take(self.client, one, customer=customer)
        except BaseException as failure:  # noqa: BLE001 -- it is raised in the thread of the test
            self.failure = failure
        self.message = None
        self.stopped.release()

    def _wait(self, **_):
        self.stopped.release()
        self.turn.acquire()
        if self.is_killed:
            raise Killed


WORKERS = 3


@pytest.fixture
def workers(aws):
    return [Worker(aws) for _ in range(WORKERS)]


def take_beside_each_other(workers, messages, customer, schedule):
    """Take messages call by call as a schedule says: which worker goes on, and whether it is killed instead.

    Returns how many were killed, and came again.
    """
    kills = 0
    waiting = list(messages)
    turns = itertools.chain(schedule, itertools.cycle((number, False) for number in range(WORKERS)))
    while waiting or any(worker.message for worker in workers):
        number, killed = next(turns)
        worker = workers[number]
        if worker.message:
            again = worker.go_on(killed=killed)
            waiting += [again] if again else []
            kills += bool(again)
        elif waiting:
            worker.start(waiting.pop(0), customer)
    return kills


USERS = st.sampled_from("abc")
MESSAGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["identify", "track", "track", "page", "group", "alias", "alias", "delete"]),
        "user_id": USERS,
        "message_id": st.sampled_from(["m-1", "m-2"]),
        "original_timestamp": st.sampled_from([UNKNOWN, DAY_BEFORE, MORNING, NOON, EVENING]),
        "timestamp": st.just(RECEIVED_AT),
        "received_at": st.just(RECEIVED_AT),
        "event": st.sampled_from(["Lamp Lit", "Lamp Out"]),
        "group_id": st.sampled_from(["g-1", "g-2"]),
        "previous_id": USERS,
        "traits": st.fixed_dictionaries({"plan": st.sampled_from([1, "pro", None])}),
    }
)
HISTORIES = st.lists(MESSAGES, min_size=4, max_size=8)
SCHEDULES = st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from([False] * 7 + [True])), max_size=80)
CUSTOMERS = map("customer-{}".format, itertools.count())


@settings(max_examples=40)
@given(history=HISTORIES, schedule=SCHEDULES, data=st.data())
def test_contacts_depend_on_the_set_of_messages_alone(history, schedule, data, dynamodb, workers):
    customer = next(CUSTOMERS)
    again = data.draw(st.lists(st.sampled_from(history), max_size=3))
    take_beside_each_other(workers, history + again, customer, schedule)
    check(dynamodb, customer, history)


def check(client, customer, messages):
    """Check contacts, and that what does not count is not only passed over but gone."""
    contacts = shown(client, customer)
    assert contacts == expected(messages, customer)
    sets = [item["messages"]["SS"] for item in items(client, customer) if "event" in item]
    assert sum(map(len, sets)) == sum(sum(contact["events"].values()) for contact in contacts)


AT_ONCE = [
    track("visitor"),
    message("alias", "user", previous_id="visitor", time=MORNING),
    message("alias", "friend", previous_id="user", time=EVENING),
    message("delete", "user"),
    message("delete", "friend", time=EVENING),
]


def names(one):
    return " ".join(str(one[name]) for name in ("type", "user_id", "original_timestamp"))


@pytest.mark.parametrize("one", AT_ONCE, ids=names)
def test_another_message_may_come_whole_between_any_two_calls_of_one(one, dynamodb, workers):
    before = [track("visitor", time=MORNING), message("alias", "user", previous_id="visitor", message_id="m-2")]
    worker = workers[0]
    for other in AT_ONCE:
        for calls in itertools.count():
            customer = next(CUSTOMERS)
            take(dynamodb, *before, customer=customer)
            worker.start(one, customer)
            for _ in range(calls):
                worker.go_on()
            take(dynamodb, other, customer=customer)
            was_last = not worker.message
            worker.finish()
            check(dynamodb, customer, [*before, one, other])
            if was_last:
                break


BEFORE = [
    message("identify", "visitor", time=MORNING, traits={"name": "Ada"}),
    track("visitor", time=MORNING),
    track("visitor", time=DAY_BEFORE),
    track("visitor", time=UNKNOWN),
    track("visitor", time=EVENING),
    message("alias", "user", previous_id="visitor", time=MORNING),
    track("user", time=MORNING),
    message("delete", "friend"),
]


@pytest.mark.parametrize(
    "one",
    [
        message("identify", "user", traits={"name": "Ada"}),
        track("friend", time=MORNING),
        message("group", "user", group_id="g-1", traits={"plan": "pro"}),
        message("alias", "friend", previous_id="user", time=EVENING),
        message("delete", "user"),
    ],
    ids=names,
)
def test_a_message_that_was_interrupted_anywhere_ends_the_same_when_it_comes_again(one, dynamodb, workers):
    def outcome(customer):
        kinds = Counter(item["item"]["S"].split("#")[0] for item in items(dynamodb, customer))
        return kinds, shown(dynamodb, customer)

    take(dynamodb, *BEFORE, one, customer="undisturbed")
    for calls in itertools.count():
        customer = f"interrupted-{calls}"
        take(dynamodb, *BEFORE, customer=customer)
        kills = take_beside_each_other(workers, [one], customer, [(0, False)] * (calls + 1) + [(0, True)])
        assert outcome(customer) == outcome("undisturbed")
        if not kills:
            break
    assert calls > 1


# Changes of one item


@pytest.fixture
def beside(dynamodb, aws):
    """Return a client before whose puts another message changes the contact, so many times."""

    def beside(*, times):
        client, numbers = aws.dynamodb(), iter(range(times))

        def change(**_):
            for number in itertools.islice(numbers, 1):
                take(dynamodb, message("identify", traits={f"trait {number}": number}))

        client.meta.events.register("before-call.dynamodb.PutItem", change)
        return client

    return beside


def test_what_others_change_meanwhile_is_kept(dynamodb, beside):
    take(beside(times=MAX_TRIES - 1), message("identify", traits={"plan": "pro"}))
    [contact] = shown(dynamodb)
    assert contact["traits"] == {"plan": "pro", **{f"trait {number}": number for number in range(MAX_TRIES - 1)}}


def test_a_contact_that_others_change_without_end_raises(beside):
    with pytest.raises(Conflict, match=f"^contact#[0-9a-f]{{64}} was changed by others {MAX_TRIES} times in a row$"):
        take(beside(times=MAX_TRIES), message("identify", traits={"plan": "pro"}))


@pytest.mark.parametrize(
    "one",
    [
        message("identify", traits={"plan": "pro"}),
        message("group", group_id="g-1", traits={"plan": "pro"}),
        message("alias", previous_id="visitor"),
        message("delete"),
    ],
    ids=names,
)
def test_a_message_that_comes_again_puts_nothing(one, dynamodb, aws):
    take(dynamodb, one)
    client, puts = aws.dynamodb(), []
    client.meta.events.register("before-call.dynamodb.PutItem", lambda **_: puts.append(1))
    take(client, one)
    assert puts == []


# What an item holds


IDS = ["u", "#", "%23", "\x00", "\ud800", "?", "null", "\u00e9", "e\u0301", NASTY, "x" * 3000]


def test_the_table_takes_any_texts_and_holds_contacts_apart(dynamodb):
    for text in IDS:
        take(
            dynamodb,
            message("identify", text, traits={text: text}),
            message("group", text, group_id=text, traits={text: text}),
            message("alias", text, previous_id=f"previous {text}"),
            track(text, message_id=text),
            customer=NASTY,
        )
    contacts = {contact["id"]: contact for contact in shown(dynamodb, NASTY)}
    assert set(contacts) == set(IDS)
    for text, contact in contacts.items():
        assert (contact["traits"], contact["groups"]) == ({text: text}, {text: {text: text}})
        assert (contact["events"], contact["merged"]) == ({"Lamp Lit": 1}, [f"previous {text}"])


@pytest.mark.parametrize("event", ["Größe → 7 💡", "#", "x" * 3000])
def test_events_are_counted_by_any_name(event, dynamodb):
    take(dynamodb, *(track(event=event, message_id=message_id) for message_id in ("m-1", "m-2", "\ud800", "m-1")))
    assert shown(dynamodb)[0]["events"] == {event: 3}


def test_the_contacts_of_customers_are_apart(dynamodb):
    for customer in ("acme", "umbrella"):
        take(dynamodb, message("identify", traits={"customer": customer}), customer=customer)
    take(dynamodb, message("delete"), customer="umbrella")
    assert shown(dynamodb, "acme")[0]["traits"] == {"customer": "acme"}
    assert shown(dynamodb, "umbrella") == []


def test_long_traits_are_compressed(dynamodb):
    traits = {f"trait {number}": "value" for number in range(5000)}
    take(dynamodb, message("identify", traits=traits))
    [contact] = items(dynamodb)
    assert len(contact["facts"]["B"]) < 100_000
    assert shown(dynamodb)[0]["traits"] == traits


def incompressible(length):
    return "".join(random.Random(17).choices("0123456789abcdef", k=length))  # noqa: S311 -- no secret


def test_what_does_not_fit_into_an_item_raises(dynamodb):
    with pytest.raises((ClientError, RefusedByAws)):  # by our own check of what AWS refuses, or by its stand-in
        take(dynamodb, message("identify", traits={"text": incompressible(900_000)}))
    assert items(dynamodb) == []


def test_more_contacts_than_a_page_of_the_table_holds_are_all_shown(dynamodb):
    traits = {"text": incompressible(60_000)}
    take(dynamodb, *(message("identify", f"user-{number}", traits=traits) for number in range(20)))
    assert len(shown(dynamodb)) == 20


# Erasure


def test_an_erased_user_leaves_nothing_readable(dynamodb):
    take(
        dynamodb,
        message("identify", "user-7", traits={"name": "Ada", "email": "ada@example.com"}),
        message("group", "user-7", group_id="north"),
        track("user-7", time=MORNING),
        track("user-7", time=DAY_BEFORE),
        track("user-7", time=UNKNOWN),
        message("identify", "visitor-7", traits={"name": "Ada"}),
        track("visitor-7"),
        message("alias", "user-7", previous_id="visitor-7"),
        message("delete", "user-7"),
    )
    user, visitor, account = (key_of("acme", name) for name in ("user-7", "visitor-7", "north"))
    left = {item["item"]["S"]: json.loads(item["facts"]["S"]) for item in items(dynamodb)}
    assert left.pop(f"account#{account}") == {"id": "north", "last_seen": NOON}
    assert left == {
        f"contact#{user}": {"deleted_at": NOON, "merged": [visitor]},
        f"contact#{visitor}": {"deleted_at": NOON},
    }


def test_what_comes_too_late_is_not_taken_up_again(dynamodb):
    take(dynamodb, message("delete"))
    erased = items(dynamodb)
    take(
        dynamodb,
        message("identify", traits={"name": "Ada"}),
        message("page", time=UNKNOWN),
        track(time=NOON),
        track(time=MORNING),
        track(time=UNKNOWN),
    )
    assert (items(dynamodb), shown(dynamodb)) == (erased, [])


def test_who_comes_back_after_an_erasure_is_a_new_contact(dynamodb):
    take(
        dynamodb,
        message("identify", time=MORNING, traits={"name": "Ada"}),
        track(time=MORNING),
        message("delete", time=NOON),
        message("identify", time=EVENING, traits={"plan": "pro"}),
        track(time=EVENING),
    )
    [contact] = shown(dynamodb)
    assert (contact["traits"], contact["events"]) == ({"plan": "pro"}, {"Lamp Lit": 1})


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_an_erasure_leaves_what_happened_later_that_day(order, dynamodb):
    messages = [track(time=MORNING), message("delete", time=NOON), track(time=EVENING)]
    take(dynamodb, *(messages[number] for number in order))
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}


def test_an_erasure_that_comes_late_leaves_what_happened_on_later_days(dynamodb):
    take(dynamodb, track(time=DAY_BEFORE, message_id="m-0"), track(time=NOON), message("delete", time=DAY_BEFORE))
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}


def test_a_visitor_is_erased_by_the_anonymous_id(dynamodb):
    visitor = {"user_id": None, "anonymous_id": "visitor"}
    take(dynamodb, message("page", **visitor))
    assert [contact["id"] for contact in shown(dynamodb)] == ["visitor"]
    take(dynamodb, message("delete", **visitor))
    assert shown(dynamodb) == []


def test_an_account_stays_when_its_last_member_is_erased(dynamodb):
    take(dynamodb, message("group", group_id="g-1", traits={"plan": "pro"}), message("delete"))
    take(dynamodb, message("group", "other", group_id="g-1"))
    assert shown(dynamodb)[0]["groups"] == {"g-1": {"plan": "pro"}}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_an_erasure_reaches_all_that_ever_became_part_of_the_user(order, dynamodb):
    messages = [
        message("alias", "user", previous_id="visitor", time=MORNING),
        message("alias", "friend", previous_id="visitor", time=EVENING),
        message("delete", "user"),
    ]
    take(dynamodb, track("visitor", time=MORNING), *(messages[number] for number in order))
    assert [(contact["id"], contact["events"]) for contact in shown(dynamodb)] == [("friend", {})]


def test_what_is_erased_does_not_count_while_its_message_is_under_way(dynamodb, workers):
    take(dynamodb, message("delete"), track(time=EVENING))
    workers[0].start(track(time=MORNING), "acme")
    workers[0].go_on()
    assert len([item for item in items(dynamodb) if "event" in item]) == 1
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}
    workers[0].finish()


# Finding one


@pytest.mark.parametrize("contact_id", ["user", "visitor"])
def test_a_contact_is_found_by_each_of_its_ids(contact_id, dynamodb):
    take(dynamodb, message("alias", "user", previous_id="visitor"), track("visitor"))
    table = table_of(dynamodb)
    assert [table.to_json(table.find(contact_id))] == shown(dynamodb)


def test_contacts_that_are_merged_into_each_other_are_shown_once(dynamodb):
    take(dynamodb, message("alias", "a", previous_id="b"), message("alias", "b", previous_id="a"))
    [contact] = shown(dynamodb)
    assert {contact["id"], *contact["merged"]} == {"a", "b"}


@pytest.mark.parametrize("contact_id", ["erased", "nobody"])
def test_nobody_is_found_where_nobody_is(contact_id, dynamodb):
    take(dynamodb, message("identify", "erased"), message("delete", "erased"))
    assert table_of(dynamodb).find(contact_id) is None


# The partner's function


def test_as_shipped_each_message_is_taken_into_the_contacts(dynamodb, monkeypatch):
    monkeypatch.setenv("CONTACT_TABLE", TABLE)
    handle(message("identify", traits={"plan": "pro"}), "acme")
    handle(track(), "acme")
    [contact] = shown(dynamodb)
    assert (contact["id"], contact["traits"], contact["events"]) == ("u", {"plan": "pro"}, {"Lamp Lit": 1})
