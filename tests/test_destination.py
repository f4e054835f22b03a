import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from handler.canonicalise import canonicalise
from handler.destination import Destination
from handler.erased import NoErasures
from handler.errors import (
    DeadlineClose,
    ErasureStoreUnavailable,
    EventStoreUnavailable,
    InternalError,
    KeyStoreUnavailable,
    RejectStoreUnavailable,
    UserErased,
)
from handler.judge import Judge
from handler.keys import MAX_REFUSAL_AGE_SECONDS, ApiKey, KeyStore, Status
from handler.request import Request
from handler.routes import ROUTES
from handler.settings import ANSWER_SECONDS, LIBRARY_ANSWER_SECONDS, STORE_CALL_SECONDS, Settings
from handler.sinks import Outcome
from handler.validate import Schemas

NOW = 1_936_785_600.0
ROOT = Path(__file__).parent.parent
SCHEMAS = Schemas.load(ROOT / "schemas")
KEYS = {
    "good": ApiKey(customer_id="acme", status=Status.ACTIVE, key_hash="3f1c09aa7be2"),
    "pages": ApiKey(customer_id="acme", status=Status.ACTIVE, scopes=frozenset({"page"})),
}
TRACK = {"type": "track", "event": "Lamp Lit", "userId": "keeper-17", "messageId": "m-1"}


def encode(text):
    return base64.b64encode(text.encode()).decode()


def request(body=TRACK, *, key="good", headers=None, received_at=NOW, path="/segment"):
    return Request(
        id="r-1",
        headers={"authorization": f"Basic {encode(key + ':')}", **(headers or {})},
        body=body if isinstance(body, str) else json.dumps(body),
        is_base64=False,
        received_at=received_at,
        route=ROUTES[f"POST {path}"],
    )


class Sink:
    """Keeps records, and returns the given results."""

    def __init__(self, answer=Outcome.STORED):
        self.answer = answer
        self.records = []

    def write(self, record):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.records.append(record)
        return self.answer

    def write_all(self, records, check_deadline):
        check_deadline()
        return [self.write(record) for record in records]


class Rejects:
    """Keeps everything, or returns the given results."""

    def __init__(self, answer=True):  # noqa: FBT002 -- what `keep` returns
        self.answer = answer
        self.kept = []

    def keep(self, reject):
        if isinstance(self.answer, Exception):
            raise self.answer
        self.kept.append(reject)
        return self.answer


class Tombstones:
    """Knows users who were erased just now, or fails like a store."""

    def __init__(self, *users, fault=None):
        self.users = users
        self.fault = fault

    def refusals(self, _customer_id, messages, ask):
        if self.fault is not None:
            ask(self.fail)
        if messages:
            ask(lambda: None)
        return [UserErased() if message.body.get("user_id") in self.users else None for message in messages]

    def fail(self):
        raise self.fault


STORES = ("EVENT_TABLE", "EVENT_QUEUE_URL", "KEY_TABLE", "REJECTS_TABLE", "ERASURE_TABLE")


def destination(  # noqa: PLR0913 -- what a test may replace
    sink=None, *, find=KEYS.get, clock=lambda: NOW, tombstones=None, schemas=SCHEMAS, rejects=None, **env
):
    names = dict.fromkeys(STORES, "somewhere")
    settings = Settings.from_env({**names, **env})
    return Destination(
        settings=settings,
        keys=SimpleNamespace(find=find, confirm=lambda api_key: api_key),
        erasures=tombstones or NoErasures(),
        judge=Judge(schemas=schemas, supported_call_types=settings.supported_call_types),
        sink=sink or Sink(),
        rejects=rejects or Rejects(),
        clock=clock,
    )


def answer(*args, **kwargs):
    response = destination(**kwargs).answer(*args)
    return response["statusCode"], json.loads(response["body"])


BAD_SETTINGS = {"x-segment-settings": "no base64"}


