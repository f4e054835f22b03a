"""Test `destination simulate`: it finds faults, and reports none for a correct server."""

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict
from random import Random

import pytest
from endpoint import endpoint, response
from local_server import MAX_WAIT_SECONDS, run, serving, start, wait_until
from rich.console import Console
from store_proxy import store_proxy

from consumer.erasure.table import ErasureTable
from destination.deployment import demo
from destination.deployment.stack import LOCAL_STACK
from destination.local.faults import Fault, Rule, Store
from destination.paths import ROOT
from destination.simulation.contacts import Comparison, Difference
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.ledger import End, Ledger
from destination.simulation.play import Findings
from destination.simulation.reconcile import reconcile
from destination.simulation.rejects import RejectComparison
from destination.simulation.report import Run
from destination.simulation.traffic import Sending, Traffic
from destination.simulation.witness import ErasureResults
from handler.spec import CALL_TYPES

pytest_plugins = ["servers"]

MESSAGES = 60
CONCURRENCY = 4
"""More concurrent requests would wait for the two functions of a server, and fail on a busy machine."""
STORED_TYPES = tuple(call_type for call_type in CALL_TYPES if call_type != "delete")
"""The call types that are mixed at random if messages go to the event table."""
EVERYTHING = ("--duplicates", "0.2", "--replays", "0.1", "--reorder", "0.2", "--invalid", "0.1")
IN_NO_TIME = ("--time-scale", "1000000")
SOON = ("--time-scale", "3600")
VALID = json.dumps({"type": "track", "event": "e", "userId": "u", "messageId": "m"}).encode()


def simulate(url, *options, seed, messages=MESSAGES):
    """Run a simulation. Return its exit code and its JSON report."""
    usual = ("--messages", str(messages), "--seed", str(seed), "--concurrency", str(CONCURRENCY))
    result = run("simulate", "--url", url, "--json", *usual, *options)
    assert result.exit_code in (0, 1), result.output
    assert not result.stderr
    return result.exit_code, json.loads(result.stdout)


def test_correct_server_loses_and_doubles_nothing(server):
    code, report = simulate(server.url, *EVERYTHING, seed=1)
    assert code == 0
    assert (
        report["lost"] == report["stored_twice"] == report["unfinished"] == report["given_up"] == report["refused"] == 0
    )
    assert report["stored_otherwise"] == report["stored_unsent"] == 0
    assert report["stored"] == report["messages"]
    assert report["delivered_at_first_try"] == report["sent"] - report["refused_as_expected"]
    assert report["duplicates_refused"] == report["delivered_at_first_try"] - report["messages"] > 0
    assert report["refused_as_expected"] > 0
    assert (
        sum(report["answers"].values())
        == sum(report["answers_by_status"].values())
        == report["tries"]
        == report["sent"]
    )
    assert 0 < report["milliseconds"]["p50"] <= report["milliseconds"]["p99"] <= report["milliseconds"]["max"] < 5000


def test_repeated_seed_finds_everything_stored(server):
    _, first = simulate(server.url, seed=2)
    code, second = simulate(server.url, seed=2)
    assert (code, first["duplicates_refused"], second["duplicates_refused"]) == (0, 0, MESSAGES)
    assert first["stored"] == second["stored"] == MESSAGES


def test_batches_lose_nothing_and_refuse_only_invalid_messages(server):
    # One batch at a time: a write that waits for too many others is retried, and its message is then a duplicate.
    options = ("--route", "batch", "--concurrency", "1", *EVERYTHING)
    code, report = simulate(server.url, *options, seed=31, messages=300)
    assert (code, report["lost"], report["stored_twice"], report["stored_otherwise"]) == (0, 0, 0, 0)
    assert report["stored"] == report["messages"]
    assert report["url"].endswith("/v1/batch")
    assert report["requests"] == report["tries"] < report["sent"] / 5
    assert report["duplicates_refused"] == report["delivered_at_first_try"] - report["messages"] > 0
    assert report["rejected"].keys() >= {"invalid_message", "not_an_object", "missing_type", "unsupported_call_type"}
    assert (report["rejects_missing"], report["rejects_unsent"]) == (0, 0)
    assert 0 < report["rejects_kept"] < sum(report["rejected"].values())
    assert {"400 invalid_json", "400 invalid_encoding", "401 unknown_key"} < report["answers"].keys()


