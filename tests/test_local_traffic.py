"""Test that requests have priority on the local server: readers of streams and queues wait for them, and are woken by
them.
"""

import asyncio
import time

import pytest

from destination.local.traffic import WAIT_SECONDS_PER_RECORD, ServerTraffic

LONG_SECONDS = 60


def seconds_of(scene):
    began = time.monotonic()
    asyncio.run(scene)
    return time.monotonic() - began


def test_reader_does_not_wait_without_requests():
    assert seconds_of(ServerTraffic().give_way(10**6)) < 5


def test_a_reader_waits_until_the_last_request_is_answered():
    async def scene():
        traffic = ServerTraffic()
        with traffic.request():
            with traffic.request():
                reader = asyncio.create_task(traffic.give_way(10**6))
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            assert not reader.done()
        await asyncio.wait_for(reader, LONG_SECONDS)

    asyncio.run(scene())


def test_under_steady_load_records_wait_for_a_bounded_time():
    async def scene():
        traffic = ServerTraffic()
        with traffic.request():
            await asyncio.wait_for(traffic.give_way(5), LONG_SECONDS)

    assert 5 * WAIT_SECONDS_PER_RECORD <= seconds_of(scene()) < LONG_SECONDS


def test_a_request_that_raises_is_over():
    async def scene():
        traffic = ServerTraffic()
        with pytest.raises(ValueError, match="a bug"), traffic.request():
            raise ValueError("a bug")
        await asyncio.wait_for(traffic.give_way(10**6), LONG_SECONDS)

    asyncio.run(scene())


@pytest.mark.parametrize("is_late", [True, False])
def test_served_request_ends_the_wait_for_the_next_poll(is_late):
    async def scene():
        traffic = ServerTraffic()
        served = traffic.served
        if not is_late:  # it arrived between the last read and the wait
            traffic.note_served()
        waiting = asyncio.create_task(traffic.next_poll(LONG_SECONDS, served=served))
        await asyncio.sleep(0.01)
        traffic.note_served()
        await asyncio.wait_for(waiting, LONG_SECONDS / 2)

    asyncio.run(scene())


def test_all_readers_are_woken():
    async def scene():
        traffic = ServerTraffic()
        waiting = [asyncio.create_task(traffic.next_poll(LONG_SECONDS, served=0)) for _ in range(3)]
        await asyncio.sleep(0.01)
        traffic.note_served()
        await asyncio.wait_for(asyncio.gather(*waiting), LONG_SECONDS / 2)

    asyncio.run(scene())


def test_next_poll_follows_after_its_interval():
    assert 0.05 <= seconds_of(ServerTraffic().next_poll(0.05, served=0)) < LONG_SECONDS
