"""Test the eraser on the stores of the whole function."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError
from botocore.parsers import ResponseParserError
from searches import some

from consumer.erasure.subject import (
    MAX_DELETE_TRIES,
    PAGE_KEYS,
    WRITE_UNITS_PER_SECOND,
    Eraser,
    Link,
    OutOfTimeError,
    Scope,
    links_in,
    links_of,
)
from consumer.erasure.table import MAX_LINKED_IDS, ErasureRequest, ErasureTable, FinishedElsewhereError
from consumer.runtime.clients import background_client
from handler.canonicalise import canonicalise
from handler.errors import EventStoreUnavailable
from handler.record import Record, sha256
from handler.sinks.dynamodb import EventTable

FOREVER = float("inf")
NOW = 1_936_785_600.0


@dataclass
class Clock:
    """A clock that advances only when somebody sleeps."""

    now: float = NOW
    slept: list[float] = field(default_factory=list)

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@dataclass(frozen=True, kw_only=True)
class Place:
    """A deployment with an eraser."""

    deployment: Any
    client: Any
    clock: Clock
    prepare: Callable[[str, Callable[[], Any]], Any]

    def eraser(self, scope=Scope.USER, *, clock=None, hand_over=None, unread=print):
        stores = self.deployment.stack.stores
        return Eraser(
            self.client,
            event_table=stores.event_table,
            rejects_table=stores.rejects_table,
            erasures=self.erasures,
            scope=scope,
            hand_over=hand_over,
            unread=unread,
            clock=clock or self.clock,
            sleep=self.clock.sleep,
        )

    @property
    def erasures(self):
        return ErasureTable(self.client, self.deployment.stack.stores.erasure_table)

    def post(self, *messages):
        for message in messages:
            self.deployment.post(message)

    def request(self, user="user-1"):
        """Store a `delete` message, and return it as an erasure request."""
        self.post({"type": "delete", "userId": user, "messageId": f"delete-{next(NUMBERS)}"})
        [*_, stored] = sorted(
            (item for item in self.deployment.stored() if item["type"] == "delete" and item["user_id"] == user),
            key=lambda item: item["stored_at"],
        )
        return ErasureRequest(
            customer_id="demo",
            subject=stored["subject"],
            requested_at=stored["stored_at"],
            message_id=stored["message_id"],
        )

    def stored(self):
        """Return the subject of each stored message."""
        return sorted(item["subject"] for item in self.deployment.stored())

    def rejects(self):
        stores = self.deployment.stack.stores
        return self.deployment.account.dynamodb().scan(TableName=stores.rejects_table)["Items"]

    def receipts(self):
        return list(self.erasures.everything())


NUMBERS = itertools.count()


@pytest.fixture
def place(deploy, prepare):
    deployment = deploy()
    return Place(deployment=deployment, client=background_client("dynamodb"), clock=Clock(), prepare=prepare)


def track(**fields):
    return {"type": "track", "event": "Lamp Lit", "messageId": f"m-{next(NUMBERS)}", **fields}


def reject(**fields):
    return {"type": "track", "messageId": f"m-{next(NUMBERS)}", **fields}


def counts(receipt):
    return (receipt.messages, receipt.rejects, receipt.linked_messages, receipt.linked_rejects)


def test_only_messages_of_the_user_are_erased(place):
    place.post(track(userId="user-1"), {"type": "identify", "userId": "user-1"}, track(userId="user-2"))
    place.post(track(userId="user-1#"), track(anonymousId="user-1"), track(userId="USER-1"))
    receipt = place.eraser().erase(place.request(), until=FOREVER)
    assert place.stored() == ["demo#anonymous#user-1", "demo#user#USER-1", "demo#user#user-1%23", "demo#user#user-2"]
    assert counts(receipt) == (2, 0, 0, 0)


def test_user_of_another_customer_with_the_same_id_stays(place):
    place.deployment.add_key("of-acme", customer_id="acme")
    place.deployment.post(track(userId="user-1"), key="of-acme")
    place.eraser().erase(place.request(), until=FOREVER)
    assert place.stored() == ["acme#user#user-1"]


def test_only_rejects_of_the_user_are_erased(place):
    place.post(reject(userId="user-1"), reject(userId="user-1", anonymousId="5f0c"), reject(userId="user-2"))
    place.post(reject(anonymousId="user-1"), reject())
    receipt = place.eraser().erase(place.request(), until=FOREVER)
    assert sorted(item.get("subject", {}).get("S", "") for item in place.rejects()) == [
        "",
        "demo#anonymous#user-1",
        "demo#user#user-2",
    ]
    assert counts(receipt) == (0, 2, 0, 0)


@pytest.mark.parametrize(
    ("subject", "message_id", "kept"),
    [
        ("demo#user#97980cfea0067", "delete-reg-1::job-2-p", "delete-reg-1::job-2-p"),
        ("demo#user#ada@example.com", "erase Ada@Example.com now", ""),
        ("demo#user#a%23d-1", "erase-a#d-1", ""),
        ("demo#user#12", "delete-12", "delete-12"),
    ],
)
def test_receipt_names_the_delete_unless_its_message_id_names_the_user(subject, message_id, kept):
    request = ErasureRequest(customer_id="demo", subject=subject, requested_at="2031", message_id=message_id)
    assert request.nameless_message_id == kept


def test_receipt_of_an_older_version_names_no_delete(place):
    receipt = place.eraser().erase(place.request(), until=FOREVER)
    table = place.deployment.stack.stores.erasure_table
    key = {"customer": {"S": "demo"}, "erasure": {"S": f"{receipt.user_hash}#{receipt.requested_at}"}}
    place.deployment.account.dynamodb().update_item(TableName=table, Key=key, UpdateExpression="REMOVE message_id")
    assert place.receipts() == [replace(receipt, message_id="")]


def test_receipt_shows_what_was_erased_and_names_nobody(place):
    place.post(track(userId="user-1", anonymousId="5f0c"))
    request = place.request()
    receipt = place.eraser().erase(request, until=FOREVER)
    assert receipt.to_json() == {
        "customer_id": "demo",
        "user_hash": sha256("demo#user#user-1"),
        "requested_at": request.requested_at,
        "started_at": "2031-05-17T12:00:00.000000Z",
        "finished_at": "2031-05-17T12:00:00.008000Z",
        "scope": "user",
        "message_id": request.message_id,
        "messages": 1,
        "rejects": 0,
        "linked_ids": 1,
        "linked_messages": 0,
        "linked_rejects": 0,
    }
    assert place.receipts() == [receipt]
    table = place.deployment.stack.stores.erasure_table
    assert not [
        secret
        for secret in ("user-1", "5f0c")
        if secret in json.dumps(place.deployment.account.dynamodb().scan(TableName=table))
    ]


def test_tombstone_has_a_hash_and_a_time(place):
    request = place.request()
    place.eraser().leave_tombstone(request)
    tombstone, _receipt = place.deployment.account.dynamodb().scan(
        TableName=place.deployment.stack.stores.erasure_table
    )["Items"]
    assert tombstone == {
        "customer": {"S": "demo"},
        "erasure": {"S": sha256("demo#user#user-1")},
        "requested_at": {"S": request.requested_at},
    }


def test_receipt_is_open_before_anything_is_erased(place):
    place.post(track(userId="user-1"))
    request = place.request()
    place.eraser().leave_tombstone(request)
    assert [(receipt.messages, receipt.finished_at) for receipt in place.receipts()] == [(0, "")]
    place.eraser().erase(request, until=FOREVER)
    place.eraser().leave_tombstone(request)
    assert [(receipt.messages, bool(receipt.finished_at)) for receipt in place.receipts()] == [(1, True)]


def test_finished_request_is_not_repeated(place):
    request = place.request()
    place.eraser().erase(request, until=FOREVER)
    place.post(track(userId="user-1"))
    assert place.eraser().erase(request, until=FOREVER) is None
    assert place.stored() == ["demo#user#user-1"]
    assert len(place.receipts()) == 1


def test_second_request_has_its_own_receipt(place):
    place.post(track(userId="user-1"))
    place.eraser().erase(place.request(), until=FOREVER)
    place.post(track(userId="user-1"), track(userId="user-1"))
    place.eraser().erase(place.request(), until=FOREVER)
    assert sorted(receipt.messages for receipt in place.receipts()) == [1, 2]


def test_two_concurrent_requests_are_both_finished(place):
    place.post(track(userId="user-1"))
    first, second = place.request(), place.request()
    for request in (first, second):
        place.eraser().erase(request, until=FOREVER)
    assert place.stored() == []
    assert sorted(counts(receipt)[0] for receipt in place.receipts()) == [0, 1]


def test_two_requests_in_reverse_order_are_both_finished(place):
    place.post(track(userId="user-1"))
    first, second = place.request(), place.request()
    for request in (second, first):
        place.eraser().erase(request, until=FOREVER)
    assert place.stored() == []
    assert sorted(counts(receipt)[0] for receipt in place.receipts()) == [0, 1]
    assert all(receipt.finished_at for receipt in place.receipts())


def deletes(place):
    """Return when the remaining `delete` messages were stored."""
    return sorted(item["stored_at"] for item in place.deployment.stored() if item["type"] == "delete")


def test_later_delete_stays_and_erases_earlier_messages(place):
    first, second = place.request(), place.request()
    place.eraser().erase(first, until=FOREVER)
    assert deletes(place) == [second.requested_at]
    place.post(track(userId="user-1"))
    receipt = place.eraser().erase(second, until=FOREVER)
    assert (place.stored(), counts(receipt)) == ([], (1, 0, 0, 0))


def test_unfinished_earlier_delete_is_removed_with_a_later_one(place):
    place.request()
    place.eraser().erase(place.request(), until=FOREVER)
    assert deletes(place) == []


def test_message_is_erased_if_the_next_delete_has_an_earlier_time(place):
    """The clocks of two environments differ: the second delete looks older than the first."""
    request = replace(place.request(), requested_at="9999-12-31T23:59:59.999999Z")
    calls = itertools.count(1)

    def arrive(**_):
        if next(calls) == 1:  # messages have been swept, and the deletes are not listed yet
            place.post(track(userId="user-1"), {"type": "delete", "userId": "user-1", "messageId": "second"})

    with_arrivals(place, "Query", index=True, then=arrive)
    receipt = place.eraser().erase(request, until=FOREVER)
    assert (place.stored(), counts(receipt)) == ([], (1, 0, 0, 0))


def test_very_late_delete_stays_with_the_messages_before_it(place):
    """Like the test above, but so late that the eraser doesn't see these messages."""
    request = replace(place.request(), requested_at="9999-12-31T23:59:59.999999Z")
    calls = itertools.count(1)

    def arrive(**_):
        if next(calls) == 1:  # only the deletes are left to do
            place.post(track(userId="user-1"), {"type": "delete", "userId": "user-1", "messageId": "second"})

    with_arrivals(place, "DeleteItem", then=arrive)
    place.eraser().erase(request, until=FOREVER)
    assert place.stored() == ["demo#user#user-1"] * 2
    assert len(deletes(place)) == 1


