"""The sink's loop: read committed messages, prepare them, write them with their offsets in one transaction."""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, Final

import confluent_kafka
import psycopg
from confluent_kafka.admin import AdminClient

from producers import statistics
from producers.admin import Described, describe
from producers.breaker import Breaker
from producers.lag import Lag, Partition
from producers.registry import backoff
from schemas import metrics, topics, tracing
from schemas.errors import Unavailable
from schemas.settings import Settings
from sinks import faults, offsets, writer
from sinks.batch import Batch
from sinks.connection import Connection, Stopped
from sinks.counting import count, outcome_of
from sinks.intake import Intake
from sinks.law import Law
from sinks.offsets import Move
from sinks.records import Room, good

log = logging.getLogger(__name__)

GROUP: Final = "tillstream-sinks"
TOPICS: Final = [
    topics.TENANTS, topics.INGESTION_UNIQUE, topics.STOCK_LEVELS, topics.PRICES_VERDICTS, topics.OUTCOMES,
    topics.DEAD_LETTERS, topics.EXPORTS, topics.REDRIVES,
]  # fmt: skip
_MESSAGES_AT_ONCE: Final = 8
_PATIENCE_S: Final = 1.0
_LOOK_S: Final = 2.0
"""How often a sink makes sure that the database is still the one that it fills."""
_ASKED_AGAIN: Final = 5


