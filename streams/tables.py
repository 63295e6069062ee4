"""A transactional table and a store that restores fast: two small things for any Faust app.

Plain `faust.Table` sends each change to its changelog by itself, before or after the outputs that go with it, and
recovers a few thousand records a second. Here

- `Table` hands its changes to the current step (`streams.steps`), so that outputs and changelog are one
  transaction. Write through `table.of(step)`, read through `table.partition(n)`: a batch may mix partitions, where
  `table[key] = value` could not know which one is meant. Keys are bytes; so are values, unless the table has a codec.
  Then a restored value is read when it is first asked for, and a new one written when it is flushed.
- `Store` reads a changelog with librdkafka while Faust assigns partitions, and reports where it stopped as
  `persisted_offset`; Faust's own recovery then finds nothing left to do.

On every assignment the partition's writer is fenced first (`Steps.fence`), then each partition whose changelog does
not end with our own last record is dropped and read again: Faust may call a partition "kept" though another worker
owned it in between. A table that keeps the fence of a source topic is then held against that topic (`streams.sources`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, NamedTuple

import confluent_kafka
import faust
from faust.stores import memory

from producers.admin import refuse_other_count
from schemas import metrics
from schemas.errors import Misconfigured
from streams.dedup import fence_of, partitions_of
from streams.steps import Changes, Step, refuse

log = logging.getLogger(__name__)


class Codec(NamedTuple):
    """How a table's values become the changelog's, and back; both are told the key. Values must be immutable."""

    encode: Callable[[bytes, Any], bytes]
    decode: Callable[[bytes, bytes], Any]


class PartitionView(MutableMapping[bytes, Any]):
    """One partition of a table. Reads cost a dictionary look-up; writes also join a step, and need one."""

    __slots__ = ("_changes", "_decode", "_entries")

    def __init__(self, entries: dict[bytes, Any], codec: Codec | None, changes: Changes | None) -> None:
        self._entries = entries
        self._decode = codec.decode if codec else None
        self._changes = changes

    def __getitem__(self, key: bytes) -> Any:
        value = self._entries[key]
        if self._decode is not None and type(value) is bytes:
            value = self._entries[key] = self._decode(key, value)
        return value

    def get(self, key: bytes, default: Any = None) -> Any:
        """As dict.get; the inherited one would raise and catch."""
        value = self._entries.get(key, default)
        if type(value) is bytes and self._decode is not None:
            value = self._entries[key] = self._decode(key, value)
        return value

    def __setitem__(self, key: bytes, value: Any) -> None:
        self._writable[key] = self._entries[key] = value

    def __delitem__(self, key: bytes) -> None:
        del self._entries[key]
        self._writable[key] = None

    @property
    def _writable(self) -> Changes:
        if self._changes is None:
            raise TypeError("write through table.of(step)")
        return self._changes

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def forget(self, key: bytes) -> None:
        """Drop an entry that the changelog's own retention drops too; writes nothing."""
        del self._entries[key]


class Table(faust.Table):
    """A table whose changelog is part of a step's transaction; its name is the changelog's."""

    def __init__(self, app: Any, *, codec: Codec | None = None, fences: str = "", **options: Any) -> None:
        super().__init__(app, **options)
        self.codec = codec
        self.source = app.settings.named(fences) if fences else ""
        """The topic whose fence stands in this table; the other tables of an agent have none."""
        if codec:
            app.steps.encoders[self.name] = codec.encode

    def of(self, step: Step) -> PartitionView:
        """The entries of a step's partition, to read and to write."""
        entries = self.data.partitions[step.at.partition]
        return PartitionView(entries, self.codec, step.changes_of(self.name))

    def partition(self, partition: int) -> PartitionView:
        """The entries of one partition, to read."""
        return PartitionView(self.data.partitions[partition], self.codec, None)

    def on_key_set(self, key: Any, value: Any) -> None:
        """Refuse the plain way of writing, which would bypass the transaction."""
        raise TypeError(f"write through {self.name}.of(step)[key] = value")

    def on_key_del(self, key: Any) -> None:
        """As on_key_set."""
        raise TypeError(f"delete through del {self.name}.of(step)[key]")

    def _new_store(self) -> "Store":
        store = Store("memory://", self.app, self, table_name=self.name, loop=self.loop)
        metrics.TABLE_ENTRIES.labels(self.name).set_function(lambda: sum(map(len, tuple(store.partitions.values()))))
        return store


