"""Test the contact table: the order, repetition, concurrency and interruption of messages don't matter."""

import itertools
import json
import random
from collections import Counter
from threading import Semaphore, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searches import search, some

from consumer.contacts.contact import MAX_TRAITS, Contact, key_of, visitor_key_of
from consumer.contacts.table import MAX_ERASING_SECONDS, MAX_SET_MESSAGES, MAX_TRIES, Conflict, ContactTable, Unfinished
from consumer.errors import PermanentFailure
from consumer.handle import handle
from destination.deployment.stack import load_template
from handler.record import sha256

DAY_BEFORE, MORNING, NOON, EVENING = (
    f"2031-05-{time}:00:00.000000Z" for time in ("16T12", "17T08", "17T12", "17T20")
)  # fmt: skip
RECEIVED_AT = "2031-05-18T00:00:00.000000Z"
NEXT_YEAR = "2032-05-17T12:00:00.000000Z"
UNKNOWN = "at dusk"
INACTIVE = {"active": False}
NASTY = "#%\x00\x1f\t\n\x7f\x85\u2028\ufffe\uffff\ud800é😀"
TABLE = "contacts"


@pytest.fixture
def dynamodb(shared_account, prepare):
    client = shared_account.dynamodb()

    def create_table():
        declared = load_template()["Resources"]["ContactTable"]["Properties"]
        names = ("BillingMode", "AttributeDefinitions", "KeySchema")
        client.create_table(TableName=TABLE, **{name: declared[name] for name in names})

    prepare("contact table", create_table)
    return client


def message(call_type, user="u", *, time=NOON, **fields):
    """Return a message that was received later than it happened, or a delete that was received at once."""
    return {
        "type": call_type,
        "user_id": user,
        "message_id": "m-1",
        "original_timestamp": time,
        "timestamp": RECEIVED_AT,
        "received_at": time if call_type == "delete" else RECEIVED_AT,
        **fields,
    }


def by_visitor(one):
    """Return a message with its user id as an anonymous id."""
    return {**one, "user_id": None, "anonymous_id": one["user_id"]}


def track(user="u", **fields):
    return message("track", user, **{"event": "Lamp Lit", **fields})


def visit(visitor="visitor", **fields):
    return by_visitor(track(visitor, **fields))


def table_of(client, customer="acme", **options):
    return ContactTable(client, TABLE, customer=customer, sleep=lambda _: None, **options)


def take(client, *messages, customer="acme"):
    for one in messages:
        table_of(client, customer).take(one)


def shown(client, customer="acme"):
    table = table_of(client, customer)
    return in_order(map(table.to_json, table.profiles()))


def in_order(contacts):
    """Sort contacts. A user and a visitor may have the same id."""
    return sorted(contacts, key=lambda contact: (contact["id"], json.dumps(contact, sort_keys=True)))


def items(client, customer="acme"):
    """Return the stored items of a customer, without their change counters."""
    query = client.get_paginator("query").paginate(
        TableName=TABLE,
        KeyConditionExpression="customer = :customer",
        ExpressionAttributeValues={":customer": {"S": customer}},
    )
    found = [item for page in query for item in page["Items"]]
    return [{name: value for name, value in item.items() if name != "version"} for item in found]


# The same messages always give the same contacts


def expected(messages, customer):
    """Compute the contacts from all messages at once, in the form of `shown`."""

    def who(one):
        return ("user", one["user_id"]) if one.get("user_id") else ("visitor", one["anonymous_id"])

    def claimed(one):
        return "" if one["original_timestamp"] == UNKNOWN else one["original_timestamp"]

    def time(one):
        return min(claimed(one), one["received_at"])

    def age(one):
        return time(one), one["message_id"]

    aliases = [
        one for one in messages if one["type"] == "alias" and one.get("user_id") not in (None, one["previous_id"])
    ]
    erased = [(who(one), one["received_at"]) for one in messages if one["type"] == "delete"]
    erased += [
        (("visitor", alias["previous_id"]), until)
        for alias in aliases
        for whom, until in erased
        if whom == who(alias) and time(alias) <= until
    ]

    def counts(whom, one):
        return all(time(one) > until for other, until in erased if other == whom)

    said = [one for one in messages if one["type"] != "delete" and counts(who(one), one)]
    aliases = [one for one in aliases if counts(("visitor", one["previous_id"]), one)]
    aliases.sort(key=lambda one: (*age(one), key_of(customer, one["user_id"])))
    merged_into = {("visitor", one["previous_id"]): who(one) for one in aliases}

    def latest(key, of):
        ordered = sorted(of, key=lambda one: (*age(one), json.dumps(one["traits"]["plan"])))
        return {one[key]: one["traits"] for one in ordered}

    accounts = latest("group_id", [one for one in messages if one["type"] == "group"])
    speakers = {who(one) for one in said}
    contacts = []
    for root in (speakers | merged_into.keys()) - merged_into.keys():
        own = [one for one in said if merged_into.get(who(one), who(one)) == root]
        tracked = {(one["event"], who(one), claimed(one), one["message_id"]) for one in own if one["type"] == "track"}
        visitors = [visitor for visitor, user in merged_into.items() if user == root]
        contacts.append(
            {
                "id": root[1],
                "traits": latest("type", [one for one in own if one["type"] == "identify"]).get("identify", {}),
                "groups": {one["group_id"]: accounts[one["group_id"]] for one in own if one["type"] == "group"},
                "last_seen": max((time(one) for one in own if one.get("context") != INACTIVE), default=""),
                "events": dict(Counter(event for event, *_ in tracked)),
                "merged": sorted(
                    visitor[1] for visitor in visitors if visitor in speakers or ("user", visitor[1]) not in speakers
                ),
            }
        )
    return in_order(contacts)


