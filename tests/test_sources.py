"""Test the local event source mappings: batches of a stream and of queues, on an embedded AWS."""

import asyncio
import base64
import json
import os
import signal
import sys
import textwrap
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from time import sleep
from typing import Any

import click
import pytest
from botocore.exceptions import EndpointConnectionError
from local_server import MAX_WAIT_SECONDS, wait_until

from destination.console import standard_streams
from destination.deployment.clients import LOCAL_REGION
from destination.deployment.stack import LOCAL_STACK, STORE_TYPES, Account, create_local_stack, load_template
from destination.local.batches import MAX_BATCH_BYTES, Consumer, PollPace, batches
from destination.local.embedded_aws import EmbeddedAws
from destination.local.function_process import Invocation
from destination.local.functions import Function, FunctionError, Functions, FunctionTimeoutError
from destination.local.mappings import QueueMapping, StreamMapping
from destination.local.queues import QueueSource
from destination.local.sources import EventSources, connect
from destination.local.streams import StreamSource
from destination.local.traffic import ServerTraffic

pytest_plugins = ["servers"]

STREAM = {
    "Stream": {"Fn::GetAtt": ["EventTable", "StreamArn"]},
    "StartingPosition": "TRIM_HORIZON",
    "BatchSize": 4,
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
    "BisectBatchOnFunctionError": True,
    "MaximumRetryAttempts": 2,
    "DestinationConfig": {"OnFailure": {"Destination": {"Fn::GetAtt": ["ErasureDeadLetterQueue", "Arn"]}}},
}
QUEUE = {
    "Queue": {"Fn::GetAtt": ["EventQueue", "Arn"]},
    "BatchSize": 10,
    "FunctionResponseTypes": ["ReportBatchItemFailures"],
}
PACE = PollPace(first_wait=0.01, last_wait=0.01, shards=0.01, trouble=0.01, first_retry=0.01, last_retry=0.05)


def numbers(records):
    """Return the numbers of the changed items, or of the received messages."""
    return [
        int(record["dynamodb"]["Keys"]["id"]["S"] if "dynamodb" in record else record["body"]) for record in records
    ]


def identifier(record):
    return record["dynamodb"]["SequenceNumber"] if "dynamodb" in record else record["messageId"]


@dataclass
class Played:
    """A function that records its batches, and the messages printed about them."""

    answer: Any = None
    events: list[Any] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    async def invoke(self, event):
        self.events.append(event)
        response = self.answer(event["Records"]) if self.answer else None
        if isinstance(response, Exception):
            raise response
        return response if isinstance(response, Invocation) else Invocation(response=response, log="")

    @property
    def batches(self):
        return [numbers(event["Records"]) for event in self.events]

    @property
    def consumer(self):
        return Consumer(name="TestFunction", invoke=self.invoke, tell=self.printed.append)


def failing(*wanted, every=True):
    """Report that some records failed: each time, or only the first time."""
    left = set(wanted)

    def answer(records):
        failed = [record for record in records if numbers([record])[0] in left]
        if not every:
            left.difference_update(numbers(failed))
        return {"batchItemFailures": [{"itemIdentifier": identifier(record)} for record in failed]}

    return answer


def play(source, until):
    """Run a source until a condition holds, and 0.2 s longer, in which nothing more may happen."""

    async def scene():
        running = asyncio.create_task(source.run())
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not until():
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(scene())


# Streams


@dataclass
class Table:
    """A table with a stream, and a queue for discarded batches."""

    account: Account
    name: str
    stream_arn: str
    dead_letter_url: str
    streams: Any

    def put(self, *ids, **attributes):
        for number in ids:
            self.account.dynamodb().put_item(TableName=self.name, Item={"id": {"S": str(number)}, **attributes})

    def source(self, played, *, streams=None, sqs=None, **changes):
        mapping = StreamMapping.of("Test.Event", {**STREAM, **changes})
        return StreamSource(
            mapping,
            played.consumer,
            streams=streams or self.streams,
            stream_arn=self.stream_arn,
            sqs=sqs or self.account.sqs(),
            dead_letter_url=self.dead_letter_url,
            pace=PACE,
        )

    def dead_letters(self):
        answer = self.account.sqs().receive_message(QueueUrl=self.dead_letter_url, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]


@pytest.fixture
def account(other_aws):
    return Account(endpoint_url=other_aws.url)


