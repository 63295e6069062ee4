"""Kafka offsets kept in PostgreSQL, moved by compare-and-swap in the transaction that writes the rows."""

from dataclasses import dataclass
from typing import Any

import psycopg

from producers.admin import Described, refuse_other_count
from schemas.errors import Misconfigured, TillstreamError
from sinks.sql import statement


class Superseded(TillstreamError):
    """Another sink moved our offset: this one is a zombie and must not write."""


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's step from the offset we read to the next.

    `up_to_ms` is when the newest source message of it was appended, in Unix milliseconds; None where that is unknown.
    """

    topic: str
    partition: int
    topic_id: str
    expected: int
    next: int
    up_to_ms: int | None = None


def database_id(db: psycopg.Connection[Any]) -> str:
    """Tells this database from all others, a dump of it that is restored elsewhere included; a standby that takes over
    is the same. What a table said would be copied with it.
    """
    row = db.execute(
        "SELECT format('%s-%s', system_identifier, oid) FROM pg_control_system(), pg_database"
        " WHERE datname = current_database()"
    ).fetchone()
    db.commit()
    assert row is not None
    return str(row[0])


def settle_partitions(db: psycopg.Connection[Any], topics: dict[str, Described]) -> None:
    """Note all partitions of a topic when it is first seen; from then on another number is refused (Misconfigured)."""
    with db.transaction():
        for name, topic in topics.items():
            known = db.execute("SELECT count(*) FROM sink_offsets WHERE topic = %s", [name]).fetchone()
            if known is not None and known[0]:
                refuse_other_count(name, topic.partitions, known[0])
                continue
            db.execute(
                "INSERT INTO sink_offsets (topic, partition, topic_id, next_offset)"
                " SELECT %s, n, %s, 0 FROM generate_series(0, %s - 1) AS n ON CONFLICT DO NOTHING",
                [name, topic.id, topic.partitions],
            )


def load(
    db: psycopg.Connection[Any],
    topic: str,
    partition: int,
    topic_id: str,
    log: tuple[int, int],
    accept_gap: bool,
    expires: bool = False,
) -> int:
    """The offset to read on from; `log` is the partition's (first, end) offset. Raises Misconfigured on a gap.

    A partition without a stored offset starts at offset 0, or where its log begins if the topic `expires`.
    """
    db.execute(
        "INSERT INTO sink_offsets (topic, partition, topic_id, next_offset) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        [topic, partition, topic_id, log[0] if expires else 0],
    )
    row = db.execute(
        "SELECT topic_id, next_offset FROM sink_offsets WHERE topic = %s AND partition = %s",
        [topic, partition],
    ).fetchone()
    db.commit()
    assert row is not None
    known_id, next_offset = row
    first, end = log
    where = f"{topic}[{partition}]"
    refuse_other_log(where, (topic_id, end), (known_id, next_offset))
    if next_offset < first:
        if not accept_gap:
            raise Misconfigured(
                f"{where} begins at {first}, after the stored offset {next_offset}: {first - next_offset} offsets"
                " are gone from the log. To go on without them: tillstream sinks --accept-gap"
            )
        db.execute(
            "UPDATE sink_offsets SET next_offset = %s WHERE topic = %s AND partition = %s AND next_offset = %s",
            [first, topic, partition, next_offset],
        )
        db.commit()
        return first
    return int(next_offset)


def refuse_other_log(where: str, log: tuple[str, int], known: tuple[str, int]) -> None:
    """Raises Misconfigured where a partition is not the one that a database was filled from.

    Both are a topic's UUID and an offset: the log's end, and the next that the database wants.
    """
    (topic_id, end), (known_id, next_offset) = log, known
    if known_id != topic_id:
        raise Misconfigured(
            f"{where} is another topic than the one this database was filled from (id {topic_id}, known {known_id}):"
            " it was deleted and made again. Point at the old cluster, or start with an empty database"
        )
    if next_offset > end:
        raise Misconfigured(
            f"{where} ends at {end}, before the stored offset {next_offset}: the topic lost records, or this is"
            " another cluster. Restore the topic, or start with an empty database"
        )


def refuse_other_past(db: psycopg.Connection[Any], positions: dict[tuple[str, int], int]) -> None:
    """Raises Superseded where the stored offsets are not these: another sink moved them, or an older copy of the
    database took its place, which has to be filled from its own offsets.
    """
    rows = db.execute("SELECT topic, partition, next_offset FROM sink_offsets").fetchall()
    db.commit()
    stored = {(topic, partition): offset for topic, partition, offset in rows}
    for (topic, partition), offset in positions.items():
        if (known := stored.get((topic, partition))) != offset:
            raise Superseded(
                f"{topic}[{partition}] is at {known} in the database, not at {offset}: another sink owns it, or the"
                " database was put back to an earlier state"
            )


def advance(db: psycopg.Connection[Any], moves: list[Move]) -> None:
    """Move the offsets; raises Superseded where somebody else moved one since we read it."""
    for move in moves:
        moved = db.execute(
            statement("advance_offset"),
            {
                "topic": move.topic,
                "partition": move.partition,
                "topic_id": move.topic_id,
                "expected": move.expected,
                "next": move.next,
                "up_to_ms": move.up_to_ms,
            },
        ).fetchone()
        if moved is None:
            raise Superseded(f"{move.topic}[{move.partition}] is no longer at {move.expected}: another sink owns it")


def landed(db: psycopg.Connection[Any], moves: list[Move]) -> bool:
    """Whether a commit whose answer was lost took effect. All moves of a transaction did, or none."""
    row = db.execute(
        "SELECT next_offset FROM sink_offsets WHERE topic = %s AND partition = %s",
        [moves[0].topic, moves[0].partition],
    ).fetchone()
    db.commit()
    return row is not None and row[0] == moves[0].next