def test_only_deletes_listed_before_the_last_sweep_are_removed(place):
    """Otherwise a message that is stored before such a delete would stay, and no delete would be left to erase it."""
    request = replace(place.request(), requested_at="9999-12-31T23:59:59.999999Z")
    lists = itertools.count(1)

    def arrive(params, **_):
        if "IndexName" not in params and next(lists) == 3:
            place.post(track(userId="user-1"), {"type": "delete", "userId": "user-1", "messageId": "second"})

    place.client.meta.events.register("before-parameter-build.dynamodb.Query", arrive)
    place.eraser().erase(request, until=FOREVER)
    assert len(deletes(place)) == len(place.stored()) == 1


def with_arrivals(place, operation, *, then, index=False):
    """Let something happen before each call of an operation, or only before reads of the index of rejects."""

    def before(params, **_):
        if not index or "IndexName" in params:
            then()

    place.client.meta.events.register(f"before-parameter-build.dynamodb.{operation}", before)


@pytest.mark.parametrize("scope", [Scope.USER, Scope.LINKED])
def test_reject_that_becomes_a_message_meanwhile_is_erased(scope, place):
    """`destination rejects retry` stores the message, and then deletes the reject."""
    ids = {"userId": "user-1"} if scope is Scope.USER else {"anonymousId": "5f0c"}
    place.post(track(userId="user-1", anonymousId="5f0c"), reject(**ids))
    request = place.request()
    rejects = place.deployment.stack.stores.rejects_table
    [reject_key] = [{name: item[name] for name in ("customer_day_shard", "body_hash")} for item in place.rejects()]
    subject = "demo#user#user-1" if scope is Scope.USER else "demo#anonymous#5f0c"

    def retry():
        if place.rejects():
            place.post(track(**ids))
            place.deployment.account.dynamodb().delete_item(TableName=rejects, Key=reject_key)

    def after_messages(params, **_):
        if params.get("IndexName") and params["ExpressionAttributeValues"][":subject"] == {"S": subject}:
            retry()

    place.client.meta.events.register("before-parameter-build.dynamodb.Query", after_messages)
    place.eraser(scope).erase(request, until=FOREVER)
    assert (place.stored(), place.rejects()) == ([], [])