class Killed(BaseException):
    """Stands for the end of the function."""


class Worker:
    """A function that stops before each store call and waits for its turn."""

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
        """Make one call, or end the function instead. Return the message if it must be taken again."""
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


def take_concurrently(workers, messages, customer, schedule):
    """Take messages concurrently, call by call.

    The schedule says which worker continues, and whether it is killed instead.

    Returns how many were killed and taken again.
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


IDS_OF_ALL = st.sampled_from("abc")
MESSAGES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["identify", "track", "track", "page", "group", "alias", "alias", "delete"]),
        "user_id": IDS_OF_ALL,
        "message_id": st.sampled_from(["m-1", "m-2"]),
        "original_timestamp": st.sampled_from([UNKNOWN, DAY_BEFORE, MORNING, NOON, EVENING, NEXT_YEAR]),
        "timestamp": st.just(RECEIVED_AT),
        "received_at": st.sampled_from([MORNING, NOON, EVENING, RECEIVED_AT]),
        "event": st.sampled_from(["Lamp Lit", "Lamp Out"]),
        "group_id": st.sampled_from(["g-1", "g-2"]),
        "previous_id": IDS_OF_ALL,
        "traits": st.fixed_dictionaries({"plan": st.sampled_from([1, "pro", None])}),
        "context": st.sampled_from([{}, {}, INACTIVE]),
    }
).flatmap(lambda one: st.sampled_from([one, by_visitor(one)]))
HISTORIES = st.lists(MESSAGES, min_size=4, max_size=8)
SCHEDULES = st.lists(st.tuples(st.integers(0, WORKERS - 1), st.sampled_from([False] * 7 + [True])), max_size=80)
CUSTOMERS = map("customer-{}".format, itertools.count())


@search(40)
@given(history=HISTORIES, schedule=SCHEDULES, data=st.data())
def test_contacts_depend_only_on_the_set_of_messages(history, schedule, data, dynamodb, workers):
    customer = next(CUSTOMERS)
    again = data.draw(st.lists(st.sampled_from(history), max_size=3))
    take_concurrently(workers, history + again, customer, schedule)
    check(dynamodb, customer, history)


def check(client, customer, messages):
    """Check contacts, and that events that don't count are also removed from the table."""
    contacts = shown(client, customer)
    assert contacts == expected(messages, customer)
    counted = {
        (item["item"]["S"].split("#")[1], item["event"]["S"], *one.split("#")[:2])
        for item in items(client, customer)
        if "event" in item
        for one in item["messages"]["SS"]
    }
    assert len(counted) == sum(sum(contact["events"].values()) for contact in contacts)


AT_ONCE = [
    visit(),
    message("alias", "user", previous_id="visitor", time=MORNING),
    message("alias", "friend", previous_id="visitor", time=EVENING),
    message("delete", "user"),
    message("delete", "friend", time=EVENING),
    track("user", time=NEXT_YEAR, received_at=MORNING),
]


def names(one):
    return " ".join(str(one[name]) for name in ("type", "user_id", "original_timestamp", "received_at"))


@pytest.mark.many_examples
@pytest.mark.parametrize("one", some(AT_ONCE), ids=names)
def test_another_message_may_be_taken_between_any_two_calls(one, dynamodb, workers):
    before = [visit(time=MORNING), message("alias", "user", previous_id="visitor", message_id="m-2")]
    worker = workers[0]
    for other in some(AT_ONCE[::-1]):
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
    by_visitor(message("identify", "visitor", time=MORNING, traits={"name": "Ada"})),
    visit(time=MORNING),
    visit(time=DAY_BEFORE),
    visit(time=UNKNOWN),
    visit(time=EVENING),
    message("alias", "user", previous_id="visitor", time=MORNING),
    track("user", time=MORNING),
    message("delete", "friend"),
]