def test_intermittent_store_faults_lose_no_messages_of_batches(tmp_path):
    options = ("--route", "batch", "--batch-size", "10", "--duplicates", "0.1", "--invalid", "0.1", *SOON)
    with serving(tmp_path, "--faults", "0.2", "--faults-seed", "7", "--processes", "2") as server:
        code, report = simulate(server.url, *options, seed=32, messages=120)
    assert (code, report["lost"], report["stored_twice"], report["stored"]) == (0, 0, 0, report["messages"])
    assert report["delivered_after_retries"]
    assert (report["rejects_missing"], report["rejects_unsent"]) == (0, 0)


def test_batch_answers_that_claim_too_much_are_found(server):
    def answer(request):
        headers = dict(line.split(": ", 1) for line in request.head.split("\r\n")[1:] if line)
        reply = server.http.request("POST", f"{server.url}/v1/batch", headers=headers, body=request.body)
        report = json.loads(reply.data)
        if report["accepted"]:
            last = max(set(range(10)) - {one["index"] for one in report["rejected"]})
            report["accepted"] -= 1
            report["rejected"].append({"index": last, "code": "missing_type", "message": "no"})
        return response(reply.status, json.dumps(report))

    options = ("--stores", server.url, "--route", "batch", "--batch-size", "10", "--customers", "2")
    with endpoint(answer) as two_faced:
        code, report = simulate(two_faced.url, *options, seed=33)
    assert (code, report["refused"], report["stored"]) == (1, MESSAGES / 10, MESSAGES)


def test_missing_reject_is_found(server):
    def answer(request):
        body = gzip.decompress(request.body) if "gzip" in request.head else request.body
        try:
            messages = len(json.loads(body.decode())["batch"])
        except ValueError:
            return response(400)
        rejected = [{"index": index, "code": "invalid_message"} for index in range(messages)]
        report = {"code": "nothing_accepted", "accepted": 0, "duplicates": 0, "rejected": rejected}
        return response(400, json.dumps(report))

    with endpoint(answer) as forgetful:
        options = ("--stores", server.url, "--route", "batch", "--invalid", "1")
        code, report = simulate(forgetful.url, *options, seed=34)
    assert (code, report["lost"], report["rejects_kept"]) == (1, 0, 0)
    assert report["rejects_missing"] > 20


def customers_with_keys(server):
    """Return the customers of the keys in a key table."""
    items = server.account.dynamodb().scan(TableName=server.stores.key_table)["Items"]
    return sorted(item["customer_id"]["S"] for item in items)


def test_friendly_profile_sends_shop_traffic(server):
    report = server.json("simulate", "--profile", "friendly", "--messages", "60", "--seed", "7")
    assert (report["sent"], report.get("failed", 0)) == (60, 0)
    assert report["stored"] > 50
    assert (report["duplicate"], report["refused"]) == (1, 1)
    stored = server.run(
        "messages", "list", "--customer", "simulated-shop", "--json", "--limit", "100"
    ).stdout.splitlines()
    assert len(stored) == report["stored"]
    assert "simulated-shop" not in {key["customer_id"] for key in server.json("keys", "list")}


def test_simulated_keys_are_removed_and_others_stay(server):
    before = customers_with_keys(server)
    assert demo.CUSTOMER in before
    simulate(server.url, seed=3, messages=5)
    assert customers_with_keys(server) == before


