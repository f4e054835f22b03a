"""Test the whole function with the requests of Segment's server libraries."""

import base64
import gzip
import json
import random
import sys

import pytest
from botocore.exceptions import ReadTimeoutError

from destination.deployment import demo
from handler.erased import tombstone_key
from handler.spec import CALL_TYPES, DELETE

TRACK = {"type": "track", "event": "Lamp Lit", "userId": "keeper-17"}
FIELDS = {
    "identify": {},
    "track": {"event": "Lamp Lit"},
    "page": {},
    "screen": {},
    "group": {"groupId": "north-coast"},
    "alias": {"previousId": "5f0c7d"},
}
TIME = "2031-05-17T12:00:00.000Z"
SINKS = pytest.mark.parametrize("sink", ["dynamodb", "sqs"])


def tracks(count, **fields):
    return [{**TRACK, "messageId": f"m-{number}", "timestamp": TIME, **fields} for number in range(count)]


def counts(answer):
    return answer.status, answer.body["accepted"], answer.body["duplicates"], len(answer.body["rejected"])


def rejects(destination):
    return destination.account.dynamodb().scan(TableName=destination.stack.stores.rejects_table)["Items"]


@SINKS
@pytest.mark.parametrize("call_type", [name for name in CALL_TYPES if name != DELETE])
def test_route_sets_the_type_of_its_message(call_type, sink, deploy):
    destination = deploy(EventSink=sink)
    message = {"userId": "keeper-17", **FIELDS.get(call_type, {})}
    answer = destination.post(message, path=f"/v1/{call_type}")
    assert (answer.status, answer.body) == (200, {"accepted": 1, "duplicates": 0, "rejected": []})
    [record] = destination.records()
    assert (record["type"], record["message"]["type"]) == (call_type, call_type)


def test_segment_and_library_routes_store_the_same_message(deploy):
    destination = deploy()
    assert destination.post(TRACK).body["status"] == "stored"
    for path, body in (("/v1/track", {**TRACK, "type": None}), ("/v1/batch", {"batch": [TRACK]})):
        assert counts(destination.post(body, path=path)) == (200, 0, 1, 0)
    assert len(destination.stored()) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({**TRACK, "type": "page"}, 400, "wrong_type"),
        ({**TRACK, "type": "jump"}, 400, "wrong_type"),
        ({**TRACK, "type": 17}, 400, "missing_type"),
        ({**TRACK, "event": ""}, 400, "invalid_message"),
        ({**TRACK, "x": 10**400}, 400, "number_out_of_range"),
        ({"batch": [TRACK]}, 400, "invalid_message"),
        ([TRACK], 400, "not_an_object"),
    ],
)
def test_single_library_message_is_refused_like_segments(body, status, code, deploy):
    answer = deploy().post(body, path="/v1/track")
    assert (answer.status, answer.body["code"], "message" in answer.body) == (status, code, True)


def test_a_single_message_that_is_too_large_is_refused(deploy):
    digits = random.Random(17).randbytes(450_000).hex()  # noqa: S311 -- no secret
    message = {**TRACK, "properties": {"x": digits}}
    assert len(json.dumps(message)) < 1024 * 1024
    assert deploy().post(message, path="/v1/track").body["code"] == "message_too_large"


def test_switched_off_call_type_is_501_or_rejected_in_a_batch(deploy):
    destination = deploy(SupportedCallTypes="page")
    assert destination.post(TRACK, path="/v1/track").status == 501
    answer = destination.post({"batch": [TRACK, {"type": "page", "userId": "u"}]}, path="/v1/batch")
    assert counts(answer) == (200, 1, 0, 1)
    assert answer.body["rejected"][0]["code"] == "unsupported_call_type"


@SINKS
@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import"])
def test_a_batch_is_stored(path, sink, deploy):
    destination = deploy(EventSink=sink)
    sent_at = "2031-05-17T12:00:09.000Z"
    answer = destination.post({"batch": tracks(9), "sentAt": sent_at, "context": {"ip": "192.0.2.1"}}, path=path)
    assert (answer.status, answer.body) == (200, {"accepted": 9, "duplicates": 0, "rejected": []})
    records = destination.records()
    assert {record["message_id"] for record in records} == {f"m-{number}" for number in range(9)}
    for record in records:
        assert record["message"].items() >= {"sent_at": sent_at, "context": {"ip": "192.0.2.1"}}.items()


