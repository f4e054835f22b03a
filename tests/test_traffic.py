"""Test the messages that `destination simulate` sends: as odd as Segment's, and all acceptable."""

import base64
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from searches import examples
from simulated import record_of

from destination.paths import ROOT
from destination.segment.client import segment_headers
from destination.segment.due import UNDATED, sortable, stored_body
from destination.simulation.content import FIELDS_BY_CALL_TYPE
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.required import required_fields, without
from destination.simulation.routes import subject_by
from destination.simulation.stored import CHANGED_BY_RESENDS
from destination.simulation.traffic import (
    CALL_TYPE_WEIGHTS,
    DESTINATION,
    REORDER_WINDOW,
    Kind,
    Sending,
    Traffic,
    sendings,
    stages,
)
from handler.canonicalise import canonicalise, canonicalise_batch
from handler.decode import MAX_BODY_BYTES, decode_batch, decode_body, decode_settings
from handler.errors import Refusal
from handler.record import subject_of
from handler.spec import CALL_TYPES
from handler.validate import Schemas, check_call_type

MANY = 4000
TRAFFIC = Traffic(seed=1, customers=10, replays=0.1)
SCHEMAS = Schemas.load(ROOT / "schemas")


@pytest.fixture(scope="module")
def parcels():
    return [TRAFFIC.parcel(Sending(index=index)) for index in range(MANY)]


def judge(body):
    """Check a body as the function does. Raises `Refusal`."""
    [message] = canonicalise(decode_body(base64.b64encode(body).decode(), is_base64=True))
    SCHEMAS.check_message(check_call_type(message, CALL_TYPES), message.body)
    return message


def test_all_messages_are_acceptable(parcels):
    for parcel in parcels:
        judge(parcel.body)


@pytest.mark.many_examples
@pytest.mark.parametrize("in_batches", [False, True])
def test_expected_records_equal_the_handlers_records(in_batches):
    traffic = Traffic(seed=3, customers=10, replays=0.1, in_batches=in_batches)
    for index in range(examples(MANY)):
        parcel = traffic.parcel(Sending(index=index, copy=index % 2))
        due, record = traffic.due(parcel), record_of(traffic, parcel)
        facts = {name: text for name, text in record.facts.items() if name != "stored_at"}
        assert (due.subject, due.position, due.facts) == (record.subject, record.position, facts)
        assert json.dumps(due.body, sort_keys=True) == json.dumps(record.message.body, sort_keys=True)


def test_call_types_have_a_realistic_mix(parcels):
    counts = Counter(TRAFFIC.due(parcel).type for parcel in parcels)
    assert [call_type for call_type, _ in counts.most_common(3)] == ["track", "page", "identify"]
    assert set(CALL_TYPE_WEIGHTS) == set(CALL_TYPES), "CALL_TYPE_WEIGHTS must have each call type"
    assert set(FIELDS_BY_CALL_TYPE) == set(CALL_TYPES), "FIELDS_BY_CALL_TYPE must have each call type"
    assert set(counts) == set(CALL_TYPES)


CLOCKS = {
    "right": ("2026-03-01", "2026-03-01"),
    "offline": ("2026-02-26", "2026-03-01"),
    "ahead": ("2037-02-11", "2037-02-11"),
    "dead": ("1976-11-18", "1976-11-18"),
}
"""The days of `originalTimestamp` and `sentAt` by the clock of a source. Everything is received on the same day."""


def test_segments_clock_is_right_for_every_source_clock(parcels):
    times = [TRAFFIC.due(parcel).body for parcel in parcels if parcel.kind is Kind.LIVE]
    known = [body for body in times if {"received_at", "sent_at"} <= body.keys() and body["type"] != "delete"]
    assert {body["received_at"][:10] for body in known} == {"2026-03-01"}
    days = Counter((body["original_timestamp"][:10], body["sent_at"][:10]) for body in known)
    assert {clock: days[CLOCKS[clock]] > 5 for clock in CLOCKS} == dict.fromkeys(CLOCKS, True)
    happened = Counter((body["sent_at"][:10], body["timestamp"][:10]) for body in known)
    assert happened.keys() >= {("2037-02-11", "2026-03-01"), ("2026-03-01", "2026-02-26")}
    assert {day for _, day in happened} == {"2026-03-01", "2026-02-26"}


def test_some_messages_name_a_former_id_of_their_user(parcels):
    bodies = [TRAFFIC.due(parcel).body for parcel in parcels]
    assert any(str(body.get("user_id")).startswith("former-") for body in bodies)
    aliases = Counter(body["previous_id"].partition("-")[0] for body in bodies if body["type"] == "alias")
    assert aliases["507f191e"] > aliases["former"] > 0