@pytest.fixture
def table(account):
    name = f"table-{uuid.uuid4()}"
    made = account.dynamodb().create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    return Table(
        account=account,
        name=name,
        stream_arn=made["TableDescription"]["LatestStreamArn"],
        dead_letter_url=account.sqs().create_queue(QueueName=f"dead-{uuid.uuid4()}")["QueueUrl"],
        streams=connect(account, "dynamodbstreams"),
    )


def test_stream_record_has_the_form_of_lambda(table):
    packed = base64.b64encode(b"\x00\xff").decode()
    table.put(1, message={"B": b"\x00\xff"}, parts={"BS": [b"\x00\xff"]}, seconds={"N": "17"}, kept={"BOOL": True})
    played = Played()
    play(table.source(played), until=lambda: played.events)
    [[record]] = [event["Records"] for event in played.events]
    change = record["dynamodb"]
    assert record["eventSourceARN"] == table.stream_arn
    assert (record["eventName"], record["eventSource"], record["awsRegion"]) == ("INSERT", "aws:dynamodb", LOCAL_REGION)
    assert change["Keys"] == {"id": {"S": "1"}}
    assert change["NewImage"] == {
        "id": {"S": "1"},
        "message": {"B": packed},
        "parts": {"BS": [packed]},
        "seconds": {"N": "17"},
        "kept": {"BOOL": True},
    }
    assert change["SequenceNumber"].isdecimal()
    assert isinstance(change["ApproximateCreationDateTime"], int)
    assert json.loads(json.dumps(played.events)) == played.events


def test_records_arrive_in_order_and_in_batches(table):
    table.put(*range(6))
    played = Played()
    play(table.source(played), until=lambda: len(played.batches) == 2)
    assert played.batches == [[0, 1, 2, 3], [4, 5]]


def test_delivered_record_is_not_delivered_again_with_newer_ones(table):
    table.put(1)
    played = Played(answer=lambda records: table.put(2) if numbers(records) == [1] else None)
    play(table.source(played), until=lambda: len(played.batches) == 2)
    assert played.batches == [[1], [2]]


def test_only_records_that_match_a_filter_reach_the_function(table):
    patterns = [
        {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"type": {"S": ["delete", "alias"]}}}},
        {"eventName": ["REMOVE"]},
    ]
    filters = {"Filters": [{"Pattern": json.dumps(pattern)} for pattern in patterns]}
    table.put(1, type={"S": "delete"})
    table.put(1, type={"S": "delete"}, more={"S": "a MODIFY"})
    table.put(2, type={"S": "track"})
    table.put(3)
    table.put(4, type={"S": "alias"})
    table.account.dynamodb().delete_item(TableName=table.name, Key={"id": {"S": "3"}})
    played = Played()
    play(table.source(played, FilterCriteria=filters), until=lambda: played.events)
    assert played.batches == [[1, 4, 3]]


def test_function_is_not_invoked_if_no_record_matches(table):
    filters = {"Filters": [{"Pattern": '{"eventName": ["REMOVE"]}'}]}
    table.put(1, 2)
    played = Played()
    reader = Flaky(table.streams)
    play(table.source(played, FilterCriteria=filters, streams=reader), until=lambda: reader.calls["get_records"] > 2)
    assert played.events == []


def test_batch_is_retried_from_the_first_failed_record(table):
    table.put(*range(4))
    played = Played(answer=failing(3, 1, every=False))
    play(table.source(played), until=lambda: len(played.batches) == 2)
    assert played.batches == [[0, 1, 2, 3], [1, 2, 3]]
    assert table.dead_letters() == []


