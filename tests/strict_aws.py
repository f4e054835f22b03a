"""Check real boto3 requests by AWS's rules, because moto accepts requests that AWS refuses.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.awsrequest import AWSPreparedRequest

from handler.clients import session

MAX_KEY_BYTES = {
    "key_hash": 2048,
    "subject": 2048,
    "customer_day_shard": 2048,
    "position": 1024,
    "body_hash": 1024,
    "customer": 2048,
    "erasure": 1024,
    "item": 1024,
}
"""Partition and sort keys of template.yaml."""
MAX_ITEM_BYTES = 400 * 1024
MAX_BATCH_GET_KEYS = 100
MAX_WRITES = 25
NUMBER = re.compile(r"-?\d{1,38}(\.\d{1,38})?")

MAX_QUEUED_BYTES = 1024 * 1024
MAX_ATTRIBUTES = 10
QUEUED_TEXT = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
ATTRIBUTE_NAME = re.compile(r"(?!AWS\.|Amazon\.|\.)(?!.*\.\.)[A-Za-z0-9_.-]{1,256}(?<!\.)", re.IGNORECASE)
FIFO_ID = re.compile("[!-~]{1,128}")
MAX_ENTRIES = 10
ENTRY_ID = re.compile("[A-Za-z0-9_-]{1,80}")


KEEP_SESSION: Any = {"core": {"reset_boto3_session": False}}
"""Configuration of `mock_aws`: a new session of boto3 for each test would read the models of the services again."""


class RefusedByAws(AssertionError):
    """A request that AWS would refuse. It is not a store error, so the function lets it through to the test."""


@contextmanager
def strict_aws() -> Iterator[None]:
    """Check every request of the clients that are created in this context by boto3's default session or by the
    functions.
    """
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    of_functions = session().get_component("event_emitter")
    rules = [
        *((events, *rule) for events in (boto3.DEFAULT_SESSION.events, of_functions) for rule in CHECKS.items()),
        *((of_functions, *rule) for rule in CHECKS_OF_FUNCTIONS.items()),
    ]
    for events, event, check in rules:
        events.register_first(event, check)
    yield
    for events, event, check in rules:
        events.unregister(event, check)


def check_put_item(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse an item that DynamoDB would refuse."""
    said = content(request)
    check_item(said["Item"])
    for value in said.get("ExpressionAttributeValues", {}).values():
        attribute_bytes(value)


