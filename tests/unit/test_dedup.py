"""Duplicates, conflicts, redeliveries, the fence and the crash note: pure functions over a dictionary."""

import struct
import uuid
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import (
    ROWS_REJECTED,
    UPLOAD_CANCELLED,
    UPLOAD_COMPLETED,
    UPLOAD_OPENED,
    Envelope,
    Position,
    Request,
)
from schemas.errors import Undecodable
from streams import dedup
from streams.dedup import Decision

REQUEST, UPLOAD = uuid.uuid4(), uuid.uuid4()


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
            dedup.advance_fence(seen, at, "id", 4)
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
    dedup.advance_fence(seen, 1, "\0" * 22, 4)
    [entry] = [item for item in seen.items() if item[0] not in (dedup.FENCE, dedup.PARTITIONS)]
    assert not dedup.expired(*entry, dedup.KEPT_MS)
    assert dedup.expired(*entry, dedup.KEPT_MS + 2_000)
    assert not any(dedup.expired(note, seen[note], 10**15) for note in (dedup.FENCE, dedup.PARTITIONS))


def test_a_fence_of_the_version_before_holds_and_has_no_topic() -> None:
    seen = {dedup.FENCE: (41).to_bytes(8, "big")}
    assert dedup.fenced(seen, 41)
    assert not dedup.fenced(seen, 42)
    assert dedup.fence_of(seen) == (41, "")
    assert dedup.partitions_of(seen) is None
    dedup.advance_fence(seen, 42, "an-id", 4)
    assert dedup.fenced(seen, 42)
    assert dedup.fence_of(seen) == (42, "an-id")
    assert dedup.partitions_of(seen) == 4
    assert dedup.fence_of({}) is None


def part(offset: int, first: int, last: int, content: bytes = b"body", type_: str = "tillstream.orders.v1") -> Envelope:
    """Lines `first` to `last` of a request of 40."""
    request = Request(REQUEST, first, last, 40)
    return replace(envelope(offset, content), type=type_, request=request)


def taken(seen: dict[bytes, bytes], message: Envelope) -> set[int]:
    """The lines that are new of a part, as streams would send them on."""
    assert message.request is not None
    key = dedup.request_key(b"t", message)
    known = dedup.lines_known(seen, key)
    decision, _ = dedup.decide_part(seen, key, message)
    if decision not in (Decision.NEW, Decision.PARTLY_NEW):
        return set()
    lines = range(message.request.first, message.request.last + 1)
    return {line for line in lines if not any(begin <= line <= end for begin, end in known)}


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted), max_size=20))
def test_each_line_of_a_request_is_taken_once_however_it_is_split(parts: list[list[int]]) -> None:
    seen: dict[bytes, bytes] = {}
    came: list[int] = []
    for offset, (first, last) in enumerate(parts):
        came += taken(seen, part(offset, first, last))
    assert sorted(came) == sorted({line for first, last in parts for line in range(first, last + 1)})


def test_another_body_under_the_key_of_a_request_is_a_conflict_whatever_its_lines() -> None:
    seen: dict[bytes, bytes] = {}
    assert taken(seen, part(1, 1, 10)) == set(range(1, 11))
    key = dedup.request_key(b"t", part(2, 11, 20))
    assert dedup.decide_part(seen, key, part(2, 11, 20, b"other"))[0] is Decision.CONFLICT
    assert dedup.decide_part(seen, key, part(1, 1, 10))[0] is Decision.REDELIVERED


def test_refused_rows_of_a_request_have_lines_of_their_own() -> None:
    seen: dict[bytes, bytes] = {}
    assert taken(seen, part(1, 1, 10))
    assert taken(seen, part(2, 1, 10, type_=ROWS_REJECTED)) == set(range(1, 11))


def test_a_request_in_too_many_pieces_is_refused() -> None:
    seen: dict[bytes, bytes] = {}
    parts = (replace(part(n, 1, 1), request=Request(REQUEST, 2 * n + 1, 2 * n + 1, 99_999)) for n in range(5_000))
    with pytest.raises(Undecodable, match="too_many_parts"):
        all(taken(seen, one) for one in parts)