def test_message_stored_under_two_keys_is_found(server):
    simulate(server.url, seed=4, messages=10)
    traffic = Traffic(seed=4, customers=10, call_types=STORED_TYPES)
    record = traffic.due(traffic.parcel(Sending(index=3)))
    client, table = server.account.dynamodb(), server.stores.event_table
    key = {"subject": {"S": record.subject}, "position": {"S": record.position}}
    item = client.get_item(TableName=table, Key=key)["Item"]
    client.put_item(TableName=table, Item={**item, "position": {"S": "elsewhere"}})
    code, report = simulate(server.url, seed=4, messages=10)
    assert (code, report["stored"], report["stored_twice"], report["lost"]) == (1, 10, 1, 0)


def test_message_stored_with_other_content_is_found(server):
    simulate(server.url, seed=21, messages=10)
    traffic = Traffic(seed=21, customers=10, call_types=STORED_TYPES)
    record = traffic.due(traffic.parcel(Sending(index=3)))
    client, table = server.account.dynamodb(), server.stores.event_table
    key = {"subject": {"S": record.subject}, "position": {"S": record.position}}
    item = client.get_item(TableName=table, Key=key)["Item"]
    client.put_item(TableName=table, Item={**item, "message": {"S": '{"type":"track"}'}})
    code, report = simulate(server.url, seed=21, messages=10)
    assert (code, report["stored"], report["stored_otherwise"], report["stored_twice"], report["lost"]) == (
        1,
        10,
        1,
        0,
        0,
    )


def test_stored_message_that_was_refused_is_found(server):
    def answer(request):
        headers = headers_of(request.head)
        reply = server.http.request("POST", f"{server.url}/segment", headers=headers, body=VALID)
        assert reply.status == 200
        return response(400)

    with endpoint(answer) as two_faced:
        result = run("simulate", "--url", two_faced.url, "--stores", server.url, "--messages", "5", "--invalid", "1")
    assert result.exit_code == 1
    assert "stored, but not sent" in result.stdout
    assert "Something was lost, stored twice or with other content, or judged wrongly." in result.stdout


def test_false_confirmation_is_found(server):
    with endpoint(lambda _request: response(200, '{"status": "stored"}')) as liar:
        code, report = simulate(liar.url, "--stores", server.url, seed=5)
    assert (code, report["lost"], report["lost_though_accepted"], report["stored"]) == (1, MESSAGES, MESSAGES, 0)


def test_refused_valid_message_is_lost(server):
    with endpoint(lambda _request: response(401, '{"message": "API key unknown"}')) as strict:
        code, report = simulate(strict.url, "--stores", server.url, seed=6)
    assert (code, report["lost"], report["lost_by_refusal"]) == (1, MESSAGES, MESSAGES)
    assert report["refusals"] == {"401 API key unknown": MESSAGES}


def test_message_that_never_succeeds_is_given_up_and_lost(server):
    with endpoint(lambda _request: response(503)) as down:
        code, report = simulate(down.url, "--stores", server.url, *IN_NO_TIME, seed=7, messages=5)
    assert (code, report["given_up"], report["lost"], report["lost_by_giving_up"]) == (1, 5, 5, 5)
    assert report["tries"] == report["answers_by_status"]["503"] >= 5 * 8


def test_invalid_messages_that_are_accepted_are_a_failure(server):
    with endpoint(lambda _request: response(200)) as lax:
        code, report = simulate(lax.url, "--stores", server.url, "--invalid", "1", seed=8)
    assert (code, report["accepted_though_invalid"], report["lost"]) == (1, MESSAGES, 0)


def test_intermittently_failing_server_loses_nothing(server):
    chance = Random(9)  # noqa: S311 -- to fail now and then

    def answer(request):
        fails = chance.choice(("before", "after", "not", "not"))
        if fails == "before":
            return response(503)
        headers = headers_of(request.head)
        reply = server.http.request("POST", f"{server.url}/segment", headers=headers, body=request.body)
        return [] if fails == "after" else response(reply.status, reply.data.decode())

    with endpoint(answer) as proxy:
        code, report = simulate(proxy.url, "--stores", server.url, *IN_NO_TIME, "--duplicates", "0.2", seed=9)
    assert (code, report["lost"], report["stored_twice"], report["stored"]) == (0, 0, 0, MESSAGES)
    assert report["delivered_after_retries"]
    assert report["answers_by_status"]["no connection"] > 10