@pytest.mark.parametrize(
    ("sent", "env", "status", "code"),
    [
        (request("{", key="bad", headers=BAD_SETTINGS), {"MAINTENANCE": "on"}, 503, "maintenance"),
        (request("{", key="bad", headers=BAD_SETTINGS), {}, 401, "unknown_key"),
        (request("{", key="pages", headers=BAD_SETTINGS), {}, 400, "invalid_json"),
        (request({}, key="pages", headers=BAD_SETTINGS), {}, 400, "missing_type"),
        (request({"type": "jump"}, key="pages", headers=BAD_SETTINGS), {}, 501, "unsupported_call_type"),
        (
            *(request({"type": "track"}, key="pages", headers=BAD_SETTINGS), {"SUPPORTED_CALL_TYPES": "page"}),
            *(501, "unsupported_call_type"),
        ),
        (request({"type": "track"}, key="pages", headers=BAD_SETTINGS), {}, 403, "call_type_not_allowed"),
        (request({"type": "track"}, headers=BAD_SETTINGS), {}, 400, "invalid_settings"),
        (request({"type": "track"}), {}, 400, "invalid_message"),
        (request(), {}, 503, "event_store_unavailable"),
    ],
)
def test_first_failing_check_decides_the_answer(sent, env, status, code):
    status_answered, content = answer(sent, sink=Sink(EventStoreUnavailable()), **env)
    assert (status_answered, content["code"]) == (status, code)


@pytest.mark.parametrize("headers", [{}, {"x-segment-settings": "e30="}], ids=["no settings", "empty settings"])
def test_settings_are_checked_before_the_message(headers, tmp_path):
    folder = shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    (folder / "settings.json").write_text('{"type": "object", "required": ["region"]}')
    status, content = answer(request({"type": "track"}, headers=headers), schemas=Schemas.load(folder))
    assert (status, content["code"]) == (400, "invalid_settings")
    assert content["message"] == "region is required in the settings of this destination"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (request({**TRACK, "type": "jump"}), "unsupported_call_type"),
        (request(key="pages"), "call_type_not_allowed"),
        (request({"type": "track", "userId": "keeper-17"}, headers=BAD_SETTINGS), "user_erased"),
        (request({"type": "track", "userId": "keeper-18"}), "invalid_message"),
    ],
)
def test_erasure_is_checked_before_the_schema_and_leaves_no_reject(sent, code):
    assert answer(sent, tombstones=Tombstones("keeper-17"))[1]["code"] == code


def test_erased_users_are_looked_up_only_if_time_is_left():
    late = request(received_at=NOW - ANSWER_SECONDS + STORE_CALL_SECONDS - 0.1)
    assert answer(late, tombstones=Tombstones("keeper-17"))[1]["code"] == "deadline_close"


def test_refused_message_is_not_written():
    sink = Sink()
    answer(request({"type": "track", "userId": "keeper-17"}), sink=sink)
    assert sink.records == []


def test_record_has_the_customer_the_message_and_the_settings():
    sink = Sink()
    answer(
        request({"User ID": 17, "Type": "PAGE"}, headers={"x-segment-settings": encode('{"region": "eu"}')}), sink=sink
    )
    [record] = sink.records
    assert (record.customer_id, record.settings, record.stored_at) == ("acme", {"region": "eu"}, NOW)
    assert record.message.body.items() >= {"type": "page", "user_id": "17"}.items()


@pytest.mark.parametrize(
    ("outcome", "call_type", "status"),
    [(Outcome.STORED, "page", 200), (Outcome.DUPLICATE, "page", 200), (Outcome.QUEUED, "page", 202)]
    + [(outcome, "delete", 202) for outcome in Outcome],
)
def test_answer_shows_the_result_of_the_sink(outcome, call_type, status):
    assert answer(request({**TRACK, "type": call_type}), sink=Sink(outcome)) == (
        status,
        {"status": outcome, "message_id": "m-1"},
    )


def test_unreachable_key_store_is_503():
    def find(_key):
        raise KeyStoreUnavailable

    assert answer(request(), find=find)[0] == 503


@pytest.mark.parametrize(
    ("seconds_left", "is_written"), [(STORE_CALL_SECONDS, True), (STORE_CALL_SECONDS - 0.1, False)]
)
def test_write_begins_only_if_time_is_left(seconds_left, is_written):
    sink = Sink()
    status, content = answer(request(received_at=NOW - ANSWER_SECONDS + seconds_left), sink=sink)
    assert (status, content.get("code")) == ((200, None) if is_written else (503, "deadline_close"))
    assert len(sink.records) == is_written


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch", "/v1/import"])
@pytest.mark.parametrize(
    ("seconds_left", "is_written"), [(STORE_CALL_SECONDS, True), (STORE_CALL_SECONDS - 0.1, False)]
)
def test_libraries_get_more_time(seconds_left, is_written, path):
    sink = Sink()
    body = TRACK if path == "/v1/track" else {"batch": [TRACK, TRACK]}
    late = request(body, received_at=NOW - LIBRARY_ANSWER_SECONDS + seconds_left, path=path)
    assert answer(late, sink=sink)[0] == (200 if is_written else 503)
    assert bool(sink.records) == is_written


