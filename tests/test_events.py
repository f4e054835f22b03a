"""Every file in events/ is answered as events/README.md says, by both sinks."""

import json
import re

import pytest

from cli.stack import ROOT

EVENTS = ROOT / "events"
ROW = re.compile(
    r"^\| `(?P<file>[\w-]+\.json)` \| .+ \| (?P<status>\d+) \| `(?P<code>\w+)` \| (?P<message>.*?) ?\|$", re.MULTILINE
)
ROWS = {row["file"]: row for row in ROW.finditer((EVENTS / "README.md").read_text())}


def test_the_table_names_every_file():
    assert sorted(ROWS) == sorted(path.name for path in EVENTS.glob("*.json"))


@pytest.mark.parametrize("file", ROWS)
def test_an_event_is_answered_as_its_row_says(file, deploy):
    answer = deploy().send(json.loads((EVENTS / file).read_text()))
    said = answer.body.get("code", answer.body.get("status"))
    assert (str(answer.status), said) == (ROWS[file]["status"], ROWS[file]["code"])
    if answer.status not in (200, 202):
        assert answer.body["message"] == ROWS[file]["message"]


@pytest.mark.parametrize("file", ROWS)
def test_with_a_queue_what_was_200_is_202(file, deploy):
    destination = deploy(EventSink="sqs")
    answer = destination.send(json.loads((EVENTS / file).read_text()))
    accepted = ROWS[file]["status"] in ("200", "202")
    assert str(answer.status) == ("202" if accepted else ROWS[file]["status"])
    assert len(destination.queued()) == accepted
