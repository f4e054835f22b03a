"""Test the traffic of a small shop."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random

import pytest

from destination.paths import SCHEMAS
from destination.schemas.check import load_schemas
from destination.segment.shop import PEOPLE, shop_traffic
from handler.canonicalise import canonicalise
from handler.judge import Judge
from handler.spec import CALL_TYPES

SEEDS = range(5)


def played(seed):
    """Return a shop's traffic, one message per second."""
    seconds = count()
    begin = datetime(2026, 3, 12, tzinfo=UTC)
    random = Random(seed)  # noqa: S311 -- no secret
    return [*shop_traffic(random, lambda: begin + timedelta(seconds=next(seconds)))]


@pytest.fixture(scope="module")
def judge():
    return Judge(schemas=load_schemas(SCHEMAS), supported_call_types=frozenset(CALL_TYPES))


@pytest.mark.parametrize("seed", SEEDS)
def test_messages_pass_the_schemas_with_one_exception(seed, judge):
    messages = [canonicalise(message)[0] for message in played(seed)]
    refusals = [refusal for refusal in judge.refusals(messages, "") if refusal is not None]
    assert [str(refusal) for refusal in refusals] == ["event must not be empty"]


@pytest.mark.parametrize("seed", SEEDS)
def test_repeated_message_is_unchanged(seed):
    messages = played(seed)
    times_sent = Counter(message["messageId"] for message in messages)
    [repeated] = [message_id for message_id, times in times_sent.items() if times > 1]
    first, second = (message for message in messages if message["messageId"] == repeated)
    assert first == second


@pytest.mark.parametrize("seed", SEEDS)
def test_visitors_look_around_sign_up_and_order(seed):
    messages = played(seed)
    assert 50 <= len(messages) <= 80
    assert {message["type"] for message in messages} == set(CALL_TYPES) - {"delete"}
    assert {message["userId"] for message in messages if "userId" in message} == {person[0] for person in PEOPLE}
    events = Counter(message.get("event") for message in messages)
    assert events["Product Viewed"] > events["Order Completed"] > 2


def test_messages_carry_the_time_of_their_moment():
    times = [message["originalTimestamp"] for message in played(1)]
    assert times[0] == "2026-03-11T23:59:59.100Z"
    assert len(set(times)) == len(times) - 1  # one message is repeated


def test_the_same_seed_gives_the_same_traffic():
    assert played(3) == played(3) != played(4)