@pytest.mark.parametrize("path", ["/segment", "/v1/track", "/v1/batch"])
@pytest.mark.parametrize("body", [TRACK, {**TRACK, "event": None}])
def test_message_is_not_stored_or_refused_while_erasures_are_unknown(body, path):
    sink = Sink()
    sent = request({"batch": [TRACK, body]} if path == "/v1/batch" else body, path=path)
    status, content = answer(sent, sink=sink, tombstones=Tombstones(fault=ErasureStoreUnavailable()))
    assert (status, content["code"], sink.records) == (503, "erasure_store_unavailable", [])


def test_erased_users_are_looked_up_for_each_message_of_a_batch():
    batch = {"batch": [TRACK, {**TRACK, "userId": "keeper-18"}, {"type": "track", "userId": "keeper-17"}]}
    status, content = answer(request(batch, path="/v1/batch"), tombstones=Tombstones("keeper-17"))
    assert (status, content["accepted"]) == (200, 1)
    assert [(each["index"], each["code"]) for each in content["rejected"]] == [(0, "user_erased"), (2, "user_erased")]


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_bug_with_a_batch_is_logged_and_raised_to_lambda(path, lines):
    body = TRACK if path == "/v1/track" else {"batch": [TRACK, TRACK]}
    with pytest.raises(ZeroDivisionError):
        destination(Sink(ZeroDivisionError("s3cret"))).answer(request(body, path=path))
    [line] = lines()
    assert (line["outcome"], line["code"]) == ("failed", "internal_error")


def test_request_line_has_facts_and_no_secret(lines):
    destination().answer(request({**TRACK, "properties": {"password": "s3cret"}}))
    [line] = lines()
    facts = {
        "request_id": "r-1",
        "outcome": "accepted",
        "status": 200,
        "call_type": "track",
        "customer_id": "acme",
        "key": "3f1c",
        "message_id": "m-1",
    }
    assert line.items() >= facts.items()
    assert "09aa7be2" not in json.dumps(line)
    assert line["milliseconds"].keys() == {"authenticate", "decode", "canonicalise", "validate", "write", "total"}
    assert not [secret for secret in ("s3cret", encode("good:"), "Lamp Lit") if secret in json.dumps(line)]


@pytest.mark.parametrize(
    ("sent", "sink", "metric", "dimensions"),
    [
        (request(), Outcome.STORED, "Accepted", {"CallType": "track"}),
        (request(), Outcome.QUEUED, "Accepted", {"CallType": "track"}),
        (request(), Outcome.DUPLICATE, "Duplicate", {"CallType": "track"}),
        (request(key="bad"), Outcome.STORED, "Refused", {"Code": "unknown_key"}),
        (request("[]"), Outcome.STORED, "Refused", {"Code": "not_an_object"}),
        (request({"type": "jump"}), Outcome.STORED, "Refused", {"CallType": "other", "Code": "unsupported_call_type"}),
        (
            *(request({**TRACK, "messageId": ["m-1"]}), Outcome.STORED),
            *("Refused", {"CallType": "track", "Code": "invalid_message"}),
        ),
        (request(), EventStoreUnavailable(), "Failed", {"CallType": "track", "Code": "event_store_unavailable"}),
        (request(received_at=NOW - 4), Outcome.STORED, "Failed", {"CallType": "track", "Code": "deadline_close"}),
    ],
)
def test_request_is_counted_once_by_call_type_and_code(lines, sent, sink, metric, dimensions):
    destination(Sink(sink)).answer(sent)
    [line] = lines()
    assert [line[name] for name in ("Accepted", "Duplicate", "Refused", "Failed") if name in line] == [[1.0]]
    [_all, *others] = line["_aws"]["CloudWatchMetrics"][0]["Dimensions"]
    assert (metric in line, {name: line[name] for _service, name in others}) == (True, dimensions)


