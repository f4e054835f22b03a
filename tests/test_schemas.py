"""Test the messages of `cases/`: what each call type accepts, and the text that the customer reads otherwise."""

import json
import re
from pathlib import Path

import pytest
from jsonschema.validators import validator_for

from handler.canonicalise import canonicalise
from handler.errors import InvalidMessage
from handler.spec import CALL_TYPES
from handler.validate import SCHEMA_NAMES, Schemas

SCHEMAS = Path(__file__).parent.parent / "schemas"
CASES = [
    pytest.param(call_type, case, id=f"{call_type}: {case['description']}")
    for call_type in CALL_TYPES
    for case in json.loads((Path(__file__).parent / "cases" / f"{call_type}.json").read_text())
]


@pytest.fixture(scope="module")
def schemas():
    return Schemas.load(SCHEMAS)


def judge(schemas, call_type, payload):
    """Return the place and the text of the first violation, or None for a valid message."""
    [message] = canonicalise(payload)
    try:
        schemas.check_message(call_type, message.body)
    except InvalidMessage as refusal:
        return refusal.violations[0].pointer, str(refusal)
    return None


def verdict(case):
    return None if case["valid"] else (case["pointer"], case["message"])


@pytest.mark.parametrize(("call_type", "case"), CASES)
def test_a_message_is_judged_as_its_case_says(schemas, call_type, case):
    assert judge(schemas, call_type, case["data"]) == verdict(case)


CASINGS = {
    "snake_case": lambda words: "_".join(words).lower(),
    "kebab-case": lambda words: "-".join(words).lower(),
    "Title Case": lambda words: " ".join(words).title(),
    "PascalCase": lambda words: "".join(word.title() for word in words),
    "UPPER CASE": lambda words: "_".join(words).upper(),
}


def respell(name, casing):
    return name if name.startswith("_") else CASINGS[casing](re.findall("[A-Z]{2,}|[A-Za-z][a-z]*", name))


@pytest.mark.parametrize(("call_type", "case"), CASES)
def test_a_message_is_judged_alike_in_every_casing(schemas, call_type, case):
    respelled = {casing: {respell(name, casing): value for name, value in case["data"].items()} for casing in CASINGS}
    judged = {casing: judge(schemas, call_type, message) for casing, message in respelled.items()}
    assert judged == dict.fromkeys(CASINGS, verdict(case))


@pytest.mark.parametrize(("call_type", "case"), CASES)
def test_a_canonical_message_is_judged_like_the_one_that_was_sent(schemas, call_type, case):
    [message] = canonicalise(case["data"])
    assert judge(schemas, call_type, message.body) == verdict(case)
    assert canonicalise(message.body) == [message]


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_all_call_types_accept_ten_thousand_properties(schemas, call_type):
    ids = {"userId": "u-1", "previousId": "u-0", "groupId": "g-1"}
    many = {f"property {number}": number for number in range(10_000)}
    payload = {"type": call_type, "event": "Lamp Lit", **ids, "properties": many, "traits": many}
    assert judge(schemas, call_type, payload) is None


@pytest.mark.parametrize("settings", [{}, {"region": "eu", "": None, "deep": {"er": [1]}}])
def test_any_settings_are_accepted_by_default(schemas, settings):
    schemas.check_settings(settings)


@pytest.mark.parametrize("path", sorted(SCHEMAS.iterdir()), ids=lambda path: path.name)
def test_schemas_are_valid_and_name_their_dialect(path):
    schema = json.loads(path.read_text())
    assert "$schema" in schema
    validator_for(schema).check_schema(schema)


def test_schema_files_match_the_checked_parts():
    assert {path.stem for path in SCHEMAS.iterdir()} == {*SCHEMA_NAMES, "common"}


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_all_call_types_have_valid_and_invalid_cases(call_type):
    assert {case.values[1]["valid"] for case in CASES if case.values[0] == call_type} == {True, False}
