"""Test that `destination simulate` sees forbidden content of request lines."""

import base64
import json

import pytest

from destination.simulation.breaches import Breaches
from destination.simulation.log_lines import LogLines

KEY = "ddk_0123456789abcdef"
GOOD = {"message": "request", "customer_id": "simulated-1-0", "message_id": "piece-7", "outcome": "accepted"}
SECRETS = {
    "a key": KEY,
    "a header": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode(),
    "an address": "to ada@example.com",
    "a user": "piece-user-3",
    "a visitor": "507f191e-0003",
    "a body": '{"bio": "long text жж"}',
}


def judged(file, *lines, before=()):
    file.write_text("".join(f"{json.dumps(line)}\n" for line in before))
    log = LogLines(file)
    with file.open("a") as output:
        output.writelines(f"{json.dumps(line)}\n" for line in lines)
    breaches = Breaches()
    log.judge([KEY], breaches)
    return list(breaches.lines())


def test_lines_of_facts_are_fine(tmp_path):
    assert judged(tmp_path / "log", GOOD, GOOD) == []


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_line_with_a_secret_is_reported_without_it(tmp_path, secret):
    lines = judged(tmp_path / "log", GOOD, {**GOOD, "user": secret})
    assert lines[0] == "Not so: request lines hold no API key and no personal data."
    assert '"user": "' in lines[1]
    assert KEY not in lines[1]
    assert "ada@example.com" not in lines[1]


def test_lines_of_earlier_runs_do_not_count(tmp_path):
    assert judged(tmp_path / "log", GOOD, before=[{**GOOD, "user": KEY}]) == []


def test_recreated_file_is_read_completely(tmp_path):
    file = tmp_path / "log"
    file.write_text(json.dumps(GOOD) * 10)
    log = LogLines(file)
    file.write_text(json.dumps({**GOOD, "user": KEY}))
    breaches = Breaches()
    log.judge([KEY], breaches)
    assert breaches.times.total() == 1


def test_a_deployment_without_a_file_is_not_judged(tmp_path):
    breaches = Breaches()
    for file in (None, tmp_path / "none"):
        LogLines(file).judge([KEY], breaches)
    assert not breaches
