"""Test the live rows and numbers of the page."""

import asyncio
import json
from datetime import UTC, datetime

from destination.debugger.exchanges import Exchanges
from destination.debugger.feed import KEPT_SECONDS, LATENCY_EDGES_MS, MAX_ROWS, Feed
from destination.debugger.rows import Row
from destination.local.exchange import Exchange


def row(number=0, **fields):
    facts = {
        "status": 200,
        "outcome": "stored",
        "counts": {"stored": 1},
        "types": {"track": 1},
        "messages": 1,
        "ms": 3.0,
    }
    return Row(id=str(number), time=number, method="POST", route="/segment", **{**facts, **fields})


class Clock:
    """Returns the time that a test sets, in seconds since 1970."""

    now = 1_000_000.0

    def __call__(self):
        return self.now


def parse(event):
    """Return the name and the content of a server-sent event."""
    name, data = event.rstrip("\n").split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def told(scenario):
    """Run a scenario with a feed, its clock, and a function that reads the next event of a browser."""

    async def run():
        clock = Clock()
        feed = Feed(clock)
        events = feed.follow()

        async def read():
            async with asyncio.timeout(5):
                return parse(await anext(events))

        await scenario(feed, clock, read)
        feed.close()
        async with asyncio.timeout(5):
            async for _ in events:
                pass

    asyncio.run(run())


def test_browser_gets_the_current_state_and_then_changes():
    async def scenario(feed, _clock, read):
        feed.add(row(1))
        name, snapshot = await read()
        assert (name, [one["id"] for one in snapshot["rows"]]) == ("snapshot", ["1"])
        for number in (2, 3):
            feed.add(row(number, counts={"refused": 2, "duplicate": 1}, types={}))
        name, more = await read()
        assert (name, [one["id"] for one in more["rows"]]) == ("more", ["2", "3"])
        assert more["totals"] == {"requests": 3, "stored": 1, "duplicate": 2, "refused": 4, "failed": 0}

    told(scenario)


def test_browser_gets_the_rows_that_the_consumer_failed_on():
    async def scenario(feed, _clock, read):
        feed.add(row(1))
        feed.note_consumer_failures("1", 1)
        _, snapshot = await read()
        assert snapshot["consumer_failures"] == {"1": 1}
        feed.note_consumer_failures("2", 3)
        feed.note_consumer_failures("2", 4)
        _, more = await read()
        assert more["consumer_failures"] == {"2": 4}
        feed.add(row(3))
        _, more = await read()
        assert more["consumer_failures"] == {}

    told(scenario)


def test_slow_browser_misses_nothing():
    async def scenario(feed, _clock, read):
        slow = feed.follow()
        await anext(slow)
        await read()
        for number in range(5):
            feed.add(row(number))
            _, more = await read()
            assert [one["id"] for one in more["rows"]] == [str(number)]
        _, more = parse(await anext(slow))
        assert [one["id"] for one in more["rows"]] == ["0", "1", "2", "3", "4"]

    told(scenario)


def test_seconds_count_requests_messages_call_types_and_latency():
    async def scenario(feed, clock, read):
        feed.add(row(ms=0.4))
        feed.add(row(ms=10.0, counts={"failed": 3}, types={}))
        feed.add(row(ms=90_000.0))
        feed.add(row(ms=None, counts={}, types={"identify": 2}))
        _, snapshot = await read()
        [second] = snapshot["seconds"]
        assert second["second"] == clock.now
        assert {name: second[name] for name in ("requests", "stored", "failed")} == {
            "requests": 4,
            "stored": 2,
            "failed": 3,
        }
        assert second["types"] == {"track": 2, "identify": 2}
        assert len(second["latency"]) == len(LATENCY_EDGES_MS) + 1
        edges = [*LATENCY_EDGES_MS, "more"]
        assert {edges[n]: count for n, count in enumerate(second["latency"]) if count} == {1: 1, 20: 1, "more": 1}

    told(scenario)


def test_changed_seconds_are_sent_and_a_few_minutes_are_kept():
    async def scenario(feed, clock, read):
        await read()
        feed.add(row())
        await read()
        clock.now += 1
        feed.add(row())
        _, more = await read()
        assert [second["second"] for second in more["seconds"]] == [clock.now - 1, clock.now]
        feed.add(row())
        _, more = await read()
        assert [second["requests"] for second in more["seconds"]] == [2]
        for _ in range(2 * KEPT_SECONDS):
            clock.now += 1
            feed.add(row())
        _, snapshot = parse(await anext(feed.follow()))
        assert len(snapshot["seconds"]) == KEPT_SECONDS
        assert snapshot["totals"]["requests"] == 3 + 2 * KEPT_SECONDS

    told(scenario)


def test_the_latest_rows_are_kept_and_all_are_counted():
    async def scenario(feed, _clock, read):
        await read()
        for number in range(MAX_ROWS + 10):
            feed.add(row(number))
        _, more = await read()
        assert [more["rows"][0]["id"], len(more["rows"])] == ["10", MAX_ROWS]
        assert more["totals"]["stored"] == MAX_ROWS + 10

    told(scenario)


def test_notice_is_shown_until_it_is_over():
    async def scenario(feed, _clock, read):
        await read()
        feed.notify("something is wrong")
        assert (await read())[1]["notice"] == "something is wrong"
        feed.notify(None)
        assert (await read())[1]["notice"] is None

    told(scenario)


def test_changed_schemas_are_announced():
    async def scenario(feed, _clock, read):
        before = (await read())[1]["schemas"]
        feed.note_schemas()
        assert (await read())[1]["schemas"] == before + 1

    told(scenario)


def test_silent_feed_sends_keep_alives():
    async def run():
        events = Feed(heartbeat_seconds=0.01).follow()
        await anext(events)
        assert (await anext(events)).startswith(":")

    asyncio.run(run())


def test_two_runs_of_a_server_are_distinguished():
    async def run():
        return [parse(await anext(Feed().follow()))[1]["started"] for _ in range(2)]

    one, other = asyncio.run(run())
    assert one != other


# The requests that are kept


def exchange(number, body=""):
    facts = {"method": "POST", "path": "/segment", "headers": [], "status": 200, "answer_headers": [], "answer": ""}
    return Exchange(id=str(number), time=datetime.now(UTC), body=body, milliseconds=1.0, **facts)


def kept(exchanges, count):
    return [number for number in range(count) if exchanges.find(str(number))]


def test_as_many_of_the_latest_requests_as_fit_are_kept():
    few, small = Exchanges(max_count=3), Exchanges(max_bytes=400_000)
    for number in range(10):
        few.add(exchange(number))
        small.add(exchange(number, "x" * 120_000))
    assert kept(few, 10) == [7, 8, 9]
    assert kept(small, 10) == [7, 8, 9]


def test_last_request_of_any_size_is_kept():
    exchanges = Exchanges(max_bytes=10)
    exchanges.add(exchange(0, "x" * 100))
    assert kept(exchanges, 1) == [0]


def test_late_details_are_added_to_a_kept_request():
    exchanges = Exchanges()
    exchanges.add(exchange(0))
    exchanges.add_late("0", [{"outcome": "accepted"}])
    exchanges.add_late("gone", [])
    assert exchanges.find("0").late == [{"outcome": "accepted"}]
