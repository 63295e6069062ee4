"""Kafka to rows in PostgreSQL: a sink alone, on what the gateway and streams left in `ingestion.unique` before."""

import time
from collections.abc import Iterator
from typing import Final

import confluent_kafka

from deploy.bench import figures, rows
from deploy.bench.figures import Figure
from deploy.bench.ingest import applied, until_applied
from deploy.bench.installation import TENANT, Installation, Say, spent
from deploy.bench.limit import Limit
from deploy.bench.load import Load, fire
from deploy.stack import Stack
from schemas import topics
from schemas.errors import Rejected
from schemas.settings import Settings

TARGET: Final = 0.7
# A transaction is a batch. The first one ends where the clock starts: it also waited for the sink to start.
_PACE: Final = """
WITH batches AS (
    SELECT max(applied_at) AS at, sum(applied) AS rows FROM ledger WHERE type = %s GROUP BY xmin::text
)
SELECT sum(rows) FILTER (WHERE at > (SELECT min(at) FROM batches))
       / nullif(extract(epoch FROM max(at) - min(at)), 0)
FROM batches
"""


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """A sink alone on rows that lie in Kafka, from its first batch to its last."""
    with Installation(stack, "sinks") as shop:
        for done, entity in enumerate(rows.ENTITIES):
            into_kafka(shop, entity, count, count * (done + 1), say)
            say(f"{entity} from Kafka to rows, and their limit")
            limit = Limit(stack.settings.database_url, entity, count)
            pace, cost = drain(shop, entity, count * done, count)
            limit.look()
            most = limit.most
            yield figures.limit(f"COPY + upsert, {entity}", most)
            yield figures.share(f"{entity}, Kafka to rows", pace, most, TARGET)
            yield from cost


def into_kafka(shop: Installation, entity: str, count: int, altogether: int, say: Say) -> None:
    """Leave `count` rows where sinks read them, which makes so many `altogether`."""
    say(f"{entity} into Kafka")
    key = shop.tenant()
    shop.start("gateway", "streams")
    fire(Load(f"{shop.gateway_url}/api/v1/tenants/{TENANT}/ingest/{entity}", key, entity, count=count)).only(202)
    _until_forwarded(shop.settings, altogether)
    shop.stop("gateway", "streams")


def drain(shop: Installation, entity: str, known: int, count: int) -> tuple[float, list[Figure]]:
    """Let a sink take `count` rows; its rows a second, and the CPU of what came after its first batch."""
    shop.start("sinks")
    with shop.database() as db:
        while (first := applied(db)) == known:
            time.sleep(0.02)
    before = shop.cpu_seconds()
    until_applied(shop, known + count)
    left, used = known + count - first, spent(before, shop.cpu_seconds())
    shop.stop("sinks")
    with shop.database() as db:
        row = db.execute(_PACE, [f"tillstream.{entity}.v1"]).fetchone()
    pace = row[0] if row else None
    if pace is None:
        raise Rejected("too_few_rows", "all rows fit one batch of the sink; give more --rows")
    return float(pace), figures.cpu(used, left) if left else []


def _until_forwarded(settings: Settings, count: int) -> None:
    """Return when streams have committed so many rows to the topic that sinks read."""
    consumer = confluent_kafka.Consumer(
        {
            **settings.kafka,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    topic = settings.named(topics.INGESTION_UNIQUE)
    start = confluent_kafka.OFFSET_BEGINNING
    consumer.assign([confluent_kafka.TopicPartition(topic, n, start) for n in range(settings.partitions)])
    while count > 0:
        for message in consumer.consume(100, timeout=0.5):
            count -= int(dict(message.headers() or ())["ts-rows"])
    consumer.close()
