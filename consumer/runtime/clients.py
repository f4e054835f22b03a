"""boto3 clients for background work, with longer time-outs and more tries than the endpoint's clients."""

from typing import Any

from botocore.config import Config

from handler.clients import new_client, require_confirmation

BACKGROUND_CONFIG = Config(
    connect_timeout=1,
    read_timeout=2,
    retries={"mode": "standard", "total_max_attempts": 5},
    user_agent="direct-destination",
)
"""In seconds, for each try. No request waits for the response, so slow responses are acceptable."""


def background_client(service: str) -> Any:  # noqa: ANN401 -- a botocore client
    """Return a client of a service by its name, such as `dynamodb`; it raises one of `STORE_ERRORS`.

    It treats an unconfirmed response as an error.
    """
    return require_confirmation(new_client(service, BACKGROUND_CONFIG))