@pytest.mark.parametrize("route", ["segment", "batch"])
def test_only_erased_users_are_removed(route, server):
    options = ("--route", route, *EVERYTHING, "--customers", "2", "--deletes", "0.3", "--contacts")
    code, report = simulate(server.url, *options, seed=41 if route == "segment" else 36, messages=160)
    assert (code, report["lost"], report["stored"]) == (0, 0, report["messages"])
    assert report["receipts"] >= report["erased"] > 10
    assert (report["eraser_settled"], report["not_erased"], report["receipts_wrong"]) == (True, 0, 0)
    assert min(report["erased_messages"], report["erased_rejects"]) > 0
    assert report["contacts"] > 25
    assert (report["contacts_wrong"], report["contact_differences"]) == (0, [])
    assert not report["rejects_missing"]


def test_killed_eraser_is_restarted(tmp_path):
    options = ("--messages", "160", "--customers", "2", "--seed", "23", "--deletes", "0.9", "--json")
    with serving(tmp_path, "--parameter", "Consumer=off", "--processes", "2") as server:
        printed = tmp_path / "simulated"
        with (
            printed.open("w") as output,
            start(server.checkout, "simulate", "--url", server.url, *options, stdout=output) as process,
        ):
            wait_until(lambda: erased_in_this_batch(server) >= 3)
            os.kill(eraser_of(server), signal.SIGKILL)
            assert process.wait(MAX_WAIT_SECONDS) == 0
        assert "its batch is retried" in server.output
    report = json.loads(printed.read_text())
    assert report["erased"] == report["receipts"] > 40
    assert report["erased_messages"] > 40


def test_intermittent_store_faults_leave_nothing_of_erased_users(tmp_path):
    rates = ("--deletes", "0.2", "--duplicates", "0.05", "--reorder", "0.1", "--invalid", "0.05")
    options = ("--customers", "2", *rates, "--contacts", "--time-scale", "3600")
    faults = ("--faults", "0.05", "--faults-seed", "7")
    with serving(tmp_path, *faults, "--parameter", "ErasureScope=linked", "--processes", "2") as server:
        code, report = simulate(server.url, *options, seed=24, messages=120)
    assert (code, report["lost"], report["stored"]) == (0, 0, report["messages"])
    assert report["tries"] > report["sent"]
    assert report["erased"] > 5
    assert (report["eraser_settled"], report["not_erased"], report["receipts_wrong"]) == (True, 0, 0)
    assert report["erased_messages"] > 5
    assert report["contacts_wrong"] == 0


def erased_in_this_batch(server):
    """Count the finished receipts of the batch that the eraser works on.

    The eraser prints its count only at the end.
    """
    receipts = ErasureTable(server.account.dynamodb(), server.stores.erasure_table).everything()
    return sum(bool(receipt.finished_at) for receipt in receipts) - server.output.count("EraserFunction erased")


def eraser_of(server):
    """Return the process id of the eraser of a local server."""
    command = (shutil.which("pgrep"), "-P", str(server.process.pid), "-f", "consumer.eraser")
    return int(subprocess.check_output(command))


def headers_of(head):
    """Return the relevant headers of a request."""
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    return {name: headers[name] for name in ("Authorization", "Content-Type", "X-Segment-Settings") if name in headers}


def test_queue_is_drained_and_messages_of_others_stay(queue_server):
    queue_server.post({"type": "track", "event": "e", "userId": "u"})
    code, report = simulate(queue_server.url, *EVERYTHING, seed=10)
    assert (code, report["lost"], report["stored"]) == (0, 0, report["messages"])
    assert report["stored_twice"] == report["delivered_at_first_try"] - report["messages"] > 0
    sqs = queue_server.account.sqs()
    attributes = sqs.get_queue_attributes(QueueUrl=queue_server.stores.event_queue_url, AttributeNames=["All"])
    assert int(attributes["Attributes"]["ApproximateNumberOfMessages"]) >= 1


