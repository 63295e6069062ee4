"""Offsets in PostgreSQL: where to start, when to refuse, and who may write."""

from typing import Any

import psycopg
import pytest
from pipeline import Pipeline

from schemas.errors import Misconfigured
from sinks import offsets
from sinks.offsets import Move, Superseded

Db = psycopg.Connection[Any]


def start(db: Db, first: int = 0, end: int = 100, topic_id: str = "one", accept_gap: bool = False) -> int:
    return offsets.load(db, "t", 0, topic_id, (first, end), accept_gap)


def test_an_empty_database_starts_at_the_beginning(db: Db) -> None:
    assert start(db) == 0


def test_a_topic_that_expires_starts_where_its_log_begins_and_a_gap_later_is_still_one(db: Db) -> None:
    assert offsets.load(db, "t", 0, "one", (7, 100), False, expires=True) == 7
    with pytest.raises(Misconfigured, match="1 offsets are gone"):
        offsets.load(db, "t", 0, "one", (8, 100), False, expires=True)


def test_a_database_has_an_id_of_its_own_that_lasts(db: Db) -> None:
    db.execute("SET ROLE tillstream_writer")
    known = offsets.database_id(db)
    assert known == offsets.database_id(db)
    with Pipeline.database() as url, psycopg.connect(url) as other:
        assert offsets.database_id(other) != known


def test_a_restart_goes_on_where_the_rows_end(db: Db) -> None:
    start(db)
    with db.transaction():
        offsets.advance(db, [Move("t", 0, "one", 0, 42)])
    assert start(db) == 42


def test_an_offset_rolled_back_with_its_rows_did_not_move(db: Db) -> None:
    start(db)
    with db.transaction(force_rollback=True):
        offsets.advance(db, [Move("t", 0, "one", 0, 42)])
    assert start(db) == 0
    assert not offsets.landed(db, [Move("t", 0, "one", 0, 42)])


def test_a_zombie_cannot_write(db: Db) -> None:
    start(db)
    offsets.advance(db, [Move("t", 0, "one", 0, 42)])
    with pytest.raises(Superseded, match="no longer at 0"):
        offsets.advance(db, [Move("t", 0, "one", 0, 50)])


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"topic_id": "two"}, "deleted and made again"),
        ({"end": 10}, "ends at 10, before the stored offset 42"),
        ({"first": 50}, "8 offsets are gone"),
    ],
)
def test_a_log_that_is_not_ours_is_refused_with_an_explanation(db: Db, kwargs: dict[str, Any], says: str) -> None:
    start(db)
    offsets.advance(db, [Move("t", 0, "one", 0, 42)])
    with pytest.raises(Misconfigured, match=says):
        start(db, **kwargs)


def test_a_gap_is_passed_when_told_to(db: Db) -> None:
    assert start(db, first=7, accept_gap=True) == 7
    assert start(db, first=7) == 7