# Delivery to the consumer


def test_delete_is_delivered_to_the_consumer_before_it_is_removed(place):
    request = place.request()
    handed = []

    def hand_over(image):
        handed.append(image)
        assert deletes(place) == [request.requested_at]

    place.eraser(hand_over=hand_over).erase(request, until=FOREVER)
    [image] = handed
    assert (image["type"], image["stored_at"]) == ({"S": "delete"}, {"S": request.requested_at})
    assert image["message"].keys() == {"S"}


def test_delete_stays_until_it_is_delivered_to_the_consumer(place):
    request, handed = place.request(), []

    def fail(_image):
        raise EventStoreUnavailable

    with pytest.raises(EventStoreUnavailable):
        place.eraser(hand_over=fail).erase(request, until=FOREVER)
    assert deletes(place) == [request.requested_at]
    assert [receipt.finished_at for receipt in place.receipts()] == [""]
    place.eraser(hand_over=handed.append).erase(request, until=FOREVER)
    assert (len(handed), deletes(place)) == (1, [])


def test_delete_removed_by_another_eraser_is_not_delivered_again(place):
    request, handed = place.request(), []
    others = iter([place.eraser(hand_over=handed.append)])

    def erase_first(**_):
        for other in others:
            other.erase(request, until=FOREVER)

    client = background_client("dynamodb")
    table = place.deployment.stack.stores.event_table

    def before_get(params, **_):
        if params["TableName"] == table:
            erase_first()

    client.meta.events.register("before-parameter-build.dynamodb.GetItem", before_get)
    eraser = replace(place, client=client).eraser(hand_over=handed.append)
    assert eraser.erase(request, until=FOREVER) is None
    assert len(handed) == 1


