"""What a sink's log says while PostgreSQL is away: the beginning, now and then, the end."""

import pytest

from sinks.waiting import Waiting


def test_a_wait_is_told_when_it_begins_every_half_minute_and_when_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    now, told = 0.0, list[bool]()
    waiting = Waiting(clock=lambda: now, told=told.append)
    with waiting.for_answer():
        for second in range(71):
            now = float(second)
            waiting.look()
            if second == 40:
                waiting.because("connection refused")
    said = [record.message for record in caplog.records]
    assert said == [
        "waiting for PostgreSQL for 5 s: no answer yet",
        "waiting for PostgreSQL for 35 s: no answer yet",
        "waiting for PostgreSQL for 65 s: connection refused",
        "PostgreSQL answers again, after 70 s",
    ]
    assert told == [True, True, True, False]


def test_what_is_quick_is_not_told_and_what_fails_is_still_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    waiting = Waiting("to count days", clock=lambda: now)

    def fails_at(second: float) -> None:
        nonlocal now
        with waiting.for_answer():
            now = second
            waiting.look()
            raise ConnectionError

    with waiting.for_answer():
        now = 4.0
        waiting.look()
    for second in (6.0, 8.0, 10.0):
        with pytest.raises(ConnectionError):
            fails_at(second)
        waiting.because("connection refused")
    with waiting.for_answer():
        pass
    now = 100.0
    waiting.look()
    assert [record.message for record in caplog.records] == [
        "waiting for PostgreSQL to count days for 6 s: no answer yet",
        "PostgreSQL answers again to count days, after 6 s",
    ]