@pytest.mark.parametrize(
    "one",
    some(
        [
            message("identify", "user", traits={"name": "Ada"}),
            track("friend", time=MORNING),
            message("group", "user", group_id="g-1", traits={"plan": "pro"}),
            message("alias", "friend", previous_id="visitor", time=MORNING),
            message("delete", "user"),
        ]
    ),
    ids=names,
)
@pytest.mark.many_examples
def test_interrupted_message_ends_the_same_when_taken_again(one, dynamodb, workers):
    def outcome(customer):
        kinds = Counter(item["item"]["S"].split("#")[0] for item in items(dynamodb, customer))
        return kinds, shown(dynamodb, customer)

    take(dynamodb, *BEFORE, one, customer="undisturbed")
    for calls in itertools.count():
        customer = f"interrupted-{calls}"
        take(dynamodb, *BEFORE, customer=customer)
        kills = take_concurrently(workers, [one], customer, [(0, False)] * (calls + 1) + [(0, True)])
        assert outcome(customer) == outcome("undisturbed")
        if not kills:
            break
    assert calls > 1


# Changes of one item


@pytest.fixture
def contended_client(dynamodb, aws):
    """Return a client with contention: before each of its first `times` puts, another message changes the contact."""

    def contended_client(*, times):
        client, numbers = aws.dynamodb(), iter(range(times))

        def change(**_):
            for number in itertools.islice(numbers, 1):
                take(dynamodb, message("identify", traits={f"trait {number}": number}))

        client.meta.events.register("before-call.dynamodb.PutItem", change)
        return client

    return contended_client


def test_concurrent_changes_are_kept(dynamodb, contended_client):
    take(contended_client(times=MAX_TRIES - 1), message("identify", traits={"plan": "pro"}))
    [contact] = shown(dynamodb)
    assert contact["traits"] == {"plan": "pro", **{f"trait {number}": number for number in range(MAX_TRIES - 1)}}


def test_endless_concurrent_changes_raise(contended_client):
    with pytest.raises(Conflict, match=f"^contact#[0-9a-f]{{64}} was changed by others {MAX_TRIES} times in a row$"):
        take(contended_client(times=MAX_TRIES), message("identify", traits={"plan": "pro"}))


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
def test_message_taken_again_writes_nothing(one, dynamodb, aws):
    take(dynamodb, one)
    client, puts = aws.dynamodb(), []
    client.meta.events.register("before-call.dynamodb.PutItem", lambda **_: puts.append(1))
    take(client, one)
    assert puts == []


# Contents of an item


IDS = ["u", "#", "%23", "\x00", "\ud800", "?", "null", "\u00e9", "e\u0301", NASTY, "x" * 3000]


def test_any_text_is_stored_and_contacts_stay_separate(dynamodb):
    for text in IDS:
        take(
            dynamodb,
            message("identify", text, traits={text[:400]: text[:400]}),
            message("group", text, group_id=text[:400], traits={text[:400]: text[:400]}),
            message("alias", text, previous_id=f"previous {text}"),
            track(text, message_id=text),
            customer=NASTY,
        )
    contacts = {contact["id"]: contact for contact in shown(dynamodb, NASTY)}
    assert set(contacts) == set(IDS)
    for text, contact in contacts.items():
        traits = {text[:400]: text[:400]}
        assert (contact["traits"], contact["groups"]) == (traits, {text[:400]: traits})
        assert (contact["events"], contact["merged"]) == ({"Lamp Lit": 1}, [f"previous {text}"])


EVENTS = {**{name: name for name in ("Größe → 7 💡", "#", "x" * 3000)}, "\ud800": "?", "x" * 400_000: "x" * 4096 + "…"}


@pytest.mark.parametrize(("event", "name"), EVENTS.items(), ids=range(len(EVENTS)))
def test_events_with_any_name_are_counted(event, name, dynamodb):
    take(dynamodb, *(track(event=event, message_id=message_id) for message_id in ("m-1", "m-2", "\ud800", "m-1")))
    assert shown(dynamodb)[0]["events"] == {name: 3}


def test_contacts_of_customers_are_separate(dynamodb):
    for customer in ("acme", "umbrella"):
        take(dynamodb, message("identify", traits={"customer": customer}), customer=customer)
    take(dynamodb, message("delete"), customer="umbrella")
    assert shown(dynamodb, "acme")[0]["traits"] == {"customer": "acme"}
    assert shown(dynamodb, "umbrella") == []