class Sink:
    """One sink process. Several share the partitions through a consumer group; PostgreSQL keeps the offsets."""

    def __init__(self, settings: Settings, *, accept_gap: bool = False) -> None:
        self._settings = settings
        self._accept_gap = accept_gap
        self._stopping = threading.Event()
        self._connection = Connection(settings.database_url, self._stopping)
        self._admin = AdminClient({**settings.kafka, "log_level": 0})
        self._consumer = confluent_kafka.Consumer(
            {
                **settings.kafka,
                "group.id": self._group(),
                "client.id": "tillstream-sink",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,  # where a partition ends, transactions' markers included
                "session.timeout.ms": round(settings.session_timeout_s * 1000),
                "max.poll.interval.ms": 600_000,
                "queued.max.messages.kbytes": 16_384,
                "fetch.queue.backoff.ms": 10,  # librdkafka pauses for 1 s each time that the queue is full
                "statistics.interval.ms": statistics.EVERY_MS,
                "stats_cb": statistics.of_consumer,
            }
        )
        self._topics = [settings.named(name) for name in TOPICS]
        self._expiring = {settings.named(topics.DEAD_LETTERS), settings.named(topics.EXPORTS)}
        self._exports = settings.named(topics.EXPORTS)
        self._intake = Intake(settings, self._wait_for_registry)
        self._breaker = Breaker(settings.dead_letter_limit, "this sink")
        self._known: dict[str, Described] = {}
        self._assignment = 0
        """Counts the times that partitions changed hands."""
        self._read_up_to: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._lag = Lag(settings.prefix)
        self._law = Law(settings, self._lag)
        self._writer = ThreadPoolExecutor(1, "writer")
        self._writing: Future[None] | None = None
        self._looked = 0.0

    def run(self) -> None:
        """Until `stop`. Raises Misconfigured and Superseded, where the supervisor restarts; Stopped."""
        self._know_topics()
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        self._law.start()
        try:
            while not self._stopping.is_set():
                assignment = self._assignment
                records = self._read()
                self._measure()
                if self._writing is not None and self._writing.done():
                    self._finish()  # a failed write ends the process now, not when the next record comes
                if records and assignment == self._assignment:
                    # Prepared while the batch before is being written.
                    batch = self._intake.prepare(records)
                    self._settle()
                if self._writing is None and time.monotonic() > self._looked + _LOOK_S:
                    self._look()
                if assignment != self._assignment:
                    self._rewind()
                elif records:
                    self._writing = self._writer.submit(self._write, batch, self._moves(records, batch), records)
            self._settle()
        finally:
            self._law.stop()
            self._writer.shutdown()
            self._consumer.close()
            self._connection.close()

    def stop(self) -> None:
        """Finish the batch at hand, then return from `run`."""
        self._stopping.set()

    def _know_topics(self) -> None:
        self._known = describe(self._admin, self._topics)
        lasting = {name: topic for name, topic in self._known.items() if name not in self._expiring}
        self._connection.insist(lambda db: offsets.settle_partitions(db, lasting))

    def _look(self) -> None:
        """End where an older copy of the database took its place: partitions without new messages would stay behind."""
        self._looked = time.monotonic()
        try:
            self._connection.once(lambda db: offsets.refuse_other_past(db, self._positions))
        except psycopg.Error as error:  # away, or not ours to read: the next write waits for it
            if not faults.is_environment(error):
                raise

    def _settle(self) -> None:
        """Wait for the write under way, as a member of the group: paused partitions are polled and deliver nothing."""
        while self._writing is not None and not wait({self._writing}, timeout=_PATIENCE_S).done:
            self._stay()
        self._finish()

    def _stay(self) -> None:
        partitions = self._consumer.assignment()
        self._consumer.pause(partitions)
        if (delivered := self._consumer.poll(0)) is not None:  # that a partition ends; no record
            self._records([delivered])
        self._consumer.resume(partitions)
        self._measure()

    def _ends(self) -> dict[Partition, int]:
        """Where our partitions end, as far as Kafka has said it with what it sent."""
        ends = {}
        for at in self._positions:
            _, end = self._consumer.get_watermark_offsets(confluent_kafka.TopicPartition(*at), cached=True)
            if end >= 0:
                ends[at] = end
        return ends

    def _measure(self) -> None:
        if self._lag.due:
            self._lag.measure(self._ends())

    def _wait_for_registry(self, seconds: float) -> None:
        self._stay()
        if self._stopping.wait(seconds):
            raise Stopped("told to stop while the schema registry was away; nothing of the batch at hand is committed")

    def _finish(self) -> None:
        """Wait for the write under way, without polling; raises what it raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _rewind(self) -> None:
        """Read again from PostgreSQL's offsets: what was read while partitions changed hands may be somebody else's."""
        if self._positions:
            self._consumer.assign(
                [confluent_kafka.TopicPartition(*at, offset) for at, offset in self._positions.items()]
            )

    def _on_assign(self, consumer: Any, partitions: list[confluent_kafka.TopicPartition]) -> None:
        """Start where PostgreSQL says, whatever the group remembers."""
        self._finish()
        self._assignment += 1
        logs = {(p.topic, p.partition): self._log_range(consumer, p) for p in partitions}
        self._positions = self._connection.insist(
            lambda db: {at: self._load(db, *at, log_range) for at, log_range in logs.items()}
        )
        self._connection.insist(self._intake.policies.load)
        for partition in partitions:
            partition.offset = self._positions[partition.topic, partition.partition]
        consumer.assign(partitions)
        self._read_up_to = dict(self._positions)
        self._lag.begin(self._positions)
        unique = self._settings.named(topics.INGESTION_UNIQUE)
        self._law.begin(partition for topic, partition in self._positions if topic == unique)
        metrics.ASSIGNED.set(len(partitions))
        log.info("reading %d partitions", len(partitions))

    def _log_range(self, consumer: Any, partition: confluent_kafka.TopicPartition) -> tuple[int, int]:
        """First and end offset. The leader of a partition that is new, or moves, is found by asking again."""
        for pause in islice(backoff(), _ASKED_AGAIN):
            try:
                low_high: tuple[int, int] = consumer.get_watermark_offsets(partition, timeout=30)
                return low_high
            except confluent_kafka.KafkaException as error:
                log.warning("Kafka: %s; waiting %.1f s", error.args[0].str(), pause)
                self._stopping.wait(pause)
        raise Unavailable(f"Kafka does not say where {partition.topic}[{partition.partition}] ends")

    def _load(self, db: writer.Db, topic: str, partition: int, log_range: tuple[int, int]) -> int:
        topic_id, expires = self._known[topic].id, topic in self._expiring
        gap = self._accept_gap or topic == self._exports  # the log keeps requests for longer than files are kept
        return offsets.load(db, topic, partition, topic_id, log_range, gap, expires)

    def _on_revoke(self, consumer: Any, partitions: list[confluent_kafka.TopicPartition]) -> None:
        """Let the next owner find the offsets where our last write leaves them."""
        self._finish()
        self._assignment += 1
        self._positions.clear()
        self._lag.begin({})
        self._law.begin(())
        metrics.ASSIGNED.set(0)

    def _read(self) -> list[confluent_kafka.Message]:
        """What is there, about `sink_batch_rows` of it; waits only for the first message."""
        records = self._records(self._consumer.consume(1, timeout=0.5))
        room = Room(self._settings.sink_batch_rows, records)
        while records and room.left:
            more = self._records(self._consumer.consume(_MESSAGES_AT_ONCE, timeout=0.002))
            if not more:
                break
            room.take(more)
            records += more
        return records

    def _records(self, delivered: list[confluent_kafka.Message]) -> list[confluent_kafka.Message]:
        """The records of it; where a partition ends behind them, the lag knows it."""
        records = []
        for record in good(delivered):
            at, offset = (record.topic(), record.partition()), record.offset()
            if record.error() is None:
                self._read_up_to[at] = offset + 1
                records.append(record)
            else:
                self._lag.nothing_between(at, self._read_up_to.get(at, offset), offset)
        return records

    def _write(self, batch: Batch, moves: list[Move], records: list[confluent_kafka.Message]) -> None:
        """Write a batch, however long PostgreSQL is away. Runs in the writer's thread."""
        started, began_ns = time.perf_counter(), time.time_ns()
        unsure = False

        def write(db: writer.Db) -> None:
            nonlocal unsure
            if not (unsure and offsets.landed(db, moves)):
                unsure = True
                writer.write(db, batch, moves, self._breaker)

        self._connection.insist(write)
        metrics.WRITE_SECONDS.observe(time.perf_counter() - started)
        for record in {(record.topic(), record.partition()): record for record in records}.values():
            self._lag.done((record.topic(), record.partition()), record.offset(), record.timestamp()[1] / 1000)
        self._law.settle(batch)
        count(batch)
        for event, what in batch.traced:
            tracing.done("write", began_ns, event, **outcome_of(what))

    def _moves(self, records: list[confluent_kafka.Message], batch: Batch) -> list[Move]:
        ends = {(record.topic(), record.partition()): record.offset() + 1 for record in records}
        moves = []
        for at, end in sorted(ends.items()):
            moves.append(Move(*at, self._known[at[0]].id, self._positions[at], end, batch.up_to.get(at)))
            self._positions[at] = end
        return moves

    def _group(self) -> str:
        """A group a database: two that share one would each get the half of all partitions."""
        return self._settings.named(f"{GROUP}-{self._connection.insist(offsets.database_id)}")