def test_resend_of_a_library_is_stored_once(deploy):
    destination = deploy()
    assert counts(destination.post({"batch": tracks(30), "sentAt": 1}, path="/v1/batch")) == (200, 30, 0, 0)
    assert counts(destination.post({"batch": tracks(40), "sentAt": 2}, path="/v1/batch")) == (200, 10, 30, 0)
    assert len(destination.stored()) == 40


@pytest.mark.parametrize(
    "headers",
    [
        {"content-encoding": "gzip", "content-type": "application/json"},
        {"content-type": "application/octet-stream"},
    ],
    ids=["as libraries send it", "as the import sends it"],
)
@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import"])
def test_batch_may_be_compressed(headers, path, deploy):
    destination = deploy()
    body = base64.b64encode(gzip.compress(json.dumps({"batch": tracks(3)}).encode())).decode()
    assert counts(destination.post(body, headers=headers, is_base64=True, path=path)) == (200, 3, 0, 0)


def test_delete_in_a_batch_is_stored_like_other_messages(deploy):
    destination = deploy()
    assert counts(destination.post({"batch": [{"type": "delete", "userId": "u"}]}, path="/v1/batch"))[:2] == (200, 1)
    assert destination.stored()[0]["type"] == "delete"


# Credentials


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "  "}])
@pytest.mark.parametrize(("path", "body"), [("/v1/track", TRACK), ("/v1/batch", {"batch": tracks(2)})])
def test_write_key_serves_as_credentials_and_is_never_stored(path, body, headers, deploy):
    destination = deploy()
    answer = destination.post({**body, "writeKey": f" {demo.GOOD_KEY}\n"}, key=None, headers=headers, path=path)
    assert answer.status == 200
    assert {record["customer_id"] for record in destination.stored()} == {demo.CUSTOMER}
    assert demo.GOOD_KEY not in str(destination.stored())


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/batch", {"batch": [TRACK], "writeKey": "nobodys"}, "unknown_key"),
        ("/v1/batch", {"batch": [TRACK], "writeKey": "demo-key-revoked"}, "revoked_key"),
        ("/v1/batch", {"batch": [TRACK], "writeKey": ""}, "missing_credentials"),
        ("/v1/batch", {"batch": [TRACK], "writeKey": 17}, "missing_credentials"),
        ("/v1/batch", {"batch": [TRACK], "writeKey": "\ud800"}, "unknown_key"),
        ("/v1/batch", {"batch": [TRACK]}, "missing_credentials"),
        ("/v1/batch", {"batch": [{**TRACK, "writeKey": demo.GOOD_KEY}]}, "missing_credentials"),
        ("/v1/track", TRACK, "missing_credentials"),
        ("/segment", {**TRACK, "writeKey": demo.GOOD_KEY}, "missing_credentials"),
    ],
)
def test_nothing_is_stored_without_a_good_key(path, body, code, deploy):
    destination = deploy()
    answer = destination.post(body, key=None, path=path)
    assert (answer.status, answer.body["code"], destination.stored()) == (401, code, [])


def test_header_credentials_win_over_the_body(deploy):
    destination = deploy()
    answer = destination.post({"batch": [TRACK], "writeKey": demo.GOOD_KEY}, key="nobodys", path="/v1/batch")
    assert (answer.status, answer.body["code"]) == (401, "unknown_key")


# Messages that are refused

ODD = [
    (None, "not_an_object", False),
    ([TRACK], "not_an_object", False),
    ({}, "missing_type", True),
    ({**TRACK, "type": "jump"}, "unsupported_call_type", False),
    ({"type": "track", "userId": "keeper-17"}, "invalid_message", True),
    ({"type": "track", "event": "Lamp Lit"}, "invalid_message", True),
    ({**TRACK, "userId": ["keeper-17"]}, "invalid_message", True),
    ({**TRACK, "messageId": "m" * 101}, "invalid_message", True),
    ({**TRACK, "properties": {"x": float("nan")}}, "number_out_of_range", True),
    ({**TRACK, "properties": {"x": 10**400}}, "number_out_of_range", True),
    ({**TRACK, "properties": json.loads("[" * 150 + "]" * 150)}, "nested_too_deeply", False),
]