class Store(memory.Store):
    """Entries in memory, a dictionary a partition, restored from the changelog while partitions are assigned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.partitions: dict[int, dict[bytes, Any]] = {}
        self._ends: dict[int, int] = {}

    async def on_rebalance(
        self, assigned: set[Any], revoked: set[Any], newly_assigned: set[Any], generation_id: int = 0
    ) -> None:
        """Fence the writers of the assigned partitions, then make their entries equal to the changelog."""
        changelog = self.table.changelog_topic_name
        mine = frozenset(tp.partition for tp in assigned if tp.topic == changelog)
        await self.app.steps.fence(mine, generation_id)
        for lost in self.partitions.keys() - mine:
            del self.partitions[lost], self._ends[lost]
        await asyncio.to_thread(self._restore, changelog, mine)
        if self.table.source:
            await self._check_source(self.table.source, mine)
        metrics.ASSIGNED.set(len(mine))

    async def _check_source(self, source: str, mine: frozenset[int]) -> None:
        """End the process where the source is not the log that our entries were made from, or has other partitions."""
        fences = {n: fence for n in mine if (fence := fence_of(self.partitions[n])) is not None}
        known = {count for n in mine if (count := partitions_of(self.partitions[n])) is not None}
        try:
            for count in known:
                refuse_other_count(source, self.app.conf.topic_partitions, count, "the tables were made")
            await asyncio.to_thread(self.app.sources.check, source, fences)
        except Misconfigured as exc:
            refuse(exc)

    def _restore(self, changelog: str, mine: frozenset[int]) -> None:
        started = time.perf_counter()
        consumer = confluent_kafka.Consumer(
            {
                **self.app.settings.kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                "queued.max.messages.kbytes": 32_768,
                "fetch.queue.backoff.ms": 5,  # by default a full queue stops fetching for a second
            }
        )
        try:
            stale = self._stale(consumer, changelog, mine)
            records = self._read(consumer, changelog, stale) if stale else 0
            metrics.RESTORE_LEFT.labels(self.table_name).set(0)
        finally:
            consumer.close()
        took = time.perf_counter() - started
        metrics.RESTORED.labels(self.table_name).inc(records)
        metrics.RESTORE_SECONDS.labels(self.table_name).observe(took)
        log.info("%s: %d records of %d partitions restored in %.2f s", changelog, records, len(stale), took)

    def _stale(self, consumer: Any, changelog: str, mine: frozenset[int]) -> set[int]:
        """Partitions whose changelog does not end where our entries do; they are emptied here."""
        stale = set()
        for partition in mine:
            _, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(changelog, partition), timeout=30)
            ours = self.app.steps.ends.get((changelog, partition), self._ends.get(partition))
            self._ends[partition] = end
            if ours != end or partition not in self.partitions:
                self.partitions[partition] = {}
                if end > 0:
                    stale.add(partition)
        return stale

    def _read(self, consumer: Any, changelog: str, partitions: set[int]) -> int:
        consumer.assign(
            [confluent_kafka.TopicPartition(changelog, p, confluent_kafka.OFFSET_BEGINNING) for p in partitions]
        )
        unread, records = set(partitions), 0
        while unread:
            for message in consumer.consume(10_000, timeout=0.05):
                if error := message.error():
                    if error.code() != confluent_kafka.KafkaError._PARTITION_EOF:
                        raise confluent_kafka.KafkaException(error)
                    unread.discard(message.partition())
                    continue
                entries, key, value = self.partitions[message.partition()], message.key(), message.value()
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value
                records += 1
            left = sum(self._ends[p.partition] - max(0, p.offset) for p in consumer.position(consumer.assignment()))
            metrics.RESTORE_LEFT.labels(self.table_name).set(left)
        return records

    def persisted_offset(self, tp: Any) -> int | None:
        """The last offset of the changelog, a transaction's marker included: nothing is left for Faust to read."""
        end = self._ends.get(tp.partition)
        return None if end is None else end - 1

    async def on_recovery_completed(self, active_tps: set[Any], standby_tps: set[Any]) -> None:
        """Nothing to tidy: a lost partition was dropped when it was lost."""
