"""The boto3 clients of the stores: how long they wait, and what they take for an answer."""

import json
from typing import Any

import boto3
from botocore.config import Config
from botocore.parsers import ResponseParserError

from handler.settings import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, STORE_TRIES

CONFIG = Config(
    connect_timeout=CONNECT_TIMEOUT_SECONDS,
    read_timeout=READ_TIMEOUT_SECONDS,
    retries={"mode": "standard", "total_max_attempts": STORE_TRIES},
)

HTTP_OK = 200


def connect(service: str) -> Any:  # noqa: ANN401 -- the client of the service
    """Return a client of a service by its name, such as `dynamodb`."""
    client = boto3.client(service, config=CONFIG)  # type: ignore[call-overload]  # which wants to see the name itself
    client.meta.events.register("before-parse", check_answer)
    return client


def check_answer(response_dict: dict[str, Any], **_: object) -> None:
    """Make an answer that is no JSON object a fault of the store; botocore would stumble over some of them.

    A store may ask for a pause of up to five seconds before the next try, which is longer than Segment waits: that
    wish is passed over, and the next try is Segment's.
    """
    response_dict["headers"].pop("x-amz-retry-after", None)
    if response_dict["status_code"] == HTTP_OK:
        try:
            is_object = isinstance(json.loads(response_dict["body"] or b"{}"), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise ResponseParserError("The store's answer is no JSON object")
