import json

import pytest

from handler import errors
from handler.canonicalise import canonicalise
from handler.errors import (
    InternalError,
    Invalid,
    InvalidMessage,
    InvalidSettings,
    Refusal,
    Unauthorized,
    Unavailable,
    Violation,
)
from handler.respond import Result, accepted, refused
from handler.sinks import Outcome

VIOLATIONS = (Violation(pointer="/event", message="event is required"), Violation(pointer="", message="No id"))


def kinds(refusal=Refusal):
    """Yield every refusal that can be answered: the leaf classes."""
    subclasses = refusal.__subclasses__()
    for subclass in subclasses:
        yield from kinds(subclass)
    if not subclasses:
        yield refusal


ARGUMENTS = {
    InvalidMessage: VIOLATIONS,
    InvalidSettings: VIOLATIONS,
    errors.CallTypeNotAllowed: "page",
    errors.WrongType: "page",
}
REFUSALS = [kind(ARGUMENTS.get(kind)) for kind in kinds()]


@pytest.mark.parametrize(
    ("outcome", "call_type", "status", "word"),
    [
        (Outcome.STORED, "track", 200, "stored"),
        (Outcome.DUPLICATE, "track", 200, "duplicate"),
        (Outcome.QUEUED, "track", 202, "queued"),
        (Outcome.STORED, "delete", 202, "stored"),
        (Outcome.DUPLICATE, "delete", 202, "duplicate"),
        (Outcome.QUEUED, "delete", 202, "queued"),
    ],
)
def test_success_has_the_outcome_of_the_message(outcome, call_type, status, word):
    [message] = canonicalise({"type": call_type, "userId": "u-1", "messageId": "m-é-\ud800"})
    response = accepted(Result(message=message, outcome=outcome))
    assert (response["statusCode"], response["headers"]) == (status, {"Content-Type": "application/json"})
    assert json.loads(response["body"]) == {"status": word, "message_id": "m-é-\ud800"}
    assert response["body"].isascii()


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
def test_refusal_is_json_with_status_text_and_code(refusal):
    response = refused(refusal)
    content = json.loads(response["body"])
    assert response["statusCode"] == refusal.status
    assert response["headers"]["Content-Type"] == "application/json"
    assert (content["message"], content["code"]) == (str(refusal), refusal.code)
    assert len(content["message"]) > 10


def test_codes_of_refusals_are_unique():
    assert len({refusal.code for refusal in REFUSALS}) == len(REFUSALS)


def test_the_docstring_of_errors_lists_every_refusal():
    tree = {row[0]: row[1:] for row in (line.split("── ")[-1].split() for line in errors.__doc__.splitlines()) if row}
    for refusal in REFUSALS:
        inherited = tree.get(type(refusal).__base__.__name__, [])
        *status, code = tree[type(refusal).__name__]
        assert (*(status or inherited), code) == (str(refusal.status), refusal.code)
    assert errors.__doc__.count("── ") == len({*map(type, REFUSALS), Invalid, Unauthorized, Unavailable})


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
def test_only_401_has_a_challenge_and_only_503_a_retry_after(refusal):
    headers = refused(refusal)["headers"]
    assert ("WWW-Authenticate" in headers) is (refusal.status == 401)
    assert ("Retry-After" in headers) is (refusal.status == 503)
    assert headers.get("Retry-After", "1").isdecimal()


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
def test_segment_retries_exactly_our_own_faults(refusal):
    is_retried = refusal.status in (408, 423, 429) or (refusal.status >= 500 and refusal.status != 501)
    assert is_retried is isinstance(refusal, Unavailable | InternalError)


@pytest.mark.parametrize("kind", [InvalidMessage, InvalidSettings])
def test_violations_are_all_listed_and_the_first_is_the_message(kind):
    content = json.loads(refused(kind(VIOLATIONS))["body"])
    assert content["message"] == "event is required"
    assert content["violations"] == [
        {"pointer": "/event", "message": "event is required"},
        {"pointer": "", "message": "No id"},
    ]


def test_other_refusals_have_no_violations():
    assert [type(r) for r in REFUSALS if "violations" in json.loads(refused(r)["body"])] == [
        InvalidSettings,
        InvalidMessage,
    ]
