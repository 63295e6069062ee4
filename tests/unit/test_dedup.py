"""Duplicates, conflicts, redeliveries, the fence and the crash note: pure functions over a dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Envelope, Position
from streams import dedup
from streams.dedup import Decision


def envelope(offset: int, content: bytes = b"a", event_id: str = "e", time_ms: int = 0) -> Envelope:
    at = Position("ingestion", 0, offset, time_ms)
    return Envelope(event_id, "tillstream.orders.v1", "test", 0, 1, content * 32, at)


def decide(seen: dict[bytes, bytes], message: Envelope, tenant: bytes = b"t") -> Decision:
    return dedup.decide(seen, dedup.key_of(tenant, message.event_id), message)[0]


def test_the_first_is_new_and_the_rest_are_told_apart() -> None:
    seen: dict[bytes, bytes] = {}
    assert decide(seen, envelope(5)) is Decision.NEW
    assert decide(seen, envelope(5)) is Decision.REDELIVERED
    assert decide(seen, envelope(6)) is Decision.DUPLICATE
    assert decide(seen, envelope(7, b"b")) is Decision.CONFLICT
    assert decide(seen, envelope(8)) is Decision.DUPLICATE


def test_tenants_share_no_event_ids() -> None:
    seen: dict[bytes, bytes] = {}
    assert decide(seen, envelope(1), b"one") is Decision.NEW
    assert decide(seen, envelope(2), b"two") is Decision.NEW


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_events_have_different_keys(one: str, other: str) -> None:
    assert (dedup.key_of(b"t", one) == dedup.key_of(b"t", other)) == (one == other)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([b"x", b"y"])), max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=10),
)
def test_a_log_read_again_from_anywhere_decides_nothing_twice(
    log: list[tuple[str, bytes]], restarts: list[tuple[int, int]]
) -> None:
    """Restarts may go back to any offset at or before the fence; what comes out once must not come out again."""
    seen: dict[bytes, bytes] = {}
    forwarded: list[int] = []
    at = 0
    while at < len(log):
        event_id, content = log[at]
        if not dedup.fenced(seen, at):
            if decide(seen, envelope(at, content, event_id)) is Decision.NEW:
                forwarded.append(at)
            dedup.advance_fence(seen, at)
        back = next((restart for restart in restarts if restart[0] == at), None)
        if back is None:
            at += 1
        else:
            restarts.remove(back)
            at = min(at, back[1])
    assert forwarded == [log.index(next(e for e in log if e[0] == i)) for i in dict.fromkeys(i for i, _ in log)]


def test_crashes_are_counted_an_offset() -> None:
    seen: dict[bytes, bytes] = {}
    for count in range(3):
        assert dedup.crashes(seen, 9) == count
        seen[dedup.CRASH] = dedup.crash_note(seen, 9)
    assert dedup.crashes(seen, 10) == 0
    seen[dedup.CRASH] = dedup.crash_note(seen, 10)
    assert (dedup.crashes(seen, 10), dedup.crashes(seen, 9)) == (1, 0)


def test_entries_expire_after_seven_days_and_the_fence_never() -> None:
    seen: dict[bytes, bytes] = {}
    decide(seen, envelope(1, time_ms=1_000))
    dedup.advance_fence(seen, 1)
    [entry] = [value for key, value in seen.items() if key != dedup.FENCE]
    assert not dedup.expired(entry, dedup.KEPT_MS)
    assert dedup.expired(entry, dedup.KEPT_MS + 2_000)
    assert not dedup.expired(seen[dedup.FENCE], 10**15)