def test_queue_accepts_batches(queue_server):
    code, report = simulate(queue_server.url, "--route", "batch", *EVERYTHING, seed=36)
    assert (code, report["lost"], report["stored"]) == (0, 0, report["messages"])
    assert report["requests"] < report["sent"] / 3
    assert (report["duplicates_refused"], report["rejects_missing"]) == (0, 0)


def test_fifo_queue_drops_resends(tmp_path):
    parameters = ("EventSink=sqs", "EventQueueType=fifo", "Consumer=off")
    options = (*(f"--parameter={parameter}" for parameter in parameters), "--processes", "2")
    with serving(tmp_path, *options) as server:
        code, report = simulate(server.url, "--duplicates", "0.5", "--rate", "60", seed=16)
    assert (code, report["lost"], report["stored_twice"], report["stored"]) == (0, 0, 0, MESSAGES)
    assert report["delivered_at_first_try"] > MESSAGES + 10


def test_missing_messages_may_be_held_by_other_consumers(queue_server):
    queue_server.post({"type": "track", "event": "e", "userId": "u"})
    with endpoint(lambda _request: response(202, '{"status": "queued"}')) as elsewhere:
        options = ("--stores", queue_server.url, "--messages", "5", "--seed", "17")
        result = run("simulate", "--url", elsewhere.url, *options)
    assert result.exit_code == 1
    assert "not found" in result.stdout
    assert "messages of others were seen, so another run or consumer may hold some of these" in result.stdout
    assert "accepted but not stored" not in result.stdout
    assert result.stdout.endswith("It is unknown whether anything was lost: others use this queue too.\n")


def test_stack_is_queried_for_each_user(deploy):
    deployment = deploy()

    def answer(request):
        headers = {name.lower(): value for name, value in headers_of(request.head).items()}
        body = request.body.decode("utf-8", "replace")
        with redirect_stdout(io.StringIO()):  # not the function's own lines
            report = deployment.send({"headers": headers, "requestContext": {"requestId": "r"}, "body": body})
        return response(report.status, json.dumps(report.body))

    with endpoint(answer) as gateway:
        code, report = simulate(gateway.url, "--stack", LOCAL_STACK, *EVERYTHING, "--concurrency", "1", seed=15)
    assert (code, report["lost"], report["stored_twice"], report["stored"]) == (0, 0, 0, report["messages"])


def test_a_stack_without_an_endpoint_needs_a_url(deploy):
    deploy()
    result = run("simulate", "--stack", LOCAL_STACK)
    assert result.exit_code == 1
    assert "has no output EndpointUrl: name its endpoint with --url" in result.output


def test_terminal_shows_numbers_and_a_chart(server):
    result = run("simulate", "--url", server.url, "--messages", "40", "--seed", "11", "--duplicates", "0.2")
    assert result.exit_code == 0
    for row in (
        "sent",
        "delivered at first try",
        "stored",
        "duplicates answered",
        "lost",
        "stored twice",
        "200 stored",
    ):
        assert row in result.stdout
    assert "█" in result.stdout
    assert "p50" in result.stdout
    assert "40 messages of 10 customers" in result.stdout
    assert result.stdout.endswith("Nothing was lost, nothing was stored twice or with other content.\n")
    assert "accepted although invalid" not in result.stdout


def test_terminal_shows_refusals(server):
    with endpoint(lambda _request: response(400, '{"message": "Missing email address"}')) as strict:
        result = run("simulate", "--url", strict.url, "--stores", server.url, "--messages", "9", "--seed", "12")
    assert result.exit_code == 1
    assert "Refused finally, 9 times: 400 Missing email address" in result.stdout
    assert "9 refused finally" in result.stdout


