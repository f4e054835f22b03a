"""Read a deployment's settings once from the environment; `docs/reference/configuration.md` explains each."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from handler.sinks import SINKS, sink_named
from handler.spec import CALL_TYPES

CONNECT_TIMEOUT_SECONDS = 0.4
READ_TIMEOUT_SECONDS = 0.6
STORE_TRIES = 2
MAX_BACKOFF_SECONDS = 1.0
"""If a store throttles, botocore waits up to this long before a second try; otherwise 0.05 s."""
STORE_CALL_SECONDS = STORE_TRIES * (CONNECT_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS)
"""Upper bound for one store call, without throttling back-off.

A request makes two: it reads a key, and writes a record or a reject.
"""
ANSWER_SECONDS = 4.5
"""After this time the function starts no store calls: the route's integration time-out is 4.9 s, and Segment's 5 s."""
LIBRARY_ANSWER_SECONDS = 9.4
"""The same for Segment's server libraries: the integration time-out is 9.8 s, and they wait 10 s or more."""

DEFAULT_SERVICE = "direct-destination"
"""The dimension `service` of the metrics if the template names no stack."""


class SettingsError(Exception):
    """The environment has a missing or invalid variable; the text names it, and what it may be."""


class AfterErasure(StrEnum):
    """What happens to a message that arrives after its user was erased, and happened before."""

    STORE = "store"
    REFUSE = "refuse"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one deployment; each name is its environment variable in lower case.

    `event_store` is the exception: its variable depends on the sink, such as `EVENT_TABLE`.
    """

    event_sink: str
    event_store: str
    key_table: str
    key_cache_seconds: float
    key_grace_seconds: float
    supported_call_types: frozenset[str]
    event_retention_days: int
    rejects_table: str
    rejects_retention_days: int
    erasure_table: str
    after_erasure: AfterErasure
    maintenance: bool
    powertools_service_name: str
    aws_lambda_function_version: str
    accept_demo_keys: bool

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings; raises `SettingsError` for the first one that is missing or invalid."""
        sink = _one_of(env, "EVENT_SINK", tuple(SINKS), next(iter(SINKS)))
        return cls(
            event_sink=sink,
            event_store=_text(env, sink_named(sink).variable),
            key_table=_text(env, "KEY_TABLE"),
            key_cache_seconds=_number(env, "KEY_CACHE_SECONDS", 60),
            key_grace_seconds=_number(env, "KEY_GRACE_SECONDS", 300),
            supported_call_types=_call_types(env, "SUPPORTED_CALL_TYPES"),
            event_retention_days=_number(env, "EVENT_RETENTION_DAYS", 0),
            rejects_table=_text(env, "REJECTS_TABLE"),
            rejects_retention_days=_number(env, "REJECTS_RETENTION_DAYS", 30),
            erasure_table=_text(env, "ERASURE_TABLE"),
            after_erasure=AfterErasure(_one_of(env, "AFTER_ERASURE", tuple(AfterErasure), AfterErasure.STORE)),
            maintenance=_one_of(env, "MAINTENANCE", ("off", "on"), "off") == "on",
            powertools_service_name=env.get("POWERTOOLS_SERVICE_NAME") or DEFAULT_SERVICE,
            aws_lambda_function_version=env.get("AWS_LAMBDA_FUNCTION_VERSION") or "$LATEST",
            accept_demo_keys=bool(env.get("AWS_ENDPOINT_URL")),
        )


def _text(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise SettingsError(f"{name} is not set: deploy with template.yaml, or set it to the name of the resource")
    return env[name]


def _one_of(env: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = env.get(name) or default
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")
    return value


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    value = env.get(name) or str(default)
    if not value.isdecimal():
        raise SettingsError(f"{name} is {value!r}: it must be a whole number, 0 or more")
    return int(value)


def _call_types(env: Mapping[str, str], name: str) -> frozenset[str]:
    value = env.get(name) or ",".join(CALL_TYPES)
    call_types = frozenset(part.strip() for part in value.split(","))
    if not call_types <= frozenset(CALL_TYPES):
        raise SettingsError(f"{name} is {value!r}: it must be a list of {', '.join(CALL_TYPES)}, with commas between")
    return call_types
