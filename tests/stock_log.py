"""Stock on a pipeline's topics: what is sent, and what streams made of it, held against the model."""

import random
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import confluent_kafka
from pipeline import Pipeline, eventually
from test_recovery import log_of

from deploy.chaos.stock_model import Stock
from producers.client import config
from schemas import codec, envelope, stock, topics
from schemas.codec import Record
from schemas.envelope import Position


class Sender:
    """A direct producer of stock for tenants that lie on all partitions."""

    def __init__(self, pipeline: Pipeline, seed: int = 5) -> None:
        self._settings = pipeline.settings
        self._producer = confluent_kafka.Producer(config(pipeline.settings))
        self._chance = random.Random(seed)
        self.sent = 0
        names = (f"shop-{n}" for n in range(1_000))
        by_partition = {topics.partition_of(name.encode(), pipeline.settings.partitions): name for name in names}
        self.tenants = list(by_partition.values())

    def send(self, tenant_id: str, value: bytes, type_: str, event_id: str, rows: int = 0) -> None:
        """Hand a message to Kafka."""
        headers = envelope.headers_of(
            event_id=event_id, type=type_, source="test", accepted_ms=time.time_ns() // 1_000_000, rows=rows,
            value=value, traceparent=None,
        )  # fmt: skip
        self._producer.produce(self._settings.named(topics.STOCK), value, tenant_id.encode(), headers=headers)
        self.sent += 1

    def movements(self, tenant_id: str, rows: list[Record], event_id: str) -> None:
        """One batch."""
        value = codec.encode(stock.MOVEMENTS, {"tenant_id": tenant_id, "rows": rows})
        self.send(tenant_id, value, stock.MOVEMENTS, event_id, len(rows))

    def anything(self, messages: int, movements: int = 10) -> None:
        """Messages of all kinds, some of them twice or under a taken id, and wait until Kafka has them."""
        chance = self._chance
        for n in range(messages):
            tenant_id, event_id = chance.choice(self.tenants), f"event-{chance.randrange(10**9)}"
            if n % 40 == 0:
                value = codec.encode(stock.POLICY, {"tenant_id": tenant_id, "oversell": chance.random() < 0.5})
                self.send(tenant_id, value, stock.POLICY, event_id)
                continue
            rows = [self._movement() for _ in range(movements)]
            self.movements(tenant_id, rows, event_id)
            if n % 10 == 0:
                self.movements(tenant_id, rows, event_id)
                self.movements(tenant_id, rows[1:], event_id)
        self.flush()

    def _movement(self) -> Record:
        chance = self._chance
        kind = chance.choice(("received", "received", "sold", "sold", "returned", "adjusted", "set"))
        return {
            "line": 0,
            "product_id": f"P/{chance.randrange(40)}",
            "kind": kind,
            "quantity": chance.randrange(-5 if kind == "adjusted" else 0, 10),
            "movement_id": f"m-{chance.randrange(400)}" if chance.random() < 0.3 else None,
            "occurred_at": time.time_ns() // 1000 + chance.randrange(-(10**6), 10**6)
            if chance.random() < 0.3
            else None,
            "expected_quantity": chance.randrange(10) if chance.random() < 0.1 else None,
        }

    def flush(self) -> None:
        """Wait until Kafka has all of it."""
        assert self._producer.flush(30) == 0


def settled(pipeline: Pipeline, sent: int, within: float = 60.0) -> list[Any]:
    """The outcomes, once there is one for each message."""
    eventually(lambda: len(log_of(pipeline, topics.OUTCOMES)) >= sent, within)
    return log_of(pipeline, topics.OUTCOMES)


def assert_as_the_model(pipeline: Pipeline, sent: int, within: float = 60.0) -> Counter[str]:
    """Each message of `stock` has one outcome, the model's, and the levels are the model's; outcomes are counted."""
    model, expected = Stock(), {}
    messages = log_of(pipeline, topics.STOCK)
    assert len(messages) == sent
    for message in sorted(messages, key=lambda m: (m.partition(), m.offset())):
        at = Position(message.topic(), message.partition(), message.offset(), message.timestamp()[1])
        head, tenant_id = envelope.read(message.headers(), message.value(), at), message.key().decode()
        record = codec.decode(head.type, message.value())
        accepted_us = min(head.accepted_ms, at.time_ms) * 1000
        told = model.take(tenant_id, head.event_id, head.content_hash, record.get("rows", []), accepted_us)
        if head.type == stock.POLICY and told == []:
            model.oversell[tenant_id] = record["oversell"]
        expected[at.partition, at.offset] = told
    outcomes = settled(pipeline, sent, within)
    found = dict(map(_told, outcomes))
    assert len(outcomes) == len(found) == sent
    assert found == expected

    def levels() -> dict[Any, tuple[int, int]]:
        last = {topics.parse_level_key(m.key()): m.value() for m in log_of(pipeline, topics.STOCK_LEVELS)}
        read = {key: codec.decode(stock.LEVEL, value) for key, value in last.items() if key}
        return {key: (one["quantity"], one["version"]) for key, one in read.items()}

    with suppress(AssertionError):  # Kafka marks a transaction as committed partition by partition
        eventually(lambda: levels() == model.levels(), within=5)
    assert levels() == model.levels()
    kinds = [[told] if isinstance(told, str) else [one[0] for one in told] for told in found.values()]
    return Counter(kind for several in kinds for kind in several)


def _told(message: Any) -> tuple[tuple[int, int], Any]:
    type_ = dict(message.headers())["ce_type"].decode()
    record = codec.decode(type_, message.value())
    at = record["partition"], record["offset"]
    if type_ != stock.OUTCOME:
        return at, record["kind"]
    return at, [(one["outcome"], one["code"], one["quantity"], one["version"]) for one in record["movements"]]
