"""Clients for functions that no request waits for: with long time-outs and more tries."""

from typing import Any

from botocore.config import Config

from handler.clients import new_client, require_confirmation

PATIENT = Config(
    connect_timeout=1,
    read_timeout=2,
    retries={"mode": "standard", "total_max_attempts": 5},
    user_agent="direct-destination",
)
"""In seconds, for each try. Nobody waits for the answer, so that it may take what AWS needs."""


def patient_client(service: str) -> Any:  # noqa: ANN401 -- its client
    """Return a client of a service by its name, such as `dynamodb`; it raises one of `STORE_ERRORS`.

    It treats an unconfirmed response as an error.
    """
    return require_confirmation(new_client(service, PATIENT))
