"""Prices: messages of 1,000 changes to verdicts, and one change at a time, through Kafka and over HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import confluent_kafka

from deploy.bench import callers, figures
from deploy.bench.figures import Figure
from deploy.bench.installation import Installation, Say, spent
from deploy.bench.load import percentile
from deploy.stack import Stack
from producers.client import config
from schemas import codec, topics
from schemas.envelope import headers_of
from schemas.errors import Unavailable
from schemas.prices import PRICE_CHANGES
from schemas.settings import Settings
from sinks.audit import audit

P95_MS: Final = 60.0
MESSAGE_ROWS: Final = 1_000
_TENANTS: Final = tuple(f"bench-{n}" for n in range(8))
_PER_SECOND: Final = 200
_SECONDS: Final = 10
_PATIENCE_S: Final = 120.0


def run(stack: Stack, count: int, say: Say) -> Iterator[Figure]:
    """Price changes to their verdicts, by one streams worker; each product comes five times. Over HTTP with sinks."""
    with Installation(stack, "verdicts") as shop:
        shop.start("streams")
        producer = confluent_kafka.Producer(config(shop.settings))
        with _verdicts(shop.settings) as seen:
            say("messages of 1,000 changes")
            _send(producer, shop.settings, "warm", [0])
            _await(seen, 1)
            messages = [_changes(n, count) for n in range(count // MESSAGE_ROWS)]
            before, started = shop.cpu_seconds(), time.perf_counter()
            for n, (tenant, value) in enumerate(messages):
                _produce(producer, shop.settings, f"bulk-{n}", tenant, value, MESSAGE_ROWS)
            producer.flush(60)
            _await(seen, 1 + len(messages))
            took, used = time.perf_counter() - started, spent(before, shop.cpu_seconds())
            yield Figure("changes to verdicts", f"{len(messages) * MESSAGE_ROWS / took:,.0f} rows/s")
            yield from figures.cpu(used, len(messages) * MESSAGE_ROWS)
            say(f"{_PER_SECOND} changes a second")
            sent = _send(producer, shop.settings, "single", range(_PER_SECOND * _SECONDS))
            _await(seen, 1 + len(messages) + len(sent))
        yield from _late("Kafka", sorted((seen[event] - at) * 1_000 for event, at in sent.items()))
        say(f"{_PER_SECOND} requests a second")
        keys = {tenant: shop.tenant(tenant) for tenant in _TENANTS}
        shop.start("gateway", "sinks")
        callers.call(shop.gateway_url, keys, range(_PER_SECOND * 2), _PER_SECOND)  # all is warm then,
        audit(shop.settings, wait_s=_PATIENCE_S)  # and the sinks have done what is behind them
        before = shop.cpu_seconds()
        yield from _late("HTTP", callers.call(shop.gateway_url, keys, range(_PER_SECOND * _SECONDS), _PER_SECOND))
        yield from figures.cpu(spent(before, shop.cpu_seconds()), _PER_SECOND * _SECONDS, "request")


def _late(where: str, late: list[float]) -> Iterator[Figure]:
    p50, p95, p99 = (percentile(late, percent) for percent in (50, 95, 99))
    yield Figure(f"{where}, change to verdict, p50 and p99", f"{p50:.1f} and {p99:.1f} ms")
    yield Figure(f"{where}, change to verdict, p95", f"{p95:.1f} ms", None, f"< {P95_MS:.0f} ms", p95 < P95_MS)


def _changes(message: int, count: int) -> tuple[str, bytes]:
    """A tenant, and a message of its changes: a fifth of `count` products, each round at other prices."""
    round_, place = divmod(message, max(1, count // 5 // MESSAGE_ROWS))
    first = place * MESSAGE_ROWS
    rows = [
        {
            "line": line,
            "product_id": f"P-{first + line}",
            "new_price": (1_000 + (line * 7 + round_ * 40) % 400).to_bytes(2, "big"),
            "currency": "EUR",
            "source": "bench",
        }
        for line in range(MESSAGE_ROWS)
    ]
    tenant = _tenant(place)
    return tenant, codec.encode(PRICE_CHANGES, {"tenant_id": tenant, "rows": rows})


def _send(
    producer: confluent_kafka.Producer, settings: Settings, name: str, numbers: range | list[int]
) -> dict[str, float]:
    """Single changes at a steady pace; when each was handed to the producer, by event id."""
    sent, started = {}, time.perf_counter()
    for place, n in enumerate(numbers):
        row = {"product_id": f"single-{n % 500}", "new_price": (1_000 + n % 90).to_bytes(2, "big"), "currency": "EUR"}
        tenant = _tenant(n)
        value = codec.encode(PRICE_CHANGES, {"tenant_id": tenant, "rows": [row]})
        time.sleep(max(0.0, started + place / _PER_SECOND - time.perf_counter()))
        sent[f"{name}-{n}"] = time.perf_counter()
        _produce(producer, settings, f"{name}-{n}", tenant, value, 1)
        producer.poll(0)
    producer.flush(10)
    return sent


def _tenant(n: int) -> str:
    return _TENANTS[n % len(_TENANTS)]


def _produce(
    producer: confluent_kafka.Producer, settings: Settings, event: str, tenant: str, value: bytes, rows: int
) -> None:
    headers = headers_of(
        event_id=event, type=PRICE_CHANGES, source="bench", accepted_ms=time.time_ns() // 1_000_000, rows=rows,
        value=value, traceparent=None,
    )  # fmt: skip
    producer.produce(settings.named(topics.PRICES), value, topics.partition_key(tenant), headers=headers)


@contextmanager
def _verdicts(settings: Settings) -> Iterator[dict[str, float]]:
    """When the verdict of each event was read, by the event's id; read until the block ends."""
    consumer = confluent_kafka.Consumer(
        {
            **settings.kafka,
            "group.id": "bench",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 10,
        }
    )
    name = settings.named(topics.PRICES_VERDICTS)
    partitions = consumer.list_topics(name).topics[name].partitions
    consumer.assign([confluent_kafka.TopicPartition(name, p, confluent_kafka.OFFSET_BEGINNING) for p in partitions])
    seen: dict[str, float] = {}
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for message in consumer.consume(100, timeout=0.01):
                if message.error() is None:
                    seen[dict(message.headers())["ce_subject"].decode()] = time.perf_counter()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        consumer.close()


def _await(seen: dict[str, float], count: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while len(seen) < count:
        if time.monotonic() > deadline:
            raise Unavailable(f"{len(seen)} of {count} verdicts within {_PATIENCE_S:.0f} s")
        time.sleep(0.01)