def test_bug_is_logged_and_raised_to_lambda(lines):
    with pytest.raises(ZeroDivisionError):
        destination(Sink(ZeroDivisionError("s3cret"))).answer(request())
    [line] = lines()
    facts = {"outcome": "failed", "status": 500, "code": "internal_error", "call_type": "track", "Failed": [1.0]}
    assert line.items() >= facts.items()
    assert "s3cret" not in json.dumps(line)


# A refusal because of the key is final, so it never rests on an old state

PAST = {"expires_at": {"S": "2020-01-01T00:00:00+00:00"}}
REFUSED = {
    "unknown_key": None,
    "revoked_key": {"status": {"S": "revoked"}},
    "expired_key": PAST,
    "suspended_key": {"status": {"S": "suspended"}},
    "call_type_not_allowed": {"scopes": {"SS": ["page"]}},
}
each_route = pytest.mark.parametrize("path", ["/segment", "/v1/track", "/v1/batch"])
each_refused = pytest.mark.parametrize("refused", REFUSED)


class KeyTable:
    """Answers GetItem like a DynamoDB client, with the same state for every key."""

    def __init__(self, state):
        self.state = state
        self.fault = None
        self.reads = 0

    def get_item(self, **_request):
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        item = {"customer_id": {"S": "acme"}, "status": {"S": "active"}, **(self.state or {})}
        return {"ConsumedCapacity": {}, **({} if self.state is None else {"Item": item})}


class Running:
    """A destination with a clock that a test moves, and with the longest times that a partner may choose."""

    def __init__(self, state, path):
        self.now = NOW
        self.table = KeyTable(state)
        self.path = path
        keys = KeyStore(
            self.table, "keys", cache_seconds=3600, grace_seconds=86400, accept_demo_keys=False, clock=lambda: self.now
        )
        self.destination = replace(destination(clock=lambda: self.now), keys=keys)

    def code(self, *messages):
        """Send messages, and return the code of the answer, or of the first rejected message."""
        body = {"batch": messages or [TRACK]} if self.path == "/v1/batch" else TRACK
        response = self.destination.answer(request(body, received_at=self.now, path=self.path))
        content = json.loads(response["body"])
        refused = [*content.get("rejected", ()), *([content] if response["statusCode"] >= 500 else ())]
        return (refused or [content])[0].get("code", response["statusCode"])


@each_route
@each_refused
def test_refused_key_is_accepted_five_seconds_after_it_changed(path, refused):
    running = Running(REFUSED[refused], path)
    assert running.code() == refused
    running.table.state = {}
    running.now += MAX_REFUSAL_AGE_SECONDS
    assert running.code() == 200


@each_route
@each_refused
def test_refusals_read_the_key_table_once_in_five_seconds(path, refused):
    running = Running(REFUSED[refused], path)
    for seconds in range(10):
        running.now = NOW + seconds
        assert running.code() == refused
    assert running.table.reads == 2


@each_route
@each_refused
@pytest.mark.parametrize("seconds", [MAX_REFUSAL_AGE_SECONDS, 3600, 86399])
def test_key_is_not_refused_while_the_table_cannot_be_read(path, refused, seconds):
    running = Running(REFUSED[refused], path)
    running.code()
    running.table.fault = KeyStoreUnavailable()
    running.now += seconds
    assert running.code() == "key_store_unavailable"


@each_route
@pytest.mark.parametrize("refused", ["unknown_key", "revoked_key", "expired_key", "suspended_key"])
def test_call_type_is_refused_by_the_current_state_of_the_key(path, refused):
    running = Running({"scopes": {"SS": ["page"]}}, path)
    running.code()
    running.table.state = REFUSED[refused]
    running.now += MAX_REFUSAL_AGE_SECONDS
    assert running.code() == refused


def test_batch_within_the_scope_needs_no_second_read():
    running = Running({"scopes": {"SS": ["track"]}}, "/v1/batch")
    running.code()
    running.now += MAX_REFUSAL_AGE_SECONDS
    assert running.code(TRACK, {"type": "jump"}) == "unsupported_call_type"
    assert running.table.reads == 1


