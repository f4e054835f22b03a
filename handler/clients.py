"""The boto3 clients of the stores: how long they wait, and what they take for an answer.

They are made by botocore's session, as `boto3.client` does: boto3 itself adds only what the function has no use for,
and is a tenth of a cold start.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from botocore.client import BaseClient
from botocore.config import Config
from botocore.handlers import add_retry_headers, generate_idempotent_uuid, inject_api_version_header_if_needed
from botocore.httpsession import DEFAULT_CA_BUNDLE
from botocore.parsers import ResponseParserError
from botocore.session import Session, get_session
from botocore.utils import get_environ_proxies

from handler.parallel import CALLS_AT_ONCE
from handler.settings import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, STORE_TRIES
from handler.transport import Connections

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel

CONFIG = Config(
    connect_timeout=CONNECT_TIMEOUT_SECONDS,
    read_timeout=READ_TIMEOUT_SECONDS,
    retries={"mode": "standard", "total_max_attempts": STORE_TRIES},
    max_pool_connections=CALLS_AT_ONCE,
    # Two things that botocore else does anew for each request, of which they are a fifth of the cost.
    user_agent="direct-destination",
    parameter_validation=False,
)
AMAZON_ROOTS = Path(__file__).parent / "amazon-roots.pem"
"""The certificates of Amazon Trust Services, which the artifact has: to read all of botocore's takes a while."""

NOT_NEEDED = (
    ("request-created", add_retry_headers),  # statistics for AWS, in two headers that are signed with each request
    ("before-parameter-build", generate_idempotent_uuid),  # nothing that is called here has such a parameter,
    ("before-call", inject_api_version_header_if_needed),  # nor such a header
)
"""What botocore does with each request, by its events, for services other than these two or for itself."""

HTTP_OK = 200

AnyClient = TypeVar("AnyClient", bound=BaseClient)

CONFIRMED_BY = {
    "dynamodb": {
        **dict.fromkeys(("GetItem", "PutItem", "UpdateItem", "DeleteItem"), "ConsumedCapacity"),
        **dict.fromkeys(("Query", "Scan"), "Items"),
        "BatchGetItem": "Responses",
        "BatchWriteItem": "UnprocessedItems",
        "ListTables": "TableNames",
    },
    "sqs": {"GetQueueAttributes": "Attributes", "GetQueueUrl": "QueueUrl", "SendMessage": "MessageId"},
}
"""Service -> operation -> what a response always holds.

botocore reads a garbled response as an empty one. A put that never happened would look like one that did, and a key
that could not be read like an unknown one.
"""


def connect(service: str, *, direct: bool = False, ca_bundle: str | None = None) -> Any:  # noqa: ANN401 -- its client
    """Return a client of a service by its name, such as `dynamodb`.

    `direct` is by `Connections` of its own, which trusts the certificates in the file `ca_bundle`.
    """
    client = require_confirmation(new_client(service, CONFIG))
    for event, handler in NOT_NEEDED:
        client.meta.events.unregister(event, handler)
    if direct and not get_environ_proxies(client.meta.endpoint_url):
        connections = Connections(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            roots=[ca_bundle] if ca_bundle else _default_roots(),
        )
        client.meta.events.register("before-send", cast("Any", connections))  # stubs know no answer
    return client


def new_client(service: str, config: Config) -> Any:  # noqa: ANN401 -- its client
    """Return a client as botocore makes it."""
    return session().create_client(service, config=config)


def require_confirmation(client: AnyClient) -> AnyClient:
    """Let a client raise one of `STORE_ERRORS` if a response does not hold what confirms it."""
    events, service = client.meta.events, client.meta.service_model.service_name
    events.register("before-parse", check_answer)
    events.register(f"before-parameter-build.{service}", _ask_for_capacity)
    events.register(f"after-call.{service}", _check_confirmed)
    return client


def _ask_for_capacity(params: dict[str, Any], model: "OperationModel", **_: object) -> None:
    """Let DynamoDB tell the capacity that a call took: without that, many responses are empty."""
    if _confirmation(model) == "ConsumedCapacity":
        params["ReturnConsumedCapacity"] = "TOTAL"


def _check_confirmed(
    parsed: Mapping[str, Any], model: "OperationModel", http_response: "AWSResponse", **_: object
) -> None:
    """Raise `ResponseParserError` for a response that confirms nothing."""
    part = _confirmation(model)
    if part is not None and part not in parsed and "Error" not in parsed:
        raise ResponseParserError(
            f"{http_response.url} answered {model.name} without {part}, which confirms nothing: run this again, and if "
            "that does not help, see what answers there"
        )


def _confirmation(model: "OperationModel") -> str | None:
    return CONFIRMED_BY[model.service_model.service_name].get(model.name)


def _default_roots() -> list[str]:
    return [*([str(AMAZON_ROOTS)] if AMAZON_ROOTS.exists() else []), DEFAULT_CA_BUNDLE]


@cache
def session() -> Session:
    """Return the session of all clients: it holds what was read of the services."""
    return get_session()


def check_answer(response_dict: dict[str, Any], **_: object) -> None:
    """Make an answer that is no JSON object a fault of the store; botocore would stumble over some of them.

    A store may ask for a pause of up to five seconds before the next try, which is longer than Segment waits: that
    wish is passed over, and the next try is Segment's.
    """
    if response_dict["status_code"] != HTTP_OK:
        response_dict["headers"].pop("x-amz-retry-after", None)
        return
    try:
        is_object = isinstance(json.loads(response_dict["body"] or b"{}"), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise ResponseParserError("The store's answer is no JSON object")
