"""Sinks that move their offsets without looking: `python -m tests.faulty_sinks`. Only for tests of the checker.

One of them is stopped just before it writes, and goes on when another has written the same.
"""

from typing import Any

from schemas import topics
from sinks import writer
from sinks.__main__ import main
from sinks.offsets import Move
from tests.worst_moment import stop_me_until_passed


def overwrite(db: Any, moves: list[Move]) -> None:
    """As `sinks.offsets.advance`, but for the compare-and-swap."""
    unique = [move for move in moves if move.topic.endswith(topics.INGESTION_UNIQUE)]
    if unique:
        stop_me_until_passed(unique)
    for move in moves:
        db.execute(
            "UPDATE sink_offsets SET next_offset = %s WHERE topic = %s AND partition = %s",
            [move.next, move.topic, move.partition],
        )


if __name__ == "__main__":
    writer.advance = overwrite
    main()