def test_every_removed_delete_is_delivered_to_the_consumer(place):
    handed = []
    place.request()
    place.eraser(hand_over=handed.append).erase(place.request(), until=FOREVER)
    assert len({image["message_id"]["S"] for image in handed}) == 2


# Linked ids


def linked_history(place):
    """Store messages of user-1, also as a visitor, and messages of another id that user-1 names in an alias call."""
    place.post(track(anonymousId="5f0c"), reject(anonymousId="5f0c"), track(anonymousId="77aa"))
    place.post(track(userId="user-1", anonymousId="5f0c"), track(userId="user-2", anonymousId="77aa"))
    place.post(track(userId="user-1", anonymousId="5f0c"), track(userId="old-1"), track(anonymousId="old-1"))
    place.post({"type": "alias", "userId": "user-1", "previousId": "old-1"})


def test_linked_ids_are_found_by_kind(place):
    linked_history(place)
    links = links_of(place.client, place.deployment.stack.stores.event_table, "demo#user#user-1", print)
    assert set(links) == {Link("anonymous", "5f0c"), Link("previous", "old-1")}


def test_item_deleted_meanwhile_links_to_nothing(place):
    gone = {"subject": {"S": "demo#user#user-1"}, "position": {"S": "gone"}, "type": {"S": "alias"}}
    assert list(links_in(place.client, place.deployment.stack.stores.event_table, [gone], print)) == []


@pytest.mark.parametrize(
    "edited",
    [
        {"message": {"S": "garbage"}},
        {"message": {"S": "[]"}},
        {"message": {"N": "7"}},
        {"message": {"B": b"not compressed"}},
        {"message": None},
        {"type": {"N": "7"}, "anonymous_id": {"N": "7"}, "stored_at": None},
    ],
    ids=["no JSON", "no object", "no text", "badly compressed", "missing", "other types"],
)
def test_damaged_item_does_not_stop_the_erasure(place, edited):
    place.post({"type": "alias", "userId": "user-1", "previousId": "old-1"}, track(userId="user-1", anonymousId="5f0c"))
    request = place.request()
    table = place.deployment.stack.stores.event_table
    [item] = [
        item
        for item in place.client.scan(TableName=table, ConsistentRead=True)["Items"]
        if item["type"]["S"] == "alias"
    ]
    item = {name: value for name, value in {**item, **edited}.items() if value is not None}
    place.client.put_item(TableName=table, Item=item)
    unread = []
    receipt = place.eraser(unread=unread.append).erase(request, until=FOREVER)
    assert (receipt.messages, place.stored()) == (2, [])
    key = {name: item[name] for name in ("subject", "position")}
    assert unread == ([key] if "message" in edited else [])


