"""Test `destination catalog-page`: it drafts the public page from the schemas and the deployment."""

import re

import pytest
from local_server import run

from destination.certification.catalog import ADVICE, NOT_THE_CUSTOMERS, TODO, Partner, page_of
from destination.certification.samples import Samples
from destination.deployment.stack import LOCAL_STACK, create_local_stack
from destination.deployment.target import Target
from destination.paths import ROOT
from handler.errors import Refusal, Unavailable
from handler.spec import CALL_TYPES

KNOWN = Partner(
    name="Acme",
    website="https://acme.example.com/",
    support="help@acme.example.com",
    keys_at="https://acme.example.com/keys",
    rate=1500,
)
UNKNOWN = Partner(name="Acme", website=None, support=None, keys_at=None, rate=None)


@pytest.fixture
def page(aws):
    """Draft the page of a deployment. The parameters of the first call make the deployment."""
    stacks = []

    def page(partner=KNOWN, samples=None, **parameters):
        stacks.append(stacks[0] if stacks else create_local_stack(aws, parameters))
        return page_of(partner, Target(account=aws, stores=stacks[0].stores), samples or Samples(ROOT / "schemas"))

    return page


def refusals(base=Refusal):
    for kind in base.__subclasses__():
        yield from [kind] if "code" in vars(kind) else []
        yield from refusals(kind)


def test_each_supported_call_type_has_a_section_with_an_example(page):
    text = page(SupportedCallTypes="identify,track,delete")
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == ["Identify", "Track"]
    assert 'analytics.identify("user-4711", {' in text
    assert 'analytics.track("Order Completed", {' in text


def test_required_fields_have_the_texts_of_the_schemas(page):
    track = page().split("### Track")[1].split("\n### ")[0]
    assert "| `event` | event is required for track calls |" in track
    assert "| one of several | userId or anonymousId is required |" in track


def test_field_of_an_edited_schema_has_its_own_text(page, tmp_path):
    for path in (ROOT / "schemas").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "identify.json").write_text(EDITED)
    identify = page(samples=Samples(tmp_path)).split("### Identify")[1].split("\n### ")[0]
    assert "| `traits` | Missing traits |" in identify
    assert "| `traits.email` | Missing email address |" in identify
    assert "| `context.userAgent` | context.userAgent is required for identify calls |" in identify
    assert re.search(r'"context": {\s+"userAgent": "[^"]+"\s+}\s+}\);', identify)


EDITED = """{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "allOf": [{"$ref": "common.json#/definitions/message"}],
  "required": ["traits", "context"],
  "properties": {
    "traits": {
      "type": "object",
      "required": ["email"],
      "properties": {"email": {"type": "string", "format": "email"}},
      "errorMessage": {"required": {"email": "Missing email address"}}
    },
    "context": {"type": "object", "required": ["user_agent"]}
  },
  "errorMessage": {"required": {"traits": "Missing traits"}}
}"""


def test_settings_have_their_descriptions(page, tmp_path):
    for path in (ROOT / "schemas").glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "settings.json").write_text(
        '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["region"],'
        ' "properties": {"note": {}, "region": {"description": "Where | your *data* is kept: <b>{{ eu }}</b>."}}}'
    )
    settings = page(samples=Samples(tmp_path)).split("## Settings")[1].split("\n## ")[0]
    assert r"| `region` | required | Where \| your \*data\* is kept: &lt;b>&#123;&#123; eu }}&lt;/b>. |" in settings
    assert f"| `note` |  | {TODO}" in settings
    assert "| API Key | required |" in settings


def test_examples_pass_the_schemas():
    samples = Samples(ROOT / "schemas")
    for call_type in CALL_TYPES:
        assert samples.refusal(samples.message(call_type)) is None


def test_every_final_refusal_has_advice_unless_it_is_not_the_customers():
    final = {kind for kind in refusals() if not issubclass(kind, Unavailable)}
    assert ADVICE.keys() | NOT_THE_CUSTOMERS == final
    assert ADVICE.keys().isdisjoint(NOT_THE_CUSTOMERS)


@pytest.mark.parametrize(
    ("parameters", "page_text"),
    [
        ({}, "erases what it stored of that `userId`."),
        ({"ErasureScope": "linked"}, "and of anonymous ids that the user's calls named"),
        ({"EventSink": "sqs"}, f"{TODO}: messages go to a queue here"),
        ({"EventRetentionDays": "90"}, "deleted after 90 days in any case"),
        ({"SupportedCallTypes": "track"}, f"{TODO}: this deployment does not support delete calls"),
    ],
)
def test_text_on_deletion_matches_the_deployment(page, parameters, page_text):
    assert page_text in page(**parameters).split("## Deletion of users")[1].split("\n## ")[0]


def test_given_facts_are_filled_in(page):
    text = page()
    assert "https://acme.example.com/?utm_source=segmentio&utm_medium=docs&utm_campaign=partners" in text
    assert "mailto:help@acme.example.com" in text
    assert "1,500 calls a second" in text
    assert "AWS region us-east-1" in text


def test_facts_that_only_the_partner_knows_are_marked(page):
    assert page(UNKNOWN).count(TODO) == page().count(TODO) + 4


def test_page_is_printed_and_open_points_are_counted(aws):
    create_local_stack(aws, {})
    result = run("catalog-page", "--stack", LOCAL_STACK, "--name", "Acme")
    assert result.exit_code == 0
    assert result.stdout.startswith('---\ntitle: "Acme Destination"\n---\n')
    assert f"{result.stdout.count(TODO)} places are left for you" in result.stderr


def test_the_page_can_be_written_to_a_file(aws, tmp_path):
    create_local_stack(aws, {})
    arguments = ("catalog-page", "--stack", LOCAL_STACK, "--name", "Acme", "--output")
    assert run(*arguments, str(tmp_path / "acme.md")).exit_code == 0
    assert 'title: "Acme Destination"' in (tmp_path / "acme.md").read_text()
    nowhere = run(*arguments, str(tmp_path / "nowhere" / "acme.md"))
    assert (nowhere.exit_code, "can't be written" in nowhere.stderr) == (1, True)


@pytest.mark.parametrize("option", ["--website", "--keys-at"])
def test_links_must_lead_to_a_page(option):
    result = run("catalog-page", "--name", "Acme", option, "javascript:alert(1)")
    assert (result.exit_code, "is not the URL of a page" in result.stderr) == (2, True)
