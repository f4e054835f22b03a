"""docs/openapi.yaml describes the endpoint as it is."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from cli.stack import ROOT
from handler.decode import MAX_SETTINGS_BYTES
from handler.errors import Refusal, Unauthorized
from handler.spec import CALL_TYPES
from handler.write import Outcome

DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
OPERATION = DOCUMENT["paths"]["/segment"]["post"]
COMPONENTS = DOCUMENT["components"]
EVENTS = sorted(path for path in (ROOT / "events").glob("*.json") if not path.name.startswith(("queue-", "stream-")))


def refusals(base=Refusal):
    for kind in base.__subclasses__():
        yield from [kind] if "code" in vars(kind) else []
        yield from refusals(kind)


def resolve(schema):
    return COMPONENTS["schemas"][schema["$ref"].rpartition("/")[2]]


def body_schemas(status):
    schema = OPERATION["responses"][status]["content"]["application/json"]["schema"]
    return [resolve(choice) for choice in schema.get("oneOf", [schema])]


def is_valid(instance, schema):
    return Draft202012Validator({**schema, "components": COMPONENTS}).is_valid(instance)


def assert_described(status, headers, body):
    response = OPERATION["responses"][str(status)]
    [media_type] = response["content"]
    assert headers["Content-Type"] == media_type
    assert is_valid(body, response["content"][media_type]["schema"])
    for name, header in response.get("headers", {}).items():
        assert is_valid(headers[name], header["schema"])


def examples():
    for status, response in OPERATION["responses"].items():
        [content] = response["content"].values()
        for name, example in content.get("examples", {}).items():
            yield pytest.param(example["value"], content["schema"], id=f"{status} {name}")


def test_it_is_openapi():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_the_codes_of_each_status_are_those_of_the_code():
    described = {
        (int(status), code)
        for status in OPERATION["responses"]
        for schema in body_schemas(status)
        for code in schema["properties"].get("code", {}).get("enum", [])
    }
    assert described == {(kind.status, kind.code) for kind in refusals()}


def test_the_statuses_are_those_of_the_function_and_of_its_gateway():
    assert set(OPERATION["responses"]) == {str(kind.status) for kind in refusals()} | {
        "200",
        "202",
        "413",
        "429",
        "500",
    }


def test_the_outcomes_are_those_of_the_code():
    described = {
        outcome for status in ("200", "202") for outcome in body_schemas(status)[0]["properties"]["status"]["enum"]
    }
    assert described == set(Outcome)


def test_every_call_type_is_described_and_has_an_example_that_fits():
    kinds = [resolve(choice) for choice in COMPONENTS["schemas"]["Message"]["oneOf"]]
    assert [kind["properties"]["type"]["const"] for kind in kinds] == [*CALL_TYPES]
    values = {name.lower(): example["value"] for name, example in COMPONENTS["examples"].items()}
    for kind, call_type in zip(kinds, CALL_TYPES, strict=True):
        assert is_valid(values[call_type], kind)
        assert is_valid(values[call_type], COMPONENTS["schemas"]["Message"])


def test_the_challenge_and_the_limits_are_those_of_the_code():
    assert OPERATION["responses"]["401"]["headers"].keys() == Unauthorized.headers.keys()
    assert f"{MAX_SETTINGS_BYTES // 1024} KB" in OPERATION["parameters"][0]["description"]


@pytest.mark.parametrize(("example", "schema"), [*examples()])
def test_an_example_of_an_answer_fits_its_schema(example, schema):
    assert is_valid(example, schema)


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_the_examples_of_requests_are_accepted(sink, deploy):
    destination = deploy(EventSink=sink)
    for example in OPERATION["requestBody"]["content"]["application/json"]["examples"].values():
        value = COMPONENTS["examples"][example["$ref"].rpartition("/")[2]]["value"]
        answer = destination.post(value)
        assert answer.status in (200, 202)
        assert_described(answer.status, answer.headers, answer.body)


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_what_is_answered_to_the_sample_events_is_described(sink, deploy):
    destination = deploy(EventSink=sink)
    for path in EVENTS:
        for _ in range(2):
            answer = destination.send(json.loads(path.read_text()))
            assert_described(answer.status, answer.headers, answer.body)


@pytest.mark.parametrize(
    ("parameters", "environment"),
    [
        ({"Maintenance": "on"}, {}),
        ({}, {"KEY_TABLE": "nowhere"}),
        ({}, {"EVENT_TABLE": "nowhere"}),
        ({}, {"REJECTS_TABLE": "nowhere"}),
    ],
)
def test_what_is_answered_when_we_fail_is_described(parameters, environment, deploy):
    destination = deploy(environment=environment, **parameters)
    missing_event = destination.post({"type": "track", "userId": "u"})
    stored = destination.post({"type": "track", "userId": "u", "event": "e"})
    for answer in (missing_event, stored):
        assert_described(answer.status, answer.headers, answer.body)
    assert 503 in (missing_event.status, stored.status)
