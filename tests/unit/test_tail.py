"""What a tail keeps for those who wait, without Kafka."""

import asyncio

import pytest

from gateway.problems import Problem
from gateway.tail import MAX_HELD_BYTES, MAX_OF_TENANT, MAX_WAITERS, Seen, Tail
from schemas import topics
from schemas.settings import Settings


def tail() -> Tail:
    return Tail(Settings(), [topics.OUTCOMES])


def test_what_nobody_fetches_is_bounded_and_let_go_of() -> None:
    async def waits() -> None:
        one = tail()
        with one.waiter("acme", "a") as slow, one.waiter("acme", "b") as other:
            for _ in range(3):
                slow.put(Seen("t", bytes(MAX_HELD_BYTES // 2)))
            other.put(Seen("t", b"x"))
            assert one.held == MAX_HELD_BYTES
            assert len((await slow.next()).value) == MAX_HELD_BYTES // 2
            other.put(Seen("t", b"y"))
            assert (await other.next()).value == b"y"
            assert one.held == MAX_HELD_BYTES // 2
        assert one.held == 0

    asyncio.run(waits())


def test_a_waiter_gets_what_comes_later_too() -> None:
    async def waits() -> Seen:
        with tail().waiter("acme", "a") as waiter:
            asyncio.get_running_loop().call_later(0.01, waiter.put, Seen("t", b"later"))
            return await waiter.next()

    assert asyncio.run(waits()).value == b"later"


def test_so_many_wait_and_no_more() -> None:
    one = tail()
    waiting = [one.waiter("greedy", str(n)) for n in range(MAX_OF_TENANT)]
    with pytest.raises(Problem, match="may wait"):
        one.waiter("greedy", "more")
    waiting += [one.waiter(f"t-{n % 100}", str(n)) for n in range(MAX_WAITERS - MAX_OF_TENANT)]
    with pytest.raises(Problem, match="may wait"):
        one.waiter("another", "more")
    for waiter in waiting:
        waiter.close()
    one.waiter("another", "more").close()


def test_two_may_wait_for_the_same() -> None:
    one = tail()
    first, second = one.waiter("acme", "a"), one.waiter("acme", "a")
    one._deliver([(awaited, Seen("t", b"x")) for awaited in first.awaited])
    first.close()
    assert one.held == 1
    assert asyncio.run(second.next()).value == b"x"
    second.close()
    assert one._waiters == {}
