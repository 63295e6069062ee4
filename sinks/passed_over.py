"""Messages without a line in the ledger that can get none any more: sinks are past whatever came of them.

Streams commit a message after its outputs are in the log, and sinks move their offsets with what they write. So the
order of the questions is the proof: where streams are, then where the topics between end, then whether sinks have read
up to there, then the ledger.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import confluent_kafka
import psycopg
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import topics
from schemas.settings import Settings

Partition = tuple[str, int]
Suspects = Mapping[Partition, list[int]]
"""Offsets by topic and partition, in order."""

_BETWEEN: Final = (topics.INGESTION_UNIQUE, topics.OUTCOMES, topics.PRICES_VERDICTS)
"""What lines of the ledger are made from; an output has the partition number of its source."""
_PATIENCE_S: Final = 5.0
_WITHIN_S: Final = 10.0


def passed_over(settings: Settings, consumer: Any, suspects: Suspects) -> dict[Partition, set[int]]:
    """Those of the suspects that are lost. While sinks are behind for more than some seconds, nobody can tell: none."""
    if not suspects:
        return {}
    committed = _committed(settings, suspects)
    ours = {at: [n for n in offsets if n < committed[at]] for at, offsets in suspects.items()}
    numbers = {partition for (_, partition), offsets in ours.items() if offsets}
    wanted = [(settings.named(name), number) for number in numbers for name in _BETWEEN]
    ends = {at: consumer.get_watermark_offsets(TopicPartition(*at), timeout=_WITHIN_S)[1] for at in wanted}
    with psycopg.connect(settings.database_url, connect_timeout=5, autocommit=True) as db:
        read = _read(db, consumer, ends)
        return {at: set(offsets) - _lines(db, at, offsets) for at, offsets in ours.items() if at[1] in read and offsets}


def _committed(settings: Settings, suspects: Suspects) -> dict[Partition, int]:
    """The offset before which streams are done, a partition; 0 where the group does not remember."""
    group, admin = settings.named(topics.STREAMS_GROUP), AdminClient({**settings.kafka, "log_level": 0})
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(*at) for at in suspects])
    said = admin.list_consumer_group_offsets([wanted], request_timeout=_WITHIN_S)[group].result()
    return {(tp.topic, tp.partition): max(0, tp.offset) for tp in said.topic_partitions}


def _read(db: psycopg.Connection[Any], consumer: Any, ends: Mapping[Partition, int]) -> set[int]:
    """The partition numbers of which sinks have read every topic up to these ends."""
    left, deadline = dict(ends), time.monotonic() + _PATIENCE_S
    while True:
        rows = db.execute("SELECT topic, partition, next_offset FROM sink_offsets").fetchall()
        at = {(topic, partition): offset for topic, partition, offset in rows}
        left = {key: end for key, end in left.items() if _next(consumer, key, at.get(key, 0), end) < end}
        if not left or time.monotonic() >= deadline:
            return {number for _, number in ends} - {number for _, number in left}
        time.sleep(0.2)


def _next(consumer: Any, at: Partition, offset: int, end: int) -> int:
    """Where the first message at or after an offset is; `end` where only markers of transactions are before that."""
    if offset >= end:
        return offset
    consumer.assign([TopicPartition(*at, offset)])
    for message in consumer.consume(1, timeout=_WITHIN_S):
        error = message.error()
        if error is None:
            return int(message.offset())
        if error.code() != KafkaError._PARTITION_EOF:
            raise confluent_kafka.KafkaException(error)
        return end
    return offset


def _lines(db: psycopg.Connection[Any], at: Partition, offsets: list[int]) -> set[int]:
    rows = db.execute(
        "SELECT log_offset FROM ledger WHERE topic = %s AND partition = %s AND log_offset = ANY(%s)", [*at, offsets]
    )
    return {offset for (offset,) in rows}