def test_exhausted_batch_is_discarded_and_the_next_batch_follows(table):
    table.put(*range(6))
    played = Played(answer=failing(1))
    play(table.source(played), until=lambda: [4, 5] in played.batches)
    assert played.batches == [[0, 1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3], [4, 5]]
    [letter] = table.dead_letters()
    sent = [record["dynamodb"]["SequenceNumber"] for record in played.events[1]["Records"]]
    batch = letter["DDBStreamBatchInfo"]
    assert (batch["startSequenceNumber"], batch["endSequenceNumber"], batch["batchSize"]) == (sent[0], sent[-1], 3)
    assert batch["streamArn"] == table.stream_arn
    assert batch["shardId"].startswith("shardId-")
    assert batch["approximateArrivalOfLastRecord"][:19] <= letter["timestamp"][:19]
    assert letter["requestContext"]["functionArn"].endswith(":function:TestFunction")
    assert letter["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert letter["requestContext"]["approximateInvokeCount"] == 3
    assert letter["responseContext"] == {"statusCode": 200, "executedVersion": "$LATEST", "functionError": None}
    assert played.printed == [
        f"3 records given up after 3 tries: see the queue {table.dead_letter_url.rpartition('/')[2]}"
    ]


def raising(*poison):
    """Raise for a batch that contains one of these records."""
    return lambda records: Invocation(raised=bool(set(poison) & set(numbers(records))), log="")


def test_batch_is_bisected_if_the_function_fails(table):
    table.put(*range(4))
    played = Played(answer=raising(2))
    play(table.source(played), until=lambda: played.batches[-1:] == [[3]])
    assert played.batches == [[0, 1, 2, 3], [0, 1], [2, 3], [2], [2], [2], [3]]
    [letter] = table.dead_letters()
    assert letter["DDBStreamBatchInfo"]["batchSize"] == 1
    assert letter["responseContext"]["functionError"] == "Unhandled"


def test_without_bisection_the_whole_batch_is_retried_and_discarded(table):
    table.put(*range(4))
    played = Played(answer=raising(2))
    play(table.source(played, BisectBatchOnFunctionError=False), until=lambda: played.printed)
    assert played.batches == [[0, 1, 2, 3]] * 3
    [letter] = table.dead_letters()
    assert letter["DDBStreamBatchInfo"]["batchSize"] == 4


def test_batch_without_a_retry_limit_is_never_discarded(table):
    table.put(1)
    played = Played(answer=raising(1))
    play(table.source(played, MaximumRetryAttempts=-1), until=lambda: len(played.batches) > 8)
    assert played.printed == table.dead_letters() == []


def test_discarded_batch_is_reported_without_a_dead_letter_queue(table):
    table.put(1)
    played = Played(answer=raising(1))
    table.dead_letter_url = None
    play(table.source(played), until=lambda: played.printed)
    assert played.printed == ["1 record given up after 3 tries"]


@pytest.mark.parametrize(
    "response",
    [
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemIdentifier": "1"}]},
        {"batchItemFailures": [{"itemIdentifier": ["1"]}]},
        {"batchItemFailures": [{"identifier": "1"}]},
        {"batchItemFailures": ["1"]},
        {"batchItemFailures": 1},
        "done",
        [1],
    ],
    ids=str,
)
def test_answer_without_a_valid_identifier_fails_the_whole_batch(table, response):
    table.put(1, 2)
    played = Played(answer=lambda records: response if len(records) == 2 else None)
    play(table.source(played), until=lambda: len(played.batches) == 3)
    assert played.batches == [[1, 2], [1], [2]]
    assert played.printed == ["The function's response is not a list of failures of its batch: the batch is retried"]


@pytest.mark.parametrize("response", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}], ids=str)
def test_answer_without_failures_is_success(table, response):
    table.put(1, 2)
    played = Played(answer=lambda _records: response)
    play(table.source(played), until=lambda: played.batches)
    assert played.batches == [[1, 2]]


def test_answer_is_ignored_without_partial_failure_reports(table):
    table.put(1, 2)
    played = Played(answer=failing(1))
    play(table.source(played, FunctionResponseTypes=[]), until=lambda: played.batches)
    assert played.batches == [[1, 2]]


@pytest.mark.parametrize("error", [FunctionError("It died"), FunctionTimeoutError("It is slow")], ids=repr)
def test_batch_is_retried_after_a_crash_or_time_out(table, error):
    table.put(1)
    played = Played(answer=lambda _records: error if len(played.events) == 1 else None)
    play(table.source(played), until=lambda: len(played.batches) == 2)
    assert played.batches == [[1], [1]]
    assert played.printed == [f"{error}: its batch is retried"]


class Flaky:
    """A client that fails the first calls of some operations: operation -> number of failures."""

    def __init__(self, client, **faults):
        self.client = client
        self.faults = Counter(faults)
        self.calls = Counter()
        self.ended = Counter()

    def __getattr__(self, name):
        def call(**parameters):
            self.calls[name] += 1
            try:
                if self.calls[name] <= self.faults[name]:
                    raise EndpointConnectionError(endpoint_url="http://flaky")
                return getattr(self.client, name)(**parameters)
            finally:
                self.ended[name] += 1

        call.__name__ = name
        return call

    def end(self):
        """Let every call fail from now on, and wait for the calls that have begun."""
        self.faults = Counter(dict.fromkeys(self.calls, sys.maxsize))
        wait_until(lambda: self.ended == self.calls)


