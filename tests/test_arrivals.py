"""Test the newest messages of a local server: found in the requests that it keeps, without a read of its table."""

import asyncio
import dataclasses
import json
import uuid
from datetime import UTC, datetime

import pytest
from strict_aws import MAX_WRITES

from destination.debugger.arrivals import ArrivalOrder
from destination.deployment.event_table import MAX_SCANNED_ITEMS, MessageSelection
from destination.deployment.stack import create_local_stack
from destination.deployment.target import Target
from destination.local.exchange import Exchange

pytest_plugins = ["servers"]


def exchange(*messages, outcome="accepted", customer="acme", path="/segment", lines=None):
    body = json.dumps({"batch": messages}) if path == "/v1/batch" else json.dumps(messages[0])
    line = {"outcome": outcome, "customer_id": customer}
    ids = [message["messageId"] for message in messages]
    line |= {"message_id": ids[0]} if len(ids) == 1 else {"message_ids": ids, "messages": len(ids)}
    return Exchange(
        id=str(uuid.uuid4()), time=datetime.now(UTC), method="POST", path=path, headers=[], body=body, status=200,
        answer_headers=[], answer="", lines=[line] if lines is None else lines, milliseconds=1,
    )  # fmt: skip


def track(message_id, user="u", **more):
    timestamp = "2026-05-17T12:00:00.000Z"
    return {
        "type": "track", "event": "Lamp Lit", "userId": user, "messageId": message_id,
        "timestamp": timestamp, "originalTimestamp": timestamp, **more,
    }  # fmt: skip


def ids(exchanges, *, limit=100, max_count=100, is_read=False, **wanted):
    """Return the message ids from kept requests, which arrive in this order."""

    async def kept():
        arrivals = ArrivalOrder(max_count=max_count)
        for each in exchanges:
            arrivals.note(each, each.read() if is_read else None)
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
        return arrivals.latest(wanted.get("customer_id"), wanted.get("message_id"), limit)

    return [position.partition("#")[2] for _, position in asyncio.run(kept())]


@pytest.mark.parametrize("is_read", [True, False])
def test_newest_messages_are_first_and_limited(is_read):
    exchanges = [exchange(track("b")), exchange(track("a1"), track("a2"), path="/v1/batch"), exchange(track("c"))]
    assert ids(exchanges, is_read=is_read) == ["c", "a2", "a1", "b"]
    assert ids(exchanges, is_read=is_read, limit=2) == ["c", "a2"]
    assert ids(exchanges, is_read=is_read, max_count=3) == ["c", "a2", "a1"]


def test_only_accepted_messages_count_once_each():
    exchanges = [exchange(track("a"), outcome=outcome) for outcome in ("duplicate", "refused", "failed", "accepted")]
    assert ids(exchanges) == ["a"]
    assert ids(exchanges[:3]) == []
    assert ids([exchanges[3], exchange(track("b")), exchange(track("a"))]) == ["a", "b"]


def test_messages_of_a_customer_and_of_an_id_are_found():
    exchanges = [exchange(track("b"), track("a"), path="/v1/batch"), exchange(track("a"), customer="other")]
    assert ids(exchanges, customer_id="other") == ["a"]
    assert ids(exchanges, customer_id="acme", message_id="a") == ["a"]
    assert ids(exchanges, message_id="b") == ["b"]


def test_message_stored_after_a_time_out_counts():
    late = exchange(track("a"), lines=[])
    assert ids([late]) == []
    assert ids([dataclasses.replace(late, late=exchange(track("a")).lines)]) == ["a"]


@pytest.mark.parametrize("odd", [track("a", userId=None), track("a", userId=7.5), track({"a": 1}), {"messageId": "a"}])
def test_a_message_without_a_key_is_left_out(odd):
    assert ids([exchange(odd, track("b"), path="/v1/batch")]) == ["b"]


@pytest.fixture
def selection(aws):
    """Return a selection of a large table on a server that keeps some keys. `newest` are its newest items."""
    stores = create_local_stack(aws, {}).stores
    client = aws.dynamodb()
    keys, puts = [], []
    for number in range(MAX_SCANNED_ITEMS + 5):
        subject, position = f"demo#user#{number % 7}", f"2026#{number}"
        keys.append((subject, position))
        texts = {
            "subject": subject, "position": position, "customer_id": "demo", "message_id": str(number),
            "type": "track", "timestamp": f"2020-{number}", "stored_at": "now", "message": "{}",
        }  # fmt: skip
        puts.append({"PutRequest": {"Item": {name: {"S": value} for name, value in texts.items()}}})
    for start in range(0, len(puts), MAX_WRITES):
        client.batch_write_item(RequestItems={stores.event_table: puts[start : start + MAX_WRITES]})

    def select(kept, **more):
        def arrivals(_customer_id, _message_id, limit):
            return keys[::-1][:kept][:limit]

        return MessageSelection(target=Target(account=aws, stores=stores, arrivals=arrivals), customer_id=None, **more)

    return select, stores, client, keys


def test_large_table_is_not_read_for_the_newest_messages(selection):
    select, stores, client, keys = selection
    count = len(keys)
    newest = [str(number) for number in range(count - 1, count - 151, -1)]

    def shown(items):
        return items and [item["message_id"]["S"] for item in items]

    assert shown(select(kept=300, subject=None).latest(150)) == newest
    gone = {"subject": {"S": keys[-1][0]}, "position": {"S": keys[-1][1]}}
    client.delete_item(TableName=stores.event_table, Key=gone)
    assert shown(select(kept=300, subject=None).latest(149)) == newest[1:]
    for reads_the_table in (
        select(kept=149, subject=None),
        select(kept=300, subject=None, reads_all=True),
        select(kept=300, subject="demo#user#1"),
    ):
        assert reads_the_table.latest(150) is None
    for number in range(10):
        key = {"subject": {"S": keys[number][0]}, "position": {"S": keys[number][1]}}
        client.delete_item(TableName=stores.event_table, Key=key)
    assert select(kept=300, subject=None).latest(150) is None  # a small table is read
    assert len(list(select(kept=0, subject=None).read())) == count - 11


def test_local_server_shows_the_newest_messages(server):
    sent = [server.post(track(str(uuid.uuid4()), user="tells-arrivals")).body["message_id"] for _ in range(3)]
    reply = server.request("GET", "/_local/arrivals", fields={"limit": "2", "customer": "demo"})
    assert [position.partition("#")[2] for _, position in reply.body["keys"]] == sent[:0:-1]
    asked = {"limit": "9", "message_id": sent[0]}
    [[subject, _]] = server.request("GET", "/_local/arrivals", fields=asked).body["keys"]
    assert subject == "demo#user#tells-arrivals"
    for limit in ("", "-1", "x", "٣", "1" * 7):
        assert server.request("GET", "/_local/arrivals", fields={"limit": limit}).status == 400
