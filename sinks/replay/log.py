"""What a replay reads: partitions that say something of a tenant, from where to where, and their records."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import confluent_kafka
import psycopg
from confluent_kafka.admin import AdminClient
from psycopg.sql import SQL, Identifier

from producers.admin import describe, refuse_other_count
from schemas import topics
from schemas.envelope import INGESTION_POLICY
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings
from sinks import offsets
from sinks.records import Room

Db = psycopg.Connection[Any]
At = tuple[str, int]
"""A topic, by its real name, and a partition."""
Bound = datetime | int
"""A place in the log: a time, or an offset."""

READ: Final = (
    topics.INGESTION_UNIQUE, topics.OUTCOMES, topics.PRICES_VERDICTS, topics.STOCK_LEVELS, topics.TENANTS,
)  # fmt: skip
_BATCH_ROWS: Final = 10_000
_SCANNED_AT_ONCE: Final = 20_000
_MESSAGES_AT_ONCE: Final = 8
_PATIENCE_S: Final = 30.0
_LOCKED: Final = """
SELECT topic, partition, topic_id, next_offset FROM {}
JOIN unnest(%s::text[], %s::int[]) AS wanted (topic, partition) USING (topic, partition)
ORDER BY topic COLLATE "C", partition
FOR UPDATE OF sink_offsets
"""
"""Locks in the order in which sinks do."""
_POLICY: Final = ("ce_type", INGESTION_POLICY.encode())


@dataclass(slots=True)
class Chunk:
    """Records of the tenant, and how far each partition was looked through for them."""

    records: list[confluent_kafka.Message] = field(default_factory=list)
    ends: dict[At, int] = field(default_factory=dict)
    scanned: int = 0


class Log:
    """The partitions of some topics in which a tenant, or everybody, has records. Use as `with Log(...) as log:`."""

    def __init__(
        self, settings: Settings, tenant: str | None, names: tuple[str, ...] = READ, *, scattered: bool = True
    ) -> None:
        """Without `scattered` only the tenant's own partitions count, as where an offset is to mean one place."""
        self._key = None if tenant is None else topics.partition_key(tenant)
        self._level_prefix = topics.level_key(self._key or b"", "")
        self._levels, self._messages = settings.named(topics.STOCK_LEVELS), settings.named(topics.INGESTION_UNIQUE)
        admin = AdminClient({**settings.kafka, "log_level": 0})
        try:
            self.topics = describe(admin, [settings.named(name) for name in names])
        except confluent_kafka.KafkaException as exc:
            raise Misconfigured(f"Kafka: {exc.args[0].str()}. Run: tillstream topics ensure") from exc
        # What a stranger put on another partition than its key's has an outcome on that partition.
        everywhere = settings.named(topics.OUTCOMES) if scattered else None
        self.parts: list[At] = sorted(
            (name, partition)
            for name, topic in self.topics.items()
            for partition in range(topic.partitions)
            if self._key is None or name == everywhere or partition == topics.partition_of(self._key, topic.partitions)
        )
        self._consumer = confluent_kafka.Consumer(
            {
                **settings.kafka,
                "group.id": "unused",
                "client.id": "tillstream-replay",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": 32_768,
            }
        )
        self._from: dict[At, int] = {}
        self.short = False
        """Whether the beginning of some partition's log is gone; known once `starts` was asked."""

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exc: object) -> None:
        self._consumer.close()

    def live(self, db: Db, schema: str, *, lock: bool = False) -> dict[At, int]:
        """Where the live tables are in each partition. With `lock`, sinks wait until the transaction ends.

        Raises Misconfigured where a topic is not the one that the tables were filled from.
        """
        table = Identifier(schema, "sink_offsets")
        rows = db.execute(SQL("SELECT topic, partition, topic_id, next_offset FROM {}").format(table)).fetchall()
        stored = {(topic, partition): (topic_id, offset) for topic, partition, topic_id, offset in rows}
        for name, topic in self.topics.items():
            known = sum(at[0] == name for at in stored)
            if not known:
                raise Misconfigured(f"no sink has read {name} yet. Start one: an empty database fills itself")
            refuse_other_count(name, topic.partitions, known)
        if lock:
            wanted = [[topic for topic, _ in self.parts], [partition for _, partition in self.parts]]
            for topic, partition, topic_id, offset in db.execute(SQL(_LOCKED).format(table), wanted):
                stored[topic, partition] = topic_id, offset
        for at in self.parts:
            offsets.refuse_other_log(f"{at[0]}[{at[1]}]", (self.topics[at[0]].id, self._range(at)[1]), stored[at])
        return {at: stored[at][1] for at in self.parts}

    def starts(self, since: Bound | None, live: Mapping[At, int], *, merge: bool) -> dict[At, int]:
        """Where to begin in each partition: at the log's beginning, or at a bound.

        Raises Misconfigured where what comes after it is gone from the log in part, unless told to merge.
        """
        starts = {}
        for at in self.parts:
            first, _ = self._range(at)
            wanted = 0 if since is None else self._offset(at, since, live[at])
            # Nobody can say whether a record of that time came before the log's first.
            gone = wanted < first or (isinstance(since, datetime) and wanted == first > 0)
            if gone and not merge:
                raise Misconfigured(
                    f"{at[0]}[{at[1]}] begins at {first}: what lay before is gone from the log, and tables made without"
                    " it would lack what it said. To put right what the log still knows, and keep the rest as it is:"
                    " --merge"
                )
            self.short |= first > 0
            self._from[at] = max(first, wanted)
            # Rows are judged by the policies that held then, whenever those were set.
            starts[at] = min(first if at[0] == self._messages else self._from[at], live[at])
        return starts

    def ends(self, until: Bound | None, live: Mapping[At, int]) -> dict[At, int]:
        """Where to stop in each partition: where the live tables are, or at a bound before that."""
        if until is None:
            return dict(live)
        return {at: min(live[at], self._offset(at, until, live[at])) for at in self.parts}

    def read(self, positions: dict[At, int], ends: Mapping[At, int]) -> Iterator[Chunk]:
        """The tenant's records from `positions`, which move, up to before `ends`. Raises Unavailable without Kafka."""
        left = {at: end for at, end in ends.items() if positions[at] < end}
        if not left:
            return
        wanted = [confluent_kafka.TopicPartition(*at, positions[at]) for at in left]
        self._consumer.assign(wanted)
        self._consumer.resume(wanted)  # those that a reading before this one was done with
        chunk, room, heard = Chunk(), Room(_BATCH_ROWS, []), time.monotonic()
        while left:
            for record in self._consumer.consume(_MESSAGES_AT_ONCE, timeout=0.005):
                at = (record.topic(), record.partition())
                offset = self._next(record)
                if offset is None or at not in left:
                    continue
                heard = time.monotonic()
                if record.error() is None:
                    chunk.scanned += 1
                    if record.offset() < left[at] and self._wanted(record, at):
                        chunk.records.append(record)
                        room.take([record])
                chunk.ends[at] = positions[at] = max(positions[at], min(offset, left[at]))
                if positions[at] == left[at]:
                    del left[at]
                    self._consumer.pause([confluent_kafka.TopicPartition(*at)])
            if not room.left or chunk.scanned >= _SCANNED_AT_ONCE:
                yield chunk
                chunk, room, heard = Chunk(), Room(_BATCH_ROWS, []), time.monotonic()
            elif time.monotonic() > heard + _PATIENCE_S:
                raise Unavailable(f"Kafka sends nothing of {', '.join(f'{t}[{p}]' for t, p in left)}")
        yield chunk

    def _next(self, record: confluent_kafka.Message) -> int | None:
        """The offset after a record, or that at which the log ends; None for what is no matter."""
        error = record.error()
        if error is None:
            return int(record.offset()) + 1
        if error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
            return int(record.offset())
        if error.code() == confluent_kafka.KafkaError._AUTO_OFFSET_RESET:
            raise Misconfigured(
                f"{record.topic()}[{record.partition()}] lost records while they were being read ({error.str()}):"
                " begin again; it will say what is gone"
            )
        if error.fatal():
            raise confluent_kafka.KafkaException(error)
        return None

    def _wanted(self, record: confluent_kafka.Message, at: At) -> bool:
        key = record.key() or b""
        if self._key is not None and not (
            key.startswith(self._level_prefix) if at[0] == self._levels else key == self._key
        ):
            return False
        return record.offset() >= self._from[at] or _POLICY in (record.headers() or ())

    def _range(self, at: At) -> tuple[int, int]:
        """The log's first and end offset."""
        first, end = self._consumer.get_watermark_offsets(confluent_kafka.TopicPartition(*at), timeout=10)
        return first, end

    def _offset(self, at: At, bound: Bound, live: int) -> int:
        """The first offset at or after a bound; the live tables' where there is none."""
        if isinstance(bound, int):
            return bound
        wanted = confluent_kafka.TopicPartition(*at, round(bound.timestamp() * 1000))
        [found] = self._consumer.offsets_for_times([wanted], timeout=10)
        return int(found.offset) if found.offset >= 0 else live
