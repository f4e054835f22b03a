"""Test running local servers with requests that schemathesis makes from docs/reference/openapi.yaml: `make
e2e-openapi`.

Requests that fit the description are accepted. All others get a described answer. `make nightly` sends ten times as
many.
"""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode
from searches import MIN_EXAMPLES, search

from destination.deployment import demo
from destination.paths import ROOT

pytest_plugins = ["servers"]

load_all_checks()
OPERATION = schemathesis.openapi.from_path(ROOT / "docs" / "reference" / "openapi.yaml")["/segment"]["POST"]
DESCRIBED = CHECKS.get_by_names(
    [
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "status_code_conformance",
    ]
)
some = search(300, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=["server", "queue_server"])
def url(request):
    return request.getfixturevalue(request.param).url


def send(case, url, key=demo.GOOD_KEY):
    answer = case.call(base_url=url, auth=(key, ""))
    case.validate_response(answer, checks=DESCRIBED)
    assert answer.status_code not in (500, 503)
    return answer


@some
@given(case=OPERATION.as_strategy(generation_mode=GenerationMode.POSITIVE))
def test_described_message_is_accepted(url, case):
    case.headers.pop("X-Segment-Settings", None)
    assert send(case, url).status_code in (200, 202)


@some
@given(case=OPERATION.as_strategy(generation_mode=GenerationMode.NEGATIVE))
def test_any_other_request_gets_a_described_answer(url, case):
    send(case, url)


@settings(some, max_examples=MIN_EXAMPLES)
@given(case=OPERATION.as_strategy(generation_mode=GenerationMode.POSITIVE))
def test_request_without_a_key_is_refused(url, case):
    assert send(case, url, "demo-key-revoked").status_code == 401