def test_long_traits_are_compressed(dynamodb):
    traits = {f"trait {number}": "value" * 100 for number in range(MAX_TRAITS)}
    take(dynamodb, message("identify", traits=traits))
    [contact] = items(dynamodb)
    assert len(contact["facts"]["B"]) < 20_000
    assert shown(dynamodb)[0]["traits"] == traits


def incompressible(length):
    return "".join(random.Random(17).choices("0123456789abcdef", k=length))  # noqa: S311 -- no secret


def test_oversized_contact_keeps_the_newest_and_names_what_it_left_out(dynamodb):
    calls = [
        message("identify", traits={"text": incompressible(900_000), "\ud800": 1}, time=MORNING),
        message("identify", traits={f"trait {number:03}": incompressible(900) for number in range(MAX_TRAITS + 200)}),
        message("group", group_id="g-1", traits={"text": incompressible(900_000), "plan": "pro"}),
        message("group", group_id="x" * 500_000),
    ]
    take(dynamodb, *calls, customer="acme")
    take(dynamodb, *reversed(calls), customer="umbrella")
    [contact] = shown(dynamodb)
    assert [contact] == shown(dynamodb, "umbrella")
    assert [*contact["traits"]] == [f"trait {number:03}" for number in range(200, MAX_TRAITS + 200)]
    assert contact["groups"] == {"g-1": {"plan": "pro"}}
    assert contact["left_out"] == {"traits": [], "groups": ["g-1"], "more": True}
    take(dynamodb, message("identify", "other", traits={"text": incompressible(900_000), "plan": "pro"}))
    assert shown(dynamodb)[0]["left_out"] == {"traits": ["text"], "groups": [], "more": False}


def test_erasure_makes_room_in_a_full_contact(dynamodb):
    take(
        dynamodb,
        message("identify", traits={"text": incompressible(5000)}),
        message("identify", traits={f"trait {number}": incompressible(900) for number in range(MAX_TRAITS + 1)}),
        message("delete"),
        message("identify", time=EVENING, traits={"plan": "pro"}),
    )
    [contact] = shown(dynamodb)
    assert (contact["traits"], "left_out" in contact) == ({"plan": "pro"}, False)


MANY = MAX_SET_MESSAGES + 20
TAKEN_AT_ONCE = MAX_SET_MESSAGES - 10


def take_many(client, messages):
    """Take more messages of a user, event and day than a set holds. One call takes most of them."""
    first, *others = messages[:TAKEN_AT_ONCE]
    take(client, first)
    [name] = seen_items(client)
    client.update_item(
        TableName=TABLE,
        Key={"customer": {"S": "acme"}, "item": {"S": name}},
        UpdateExpression="ADD messages :others",
        ExpressionAttributeValues={":others": {"SS": [text_of(one) for one in others]}},
    )
    take(client, *messages[TAKEN_AT_ONCE:])


def text_of(one):
    """Return the text that represents a message in a set."""
    return f"{one['original_timestamp']}#{sha256(one['message_id'])[:12]}"


def test_each_of_many_messages_of_an_event_and_day_counts_once(dynamodb):
    messages = [track(message_id=f"m-{number}") for number in range(MANY)]
    take_many(dynamodb, messages)
    sizes = [len(item["messages"]["SS"]) for item in items(dynamodb) if "event" in item]
    assert (sum(sizes), max(sizes)) == (MANY, MAX_SET_MESSAGES)
    take(dynamodb, *messages[-30:], *messages[:30])
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": MANY}
    take(dynamodb, track(message_id="m-0", time=MORNING), message("delete", time=MORNING))
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": MANY}
    take(dynamodb, message("delete", time=NOON), *messages[-5:])
    assert [item for item in items(dynamodb) if "event" in item] == []


def test_message_in_two_sets_counts_once_and_is_erased_from_both(dynamodb):
    messages = [track(message_id=f"m-{number}") for number in range(MAX_SET_MESSAGES + 1)]
    take_many(dynamodb, messages)
    [full] = [item for item in items(dynamodb) if len(item.get("messages", {"SS": []})["SS"]) == MAX_SET_MESSAGES]
    dynamodb.update_item(
        TableName=TABLE,
        Key={name: full[name] for name in ("customer", "item")},
        UpdateExpression="DELETE messages :one",
        ExpressionAttributeValues={":one": {"SS": full["messages"]["SS"][:1]}},
    )
    take(dynamodb, messages[-1])
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": MAX_SET_MESSAGES}
    noted = by_hand(dynamodb, deleted_at=NOON)  # an erasure that has not swept yet
    take(dynamodb, messages[-1])
    left = [one for item in items(dynamodb) if "event" in item for one in item["messages"]["SS"]]
    assert (noted, len(left)) == (NOON, MAX_SET_MESSAGES - 1)


