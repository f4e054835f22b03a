"""Test the cost model, and docs/explanation/scale.md, which shows it."""

import itertools
import json
import re
import sys
from dataclasses import replace
from datetime import date

import pytest
from click.testing import CliRunner

from bench import cost_docs, samples
from bench.__main__ import main
from bench.cost import BATCH_MESSAGES, KINDS, SIZES_KB, store_subject, written_bytes
from bench.cost_model import (
    MILLION,
    Data,
    Store,
    assumed,
    assumptions,
    charges,
    dollars,
    met_limits,
    metrics_dollars,
    month_dollars,
    price_dollars,
    uses,
)
from bench.store_server import StoreServer
from bench.subjects import checkout_codes
from destination.deployment.stack import load_template
from destination.paths import ROOT

DATA = Data.load()
PYTHON = [sys.executable]


def test_the_docs_agree_with_the_model():
    text = cost_docs.DOCS.read_text()
    assert cost_docs.rewritten(text, DATA) == text, "python -m bench cost --recorded --write"


def test_the_docs_show_every_table():
    assert sorted(re.findall(r"<!-- cost: (\w+) -->", cost_docs.DOCS.read_text())) == sorted(cost_docs.BLOCKS)


def test_unknown_mark_is_an_error():
    with pytest.raises(KeyError):
        cost_docs.rewritten("<!-- cost: other -->\n<!-- end -->", DATA)


@pytest.mark.parametrize("name", DATA.prices)
def test_every_price_affects_a_table(name):
    price = DATA.prices[name]
    higher = {**price, "tiers": [{**tier, "dollars": 3 * tier["dollars"]} for tier in price["tiers"]]}
    changed = replace(DATA, prices={**DATA.prices, name: higher})
    tables = [block for name, block in cost_docs.BLOCKS.items() if name != "prices"]
    assert any(block(changed) != block(DATA) for block in tables)


@pytest.mark.parametrize("name", [name for name in assumptions() if name != "limits"])
def test_every_assumption_affects_a_table(name, monkeypatch):
    tables = [block for block in cost_docs.BLOCKS if block != "assumptions"]
    before = [cost_docs.BLOCKS[block](DATA) for block in tables]
    monkeypatch.setitem(assumptions(), name, {**assumptions()[name], "value": 3 * assumed(name)})
    assert [cost_docs.BLOCKS[block](DATA) for block in tables] != before


@pytest.mark.parametrize("change", ["processor_ms", "line_bytes", "stored_bytes", "init_ms", "memory_mb"])
def test_measured_figures_all_affect_a_table(change):
    case = DATA.case()
    more = replace(case, **{change: 10 * getattr(case, change)})
    assert sum(dollars(DATA, charges(more)).values()) > sum(dollars(DATA, charges(case)).values())


@pytest.mark.parametrize("kilobytes", [1, 2, 4, 32, 128])
def test_dynamodb_bills_a_write_unit_for_each_kilobyte(kilobytes):
    def units(stored_bytes):
        case = replace(DATA.case(), stored_bytes=stored_bytes)
        return dollars(DATA, charges(case))["DynamoDB writes"] / DATA.prices["dynamodb_writes"]["tiers"][0]["dollars"]

    assert units(kilobytes * 1024) == pytest.approx(kilobytes)
    assert units(kilobytes * 1024 + 1) == pytest.approx(kilobytes + 1)


@pytest.mark.parametrize(("kilobytes", "requests"), [(1, 3), (64, 3), (65, 5), (128, 5), (300, 11)])
def test_sqs_bills_each_64_kb_sent_and_received_and_a_deletion(kilobytes, requests):
    for store, price in ((Store.SQS, "sqs_standard"), (Store.FIFO, "sqs_fifo")):
        case = replace(DATA.case(store), stored_bytes=kilobytes * 1024)
        expected = requests * price_dollars(DATA.prices[price], MILLION)
        assert dollars(DATA, charges(case))["SQS"] == pytest.approx(expected)


def test_parts_add_up_to_the_sum():
    for row in cost_docs.by_message(DATA).rows.values():
        parts = [value for name, value in row.items() if name != cost_docs.SUM]
        assert sum(parts) == pytest.approx(row[cost_docs.SUM])


TIERS = [{"dollars": 2, "up_to": 100}, {"dollars": 1, "up_to": 200}, {"dollars": 0.5}]


@pytest.mark.parametrize(("quantity", "expected"), [(0, 0), (50, 10), (100, 20), (150, 25), (300, 35)])
def test_tiers_have_their_own_prices(quantity, expected):
    assert price_dollars({"per": 10, "tiers": TIERS}, quantity) == pytest.approx(expected)


def test_charges_of_one_price_share_its_tiers():
    data = replace(DATA, prices={"a": {"per": 1, "tiers": [{"dollars": 2, "up_to": 10}, {"dollars": 1}]}})
    assert dollars(data, [("x", "a", 1), ("y", "a", 1)], 10) == {"x": 15, "y": 15}


@pytest.mark.parametrize("store", Store)
def test_a_batch_is_one_request_and_each_message_is_stored(store):
    batch = next(case for case in DATA.cases() if (case.store, case.messages) == (store, BATCH_MESSAGES))
    one, each = (dollars(DATA, charges(case)) for case in (DATA.case(store), batch))
    for part in ("HTTP API", "Lambda requests"):
        assert each[part] == pytest.approx(one[part] / BATCH_MESSAGES)
    assert each["Lambda GB-s"] < one["Lambda GB-s"]
    assert each.get("DynamoDB writes") == one.get("DynamoDB writes")
    assert each.get("SQS", 0) == pytest.approx(0.7 * one.get("SQS", 0))  # sent ten at a time: 2.1 requests instead of 3


