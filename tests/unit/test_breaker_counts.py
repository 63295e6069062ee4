"""When too many messages would be dead-lettered, and when it is only one tenant's."""

import pytest

from producers.breaker import Breaker
from schemas.errors import Misconfigured, Undecodable
from streams import dedup

BAD = "truncated"


def through(breaker: Breaker, tenant: str, code: str | None, messages: int) -> None:
    for _ in range(messages):
        breaker.judge([(tenant, code)])
        breaker.count([(tenant, code)])


def test_one_tenant_may_send_nothing_but_bad_messages() -> None:
    breaker = Breaker(0.01, "x")
    through(breaker, "worst", BAD, 5_000)
    through(breaker, "other", BAD, 10)
    with pytest.raises(Misconfigured, match="11 messages of 1 tenants .*worst tenant .'worst'. left out.*truncated 1"):
        through(breaker, "other", BAD, 1)


def test_one_in_a_hundred_passes_and_more_do_not() -> None:
    for every, trips in ((110, False), (90, True)):
        breaker = Breaker(0.01, "x")
        through(breaker, "worst", BAD, 800)

        def load(breaker: Breaker = breaker, every: int = every) -> None:
            for n in range(20_000):
                through(breaker, f"tenant-{n % 7}", BAD if n % every == 0 else None, 1)

        if trips:
            with pytest.raises(Misconfigured):
                load()
        else:
            load()


def test_it_trips_before_a_batch_is_let_through_and_counts_nothing_of_it() -> None:
    breaker = Breaker(0.01, "x")
    bad = [(f"tenant-{n % 3}", BAD) for n in range(30)]
    for _ in range(2):
        with pytest.raises(Misconfigured, match="20 messages of 2 tenants"):
            breaker.judge([*bad, *[("good", None)] * 900])
    Breaker(1, "x").judge(bad)


def test_what_is_long_ago_is_forgotten() -> None:
    breaker = Breaker(0.01, "x")
    for _ in range(5):
        for tenant in ("one", "two"):
            through(breaker, tenant, BAD, 10)
        through(breaker, "good", None, 2_000)


def crash_at(seen: dedup.Seen, offset: int, tenant: bytes) -> bool:
    """Whether the message is given up after three crashes."""
    for _ in range(3):
        dedup.refuse_after_crashes(seen, offset, tenant)
        seen[dedup.CRASH] = dedup.crash_note(seen, offset)
    try:
        dedup.refuse_after_crashes(seen, offset, tenant)
    except Undecodable as exc:
        return exc.code == "processing_error"
    return False


def test_ten_messages_of_others_are_given_up_after_crashes_then_none_until_it_is_put_right() -> None:
    seen: dict[bytes, bytes] = {}
    assert all(crash_at(seen, offset, b"worst") for offset in range(100))
    assert [crash_at(seen, 100 + n, b"other-%d" % n) for n in range(12)] == [True] * 10 + [False] * 2
    dedup.refuse_after_crashes(seen, 113, b"good")  # the program was put right: nothing is left of it
    assert crash_at(seen, 1_200, b"other")
    assert len(seen[dedup.GIVEN_UP]) == 16