def seen_items(client):
    return {item["item"]["S"]: item["messages"]["SS"] for item in items(client) if "event" in item}


def test_messages_with_the_same_id_are_split_too(dynamodb):
    messages = [track(message_id="const", time=f"2031-05-17T12:00:00.{number:06}Z") for number in range(MANY)]
    take_many(dynamodb, messages)
    assert {len(name.split("#")[4:]) and len(name.split("#")[4]) for name in seen_items(dynamodb)} == {0, 1}
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": MANY}
    take(dynamodb, *messages[-30:], *messages[:30])
    assert sum(map(len, seen_items(dynamodb).values())) == MANY
    take(dynamodb, message("delete", time=messages[-1]["original_timestamp"]), *messages[-5:])
    assert seen_items(dynamodb) == {}


def fill_sets(client, one, *, count):
    """Fill the first sets that may hold a message. Return the text of that message."""
    take(client, one)
    [(name, [text])] = seen_items(client).items()
    others = [f"{NOON}#{number:012}" for number in range(MAX_SET_MESSAGES)]
    for digits in range(count):
        item = {
            "customer": {"S": "acme"},
            "item": {"S": name + (f"#{sha256(text)[:digits]}" if digits else "")},
            "event": {"S": "Lamp Lit"},
            "messages": {"SS": others},
        }
        client.put_item(TableName=TABLE, Item=item)
    return text


HASH_DIGITS = 64


def test_message_goes_to_its_last_set_if_others_are_full(dynamodb):
    text = fill_sets(dynamodb, track(), count=HASH_DIGITS)
    take(dynamodb, track(), track())
    assert [messages for messages in seen_items(dynamodb).values() if text in messages] == [[text]]


def test_message_fails_permanently_if_all_its_sets_are_full(dynamodb):
    fill_sets(dynamodb, track(), count=HASH_DIGITS + 1)
    with pytest.raises(PermanentFailure, match="are full"):
        take(dynamodb, track())


def by_hand(client, *, deleted_at):
    """Note an erasure of the user, like a function that ends right after that."""
    contact = table_of(client)._join(f"contact#{key_of('acme', 'u')}", Contact(deleted_at=deleted_at))  # noqa: SLF001
    return contact.deleted_at


def test_more_contacts_than_one_page_are_all_shown(dynamodb):
    traits = {"text": incompressible(60_000)}
    take(dynamodb, *(message("identify", f"user-{number}", traits=traits) for number in range(20)))
    assert len(shown(dynamodb)) == 20


# Erasure


def test_erased_user_leaves_nothing_readable(dynamodb):
    take(
        dynamodb,
        message("identify", "user-7", traits={"name": "Ada", "email": "ada@example.com"}),
        message("group", "user-7", group_id="north"),
        track("user-7", time=MORNING),
        track("user-7", time=DAY_BEFORE),
        track("user-7", time=UNKNOWN),
        by_visitor(message("identify", "visitor-7", traits={"name": "Ada"})),
        visit("visitor-7"),
        message("alias", "user-7", previous_id="visitor-7"),
        message("delete", "user-7"),
    )
    user, visitor, account = key_of("acme", "user-7"), visitor_key_of("acme", "visitor-7"), key_of("acme", "north")
    stored = {item["item"]["S"]: item for item in items(dynamodb)}
    part = stored.pop(f"part#{user}#{visitor}")
    assert {name: value for name, value in part.items() if name not in ("customer", "item")} == {
        "time": {"S": NOON},
        "erased": {"S": NOON},
    }
    left = {name: json.loads(item["facts"]["S"]) for name, item in stored.items()}
    assert left.pop(f"account#{account}") == {"id": "north", "last_seen": NOON}
    assert left == {
        f"contact#{user}": {"deleted_at": NOON, "has_parts": True},
        f"contact#{visitor}": {"deleted_at": NOON},
    }


def test_late_messages_do_not_restore_an_erased_contact(dynamodb):
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


def test_returning_user_is_a_new_contact(dynamodb):
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
def test_erasure_keeps_later_events_of_that_day(order, dynamodb):
    messages = [track(time=MORNING), message("delete", time=NOON), track(time=EVENING)]
    take(dynamodb, *(messages[number] for number in order))
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}


def test_late_erasure_keeps_events_of_later_days(dynamodb):
    take(dynamodb, track(time=DAY_BEFORE, message_id="m-0"), track(time=NOON), message("delete", time=DAY_BEFORE))
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}


