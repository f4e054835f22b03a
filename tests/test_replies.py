"""Test that the judge of `destination simulate` sees faults in the answers of a whole run."""

import json

import pytest

from destination.segment.contract import STATUS_BY_CODE
from destination.segment.endpoint import Reply
from destination.simulation.fingerprint import Fingerprint
from destination.simulation.ledger import TIMED_OUT, Book, End, Ledger
from destination.simulation.replies import Circumstances, judge_replies
from destination.simulation.routes import label_of
from destination.simulation.traffic import Sending, Traffic

TRAFFIC = Traffic(seed=1, customers=2, call_types=("track",))
QUIET = {"has_faults": False, "timeout_seconds": 5.0, "is_table": True, "in_batches": False, "may_have_sent": False}
MESSAGES = 100


def run_of(*, stored=1, duplicates=0, is_unclear=False, answers=(), **changes):
    """Return the ledger of a run: the answer to each message, and other answers as (time, ms, label)."""
    ledger = Ledger(**changes)
    for index in range(MESSAGES):
        fingerprint = Fingerprint(identity=str(index).encode(), content=str(index).encode())
        ledger.messages[fingerprint] = End.ACCEPTED
        book = Book(sending=Sending(index=index), stored=stored, duplicates=duplicates, is_unclear=is_unclear)
        ledger.books[fingerprint] = book
        ledger.tries.add(index / 10, 50, "200 stored")
    for answer in answers:
        ledger.tries.add(*answer)
    return ledger


def with_first_duplicates(count):
    """Return a run in which this many messages were "duplicate" at their first delivery."""
    ledger = run_of()
    for book in list(ledger.books.values())[:count]:
        book.stored, book.duplicates = 0, 1
    return ledger


def judged(ledger, **circumstances):
    judge_replies(ledger, TRAFFIC, Circumstances(**QUIET | circumstances))
    return "\n".join(ledger.breaches.lines())


def all_over(count, milliseconds, label):
    return [(10 * number / count, milliseconds, label) for number in range(count)]


GOOD = {
    "all stored once": run_of(),
    "each sent twice": run_of(duplicates=1),
    "stored by a try without an answer": run_of(stored=0, duplicates=1, is_unclear=True),
    "a store call made again, without an answer": with_first_duplicates(2),
    "an outage": run_of(answers=[(5.0, 20, "503 event_store_unavailable")] * 50),
    "a pause": run_of(answers=[(5.0, 5000, TIMED_OUT)] * 20),
    "no time": run_of(answers=all_over(20, 20, "503 deadline_close")),
    "killed functions": run_of(answers=all_over(20, 20, "500")),
}


@pytest.mark.parametrize("ledger", GOOD.values(), ids=GOOD)
def test_good_run_has_no_findings(ledger):
    assert judged(ledger) == ""


BAD = {
    "duplicate at once": (with_first_duplicates(3), "3 of 100 messages"),
    "always stored": (run_of(stored=2), 'answered "stored"'),
    "always duplicate": (run_of(stored=0, duplicates=1), "not a duplicate"),
    "some fail": (run_of(answers=all_over(10, 20, "503 event_store_unavailable")), "no 503"),
    "some are slow": (run_of(answers=all_over(10, 4700, "200 stored")), "10 of 110 tries"),
    "some never come": (run_of(answers=all_over(10, 5000, TIMED_OUT)), "without any answer within 5 s"),
    "no refusal": (run_of(invalid_given_up=3), "3 messages that must be refused"),
}


@pytest.mark.parametrize(("ledger", "words"), BAD.values(), ids=BAD)
def test_wrong_answers_are_described(ledger, words):
    assert words in judged(ledger)


@pytest.mark.parametrize("has_faults", [True, None])
def test_faults_of_stores_explain_no_duplicates(has_faults):
    assert "3 of 100 messages" in judged(with_first_duplicates(3), has_faults=has_faults)


@pytest.mark.parametrize("has_faults", [True, None])
def test_failures_and_waits_are_allowed_if_stores_may_fail(has_faults):
    answers = [*all_over(20, 20, "503 event_store_unavailable"), *all_over(20, 5000, TIMED_OUT)]
    assert judged(run_of(answers=answers), has_faults=has_faults) == ""


def test_a_seed_that_was_sent_before_finds_duplicates():
    assert judged(run_of(stored=0, duplicates=1), may_have_sent=True) == ""


def test_a_queue_knows_no_duplicates():
    assert judged(run_of(stored=2), is_table=False) == ""


@pytest.mark.parametrize(
    ("deliveries", "duplicates", "words"),
    [(1, 0, ""), (1, 2, ""), (2, MESSAGES, ""), (2, 0, 'answered "stored"'), (1, 3, "not a duplicate")],
)
def test_batches_are_judged_by_their_counts(deliveries, duplicates, words):
    ledger = run_of(stored=deliveries)
    ledger.duplicates = duplicates
    text = judged(ledger, in_batches=True)
    assert words in text
    assert bool(text) == bool(words)


@pytest.mark.parametrize("code", sorted(STATUS_BY_CODE))
def test_labels_of_answers_contain_their_codes(code):
    reply = Reply(status=STATUS_BY_CODE[code], body=json.dumps({"code": code}).encode())
    assert label_of(reply) == f"{STATUS_BY_CODE[code]} {code}"


def test_overlong_code_is_not_in_the_label():
    reply = Reply(status=503, body=json.dumps({"code": "x" * 40}).encode())
    assert label_of(reply) == "503"