def check_key(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse a key, or a value next to a key, that DynamoDB would refuse."""
    said = content(request)
    check_keys(said["Key"])
    for value in said.get("ExpressionAttributeValues", {}).values():
        attribute_bytes(value)


def check_consistent(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse a read that may miss a recent write. Only an index allows no consistent reads."""
    said = content(request)
    for read in said.get("RequestItems", {"": said}).values():
        require(read.get("ConsistentRead") or "IndexName" in read, "a read is not consistent")


def check_batch_get_item(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse a batch that DynamoDB would refuse."""
    tables = content(request)["RequestItems"]
    keys = [json.dumps(key, sort_keys=True) for table in tables.values() for key in table["Keys"]]
    require(0 < len(keys) <= MAX_BATCH_GET_KEYS, f"{len(keys)} keys at once")
    require(len(keys) == len(set(keys)), "a key repeats itself")
    for table in tables.values():
        for key in table["Keys"]:
            check_keys(key)


def check_send_message(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse a message that SQS would refuse, or that it would change."""
    message = content(request)
    check_message(message, message["QueueUrl"])


def check_send_message_batch(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse a batch that SQS would refuse, or a message in it."""
    said = content(request)
    entries = said["Entries"]
    ids = [entry["Id"] for entry in entries]
    require(0 < len(entries) <= MAX_ENTRIES, f"{len(entries)} messages at once")
    require(len(ids) == len(set(ids)), "two messages share an id")
    require(all(ENTRY_ID.fullmatch(name) for name in ids), "an id holds a character that SQS refuses")
    size = sum(check_message(entry, said["QueueUrl"]) for entry in entries)
    require(size <= MAX_QUEUED_BYTES, f"messages at once take {size:,} bytes")


def check_message(message: Mapping[str, Any], queue_url: str) -> int:
    """Refuse a message that SQS would refuse or change. Return its size in bytes."""
    attributes = message.get("MessageAttributes", {})
    check_queued_text("the body", message["MessageBody"])
    require(len(attributes) <= MAX_ATTRIBUTES, f"{len(attributes)} attributes")
    size = octets(message["MessageBody"])
    for name, attribute in attributes.items():
        require(ATTRIBUTE_NAME.fullmatch(name), f"an attribute is named {name!a}")
        require(attribute["DataType"] == "String", f"attribute {name} has the type {attribute['DataType']!a}")
        check_queued_text(f"attribute {name}", attribute["StringValue"])
        size += sum(map(octets, (name, attribute["DataType"], attribute["StringValue"])))
    require(size <= MAX_QUEUED_BYTES, f"a message takes {size:,} bytes")
    is_fifo = queue_url.endswith(".fifo")
    for name in ("MessageGroupId", "MessageDeduplicationId"):
        require((name in message) is is_fifo, f"{name} and the kind of the queue do not fit")
        require(not is_fifo or FIFO_ID.fullmatch(message[name]), f"{name} is {message.get(name)!a}")
    return size


def check_batch_write_item(request: AWSPreparedRequest, **_: object) -> None:
    """Refuse a batch of writes that DynamoDB would refuse."""
    writes = [write for writes in content(request)["RequestItems"].values() for write in writes]
    puts = [write["PutRequest"]["Item"] for write in writes if "PutRequest" in write]
    keys = [
        *(write["DeleteRequest"]["Key"] for write in writes if "DeleteRequest" in write),
        *({name: item[name] for name in MAX_KEY_BYTES.keys() & item.keys()} for item in puts),
    ]
    require(0 < len(keys) <= MAX_WRITES, f"{len(keys)} items at once")
    require(len(keys) == len({json.dumps(key, sort_keys=True) for key in keys}), "two writes name the same item")
    for key in keys:
        check_keys(key)
    for item in puts:
        check_item(item)


CHECKS: Mapping[str, Callable[..., None]] = {
    "before-send.dynamodb.PutItem": check_put_item,
    "before-send.dynamodb.BatchWriteItem": check_batch_write_item,
    **{f"before-send.dynamodb.{name}": check_key for name in ("GetItem", "UpdateItem", "DeleteItem")},
    "before-send.dynamodb.BatchGetItem": check_batch_get_item,
    "before-send.sqs.SendMessage": check_send_message,
    "before-send.sqs.SendMessageBatch": check_send_message_batch,
}
CHECKS_OF_FUNCTIONS: Mapping[str, Callable[..., None]] = {
    f"before-send.dynamodb.{name}": check_consistent for name in ("GetItem", "BatchGetItem", "Query", "Scan")
}
"""More rules for the functions, because their decisions depend on reads."""


def require(holds: object, otherwise: str) -> None:
    """Raise `RefusedByAws` if a condition does not hold."""
    if not holds:
        raise RefusedByAws(otherwise)


def content(request: AWSPreparedRequest) -> dict[str, Any]:
    """Return the parameters of a request. No service accepts half of a surrogate pair."""
    text = json.loads(request.body)
    require(is_utf8(json.dumps(text, ensure_ascii=False)), "a text has no UTF-8")
    return text


def check_item(item: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an item that is too large, or that has a key that DynamoDB would refuse."""
    size = sum(octets(name) + attribute_bytes(value) for name, value in item.items())
    require(size <= MAX_ITEM_BYTES, f"an item takes {size:,} bytes")
    check_keys(item)


def check_keys(item: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse keys that are not texts, are empty, or are too long."""
    for name in MAX_KEY_BYTES.keys() & item.keys():
        require(item[name].keys() == {"S"}, f"key {name} is no text")
        size = octets(item[name]["S"])
        require(0 < size <= MAX_KEY_BYTES[name], f"key {name} takes {size:,} bytes")


def attribute_bytes(attribute: Mapping[str, Any]) -> int:
    """Count bytes as DynamoDB does, rounded up, and check values. Lists and maps are never stored."""
    [(kind, value)] = attribute.items()
    match kind:
        case "S":
            return octets(value)
        case "B":
            return len(base64.b64decode(value, validate=True))
        case "N":
            require(NUMBER.fullmatch(value), f"a number is {value!a}")
            return len(value)
        case "SS":
            require(value and len(value) == len(set(value)), "a set is empty or repeats itself")
            return sum(map(octets, value))
    raise RefusedByAws(f"an attribute has the type {kind}")


def check_queued_text(what: str, text: str) -> None:
    """Refuse an empty text, and characters that SQS refuses."""
    require(QUEUED_TEXT.fullmatch(text), f"{what} is empty or holds a character that SQS refuses")


def octets(text: str) -> int:
    """Count the bytes of a text."""
    return len(text.encode())


def is_utf8(text: str) -> bool:
    """Return whether a text can be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
