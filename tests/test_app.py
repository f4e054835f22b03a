"""Test the whole function, from API Gateway event to stored record, with both sinks.

The tests cover every row of the contract's answers and every oddity of its messages.
"""

import base64
import json
import time
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from destination.deployment import demo
from destination.deployment.key_table import KeyRecord
from handler.keys import KEY_PREFIX, Status, new_key

TRACK = {"type": "track", "userId": "user-1", "event": "Lamp Lit", "messageId": "message-1"}
TIMES = {"originalTimestamp": "2031-05-17T12:00:00.000Z", "timestamp": "2031-05-17T12:00:01.000Z"}


@pytest.fixture(params=["dynamodb", "sqs"])
def sink(request):
    return request.param


@pytest.fixture
def destination(sink, deploy):
    return deploy(EventSink=sink)


@pytest.fixture
def accepted(sink):
    """The status of an accepted message that is not a `delete`."""
    return 202 if sink == "sqs" else 200


# The answers (contract §4)


def test_accepted_message_is_stored_under_its_customer(destination, accepted):
    answer = destination.post({**TRACK, **TIMES, "properties": {"room": "attic"}})
    assert answer.status == accepted
    [record] = destination.records()
    assert (record["customer_id"], record["subject"]) == ("demo", "demo#user#user-1")
    assert record["position"] == "2031-05-17T12:00:00.000000Z#message-1"
    assert record["message"]["properties"] == {"room": "attic"}


def test_duplicate_is_reported_and_not_stored_again(deploy):
    destination = deploy()
    answers = [destination.post(TRACK) for _ in range(3)]
    assert [(answer.status, answer.body["status"]) for answer in answers] == [
        (200, "stored"),
        (200, "duplicate"),
        (200, "duplicate"),
    ]
    assert len(destination.stored()) == 1


def test_resend_with_new_sent_times_is_a_duplicate(deploy):
    destination = deploy()
    sent = {**TRACK, **TIMES, "sentAt": "2031-05-17T12:00:02Z", "receivedAt": "2031-05-17T12:00:03Z"}
    resent = {**sent, "timestamp": "2031-05-17T12:09:01Z", "sentAt": "2031-05-17T12:09:02Z", "receivedAt": "2031-05-17"}
    assert [destination.post(message).body["status"] for message in (sent, resent)] == ["stored", "duplicate"]


def test_fifo_queue_deduplicates_a_resend(deploy):
    destination = deploy(EventSink="sqs", EventQueueType="fifo")
    resent = {**TRACK, **TIMES, "timestamp": "2031-05-17T12:09:01Z"}
    assert [destination.post(message).status for message in ({**TRACK, **TIMES}, resent)] == [202, 202]
    assert len(destination.queued()) == 1


def test_delete_is_stored_and_answered_202(destination):
    answer = destination.post({"type": "delete", "userId": "user-1", "timestamp": "2031-05-17T12:00:00Z"})
    assert answer.status == 202
    assert [record["type"] for record in destination.records()] == ["delete"]


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("", "invalid_json", "Request body is empty"),
        ('{"type": track}', "invalid_json", "Request body is not valid JSON (line 1, column 10)"),
        ('{"type": NaN}', "invalid_json", "Request body is not valid JSON (NaN is not a JSON value)"),
        ("[]", "not_an_object", "Request body must be one JSON object, not an array"),
        ('"track"', "not_an_object", "Request body must be one JSON object, not a string"),
        ('{"a":' * 200 + "1" + "}" * 200, "nested_too_deeply", "Request body is nested too deeply"),
        ('{"a": 1e999}', "number_out_of_range", "Request body holds a number that is out of range"),
        (" " * (1024 * 1024 + 1), "message_too_large", "Request body is larger than 1,048,576 bytes"),
        ('{"userId": "u"}', "missing_type", "type is required and must be a string, such as track"),
        ('{"type": "track", "userId": "u"}', "invalid_message", "event is required for track calls"),
        ('{"type": "page"}', "invalid_message", "userId or anonymousId is required"),
        ('{"type":"identify","userId":"u","traits":"x"}', "invalid_message", "traits must be an object, not a string"),
    ],
)
def test_bad_request_gets_a_fix_and_stores_nothing(body, code, message, destination):
    answer = destination.post(body)
    assert (answer.status, answer.body["code"], answer.body["message"]) == (400, code, message)
    assert answer.headers["Content-Type"] == "application/json"
    assert destination.records() == []