@SINKS
def test_odd_message_does_not_affect_others_in_its_batch(sink, deploy):
    destination = deploy(EventSink=sink)
    good = tracks(len(ODD))
    batch = [message for pair in zip(good, (odd for odd, _, _ in ODD), strict=True) for message in pair]
    answer = destination.post({"batch": batch, "writeKey": demo.GOOD_KEY}, path="/v1/batch")
    assert counts(answer) == (200, len(ODD), 0, len(ODD))
    told = [(rejected["index"], rejected["code"]) for rejected in answer.body["rejected"]]
    assert told == [(2 * number + 1, code) for number, (_, code, _) in enumerate(ODD)]
    kept = rejects(destination)
    assert sorted((int(item["batch_index"]["S"]), item["code"]["S"]) for item in kept) == [
        (index, code) for (index, code), (_, _, is_kept) in zip(told, ODD, strict=True) if is_kept
    ]
    assert demo.GOOD_KEY not in str(kept)
    stored = destination.stored() if sink == "dynamodb" else [*destination.queued(), *destination.queued()]
    assert len(stored) == len(ODD)


DEEP = '{"type": "track", "event": "x", "userId": "u", "n": NaN, "context": %s}' % ("[" * 3_000 + "]" * 3_000)


@SINKS
def test_unparsable_message_does_not_affect_others_in_its_batch(sink, deploy):
    destination = deploy(EventSink=sink)
    first, second, third = map(json.dumps, tracks(3))
    body = f'{{"batch": [{first}, {DEEP}, {second}, {{"userId": "u", "n": 1,}}, {third}], "sentAt": 1}}'
    answer = destination.post(body, path="/v1/batch")
    assert counts(answer) == (200, 3, 0, 2)
    told = [(rejected["index"], rejected["code"]) for rejected in answer.body["rejected"]]
    assert told == [(1, "nested_too_deeply"), (3, "invalid_json")]
    assert {record["message_id"] for record in destination.records()} == {"m-0", "m-1", "m-2"}


@pytest.mark.parametrize("path", ["/segment", "/v1/track", "/v1/batch"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_byte_order_mark_is_ignored_on_every_route(pack, path, deploy):
    destination = deploy()
    body = json.dumps({"batch": [TRACK]} if path == "/v1/batch" else TRACK)
    octets = pack(b"\xef\xbb\xbf" + body.encode())
    assert destination.post(base64.b64encode(octets).decode(), is_base64=True, path=path).status == 200
    assert [record["user_id"] for record in destination.stored()] == ["keeper-17"]


@pytest.mark.parametrize("odd", [[{}], [None, {"type": "track"}]])
def test_fully_refused_batch_is_400(odd, deploy):
    answer = deploy().post({"batch": odd}, path="/v1/batch")
    assert (*counts(answer), answer.body["code"]) == (400, 0, 0, len(odd), "nothing_accepted")
    assert answer.body["message"]


def test_batch_of_duplicates_and_rejects_is_200(deploy):
    destination = deploy()
    for new in (1, 0):
        assert counts(destination.post({"batch": [TRACK, {}]}, path="/v1/batch")) == (200, new, 1 - new, 1)


@SINKS
def test_empty_batch_is_200(sink, deploy):
    assert counts(deploy(EventSink=sink).post({"batch": []}, path="/v1/batch")) == (200, 0, 0, 0)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "invalid_json"),
        ('{"batch": [}', "invalid_json"),
        ("[]", "not_an_object"),
        ("{}", "missing_batch"),
        ('{"batch": {}}', "missing_batch"),
        (json.dumps({"batch": [{}] * 2501}), "batch_too_large"),
        (json.dumps({"batch": [], "x": "x" * 500 * 1024}), "batch_too_large"),
        ('{"batch": [{}], "context": {"x": NaN}}', "number_out_of_range"),
    ],
)
def test_body_that_is_not_a_batch_is_refused(body, code, deploy):
    answer = deploy().post(body, path="/v1/batch")
    assert (answer.status, answer.body["code"], "message" in answer.body) == (400, code, True)


