"""Test that a message with a very long check is refused alone. If the limit fails, a test of this module never ends."""

import json
import re
import shutil
import signal
import time
from contextlib import suppress
from threading import Thread

import pytest
from searches import some
from test_destination import Rejects, Sink, answer, encode, request

from destination.paths import ROOT
from handler.time_limit import CheckTime, TooSlowError
from handler.validate import Schemas

WORDS = "^(?:[A-Za-z]{1,10}\\s?){1,10}$"
SLOW = [
    WORDS,
    "^(a{1,10}){1,10}$",
    "^([a-z]{2,9}){2,9}$",
    "^(a?){10}(a?){10}(a?){10}b$",
    "^(a|a){20}(a|aa){20}b$",
    "^(a{0,9}){9}b$",
    "^(a+)?(a+)?(a+)?(a+)?(a+)?(a+)?(a+)?(a+)?b$",
    "^a*a*a*a*a*a*a*a*b$",
    "^.*.*.*.*.*.*.*.*=$",
    "^(a+)+$",
    "(?=(a+)+$)b",
]
ATTACK = "a" * 200 + "!"
TEXT = "This takes too long to check: a rule of our schema {}.json needs too many steps for it"
FAST, SLOW_MESSAGE = (
    {"type": "track", "userId": "u-1", "event": "E", "properties": {"label": text}} for text in ("a", ATTACK)
)


def schemas(tmp_path, rule, *, name="track", is_compiled=True):
    """Return the shipped schemas with a rule for the label of tracked properties, or of settings."""
    folder = shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    path = folder / f"{name}.json"
    document = json.loads(path.read_text())
    labelled = {"properties": {"label": rule}}
    document.setdefault("properties", {}).update(
        labelled["properties"] if name == "settings" else {"properties": labelled}
    )
    if not is_compiled:  # a keyword that only jsonschema checks
        document["not"] = {"required": ["impossible"]}
    path.write_text(json.dumps(document))
    return Schemas.load(folder)


def numbered(*messages):
    return {"batch": [{**message, "messageId": f"m-{number}"} for number, message in enumerate(messages)]}


@pytest.mark.many_examples
@pytest.mark.parametrize("pattern", some(SLOW))
def test_slow_pattern_refuses_the_message(tmp_path, pattern):
    rejects = Rejects()
    status, content = answer(request(SLOW_MESSAGE), schemas=schemas(tmp_path, {"pattern": pattern}), rejects=rejects)
    assert (status, content["code"], content["message"]) == (400, "invalid_message", TEXT.format("track"))
    assert len(rejects.kept) == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"uniqueItems": True, "items": {"pattern": WORDS}},
        {"patternProperties": {WORDS: False}},
        {"propertyNames": {"pattern": WORDS}},
        {"not": {"items": {"pattern": WORDS}}},
        {"anyOf": [{"items": {"pattern": WORDS}}, {"type": "string"}]},
    ],
)
def test_all_keywords_have_the_limit(tmp_path, rule):
    message = {**FAST, "properties": {"label": {ATTACK: 1} if "items" not in json.dumps(rule) else [ATTACK]}}
    status, content = answer(request(message), schemas=schemas(tmp_path, rule))
    assert (status, content["message"]) == (400, TEXT.format("track"))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_the_other_messages_of_a_batch_are_stored(tmp_path, at, compiled):
    judge = schemas(tmp_path, {"pattern": WORDS}, is_compiled=compiled)
    sink, rejects = Sink(), Rejects()
    messages = [SLOW_MESSAGE if index == at else FAST for index in range(3)]
    status, content = answer(request(numbered(*messages), path="/v1/batch"), schemas=judge, sink=sink, rejects=rejects)
    assert (status, content["accepted"], [each["index"] for each in content["rejected"]]) == (200, 2, [at])
    assert (len(sink.records), [reject.index for reject in rejects.kept]) == (2, [at])


def test_many_slow_messages_of_a_batch_leave_time_for_the_others(tmp_path):
    judge = schemas(tmp_path, {"pattern": WORDS})
    sink, rejects = Sink(), Rejects()
    batch = numbered(*[FAST, SLOW_MESSAGE] * 30)
    status, content = answer(request(batch, path="/v1/batch"), schemas=judge, sink=sink, rejects=rejects)
    assert (status, content["accepted"], len(sink.records), len(rejects.kept)) == (200, 30, 30, 30)


def test_slow_checks_share_a_total_limit():
    begun = []

    def check():
        begun.append(len(begun))
        while True:
            pass

    time_for_checks = CheckTime()
    for _ in range(1000):
        with pytest.raises(TooSlowError):
            time_for_checks.run(check)
    assert 30 < len(begun) < 150


