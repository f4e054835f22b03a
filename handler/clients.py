"""Create the boto3 clients of the stores: time-outs, retries, and which responses count as confirmed.

botocore's session creates them, as `boto3.client` does. Importing boto3 itself would add a tenth to a cold start, for
features that the function does not use.
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
from handler.sign import sign_quickly
from handler.transport import Connections

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel

CONFIG = Config(
    connect_timeout=CONNECT_TIMEOUT_SECONDS,
    read_timeout=READ_TIMEOUT_SECONDS,
    retries={"mode": "standard", "total_max_attempts": STORE_TRIES},
    max_pool_connections=CALLS_AT_ONCE,
    # botocore builds these two objects for each request; that is a fifth of a request's cost. So they are built once.
    user_agent="direct-destination",
    parameter_validation=False,
)
AMAZON_ROOTS = Path(__file__).parent / "amazon-roots.pem"
"""The certificates of Amazon Trust Services, which `sam build` adds to the artifact. Loading all of botocore's
certificates takes longer."""

NOT_NEEDED = (
    # adds statistics for AWS to two headers, which must be signed with each request
    ("request-created", add_retry_headers),
    ("before-parameter-build", generate_idempotent_uuid),  # no call of ours has such a parameter
    ("before-call", inject_api_version_header_if_needed),  # no call of ours has such a header
)
"""Event handlers of botocore that DynamoDB and SQS don't need; they cost time for each request."""

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
"""Service -> operation -> a field that a successful response always has.

botocore reads a garbled response as an empty one. Without this check, a failed put would look like a success, and an
unreadable key like an unknown one. For other services, it is a field that AWS's description of the service requires.
"""


def connect(service: str, *, direct: bool = False, ca_bundle: str | None = None) -> Any:  # noqa: ANN401 -- a client
    """Return a client of a service by its name, such as `dynamodb`.

    If `direct`, requests are signed by `QuickAuth`, and use `Connections`, which also trusts the certificates in the
    file `ca_bundle`.
    """
    client = require_confirmation(new_client(service, CONFIG))
    for event, handler in NOT_NEEDED:
        client.meta.events.unregister(event, handler)
    if direct:
        sign_quickly(client)
    if direct and not get_environ_proxies(client.meta.endpoint_url):
        connections = Connections(
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            read_timeout=READ_TIMEOUT_SECONDS,
            roots=[ca_bundle] if ca_bundle else _default_roots(),
        )
        # the stubs know no handler that returns a response
        client.meta.events.register("before-send", cast("Any", connections))
    return client


def new_client(service: str, config: Config) -> Any:  # noqa: ANN401 -- a botocore client
    """Return a client with the given configuration, built by botocore."""
    return session().create_client(service, config=config)


def require_confirmation(client: AnyClient) -> AnyClient:
    """Make a client raise one of `STORE_ERRORS` if a response lacks the field that confirms it."""
    events, service = client.meta.events, client.meta.service_model.service_name
    events.register("before-parse", check_answer)
    events.register(f"before-parameter-build.{service}", _ask_for_capacity)
    events.register(f"after-call.{service}", _check_confirmed)
    return client


def _ask_for_capacity(params: dict[str, Any], model: "OperationModel", **_: object) -> None:
    """Ask DynamoDB to report the consumed capacity: without it, many successful responses are empty."""
    if _confirmation(model) == "ConsumedCapacity":
        params["ReturnConsumedCapacity"] = "TOTAL"


def _check_confirmed(
    parsed: Mapping[str, Any], model: "OperationModel", http_response: "AWSResponse", **_: object
) -> None:
    """Raise `ResponseParserError` for a response that confirms nothing."""
    part = _confirmation(model)
    if part is not None and part not in parsed and "Error" not in parsed:
        raise ResponseParserError(
            f"{http_response.url} answered {model.name} without {part}, which confirms nothing. Run this again. If "
            "that does not help, check what answers at this address"
        )


def _confirmation(model: "OperationModel") -> str | None:
    operations = CONFIRMED_BY.get(model.service_model.service_name)
    if operations is not None:
        return operations.get(model.name)
    required = model.output_shape.required_members if model.output_shape else []
    return next(iter(required), None)


def _default_roots() -> list[str]:
    return [*([str(AMAZON_ROOTS)] if AMAZON_ROOTS.exists() else []), DEFAULT_CA_BUNDLE]


@cache
def session() -> Session:
    """Return the session that all clients share, so that service descriptions are loaded once."""
    return get_session()


def check_answer(response_dict: dict[str, Any], **_: object) -> None:
    """Treat a response that is not a JSON object as a store error; botocore fails on some of them.

    A store may ask for a pause of up to five seconds before a retry, which is longer than Segment waits. That pause is
    ignored: Segment retries the request.
    """
    if response_dict["status_code"] != HTTP_OK:
        response_dict["headers"].pop("x-amz-retry-after", None)
        return
    try:
        is_object = isinstance(json.loads(response_dict["body"] or b"{}"), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise ResponseParserError("The store's response is not a JSON object")