def test_visitor_is_erased_by_the_anonymous_id(dynamodb):
    take(dynamodb, by_visitor(message("page", "visitor")))
    assert [contact["id"] for contact in shown(dynamodb)] == ["visitor"]
    take(dynamodb, by_visitor(message("delete", "visitor")))
    assert shown(dynamodb) == []


def test_account_stays_after_its_last_member_is_erased(dynamodb):
    take(dynamodb, message("group", group_id="g-1", traits={"plan": "pro"}), message("delete"))
    take(dynamodb, message("group", "other", group_id="g-1"))
    assert shown(dynamodb)[0]["groups"] == {"g-1": {"plan": "pro"}}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_erasure_covers_everything_ever_merged_into_the_user(order, dynamodb):
    messages = [
        message("alias", "user", previous_id="visitor", time=MORNING),
        message("alias", "friend", previous_id="visitor", time=EVENING),
        message("delete", "user"),
    ]
    take(dynamodb, visit(time=MORNING), *(messages[number] for number in order))
    assert [(contact["id"], contact["events"]) for contact in shown(dynamodb)] == [("friend", {})]


def test_erased_event_does_not_count_while_its_message_is_in_progress(dynamodb, workers):
    take(dynamodb, message("delete"), track(time=EVENING))
    workers[0].start(track(time=MORNING), "acme")
    workers[0].go_on()
    assert len([item for item in items(dynamodb) if "event" in item]) == 1
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}
    workers[0].finish()


def test_erased_event_is_not_shown_before_the_sweep(dynamodb, aws):
    take(dynamodb, track(time=MORNING), message("identify", time=EVENING))
    client = aws.dynamodb()

    def end(**_):
        raise InterruptedError

    client.meta.events.register("before-parameter-build.dynamodb.Query", end)
    with pytest.raises(InterruptedError):
        take(client, message("delete"))
    assert [item for item in items(dynamodb) if "event" in item]
    assert [contact["events"] for contact in shown(dynamodb)] == [{}]


# Wrong clocks


AHEAD = message("identify", time=NEXT_YEAR, received_at=MORNING, traits={"email": "ada@example.com"})


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_message_with_a_fast_clock_does_not_survive_an_erasure(order, dynamodb):
    messages = [AHEAD, track(time=NEXT_YEAR, received_at=MORNING), message("delete", time=NOON)]
    take(dynamodb, *(messages[number] for number in order))
    assert shown(dynamodb) == []
    assert [item for item in items(dynamodb) if "event" in item] == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_activity_between_time_and_arrival_of_a_delete_is_erased(order, dynamodb):
    messages = [message("delete", time=DAY_BEFORE, received_at=NOON), track(time=MORNING), AHEAD]
    take(dynamodb, *(messages[number] for number in order))
    assert shown(dynamodb) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_activity_after_a_delete_stays_despite_a_fast_clock(order, dynamodb):
    messages = [track(time=NEXT_YEAR, received_at=EVENING), message("delete", time=NOON), AHEAD]
    take(dynamodb, *(messages[number] for number in order))
    [contact] = shown(dynamodb)
    assert (contact["events"], contact["last_seen"], contact["traits"]) == ({"Lamp Lit": 1}, EVENING, {})


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_resend_with_a_fast_clock_counts_once(order, dynamodb):
    copies = [track(time=EVENING, received_at=received_at) for received_at in (MORNING, NOON, RECEIVED_AT)]
    take(dynamodb, *(copies[number] for number in order))
    assert shown(dynamodb)[0]["events"] == {"Lamp Lit": 1}


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=str)
def test_replay_does_not_restore_erased_contacts(order, dynamodb):
    messages = [track(time=MORNING, received_at=MORNING), message("delete", time=NOON)]
    take(dynamodb, *messages, *(messages[number] for number in order))
    assert shown(dynamodb) == []


# What an alias can affect


VICTIM = message("identify", "victim", time=MORNING, traits={"email": "victim@example.com"})
CLAIM = message("alias", "gone", previous_id="victim", time=EVENING)


@pytest.mark.many_examples
@pytest.mark.parametrize(
    ("order", "claimed_at"),
    some(list(itertools.product(itertools.permutations(range(4)), [UNKNOWN, MORNING, EVENING]))),
    ids=str,
)
def test_alias_cannot_hide_or_erase_another_user(order, claimed_at, dynamodb):
    claim = {**CLAIM, "original_timestamp": claimed_at}
    messages = [VICTIM, track("gone", time=MORNING), message("delete", "gone"), claim]
    take(dynamodb, *(messages[number] for number in order), claim)
    found = {contact["id"]: contact for contact in shown(dynamodb)}
    assert found.pop("victim")["traits"] == {"email": "victim@example.com"}
    assert [(contact["id"], contact["merged"], contact["traits"]) for contact in found.values()] in (
        [],
        [("gone", [], {})],
    )
    table = table_of(dynamodb)
    assert table.to_json(table.find("victim"))["id"] == "victim"


