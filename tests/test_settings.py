import pytest

from handler.settings import (
    ANSWER_SECONDS,
    DEFAULT_SERVICE,
    STORE_CALL_SECONDS,
    AfterErasure,
    Settings,
    SettingsError,
)
from handler.sinks import SINKS, sink_named
from handler.spec import CALL_TYPES

REQUIRED = {
    "EVENT_TABLE": "events",
    "KEY_TABLE": "keys",
    "REJECTS_TABLE": "rejects",
    "ERASURE_TABLE": "erasures",
}
DEFAULTS = Settings(
    event_sink="dynamodb",
    event_store="events",
    key_table="keys",
    key_cache_seconds=60,
    key_grace_seconds=300,
    supported_call_types=frozenset(CALL_TYPES),
    event_retention_days=0,
    rejects_table="rejects",
    rejects_retention_days=30,
    erasure_table="erasures",
    after_erasure=AfterErasure.STORE,
    maintenance=False,
    powertools_service_name=DEFAULT_SERVICE,
    aws_lambda_function_version="$LATEST",
    accept_demo_keys=False,
)
OPTIONAL = (
    *("EVENT_SINK", "KEY_CACHE_SECONDS", "KEY_GRACE_SECONDS", "SUPPORTED_CALL_TYPES", "EVENT_RETENTION_DAYS"),
    *("AFTER_ERASURE", "MAINTENANCE", "REJECTS_RETENTION_DAYS", "AWS_ENDPOINT_URL", "POWERTOOLS_SERVICE_NAME"),
    "AWS_LAMBDA_FUNCTION_VERSION",
)


@pytest.mark.parametrize("env", [{}, dict.fromkeys(OPTIONAL, ""), {"PATH": "/bin", "UNKNOWN": "x"}])
def test_missing_or_empty_setting_has_its_default(env):
    assert Settings.from_env({**REQUIRED, **env}) == DEFAULTS


@pytest.mark.parametrize("sink", SINKS)
def test_a_sink_reads_only_its_own_variable(sink):
    variable = sink_named(sink).variable
    others = {name: value for name, value in REQUIRED.items() if name != "EVENT_TABLE"}
    settings = Settings.from_env({**others, "EVENT_SINK": sink, variable: "an address"})
    assert (settings.event_sink, settings.event_store) == (sink, "an address")
    with pytest.raises(SettingsError, match=f"^{variable} is not set: "):
        Settings.from_env({**others, "EVENT_SINK": sink})


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("unset", [{}, dict.fromkeys(REQUIRED, "")])
def test_the_names_of_the_stores_must_be_set(name, unset):
    others = {other: value for other, value in REQUIRED.items() if other != name}
    with pytest.raises(SettingsError, match=f"^{name} is not set: "):
        Settings.from_env({**unset, **others})


@pytest.mark.parametrize(
    ("name", "value", "setting", "expected"),
    [
        ("KEY_CACHE_SECONDS", "0", "key_cache_seconds", 0),
        ("KEY_GRACE_SECONDS", "86400", "key_grace_seconds", 86400),
        ("EVENT_RETENTION_DAYS", "30", "event_retention_days", 30),
        ("REJECTS_RETENTION_DAYS", "0", "rejects_retention_days", 0),
        ("SUPPORTED_CALL_TYPES", "track", "supported_call_types", {"track"}),
        ("SUPPORTED_CALL_TYPES", "track, page", "supported_call_types", {"track", "page"}),
        ("AFTER_ERASURE", "store", "after_erasure", AfterErasure.STORE),
        ("AFTER_ERASURE", "refuse", "after_erasure", AfterErasure.REFUSE),
        ("MAINTENANCE", "off", "maintenance", False),
        ("MAINTENANCE", "on", "maintenance", True),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566", "accept_demo_keys", True),
        ("AWS_LAMBDA_FUNCTION_VERSION", "7", "aws_lambda_function_version", "7"),
        ("POWERTOOLS_SERVICE_NAME", "my-stack", "powertools_service_name", "my-stack"),
    ],
)
def test_a_setting_is_read_from_its_variable(name, value, setting, expected):
    assert getattr(Settings.from_env({**REQUIRED, name: value}), setting) == expected


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("EVENT_SINK", "kafka", f"it must be one of {', '.join(SINKS)}"),
        ("EVENT_SINK", "SQS", f"it must be one of {', '.join(SINKS)}"),
        ("KEY_CACHE_SECONDS", "-1", "it must be a whole number, 0 or more"),
        ("KEY_GRACE_SECONDS", "1.5", "it must be a whole number, 0 or more"),
        ("EVENT_RETENTION_DAYS", "without a limit", "it must be a whole number, 0 or more"),
        ("SUPPORTED_CALL_TYPES", "track,sing", "it must be a list of identify, track, "),
        ("SUPPORTED_CALL_TYPES", "track,", "it must be a list of identify, track, "),
        ("SUPPORTED_CALL_TYPES", "Track", "it must be a list of identify, track, "),
        ("AFTER_ERASURE", "drop", "it must be one of store, refuse"),
        ("MAINTENANCE", "yes", "it must be one of off, on"),
    ],
)
def test_invalid_value_is_an_error_at_start(name, value, text):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**REQUIRED, name: value})
    assert str(caught.value).startswith(f"{name} is {value!r}: {text}")


def test_key_read_and_write_fit_into_the_answer_time():
    assert 2 * STORE_CALL_SECONDS <= ANSWER_SECONDS < 4.9
