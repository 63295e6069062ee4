"""What streams make of stock, by their own pure functions, written to the topics that sinks read."""

import time
import uuid
from collections import defaultdict
from typing import Any

import confluent_kafka
from pipeline import Pipeline

from producers.client import config
from schemas import codec, envelope, stock, topics
from schemas.stock import Level
from streams.stock import Source, fold_batch


def movement(kind: str, quantity: int, product: str = "P", **more: Any) -> codec.Record:
    """A movement as its Avro record."""
    row = {"line": 1, "product_id": product, "kind": kind, "quantity": quantity}
    return row | {"movement_id": None, "occurred_at": None, "expected_quantity": None} | more


class Folding:
    """Takes messages of `stock` and leaves levels and outcomes behind, in one Kafka transaction each, as streams do."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._settings = settings = pipeline.settings
        self._source = confluent_kafka.Producer(config(settings))
        self._producer = confluent_kafka.Producer(config(settings) | {"transactional.id": f"fold-{uuid.uuid4()}"})
        self._producer.init_transactions(30)
        self.levels: dict[bytes, Level] = defaultdict(Level)

    def take(self, tenant: str, rows: list[codec.Record], *, oversell: bool = False, event_id: str = "") -> str:
        """Publish a message, fold it, and return its event id."""
        event_id = event_id or str(uuid.uuid4())
        value = codec.encode(stock.MOVEMENTS, {"tenant_id": tenant, "rows": rows})
        src = self._append(tenant, event_id, value, len(rows))
        before = dict(self.levels)
        key = topics.partition_key(tenant)
        source = Source(key, event_id, src.offset, src.time_ms * 1000, src.time_ms * 1000)
        read = codec.decode_rows(stock.MOVEMENTS, value)["rows"]
        outcomes = fold_batch(self.levels, read, source, oversell)
        record = {
            "tenant_id": tenant, "event_id": event_id, "type": stock.MOVEMENTS, "topic": src.topic,
            "partition": src.partition, "offset": src.offset, "time_ms": src.time_ms, "accepted_ms": src.time_ms,
        }  # fmt: skip
        self._producer.begin_transaction()
        for level_key, level in self.levels.items():
            if before.get(level_key) != level:
                self.put_level(level_key, level, src.partition)
        folded = codec.encode_around(stock.OUTCOME, record, outcomes)
        headers = self._headers(f"{src.topic}/{src.partition}/{src.offset}", stock.OUTCOME, folded, len(rows), event_id)
        self._producer.produce(self._settings.named(topics.OUTCOMES), folded, key, src.partition, headers=headers)
        self._producer.commit_transaction(30)
        return event_id

    def put_level(self, key: bytes, level: Level, partition: int) -> None:
        value = stock.encode_level(key, level)
        self._producer.produce(self._settings.named(topics.STOCK_LEVELS), value, key, partition)

    def _append(self, tenant: str, event_id: str, value: bytes, rows: int) -> envelope.Position:
        found: list[envelope.Position] = []

        def delivered(error: Any, message: confluent_kafka.Message) -> None:
            assert error is None
            at = (message.topic(), message.partition(), message.offset(), message.timestamp()[1])
            found.append(envelope.Position(*at))

        headers = self._headers(event_id, stock.MOVEMENTS, value, rows)
        self._source.produce(
            self._settings.named(topics.STOCK), value, topics.partition_key(tenant), headers=headers,
            on_delivery=delivered,
        )  # fmt: skip
        self._source.flush(30)
        return found[0]

    def _headers(
        self, event_id: str, type_: str, value: bytes, rows: int, subject: str | None = None
    ) -> envelope.Headers:
        return envelope.headers_of(
            event_id=event_id, type=type_, source="tests", accepted_ms=time.time_ns() // 1_000_000, rows=rows,
            value=value, traceparent=None, subject=subject,
        )  # fmt: skip