def test_only_supported_call_types_are_sent():
    traffic = Traffic(seed=1, customers=2, call_types=("group", "delete"))
    records = [traffic.due(traffic.parcel(Sending(index=index))) for index in range(100)]
    assert {record.type for record in records} == {"group", "delete"}


ODD_SHAPES = {
    "snake_case": lambda message: "user_id" in message and "userId" not in message,
    "PascalCase": lambda message: "UserID" in message,
    "with spaces": lambda message: "User ID" in message,
    "kebab-case": lambda message: "user-id" in message,
    "SCREAMING": lambda message: "USER_ID" in message,
    "two spellings at once": lambda message: "user_id" in message and "userId" in message,
    "a context in another casing": lambda message: "user_agent" in (message.get("context") or {}),
    "alias of today": lambda message: {"userId", "previousId"} <= message.keys(),
    "alias of old": lambda message: {"from", "to"} <= message.keys(),
    "alias with spaces": lambda message: {"User ID", "Previous ID"} <= message.keys(),
    "delete of a regulation": lambda message: str(message.get("messageId")).startswith("delete-reg-"),
    "delete in three fields": lambda message: message.keys() == {"type", "userId", "timestamp"},
    "Go's time": lambda message: " UTC m=+" in message.get("originalTimestamp", ""),
    "a time that can't be read": lambda message: message.get("originalTimestamp") == "0000-00-00 00:00:00",
    "one time only": lambda message: "timestamp" in message and "originalTimestamp" not in message,
    "a time of years ago": lambda message: message.get("originalTimestamp", "9") < "1980",
    "a time to come": lambda message: "2036" < message.get("originalTimestamp", "") < "9",
    "no messageId": lambda message: "originalTimestamp" in message and "messageId" not in message,
    "an integer id": lambda message: isinstance(message.get("userId"), int),
    "a null id": lambda message: message.get("userId", "") is None,
    "an empty id": lambda message: message.get("userId") == "",
    "an id longer than a key": lambda message: len(str(message.get("userId"))) > 1000,
    "a null context": lambda message: message.get("context", "") is None,
    "an array for a context": lambda message: message.get("context") == [],
    "no integrations": lambda message: message.get("integrations") == {},
    "an array for integrations": lambda message: message.get("integrations") == [],
    "a boolean for integrations": lambda message: message.get("integrations") is True,
    "objects in integrations": lambda message: (
        isinstance((message.get("integrations") or 0), dict) and "a.b c" in message["integrations"]
    ),
    "keys with dots": lambda message: "a.b.c" in (message.get("properties") or {}),
    "an empty key": lambda message: "" in (message.get("properties") or {}),
    "a large body": lambda message: len(json.dumps(message)) > 40_000,
    "10,000 properties": lambda message: len(message.get("properties") or {}) > 9_000,
    "half of an emoji": lambda message: '\\ud83d"' in json.dumps(message),
    "an unknown field": lambda message: "a field of tomorrow" in message,
    "a writeKey": lambda message: "writeKey" in message,
}


@pytest.mark.parametrize("shape", ODD_SHAPES.values(), ids=ODD_SHAPES)
def test_messages_have_every_oddity_of_segment(shape, parcels):
    assert any(shape(parcel.message) for parcel in parcels)


def test_messages_are_distinct(parcels):
    records = [TRAFFIC.due(parcel) for parcel in parcels]
    assert len({(record.subject, record.position) for record in records}) == MANY
    assert len({Fingerprint.of_due(record).identity for record in records}) == MANY
    assert len({Fingerprint.of_due(record).content for record in records}) == MANY


def test_customers_share_users_and_message_ids(parcels):
    records = [TRAFFIC.due(parcel) for parcel in parcels]
    ids = Counter(record.body["message_id"] for record in records)
    assert max(ids.values()) > 1
    users = {(record.customer_id, record.body.get("user_id")) for record in records}
    assert Counter(user for _, user in users)["user-0"] == TRAFFIC.customers


def test_bodies_stay_below_the_limits(parcels):
    assert max(len(parcel.body) for parcel in parcels) < MAX_BODY_BYTES / 3


def test_a_third_of_the_customers_have_settings():
    settings = [TRAFFIC.settings(customer) for customer in range(6)]
    assert [customer for customer in range(6) if settings[customer]] == [1, 4]
    assert decode_settings(segment_headers("key", settings[4])["X-Segment-Settings"]) == settings[4]
    SCHEMAS.check_settings(settings[4])


