"""What is kept for those who watch alerts, without Kafka."""

import asyncio

import pytest

from gateway.filters import FILTERS
from gateway.live import FAIR_BYTES, MAX_BEHIND_BYTES, MAX_HELD_BYTES, MAX_OF_TENANT, Live
from gateway.problems import Problem
from gateway.watched import MATCHES, Event
from schemas.settings import Settings


def event(offset: int, size: int = 1) -> Event:
    return Event(0, offset, [bytes(size)], size)


def test_a_reader_that_falls_behind_gets_no_more_and_holds_nothing() -> None:
    async def watches() -> None:
        live = Live(Settings())
        slow, quick = live.reader("acme"), live.reader("acme")
        slow.listen()
        quick.listen()
        for offset in range(5):
            live._deliver(b"acme", event(offset, MAX_BEHIND_BYTES // 2))
            assert await quick.next(0.01) == event(offset, MAX_BEHIND_BYTES // 2)
        assert (slow.ended, await slow.next(0.01), quick.ended) == ("too_slow", None, "")
        assert live.held == 0
        slow.close()
        live._deliver(b"acme", event(9))
        assert (await quick.next(0.01)) == event(9)
        quick.close()
        assert (live._readers, live._of_tenant, live.held) == ({}, {}, 0)

    asyncio.run(watches())


def test_one_large_event_is_nobodys_fault() -> None:
    async def watches() -> None:
        reader = Live(Settings()).reader("acme")
        reader.put(event(1, MAX_BEHIND_BYTES * 2))
        assert (await reader.next(0.01)) is not None

    asyncio.run(watches())


def test_of_a_crowd_those_go_that_are_behind() -> None:
    async def watches() -> None:
        live = Live(Settings())
        crowd = [live.reader(f"t-{n}") for n in range(40)]
        for reader in crowd:
            reader.put(event(1, MAX_HELD_BYTES // 40))
        near = live.reader("near")
        near.put(event(1, FAIR_BYTES // 2))
        near.put(event(2, FAIR_BYTES // 2))
        crowd[0].put(event(2, 10))
        assert (near.ended, crowd[0].ended, crowd[1].ended) == ("", "too_slow", "")

    asyncio.run(watches())


def test_a_position_is_given_only_when_nothing_before_it_is_missing() -> None:
    async def watches() -> None:
        live = Live(Settings())
        reader = live.reader("acme")
        reader.listen()
        assert await reader.position(0) == -1
        asyncio.get_running_loop().call_soon_threadsafe(live._deliver, b"acme", event(7))
        live.positions[0] = 7
        assert await reader.position(0) == -1
        assert await reader.next(1) == event(7)
        assert await reader.position(0) == 7

    asyncio.run(watches())


def test_so_many_watch_and_no_more() -> None:
    async def watches() -> None:
        live = Live(Settings())
        for _ in range(MAX_OF_TENANT):
            live.reader("greedy")
        with pytest.raises(Problem, match="streams of a tenant"):
            live.reader("greedy")
        live.reader("modest")

    asyncio.run(watches())


def test_a_stream_filters_by_whatever_the_history_does() -> None:
    assert MATCHES.keys() == FILTERS["price_alerts"].keys()
