"""Test the faults that `serve --faults` injects, including partial failures of a batch."""

import asyncio
import json
import re
from collections import Counter
from random import Random

import pytest
import urllib3
from endpoint import endpoint, response

from destination.local.batches import Consumer
from destination.local.faults import (
    ALL_FAULTS,
    KINDS,
    REDELIVERY,
    BatchFault,
    Fault,
    FaultProxy,
    Rule,
    parse_orders,
)
from destination.local.function_process import Invocation
from destination.paths import ROOT


def drawn(orders, *, is_batch=False, times=20_000):
    """Return the shares of requests that meet each fault."""
    [rule] = orders.rules
    chance = Random(1)  # noqa: S311 -- faults are no secrets
    counts = Counter(rule.draw(chance, is_batch=is_batch) for _ in range(times))
    return {fault: count / times for fault, count in counts.items()}


def test_a_rate_alone_orders_all_faults():
    shares = drawn(parse_orders("0.5"))
    assert shares.keys() == {None, *Fault}
    assert shares[None] == pytest.approx(0.5, abs=0.02)
    assert drawn(parse_orders("0.5"), is_batch=True).keys() == {None, *ALL_FAULTS}


def test_kinds_have_rates_of_their_own():
    shares = drawn(parse_orders("throttle:0.1, error:0.2"))
    throttled = sum(shares[fault] for fault in KINDS["throttle"])
    failed = sum(shares[fault] for fault in KINDS["error"])
    assert (throttled, failed) == (pytest.approx(0.1, abs=0.02), pytest.approx(0.2, abs=0.02))
    assert shares.keys() == {None, *KINDS["throttle"], *KINDS["error"]}


def test_only_batches_can_fail_partially():
    orders = parse_orders("partial:0.3,reset:0.1")
    assert BatchFault.PARTIAL not in drawn(orders)
    assert drawn(orders)[Fault.RESET] == pytest.approx(0.1, abs=0.02)
    assert drawn(orders, is_batch=True)[BatchFault.PARTIAL] == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("text", "rules", "redelivery"), [("0", 0, 0), ("redeliver:0.2", 0, 0.2), ("0.05,redeliver:1", 1, 1)]
)
def test_redelivery_is_not_a_fault_of_a_store(text, rules, redelivery):
    orders = parse_orders(text)
    assert (len(orders.rules), orders.redelivery) == (rules, redelivery)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "nothing is not a rate"),
        ("1.5", "1.5 is not a rate"),
        ("nan", "nan is not a rate"),
        ("throttle", "throttle is not a rate"),
        ("thunder:0.1", "thunder is not a kind of fault: write refused"),
        ("error:0.1,error:0.2", "error is named twice"),
        ("error:0.6,reset:0.6", "more than 1"),
    ],
)
def test_invalid_faults_option_is_explained(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_orders(text)


def answer_of_store(request):
    """Answer a request as the store does, and close the connection as the proxy asks for."""
    yield from done(json.loads(request.body))
    request.connection.shutdown(2)


def done(content):
    if "Entries" in content:
        return response(200, json.dumps({"Successful": [{"Id": entry["Id"]} for entry in content["Entries"]]}))
    if "Statements" in content:
        return response(
            200, json.dumps({"Responses": [{"TableName": one["Statement"]} for one in content["Statements"]]})
        )
    [(table, asked)] = content["RequestItems"].items()
    return response(200, json.dumps({"Responses": {table: asked["Keys"]}, "UnprocessedKeys": {}}))


def call(operation, content, *, seed=1):
    """Call a store through a proxy that lets a part of each batch fail.

    Return the answer, and what reached the store.
    """

    async def run(url):
        async with FaultProxy(url, [Rule(faults=(BatchFault.PARTIAL,))], seed=seed) as proxy:
            return await asyncio.to_thread(post, proxy.url)

    def post(url):
        service = "AmazonSQS" if operation == "SendMessageBatch" else "DynamoDB_20120810"
        headers = {"X-Amz-Target": f"{service}.{operation}"}
        return urllib3.request("POST", url, body=json.dumps(content), headers=headers, timeout=5).json()

    with endpoint(answer_of_store) as store:
        answer = asyncio.run(run(store.url.removesuffix("/segment")))
        [request] = store.received
    return answer, json.loads(request.body)


@pytest.mark.parametrize("seed", range(5))
def test_queue_accepts_a_part_of_a_batch(seed):
    entries = [{"Id": str(number)} for number in range(5)]
    answer, got = call("SendMessageBatch", {"QueueUrl": "q", "Entries": entries}, seed=seed)
    done, failed = ([one["Id"] for one in answer[name]] for name in ("Successful", "Failed"))
    assert done == [entry["Id"] for entry in got["Entries"]]
    assert sorted(done + failed) == [entry["Id"] for entry in entries]
    assert min(len(done), len(failed)) > 0
    assert {one["SenderFault"] for one in answer["Failed"]} == {False}


def test_queue_accepts_a_single_message():
    answer, _ = call("SendMessageBatch", {"QueueUrl": "q", "Entries": [{"Id": "0"}]})
    assert answer == {"Successful": [{"Id": "0"}], "Failed": []}


def test_a_table_reads_a_part_of_the_keys():
    keys = [{"k": {"S": str(number)}} for number in range(5)]
    answer, got = call("BatchGetItem", {"RequestItems": {"ErasureTable-x": {"Keys": keys, "ConsistentRead": True}}})
    unread = answer["UnprocessedKeys"]["ErasureTable-x"]
    assert answer["Responses"]["ErasureTable-x"] == got["RequestItems"]["ErasureTable-x"]["Keys"]
    assert unread["ConsistentRead"]
    assert len(answer["Responses"]["ErasureTable-x"]) + len(unread["Keys"]) == 5


def test_a_table_executes_a_part_of_the_statements():
    statements = [{"Statement": str(number)} for number in range(5)]
    content = {"Statements": statements, "TableName": "EventTable-x"}
    answer, got = call("BatchExecuteStatement", content)
    done = {number for number, one in enumerate(answer["Responses"]) if "Error" not in one}
    assert [answer["Responses"][number]["TableName"] for number in sorted(done)] == [
        str(number) for number in sorted(done)
    ]
    assert len(got["Statements"]) == len(done) < len(answer["Responses"]) == 5


class Function:
    """A consumer's function that records its calls and returns the given answer."""

    def __init__(self, response=None):
        self.events = []
        self.response = response

    async def __call__(self, event):
        self.events.append(event)
        return Invocation(response=self.response, log="", raised=False)


@pytest.mark.parametrize(("again", "times"), [(True, 2), (False, 1)])
def test_finished_batch_may_be_delivered_again(again, times):
    function = Function()
    consumer = Consumer(name="f", invoke=function, tell=str, redelivers=lambda: again)
    assert asyncio.run(consumer.hand_over({"1": {"n": 1}}, reports_failures=True)) == frozenset()
    assert function.events == [{"Records": [{"n": 1}]}] * times


def test_batch_with_failures_is_not_repeated_at_once():
    function = Function({"batchItemFailures": [{"itemIdentifier": "1"}]})
    consumer = Consumer(name="f", invoke=function, tell=str, redelivers=lambda: True)
    assert asyncio.run(consumer.hand_over({"1": {}, "2": {}}, reports_failures=True)) == {"1"}
    assert len(function.events) == 1


def test_the_documentation_lists_the_kinds():
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text("utf-8")
    assert re.findall(r"^- `(\w+)`: ", text, re.MULTILINE) == [*KINDS, REDELIVERY]