def test_a_resend_is_the_same_message_with_new_times():
    changed = Counter()
    for index in range(1000):
        first, second = (TRAFFIC.parcel(Sending(index=index, copy=copy)) for copy in (0, 1))
        records = [TRAFFIC.due(parcel) for parcel in (first, second)]
        assert len({(record.subject, record.position) for record in records}) == 1
        bodies = [record.body for record in records]
        changed.update(name for name in bodies[0] | bodies[1] if bodies[0].get(name) != bodies[1].get(name))
        assert len({Fingerprint.of_due(record) for record in records}) == 1
    assert set(changed) == CHANGED_BY_RESENDS
    assert changed["sent_at"] > 900
    assert changed["timestamp"] > 900


def test_replay_is_old_and_only_for_this_destination(parcels):
    replays = [parcel for parcel in parcels if parcel.kind is Kind.REPLAY]
    assert 0.08 < len(replays) / MANY < 0.12
    for parcel in replays:
        message = TRAFFIC.due(parcel)
        assert message.body.get("integrations", {"All": False, DESTINATION: True}) == {"All": False, DESTINATION: True}
        assert message.position < datetime(2026, 1, 1, tzinfo=UTC).isoformat() or message.position.startswith(UNDATED)


def test_a_share_of_the_resends_are_replays():
    traffic = Traffic(seed=1, customers=10, replays=1.0)
    resend = traffic.parcel(Sending(index=3, copy=1)).message
    assert resend["integrations"] == {"All": False, DESTINATION: True}


def test_invalid_messages_are_refused_independently_of_the_schemas():
    traffic = Traffic(seed=1, customers=10, invalid=1.0)
    for index in range(500):
        parcel = traffic.parcel(Sending(index=index))
        assert parcel.kind is Kind.INVALID
        with pytest.raises(Refusal) as refused:
            judge(parcel.body)
        assert refused.value.code == parcel.refusal.alone


def test_refusal_code_in_a_batch_equals_the_handlers():
    traffic = Traffic(seed=1, customers=10, invalid=1.0)
    parcels = [traffic.parcel(Sending(index=index)) for index in range(500)]
    for parcel in (parcel for parcel in parcels if parcel.refusal.in_batch):
        batch = b'{"batch": [' + parcel.body + b"]}"
        [message] = canonicalise_batch(decode_batch(batch.decode()))
        with pytest.raises(Refusal) as refused:
            raise message.fault or check(message)
        assert refused.value.code == parcel.refusal.in_batch


def check(message):
    """Return why the schemas refuse a message."""
    try:
        SCHEMAS.check_message(check_call_type(message, CALL_TYPES), message.body)
    except Refusal as refusal:
        return refusal
    return AssertionError("it is accepted")


def test_many_invalid_messages_name_their_user():
    traffic = Traffic(seed=1, customers=10, invalid=1.0)
    kept = 0
    for index in range(200):
        parcel = traffic.parcel(Sending(index=index))
        if parcel.refusal.alone == "invalid_message":
            [message] = canonicalise(json.loads(parcel.body))
            subject = subject_by("acme", stored_body(parcel.plain))
            assert subject == subject_of("acme", message.body)
            kept += subject is not None
    assert kept > 40


def test_the_same_seed_sends_the_same_messages(parcels):
    again = Traffic(seed=1, customers=10, replays=0.1)
    assert [again.parcel(Sending(index=index)).body for index in range(200)] == [one.body for one in parcels[:200]]


def test_another_seed_sends_others(parcels):
    other = Traffic(seed=2, customers=10, replays=0.1)
    assert other.parcel(Sending(index=0)).body != parcels[0].body
    assert not set(other.customer_ids) & set(TRAFFIC.customer_ids)


# Users who are erased

TYPES = tuple(call_type for call_type in CALL_TYPES if call_type != "delete")
DOOMING = Traffic(seed=1, customers=10, call_types=TYPES, invalid=0.05, deletes=0.2)


def in_stages(**rates):
    before, after = stages(DOOMING, **{"messages": 2000, "duplicates": 0.0, "reorder": 0.0} | rates)
    return list(before), list(after)


def test_a_share_of_the_users_is_erased_each_by_one_message():
    assert 70 < len(DOOMING.doomed) < 130
    assert len(set(DOOMING.doomed_subjects)) == len(DOOMING.doomed)
    assert not Traffic(seed=1, customers=10).doomed
    for index, (customer, _) in enumerate(DOOMING.doomed):
        parcel = DOOMING.parcel(Sending(index=index, deletes=True))
        assert (parcel.kind, parcel.customer) == (Kind.DELETE, customer)
        assert judge(parcel.body).type == DOOMING.due(parcel).type == "delete"


