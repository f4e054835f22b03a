"""Test that the statements in the docs agree with the code."""

import importlib.util
import inspect
import json
import re
import tomllib

import click
import pytest

from destination.command_line import main
from destination.deployment.stack import FUNCTION, load_template
from destination.local.faults import Fault
from destination.paths import ROOT
from handler.decode import JsonObject
from handler.errors import Refusal
from handler.sinks import SINKS, sink_named
from handler.validate import Schemas

DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SCHEMAS = ROOT / "schemas"


def read(path):
    return (ROOT / "docs" / path).read_text()


def refusals(base=Refusal):
    for kind in base.__subclasses__():
        yield from [kind] if "code" in vars(kind) else []
        yield from refusals(kind)


def commands(command=main, path="destination"):
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")
    else:
        yield path, command


def test_answers_page_has_the_answers_of_the_code():
    documented = set(re.findall(r"^\| (\d+) \| `(\w+)` \|", read("reference/answers.md"), re.MULTILINE))
    assert documented == {(str(kind.status), kind.code) for kind in refusals()}


def test_reaction_of_segment_follows_from_the_status():
    rows = re.findall(r"^\| (\d+) \| .* \| ([\w \"]+) \|$", read("reference/answers.md"), re.MULTILINE)
    assert len(rows) > 20
    for status, then in rows:
        final = "drops the message" if status in ("400", "401", "403", "501") else "tries again for four hours"
        assert then == ('shows "Delivered"' if status in ("200", "202") else final)


def test_configuration_page_has_the_parameters_of_the_template():
    template = load_template()
    rows = re.findall(r"^\| `(\w+)` \| (?:`(\w+)`)? ?\| ([^|]+) \|", read("reference/configuration.md"), re.MULTILINE)
    documented, parameters = {name for name, _, _ in rows}, set(template["Parameters"])
    assert documented == parameters, f"configuration.md needs a row for {parameters - documented}"
    environment = template["Resources"][FUNCTION]["Properties"]["Environment"]["Variables"]
    for name, variable, default in rows:
        if variable:
            assert environment.get(variable) == {"Ref": name}, f"{FUNCTION} needs {variable} as a variable"
        if default not in ("all", "none"):
            assert default.strip("`") == str(template["Parameters"][name]["Default"])
    for variable in set(environment) - {sink_named(name).variable for name in SINKS}:
        assert f"`{variable}`" in read("reference/configuration.md"), "configuration.md must name this variable"


def test_storage_page_has_every_sink_with_its_variable():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| `(EVENT_\w+)` \|", read("reference/storage.md"), re.MULTILINE)
    assert rows == [(name, sink_named(name).variable) for name in SINKS], "The table of sinks must have each of SINKS"


def test_command_page_has_the_commands_of_the_code():
    documented = re.findall(r"^\| `(destination [a-z -]+)` \|", read("reference/cli.md"), re.MULTILINE)
    missing = {path for path, _ in commands()} - set(documented)
    assert not missing, f"docs/reference/cli.md needs a row for {missing}"
    assert len(documented) == len(list(commands())), "docs/reference/cli.md has a row for a command that does not exist"


