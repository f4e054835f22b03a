"""What messages cost, and that `docs/explanation/scale.md` says so."""

import itertools
import json
import re
import sys
from dataclasses import replace
from datetime import date

import pytest
from click.testing import CliRunner

from bench import cost_docs
from bench.__main__ import main
from bench.cost import KILOBYTE, SIZES_KB, measured_batches, measured_line_bytes, sample, store_subject, stored_bytes
from bench.cost_limits import ALL, limits
from bench.cost_model import (
    ASSUMPTIONS,
    METRICS,
    MILLION,
    PRICES,
    Batch,
    Charge,
    Price,
    Recorded,
    Sample,
    Store,
    Tier,
    bill,
    by_part,
    charges,
    collector_dollars,
    dollars,
    front_dollars,
    load_prices,
    log_bytes,
    month_dollars,
)
from bench.store_server import StoreServer
from bench.subjects import checkout_codes

PYTHON = [sys.executable]


@pytest.fixture(scope="module")
def source():
    return cost_docs.Source(prices=load_prices(), recorded=Recorded.load())


def resized(case, stored_bytes):
    return replace(case, sample=replace(case.sample, stored_bytes=stored_bytes))


def test_the_docs_say_what_is_computed(source):
    text = cost_docs.DOCS.read_text()
    assert cost_docs.rewritten(text, source.prices, source.recorded) == text, "python -m bench cost --recorded --write"


def test_the_docs_show_all_there_is():
    assert sorted(re.findall(r"<!-- cost: (\w+) -->", cost_docs.DOCS.read_text())) == sorted(cost_docs.BLOCKS)


@pytest.mark.parametrize("name", json.loads(PRICES.read_bytes())["prices"])
def test_each_price_counts_in_the_docs(name, source):
    """A price that is not used, or a table that does not follow it, would go stale unseen."""
    price = source.prices[name]
    dearer = replace(price, tiers=tuple(replace(tier, dollars=3 * tier.dollars) for tier in price.tiers))
    dear = cost_docs.Source(prices={**source.prices, name: dearer}, recorded=source.recorded)
    tables = [block for block in cost_docs.BLOCKS if block != "prices"]
    assert any(cost_docs.BLOCKS[block](dear) != cost_docs.BLOCKS[block](source) for block in tables)


def test_slower_functions_and_longer_lines_cost_more(source):
    case = source.case()
    slower = replace(case.sample, processor_microseconds=2 * case.sample.processor_microseconds)
    longer = replace(case.recorded, request_line_bytes=2 * case.recorded.request_line_bytes)
    before = dollars(source.prices, case)
    assert dollars(source.prices, replace(case, sample=slower))["Lambda"] > before["Lambda"]
    assert dollars(source.prices, replace(case, recorded=longer))["Logs"] > before["Logs"]


@pytest.mark.parametrize("kilobytes", [1, 2, 4, 32, 128])
def test_twice_the_bytes_are_twice_the_write_units_of_dynamodb(kilobytes, source):
    def first(price):
        return source.prices[price].dollars(MILLION)

    def writes(stored):
        bills = bill(source.prices, charges(resized(source.case(), stored)), MILLION)
        return sum(spent for charge, spent in bills if charge.item == "writes")

    assert writes(2 * kilobytes * KILOBYTE) == pytest.approx(2 * writes(kilobytes * KILOBYTE))
    assert writes(kilobytes * KILOBYTE + 1) == pytest.approx(writes(kilobytes * KILOBYTE) + first("dynamodb_writes"))


@pytest.mark.parametrize(("kilobytes", "requests"), [(1, 3), (64, 3), (65, 5), (128, 5), (300, 11)])
def test_sqs_bills_each_64_kb_that_is_sent_and_received_and_a_deletion(kilobytes, requests, source):
    for store, price in ((Store.SQS, "sqs_standard"), (Store.FIFO, "sqs_fifo")):
        case = resized(source.case(store), kilobytes * KILOBYTE)
        assert dollars(source.prices, case)["SQS"] == pytest.approx(requests * source.prices[price].dollars(MILLION))


