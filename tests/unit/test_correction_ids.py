"""The ids of corrections."""

import uuid

import pytest

from schemas import envelope
from schemas.corrections import corrected_event, correction_id, number_of
from schemas.redrive import redriven_id

UPLOAD = uuid.UUID(int=7)
EVENT = envelope.event_id("s" * 32, "acme", uuid.UUID(int=1), "1-1000")


@pytest.mark.parametrize(("line", "n"), [(1, 1), (17, 2), (100_000, 12)])
def test_an_id_says_which_correction_of_which_row_it_is(line: int, n: int) -> None:
    id_ = correction_id(EVENT, line, n)
    assert id_ == f"{EVENT}:{line}~r{n}"
    assert (number_of(id_, UPLOAD), corrected_event(id_)) == (n, EVENT)
    assert envelope.issued("s" * 32, "acme", corrected_event(id_))
    assert not envelope.issued("s" * 32, "other", corrected_event(id_))


def test_corrections_of_two_rows_never_share_an_id() -> None:
    assert len({correction_id(EVENT, line, n) for line in range(1, 50) for n in range(1, 50)}) == 49 * 49


@pytest.mark.parametrize("other", [EVENT, redriven_id(EVENT, 3), "my own:17", f"{EVENT}:x~r1", f"{EVENT}:1~r0", "~r1"])
def test_other_events_are_no_corrections(other: str) -> None:
    assert (number_of(other, UPLOAD), corrected_event(other)) == (None, other)


def test_what_belongs_to_no_upload_is_no_correction() -> None:
    assert number_of(correction_id(EVENT, 1, 1), None) is None