def test_bad_settings_are_refused_by_the_settings_schema(destination):
    header = base64.b64encode(b"[]").decode()
    answer = destination.post(TRACK, headers={"x-segment-settings": header})
    assert (answer.status, answer.body["message"]) == (400, "X-Segment-Settings must be a JSON object, not an array")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_credentials"),
        ("Bearer abc", "not_basic"),
        ("Basic ***", "not_base64"),
        ("Basic " + base64.b64encode(b"demo-key-good").decode(), "no_colon"),
        ("Basic " + base64.b64encode(b"nobody:").decode(), "unknown_key"),
        ("Basic " + base64.b64encode(b"demo-key-expired:").decode(), "expired_key"),
        ("Basic " + base64.b64encode(b"demo-key-revoked:").decode(), "revoked_key"),
    ],
)
def test_request_without_a_live_key_is_401_with_a_challenge(authorization, code, destination):
    headers = {} if authorization is None else {"authorization": authorization}
    event = {"headers": headers, "requestContext": {"requestId": "test"}, "body": json.dumps(TRACK)}
    answer = destination.send(event)
    assert (answer.status, answer.body["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith('Basic realm="')
    assert destination.records() == []


def test_a_suspended_key_is_403(destination):
    answer = destination.post(TRACK, key="demo-key-suspended")
    assert (answer.status, answer.body["message"]) == (403, "This API key is suspended")


def test_a_call_type_outside_the_scope_is_403(destination, accepted):
    assert destination.post(TRACK, key="demo-key-scoped").body["message"] == "This API key may not send track calls"
    identify = {"type": "identify", "userId": "user-1"}
    assert destination.post(identify, key="demo-key-scoped").status == accepted


@pytest.mark.parametrize(
    ("call_type", "message"),
    [("alias", "alias calls are not supported"), ("<script>", "Calls of this type are not supported")],
)
def test_unsupported_call_type_is_501(call_type, message, sink, deploy):
    destination = deploy(EventSink=sink, SupportedCallTypes="identify,track")
    answer = destination.post({"type": call_type, "userId": "u", "previousId": "p"})
    assert (answer.status, answer.body["message"]) == (501, message)


def test_unreachable_key_store_is_503(deploy):
    destination = deploy(environment={"KEY_TABLE": "nowhere"})
    answer = destination.post(TRACK)
    assert (answer.status, answer.body["code"]) == (503, "key_store_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("sink", "nowhere"),
    [
        ("dynamodb", {"EVENT_TABLE": "nowhere"}),
        ("sqs", {"EVENT_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/nowhere"}),
    ],
)
def test_unreachable_event_store_is_503(sink, nowhere, deploy):
    answer = deploy(EventSink=sink, environment=nowhere).post(TRACK)
    assert (answer.status, answer.body["code"]) == (503, "event_store_unavailable")


def test_maintenance_is_503_before_anything_is_read(sink, deploy):
    destination = deploy(EventSink=sink, Maintenance="on", environment={"KEY_TABLE": "nowhere"})
    answer = destination.post("not even JSON", key="nobody")
    assert (answer.status, answer.body["code"]) == (503, "maintenance")


def test_bug_is_raised_to_lambda(destination):
    item = {**KeyRecord.of("broken", customer_id="demo").to_item(), "status": {"S": "no such status"}}
    destination.account.dynamodb().put_item(TableName=destination.stack.stores.key_table, Item=item)
    with pytest.raises(ValueError, match="no such status"):
        destination.post(TRACK, key="broken")


def test_checks_have_the_order_of_the_contract(deploy):
    destination = deploy(SupportedCallTypes="identify,track")
    bad_settings = {"x-segment-settings": "***"}
    answers = [
        destination.post("[", key="nobody", headers=bad_settings),
        destination.post("[", key="demo-key-scoped", headers=bad_settings),
        destination.post({"type": "page"}, key="demo-key-scoped", headers=bad_settings),
        destination.post({"type": "track"}, key="demo-key-scoped", headers=bad_settings),
        destination.post({"type": "identify"}, key="demo-key-scoped", headers=bad_settings),
        destination.post({"type": "identify"}, key="demo-key-scoped"),
    ]
    assert [answer.body["code"] for answer in answers] == [
        "unknown_key",
        "invalid_json",
        "unsupported_call_type",
        "call_type_not_allowed",
        "invalid_settings",
        "invalid_message",
    ]


# The messages (contract §2)


@pytest.mark.parametrize(
    "spelled",
    [
        {"userId": "u", "anonymousId": "a", "messageId": "m"},
        {"user_id": "u", "anonymous_id": "a", "message_id": "m"},
        {"UserID": "u", "AnonymousID": "a", "MessageID": "m"},
        {"User ID": "u", "Anonymous ID": "a", "Message ID": "m"},
        {"user-id": "u", "anonymous-id": "a", "message-id": "m"},
    ],
)
def test_message_in_any_casing_is_the_same_message(spelled, destination, accepted):
    assert destination.post({"Type": "track", "EVENT": "Lamp Lit", **spelled}).status == accepted
    [record] = destination.records()
    assert record["message"] == {
        "type": "track",
        "event": "Lamp Lit",
        "user_id": "u",
        "anonymous_id": "a",
        "message_id": "m",
    }


def test_customers_own_names_stay_unchanged(destination):
    own = {"First Name": 1, "userId": 2, "user_id": 3, "": 4, "a.b": 5, "ключ": 6, "__proto__": 7}
    destination.post(
        {"type": "identify", "userId": "u", "traits": own, "integrations": {"Google Analytics": True, **own}}
    )
    [record] = destination.records()
    assert record["message"]["traits"] == own
    assert record["message"]["integrations"] == {"Google Analytics": True, **own}


@pytest.mark.parametrize(
    "delete",
    [
        {
            "type": "delete",
            "userId": "user-1",
            "context": None,
            "integrations": None,
            "originalTimestamp": "2031-05-17 12:00:00.2 +0000 UTC m=+70366.29",
            "messageId": "delete-reg-7::job-2-project",
        },
        {"type": "delete", "userId": "user-1", "timestamp": "2031-05-17T12:00:00.200Z"},
    ],
)
def test_both_forms_of_a_delete_are_accepted(delete, destination):
    assert destination.post(delete).status == 202
    [record] = destination.records()
    assert record["position"].startswith("2031-05-17T12:00:00.200000Z#")


@pytest.mark.parametrize("integrations", [{}, None, {"All": False, "us": True}, {"us": {"list": 1}}, True, []])
def test_integrations_may_be_anything_that_segment_sends(integrations, destination, accepted):
    assert destination.post({**TRACK, "integrations": integrations}).status == accepted


@pytest.mark.parametrize("time", ["1970-01-01T00:00:00Z", "2999-12-31T23:59:59+14:00", "0001-01-01", "not a time", 7])
def test_messages_of_any_age_are_accepted(time, destination, accepted):
    assert destination.post({**TRACK, "originalTimestamp": time, "timestamp": time}).status == accepted


def test_message_id_is_unique_per_customer_and_user(deploy):
    destination = deploy()
    destination.add_key("other", customer_id="other")
    answers = [
        destination.post(TRACK),
        destination.post({**TRACK, "userId": "user-2"}),
        destination.post(TRACK, key="other"),
    ]
    assert [answer.body["status"] for answer in answers] == ["stored"] * 3


def test_a_message_without_an_id_gets_the_same_one_each_time(destination):
    message = {"type": "track", "userId": "u", "event": "e", **TIMES, "_metadata": {"bundled": []}}
    resent = {**message, "_metadata": {}, "sentAt": "2031-05-17T12:09:02Z", "receivedAt": "2031-05-17T12:09:03Z"}
    first, second = destination.post(message), destination.post(resent)
    assert first.body["message_id"] == second.body["message_id"]
    assert first.body["message_id"].startswith("derived-")


@pytest.mark.parametrize("user_id", [4711, 12345678901234567890123])
def test_integer_id_becomes_a_decimal_string(user_id, destination):
    destination.post({**TRACK, "userId": user_id})
    assert [record["user_id"] for record in destination.records()] == [str(user_id)]


def test_a_message_above_32_kb_is_accepted(destination, accepted):
    properties = {f"property {number}": "äöü" for number in range(10_000)}
    assert destination.post({**TRACK, "properties": properties}).status == accepted
    [record] = destination.records()
    assert record["message"]["properties"] == properties


def test_a_long_text_is_stored_compressed(deploy):
    destination = deploy()
    destination.post({**TRACK, "properties": {"text": "long " * 20_000}})
    [item] = destination.account.dynamodb().scan(TableName=destination.stack.stores.event_table)["Items"]
    assert json.loads(zlib.decompress(item["message"]["B"]))["properties"] == {"text": "long " * 20_000}


def test_message_too_large_for_the_store_is_400_and_not_written(deploy):
    destination = deploy()
    noise = base64.b64encode(zlib.compress(json.dumps([hash(str(n)) for n in range(40_000)]).encode(), 9)).decode()
    answer = destination.post({**TRACK, "properties": {"noise": noise}})
    assert (answer.status, answer.body["code"]) == (400, "message_too_large")
    assert destination.stored() == []


def test_line_names_the_customer_of_an_expired_or_revoked_key(deploy, lines):
    destination = deploy()
    lines()
    for key in ("demo-key-expired", "demo-key-revoked", "demo-key-unknown"):
        assert destination.post({"type": "page", "userId": "u"}, key=key).status == 401
    assert [line.get("customer_id") for line in lines()] == ["demo", "demo", None]


def test_unknown_fields_are_kept_and_write_keys_are_not(destination):
    hidden = {"writeKey": "secret", "write_key": "secret too"}
    destination.post({**TRACK, **hidden, "extra": {"a": [1]}, "context": {**hidden, "ip": "::1"}, "_metadata": hidden})
    [record] = destination.records()
    assert record["message"]["extra"] == {"a": [1]}
    assert "secret" not in json.dumps(record)


@pytest.mark.parametrize(
    "text", ["null", "NaN", "'; DROP TABLE users", "<b>", "💡", "\x00", "\ud800", "#", "%", "a\nb"]
)
def test_any_text_may_be_an_id_or_a_name(text, destination, accepted):
    assert destination.post({**TRACK, "userId": text, "event": text, "messageId": text}).status == accepted
    [record] = destination.records()
    assert [record["message"][name] for name in ("user_id", "event", "message_id")] == [text] * 3


@pytest.mark.parametrize(
    "alias",
    [{"userId": "new", "previousId": "old"}, {"to": "new", "from": "old"}, {"User ID": "new", "Previous ID": "old"}],
)
def test_three_shapes_of_an_alias_are_stored_alike(alias, destination):
    destination.post({"type": "alias", "messageId": "m", **alias})
    [record] = destination.records()
    assert record["message"] == {"type": "alias", "message_id": "m", "user_id": "new", "previous_id": "old"}


def test_settings_are_stored_with_the_message(destination):
    settings = {"customSettingOne": "ein Wert", "list": 7}
    destination.post(TRACK, headers={"x-segment-settings": base64.b64encode(json.dumps(settings).encode()).decode()})
    assert [record["settings"] for record in destination.records()] == [settings]


# The keys


def test_generated_key_works_until_it_expires(destination, accepted):
    key = new_key()
    destination.add_key(key, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert key.startswith(KEY_PREFIX)
    assert destination.post(TRACK, key=key).status == accepted


def test_white_space_around_a_key_is_ignored(destination, accepted):
    assert destination.post(TRACK, key=f"  {demo.GOOD_KEY}\n").status == accepted


def test_revoked_key_is_refused_after_the_cache_time(deploy):
    destination = deploy(KeyCacheSeconds="0")
    assert destination.post(TRACK).status == 200
    destination.add_key(demo.GOOD_KEY, status=Status.REVOKED)
    assert destination.post(TRACK).body["code"] == "revoked_key"


def test_published_demo_keys_are_refused_on_a_real_stack(deploy):
    assert deploy(environment={"AWS_ENDPOINT_URL": ""}).post(TRACK).body["code"] == "unknown_key"


def test_expiry_without_a_time_zone_is_utc(deploy):
    destination = deploy()
    item = {**KeyRecord.of("by hand", customer_id="demo").to_item(), "expires_at": {"S": "2020-01-01"}}
    destination.account.dynamodb().put_item(TableName=destination.stack.stores.key_table, Item=item)
    assert destination.post(TRACK, key="by hand").body["code"] == "expired_key"


# Retention


def test_stored_items_have_the_retention(deploy):
    destination = deploy(EventRetentionDays="30")
    destination.post(TRACK)
    [item] = destination.account.dynamodb().scan(TableName=destination.stack.stores.event_table)["Items"]
    expected = datetime.now(UTC) + timedelta(days=30)
    assert abs(int(item["expires_at"]["N"]) - expected.timestamp()) < 3600


def test_message_resent_after_its_retention_is_stored_again(deploy):
    destination = deploy(EventRetentionDays="30")
    client, table = destination.account.dynamodb(), destination.stack.stores.event_table
    destination.post(TRACK)
    [item] = client.scan(TableName=table)["Items"]
    client.put_item(TableName=table, Item={**item, "expires_at": {"N": str(int(time.time()) - 1)}})
    assert destination.post(TRACK).body["status"] == "stored"
    assert destination.post(TRACK).body["status"] == "duplicate"
    [item] = client.scan(TableName=table)["Items"]
    assert int(item["expires_at"]["N"]) > time.time()
