"""The clients of what runs beside the requests: patient, and taking nothing for an answer but an answer.

botocore reads a garbled answer as an empty one, so that a delete that never happened would look like one that did.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.client import BaseClient
from botocore.config import Config
from botocore.parsers import ResponseParserError

from handler.clients import check_answer, new_client

if TYPE_CHECKING:
    from botocore.awsrequest import AWSResponse
    from botocore.model import OperationModel

AnyClient = TypeVar("AnyClient", bound=BaseClient)

PATIENT = Config(
    connect_timeout=1,
    read_timeout=2,
    retries={"mode": "standard", "total_max_attempts": 5},
    user_agent="direct-destination",
)
"""In seconds, for each try. Nobody waits for the answer, so that it may take what AWS needs."""

CONFIRMED_BY = {
    "dynamodb": {
        **dict.fromkeys(("GetItem", "PutItem", "UpdateItem", "DeleteItem"), "ConsumedCapacity"),
        **dict.fromkeys(("Query", "Scan"), "Items"),
        "BatchWriteItem": "UnprocessedItems",
        "ListTables": "TableNames",
    },
    "sqs": {"GetQueueUrl": "QueueUrl", "SendMessage": "MessageId"},
}
"""Service -> operation -> what an answer always holds."""


def patient_client(service: str) -> Any:  # noqa: ANN401 -- its client
    """Return a client of a service by its name, such as `dynamodb`; it raises one of `STORE_ERRORS`."""
    return listening(new_client(service, PATIENT))


def listening(client: AnyClient) -> AnyClient:
    """Let a client take nothing for an answer but an answer; else it raises one of `STORE_ERRORS`."""
    events, service = client.meta.events, client.meta.service_model.service_name
    events.register("before-parse", check_answer)
    for operation, part in CONFIRMED_BY[service].items():
        if part == "ConsumedCapacity":
            events.register(f"before-parameter-build.{service}.{operation}", _ask_for_capacity)
        events.register(f"after-call.{service}.{operation}", _check_confirmed)
    return client


def _ask_for_capacity(params: dict[str, Any], **_: object) -> None:
    """Let DynamoDB say what a call took: without that, the answer to many is empty."""
    params["ReturnConsumedCapacity"] = "TOTAL"


def _check_confirmed(
    parsed: Mapping[str, Any], model: "OperationModel", http_response: "AWSResponse", **_: object
) -> None:
    """Make an answer that confirms nothing a fault of the store."""
    part = CONFIRMED_BY[model.service_model.service_name][model.name]
    if "Error" not in parsed and part not in parsed:
        raise ResponseParserError(
            f"{http_response.url} answered {model.name} without {part}, which confirms nothing: run this again, and if "
            "that does not help, see what answers there"
        )