def test_sums_add_up(source):
    for case in source.cases():
        bills = bill(source.prices, charges(case), MILLION)
        assert sum(by_part(bills).values()) == pytest.approx(sum(spent for _, spent in bills))
    for row in cost_docs.by_message(source).rows:
        parts = [value for name, value in row.figures.items() if not name.startswith(cost_docs.SUM)]
        assert sum(parts) == pytest.approx(row.figures[cost_docs.SUM])


def priced(*tiers, per=1):
    return Price(what="", unit="", per=per, tiers=tiers, source="", valid="", verified="", note="")


@pytest.mark.parametrize(("quantity", "expected"), [(0, 0), (50, 10), (100, 20), (150, 25), (300, 35)])
def test_a_tier_costs_what_lies_in_it(quantity, expected):
    price = priced(Tier(dollars=2, up_to=100), Tier(dollars=1, up_to=200), Tier(dollars=0.5), per=10)
    assert price.dollars(quantity) == pytest.approx(expected)


def test_charges_of_one_price_share_its_tiers():
    prices = {"a": priced(Tier(dollars=2, up_to=10), Tier(dollars=1))}
    used = [Charge(part=part, item="", price="a", quantity=1) for part in ("x", "y")]
    assert by_part(bill(prices, used, 10)) == {"x": 15, "y": 15}


def test_a_batch_is_one_request_and_each_message_is_written(source):
    for case in source.batches():
        single, together = (
            {(charge.part, charge.item): charge.quantity for charge in charges(each)}
            for each in (replace(case, batch=None), case)
        )
        for item in (("HTTP API", "requests"), ("HTTP API", "data out"), ("Lambda", "requests")):
            assert together[item] == pytest.approx(single[item] / 100)
        for item in (("DynamoDB", "writes"), ("DynamoDB", "storage"), ("SQS", "receive"), ("SQS", "delete")):
            assert together.get(item) == single.get(item)
        assert together["Lambda", "GB-s"] < single["Lambda", "GB-s"]
        assert together.get(("SQS", "send"), 1) in (1, pytest.approx(1 / 10))


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
def test_calls_of_a_store_go_beside_each_other_but_of_a_fifo_queue(store, messages, calls):
    assert Batch(store=store, kilobytes=1, messages=messages, processor_ratio=1, line_bytes=1).calls == calls


def test_each_store_is_measured_with_batches(source):
    assert [(each.store, each.messages) for each in source.recorded.batches] == [(store, 100) for store in Store]


def test_more_memory_answers_sooner_and_costs_more(source):
    rows = [row.figures for row in cost_docs.by_memory(source).rows]
    for less, more in itertools.pairwise(rows):
        assert more["ms"] < less["ms"]
        assert more["cold ms"] < less["cold ms"]
        assert more["GB-s arm64 $"] > less["GB-s arm64 $"]
    assert all(row["GB-s arm64 $"] < row["GB-s x86_64 $"] for row in rows)


def test_at_the_break_even_both_cost_the_same(source):
    rate = cost_docs.break_even(source)

    def difference(rate):
        case = source.case(rate=rate)
        return front_dollars(source.prices, case) - collector_dollars(source.prices, case)

    assert difference(rate) == pytest.approx(0, abs=0.01)
    assert difference(rate / 2) < 0 < difference(rate * 2)


def test_metrics_cost_the_same_at_any_rate(source):
    quiet = source.case(rate=1e-9)
    assert month_dollars(source.prices, quiet) == pytest.approx(
        source.prices["metrics"].dollars(METRICS.value), abs=0.01
    )


def test_keys_are_read_at_most_once_per_message(source):
    [reads] = [charge.quantity for charge in charges(source.case(rate=0.01)) if charge.item == "key reads"]
    [rarer] = [charge.quantity for charge in charges(source.case(rate=100)) if charge.item == "key reads"]
    assert (reads, rarer) == (1, pytest.approx(20 / 60 / 100))


def test_bigger_items_meet_the_limits_of_tables_sooner(source):
    small, big = (
        {limit.name: limit.rate for limit in limits(resized(source.case(), stored)) if limit.store != ALL}
        for stored in (KILOBYTE, 4 * KILOBYTE)
    )
    assert small == {"one partition key": 10_000, "a new table": 4_000, "the table's quota": 40_000}
    assert big == {name: rate / 4 for name, rate in small.items()}


