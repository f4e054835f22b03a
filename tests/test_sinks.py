"""Test the promises of every sink in `SINKS`, through the whole function and with its own stores."""

import json
import random
from dataclasses import replace

import pytest
from test_store_faults import RECORD

from handler.errors import InternalError, MessageTooLarge
from handler.sinks import SINKS, sink_named

ACCEPTED = {"stored": 200, "queued": 202}
TRACK = {"type": "track", "event": "Lamp Lit", "userId": "keeper-17"}
MISSING = "https://sqs.us-east-1.amazonaws.com/123456789012/missing"
LARGE = {"note": random.Random(17).randbytes(1024 * 1024).hex()}  # noqa: S311 -- no secret
"""Two megabytes that no sink can compress below its limit."""

each_sink = pytest.mark.parametrize("name", SINKS)


def open_sink(deployed):
    """Return the sink of a deployment."""
    stores = deployed.stack.stores
    return stores.sink.open(stores.event_store, deployed.account.store_client, retention_days=0)


@each_sink
def test_message_is_accepted(deploy, name):
    deployed = deploy(EventSink=name)
    answer = deployed.post(TRACK)
    assert answer.status == ACCEPTED[answer.body["status"]]


@each_sink
def test_each_message_of_a_batch_is_accepted(deploy, name):
    deployed = deploy(EventSink=name)
    messages = [{**TRACK, "messageId": f"m-{number}"} for number in range(25)]
    answer = deployed.post({"batch": messages}, path="/v1/batch")
    assert (answer.status, answer.body["accepted"]) == (200, len(messages))


@each_sink
def test_repeated_message_is_a_duplicate_if_the_sink_deduplicates(deploy, name):
    deployed = deploy(EventSink=name)
    deployed.post({**TRACK, "messageId": "m-1"})
    again = deployed.post({**TRACK, "messageId": "m-1"})
    assert (again.body["status"] == "duplicate") == sink_named(name).deduplicates


@each_sink
def test_missing_store_is_our_fault(deploy, name):
    deployed = deploy(EventSink=name, environment={sink_named(name).variable: MISSING})
    for answer in (deployed.post(TRACK), deployed.post({"batch": [TRACK]}, path="/v1/batch")):
        assert (answer.status, answer.body["code"]) == (503, "event_store_unavailable")


@each_sink
def test_message_that_is_too_large_is_refused_before_a_write(deploy, name):
    sink = open_sink(deploy(EventSink=name))
    with pytest.raises(MessageTooLarge):
        sink.write(replace(RECORD, settings=LARGE))


@each_sink
def test_one_record_does_not_affect_the_others_of_a_batch(deploy, name):
    sink = open_sink(deploy(EventSink=name))
    bug, large = replace(RECORD, settings={"x": object()}), replace(RECORD, settings=LARGE)
    outcomes = sink.write_all([bug, large, RECORD], lambda: None)
    assert [type(outcome) for outcome in outcomes[:2]] == [InternalError, MessageTooLarge]
    assert json.dumps(outcomes[2]) in ('"stored"', '"queued"')