@pytest.mark.many_examples
@pytest.mark.parametrize("order", some(list(itertools.permutations(range(4)))), ids=str)
def test_erasure_does_not_follow_a_later_alias(order, dynamodb):
    messages = [
        visit(time=MORNING),
        message("delete", "user"),
        message("alias", "user", previous_id="visitor", time=EVENING),
        by_visitor(message("identify", "visitor", time=MORNING, traits={"plan": "pro"})),
    ]
    take(dynamodb, *(messages[number] for number in order))
    [contact] = shown(dynamodb)
    assert (contact["id"], contact["merged"], contact["events"]) == ("user", ["visitor"], {"Lamp Lit": 1})
    take(dynamodb, message("delete", "user", time=RECEIVED_AT))
    assert shown(dynamodb) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=str)
def test_first_of_two_aliases_decides_the_extent_of_an_erasure(order, dynamodb):
    aliases = [
        message("alias", "user", previous_id="visitor", time=time, message_id=time) for time in (MORNING, EVENING)
    ]
    take(dynamodb, visit(time=MORNING), *(aliases[number] for number in order), message("delete", "user"))
    assert [(contact["id"], contact["events"]) for contact in shown(dynamodb)] == [("user", {})]


def test_second_erasure_erases_the_same_visitor_again(dynamodb):
    take(dynamodb, message("alias", "user", previous_id="visitor", time=MORNING), visit(time=MORNING))
    take(dynamodb, message("delete", "user", time=NOON), visit(time=EVENING))
    assert [contact["id"] for contact in shown(dynamodb)] == ["visitor"]
    take(dynamodb, message("delete", "user", time=RECEIVED_AT))
    assert shown(dynamodb) == []


def test_erasure_of_circular_aliases_ends(dynamodb):
    aliases = [message("alias", user, previous_id=previous) for user, previous in ("ab", "bc", "cb")]
    take(dynamodb, *aliases, track("b"), *map(visit, "bc"), message("delete", "a", time=EVENING))
    events = {contact["id"]: (contact["events"], contact["merged"]) for contact in shown(dynamodb)}
    assert events == {"b": ({"Lamp Lit": 2}, ["c"]), "c": ({}, [])}


# Large erasures


DAYS = [f"2031-04-{day:02}T12:00:00.000000Z" for day in range(1, 31)]


def much():
    """Return messages of a user on many days, and of visitors that were merged into the user."""
    for number, day in enumerate(DAYS):
        yield track(time=day)
        yield visit(f"visitor-{number}", time=day)
        yield message("alias", previous_id=f"visitor-{number}", time=day)


def ticking(seconds):
    """Return a clock that advances by this amount at each reading."""
    times = itertools.count(0, seconds)
    return lambda: next(times)


def test_next_delivery_continues_with_visitors_not_yet_erased(dynamodb):
    for visitor in ("visitor-1", "visitor-2"):
        take(dynamodb, visit(visitor, time=MORNING), message("alias", previous_id=visitor, time=MORNING))

    def hand_over():
        table_of(dynamodb, clock=ticking(MAX_ERASING_SECONDS)).take(message("delete"))

    with pytest.raises(Unfinished, match="longer than 10 seconds, and continues next time"):
        hand_over()
    assert len(seen_items(dynamodb)) == 1
    hand_over()
    assert seen_items(dynamodb) == {}


@pytest.mark.many_examples
@pytest.mark.parametrize("looks", some([5, 1, 2]))
def test_erasure_that_ran_out_of_time_continues_where_it_ended(looks, dynamodb):
    take(dynamodb, *much())
    for hand_overs in itertools.count(1):  # noqa: B007 -- used at the end
        before = items(dynamodb)
        try:
            table_of(dynamodb, clock=ticking(MAX_ERASING_SECONDS / looks)).take(message("delete", time=NOON))
        except Unfinished:
            assert items(dynamodb) != before
        else:
            break
    assert hand_overs > 20 / looks  # each run made progress
    assert shown(dynamodb) == []
    assert [item for item in items(dynamodb) if "event" in item] == []
    assert all(item["erased"] == {"S": NOON} for item in items(dynamodb) if "time" in item)


