"""Sinks that move their offsets without looking: `python -m tests.faulty_sinks`. Only for tests of the checker."""

from typing import Any

from sinks import writer
from sinks.__main__ import main
from sinks.offsets import Move


def overwrite(db: Any, moves: list[Move]) -> None:
    """As `sinks.offsets.advance`, but for the compare-and-swap."""
    for move in moves:
        db.execute(
            "UPDATE sink_offsets SET next_offset = %s WHERE topic = %s AND partition = %s",
            [move.next, move.topic, move.partition],
        )


if __name__ == "__main__":
    writer.advance = overwrite
    main()
