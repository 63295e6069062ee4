"""What librdkafka says of itself every few seconds, as metrics.

Its document: librdkafka, STATISTICS.md.
"""

from typing import Final

import msgspec
from msgspec import Struct

from schemas import metrics

EVERY_MS: Final = 5_000


class _Window(Struct):
    """Of the last interval, in microseconds."""

    p99: int


class _Broker(Struct):
    nodeid: int
    state: str
    rtt: _Window
    txretries: int


class _Statistics(Struct):
    msg_cnt: int
    msg_size: int
    brokers: dict[str, _Broker]


_read: Final = msgspec.json.Decoder(_Statistics).decode


def of_consumer(document: str) -> None:
    """Count the brokers that answer."""
    _count("consumer", _read(document))


def of_producer(document: str) -> None:
    """Count the brokers that answer, how fast they are, and what waits for them."""
    said = _read(document)
    _count("producer", said)
    metrics.BROKER_SECONDS.set(max(broker.rtt.p99 for broker in said.brokers.values()) / 1e6)
    metrics.QUEUE_MESSAGES.set(said.msg_cnt)
    metrics.QUEUE_BYTES.set(said.msg_size)
    metrics.PRODUCE_RETRIES.set(sum(broker.txretries for broker in said.brokers.values()))


def _count(client: str, said: _Statistics) -> None:
    """Brokers without an id are addresses that were only asked for the others."""
    up = sum(broker.state == "UP" and broker.nodeid >= 0 for broker in said.brokers.values())
    metrics.BROKERS_UP.labels(client).set(up)
