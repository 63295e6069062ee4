"""Stock movements that are sent, and what streams make of them: seeded, of one tenant, over 50,000 products."""

import random
import time
from collections.abc import Iterator
from typing import Any, Final

import confluent_kafka

from deploy.bench.installation import TENANT
from producers.client import config
from schemas import codec, stock, topics
from schemas.envelope import headers_of
from schemas.errors import Unavailable
from schemas.settings import Settings

PRODUCTS: Final = 50_000
QUIET_S: Final = 60.0


def publish(settings: Settings, count: int, batch: int, seed: int = 11, products: int = PRODUCTS) -> None:
    """Put `count` movements on `stock`, `batch` of them a message; return when all are acknowledged."""
    producer = confluent_kafka.Producer(config(settings) | {"linger.ms": 20, "queue.buffering.max.messages": 0})
    topic, key = settings.named(topics.STOCK), topics.partition_key(TENANT)
    for n, rows in enumerate(_batches(count, batch, products, random.Random(seed))):
        value = codec.encode(stock.MOVEMENTS, {"tenant_id": TENANT, "rows": rows})
        headers = headers_of(
            event_id=f"bench-{seed}-{n}", type=stock.MOVEMENTS, source="bench", accepted_ms=time.time_ns() // 1_000_000,
            rows=len(rows), value=value, traceparent=None,
        )  # fmt: skip
        producer.produce(topic, value, key, headers=headers)
        producer.poll(0)
    if producer.flush(60):
        raise Unavailable("Kafka did not take the movements of the benchmark")


def _batches(count: int, batch: int, products: int, chance: random.Random) -> Iterator[list[dict[str, Any]]]:
    """Three quarters are received or returned, so that few sales are refused; one in fifty is a set."""
    for first in range(0, count, batch):
        yield [
            {
                "line": line,
                "product_id": f"P-{chance.randrange(products):05d}",
                "kind": "set"
                if chance.random() < 0.02
                else chance.choice(("received", "received", "returned", "sold")),
                "quantity": chance.randrange(1, 20),
                "movement_id": f"m-{first + line}",
            }
            for line in range(1, min(batch, count - first) + 1)
        ]


def pace(settings: Settings, count: int) -> float:
    """Movements a second, from the first flush of streams to the last, by the times at which they wrote outcomes.

    Returns when `count` movements have an outcome; raises Unavailable when none comes for a minute.
    """
    consumer = confluent_kafka.Consumer(
        {
            **settings.kafka,
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    partition = topics.partition_of(topics.partition_key(TENANT), settings.partitions)
    at = confluent_kafka.TopicPartition(settings.named(topics.OUTCOMES), partition, confluent_kafka.OFFSET_BEGINNING)
    consumer.assign([at])
    flushes: dict[int, int] = {}
    heard, left = time.monotonic(), count
    while left > 0:
        for message in consumer.consume(500, timeout=0.2):
            heard, rows = time.monotonic(), int(dict(message.headers() or ())["ts-rows"])
            written = message.timestamp()[1]
            flushes[written] = flushes.get(written, 0) + rows
            left -= rows
        if time.monotonic() - heard > QUIET_S:
            raise Unavailable(f"streams left {left} movements undone")
    consumer.close()
    first, last = min(flushes), max(flushes)
    return (count - flushes[first]) / max(last - first, 1) * 1000


def records(settings: Settings, topic: str) -> int:
    """Records of a topic, transaction markers included."""
    consumer = confluent_kafka.Consumer({**settings.kafka, "group.id": "unused", "enable.auto.commit": False})
    name = settings.named(topic)
    ranges = (
        consumer.get_watermark_offsets(confluent_kafka.TopicPartition(name, n), timeout=10)
        for n in consumer.list_topics(name, timeout=10).topics[name].partitions
    )
    count: int = sum(end - first for first, end in ranges)
    consumer.close()
    return count
