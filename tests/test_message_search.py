"""Test what `destination trace` says about where a message is, and when it says that the message may be lost."""

import time
from datetime import timedelta

import pytest
from request_lines import ACCEPTED, FAILED, REFUSED, function_line

from consumer.erasure.table import Receipt
from destination.deployment.stack import STORE_OUTPUTS, Account, Stores
from destination.deployment.target import Target
from destination.watching.lines import read_line
from destination.watching.search import SearchResult, describe, is_missing

RECEIPT = Receipt(
    customer_id="acme",
    user_hash="0",
    requested_at="2026-01-17T08:00:00.000000Z",
    started_at="2026-01-17T08:00:01.000000Z",
    finished_at="2026-01-17T08:00:02.000000Z",
    scope="user",
)


def target(**chosen):
    fields = dict.fromkeys(STORE_OUTPUTS, "x")
    known = {"event_sink": "dynamodb", "event_retention_days": "0", "rejects_retention_days": "30"}
    return Target(account=Account(), stores=Stores(**{**fields, **known, **chosen}))


def line(answered=ACCEPTED, *, days_ago=0, **facts):
    milliseconds = int((time.time() - timedelta(days=days_ago).total_seconds()) * 1000)
    return read_line(function_line(answered, message_id="m", time=milliseconds, **facts))


def gone(**facts):
    return SearchResult(items=[], rejects=(), **facts)


def told(result, *lines, **chosen):
    return list(describe(result, lines, target(**chosen), "the last 7 days")), is_missing(result, lines)


START = "It was accepted and is not in the event table: "


@pytest.mark.parametrize(
    ("result", "days_ago", "chosen", "reasons"),
    [
        (gone(receipts=()), 9, {}, "somebody deleted it, or it was lost."),
        (
            gone(receipts=[RECEIPT]),
            9,
            {},
            (
                "its user was erased (an erasure of this customer has finished since: `destination erasures list`), "
                "somebody deleted it, or it was lost."
            ),
        ),
        (
            gone(receipts=[RECEIPT, RECEIPT]),
            9,
            {},
            (
                "its user was erased (2 erasures of this customer have finished since: `destination erasures list`), "
                "somebody deleted it, or it was lost."
            ),
        ),
        (
            gone(),
            9,
            {},
            "its user was erased (`destination erasures list`), somebody deleted it, or it was lost.",
        ),
        (gone(receipts=()), 6, {"event_retention_days": "7"}, "somebody deleted it, or it was lost."),
        (
            gone(receipts=()),
            9,
            {"event_retention_days": "7"},
            "it expired after EventRetentionDays=7, somebody deleted it, or it was lost.",
        ),
        (
            gone(receipts=(), names_user=True),
            9,
            {},
            "it belongs to another user than the given one, somebody deleted it, or it was lost.",
        ),
    ],
)
def test_lost_message_has_its_possible_reasons(result, days_ago, chosen, reasons):
    assert told(result, line(days_ago=days_ago), **chosen) == ([START + reasons], True)


def test_the_newest_delivery_decides_whether_a_message_has_expired():
    sentences, _ = told(gone(receipts=()), line(days_ago=9), line(days_ago=1), event_retention_days="7")
    assert sentences == [f"{START}somebody deleted it, or it was lost."]


def test_receipt_of_the_named_user_explains_a_missing_message():
    [sentence], missing = told(gone(receipts=[RECEIPT], names_user=True), line())
    assert (sentence.startswith("It is not in the event table any more: its user was erased"), missing) == (True, False)


def test_only_a_receipt_explains_a_missing_delete():
    carried_out, missing = told(gone(receipts=[RECEIPT]), line(call_type="delete"))
    assert ("was carried out" in carried_out[0], missing) == (True, False)
    [sentence], missing = told(gone(receipts=()), line(call_type="delete"))
    assert ("there is no receipt of the erasure that it requested" in sentence, missing) == (True, True)


@pytest.mark.parametrize(
    ("result", "days_ago", "chosen", "reasons"),
    [
        (gone(receipts=()), 1, {}, "it was purged, or it was lost."),
        (
            gone(receipts=()),
            40,
            {},
            "it expired after RejectsRetentionDays=30, it was purged, or it was lost.",
        ),
        (
            gone(receipts=()),
            1,
            {"rejects_retention_days": ""},
            "it expired by RejectsRetentionDays, it was purged, or it was lost.",
        ),
    ],
)
def test_missing_reject_has_its_possible_reasons(result, days_ago, chosen, reasons):
    refused = line(REFUSED, days_ago=days_ago, kept=True)
    assert told(result, refused, **chosen) == ([f"It is not among the rejects any more: {reasons}"], True)


def test_receipt_of_the_named_user_explains_a_missing_reject():
    [sentence], missing = told(gone(receipts=[RECEIPT], names_user=True), line(REFUSED, kept=True))
    assert sentence == "It is not among the rejects any more: its user was erased since (`destination erasures list`)."
    assert not missing


def test_missing_reject_may_be_retried_if_the_table_was_not_searched():
    sentences, missing = told(SearchResult(items=None, rejects=()), line(REFUSED, kept=True))
    assert "it was retried, its user was erased" in sentences[-1]
    assert not missing


@pytest.mark.parametrize("answered", [REFUSED, FAILED])
def test_message_never_stored_or_kept_is_not_missing(answered):
    assert not is_missing(gone(receipts=()), [line(answered, kept=False)])
