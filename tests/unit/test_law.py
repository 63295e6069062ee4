import random

from sinks.law import Settled


def test_in_flight_is_what_has_no_line() -> None:
    chosen = random.Random(1)
    offsets = list(range(100, 400))
    chosen.shuffle(offsets)
    settled = Settled(100)
    for lines, offset in enumerate(offsets, 1):
        settled.settle(offset)
        settled.settle(offset)
        assert settled.in_flight(400) == 300 - lines
    assert settled.low == 400
    assert not settled.above


def test_what_was_accepted_before_is_not_watched() -> None:
    settled = Settled(100)
    settled.settle(99)
    assert (settled.low, settled.above, settled.in_flight(100)) == (100, set(), 0)


def test_a_message_that_stays_behind_is_overdue() -> None:
    settled = Settled(0)
    settled.settle(1)
    assert [settled.overdue(2, patience=3) for _ in range(4)] == [False, False, True, False]
    settled.settle(0)
    assert [settled.overdue(2, patience=3) for _ in range(9)] == [False] * 9


def test_progress_is_patience() -> None:
    settled = Settled(0)
    for offset in range(20):
        assert not settled.overdue(30, patience=3)
        settled.settle(offset)


def test_so_many_that_wait_for_one_are_not_kept() -> None:
    settled = Settled(0)
    for offset in range(1, 100_002):
        settled.settle(offset)
    assert settled.overdue(100_002)
    settled.pass_over(1)
    assert (settled.low, settled.above) == (100_002, set())


def test_lines_that_come_before_the_beginning_is_known_are_not_forgotten() -> None:
    settled = Settled()
    for offset in (8, 10, 11):
        settled.settle(offset)
    settled.pass_over(10)
    assert (settled.low, settled.above, settled.in_flight(13)) == (12, set(), 1)