def of_upload(offset: int, type_: str, chunk: int) -> Envelope:
    request = Request(uuid.uuid5(REQUEST, f"{type_}{chunk}"), 1, 1, 1, UPLOAD, chunk)
    return replace(envelope(offset), type=type_, request=request)


def test_an_upload_is_ruled_by_log_order() -> None:
    seen: dict[bytes, bytes] = {}
    chunk = "tillstream.orders.v1"

    def refusal(offset: int, type_: str, number: int) -> str | None:
        message = of_upload(offset, type_, number)
        why = dedup.refused_by_upload(seen, b"t", message)
        if why is None:
            dedup.follow_upload(seen, b"t", message)
        return why

    assert refusal(0, chunk, 1) == "upload_not_opened"
    assert refusal(1, UPLOAD_OPENED, 0) is None
    assert refusal(2, chunk, 2) is None
    assert refusal(3, UPLOAD_COMPLETED, 3) is None
    assert refusal(4, chunk, 3) is None
    assert refusal(5, chunk, 4) == "chunk_out_of_range"
    assert refusal(6, UPLOAD_CANCELLED, 0) is None
    assert refusal(7, chunk, 1) == "upload_cancelled"
    assert refusal(8, UPLOAD_COMPLETED, 3) == "upload_cancelled"
    assert refusal(9, UPLOAD_CANCELLED, 0) is None
    [state] = seen.values()
    assert dedup.expired(b"key", state, dedup.KEPT_MS + 10**15)


def test_an_upload_is_completed_once_and_with_no_fewer_chunks_than_came() -> None:
    seen: dict[bytes, bytes] = {}

    def refusal(offset: int, type_: str, number: int) -> str | None:
        message = of_upload(offset, type_, number)
        why = dedup.refused_by_upload(seen, b"t", message)
        if why is None:
            dedup.follow_upload(seen, b"t", message)
        return why

    assert refusal(0, UPLOAD_OPENED, 0) is None
    assert refusal(1, ROWS_REJECTED, 5) is None
    assert refusal(2, "tillstream.orders.v1", 2) is None
    assert refusal(3, UPLOAD_COMPLETED, 4) == "too_few_chunks"
    assert refusal(4, UPLOAD_COMPLETED, 6) is None
    assert refusal(5, UPLOAD_COMPLETED, 7) == "upload_completed"
    assert refusal(6, "tillstream.orders.v1", 7) == "chunk_out_of_range"
    assert refusal(7, UPLOAD_COMPLETED, 6) is None


def test_an_upload_of_the_version_before_is_still_known() -> None:
    seen: dict[bytes, bytes] = {}
    dedup.follow_upload(seen, b"t", of_upload(0, UPLOAD_OPENED, 0))
    [key] = seen
    seen[key] = struct.pack(">qq?I", 0, 0, False, 3)
    assert dedup.refused_by_upload(seen, b"t", of_upload(1, "tillstream.orders.v1", 4)) == "chunk_out_of_range"
    assert dedup.expired(key, seen[key], dedup.KEPT_MS + 1)
    dedup.follow_upload(seen, b"t", of_upload(2, "tillstream.orders.v1", 3))
    assert dedup.refused_by_upload(seen, b"t", of_upload(3, UPLOAD_COMPLETED, 3)) is None


def test_refused_rows_and_good_ones_of_other_bodies_under_one_key_are_conflicts() -> None:
    def of(offset: int, content: bytes, *, refused: bool) -> Envelope:
        type_ = ROWS_REJECTED if refused else "tillstream.orders.v1"
        return replace(envelope(offset, content), type=type_, request=Request(REQUEST, 1, 10, 10))

    def decided(seen: dict[bytes, bytes], message: Envelope) -> Decision:
        return dedup.decide_part(seen, dedup.request_key(b"t", message), message)[0]

    for refused_first in (True, False):
        seen: dict[bytes, bytes] = {}
        assert decided(seen, of(1, b"a", refused=refused_first)) is Decision.NEW
        assert decided(seen, of(2, b"b", refused=not refused_first)) is Decision.CONFLICT
        assert decided(seen, of(3, b"a", refused=not refused_first)) is Decision.NEW
        assert decided(seen, of(3, b"a", refused=not refused_first)) is Decision.REDELIVERED