def test_reading_resumes_after_the_last_record_when_a_call_fails(table):
    table.put(1)
    reader = Flaky(table.streams, describe_stream=2, get_shard_iterator=2, get_records=2)

    def disturb_and_put(records):
        if numbers(records) == [1]:
            reader.faults["get_records"] = reader.calls["get_records"] + 3
            table.put(2)

    played = Played(answer=disturb_and_put)
    play(table.source(played, streams=reader), until=lambda: len(played.batches) == 2)
    assert played.batches == [[1], [2]]
    printed = 'AWS answered: Could not connect to the endpoint URL: "http://flaky". The call is repeated'
    assert played.printed == [printed] * 4  # one for each of three calls, and a second one for get_records


def test_dead_letter_is_retried_until_it_is_sent(table):
    table.put(1)
    played = Played(answer=raising(1))
    sender = Flaky(table.account.sqs(), send_message=3)
    play(table.source(played, sqs=sender), until=lambda: sender.calls["send_message"] == 4)
    assert len(table.dead_letters()) == 1


class Hanging:
    """A server that never answers."""

    def __init__(self):
        self.calls = []
        self.end = Event()

    def describe_stream(self, **_stream):
        self.calls.append("begun")
        self.end.wait(MAX_WAIT_SECONDS)
        self.calls.append("ended")


def test_shutdown_does_not_wait_for_a_hanging_call(table):
    hanging = Hanging()
    play(table.source(Played(), streams=hanging), until=lambda: hanging.calls)
    assert hanging.calls == ["begun"]
    hanging.end.set()


class TwoShards:
    """A stream in which the first shard has ended. The second shard continues it, and is listed first."""

    def describe_stream(self, **_stream):
        shards = [{"ShardId": "second", "ParentShardId": "first"}, {"ShardId": "first", "ParentShardId": "gone"}]
        return {"StreamDescription": {"Shards": shards}}

    def get_shard_iterator(self, *, ShardId, ShardIteratorType, **_more):  # noqa: N803 -- AWS's
        return {"ShardIterator": f"{ShardId} {ShardIteratorType}"}

    def get_records(self, *, ShardIterator, **_more):  # noqa: N803 -- AWS's
        number = {"first TRIM_HORIZON": "1", "second TRIM_HORIZON": "2"}.get(ShardIterator)
        change = {"Keys": {"id": {"S": number}}, "SequenceNumber": number}
        following = {} if ShardIterator.startswith("first") else {"NextShardIterator": "the end"}
        return {"Records": [{"dynamodb": change}] if number else [], **following}


def test_child_shard_is_read_after_its_parent(table):
    played = Played(answer=failing(1, every=False))
    play(table.source(played, streams=TwoShards()), until=lambda: len(played.batches) == 3)
    assert played.batches == [[1], [1], [2]]


# Queues


@dataclass
class Queue:
    """A queue with a dead-letter queue."""

    account: Account
    url: str
    arn: str
    dead_letter_url: str

    def send(self, *bodies, group=None, **attributes):
        for body in bodies:
            fifo = {"MessageGroupId": group, "MessageDeduplicationId": str(uuid.uuid4())} if group else {}
            self.account.sqs().send_message(
                QueueUrl=self.url, MessageBody=str(body), MessageAttributes=attributes, **fifo
            )

    def source(self, played, *, sqs=None, pace=PACE, **changes):
        mapping = QueueMapping.of("Test.Event", {**QUEUE, **changes})
        return QueueSource(
            mapping,
            played.consumer,
            sqs=sqs or self.account.sqs(),
            queue_url=self.url,
            queue_arn=self.arn,
            pace=pace,
        )

    def left(self, url=None):
        """Return how many messages the queue has, received or not.

        Either count may be stale for a message that was just released. So an empty result is read twice.
        """
        if count := self.count(url or self.url):
            return count
        sleep(0)
        return self.count(url or self.url)

    def count(self, url):
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.account.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)


