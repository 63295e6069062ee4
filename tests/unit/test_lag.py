from prometheus_client import REGISTRY

from producers.lag import Lag

AT = ("x.ingestion", 3)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def told() -> tuple[float | None, float | None]:
    labels = {"topic": "ingestion", "partition": "3"}
    return tuple(REGISTRY.get_sample_value(f"tillstream_lag_{unit}", labels) for unit in ("messages", "seconds"))  # type: ignore[return-value]


def lag(clock: Clock) -> Lag:
    made = Lag("x.", clock)
    made.begin({AT: 10})
    return made


def test_messages_wait_from_when_the_last_one_dealt_with_was_written() -> None:
    clock = Clock()
    behind = lag(clock)
    behind.done(AT, 11, 990.0)
    behind.measure({AT: 20})
    assert told() == (8, 10)
    clock.now += 5
    behind.measure({AT: 20})
    assert told() == (8, 15)
    assert behind.longest_s == 15
    behind.done(AT, 19, 1_004.0)
    behind.measure({AT: 20})
    assert told() == (0, 0)
    assert behind.longest_s == 0


def test_a_message_after_a_quiet_hour_has_not_waited_an_hour() -> None:
    clock = Clock()
    behind = lag(clock)
    behind.done(AT, 19, 1_000.0)
    clock.now += 3_600
    behind.measure({AT: 20})
    clock.now += 1
    behind.measure({AT: 21})
    assert told() == (1, 1)


def test_markers_at_a_logs_end_are_no_lag() -> None:
    clock = Clock()
    behind = lag(clock)
    behind.done(AT, 14, 1_000.0)
    behind.nothing_between(AT, 19, 20)  # 15 to 18 were read, and are not dealt with
    behind.nothing_between(("x.ingestion", 4), 7, 9)
    behind.measure({AT: 20})
    assert told()[0] == 5
    behind.done(AT, 18, 1_000.0)
    behind.measure({AT: 20})
    assert told() == (0, 0)
    behind.measure({AT: 22})
    assert told()[0] == 2
    behind.begin({AT: 10})
    behind.done(AT, 18, 1_000.0)
    behind.measure({AT: 20})
    assert told()[0] == 1


def test_a_worker_that_does_nothing_from_the_start_falls_behind() -> None:
    clock = Clock()
    behind = lag(clock)
    clock.now += 30
    behind.measure({AT: 15})
    assert told() == (5, 30)


def test_a_partition_that_was_lost_is_not_told_any_more() -> None:
    behind = lag(Clock())
    behind.measure({AT: 15})
    behind.begin({})
    assert told() == (None, None)


def test_it_is_measured_once_a_second() -> None:
    clock = Clock()
    behind = lag(clock)
    assert behind.due
    behind.measure({})
    assert not behind.due
    clock.now += 1
    assert behind.due