def test_control_c_ends_with_a_reconciliation(server, tmp_path):
    printed = tmp_path / "printed"
    command = ("simulate", "--url", server.url, "--messages", "100000", "--rate", "100", "--seed", "13", "--json")
    with printed.open("w") as output, start(server.checkout, *command, stdout=output) as process:
        wait_until(lambda: server.output.count("simulated-13-1") > 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(MAX_WAIT_SECONDS) == 0
    report = json.loads(printed.read_text())
    assert report["interrupted"]
    assert (report["lost"], report["stored_twice"]) == (0, 0)
    assert 0 < report["stored"] <= report["messages"] < 100_000
    assert "simulated-13-0" not in customers_with_keys(server)


def simulate_without_reading(server, store, *options):
    """Run a simulation of five messages with an event store that can't be read."""
    with store_proxy(server.account.endpoint_url) as proxy:
        proxy.rules = (Rule(stores=frozenset({store}), faults=(Fault.ACCESS_DENIED,)),)
        about = json.dumps({"endpoint_url": proxy.url, "stores": asdict(server.stores)})
        with endpoint(lambda _request: response(202, about)) as elsewhere:
            result = run("simulate", "--url", elsewhere.url, "--messages", "5", "--seed", "14", *options)
    assert result.exit_code == 1
    assert "simulated-14-0" not in customers_with_keys(server)
    return result


def test_measurements_are_shown_if_the_store_is_unreadable(server):
    result = simulate_without_reading(server, Store.EVENTS)
    assert re.search(r"delivered at first try +5\b", result.stdout)
    assert "202" in result.stdout
    assert "p50" in result.stdout
    assert "lost" not in result.stdout.lower()
    assert "Error: The stores can't be read; the same options with --seed 14 send and compare" in result.stderr


def test_json_has_null_if_the_store_is_unreadable(queue_server):
    result = simulate_without_reading(queue_server, Store.QUEUE, "--json")
    report = json.loads(result.stdout)
    assert (report["messages"], report["delivered_at_first_try"], report["answers"]) == (5, 5, {"202": 5})
    for name in ("stored", "lost", "lost_though_accepted", "stored_twice", "stored_otherwise"):
        assert report[name] is None
    assert "Error: The stores can't be read: " in result.stderr
    assert "--seed" not in result.stderr


def picture(columns, *, end=End.ACCEPTED, stored=1, found=None, set_pieces=60, **circumstances):
    """Return the terminal output for a run of one message, or of none (`end` is None), with this number of columns."""
    fingerprint = Fingerprint(identity=b"", content=b"")
    ledger = Ledger(messages={} if end is None else {fingerprint: end}, begun=1234567)
    for label in ("200 stored", "503 reject_store_unavailable"):
        ledger.tries.add(12.3, 7.0, label)
        ledger.tries.counts[label] = 1234567
    result = reconcile(ledger, {fingerprint: stored} if stored else {}, **circumstances)
    findings = Findings(**{"result": result, **(found or {})})
    shown = Run(url="http://x/segment", seed=1, customers=1, ledger=ledger, findings=findings, set_pieces=set_pieces)
    console = Console(width=columns, file=io.StringIO())
    console.print(shown.picture(columns))
    return console.file.getvalue()


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_narrow_terminal_shows_all_numbers(columns):
    lines = picture(columns).splitlines()
    assert max(map(len, lines)) <= columns
    for label in ("200 stored", "503 reject_store_unavailable"):
        assert any(line.split()[:3] == [*label.split(), "1,234,567"] for line in lines)
    assert any(line.split()[:2] == ["sent", "1,234,567"] for line in lines)
    assert "customers to http://x/segment" in " ".join(picture(columns).split())
    assert any(line.split()[:2] == ["5-10", "2"] and "█" in line for line in lines)
    assert ("over 12.3 s" in picture(columns)) == (columns >= 60)


@pytest.mark.parametrize(("set_pieces", "is_said"), [(0, True), (60, False)])
def test_output_names_missing_set_pieces(set_pieces, is_said):
    assert ("no set pieces" in picture(120, set_pieces=set_pieces)) is is_said


VERDICTS = {
    "Nothing was lost, nothing was stored twice or with other content.": {},
    "Nothing was lost so far, nothing was stored twice or with other content.": {"found": {"interrupted": True}},
    "Nothing had to be stored.": {"end": None, "stored": 0},
    "Nothing had to be stored so far.": {"end": None, "stored": 0, "found": {"interrupted": True}},
    "Nothing was lost. A queue may hold a message twice": {"stored": 2, "may_double": True},
    "Something was lost, stored twice or with other content, or judged wrongly.": {"stored": 2},
    "It is unknown whether anything was lost: others use this queue too.": {"stored": 0, "others_seen": 1},
}


@pytest.mark.parametrize("sentence", VERDICTS)
def test_verdict_claims_only_what_is_known(sentence):
    assert picture(240, **VERDICTS[sentence]).splitlines()[-1].startswith(sentence)


def erasures(**findings):
    """Return the findings on three erased users."""
    good = {"erased": 3, "messages": 7, "rejects": 1, "receipts": 4, "not_erased": 0, "receipts_wrong": 0}
    return ErasureResults(**{**good, "settled": True, "subjects": frozenset(), "proven": Counter(), **findings})


def rejects(**findings):
    """Return the findings on seven rejects."""
    return RejectComparison(**{"kept": 7, "missing": 0, "unsent": 0, "may_have_sent": False, **findings})


def comparison(*differences, contacts=5):
    """Return a comparison of contacts."""
    names = ("customer_id", "contact_id", "part", "expected", "found")
    found = tuple(Difference(**dict(zip(names, texts, strict=True))) for texts in differences)
    return Comparison(contacts=contacts, wrong=len(found), differences=found)


FINDINGS = {
    "The kept rejects do not match the refused messages.": {"rejects": rejects(missing=1)},
    "The kept rejects do not match the": {"rejects": rejects(unsent=1)},
    "Nothing was lost, nothing was stored twice": {"rejects": rejects(unsent=1, may_have_sent=True)},
    "No data of the erased users is left, and their receipts count everything once.": {"erasures": erasures()},
    "Data of erased users is left, or their receipts": {"erasures": erasures(not_erased=2)},
    "Data of erased users is left, or their": {"erasures": erasures(receipts_wrong=2)},
    "The eraser does not seem to run: ": {"erasures": erasures(settled=False, not_erased=9)},
    "All contacts match the messages.": {"contacts": comparison()},
    'acme: "u" traits.plan is "x" and should be absent': {
        "contacts": comparison(("acme", "u", "traits.plan", "", '"x"'))
    },
    'acme: "u" events.e is missing and should be 2': {"contacts": comparison(("acme", "u", "events.e", "2", ""))},
    'acme: "u" is missing': {"contacts": comparison(("acme", "u", "", '{"id": "u"}', ""))},
    'acme: "u" exists, although': {"contacts": comparison(("acme", "u", "", "", '{"id": "u"}'))},
}


@pytest.mark.parametrize("sentence", FINDINGS)
def test_terminal_shows_the_findings_on_users(sentence):
    assert picture(240, found=FINDINGS[sentence]).splitlines()[-1].startswith(sentence)


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        ({}, False),
        ({"erasures": erasures(), "contacts": comparison()}, False),
        ({"erasures": erasures(not_erased=1)}, True),
        ({"erasures": erasures(receipts_wrong=1)}, True),
        ({"erasures": erasures(settled=False)}, True),
        ({"contacts": comparison(("acme", "u", "", "", "{}"))}, True),
        ({"rejects": rejects(unsent=1, may_have_sent=True)}, False),
        ({"rejects": rejects(unsent=1)}, True),
        ({"rejects": rejects(missing=1)}, True),
        ({"result": None}, True),
    ],
)
def test_any_fault_fails_the_run(found, failed):
    assert Findings(**{"result": reconcile(Ledger(), {}), **found}).failed == failed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--url", "ftp://x"], "ftp://x is not a URL"),
        (["--url", "http://x:port"], "http://x:port is not a URL"),
        (["--url", "http://127.0.0.1:1"], "http://127.0.0.1:1/segment does not answer: "),
        (["--url", "http://127.0.0.1:1", "--ca-file", str(ROOT / "README.md")], "--ca-file is for https"),
        (
            ["--url", "https://127.0.0.1:1", "--ca-file", str(ROOT / "README.md")],
            "README.md does not have the certificate",
        ),
        (["--url", "https://127.0.0.1:1", "--ca-file", str(ROOT)], "is a directory"),
        (["--stores", "http://127.0.0.1:1"], "No local server answers at http://127.0.0.1:1"),
        (["--stores", "http://127.0.0.1:1", "--stack", "x"], "--stores and --stack exclude each other"),
        (["--duplicates", "2"], "--duplicates"),
        (["--batch-size", "10"], "--batch-size needs --route batch"),
        (["--route", "batch", "--batch-size", "2501"], "2501 is not in the range 1<=x<=2500"),
        (["--deletes", "1.1"], "--deletes"),
        (["--messages", "0"], "--messages"),
        (["--rate", "0"], "--rate"),
        (["--duplicates", "nan"], "'--duplicates': nan is not a finite number"),
        (["--invalid", "NaN"], "'--invalid': NaN is not a finite number"),
        (["--rate", "inf"], "'--rate': inf is not a finite number"),
        (["--time-scale", "nan"], "'--time-scale': nan is not a finite number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_is_explained(options, sentence):
    result = run("simulate", *options)
    assert result.exit_code in (1, 2)
    assert sentence in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("parameters", "options", "sentence"),
    [
        ({"EventSink": "sqs", "Consumer": "on"}, (), "deploy it with Consumer=off; on this machine `destination serve"),
        (
            {"EventSink": "sqs"},
            ("--deletes", "0.1"),
            "--deletes and --contacts need a deployment with EventSink=dynamo",
        ),
        ({"EventSink": "sqs"}, ("--contacts",), "--deletes and --contacts need a deployment with EventSink=dynamodb"),
        (
            {},
            ("--contacts",),
            "--contacts compares the consumer's contacts, but the consumer is off: deploy with Consumer=on",
        ),
        ({"SupportedCallTypes": "track"}, ("--deletes", "0.1"), "--deletes needs a deployment that supports delete"),
        ({"SupportedCallTypes": "delete"}, (), "there would be nothing to erase"),
    ],
)
def test_unsuitable_deployment_is_refused(deploy, parameters, options, sentence):
    deploy(**parameters)
    result = run("simulate", "--stack", LOCAL_STACK, "--url", "http://127.0.0.1:1", *options)
    assert result.exit_code in (1, 2)
    assert sentence in " ".join(result.output.split())