def test_total_limit_is_per_request(tmp_path):
    judge = schemas(tmp_path, {"pattern": WORDS})
    for _ in range(5):
        assert answer(request(SLOW_MESSAGE), schemas=judge)[0] == 400
    assert answer(request(FAST), schemas=judge)[0] == 200


@pytest.mark.parametrize("compiled", [True, False])
def test_a_pattern_is_not_tried_on_a_very_long_text(tmp_path, compiled):
    judge = schemas(tmp_path, {"pattern": "^a+$"}, is_compiled=compiled)
    for length, status in ((32 * 1024, 200), (32 * 1024 + 1, 400)):
        message = {**FAST, "properties": {"label": "a" * length}}
        assert answer(request(message), schemas=judge)[0] == status


def test_pattern_is_not_tried_above_the_maximum_length(tmp_path):
    judge = schemas(tmp_path, {"pattern": WORDS, "maxLength": 100}, is_compiled=False)
    status, content = answer(request(SLOW_MESSAGE), schemas=judge)
    assert (status, content["message"]) == (400, "properties.label must have at most 100 characters")


def test_slow_settings_are_refused(tmp_path):
    settings = encode(json.dumps({"label": ATTACK}))
    judge = schemas(tmp_path, {"pattern": WORDS}, name="settings")
    status, content = answer(request(FAST, headers={"x-segment-settings": settings}), schemas=judge)
    assert (status, content["code"], content["message"]) == (400, "invalid_settings", TEXT.format("settings"))


def test_a_check_is_interrupted_although_it_handles_every_exception():
    def stubborn():
        while True:
            with suppress(Exception):
                re.search(WORDS, ATTACK)

    with pytest.raises(TooSlowError):
        CheckTime().run(stubborn)


def test_results_and_exceptions_of_a_check_pass_through():
    time_for_checks = CheckTime()
    assert time_for_checks.run(max, 1, 2) == 2
    with pytest.raises(ZeroDivisionError):
        time_for_checks.run(divmod, 1, 0)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_signal_after_a_check_is_ignored():
    CheckTime().run(max, 1, 2)
    signal.raise_signal(signal.SIGVTALRM)


def test_other_threads_have_no_limit():
    results = []
    thread = Thread(target=lambda: results.append(CheckTime().run(max, 1, 2)))
    thread.start()
    thread.join()
    assert results == [2]


def test_waiting_does_not_count_as_time():
    assert CheckTime().run(lambda: time.sleep(0.5) or "done") == "done"


@pytest.mark.parametrize(
    "rule",
    [
        {"enum": [f"sku-{number:05}" for number in range(5000)]},
        {"anyOf": [{"enum": [f"sku-{number:05}"]} for number in range(4900, 5000)]},
    ],
    ids=["enum", "anyOf"],
)
def test_a_rule_with_a_long_list_has_the_limit(tmp_path, rule):
    judge = schemas(tmp_path, {"items": rule})
    status, content = answer(request({**FAST, "properties": {"label": ["sku-04999"] * 40_000}}), schemas=judge)
    assert (status, content["message"]) == (400, TEXT.format("track"))


@pytest.mark.parametrize("closed", [{}, {"additionalProperties": False}])
def test_a_pattern_is_not_tried_on_a_very_long_name(tmp_path, closed):
    judge = schemas(tmp_path, {**closed, "patternProperties": {"^a+$": True}})
    for length, status in ((32 * 1024, 200), (32 * 1024 + 1, 400)):
        message = {**FAST, "properties": {"label": {"a" * length: 1}}}
        assert answer(request(message), schemas=judge)[0] == status


def test_a_very_long_name_is_allowed_without_patterns(tmp_path):
    judge = schemas(tmp_path, {"additionalProperties": {"not": {"type": "null"}}})
    assert answer(request({**FAST, "properties": {"label": {"a" * 100_000: 1}}}), schemas=judge)[0] == 200


def test_email_format_is_checked_in_linear_time(tmp_path):
    judge = schemas(tmp_path, {"format": "email"})
    for address, status in (("." * 500_000 + "@a.example", 200), ("." * 500_000, 400)):
        assert answer(request({**FAST, "properties": {"label": address}}), schemas=judge)[0] == status


def test_check_that_ignores_interruptions_ends_and_uses_all_time(monkeypatch):
    ignored = []
    monkeypatch.setattr("sys.unraisablehook", ignored.append)

    class Stubborn:
        def __del__(self):
            while True:
                pass

    def check():
        while True:
            Stubborn() if len(ignored) < 8 else None

    time_for_checks = CheckTime()
    for _ in range(2):
        with pytest.raises(TooSlowError):
            time_for_checks.run(check)
    assert len(ignored) == 8
    with pytest.raises(TooSlowError):
        time_for_checks.run(max, 1, 2)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
