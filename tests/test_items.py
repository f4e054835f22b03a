import base64
import json
import math
import random
import re
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searches import search

from destination.deployment.stack import ROOT
from handler.canonicalise import canonicalise
from handler.items import item_bytes, json_text, read_json_attribute, read_text_attribute, save_units
from handler.record import Record
from handler.sinks.dynamodb import EventTable

KEY = {"subject": {"S": "acme#user#u"}, "position": {"S": "undated#m-1"}}
KEY_BYTES = len("subject" + "acme#user#u" + "position" + "undated#m-1")
CALL_TYPES = ("identify", "track", "page", "screen", "group", "alias")


class Puts:
    """Stands for a client, and keeps the items that are put."""

    def __init__(self):
        self.items = []

    def put_item(self, **sent):
        self.items.append(sent["Item"])
        return {"ConsumedCapacity": {}}


def units(size):
    return math.ceil(size / 1024)


def digits(length):
    """Return a text that zlib makes about half as long."""
    return random.Random(17).randbytes(length).hex()[:length]  # noqa: S311 -- no secret


def item_with(text, **more):
    return {**KEY, "message": {"S": text}, **more}


@pytest.mark.parametrize(
    ("item", "size"),
    [
        (KEY, KEY_BYTES),
        ({"text": {"S": ""}}, 4),
        ({"text": {"S": "é灯😀"}}, 4 + 2 + 3 + 4),
        ({"bytes": {"B": b"\x00\xff"}}, 5 + 2),
        ({"n": {"N": "1936785612"}}, 1 + 5 + 1),
        ({"n": {"N": "1936785600"}}, 1 + 4 + 1),
        ({"n": {"N": "123"}}, 1 + 2 + 1),
    ],
)
def test_the_bytes_of_an_item_are_its_names_and_values(item, size):
    assert item_bytes(item) == size


@pytest.mark.parametrize(("full_units", "kind"), [(1, "S"), (2, "S"), (100, "B")])
def test_item_one_byte_above_a_unit_is_compressed(full_units, kind):
    room = full_units * 1024 - KEY_BYTES - len("message")
    fits, above = (item_with(digits(room - 40) + "." * dots) for dots in (40, 41))
    sizes = [save_units(item, "message") for item in (fits, above)]
    assert [[*item["message"]] for item in (fits, above)] == [[kind], ["B"]]
    assert max(sizes) <= full_units * 1024


def test_a_text_that_would_save_no_unit_stays_text():
    text = digits(1900)
    item = item_with(text)
    assert units(KEY_BYTES + 7 + len(zlib.compress(text.encode()))) == 2
    assert (save_units(item, "message"), item) == (KEY_BYTES + 7 + 1900, item_with(text))


@search(300)
@given(st.integers(0, 9000), st.integers(0, 9000), st.text(max_size=50))
def test_items_take_the_minimum_of_units(random_chars, equal_chars, more):
    text = digits(random_chars) + more + "." * equal_chars
    item = item_with(text)
    plain = item_bytes(item)
    compressed = plain - len(text.encode()) + len(zlib.compress(text.encode()))
    size = save_units(item, "message")
    assert size == item_bytes(item)
    assert read_text_attribute(item["message"]) == text
    if "B" in item["message"]:
        assert units(size) < units(plain)
        assert zlib.decompress(item["message"]["B"]).decode() == text
    else:
        assert size == plain
        assert units(compressed + 32) >= units(plain)  # another level of memory may differ by some bytes


def test_second_text_is_compressed_only_if_that_saves_a_unit():
    for chars, kinds in ((900, ["B", "S"]), (1100, ["B", "B"])):
        item = item_with("." * 900, settings={"S": "." * chars})
        assert save_units(item, "message", "settings") <= 1024
        assert [[*item[name]] for name in ("message", "settings")] == [[kind] for kind in kinds]


@pytest.mark.parametrize("call_type", CALL_TYPES)
def test_a_documented_message_takes_one_unit(call_type):
    event = json.loads((ROOT / "events" / f"{call_type}.json").read_text())
    [message] = canonicalise(json.loads(event["body"]))
    client = Puts()
    record = Record(customer_id="acme", message=message, settings={}, stored_at=1936785600.25)
    EventTable(client, "events", retention_days=365).write(record)
    [item] = client.items
    assert units(item_bytes(item)) == 1
    assert repr(read_json_attribute(item["message"])) == repr(message.body)


@pytest.mark.parametrize("text", ["{}", json_text({"text": "é" * 2000})], ids=["short", "long"])
def test_items_of_an_earlier_release_are_read(text):
    """It compressed texts above 64 KB, and no other ones."""
    for attribute in ({"S": text}, {"B": zlib.compress(text.encode())}):
        assert read_text_attribute(attribute) == text
        assert read_json_attribute(attribute) == json.loads(text)


@pytest.mark.parametrize("text", ["{}", json_text({"text": "é" * 2000})], ids=["short", "long"])
def test_code_of_the_documentation_reads_stored_items(text):
    page = (ROOT / "docs" / "reference" / "storage.md").read_text()
    names = {}
    exec(re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1], names)  # noqa: S102 -- our own page
    item = item_with(text)
    save_units(item, "message")
    assert names["message_of"](item) == json.loads(text)


def test_shell_line_of_the_documentation_reads_a_compressed_message():
    page = (ROOT / "docs" / "reference" / "storage.md").read_text()
    [program] = re.findall(r"^    python3 -c '(.*)'$", page, re.MULTILINE)
    item = item_with("é" * 2000)
    save_units(item, "message")
    printed = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program],
        input=base64.b64encode(item["message"]["B"]),
        capture_output=True,
        check=True,
    )
    assert printed.stdout.decode().strip() == "é" * 2000