@pytest.mark.parametrize(
    ("store", "own"),
    [
        (Store.DYNAMODB, {"one partition key", "a new table", "the table's quota"}),
        (Store.SQS, set()),
        (Store.FIFO, {"one message group", "the FIFO queue"}),
    ],
)
def test_a_store_has_its_own_limits_and_the_lowest_comes_first(store, own, source):
    found = limits(source.case(store))
    assert {limit.name for limit in found if limit.store != ALL} == own
    assert [limit.rate for limit in found] == sorted(limit.rate for limit in found)


def test_each_price_tells_where_and_when_it_was_read(source):
    for name, price in source.prices.items():
        assert price.source.startswith("https://"), name
        assert date.fromisoformat(price.valid), name
        assert price.verified in ("AWS", "others", "no"), name
        assert price.verified != "no" or price.note, name


def test_each_assumption_is_stated_once():
    assert len({assumption.what for assumption in ASSUMPTIONS}) == len(ASSUMPTIONS)


def test_the_access_log_is_that_of_the_template(source):
    assert 200 < log_bytes(source.recorded)["access log"] < 300


@pytest.mark.parametrize("kilobytes", SIZES_KB)
def test_a_message_has_just_the_size_that_it_stands_for(kilobytes):
    event = json.loads(sample(kilobytes, status=200).event)
    assert len(event["body"].encode()) == kilobytes * KILOBYTE == int(event["headers"]["content-length"])
    assert len(json.loads(event["body"])["properties"]["products"]) >= 2


@pytest.fixture(scope="module")
def store():
    with StoreServer() as store:
        yield store


@pytest.mark.processes
@pytest.mark.parametrize(("sink", "kilobytes"), [(Store.DYNAMODB, 1), (Store.DYNAMODB, 300), (Store.SQS, 1)])
def test_what_is_recorded_is_what_the_function_writes(sink, kilobytes, store, source):
    subject = store_subject(sink, kilobytes, code=checkout_codes().destination, store_url=store.url)
    written = stored_bytes(sink, subject, store, PYTHON)
    recorded = source.recorded.sample(sink, kilobytes).stored_bytes
    assert written == pytest.approx(recorded, rel=0.005), "python -m bench cost --write"  # zlib's differ by a little


@pytest.mark.processes
def test_the_line_that_is_recorded_is_about_as_long_as_the_functions_own(store, source):
    subject = store_subject(Store.DYNAMODB, 1, code=checkout_codes().destination, store_url=store.url)
    recorded = source.recorded.request_line_bytes
    assert measured_line_bytes(subject, store, PYTHON) == pytest.approx(recorded, rel=0.03), "bench cost --write"


@pytest.mark.processes
def test_batches_are_measured_by_what_single_messages_take(source):
    batches = measured_batches(checkout_codes().destination, PYTHON, rounds=1)
    for each, recorded in zip(batches, source.recorded.batches, strict=True):
        assert each.line_bytes == pytest.approx(recorded.line_bytes, rel=0.03), "python -m bench cost --write"
        assert 0 < each.processor_ratio < 10


def test_the_command_computes_from_what_is_recorded(tmp_path):
    results = tmp_path / "bench.json"
    told = CliRunner().invoke(main, ["cost", "--recorded", "--json", str(results)])
    assert told.exit_code == 0, told.output
    assert "Dollars per million messages" in told.output
    [first, *_] = json.loads(results.read_bytes())["cost"]["tables"]
    assert len(first["rows"]) == len(Store) * len(SIZES_KB)


def test_a_mark_that_nobody_knows_is_not_passed_over(source):
    with pytest.raises(KeyError):
        cost_docs.rewritten("<!-- cost: other -->\n<!-- end -->", source.prices, source.recorded)


def test_what_is_recorded_can_be_read_again(source):
    assert all(isinstance(each, Sample) and each.store in Store for each in source.recorded.samples)
    assert source.recorded.sizes == list(SIZES_KB)