def test_batch_is_judged_by_a_single_state_of_the_key():
    running = Running({"scopes": {"SS": ["track"]}}, "/v1/batch")
    running.code()
    running.table.state = {"scopes": {"SS": ["page"]}}
    running.now += MAX_REFUSAL_AGE_SECONDS
    assert running.code(TRACK, {"type": "page", "userId": "keeper-17"}) == "call_type_not_allowed"
    assert running.table.reads == 2


def test_second_read_of_the_key_needs_time():
    running = Running({"scopes": {"SS": ["page"]}}, "/segment")
    running.code()
    running.now += MAX_REFUSAL_AGE_SECONDS
    late = request(received_at=running.now - ANSWER_SECONDS + STORE_CALL_SECONDS - 0.1)
    assert json.loads(running.destination.answer(late)["body"])["code"] == "deadline_close"


# Invalid messages of a batch, alone and in pairs

UNREADABLE = {"nested_too_deeply", "invalid_json"}
"""If both apply to a message, the order of its fields decides which one is found first."""
ODD = {
    "nested thousands deep": ('"context": ' + "[" * 3_000 + "]" * 3_000, UNREADABLE),
    "nested 150 deep": ('"properties": {"x": ' + '{"":' * 150 + "1" + "}" * 151, UNREADABLE),
    "a word that is not JSON": ('"x": undefined', UNREADABLE),
    "a line break in a string": ('"x": "a\nb"', UNREADABLE),
    "NaN": ('"n": NaN', {"number_out_of_range"}),
    "infinity as an id": ('"anonymousId": -1e999', {"number_out_of_range"}),
    "a long integer in another spelling": ('"user_id": ' + "9" * 400, {"number_out_of_range"}),
    "no type": ('"type": null', {"missing_type"}),
    "a list as type": ('"type": ["track"]', {"missing_type"}),
    "another type": ('"type": "jump"', {"unsupported_call_type"}),
    "no event": ('"event": ""', {"invalid_message"}),
    "an object as id": ('"userId": {"id": 1}', {"invalid_message"}),
    "a long message id": ('"messageId": "' + "m" * 101 + '"', {"invalid_message"}),
    "text as context": ('"context": "[[{"', {"invalid_message"}),
    "a lone surrogate": (r'"\ud800": "\udfff"', None),
    "a derived id": ('"messageId": null', None),
    "spellings that differ": ('"USER ID": "other", "timestamp": {}, "Properties": {}', None),
    "a write key within": ('"_metadata": [{"writeKey": "s3cret"}]', None),
    "nested 90 deep": ('"integrations": ' + '{"":' * 90 + "1" + "}" * 90, None),
}
"""Name -> members that follow the members of a valid message, and the codes of the rejection."""
WORST_FIRST = [UNREADABLE, *({code} for code in ("number_out_of_range", "missing_type", "unsupported_call_type")), None]
WORST_FIRST.insert(-1, {"invalid_message"})


def member_of(name):
    return ODD[name][0].partition(":")[0]


def odd_message(*names):
    members = ", ".join(ODD[name][0] for name in names)
    return f'{{"type": "track", "event": "Lamp Lit", "userId": "keeper-17", "messageId": "odd", {members}}}'


@pytest.mark.parametrize("first", ODD)
def test_two_errors_of_a_message_are_judged_like_the_worse_one(first):
    for second in ODD:
        if member_of(first) == member_of(second) and first != second:
            continue  # the last duplicate name counts
        sink, rejects = Sink(), Rejects()
        good = [json.dumps({**TRACK, "messageId": f"good-{number}"}) for number in range(2)]
        body = f'{{"batch": [{good[0]}, {odd_message(first, second)}, {good[1]}], "context": {{"a": [1]}}}}'
        status, content = answer(request(body, path="/v1/batch"), sink=sink, rejects=rejects)
        worse = next(codes for codes in WORST_FIRST if codes in (ODD[first][1], ODD[second][1]))
        told = {each["code"] for each in content["rejected"]}
        assert (status, told <= (worse or set()), len(told)) == (200, True, bool(worse)), (second, content)
        stored = [record.message.message_id for record in sink.records]
        assert {"good-0", "good-1"} <= set(stored)
        assert (content["accepted"], len(stored)) == (2 + (worse is None), 2 + (worse is None))
        assert len(rejects.kept) == (worse not in (None, UNREADABLE, {"unsupported_call_type"}))
        assert "s3cret" not in str([*rejects.kept, *sink.records])