def test_unprocessed_deletes_are_retried(dynamodb, aws):
    take(dynamodb, *(track(time=day) for day in DAYS))
    client, sizes, waiting = aws.dynamodb(), [], []

    def hold_back(params, **_):
        """Let only one of the deletes reach the table."""
        [deletes] = params["RequestItems"].values()
        sizes.append(len(deletes))
        waiting[:] = deletes[1:]
        del deletes[1:]

    def answer(parsed, **_):
        parsed["UnprocessedItems"] = {TABLE: list(waiting)} if waiting else {}

    client.meta.events.register("before-parameter-build.dynamodb.BatchWriteItem", hold_back)
    client.meta.events.register("after-call.dynamodb.BatchWriteItem", answer)
    take(client, message("delete", time=NOON))
    assert sizes == [*range(25, 0, -1), *range(5, 0, -1)]
    assert [item for item in items(dynamodb) if "event" in item] == []


@pytest.mark.usefixtures("dynamodb")
def test_all_reads_are_consistent(aws):
    client = aws.dynamodb()

    def is_consistent(params, **_):
        assert params["ConsistentRead"]

    for operation in ("GetItem", "Query"):
        client.meta.events.register(f"before-parameter-build.dynamodb.{operation}", is_consistent)
    take(client, track(), visit(), message("alias", previous_id="visitor"), message("group", group_id="g-1"))
    assert shown(client) != []
    take(client, message("delete"))
    assert (shown(client), table_of(client).find("u")) == ([], None)


def test_set_that_was_deleted_meanwhile_is_not_restored(dynamodb, aws):
    take(dynamodb, track(time=MORNING), track(time=EVENING, event="Lamp Out"))
    client, keys = aws.dynamodb(), []

    def delete_first(**_):
        for item in items(dynamodb):
            if item.get("event") == {"S": "Lamp Lit"}:
                keys.append({name: item[name] for name in ("customer", "item")})
                dynamodb.delete_item(TableName=TABLE, Key=keys[-1])

    client.meta.events.register("before-call.dynamodb.UpdateItem", delete_first)
    put_back = []
    client.meta.events.register("after-call.dynamodb.UpdateItem", lambda **_: put_back.extend(items(dynamodb)))
    take(client, message("delete", time=NOON))
    assert len(keys) == 1
    assert not [item for item in put_back if keys[0]["item"] == item["item"]]


@pytest.mark.parametrize("whom", ["user", "visitor"])
def test_erasure_is_noted_before_its_sweep(whom, dynamodb, aws):
    one = {"user": track("user", time=MORNING), "visitor": visit(time=MORNING)}[whom]
    take(dynamodb, message("alias", "user", previous_id="visitor", time=MORNING))
    client = aws.dynamodb()

    calls = []

    def take_meanwhile(params, **_):
        """Take the message once, at a moment when a sweep before the note would be over."""
        facts = key_of("acme", "user") if whom == "user" else visitor_key_of("acme", "visitor")
        if not calls and params.get("Key", {}).get("item") == {"S": f"contact#{facts}"}:
            calls.append(1)
            take(dynamodb, one)

    client.meta.events.register("before-parameter-build.dynamodb.GetItem", take_meanwhile)
    take(client, message("delete", "user"))
    assert calls
    assert [item for item in items(dynamodb) if "event" in item] == []


# Find a contact


def test_user_is_found_before_a_visitor_with_the_same_id(dynamodb):
    take(dynamodb, visit("x", event="Lamp Out"))
    table = table_of(dynamodb)
    assert table.to_json(table.find("x"))["events"] == {"Lamp Out": 1}
    take(dynamodb, track("x"))
    assert table.to_json(table.find("x"))["events"] == {"Lamp Lit": 1}
    assert len(shown(dynamodb)) == 2


@pytest.mark.parametrize("contact_id", ["user", "visitor"])
def test_contact_is_found_by_each_of_its_ids(contact_id, dynamodb):
    take(dynamodb, message("alias", "user", previous_id="visitor"), visit())
    table = table_of(dynamodb)
    assert [table.to_json(table.find(contact_id))] == shown(dynamodb)


@pytest.mark.parametrize("contact_id", ["erased", "nobody"])
def test_unknown_contact_is_not_found(contact_id, dynamodb):
    take(dynamodb, message("identify", "erased"), message("delete", "erased"))
    assert table_of(dynamodb).find(contact_id) is None


# The partner's function


def test_shipped_consumer_adds_each_message_to_the_contacts(dynamodb, monkeypatch):
    monkeypatch.setenv("CONTACT_TABLE", TABLE)
    handle(message("identify", traits={"plan": "pro"}), "acme")
    handle(track(), "acme")
    [contact] = shown(dynamodb)
    assert (contact["id"], contact["traits"], contact["events"]) == ("u", {"plan": "pro"}, {"Lamp Lit": 1})
