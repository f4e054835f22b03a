"""Test the rules that represent AWS: they find requests of boto3 that AWS would refuse."""

import pytest
from strict_aws import RefusedByAws

from consumer.runtime.clients import background_client
from handler.clients import connect

ITEM = {"subject": {"S": "acme#user#u"}, "position": {"S": "undated#m"}}
TEXT = {"DataType": "String", "StringValue": "text"}


@pytest.mark.parametrize(
    ("attributes", "refusal"),
    [
        ({"subject": {"S": ""}}, "key subject takes 0 bytes"),
        ({"subject": {"S": "é" * 1025}}, "key subject takes 2,050 bytes"),
        ({"position": {"S": "x" * 1025}}, "key position takes 1,025 bytes"),
        ({"position": {"N": "1"}}, "key position is no text"),
        ({"event": {"S": "\ud800"}}, "a text has no UTF-8"),
        ({"event": {"S": "x" * 400 * 1024}}, "an item takes 409,"),
        ({"message": {"B": b"x" * 400 * 1024}}, "an item takes 409,"),
        ({"expires_at": {"N": "1" * 39}}, "a number is '1"),
        ({"expires_at": {"N": "NaN"}}, "a number is 'NaN'"),
        ({"scopes": {"SS": []}}, "a set is empty"),
        ({"scopes": {"SS": ["a", "a"]}}, "a set is empty or repeats itself"),
        ({"deep": {"L": []}}, "an attribute has the type L"),
    ],
)
def test_item_refused_by_dynamodb_is_found(attributes, refusal, aws):
    with pytest.raises(RefusedByAws, match=refusal):
        aws.dynamodb().put_item(TableName="events", Item=ITEM | attributes)


READS = [
    ("get_item", {"TableName": "keys", "Key": {"key_hash": {"S": "k"}}}),
    ("query", {"TableName": "keys", "KeyConditionExpression": "key_hash = :k"}),
    ("scan", {"TableName": "keys"}),
    ("scan", {"TableName": "keys", "ConsistentRead": False}),
    ("batch_get_item", {"RequestItems": {"keys": {"Keys": [{"key_hash": {"S": "k"}}]}}}),
]


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("client_of", [connect, background_client])
@pytest.mark.parametrize(("operation", "parameters"), READS)
def test_read_of_a_function_that_may_miss_a_write_is_found(operation, parameters, client_of):
    with pytest.raises(RefusedByAws, match="a read is not consistent"):
        getattr(client_of("dynamodb"), operation)(**parameters)


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        (map(str, range(101)), "101 keys at once"),
        (["a", "a"], "a key repeats itself"),
        ([""], "key_hash takes 0 bytes"),
    ],
)
def test_keys_refused_by_dynamodb_in_a_batch_are_found(names, refusal, aws):
    keys = [{"key_hash": {"S": name}} for name in names]
    with pytest.raises(RefusedByAws, match=refusal):
        aws.dynamodb().batch_get_item(RequestItems={"keys": {"Keys": keys, "ConsistentRead": True}})


@pytest.mark.parametrize("operation", ["get_item", "update_item", "delete_item"])
def test_key_refused_by_dynamodb_is_found(operation, aws):
    with pytest.raises(RefusedByAws, match="key key_hash takes 0 bytes"):
        getattr(aws.dynamodb(), operation)(TableName="keys", Key={"key_hash": {"S": ""}})


def test_value_refused_by_dynamodb_is_found(aws):
    with pytest.raises(RefusedByAws, match="a set is empty"):
        aws.dynamodb().update_item(
            TableName="contacts",
            Key={"customer": {"S": "acme"}, "item": {"S": "seen"}},
            UpdateExpression="ADD #messages :messages",
            ExpressionAttributeNames={"#messages": "messages"},
            ExpressionAttributeValues={":messages": {"SS": []}},
        )


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("client_of", [connect, background_client])
def test_requests_of_the_functions_are_checked_too(client_of):
    with pytest.raises(RefusedByAws, match="key key_hash takes 0 bytes"):
        client_of("dynamodb").get_item(TableName="keys", Key={"key_hash": {"S": ""}})


@pytest.mark.parametrize(
    ("queue", "parameters", "refusal"),
    [
        ("events", {"MessageBody": "\x00"}, "the body is empty or holds a character"),
        ("events", {"MessageBody": ""}, "the body is empty"),
        ("events", {"MessageBody": "\uffff"}, "the body is empty or holds a character"),
        ("events", {"MessageBody": "é" * 512 * 1024 + "x"}, "a message takes 1,048,577 bytes"),
        ("events", {"MessageAttributes": {"a": TEXT | {"StringValue": ""}}}, "attribute a is empty"),
        ("events", {"MessageAttributes": {"a": TEXT | {"StringValue": "\x1f"}}}, "holds a character"),
        ("events", {"MessageAttributes": {"AWS.a": TEXT}}, "an attribute is named 'AWS.a'"),
        ("events", {"MessageAttributes": {"a b": TEXT}}, "an attribute is named 'a b'"),
        ("events", {"MessageAttributes": {"a": TEXT | {"DataType": "Text"}}}, "has the type 'Text'"),
        ("events", {"MessageAttributes": {f"a{n}": TEXT for n in range(11)}}, "11 attributes"),
        ("events", {"MessageDeduplicationId": "d"}, "MessageDeduplicationId and the kind of the queue do not fit"),
        ("events.fifo", {"MessageGroupId": "g"}, "MessageDeduplicationId and the kind of the queue do not fit"),
        ("events.fifo", {"MessageGroupId": "g" * 129, "MessageDeduplicationId": "d"}, "MessageGroupId is 'ggg"),
        ("events.fifo", {"MessageGroupId": "g", "MessageDeduplicationId": "d d"}, "MessageDeduplicationId is 'd d'"),
    ],
)
def test_message_refused_by_sqs_is_found(queue, parameters, refusal, aws):
    message = {"QueueUrl": f"https://sqs.us-east-1.amazonaws.com/123456789012/{queue}", "MessageBody": "{}"}
    with pytest.raises(RefusedByAws, match=refusal):
        aws.sqs().send_message(**message | parameters)


@pytest.mark.parametrize(
    ("entries", "refusal"),
    [
        ([{"Id": str(number), "MessageBody": "{}"} for number in range(11)], "11 messages at once"),
        ([{"Id": "0", "MessageBody": "{}"}] * 2, "two messages share an id"),
        ([{"Id": "a#0", "MessageBody": "{}"}], "an id holds a character"),
        ([{"Id": str(number), "MessageBody": "x" * 600 * 1024} for number in range(2)], "at once take 1,228,800 bytes"),
        ([{"Id": "0", "MessageBody": ""}], "the body is empty"),
    ],
)
def test_batch_refused_by_sqs_is_found(entries, refusal, aws):
    with pytest.raises(RefusedByAws, match=refusal):
        aws.sqs().send_message_batch(
            QueueUrl="https://sqs.us-east-1.amazonaws.com/123456789012/events", Entries=entries
        )