def test_reject_includes_the_fields_inherited_from_its_batch(deploy):
    destination = deploy()
    bad = {"type": "track", "userId": "keeper-17", "messageId": "m-1", "writeKey": demo.GOOD_KEY}
    body = {"batch": [TRACK, bad], "sentAt": TIME, "context": {"ip": "192.0.2.1", "writeKey": demo.GOOD_KEY}}
    assert counts(destination.post(body, path="/v1/batch")) == (200, 1, 0, 1)
    [item] = rejects(destination)
    assert json.loads(item["body"]["S"]) == {
        "type": "track",
        "user_id": "keeper-17",
        "message_id": "m-1",
        "sent_at": TIME,
        "context": {"ip": "192.0.2.1"},
    }


def test_reject_of_a_single_route_has_its_type(deploy):
    destination = deploy()
    answer = destination.post({"userId": "keeper-17", "messageId": "m-1"}, path="/v1/track")
    assert (answer.status, answer.body["kept"]) == (400, True)
    [item] = rejects(destination)
    assert json.loads(item["body"]["S"])["type"] == "track"
    assert "batch_index" not in item


def test_scope_of_a_key_applies_in_batches_too(deploy):
    destination = deploy()
    destination.add_key("only-pages", scopes=frozenset({"page"}))
    answer = destination.post({"batch": [TRACK, {"type": "page", "userId": "u"}]}, key="only-pages", path="/v1/batch")
    assert counts(answer) == (200, 1, 0, 1)
    assert answer.body["rejected"] == [
        {"index": 0, "code": "call_type_not_allowed", "message": "This API key may not send track calls"}
    ]


# Our faults


@pytest.mark.parametrize("sink", [{"EVENT_TABLE": "nowhere"}, {"EVENT_SINK": "sqs", "EVENT_QUEUE_URL": "http://x/0/n"}])
@pytest.mark.parametrize(("path", "body"), [("/v1/track", TRACK), ("/v1/batch", {"batch": tracks(30)})])
def test_failing_store_is_503_for_the_whole_batch(path, body, sink, deploy):
    answer = deploy(environment=sink).post(body, path=path)
    assert (answer.status, answer.body["code"]) == (503, "event_store_unavailable")


def test_batch_is_503_if_rejects_cannot_be_kept(deploy):
    answer = deploy(environment={"REJECTS_TABLE": "nowhere"}).post({"batch": [TRACK, {}]}, path="/v1/batch")
    assert (answer.status, answer.body["code"]) == (503, "reject_store_unavailable")


def test_resent_batch_keeps_one_reject_per_message(deploy):
    destination = deploy()
    for sent_at in range(3):
        body = {"batch": [TRACK, {"type": "track", "userId": "u"}, {"userId": "u"}], "sentAt": sent_at}
        assert destination.post(body, path="/v1/batch").status == 200
    assert len(rejects(destination)) == 2


def test_no_reject_of_an_erased_user_is_kept(deploy):
    destination = deploy(AfterErasure="refuse")
    item = {**tombstone_key(demo.CUSTOMER, f"{demo.CUSTOMER}#user#gone"), "requested_at": {"S": "2026-01-02T"}}
    destination.account.dynamodb().put_item(TableName=destination.stack.stores.erasure_table, Item=item)
    gone = {"userId": "gone", "timestamp": "2026-01-01T00:00:00Z"}
    odd = [gone, {**gone, **TRACK, "userId": "gone", "x": float("nan")}, {**gone, "type": "track"}]
    answer = destination.post({"batch": [*odd, {"userId": "here"}, TRACK]}, path="/v1/batch")
    codes = [rejected["code"] for rejected in answer.body["rejected"]]
    assert codes == ["missing_type", "number_out_of_range", "user_erased", "missing_type"]
    assert [item["subject"]["S"] for item in rejects(destination)] == [f"{demo.CUSTOMER}#user#here"]