@pytest.fixture(params=["standard", "fifo"])
def queue(account, request):
    is_fifo = request.param == "fifo"
    sqs, name, ending = account.sqs(), f"queue-{uuid.uuid4()}", ".fifo" if is_fifo else ""
    attributes = {"FifoQueue": "true"} if is_fifo else {}
    dead_letter_url = sqs.create_queue(QueueName=f"{name}-dead{ending}", Attributes=attributes)["QueueUrl"]
    policy = {"deadLetterTargetArn": arn(sqs, dead_letter_url), "maxReceiveCount": 3}
    url = sqs.create_queue(
        QueueName=f"{name}{ending}",
        Attributes={**attributes, "VisibilityTimeout": "180", "RedrivePolicy": json.dumps(policy)},
    )["QueueUrl"]
    return Queue(account=account, url=url, arn=arn(sqs, url), dead_letter_url=dead_letter_url)


def arn(sqs, url):
    return sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


@pytest.fixture
def group(queue):
    return "a user" if queue.url.endswith(".fifo") else None


def test_queue_record_has_the_form_of_lambda(queue, group):
    attributes = {
        "type": {"DataType": "String", "StringValue": "track"},
        "packed": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    queue.send("1", group=group, **attributes)
    played = Played()
    play(queue.source(played), until=lambda: played.events)
    [[record]] = [event["Records"] for event in played.events]
    assert set(record) == {
        *("messageId", "receiptHandle", "body", "attributes", "messageAttributes"),
        *("md5OfBody", "eventSource", "eventSourceARN", "awsRegion"),
    }
    assert (record["body"], record["md5OfBody"]) == ("1", "c4ca4238a0b923820dcc509a6f75849b")
    assert (record["eventSource"], record["eventSourceARN"]) == ("aws:sqs", queue.arn)
    assert record["awsRegion"] == LOCAL_REGION
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert record["attributes"].get("MessageGroupId") == group
    lists = {"stringListValues": [], "binaryListValues": []}
    assert record["messageAttributes"] == {
        "type": {"dataType": "String", "stringValue": "track", **lists},
        "packed": {"dataType": "Binary", "binaryValue": base64.b64encode(b"\x00\xff").decode(), **lists},
    }


def test_processed_messages_are_deleted(queue, group):
    queue.send(1, 2, 3, group=group)
    played = Played()
    play(queue.source(played), until=lambda: not queue.left())
    assert [number for batch in played.batches for number in batch] == [1, 2, 3]


def test_batch_size_is_limited_by_the_mapping(queue, group):
    queue.send(*range(5), group=group)
    played = Played()
    play(queue.source(played, BatchSize=2), until=lambda: not queue.left())
    assert [len(batch) for batch in played.batches] == [2, 2, 1]


def test_only_failed_messages_are_retried_and_soon(queue, group):
    queue.send(1, 2, 3, group=group)
    played = Played(answer=failing(2, 3, every=False))
    play(queue.source(played), until=lambda: not queue.left())
    assert played.batches == [[1, 2, 3], [2, 3]]


def test_message_that_always_fails_becomes_a_dead_letter(queue, group):
    queue.send(1, 2, group=group)
    played = Played(answer=failing(2))
    play(queue.source(played), until=lambda: queue.left(queue.dead_letter_url))
    assert played.batches == [[1, 2], [2], [2]]
    assert queue.left() == 0


def test_whole_batch_is_retried_if_the_function_fails(queue, group):
    queue.send(1, 2, group=group)
    played = Played(answer=lambda _records: FunctionError("It died") if len(played.events) == 1 else None)
    play(queue.source(played), until=lambda: not queue.left())
    assert played.batches == [[1, 2], [1, 2]]


def test_waiting_retry_does_not_delay_other_messages(queue, group):
    def fail_and_send(records):
        if numbers(records) == [1]:
            queue.send(2, group=group and "another")
        return failing(1)(records)

    queue.send(1, group=group)
    played = Played(answer=fail_and_send)
    play(queue.source(played, pace=replace(PACE, first_retry=600, last_retry=600)), until=lambda: [2] in played.batches)
    assert played.batches == [[1], [2]]


def test_failed_queue_calls_are_retried(queue, group):
    queue.send(1, 2, group=group)
    played = Played(answer=failing(2, every=False))
    caller = Flaky(queue.account.sqs(), receive_message=2, delete_message_batch=2)
    play(queue.source(played, sqs=caller), until=lambda: not queue.left())
    assert played.batches == [[1, 2], [2]]


def test_message_that_cannot_be_released_does_not_delay_others(queue, group):
    queue.send(1, group=group)
    played = Played(answer=failing(1))
    caller = Flaky(queue.account.sqs(), change_message_visibility_batch=1)
    play(queue.source(played, sqs=caller), until=lambda: caller.calls["change_message_visibility_batch"])
    # A source does not wait for its calls when it stops. A pending receive call could still take the next message.
    caller.end()
    queue.send(2, group=group and "another")
    play(queue.source(played), until=lambda: [2] in played.batches)
    assert played.batches == [[1], [2]]
    assert queue.left() == 1


def test_batch_fits_into_one_event():
    large = {"body": "x" * (MAX_BATCH_BYTES // 3)}
    small = {"body": "x"}
    sizes = [len(batch) for batch in batches([large, large, large, small, small, small], 3)]
    assert sizes == [2, 3, 1]


# Mappings that the local server does not support


@pytest.mark.parametrize(
    ("properties", "sentence"),
    [
        ({"TumblingWindowInSeconds": 5}, "Test.Event has TumblingWindowInSeconds, which `serve` does not support"),
        ({"StartingPosition": "LATEST"}, "Test.Event starts at LATEST, which `serve` does not support"),
        ({"Stream": "arn:aws:dynamodb:…"}, "does not name its store by !GetAtt STORE.StreamArn"),
        ({"DestinationConfig": {"OnFailure": {"Destination": "x"}}}, "does not name its store by !GetAtt STORE.Arn"),
        *(
            ({"FilterCriteria": {"Filters": [{"Pattern": json.dumps(pattern)}]}}, "filters S by more than strings")
            for pattern in ({"a": {"S": [{"prefix": "d"}]}}, {"S": "d"}, {"S": [1]}, {"S": [None]})
        ),
    ],
    ids=str,
)
def test_unsupported_stream_mapping_is_refused(properties, sentence):
    with pytest.raises(
        click.ClickException, match=f"^template.yaml: Test.Event.*{sentence.removeprefix('Test.Event')}"
    ):
        StreamMapping.of("Test.Event", {**STREAM, **properties})


def test_unsupported_queue_mapping_is_refused():
    with pytest.raises(click.ClickException, match=r"Test\.Event has FilterCriteria, which `serve` does not support"):
        QueueMapping.of("Test.Event", {**QUEUE, "FilterCriteria": {}})


def test_scaling_of_a_mapping_is_ignored():
    assert QueueMapping.of("Test.Event", {**QUEUE, "ScalingConfig": {}}) == QueueMapping.of("Test.Event", QUEUE)


# Functions


FUNCTION = """
    import json, os, subprocess, sys, threading, time

    def lambda_handler(event, context):
        print(json.dumps({"outcome": "came", "pid": os.getpid(), "records": len(event["Records"])}))
        if "batch" in os.environ:
            with open(os.environ["batch"], "a") as file:
                file.write(f"{os.getpid()}\\n")
            if len(open(os.environ["batch"]).readlines()) == 1:
                time.sleep(600)

    def tell_context(event, context):
        return [context.function_name, context.aws_request_id, context.get_remaining_time_in_millis()]

    def sleep(event, context):
        time.sleep(event["seconds"])
        return "awake"

    def pid(event, context):
        return os.getpid()

    def start_a_thread(event, context):
        threading.Thread(target=time.sleep, args=(600,)).start()
        return os.getpid()

    def return_six_megabytes(event, context):
        return "ü" * 3_000_000

    def return_no_json(event, context):
        return {1, 2}

    def write_past_the_log(event, context):
        print("in the log ü")
        os.write(1, b"to standard output\\x1b[31m\\n")
        subprocess.run(["/bin/sh", "-c", "printf 'by a program\\\\033[31m\\\\n'; printf 'and its errors\\\\n' >&2"])
        return "done"
"""


@pytest.fixture
def environment(tmp_path):
    """Return the environment variables with which a process finds the functions above, as module `played`."""
    (tmp_path / "played.py").write_text(textwrap.dedent(FUNCTION))
    return {"PYTHONPATH": str(tmp_path), "batch": str(tmp_path / "batch")}


def invoke(environment, name, *events, timeout_seconds=MAX_WAIT_SECONDS):
    """Return the result of each event in order, or the exception that it raised."""

    async def scene():
        function = Function(name="TestFunction", handler=f"played.{name}", timeout_seconds=timeout_seconds)
        functions = Functions(function, environment)
        try:
            await functions.start(1)
            return await asyncio.gather(*map(functions.invoke, events), return_exceptions=True)
        finally:
            await functions.stop()

    return asyncio.run(scene())


def test_function_gets_its_context(environment):
    contexts = [invocation.response for invocation in invoke(environment, "tell_context", {}, {})]
    assert [name for name, _, _ in contexts] == ["TestFunction"] * 2
    assert len({request_id for _, request_id, _ in contexts}) == 2
    assert all(0 < milliseconds <= MAX_WAIT_SECONDS * 1000 for _, _, milliseconds in contexts)


def test_function_is_replaced_after_a_time_out(environment):
    late, in_time = invoke(environment, "sleep", {"seconds": 600}, {"seconds": 0}, timeout_seconds=1)
    assert isinstance(late, FunctionTimeoutError)
    assert in_time.response == "awake"


def test_function_that_does_not_return_json_has_failed(environment):
    [invocation] = invoke(environment, "return_no_json", {})
    assert invocation.raised
    assert "TypeError: Object of type set is not JSON serializable" in invocation.log


def test_direct_output_of_a_function_is_shown_safely(environment, capsys):
    with standard_streams():
        first, second = invoke(environment, "write_past_the_log", {}, {})
    for invocation in (first, second):
        assert (invocation.response, invocation.log) == ("done", "in the log ü\n")
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    for text in ("to standard output", "by a program", "and its errors\n"):
        assert printed.count(text) == 2


def test_function_that_cannot_be_loaded_is_named(environment):
    with pytest.raises(click.ClickException, match=r"(?s)^TestFunction did not start:.*AttributeError.*'missing'"):
        invoke(environment, "missing")


def test_process_that_dies_before_it_reads_its_event_is_replaced(environment):
    async def scene():
        function = Function(name="TestFunction", handler="played.pid", timeout_seconds=MAX_WAIT_SECONDS)
        functions = Functions(function, environment)
        await functions.start(1)
        try:
            pid = (await functions.invoke({})).response
            os.kill(pid, signal.SIGSTOP)
            invocation = asyncio.create_task(functions.invoke({}))
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(FunctionError):
                await invocation
            return pid, (await functions.invoke({})).response
        finally:
            await functions.stop()

    first, second = asyncio.run(scene())
    assert first != second


def test_process_that_cannot_be_started_is_a_function_error(environment, tmp_path):
    functions = Functions(Function(name="TestFunction", handler="played.pid", timeout_seconds=1), environment)
    functions.use(tmp_path / "missing")
    with pytest.raises(FunctionError, match="can't be started"):
        asyncio.run(functions.start(1))


def test_response_has_the_size_that_lambda_allows(environment):
    [invocation] = invoke(environment, "return_six_megabytes", {})
    assert len(invocation.response) == 3_000_000


def test_process_with_a_running_thread_is_ended(environment):
    [invocation] = invoke(environment, "start_a_thread", {})
    assert not is_there(invocation.response)


@pytest.mark.parametrize("steps", range(5))
def test_start_that_is_cancelled_ends(environment, steps):
    async def scene():
        function = Function(name="TestFunction", handler="played.sleep", timeout_seconds=MAX_WAIT_SECONDS)
        starting = asyncio.create_task(Functions(function, environment).start(1))
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()

    running = Thread(target=asyncio.run, args=[scene()], daemon=True)
    running.start()
    running.join(MAX_WAIT_SECONDS)
    assert not running.is_alive()


# Whole templates


def template(**functions):
    """Return a template with the stores of template.yaml and the given functions."""
    theirs = load_template()
    stores = {name: resource for name, resource in theirs["Resources"].items() if resource["Type"] in STORE_TYPES}
    return {**theirs, "Resources": {**stores, **functions}}


def function(kind, properties, **resource):
    events = {"Event": {"Type": kind, "Properties": properties}}
    properties = {"Handler": "played.lambda_handler", "Timeout": MAX_WAIT_SECONDS, "Events": events}
    return {"Type": "AWS::Serverless::Function", "Properties": properties, **resource}


@dataclass
class Printed:
    """Records the lines and logs that event sources print."""

    printed: list[str] = field(default_factory=list)
    shown: list[Any] = field(default_factory=list)

    def sources(self, template, account, *, parameters=None, environment=None):
        return EventSources(
            template,
            parameters or {},
            environment or {},
            account,
            traffic=ServerTraffic(),
            tell=lambda function, text: self.printed.append(f"{function} {text}"),
            show=lambda function, log: self.shown.append((function, log)),
        )


NOWHERE = Account(endpoint_url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("parameters", "functions"),
    [
        ({}, "EraserFunction"),
        ({"Consumer": "off"}, "EraserFunction"),
        ({"Consumer": "on"}, "EraserFunction, StreamConsumerFunction, QueueConsumerFunction"),
    ],
)
def test_functions_run_only_if_their_condition_holds(parameters, functions):
    [notice] = Printed().sources(load_template(), NOWHERE, parameters=parameters).notices
    assert notice.startswith("http://127.0.0.1:1 has no stream of EventTable")
    assert notice.endswith(f": {functions} can't read there")


def test_unsupported_condition_is_refused():
    conditional = template(TestFunction=function("SQS", QUEUE, Condition="AlarmsAreSent"))
    with pytest.raises(click.ClickException, match="AlarmsAreSent is more than !Equals"):
        Printed().sources(conditional, NOWHERE)


@pytest.fixture
def local_stack():
    """Return an account with the stores of template.yaml, and these stores."""
    aws = EmbeddedAws()
    account = Account(endpoint_url=aws.url)
    yield account, create_local_stack(account, {}).stores
    aws.stop()


def run_sources(sources, *, until):
    """Run event sources until a condition holds."""

    async def scene():
        try:
            await sources.start()
            running = asyncio.create_task(sources.run())
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while not await until():
                    assert not running.done(), running.exception()
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.wait([running])
        finally:
            await sources.stop()

    asyncio.run(scene())


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("kind", ["DynamoDB", "SQS"])
def test_batch_is_retried_after_its_process_is_killed(local_stack, environment, tmp_path, kind):
    account, stores = local_stack
    if kind == "SQS":
        account.sqs().send_message(QueueUrl=stores.event_queue_url, MessageBody="1")
    else:
        item = {"subject": {"S": "s"}, "position": {"S": "p"}}
        account.dynamodb().put_item(TableName=stores.event_table, Item=item)
    printed, killed = Printed(), []

    async def kill_and_see():
        batches = tmp_path / "batch"
        if batches.exists() and not killed:
            killed.extend(map(int, batches.read_text().split()))
            os.kill(killed[0], signal.SIGKILL) if killed else None
        return printed.shown

    played = template(TestFunction=function(kind, QUEUE if kind == "SQS" else STREAM))
    run_sources(printed.sources(played, account, environment=environment), until=kill_and_see)
    [(name, log)] = printed.shown
    facts = json.loads(log)
    assert (name, facts["records"], facts["pid"] not in killed) == ("TestFunction", 1, True)
    assert printed.printed == [
        "TestFunction The function's process died, or wrote a line that is not an invocation: its batch is retried"
    ]


def test_shutdown_ends_a_function_in_the_middle_of_a_batch(local_stack, environment, tmp_path):
    account, stores = local_stack
    account.sqs().send_message(QueueUrl=stores.event_queue_url, MessageBody="1")

    async def has_begun():
        return (tmp_path / "batch").exists() and (tmp_path / "batch").read_text()

    printed = Printed()
    played = template(TestFunction=function("SQS", QUEUE))
    run_sources(printed.sources(played, account, environment=environment), until=has_begun)
    assert not is_there(int((tmp_path / "batch").read_text()))
    assert printed.printed == printed.shown == []


def test_missing_dead_letter_queue_is_reported(local_stack):
    account, _ = local_stack
    queue_url = account.sqs().get_queue_url(QueueName=f"{LOCAL_STACK}-ErasureDeadLetterQueue")["QueueUrl"]
    account.sqs().delete_queue(QueueUrl=queue_url)
    [notice] = Printed().sources(template(TestFunction=function("DynamoDB", STREAM)), account).notices
    missing = f"{account.endpoint_url} has no queue ErasureDeadLetterQueue"
    assert notice == f"{missing}: TestFunction can't report there what it gives up"


def test_poll_interval_grows_with_empty_polls():
    waits = [PollPace().wait(empty_polls) for empty_polls in (1, 30, 90, 10**6)]
    assert waits == sorted(waits)
    assert (waits[0] < 1, waits[-1]) == (True, 5)