def test_other_endpoint_needs_the_stores_option():
    with endpoint(lambda _request: response(200)) as elsewhere:
        result = run("simulate", "--url", elsewhere.url)
    assert result.exit_code == 1
    assert f"{elsewhere.url} is not a local server: name the local server that has its stores" in result.output


def test_unreachable_endpoint_is_named(server):
    result = run("simulate", "--url", "http://127.0.0.1:1/segment", "--stores", server.url)
    assert result.exit_code == 1
    assert "http://127.0.0.1:1/segment does not answer: " in result.output


def test_queue_that_accepts_parts_of_batches_loses_nothing(tmp_path):
    options = (
        "--parameter",
        "EventSink=sqs",
        "--parameter",
        "Consumer=off",
        "--faults",
        "partial:0.4",
        "--processes",
        "2",
    )
    with serving(tmp_path, *options) as server:
        code, report = simulate(server.url, "--route", "batch", "--batch-size", "30", *SOON, seed=37, messages=120)
    assert (code, report["lost"], report["breaches"]) == (0, 0, [])
    assert report["stored"] == report["messages"]


def test_redelivered_batches_give_the_same_contacts(tmp_path):
    options = ("--customers", "2", "--deletes", "0.2", "--contacts")
    with serving(tmp_path, "--faults", "redeliver:0.5", "--processes", "2") as server:
        code, report = simulate(server.url, *options, seed=38)
    assert (code, report["contacts_wrong"], report["receipts_wrong"], report["breaches"]) == (0, 0, 0, [])
