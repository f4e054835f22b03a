"""Test `destination queue peek`: the messages that wait in the event queue."""

import json

import pytest
from local_server import run
from test_cli_erasures import track

from destination.deployment.stack import LOCAL_STACK

pytest_plugins = ["servers"]


def peek(*args):
    result = run("queue", "peek", "--stack", LOCAL_STACK, *args)
    assert result.exit_code == 0, result.output
    return result


def peeked(*args):
    return [json.loads(line) for line in peek("--json", *args).stdout.splitlines()]


@pytest.fixture(params=["standard", "fifo"])
def destination(request, deploy):
    return deploy(EventSink="sqs", EventQueueType=request.param)


def test_messages_are_shown_and_stay(destination):
    for number in range(12):
        destination.post(track(userId=f"user-{number}", messageId=f"m-{number}"))
    for _ in range(2):  # a message becomes visible again at once
        found = peeked("--limit", "20")
        assert {one["message"]["message_id"] for one in found} == {f"m-{number}" for number in range(12)}
        assert {one["customer_id"] for one in found} == {"demo"}
    assert {one["receives"] for one in peeked("--limit", "20")} == {3}
    assert "12 messages of about 12 in" in peek("--limit", "20").stderr


def test_peek_shows_at_most_the_limit(destination):
    for number in range(12):
        destination.post(track(userId=f"user-{number}", messageId=f"m-{number}"))
    result = peek("--limit", "3")
    assert len(result.stdout.splitlines()) == 1 + 3
    assert "3 messages of about 12 in" in result.stderr


def test_unreadable_message_is_shown_with_its_body(deploy):
    destination = deploy(EventSink="sqs")
    stores = destination.stack.stores
    destination.account.sqs().send_message(QueueUrl=stores.event_queue_url, MessageBody="not JSON")
    [found] = peeked()
    assert (found["message"], found["body"]) == (None, "not JSON")
    assert "?\t?\t" in peek().stdout


def test_dead_letters_are_read_from_their_own_queue(deploy):
    destination = deploy(EventSink="sqs")
    destination.post(track(userId="ada", messageId="m-1"))
    sqs, url = destination.account.sqs(), destination.stack.stores.event_queue_url
    policy = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    dead = sqs.get_queue_url(QueueName=json.loads(policy)["deadLetterTargetArn"].rpartition(":")[2])["QueueUrl"]
    [message] = sqs.receive_message(QueueUrl=url)["Messages"]
    assert peeked("--dead-letters") == []
    sqs.send_message(QueueUrl=dead, MessageBody=message["Body"])
    assert [one["message"]["message_id"] for one in peeked("--dead-letters")] == ["m-1"]