@pytest.mark.parametrize(("operation", "calls_without_faults"), [("PutItem", 5), ("BatchGetItem", 1)])
def test_intermittent_store_faults_do_not_fail_a_batch(operation, calls_without_faults, deploy):
    destination = deploy(AfterErasure="refuse")
    destination.post(TRACK)  # the key is cached from now on
    calls = []

    def fail_two_of_five(**_):
        calls.append(operation)
        if len(calls) % 5 in (1, 2):
            raise ReadTimeoutError(endpoint_url="http://nowhere")

    client = sys.modules["handler.app"].destination.rejects._client  # noqa: SLF001 -- which all of its stores share
    client.meta.events.register(f"before-send.dynamodb.{operation}", fail_two_of_five)
    users = [{"userId": f"u{number}"} for number in range(5)]
    batch = [*map(dict.__or__, tracks(5), users), *({"type": "track", **user} for user in users)]
    assert counts(destination.post({"batch": batch}, path="/v1/batch")) == (200, 5, 0, 5)
    assert len(calls) > calls_without_faults


def test_maintenance_is_for_libraries_too(deploy):
    answer = deploy(Maintenance="on").post({"batch": tracks(1)}, path="/v1/batch")
    assert (answer.status, answer.body["code"]) == (503, "maintenance")


# Log lines of batches


def test_batch_messages_are_counted_by_type_and_outcome(deploy, lines):
    destination = deploy()
    destination.post(tracks(1)[0])
    lines()
    batch = [*tracks(150), {"type": "page", "userId": "u", "messageId": "p"}, {"type": "jump"}, {"type": "track"}, None]
    assert destination.post({"batch": batch}, path="/v1/batch").status == 200
    written = lines()
    assert sum(line.get("Accepted", [0])[0] for line in written) == 150
    told = [(line["outcome"], line.get("call_type"), line["code"], line["messages"]) for line in written]
    assert sorted(told, key=str) == [
        ("accepted", "page", None, 1),
        ("accepted", "track", None, 100),
        ("accepted", "track", None, 49),
        ("duplicate", "track", None, 1),
        ("refused", "other", "unsupported_call_type", 1),
        ("refused", "track", "invalid_message", 1),
        ("refused", None, "not_an_object", 1),
    ]
    ids = [message_id for line in written if line["outcome"] == "accepted" for message_id in line["message_ids"]]
    assert sorted(ids) == sorted([*(f"m-{number}" for number in range(1, 150)), "p"])
    assert {(line["status"], line["customer_id"]) for line in written} == {(200, demo.CUSTOMER)}
    assert {dimension for line in written for dimension in line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]} <= {
        *("CallType", "Code", "service")
    }


def test_line_of_a_failed_batch_counts_its_messages(deploy, lines):
    destination = deploy(environment={"EVENT_TABLE": "nowhere"})
    destination.post({"batch": [*tracks(20), {"type": "page", "userId": "u", "messageId": "p"}]}, path="/v1/batch")
    tracked, page = lines()
    facts = {"outcome": "failed", "status": 503, "code": "event_store_unavailable", "Failed": [20.0]}
    assert tracked.items() >= {**facts, "message_ids": [f"m-{number}" for number in range(20)]}.items()
    assert (page["call_type"], page["Failed"], page["message_ids"]) == ("page", [1.0], ["p"])


def test_batch_refused_by_its_key_leaves_one_line(deploy, lines):
    deploy().post({"batch": tracks(20)}, path="/v1/batch", key="nobody's")
    [line] = lines()
    assert line.items() >= {"outcome": "refused", "status": 401, "Refused": [1.0]}.items()
    assert "message_ids" not in line


def test_empty_batch_leaves_a_line_that_counts_nothing(deploy, lines):
    deploy().post({"batch": []}, path="/v1/batch")
    [line] = lines()
    assert line.items() >= {"outcome": "accepted", "status": 200, "messages": 0, "Accepted": [0.0]}.items()
