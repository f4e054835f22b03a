import json

import pytest

from handler.errors import (
    ErasureStoreUnavailable,
    EventStoreUnavailable,
    KeyStoreUnavailable,
    RejectStoreUnavailable,
)
from handler.health import KEPT_SECONDS, Health
from handler.sinks import SINKS

HEALTH = {"routeKey": "GET /health", "headers": {}, "requestContext": {"requestId": "test"}}
DEPLOYMENTS = [
    *({"EventSink": sink} for sink in SINKS),
    {"EventSink": "sqs", "EventQueueType": "fifo"},
    {"EventSink": "dynamodb", "AfterErasure": "refuse"},
]


@pytest.mark.parametrize("parameters", DEPLOYMENTS, ids=str)
def test_deployment_is_healthy_if_its_stores_answer(deploy, lines, parameters):
    deployed = deploy(**parameters)
    answer = deployed.send(HEALTH)
    assert (answer.status, answer.body) == (200, {"status": "healthy"})
    assert [(line["message"], line["code"]) for line in lines()] == [("health", None)]
    assert deployed.records() == []


@pytest.mark.parametrize(
    ("parameters", "store", "code"),
    [
        ({}, "KEY_TABLE", "key_store_unavailable"),
        ({}, "EVENT_TABLE", "event_store_unavailable"),
        ({}, "REJECTS_TABLE", "reject_store_unavailable"),
        ({"AfterErasure": "refuse"}, "ERASURE_TABLE", "erasure_store_unavailable"),
        ({"EventSink": "sqs"}, "EVENT_QUEUE_URL", "event_store_unavailable"),
    ],
)
def test_silent_store_is_named_in_a_503(deploy, lines, parameters, store, code):
    missing = "https://sqs.us-east-1.amazonaws.com/123456789012/missing" if store == "EVENT_QUEUE_URL" else "missing"
    answer = deploy(**parameters, environment={store: missing}).send(HEALTH)
    assert (answer.status, answer.body["code"]) == (503, code)
    assert "Retry-After" in answer.headers
    assert [(line["level"], line["code"]) for line in lines()] == [("WARNING", code)]


@pytest.mark.parametrize(
    ("parameters", "store"),
    [
        ({}, "ERASURE_TABLE"),
        ({}, "EVENT_QUEUE_URL"),
        ({"RejectsRetentionDays": "0"}, "REJECTS_TABLE"),
        ({"EventSink": "sqs"}, "EVENT_TABLE"),
    ],
)
def test_unused_store_is_not_checked(deploy, parameters, store):
    assert deploy(**parameters, environment={store: "missing"}).send(HEALTH).status == 200


def test_maintenance_is_503_and_reads_no_store(deploy):
    missing = {"KEY_TABLE": "missing", "EVENT_TABLE": "missing"}
    answer = deploy(Maintenance="on", environment=missing).send(HEALTH)
    assert (answer.status, answer.body["code"]) == (503, "maintenance")


def test_result_is_kept_for_ten_seconds(lines):
    now, asked = 1000.0, []

    def probe():
        asked.append(now)
        if len(asked) == 2:
            raise KeyStoreUnavailable

    health = Health([probe], clock=lambda: now)
    statuses = []
    for passed in (0, KEPT_SECONDS - 1, 1, KEPT_SECONDS - 1, 1):
        now += passed
        statuses.append(health.answer()["statusCode"])
    assert (statuses, len(asked), len(lines())) == ([200, 200, 503, 503, 200], 3, 3)


class Raises:
    def __init__(self, error):
        self.error = error

    def __call__(self):
        raise self.error


@pytest.mark.parametrize(
    "error", [ErasureStoreUnavailable, EventStoreUnavailable, KeyStoreUnavailable, RejectStoreUnavailable]
)
def test_answer_names_no_resources(error):
    response = Health([Raises(error())], clock=lambda: 0.0).answer()
    assert json.loads(response["body"]) == {"message": str(error()), "code": error.code}


def test_bug_is_not_reported_as_an_unhealthy_store():
    health = Health([Raises(ZeroDivisionError())], clock=lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        health.answer()
