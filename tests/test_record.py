import hashlib
import re

import pytest

from handler.canonicalise import canonicalise
from handler.record import MAX_POSITION_BYTES, MAX_SUBJECT_BYTES, Record, escape

LATE = "2031-05-17T12:00:00.000Z"


def record_of(payload, *, customer_id="acme"):
    [message] = canonicalise({"type": "track", "event": "Lamp Lit", **payload})
    return Record(customer_id=customer_id, message=message, settings={}, stored_at=1_936_785_600.25)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("payload", "subject"),
    [
        ({"userId": "keeper-17"}, "acme#user#keeper-17"),
        ({"anonymousId": "5f0c"}, "acme#anonymous#5f0c"),
        ({"userId": "keeper-17", "anonymousId": "5f0c"}, "acme#user#keeper-17"),
        ({"userId": "", "anonymousId": "5f0c"}, "acme#anonymous#5f0c"),
        ({"userId": 17}, "acme#user#17"),
        ({"userId": "a#b%c"}, "acme#user#a%23b%25c"),
        ({"userId": "маяк 🗼"}, "acme#user#маяк 🗼"),
        ({"userId": "x" * 2038}, "acme#user#" + "x" * 2038),
        ({"userId": "x" * 2039}, "acme#user#sha256#" + sha256("x" * 2039)),
        ({"userId": "🗼" * 510}, "acme#user#sha256#" + sha256("🗼" * 510)),
    ],
)
def test_subject_is_the_user_of_the_message(payload, subject):
    assert record_of(payload).subject == subject


def test_message_without_an_id_has_no_record():
    with pytest.raises(ValueError, match="without user_id and anonymous_id"):
        _ = record_of({"userId": {"id": 17}}).subject


def test_delete_call_has_the_subject_of_the_erased_user():
    assert record_of({"type": "delete", "userId": "keeper-17"}).subject == record_of({"userId": "keeper-17"}).subject


@pytest.mark.parametrize(
    ("payload", "position"),
    [
        ({"messageId": "m-1", "originalTimestamp": LATE}, "2031-05-17T12:00:00.000000Z#m-1"),
        ({"messageId": "m-1"}, "undated#m-1"),
        ({"messageId": "m#1%"}, "undated#m%231%25"),
        ({"messageId": "\ud800" * 100}, "undated#" + "%ED%A0%80" * 100),
        ({"messageId": "m" * 1017}, "undated#sha256#" + sha256("m" * 1017)),
    ],
)
def test_the_position_is_the_time_and_the_id_of_the_message(payload, position):
    assert record_of({"userId": "keeper-17", **payload}).position == position


def test_message_without_a_time_gets_its_arrival_time():
    [message] = canonicalise({"type": "page", "userId": "u"})
    now = Record(customer_id="acme", message=message, settings={}, stored_at=86400.0)
    late = Record(
        customer_id="acme", message=message, settings={}, stored_at=86400.0, received_at="1970-01-01T00:00:00.000000Z"
    )
    assert now.facts["timestamp"] == now.facts["stored_at"] == late.facts["stored_at"] == "1970-01-02T00:00:00.000000Z"
    assert late.facts["timestamp"] == "1970-01-01T00:00:00.000000Z"


LONG = "x" * 3000
PEOPLE = [
    *((customer, {"userId": "u"}) for customer in ("acme", "Acme", "acme#user", "acme%23user", "acme#", " acme")),
    ("acme", {"anonymousId": "u"}),
    *(
        ("acme", {"userId": user_id})
        for user_id in [
            *("user#u", "user%23u", "#u", "u#", "u%", "u%25", "%23", "#", "%", "%25", "%2523", " u", "U"),
            *("\x00", "%00", "\n", "%0A", "\ud800", "\udfff", "%ED%A0%80", "?", "\ufffd", "\ufffe", "\uffff"),
            *("null", "true", "0", "é", "e\u0301", "😀"),
            *(LONG, LONG + "x", LONG + "#", LONG + "%23", "x" * 2038, "x" * 2039, "😀" * 1000, "\ud800" * 1000),
            *("sha256", sha256(LONG), f"sha256#{sha256(LONG)}", f"sha256%23{sha256(LONG)}"),
        ]
    ),
    ("acme", {"anonymousId": LONG}),
    ("acme#user#sha256", {"userId": sha256(LONG)}),
    ("acme#user", {"userId": f"user#{LONG}"}),
]


def test_subjects_are_distinct():
    subjects = [record_of(ids, customer_id=customer_id).subject for customer_id, ids in PEOPLE]
    assert len(set(subjects)) == len(PEOPLE)
    assert max(len(subject.encode()) for subject in subjects) <= MAX_SUBJECT_BYTES


def test_keys_of_stored_items_have_a_fixed_form():
    long = record_of({"userId": "x" * 3000, "messageId": "m" * 3000})
    assert long.subject == f"acme#user#sha256#{sha256('x' * 3000)}"
    assert long.position == f"undated#sha256#{sha256('m' * 3000)}"
    odd = record_of({"userId": "a#b%c\x00\ud800", "messageId": "m#1"}, customer_id="a#b")
    assert (odd.subject, odd.position) == ("a%23b#user#a%23b%25c%00%ED%A0%80", "undated#m%231")
    assert (MAX_SUBJECT_BYTES, MAX_POSITION_BYTES) == (2048, 1024)


def test_positions_are_distinct():
    ids = ["m", "M", "#", "%", "%23", "\x00", "%00", "\ud800", "%ED%A0%80", "?", "m#m", "m" * 1017, "m" * 1018]
    positions = [record_of({"userId": "u", "messageId": message_id}).position for message_id in ids]
    assert len(set(positions)) == len(ids)
    assert max(len(position.encode()) for position in positions) <= MAX_POSITION_BYTES


SQS_TEXT = re.compile("[\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
ESCAPED = [*map(chr, range(0x80)), *map(chr, (0xD800, 0xDFFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x1F5FC))]


@pytest.mark.parametrize("character", ESCAPED, ids=ascii)
def test_escaped_text_has_only_safe_characters(character):
    escaped = escape(character)
    assert "#" not in escaped
    assert SQS_TEXT.fullmatch(escaped)
    assert escape(escaped) == escaped.replace("%", "%25")