def test_messages_of_doomed_users_are_identified():
    subjects = frozenset(DOOMING.doomed_subjects)
    for index in range(1000):
        parcel = DOOMING.parcel(Sending(index=index))
        if parcel.kind is not Kind.INVALID:
            record = DOOMING.due(parcel)
            by_user = "user_id" in record.body and not record.body["user_id"].startswith("former-")
            assert (record.subject in subjects) == (DOOMING.is_doomed(index) and by_user)


def test_some_deletes_happen_before_all_messages_have_happened():
    bodies = (DOOMING.parcel(Sending(index=index, deletes=True)) for index in range(len(DOOMING.doomed)))
    days = Counter(sortable(DOOMING.due(parcel).moments.original)[:10] for parcel in bodies)
    assert set(days) == {"2026-03-01", "2026-03-02"}
    assert min(days.values()) > 20


def test_a_resend_of_a_delete_is_the_same_message():
    for index in range(len(DOOMING.doomed)):
        parcels = [DOOMING.parcel(Sending(index=index, copy=copy, deletes=True)) for copy in (0, 1)]
        first, second = map(DOOMING.due, parcels)
        assert (first.subject, first.position) == (second.subject, second.position)


def test_messages_of_doomed_users_precede_the_deletes():
    before, after = in_stages(duplicates=0.1, reorder=0.1)
    late = {sending.index for sending in after if not sending.deletes}
    assert late == {index for index in range(1600, 2000) if not DOOMING.is_doomed(index)}
    assert {sending.index for sending in before} == set(range(2000)) - late
    places = [place for place, sending in enumerate(after) if sending.deletes]
    assert places[0] < 20
    assert 150 < sum(not sending.deletes for sending in after[: places[len(DOOMING.doomed) // 2]]) < 300


def test_share_of_the_deletes_is_resent():
    _, after = in_stages(duplicates=0.3)
    firsts, copies = ([one for one in after if one.deletes and one.copy == copy] for copy in (0, 1))
    assert sorted(one.index for one in firsts) == list(range(len(DOOMING.doomed)))
    assert 0.15 < len(copies) / len(firsts) < 0.45
    gaps = [after.index(copy) - after.index(Sending(index=copy.index, deletes=True)) for copy in copies]
    assert min(gaps) == 1
    assert max(gaps) > 100


def test_run_without_deletes_has_one_stage():
    before, after = stages(TRAFFIC, messages=100, duplicates=0.1, reorder=0.1)
    assert list(before) == order(messages=100, duplicates=0.1, reorder=0.1)
    assert list(after) == []


def order(**rates):
    return list(sendings(**{"messages": 2000, "seed": 1, "duplicates": 0.0, "reorder": 0.0} | rates))


def test_messages_without_rates_are_in_order():
    assert order() == [Sending(index=index) for index in range(2000)]


def test_share_of_the_messages_is_sent_twice_with_the_copy_later():
    sent = order(duplicates=0.1)
    copies = [sending for sending in sent if sending.copy]
    assert 0.08 < len(copies) / 2000 < 0.12
    gaps = {sent.index(copy) - sent.index(Sending(index=copy.index)) for copy in copies}
    assert min(gaps) == 1
    assert 100 < max(gaps) < 2 * REORDER_WINDOW


def test_share_of_the_messages_is_late_and_none_is_missing():
    sent = [sending.index for sending in order(reorder=0.1)]
    assert sorted(sent) == list(range(2000))
    late = sum(later < earlier for earlier, later in pairwise(sent))
    assert 0.07 < late / 2000 < 0.12


# Set pieces

REQUIRED = tuple(required_fields(ROOT / "schemas", CALL_TYPES))
STAGED = Traffic(seed=1, customers=3, call_types=TYPES, messages=1000, deletes=0.1, required=REQUIRED)
BATCHED = Traffic(seed=1, customers=3, call_types=TYPES, messages=1000, deletes=0.1, required=REQUIRED, in_batches=True)


def piece_sendings(traffic):
    """Return the deliveries of all set pieces, each with a copy."""
    played = [Sending(index=index) for index in traffic.pieces]
    later = [Sending(index=index, later=True) for index in range(len(traffic.later))]
    return [replace(sending, copy=copy) for sending in (*played, *later) for copy in (0, 1)]


@pytest.mark.parametrize("traffic", [STAGED, BATCHED], ids=["alone", "in batches"])
def test_handler_stores_the_expected_record_of_each_set_piece(traffic):
    for sending in piece_sendings(traffic):
        parcel = traffic.parcel(sending)
        if parcel.refusal is None:
            due, record = traffic.due(parcel), record_of(traffic, parcel)
            facts = {name: text for name, text in record.facts.items() if name != "stored_at"}
            assert (due.subject, due.position, due.facts) == (record.subject, record.position, facts), parcel.why
            assert json.dumps(due.body, sort_keys=True) == json.dumps(record.message.body, sort_keys=True), parcel.why


def test_handler_refuses_exactly_the_invalid_set_pieces():
    for sending in piece_sendings(STAGED):
        parcel = STAGED.parcel(sending)
        try:
            judge(parcel.body)
            code = None
        except Refusal as refusal:
            code = refusal.code
        assert code == (parcel.refusal and parcel.refusal.alone), parcel.why


def test_set_pieces_are_distinct():
    sendings = [sending for sending in piece_sendings(STAGED) if not sending.copy]
    dues = [STAGED.due(parcel) for sending in sendings if (parcel := STAGED.parcel(sending)).refusal is None]
    assert len({(due.subject, due.position) for due in dues}) == len(dues)


def test_a_user_with_many_messages_is_erased_and_a_namesake_stays():
    customer, user = STAGED.doomed[0]
    whys = Counter(piece.why for piece in STAGED.pieces.values())
    assert whys["one of many of an erased user"] == 250
    assert whys["a reject of an erased user"] == 3
    namesakes = [piece for piece in STAGED.pieces.values() if "another customer" in piece.why]
    assert len(namesakes) == 6
    assert customer not in {piece.customer for piece in namesakes}
    deletes = STAGED.parcel(Sending(index=0, deletes=True))
    assert {str(piece.plain["userId"]) for piece in namesakes} == {STAGED.due(deletes).body["user_id"]}
    assert user == next(piece.user for piece in STAGED.pieces.values() if piece.user is not None)


@pytest.mark.parametrize(("refuses", "codes"), [(False, [None, None]), (True, ["user_erased", None])])
def test_late_message_of_an_erased_user_is_refused_only_if_older(refuses, codes):
    traffic = replace(STAGED, refuses_erased=refuses)
    parcels = [traffic.parcel(Sending(index=index, later=True)) for index in range(len(traffic.later))]
    assert [parcel.refusal and parcel.refusal.alone for parcel in parcels] == codes * 3


def test_a_small_run_has_no_set_pieces():
    assert not Traffic(seed=1, customers=3, messages=99).pieces
    few = Traffic(seed=1, customers=3, messages=100, required=REQUIRED)
    assert 0 < len(few.pieces) <= 50


@pytest.mark.parametrize("messages", [100, 101, 150, 300, 1000])
def test_set_pieces_have_unique_numbers(messages):
    traffic = Traffic(seed=1, customers=3, call_types=TYPES, messages=messages, deletes=0.1, required=REQUIRED)
    whys = Counter(piece.why for piece in traffic.pieces.values())
    assert max(traffic.pieces) < messages
    assert whys["a reject of an erased user"] == 3
    assert whys["one of many of an erased user"] == min(
        250, int(messages * 0.7), messages - len(traffic.sent_again) - 3
    )


def test_every_set_piece_is_resent():
    before, _ = stages(STAGED, messages=1000, duplicates=0.0, reorder=0.0)
    copies = {sending.index for sending in before if sending.copy}
    assert {index for index, piece in STAGED.pieces.items() if piece.is_sent_again} >= copies > set()


def test_a_message_without_each_required_field_is_sent(tmp_path):
    for path in (ROOT / "schemas").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    schema = json.loads((tmp_path / "identify.json").read_text())
    schema["required"] = ["traits"]
    schema["properties"]["traits"]["required"] = ["email"]
    schema["properties"]["context"] = {"properties": {"user_agent_data": {"required": ["full_version_list"]}}}
    (tmp_path / "identify.json").write_text(json.dumps(schema))
    paths = [one.path for one in required_fields(tmp_path, ["identify"])]
    assert paths == [("context", "userAgentData", "fullVersionList"), ("traits",), ("traits", "email")]
    schemas = Schemas.load(tmp_path)
    for path in paths:
        message = without({"type": "identify", "userId": "u", "traits": {"email": "x"}}, path)
        with pytest.raises(Refusal):
            schemas.check_message("identify", canonicalise(message)[0].body)


def test_shipped_schemas_require_the_fields_of_the_spec():
    assert [(one.call_type, *one.path) for one in REQUIRED] == [
        ("alias", "previousId"),
        ("alias", "userId"),
        ("delete", "userId"),
        ("group", "groupId"),
        ("track", "event"),
    ]