@pytest.mark.parametrize(
    ("store", "messages", "calls"),
    [
        (Store.DYNAMODB, 1, 1),
        (Store.DYNAMODB, 8, 1),
        (Store.DYNAMODB, 100, 13),
        (Store.SQS, 100, 2),
        (Store.FIFO, 100, 10),
    ],
)
def test_calls_run_concurrently_except_to_a_fifo_queue(store, messages, calls):
    assert replace(DATA.case(store), messages=messages).calls_in_sequence == calls


def test_more_memory_is_faster_and_costs_more():
    for less, more in itertools.pairwise(cost_docs.by_memory(DATA).rows.values()):
        assert more["ms"] < less["ms"]
        assert more["cold ms"] < less["cold ms"]
        assert less["GB-s arm64 $"] < more["GB-s arm64 $"] < more["GB-s x86_64 $"]


def test_metrics_cost_the_same_at_any_rate():
    assert month_dollars(DATA, DATA.case(), 1e-9) == pytest.approx(metrics_dollars(DATA), abs=0.01)


def test_limits_are_in_the_order_in_which_a_rate_meets_them():
    rates = [rate for rate, _ in met_limits(DATA)]
    assert rates == sorted(rates)
    assert {limit["store"] for _, limit in met_limits(DATA)} <= {"all", *Store}


def test_larger_items_meet_the_limits_of_tables_sooner():
    small, large = (uses(replace(DATA.case(), stored_bytes=size * 1024)) for size in (1, 4))
    assert {use for use in small if small[use] != large[use]} == {"write units", "write units of the busiest user"}
    assert large["write units"] == 4 * small["write units"]


def test_prices_have_a_source_and_a_date():
    for name, price in DATA.prices.items():
        assert price["source"].startswith("https://"), name
        assert date.fromisoformat(price["valid"]), name
        assert price["verified"] in ("AWS", "others", "no"), name
        assert price["verified"] != "no" or price["note"], name


ACCESS_LOG_VALUES = {
    "requestId": "JKJaXmPLvHcESHA=",
    "requestTime": "12/Mar/2026:09:30:00 +0000",
    "routeKey": "POST /segment",
    "status": "200",
    "responseLatency": "14",
    "integrationStatus": "200",
    "responseLength": "107",
    "identity.sourceIp": "192.0.2.10",
}


def test_assumed_access_log_equals_the_template():
    log_format = load_template()["Resources"]["Api"]["Properties"]["AccessLogSettings"]["Format"]
    line = re.sub(r"\$context\.([\w.]+)", lambda match: ACCESS_LOG_VALUES[match[1]], log_format)
    assert len(line) == pytest.approx(assumed("access_log_bytes"), rel=0.05)


@pytest.mark.parametrize("kilobytes", SIZES_KB)
def test_sample_order_has_exactly_its_size(kilobytes):
    event = json.loads(samples.order(kilobytes, status=200).event)
    assert len(event["body"].encode()) == kilobytes * 1024 == int(event["headers"]["content-length"])
    assert len(json.loads(event["body"])["properties"]["products"]) >= 2


@pytest.mark.processes
@pytest.mark.parametrize("sink", Store)
def test_function_still_writes_the_recorded_sizes(sink):
    recorded = [case for case in DATA.recorded["cases"] if case["store"] == sink]
    with StoreServer() as store:
        subject = store_subject(sink, checkout_codes().destination, store)
        written = list(written_bytes(subject, store, PYTHON))
    for now, before, kind in zip(written, recorded, KINDS, strict=True):
        told = f"{kind}: python -m bench cost --write"
        assert now["stored_bytes"] == pytest.approx(before["stored_bytes"], rel=0.02), told  # zlib versions differ
        assert now["line_bytes"] == pytest.approx(before["line_bytes"], rel=0.03), told


def test_the_command_computes_from_recorded_figures(tmp_path):
    results = tmp_path / "bench.json"
    result = CliRunner().invoke(main, ["cost", "--recorded", "--json", str(results)])
    assert result.exit_code == 0, result.output
    assert "Dollars per million messages" in result.output
    [first, *_] = json.loads(results.read_bytes())["cost"]["tables"]
    assert len(first["rows"]) == len(Store) * len(KINDS)


def test_price_of_a_month_equals_the_docs():
    result = CliRunner().invoke(main, ["month", "--rate", "100"])
    row = cost_docs.by_rate(DATA).rows["100"]
    printed = [float(word.replace(",", "")) for word in re.findall(r"[\d,]+\.\d\d(?=\n)", result.output)]
    assert printed == pytest.approx([value for name, value in row.items() if name.endswith("$")], abs=0.01)


def test_the_prices_on_the_page_for_approvers_are_computed():
    page = (ROOT / "docs" / "how-to" / "cost.md").read_text()
    rows = re.findall(r"^\| ([\d,]+(?: \| [\d,]+){6}) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        rate, *documented = [int(number.replace(",", "")) for number in row.split(" | ")]
        computed = [month_dollars(DATA, DATA.case(), rate, month=month) for month in (1, 6, 12, 24)]
        computed += [month_dollars(DATA, DATA.case(store), rate) for store in (Store.SQS, Store.FIFO)]
        assert documented == [round(dollars) for dollars in computed]


def test_only_tables_cost_more_each_month():
    for store in (Store.SQS, Store.FIFO):
        assert month_dollars(DATA, DATA.case(store), 1, month=12) == month_dollars(DATA, DATA.case(store), 1)
