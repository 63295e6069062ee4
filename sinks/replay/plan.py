"""What to replay, how far it is, and what it found."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.errors import Misconfigured
from sinks.replay.differences import Difference
from sinks.replay.log import READ, Bound

HOLD_S: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """What to replay. `tenant` None is everybody; `topics` are names of the catalogue, of `READ`."""

    tenant: str | None
    topics: tuple[str, ...] = READ
    since: Bound | None = None
    until: Bound | None = None
    merge: bool = False
    promote: bool = False
    samples: int = 3
    hold_s: float = HOLD_S
    keep: bool = False

    @property
    def of_a_range(self) -> bool:
        """Whether it says nothing of rows that it does not mention."""
        return self.since is not None or self.until is not None

    @property
    def by_offset(self) -> bool:
        """Whether a bound is a place in one partition."""
        return any(isinstance(bound, int) for bound in (self.since, self.until))

    def check(self) -> None:
        """Raises Misconfigured for what has no meaning."""
        if unknown := sorted(set(self.topics) - set(READ)):
            raise Misconfigured(f"--topics: {', '.join(unknown)}: a replay reads {', '.join(READ)}")
        if self.by_offset and len(self.topics) != 1:
            raise Misconfigured("an offset is a place in one topic: name it with --topics, or give a time")
        if _reversed(self.since, self.until):
            raise Misconfigured(f"nothing lies from {self.since} to {self.until}: --from must come before --to")
        if self.promote and self.of_a_range and not self.merge:
            raise Misconfigured(
                "a range of the log says nothing of the rows that it does not mention, so that it can only be merged"
                " into the live tables, where newer rows stay: --promote --merge"
            )


def _reversed(since: Bound | None, until: Bound | None) -> bool:
    """Whether nothing can lie between two bounds; of a time and an offset only the log could tell."""
    if isinstance(since, int) and isinstance(until, int):
        return since >= until
    return isinstance(since, datetime) and isinstance(until, datetime) and since >= until


@dataclass
class Progress:
    """How far a replay is: offsets looked through of those that there are, and rows written to the shadow."""

    done: int = 0
    total: int = 0
    rows: int = 0
    step: str = "reading"


@dataclass
class Report:
    """What a replay found and did. `held_s` is for how long sinks had to wait; `left_out` are tables and why."""

    merged: bool = False
    messages: int = 0
    rows: int = 0
    reading_s: float = 0.0
    tables: dict[str, Difference] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    promoted: bool = False
    held_s: float | None = None

    @property
    def differing(self) -> int:
        """Rows that differ."""
        return sum(found.rows for found in self.tables.values())