def test_messages_of_linked_ids_stay_by_default(place):
    linked_history(place)
    receipt = place.eraser().erase(place.request(), until=FOREVER)
    assert place.stored() == [
        *("demo#anonymous#5f0c", "demo#anonymous#77aa", "demo#anonymous#old-1"),
        *("demo#user#old-1", "demo#user#user-2"),
    ]
    assert (receipt.linked_ids, counts(receipt)) == (2, (3, 0, 0, 0))


def test_scope_linked_erases_visitors_and_never_other_users(place):
    linked_history(place)
    receipt = place.eraser(Scope.LINKED).erase(place.request(), until=FOREVER)
    assert place.stored() == ["demo#anonymous#77aa", "demo#user#old-1", "demo#user#user-2"]
    assert place.rejects() == []
    assert (receipt.linked_ids, counts(receipt)) == (2, (3, 0, 2, 1))


def test_visitor_that_links_to_itself_is_erased_once(place):
    place.post(track(anonymousId="5f0c"))
    place.deployment.post({"type": "delete", "userId": "nobody"})
    request = ErasureRequest(customer_id="demo", subject="demo#anonymous#5f0c", requested_at="2031")
    receipt = place.eraser(Scope.LINKED).erase(request, until=FOREVER)
    assert (receipt.linked_ids, counts(receipt)) == (0, (1, 0, 0, 0))


def test_delete_of_a_linked_visitor_keeps_its_own_receipt(place):
    place.post(track(userId="user-1", anonymousId="5f0c"), track(anonymousId="5f0c"))
    request = place.request()
    delete = {"type": "delete", "anonymousId": "5f0c", "messageId": "delete-of-the-visitor"}
    [message] = canonicalise(delete)  # as `destination erase --anonymous` stores it
    table = EventTable(place.client, place.deployment.stack.stores.event_table, retention_days=0)
    table.write(Record(customer_id="demo", message=message, settings={}, stored_at=NOW - 10**9))
    receipt = place.eraser(Scope.LINKED).erase(request, until=FOREVER)
    assert place.stored() == ["demo#anonymous#5f0c"]
    assert counts(receipt) == (1, 0, 1, 0)


@pytest.mark.parametrize("previous", [None, ["old-1"], {}])
def test_incomplete_alias_links_nothing(previous, place):
    [message] = canonicalise({"type": "alias", "userId": "user-1", "previousId": previous, "messageId": "m"})
    table = EventTable(place.client, place.deployment.stack.stores.event_table, retention_days=0)
    table.write(Record(customer_id="demo", message=message, settings={}, stored_at=NOW))
    receipt = place.eraser(Scope.LINKED).erase(place.request(), until=FOREVER)
    assert (receipt.linked_ids, counts(receipt)) == (0, (1, 0, 0, 0))


def test_number_of_linked_ids_is_limited(place):
    progress = place.erasures.begin(place.request(), scope="user", now="2031")
    progress = progress.linking(str(number) for number in range(MAX_LINKED_IDS - 1))
    progress = progress.linking(["0", "1", "new", "newer"])
    assert progress.receipt.linked_ids == len(progress.links) == MAX_LINKED_IDS


def test_linked_id_with_a_lone_surrogate_matches_only_itself(place):
    place.post(track(anonymousId="5f\ud83d"), track(anonymousId="5f?"), track(userId="user-1", anonymousId="5f\ud83d"))
    place.eraser(Scope.LINKED).erase(place.request(), until=FOREVER)
    assert place.stored() == ["demo#anonymous#5f?"]


def test_alias_deleted_meanwhile_links_nothing(place):
    """Two erasures of a user may run concurrently."""
    place.post({"type": "alias", "userId": "user-1", "previousId": "old-1"}, track(userId="old-1"))
    table = place.deployment.stack.stores.event_table

    def delete_first(params, **_):
        place.deployment.account.dynamodb().delete_item(TableName=table, Key=params["Key"])

    request = place.request()
    place.client.meta.events.register(
        "before-parameter-build.dynamodb.GetItem",
        lambda params, **_: delete_first(params) if params["TableName"] == table else None,
    )
    receipt = place.eraser(Scope.LINKED).erase(request, until=FOREVER)
    assert (receipt.linked_ids, place.stored()) == (0, ["demo#user#old-1"])


