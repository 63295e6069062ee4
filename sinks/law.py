"""The conservation law, watched while a sink runs: every accepted message gets its line in the ledger.

From the ends of the source partitions when this sink took them, and from the lines that it writes. It says so at once
when a message is passed over; `tillstream audit` compares everything, rows included.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

import confluent_kafka

from producers.ends import Ends
from producers.lag import Lag, Partition
from schemas import metrics, topics
from schemas.settings import Settings
from sinks.batch import Batch

log = logging.getLogger(__name__)

_LOOK_S: Final = 5.0
PATIENCE_LOOKS = 120
"""Looks at which a message has no line before it is asked what is there: 10 minutes."""
_MOST_ABOVE: Final = 100_000
_BEHIND_S: Final = 60.0
_STOP_S: Final = 1.0
_SOURCES: Final = (topics.INGESTION, topics.STOCK, topics.PRICES)


class Settled:
    """Which messages of one source partition have their line: all below `low`, and those in `above`."""

    def __init__(self, low: int = -1) -> None:
        """Without `low` it is not known yet where to begin: `pass_over` says it."""
        self.low = low
        self.above: set[int] = set()
        self._seen, self._looks = low, 0
        self.stands = 0
        """Looks since the first message without a line became the first."""

    def settle(self, offset: int) -> None:
        """This message has its line."""
        if offset >= self.low:
            self.above.add(offset)
            self._climb()

    def pass_over(self, low: int) -> None:
        """Below this offset there is none that waits."""
        self.low = low
        self.above = {offset for offset in self.above if offset >= low}
        self._climb()

    def _climb(self) -> None:
        while self.low in self.above:
            self.above.remove(self.low)
            self.low += 1

    def overdue(self, end: int, patience: int = PATIENCE_LOOKS) -> bool:
        """Whether at so many looks what is at `low` had no line; call it once a look."""
        stuck = self.low < end and self.low == self._seen
        self._seen, self._looks, self.stands = (
            self.low,
            self._looks + 1 if stuck else 0,
            self.stands + 1 if stuck else 0,
        )
        due = self._looks >= patience or len(self.above) > _MOST_ABOVE
        self._looks = 0 if due else self._looks
        return due

    def in_flight(self, end: int) -> int:
        """Messages before `end` without a line."""
        return max(0, end - self.low - len(self.above))


class Law:
    """Watches the source partitions whose numbers this sink has, in a thread of its own."""

    def __init__(self, settings: Settings, lag: Lag) -> None:
        self._settings, self._ends, self._lag = settings, Ends(settings), lag
        self._settled: dict[Partition, Settled] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="law", daemon=True)
        for topic in _SOURCES:
            metrics.UNACCOUNTED.labels(topic)  # shown from the start, so that a first one is an increase

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the last look is over, or Kafka keeps it."""
        self._stopping = True
        self._wake.set()
        self._thread.join(_STOP_S)

    def begin(self, partitions: Iterable[int]) -> None:
        """These numbers are ours; what was accepted before the next look, which is soon, is not watched."""
        numbers = tuple(partitions)
        with self._lock:
            self._settled = {(self._settings.named(topic), n): Settled() for topic in _SOURCES for n in numbers}
        metrics.UNSETTLED.clear()
        metrics.UNSETTLED_SECONDS.clear()
        self._wake.set()

    def settle(self, batch: Batch) -> None:
        """These lines are in the ledger."""
        with self._lock:
            for at, offset in _lines(batch):
                if settled := self._settled.get(at):
                    settled.settle(offset)

    def _watch(self) -> None:
        while not self._stopping:
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            try:
                self._look()
            except confluent_kafka.KafkaException as exc:
                log.warning("cannot look at the ends of the source topics: %s", exc)

    def _look(self) -> None:
        with self._lock:
            watched = dict(self._settled)
        ends = self._ends.of(watched)
        in_flight: dict[str, int] = defaultdict(int)
        stands: dict[str, int] = defaultdict(int)
        for at, settled in watched.items():
            topic = at[0].removeprefix(self._settings.prefix)
            with self._lock:
                if settled.low < 0:
                    settled.pass_over(ends[at])
                in_flight[topic] += settled.in_flight(ends[at])
                overdue = settled.overdue(ends[at], PATIENCE_LOOKS) and self._lag.longest_s < _BEHIND_S
            if overdue:
                self._judge(at, settled, topic)
            stands[topic] = max(stands[topic], settled.stands)
        for topic, number in in_flight.items():
            metrics.UNSETTLED.labels(topic).set(number)
            metrics.UNSETTLED_SECONDS.labels(topic).set(stands[topic] * _LOOK_S)

    def _judge(self, at: Partition, settled: Settled, topic: str) -> None:
        """Whether there is a message where a line is missing: a transaction's marker takes an offset too.

        Streams take messages in order, so that one is passed over where later ones have their lines. Without those it
        may still wait for streams.
        """
        found = self._next_message(at, settled.low)
        if found == settled.low:
            if not settled.above:
                return
            metrics.UNACCOUNTED.labels(topic).inc()
            log.error("%s[%d]@%d was accepted and has no line in the ledger; see: tillstream audit", *at, found)
            found += 1
        with self._lock:
            settled.pass_over(found)

    def _next_message(self, at: Partition, offset: int) -> int:
        """Where the first message at or behind an offset is, or the log's end. Raises KafkaException."""
        consumer = confluent_kafka.Consumer(
            {
                **self._settings.kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        try:
            consumer.assign([confluent_kafka.TopicPartition(*at, offset)])
            for message in consumer.consume(1, timeout=10):
                error = message.error()
                if error and error.code() != confluent_kafka.KafkaError._PARTITION_EOF:
                    raise confluent_kafka.KafkaException(error)
                return int(message.offset())
        finally:
            consumer.close()
        return offset


def _lines(batch: Batch) -> Iterator[tuple[Partition, int]]:
    for message in batch.messages:
        src = message.envelope.src
        yield (src.topic, src.partition), src.offset
    records: Any = (*batch.outcomes, *batch.folded, *batch.judged)
    for record in records:
        yield (record["topic"], record["partition"]), record["offset"]
