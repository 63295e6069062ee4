"""How far a consumer is behind: messages of each partition that it has not dealt with, and how long they have waited.

The end of a log is what Kafka last said with the messages it sent, which costs no request. A transaction's markers take
offsets too: a reader has to say where there is nothing left but markers.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from schemas import metrics

Partition = tuple[str, int]
"""Topic and number."""
_EVERY_S: Final = 1.0


class Lag:
    """Knows what was dealt with; `measure` tells Prometheus."""

    def __init__(self, prefix: str, clock: Callable[[], float] = time.time) -> None:
        """`clock` is compared with Kafka's: the two should agree to a second."""
        self._prefix, self._clock = len(prefix), clock
        self._next: dict[Partition, int] = {}
        self._empty: dict[Partition, tuple[int, int]] = {}
        """Offsets from and before which there is no message."""
        self._since: dict[Partition, float] = {}
        """When the oldest message that may be left was written, at the earliest."""
        self._measured = 0.0
        self.longest_s = 0.0
        """Of all our partitions, as it was last measured."""

    def begin(self, positions: Mapping[Partition, int]) -> None:
        """These partitions are ours from now on, and to be read from these offsets."""
        metrics.LAG_MESSAGES.clear()
        metrics.LAG_SECONDS.clear()
        self._next, self._since = dict(positions), dict.fromkeys(positions, self._clock())
        self._empty.clear()

    def done(self, at: Partition, offset: int, time_s: float) -> None:
        """All up to this message, written at that time, is dealt with."""
        self._next[at] = offset + 1
        self._since[at] = time_s
        self._pass_over(at)

    def nothing_between(self, at: Partition, first: int, end: int) -> None:
        """From this offset on, and before `end`, there is no message: what is there are markers."""
        self._empty[at] = first, end
        self._pass_over(at)

    def _pass_over(self, at: Partition) -> None:
        if at in self._empty and at in self._next:
            first, end = self._empty[at]
            if self._next[at] >= first:
                self._next[at] = max(self._next[at], end)

    def next_of(self, at: Partition) -> int | None:
        """The first offset that is not dealt with, if the partition is ours."""
        return self._next.get(at)

    @property
    def due(self) -> bool:
        """Whether the last measurement is a second old."""
        return self._clock() - self._measured >= _EVERY_S

    def measure(self, ends: Mapping[Partition, int]) -> None:
        """Tell how many messages are left before these ends, and how long they have waited at most."""
        now = self._measured = self._clock()
        waited: dict[Partition, float] = {}
        for at, end in ends.items():
            left = max(0, end - self._next[at])
            if not left:
                self._since[at] = now
            waited[at] = max(0.0, now - self._since[at])
            label = at[0][self._prefix :], str(at[1])
            metrics.LAG_MESSAGES.labels(*label).set(left)
            metrics.LAG_SECONDS.labels(*label).set(waited[at])
        self.longest_s = max(waited.values(), default=0.0)