@pytest.mark.parametrize("path", ["/segment", "/v1/track"])
@pytest.mark.parametrize("first", ODD)
def test_two_errors_of_a_single_message_never_give_a_5xx(first, path):
    for second in ODD:
        assert answer(request(odd_message(first, second), path=path))[0] in (200, 400, 501)


# Bugs that affect one message of a batch


class BuggySchemas:
    """Schemas that raise an error for the messages of one user."""

    check_settings = SCHEMAS.check_settings

    def check_message(self, call_type, body, time):
        if body.get("user_id") == "s3cret":
            raise ZeroDivisionError("s3cret")
        SCHEMAS.check_message(call_type, body, time)


class BuggyTombstones(Tombstones):
    """Knows no erased user. Look-ups that include one certain user raise an error."""

    def refusals(self, customer_id, messages, ask):
        if any(message.body.get("user_id") == "s3cret" for message in messages):
            raise ZeroDivisionError("s3cret")
        return super().refusals(customer_id, messages, ask)


class BuggySink(Sink):
    """Stores the records of a batch, except the records of one user."""

    def write_all(self, records, _check_deadline):
        return [
            InternalError(raised(ZeroDivisionError("s3cret")))
            if record.message.body["user_id"] == "s3cret"
            else self.write(record)
            for record in records
        ]


def raised(error):
    try:
        raise error
    except ZeroDivisionError:
        return error


BUGGY = {
    "schemas": lambda: {"schemas": BuggySchemas()},
    "tombstones": lambda: {"tombstones": BuggyTombstones()},
    "sink": lambda: {"sink": BuggySink()},
}
MEETS_BUG = {**TRACK, "userId": "s3cret"}
OTHERS = [{**TRACK, "messageId": f"m-{number}"} for number in range(3)]


@pytest.mark.parametrize("where", BUGGY)
def test_message_that_meets_a_bug_is_kept_and_others_are_stored(where, lines):
    parts = {"sink": Sink(), "rejects": Rejects(), **BUGGY[where]()}
    batch = {"batch": [OTHERS[0], MEETS_BUG, {"type": "track"}, OTHERS[1], MEETS_BUG, OTHERS[2]]}
    status, content = answer(request(batch, path="/v1/batch"), **parts)
    assert (status, content["accepted"]) == (200, 3)
    told = [(each["index"], each["code"]) for each in content["rejected"]]
    assert told == [(1, "internal_error"), (2, "invalid_message"), (4, "internal_error")]
    assert "s3cret" not in json.dumps(content)
    assert [record.message.message_id for record in parts["sink"].records] == ["m-0", "m-1", "m-2"]
    kept = {reject.index: reject for reject in parts["rejects"].kept}
    assert (kept.keys(), kept[1].facts["code"]) == ({1, 2, 4}, "internal_error")
    assert json.loads(kept[1].body)["user_id"] == "s3cret"
    printed = lines()
    [bug] = [line for line in printed if line["message"] == "exception"]
    facts = {"level": "ERROR", "exception": "ZeroDivisionError", "messages": 2, "request_id": "r-1"}
    assert bug.items() >= facts.items()
    assert "test_destination.py" in bug["traceback"]
    assert "s3cret" not in json.dumps({**bug, "traceback": ""})
    failed = {"outcome": "failed", "code": "internal_error", "Failed": [2.0]}
    assert [line for line in printed if line.items() >= failed.items()]


@pytest.mark.parametrize("where", BUGGY)
def test_batch_in_which_every_message_meets_a_bug_is_not_400(where):
    rejects = Rejects()
    status, content = answer(request({"batch": [MEETS_BUG]}, path="/v1/batch"), rejects=rejects, **BUGGY[where]())
    assert (status, content["accepted"], len(rejects.kept)) == (200, 0, 1)


@pytest.mark.parametrize("where", ["schemas", "tombstones"])
@pytest.mark.parametrize("path", ["/segment", "/v1/track"])
def test_bug_with_a_single_message_is_raised_to_lambda(path, where):
    with pytest.raises(ZeroDivisionError):
        answer(request(MEETS_BUG, path=path), **BUGGY[where]())


