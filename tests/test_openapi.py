"""Test that docs/reference/openapi.yaml describes the endpoint as it is."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from destination.paths import ROOT
from handler.decode import MAX_BATCH_BYTES, MAX_SETTINGS_BYTES
from handler.errors import InternalError, Refusal, Unauthorized
from handler.routes import HEALTH, ROUTES
from handler.sinks import Outcome
from handler.spec import CALL_TYPES
from handler.split import MAX_BATCH_MESSAGES

DOCUMENT = yaml.safe_load((ROOT / "docs" / "reference" / "openapi.yaml").read_text())
OPERATIONS = {path: operation for path, item in DOCUMENT["paths"].items() for operation in item.values()}
COMPONENTS = DOCUMENT["components"]
PATHS = ["/segment", "/v1/track", "/v1/batch"]
"""One of each kind."""
EVENTS = sorted(path for path in (ROOT / "events").glob("*.json") if not path.name.startswith(("queue-", "stream-")))


def refusals(base=Refusal):
    for kind in base.__subclasses__():
        yield from [kind] if "code" in vars(kind) else []
        yield from refusals(kind)


def resolve(schema):
    return COMPONENTS["schemas"][schema["$ref"].rpartition("/")[2]]


def responses(path):
    described = OPERATIONS[path]["responses"]
    return {
        status: COMPONENTS["responses"][response["$ref"].rpartition("/")[2]] if "$ref" in response else response
        for status, response in described.items()
    }


def body_schemas(path, status):
    schema = responses(path)[status]["content"]["application/json"]["schema"]
    return [resolve(choice) for choice in schema.get("oneOf", [schema])]


def is_valid(instance, schema):
    return Draft202012Validator({**schema, "components": COMPONENTS}).is_valid(instance)


def assert_described(status, headers, body, path="/segment"):
    response = responses(path)[str(status)]
    [media_type] = response["content"]
    assert headers["Content-Type"] == media_type
    assert is_valid(body, response["content"][media_type]["schema"])
    for name, header in response.get("headers", {}).items():
        assert is_valid(headers[name], header["schema"])


def examples():
    for path in PATHS:
        for status, response in responses(path).items():
            [content] = response["content"].values()
            for name, example in content.get("examples", {}).items():
                yield pytest.param(example["value"], content["schema"], id=f"{path} {status} {name}")


def test_description_is_valid_openapi():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_codes_of_each_status_equal_the_code():
    described = {
        (int(status), code)
        for path in PATHS
        for status in responses(path)
        for schema in body_schemas(path, status)
        for code in schema["properties"].get("code", {}).get("enum", [])
    }
    # An answer to a whole request never has a code that only a message of a batch can have.
    assert described == {(kind.status, kind.code) for kind in refusals() if kind is not InternalError}


def test_routes_equal_the_code():
    described = {f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item}
    assert described == {*ROUTES, HEALTH}, f"docs/reference/openapi.yaml lacks {({*ROUTES, HEALTH}) - described}"


@pytest.mark.parametrize(
    ("path", "others"), [("/segment", {"202", "501"}), ("/v1/track", {"501"}), ("/v1/batch", set())]
)
def test_statuses_equal_the_function_and_its_gateway(path, others):
    assert set(responses(path)) == {"200", "400", "401", "403", "413", "429", "500", "503"} | others


def test_outcomes_equal_the_code():
    described = {
        outcome
        for status in ("200", "202")
        for outcome in body_schemas("/segment", status)[0]["properties"]["status"]["enum"]
    }
    assert described == set(Outcome)


def test_call_types_are_described_with_a_valid_example():
    kinds = [resolve(choice) for choice in COMPONENTS["schemas"]["Message"]["oneOf"]]
    described = [kind["properties"]["type"]["const"] for kind in kinds]
    assert described == [*CALL_TYPES], "Message in docs/reference/openapi.yaml must have each call type, in this order"
    values = {name.lower(): example["value"] for name, example in COMPONENTS["examples"].items()}
    for kind, call_type in zip(kinds, CALL_TYPES, strict=True):
        assert is_valid(values[call_type], kind)
        assert is_valid(values[call_type], COMPONENTS["schemas"]["Message"])


def test_challenge_and_limits_equal_the_code():
    assert responses("/segment")["401"]["headers"].keys() == Unauthorized.headers.keys()
    assert f"{MAX_SETTINGS_BYTES // 1024} KB" in OPERATIONS["/segment"]["parameters"][0]["description"]
    assert f"{MAX_BATCH_BYTES // 1024} KB" in OPERATIONS["/v1/batch"]["requestBody"]["description"]
    assert COMPONENTS["schemas"]["Batch"]["properties"]["batch"]["maxItems"] == MAX_BATCH_MESSAGES


@pytest.mark.parametrize(("example", "schema"), [*examples()])
def test_example_answers_fit_their_schemas(example, schema):
    assert is_valid(example, schema)


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_the_examples_of_requests_are_accepted(sink, deploy):
    destination = deploy(EventSink=sink)
    for example in OPERATIONS["/segment"]["requestBody"]["content"]["application/json"]["examples"].values():
        value = COMPONENTS["examples"][example["$ref"].rpartition("/")[2]]["value"]
        answer = destination.post(value)
        assert answer.status in (200, 202)
        assert_described(answer.status, answer.headers, answer.body)


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
@pytest.mark.parametrize(
    ("body", "accepted"), [(COMPONENTS["examples"]["Batch"]["value"], 2), ({"batch": []}, 0)], ids=["two", "none"]
)
def test_the_examples_of_batches_are_accepted(body, accepted, sink, deploy):
    answer = deploy(EventSink=sink).post(body, path="/v1/batch")
    assert (answer.status, answer.body["accepted"]) == (200, accepted)
    assert_described(answer.status, answer.headers, answer.body, "/v1/batch")


@pytest.mark.parametrize("sink", ["dynamodb", "sqs"])
def test_answers_to_the_sample_events_are_described(sink, deploy):
    destination = deploy(EventSink=sink)
    for path in EVENTS:
        event = json.loads(path.read_text())
        for _ in range(2):
            answer = destination.send(event)
            assert_described(answer.status, answer.headers, answer.body, event["rawPath"])


@pytest.mark.parametrize(
    ("parameters", "environment"),
    [
        ({"Maintenance": "on"}, {}),
        ({}, {"KEY_TABLE": "nowhere"}),
        ({}, {"EVENT_TABLE": "nowhere"}),
        ({}, {"REJECTS_TABLE": "nowhere"}),
    ],
)
def test_answers_to_our_failures_are_described(parameters, environment, deploy):
    destination = deploy(environment=environment, **parameters)
    missing_event = destination.post({"type": "track", "userId": "u"})
    stored = destination.post({"type": "track", "userId": "u", "event": "e"})
    for answer in (missing_event, stored):
        assert_described(answer.status, answer.headers, answer.body)
    assert 503 in (missing_event.status, stored.status)


@pytest.mark.parametrize(("environment", "status"), [({}, 200), ({"KEY_TABLE": "missing"}, 503)])
def test_answer_of_health_is_described(deploy, environment, status):
    event = {"routeKey": HEALTH, "headers": {}, "requestContext": {"requestId": "test"}}
    answer = deploy(environment=environment).send(event)
    assert answer.status == status
    assert_described(answer.status, answer.headers, answer.body, "/health")
