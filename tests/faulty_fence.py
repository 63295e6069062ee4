"""Streams whose tables do not look at source offsets: `python -m tests.faulty_fence`. Only for tests of the checker.

Off are the fence of a partition and the offset in each entry, which tells a redelivery as well. One of the workers is
killed when it has flushed, before Kafka knows that it has read: what it read comes again.
"""

from collections.abc import Callable
from typing import Any

from streams import dedup
from streams.__main__ import main
from streams.steps import Steps
from tests.worst_moment import kill_me

Decide = Callable[..., tuple[dedup.Decision, dedup.Entry]]


def by_id_alone(decide: Decide) -> Decide:
    """As `decide`, but a message that came before is a duplicate, be it itself."""

    def decided(*what: Any) -> tuple[dedup.Decision, dedup.Entry]:
        decision, first = decide(*what)
        return (dedup.Decision.DUPLICATE if decision is dedup.Decision.REDELIVERED else decision), first

    return decided


def killed_after(transact: Callable[..., None]) -> Callable[..., None]:
    """As `Steps._transact`, which is acknowledged when it has returned."""

    def transacted(*what: Any) -> None:
        transact(*what)
        kill_me("killed")

    return transacted


if __name__ == "__main__":
    Steps._transact = killed_after(Steps._transact)
    dedup.fenced = lambda seen, offset: False
    dedup.decide, dedup.decide_part = by_id_alone(dedup.decide), by_id_alone(dedup.decide_part)
    main()