def test_delete_links_nothing(place):
    place.post({"type": "delete", "userId": "user-1", "anonymousId": "5f0c"})
    assert list(links_of(place.client, place.deployment.stack.stores.event_table, "demo#user#user-1", print)) == []


# Concurrent erasers


def test_receipt_closed_by_another_eraser_stays_closed(place):
    place.post(track(userId="user-1"))
    request = place.request()
    slow = place.erasures.begin(request, scope="user", now="2031")
    place.eraser().erase(request, until=FOREVER)
    with pytest.raises(FinishedElsewhereError):
        place.erasures.note(slow)
    assert place.receipts()[0].finished_at


def test_receipt_closed_meanwhile_is_not_changed(place):
    place.post(*(track(userId="user-1") for _ in range(3)))
    request = place.request()
    others = iter([place.eraser()])

    def erase_first(**_):
        for other in others:
            other.erase(request, until=FOREVER)

    client = background_client("dynamodb")
    client.meta.events.register("before-parameter-build.dynamodb.DeleteItem", erase_first)
    assert replace(place, client=client).eraser().erase(request, until=FOREVER) is None
    [receipt] = place.receipts()
    assert (receipt.messages, bool(receipt.finished_at)) == (3, True)


def test_receipt_can_be_closed_twice(place):
    progress = place.erasures.begin(place.request(), scope="user", now="2031")
    assert [place.erasures.finish(progress, now="2032").finished_at for _ in range(2)] == ["2032"] * 2


# Interruptions


class Killed(BaseException):
    """Stands for the end of the process."""


MESSAGES = PAGE_KEYS + 7


def crowd(place):
    """Store more messages than a page holds, and a delete. Return the delete as an erasure request."""

    def post_all():
        for number in range(MESSAGES):
            place.post(track(userId="user-1", messageId=f"m-{number}"))
        place.post(track(userId="user-2"), reject(userId="user-1"), track(userId="user-1", anonymousId="5f0c"))
        place.post(track(anonymousId="5f0c"))
        return place.request()

    return place.prepare("crowd", post_all)


def kill_at(client, call, *, after):
    """End the process at a store call: before the store gets the request, or before its response arrives."""
    calls = itertools.count(1)
    events = client.meta.events

    def kill(**_):
        if next(calls) == call:
            raise Killed

    name = "after-call.dynamodb" if after else "before-call.dynamodb"
    events.register(name, kill)
    return lambda: events.unregister(name, kill)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.many_examples
@pytest.mark.parametrize("call", some([1, 2, 3, 4, 6, 8, 50, 113, 114, 115, 118, 122, 123, 124, 125]))
def test_killed_eraser_ends_the_same_when_run_again(call, after, place):
    request, handed = crowd(place), []
    live = kill_at(place.client, call, after=after)
    with pytest.raises(Killed):
        place.eraser(Scope.LINKED, hand_over=handed.append).erase(request, until=FOREVER)
    live()
    place.eraser(Scope.LINKED, hand_over=handed.append).erase(request, until=FOREVER)
    assert {image["message_id"]["S"] for image in handed} == {handed[0]["message_id"]["S"]}
    [receipt] = place.receipts()
    assert (receipt.linked_ids, counts(receipt)) == (1, (MESSAGES + 1, 1, 1, 0))
    assert receipt.finished_at
    assert (place.stored(), place.rejects()) == (["demo#user#user-2"], [])


def test_no_page_is_read_after_the_time_is_over(place):
    request = crowd(place)
    reads = []
    place.client.meta.events.register("before-call.dynamodb.Query", lambda params, **_: reads.append(params))
    with pytest.raises(OutOfTimeError):
        place.eraser(Scope.LINKED).erase(request, until=NOW - 1)
    assert len(reads) == 1


def test_erasure_that_ran_out_of_time_continues_where_it_stopped(place):
    request = crowd(place)
    place.clock.now = NOW
    with pytest.raises(OutOfTimeError):
        place.eraser().erase(request, until=NOW + 0.1)
    [receipt] = place.receipts()
    assert (receipt.finished_at, receipt.messages) == ("", PAGE_KEYS)
    assert 0 < place.stored().count("demo#user#user-1") < MESSAGES
    place.eraser().erase(request, until=FOREVER)
    [receipt] = place.receipts()
    assert counts(receipt) == (MESSAGES + 1, 1, 0, 0)