@pytest.mark.parametrize("answered", [False, KeyError("s3cret")], ids=["not kept", "another bug"])
@pytest.mark.parametrize("where", BUGGY)
def test_batch_fails_after_its_writes_if_a_bug_cannot_be_kept(where, answered, lines):
    parts = {"sink": Sink(), **BUGGY[where]()}
    with pytest.raises(LookupError if answered else ZeroDivisionError):
        answer(request({"batch": [MEETS_BUG, *OTHERS]}, path="/v1/batch"), rejects=Rejects(answered), **parts)
    assert len(parts["sink"].records) == 3
    assert lines()[-1].items() >= {"outcome": "failed", "status": 500, "code": "internal_error"}.items()


def test_batch_fails_after_its_writes_if_keeping_a_reject_fails():
    sink = Sink()
    with pytest.raises(ZeroDivisionError):
        answer(
            request({"batch": [{"type": "track"}, TRACK]}, path="/v1/batch"),
            sink=sink,
            rejects=Rejects(ZeroDivisionError()),
        )
    assert len(sink.records) == 1


def test_bug_while_keeping_a_single_reject_is_raised_to_lambda():
    with pytest.raises(ZeroDivisionError):
        answer(request({"type": "track"}), rejects=Rejects(ZeroDivisionError()))


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("path", ["/segment", "/v1/track"])
def test_line_of_a_message_says_whether_its_reject_is_kept(path, is_kept, lines):
    answer(request({"type": "track"}, path=path), rejects=Rejects(answer=is_kept))
    answer(request(path=path), sink=Sink())
    refused, accepted = lines()
    assert (refused["code"], refused["kept"]) == ("invalid_message", is_kept)
    assert "kept" not in accepted


def test_reject_that_cannot_be_kept_in_an_outage_is_503():
    unavailable = Rejects(RejectStoreUnavailable())
    status, content = answer(
        request({"batch": [MEETS_BUG, TRACK]}, path="/v1/batch"), rejects=unavailable, **BUGGY["schemas"]()
    )
    assert (status, content["code"]) == (503, "reject_store_unavailable")


def test_message_of_an_erased_user_is_not_kept_after_a_bug():
    rejects = Rejects()
    batch = {"batch": [MEETS_BUG, TRACK]}
    parts = {"rejects": rejects, "tombstones": Tombstones("s3cret"), **BUGGY["sink"]()}
    status, content = answer(request(batch, path="/v1/batch"), **parts)
    assert (status, content["rejected"][0]["code"], rejects.kept) == (200, "user_erased", [])


# Erased users that can't be looked up


class Unanswering(Tombstones):
    """Tombstones that can be read a given number of times, and then fail."""

    def __init__(self, fault, times):
        super().__init__(fault=fault)
        self.left = times

    def fail(self):
        self.left -= 1
        if self.left < 0:
            super().fail()


@pytest.mark.parametrize("fault", [ErasureStoreUnavailable(), DeadlineClose()], ids=["outage", "no time"])
def test_batch_is_503_and_not_stored_if_erasures_are_unreadable(fault):
    sink = Sink()
    late = NOW - LIBRARY_ANSWER_SECONDS + STORE_CALL_SECONDS
    batch = request({"batch": OTHERS}, path="/v1/batch", received_at=late)
    status, content = answer(batch, sink=sink, tombstones=Tombstones(fault=fault))
    assert (status, content["code"], sink.records) == (503, fault.code, [])


def test_reject_is_503_if_erasures_are_unreadable():
    rejects = Rejects()
    batch = request({"batch": [{"userId": "keeper-17"}, TRACK]}, path="/v1/batch")
    status, content = answer(batch, rejects=rejects, tombstones=Unanswering(ErasureStoreUnavailable(), 1))
    assert (status, content["code"], rejects.kept) == (503, "erasure_store_unavailable", [])


def test_judge_without_key_and_erasures_checks_types_and_schemas():
    judge = Judge(schemas=SCHEMAS, supported_call_types={"track"})
    messages = [
        one for type_ in ("track", "page") for one in canonicalise({"type": type_, "userId": "u", "event": "E"})
    ]
    accepted, refused = judge.refusals(messages, "")
    assert (accepted, refused.code) == (None, "unsupported_call_type")
