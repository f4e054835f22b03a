"""Test rules for all commands: their help, and how they find a deployment."""

import json
import os

import boto3
import click
import pytest
from click.testing import CliRunner
from local_server import run
from rich.table import Table
from rich.text import Text

from destination.command_line import main
from destination.console import counted, printable, stdout
from destination.deployment import demo
from destination.deployment.key_table import KeyRecord, KeyTable
from destination.deployment.stack import LOCAL_STACK, create_local_stack

pytest_plugins = ["servers"]

NOWHERE = "http://127.0.0.1:1"
ON_STORES = [
    pytest.param(command, id=" ".join(command[:2]))
    for command in (
        ["keys", "create", "--customer", "acme"],
        ["keys", "list"],
        ["keys", "show", "3f1c"],
        ["keys", "revoke", "3f1c"],
        ["keys", "suspend", "3f1c"],
        ["keys", "resume", "3f1c"],
        ["keys", "rotate", "3f1c"],
        ["keys", "export"],
        ["keys", "import", "-"],
        ["messages", "list", "--customer", "acme", "--user", "u"],
        ["messages", "export", "--customer", "acme", "--user", "u"],
        ["messages", "show", "m", "--customer", "acme", "--user", "u"],
    )
]


def commands(group=main, path=()):
    """Yield every command's words and the command."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


GROUPS = [(), *((name,) for name, command in main.commands.items() if isinstance(command, click.Group))]


@pytest.mark.parametrize("words", GROUPS)
def test_a_list_of_commands_has_whole_sentences(words):
    listed = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).stdout.partition("Commands:")[2]
    assert [line for line in listed.splitlines() if line.endswith("...")] == []
    assert listed.count("\n") >= 1


COMMANDS = [pytest.param(words, command, id=" ".join(words)) for words, command in commands()]


@pytest.mark.parametrize(("words", "command"), COMMANDS)
def test_help_shows_a_valid_example(words, command):
    result = run(*words, "--help")
    assert result.exit_code == 0
    _, _, example = result.stdout.partition("Example:\n    destination ")
    given = example.partition("\n")[0].split()
    assert tuple(given[: len(words)]) == words, "The docstring of the command needs an example"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= options


@pytest.mark.parametrize("words", [(), ("keys",), ("messages",)])
def test_a_group_without_a_command_lists_its_commands(words):
    result = run(*words)
    assert result.exit_code == 2
    assert "Commands:" in result.output


@pytest.mark.parametrize("command", [*ON_STORES, pytest.param(["ping"], id="ping")])
def test_error_without_a_server_says_how_to_start_it(command):
    result = run(*command, "--url", NOWHERE)
    assert result.exit_code == 1
    assert f"Error: No local server answers at {NOWHERE}" in result.stderr
    assert "start one with `make run`" in result.stderr


def test_other_server_is_not_a_local_server(server):
    result = run("messages", "list", "--url", f"{server.url}/segment")
    assert result.exit_code == 1
    assert "No local server answers at" in result.stderr


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize("command", ON_STORES)
def test_missing_stack_is_named(command):
    result = run(*command, "--stack", "nowhere")
    assert result.exit_code == 1
    assert "Error: The stack nowhere can't be read:" in result.stderr


def test_stack_of_another_kind_is_named(aws):
    aws.cloudformation().create_stack(
        StackName="shop", TemplateBody='{"Resources": {"Orders": {"Type": "AWS::SQS::Queue"}}}'
    )
    result = run("keys", "list", "--stack", "shop")
    assert result.exit_code == 1
    assert "Error: The stack shop has no output 'EventSink': is it a destination?" in result.stderr


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "You must specify a region. Set AWS_REGION to the stack's, or AWS_PROFILE to a profile that has it."),
        ({"AWS_REGION": ""}, "You must specify a region. Set AWS_REGION to the stack's"),
        (
            {"AWS_REGION": "eu-west-1"},
            "Unable to locate credentials. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        ),
    ],
    ids=str,
)
def test_error_without_region_or_credentials_names_the_variables(environment, sentence, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "BOTO_CONFIG"), "/nowhere")
    for name, value in {**nowhere, "AWS_EC2_METADATA_DISABLED": "true", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    result = run("keys", "list", "--stack", "prod")
    assert result.exit_code == 1
    assert f"Error: The stack prod can't be read: {sentence}" in result.stderr


def test_a_stack_is_found_by_its_outputs(aws):
    stack = create_local_stack(aws, {})
    table = KeyTable(aws.dynamodb(), stack.stores.key_table)
    table.put(KeyRecord.of(demo.GOOD_KEY, customer_id="acme"))
    for option in (["--stack", LOCAL_STACK], ["--table", stack.stores.key_table]):
        result = run("keys", "list", *option)
        assert result.exit_code == 0
        assert "acme" in result.stdout


@pytest.mark.usefixtures("aws")
def test_missing_table_is_reported_with_the_text_of_aws():
    result = run("keys", "list", "--table", "nowhere")
    assert result.exit_code == 1
    assert "Error: AWS answered: An error occurred (ResourceNotFoundException)" in result.stderr


def test_stack_and_table_exclude_each_other():
    result = run("keys", "list", "--stack", "prod", "--table", "keys")
    assert result.exit_code == 2
    assert "--stack and --table exclude each other" in result.stderr


CELL = 100 * "a long word "


@pytest.mark.parametrize("no_wrap", [True, False])
def test_output_to_a_file_is_not_cut(no_wrap, capsys):
    rows = Table("First", "Last", box=None)
    rows.columns[0].no_wrap = no_wrap
    rows.add_row(Text(CELL), Text("end"))
    stdout().print(rows)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["First", "Last"],
        [*CELL.split(), "end"],
    ]


def test_full_width_output_to_a_file_is_limited(capsys):
    sides = Table.grid(expand=True)
    sides.add_row("left", "right")
    stdout().print(sides)
    assert len(capsys.readouterr().out) < 1000


@pytest.mark.parametrize(
    "code",
    [0, 0x1B, 0x7F, 0x9B, 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xD800],
    ids=hex,
)
def test_control_characters_are_not_printed(code):
    assert printable(f"a{chr(code)}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_the_letters_of_all_languages_are_printed():
    text = "\N{ARABIC LETTER ALEF}\N{ZERO WIDTH NON-JOINER}\N{HEBREW LETTER SHIN} ü \N{GRINNING FACE}"
    assert printable(text) == text


@pytest.mark.parametrize("name", ["", "nowhere/keys", "file/keys"])
def test_unwritable_key_log_is_named_and_ignored(tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / name))
    result = run("ping", "--print")
    assert result.exit_code == 0
    assert f"SSLKEYLOGFILE is ignored, because {tmp_path / name} can't be written (" in result.stderr
    assert json.loads(result.stdout)["type"] == "track"
    assert "SSLKEYLOGFILE" not in os.environ


@pytest.mark.parametrize("name", ["new", "file"])
def test_writable_key_log_is_left_to_the_tls_library(tmp_path, monkeypatch, name):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / name))
    assert run("ping", "--print").stderr == ""
    assert os.environ["SSLKEYLOGFILE"] == str(tmp_path / name)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("count", "words"), [(0, "0 keys"), (1, "1 key"), (2, "2 keys"), (1000, "1,000 keys")])
def test_a_number_agrees_with_its_noun(count, words):
    assert counted(count, "key") == words