def test_delete_message_is_removed_last(place):
    request = crowd(place)
    with pytest.raises(OutOfTimeError):
        place.eraser().erase(request, until=NOW + 0.1)
    assert [item["type"] for item in place.deployment.stored() if item["type"] == "delete"] == ["delete"]


def test_message_stored_meanwhile_counts_once(place):
    request = crowd(place)
    with pytest.raises(OutOfTimeError):
        place.eraser().erase(request, until=NOW + 0.1)
    place.post(track(userId="user-1", messageId="late"))
    place.eraser().erase(request, until=FOREVER)
    [receipt] = place.receipts()
    assert receipt.messages == MESSAGES + 2


def kill_within(place, request, table):
    """End an eraser after the first item that it deletes from a table."""
    calls = itertools.count(1)

    def kill(params, **_):
        if params["TableName"] == table and next(calls) == 2:
            raise Killed

    client = background_client("dynamodb")
    client.meta.events.register("before-parameter-build.dynamodb.DeleteItem", kill)
    with pytest.raises(Killed):
        replace(place, client=client).eraser().erase(request, until=FOREVER)


def test_counts_are_exact_despite_kills_and_new_messages(place):
    place.post(*(reject(userId="user-1") for _ in range(5)))
    request, stores = place.request(), place.deployment.stack.stores
    for table in (stores.rejects_table, stores.event_table, stores.rejects_table, stores.event_table):
        kill_within(place, request, table)
        place.post(track(userId="user-1"), track(userId="user-1"))
    receipt = place.eraser().erase(request, until=FOREVER)
    assert counts(receipt) == (8, 5, 0, 0)


def test_store_error_is_raised_and_nothing_is_finished(place):
    request = crowd(place)

    def cut(**_):
        raise ConnectionClosedError(endpoint_url="https://dynamodb")

    place.client.meta.events.register("before-send.dynamodb.DeleteItem", cut)
    with pytest.raises(ConnectionClosedError):
        place.eraser().erase(request, until=FOREVER)
    assert [receipt.finished_at for receipt in place.receipts()] == [""]


def test_delete_refused_twice_by_a_store_is_retried(place):
    request = crowd(place)
    calls = itertools.count(1)

    def refuse_often(**_):
        if next(calls) % MAX_DELETE_TRIES:
            raise ResponseParserError("The store's response is not a JSON object")

    place.client.meta.events.register("before-send.dynamodb.DeleteItem", refuse_often)
    receipt = place.eraser().erase(request, until=FOREVER)
    assert counts(receipt) == (MESSAGES + 1, 1, 0, 0)
    assert place.rejects() == []


def test_delete_is_not_retried_after_the_time_is_over(place):
    request = crowd(place)
    tries = []

    def refuse(**_):
        tries.append(1)
        raise ResponseParserError("The store's response is not a JSON object")

    place.client.meta.events.register("before-send.dynamodb.DeleteItem", refuse)
    with pytest.raises(OutOfTimeError):
        place.eraser().erase(request, until=place.clock.now)
    assert len(tries) == 1


# The pace


def test_eraser_limits_its_write_units_per_second(place):
    place.post(*(track(userId="user-1") for _ in range(9)))
    request = place.request()
    place.eraser().erase(request, until=FOREVER)
    assert place.clock.slept == pytest.approx([1 / WRITE_UNITS_PER_SECOND] * 10)


def test_eraser_does_not_sleep_if_the_store_is_slow(place):
    request = place.request()
    times = itertools.count(NOW)
    place.eraser(clock=lambda: next(times)).erase(request, until=FOREVER)
    assert place.clock.slept == []


# Receipts


def test_receipts_are_found_by_customer_and_user_hash(place):
    place.deployment.add_key("of-acme", customer_id="acme")
    requests = [place.request("user-1"), place.request("user-2")]
    for request in requests:
        place.eraser().erase(request, until=FOREVER)
    assert {receipt.user_hash for receipt in place.erasures.receipts("demo")} == {r.user_hash for r in requests}
    [found] = place.erasures.receipts("demo", user_hash=sha256("demo#user#user-2")[:8])
    assert found.requested_at == requests[1].requested_at
    assert list(place.erasures.receipts("acme")) == []
