"""What is not done yet: messages that streams and sinks have still to read, how old the oldest is, dead letters."""

import time
from collections.abc import Iterator
from typing import Any, Final

import confluent_kafka
import psycopg
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.doctor.finding import Finding, fail, ok, warn
from producers.admin import topic_ids
from schemas import topics
from schemas.errors import Misconfigured
from schemas.settings import Settings
from sinks import offsets
from sinks.consumer import GROUP, TOPICS

_SOURCES: Final = (topics.INGESTION, topics.STOCK, topics.PRICES)
_OLD_S: Final = 60.0
_WITHIN_S: Final = 5.0

At = tuple[str, int]


def look(settings: Settings) -> Iterator[Finding]:
    """Lag of both, and members of both groups. Both stores must answer."""
    admin = AdminClient({**settings.kafka, "log_level": 0})
    consumer = confluent_kafka.Consumer(
        {**settings.kafka, "group.id": "unused", "enable.auto.commit": False, "log_level": 0}
    )
    try:
        yield from _streams(admin, consumer, settings)
        with psycopg.connect(settings.database_url) as db:
            yield from _sinks(admin, consumer, settings, db)
        yield from _dead_letters(consumer, settings)
    finally:
        consumer.close()


def _streams(admin: AdminClient, consumer: Any, settings: Settings) -> Iterator[Finding]:
    group = settings.named(topics.STREAMS_GROUP)
    wanted = [at for name in _SOURCES for at in _partitions(consumer, settings.named(name))]
    asked = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, [TopicPartition(*at) for at in wanted])]
    )
    committed = {(tp.topic, tp.partition): max(0, tp.offset) for tp in asked[group].result().topic_partitions}
    yield _group("streams", admin, group, "tillstream streams")
    yield _behind("streams", consumer, committed)


def _sinks(admin: AdminClient, consumer: Any, settings: Settings, db: psycopg.Connection[Any]) -> Iterator[Finding]:
    names = [settings.named(name) for name in TOPICS]
    stored: dict[At, int] = {
        (topic, partition): offset
        for topic, partition, offset in db.execute(
            "SELECT topic, partition, next_offset FROM sink_offsets WHERE topic = ANY(%s)", [names]
        )
    }
    ids = topic_ids(admin, names)
    for at in stored:
        try:
            log_range = consumer.get_watermark_offsets(TopicPartition(*at), timeout=_WITHIN_S)
            offsets.load(db, *at, ids[at[0]], log_range, accept_gap=False)
        except Misconfigured as exc:
            yield fail("offsets", str(exc), "as it says; sinks do not start until then")
            return
    yield _group("sinks", admin, settings.named(f"{GROUP}-{offsets.database_id(db)}"), "tillstream sinks")
    every = {at: stored.get(at, 0) for name in names for at in _partitions(consumer, name)}
    yield _behind("sinks", consumer, every)


def _group(role: str, admin: AdminClient, group: str, command: str) -> Finding:
    described = admin.describe_consumer_groups([group])[group].result()
    if not described.members:
        return fail(role, f"nobody is in the consumer group {group}", f"start one: {command}, or tillstream up")
    return ok(role, f"{len(described.members)} in the consumer group {group}")


def _behind(role: str, consumer: Any, positions: dict[At, int]) -> Finding:
    """How much there is to read from these positions on, and since when the oldest waits."""
    behind = {}
    for at, position in positions.items():
        first, end = consumer.get_watermark_offsets(TopicPartition(*at), timeout=_WITHIN_S)
        if end > max(first, position):
            behind[at] = max(first, position), end
    oldest = min(_first_times(consumer, behind).items(), key=lambda item: item[1], default=None)
    if oldest is None:  # markers of transactions alone, which nobody reads
        return ok(f"{role} lag", "nothing to read")
    messages = sum(end - position for position, end in behind.values())
    waits = time.time() - oldest[1]
    found = f"{messages:,} messages to read; the oldest, of {oldest[0][0]}[{oldest[0][1]}], waits {_span(waits)}"
    if waits < _OLD_S:
        return ok(f"{role} lag", found)
    return warn(f"{role} lag", found, f"if it grows: look at the log of {role}, then add a worker of {role}")


def _first_times(consumer: Any, behind: dict[At, tuple[int, int]]) -> dict[At, float]:
    """When the first message from each position on was made; without those that have only markers."""
    times: dict[At, float] = {}
    for at, (position, _) in behind.items():
        consumer.assign([TopicPartition(*at, position)])
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            times[at] = message.timestamp()[1] / 1000
    consumer.unassign()
    return times


def _dead_letters(consumer: Any, settings: Settings) -> Iterator[Finding]:
    ranges = [
        consumer.get_watermark_offsets(TopicPartition(*at), timeout=_WITHIN_S)
        for at in _partitions(consumer, settings.named(topics.DEAD_LETTERS))
    ]
    if count := sum(end - first for first, end in ranges):
        yield warn("dead letters", f"about {count:,} on their topic", "tillstream dlq list says of whom and why")
    else:
        yield ok("dead letters", "none")


def _partitions(consumer: Any, topic: str) -> list[At]:
    return [(topic, partition) for partition in consumer.list_topics(topic, timeout=_WITHIN_S).topics[topic].partitions]


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )
