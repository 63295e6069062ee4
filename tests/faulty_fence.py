"""Streams whose tables do not look at source offsets: `python -m tests.faulty_fence`. Only for tests of the checker.

Off are the fence of a partition and the offset in each entry, which tells a redelivery as well.
"""

from collections.abc import Callable
from typing import Any

from streams import dedup
from streams.__main__ import main

Decide = Callable[..., tuple[dedup.Decision, dedup.Entry]]


def by_id_alone(decide: Decide) -> Decide:
    """As `decide`, but a message that came before is a duplicate, be it itself."""

    def decided(*what: Any) -> tuple[dedup.Decision, dedup.Entry]:
        decision, first = decide(*what)
        return (dedup.Decision.DUPLICATE if decision is dedup.Decision.REDELIVERED else decision), first

    return decided


if __name__ == "__main__":
    dedup.fenced = lambda seen, offset: False
    dedup.decide, dedup.decide_part = by_id_alone(dedup.decide), by_id_alone(dedup.decide_part)
    main()