def test_architecture_has_a_sentence_for_each_room():
    section = read("explanation/architecture.md").split("### The command line")[1].split("\n### ")[0]
    rooms = {path.parent.name for path in (ROOT / "destination").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == rooms


def test_documented_faults_are_the_tested_ones():
    documented = re.findall(r"^\| ([^|]+) \| 50", read("explanation/reliability.md"), re.MULTILINE)
    assert documented == list(Fault)


@pytest.mark.parametrize(("path", "command"), list(commands()))
def test_each_command_shows_an_example(path, command):
    help_text = inspect.cleandoc(command.help).replace("\b\n", "")
    assert f"Example:\n  {path}" in help_text, "The docstring of the command needs an example"


def test_navigation_has_every_page():
    config = tomllib.loads((ROOT / "docs" / "site" / "zensical.toml").read_text())
    sections = [pages for section in config["project"]["nav"] for pages in section.values()]
    listed = {path for pages in sections if isinstance(pages, list) for page in pages for path in page.values()}
    assert {str(path.relative_to(ROOT)) for path in DOCS} - {"README.md", "docs/index.md"} == listed - {
        "events/README.md"
    }


def test_command_reference_has_every_command_and_option():
    spec = importlib.util.spec_from_file_location("commands", ROOT / "docs" / "site" / "commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sections = dict(re.findall(r"^### (.+)\n((?:(?!^### ).*\n)*)", module.reference(main, "destination"), re.MULTILINE))
    assert list(sections) == sorted(path for path, _ in commands())
    for path, command in commands():
        options = {name for option in command.params for name in option.opts if name.startswith("--")}
        assert options <= set(re.findall(r"--[a-z-]+", sections[path]))
        assert f"Example:\n\n```\n{path}" in sections[path]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_have_a_target(path):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / link).exists(), link


def schema_of(docs, heading):
    section = read(docs).split(f"## {heading}\n")[1].split("\n## ")[0]
    return json.loads(re.search(r"```json\n(.+?)```", section, re.DOTALL)[1])


@pytest.fixture
def edited(tmp_path):
    """Edit a schema as the docs show, and compile the folder."""

    def edit(name, heading):
        for path in SCHEMAS.glob("*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / name).write_text(json.dumps(schema_of("how-to/schemas.md", heading)))
        return Schemas.load(tmp_path)

    return edit


@pytest.mark.parametrize(
    "traits", [{}, {"traits": {}}, {"traits": {"email": ""}}, {"traits": {"name": "Ada"}}], ids=str
)
def test_edit_for_a_required_trait_gives_the_partners_text(traits, edited):
    schemas = edited("identify.json", "Make a trait mandatory")
    identify = {"type": "identify", "message_id": "m", "user_id": "u"}
    with pytest.raises(Refusal) as refused:
        schemas.check_message("identify", {**identify, **traits})
    assert str(refused.value) == "Missing email address"
    schemas.check_message("identify", {**identify, "traits": {"email": "ada@example.com"}})


@pytest.mark.parametrize("quantity", [1, "d4f1a0c97b"])
def test_edit_for_encrypted_fields_accepts_number_and_string(quantity, edited):
    track = {"type": "track", "message_id": "m", "user_id": "u", "event": "e", "properties": {"quantity": quantity}}
    edited("track.json", "Encrypted fields").check_message("track", track)


@pytest.mark.parametrize("quantity", [0, 1.5, None, []], ids=str)
def test_the_edit_for_encrypted_fields_refuses_other_values(quantity, edited):
    track = {"type": "track", "message_id": "m", "user_id": "u", "event": "e", "properties": {"quantity": quantity}}
    with pytest.raises(Refusal):
        edited("track.json", "Encrypted fields").check_message("track", track)


def test_example_consumer_passes_its_test(monkeypatch):
    section = read("how-to/consuming.md").split("## Write your own\n")[1].split("\n## ")[0]
    example, test = re.findall(r"```python\n(.+?)```", section, re.DOTALL)
    names = {"JsonObject": JsonObject}
    exec(example, names)  # noqa: S102 -- what the page tells to write into consumer/handle.py
    monkeypatch.setattr("consumer.handle.update_crm", names["update_crm"], raising=False)
    monkeypatch.chdir(ROOT)
    exec(test, names)  # noqa: S102 -- the page's own test
    names["test_an_order_updates_the_crm"]()


def code_lines(text):
    """Return the lines of fenced code blocks."""
    is_code = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif is_code:
            yield line.strip()


def test_outputs_named_in_the_docs_exist():
    pages = "".join(path.read_text() for path in DOCS)
    named = set(re.findall(r"output `?([A-Z]\w+)", pages))
    assert {"EndpointUrl", "ErasureDeadLetterQueueUrl"} <= named <= set(load_template()["Outputs"])


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_commands_have_the_path_of_the_installation(path):
    assert [line for line in code_lines(path.read_text()) if re.match(r"(\w+=\S+ )*destination [a-z]", line)] == []


def test_shipped_schemas_require_no_trait():
    Schemas.load(SCHEMAS).check_message("identify", {"type": "identify", "message_id": "m", "user_id": "u"})


def test_edit_for_a_required_setting_names_it(edited):
    schemas = edited("settings.json", "Settings")
    with pytest.raises(Refusal, match=r"^region is required in the settings of this destination$"):
        schemas.check_settings({})
    schemas.check_settings({"region": "eu"})
