"""The compacted topic `tenants`: how every process follows it, and the one way to change a tenant.

A change reads a tenant, and writes it whole. Two at a time would lose one, and compaction keeps only the last record,
so that readers could not tell. Writers therefore take turns: each change is a transaction under one transactional id,
and beginning one fences every other (KIP-98). Who was fenced has written nothing, and begins again.

Policies decide what becomes of rows, so that they must stand in the log between the rows: the transaction that changes
them also writes them to `ingestion`, or where they are about stock or prices to `stock` or `prices`, on the tenant's
partition.
"""

import contextlib
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from msgspec.structs import asdict

from producers.client import config
from producers.ends import Ends
from producers.tenant import (
    TYPE,
    ApiKey,
    Limits,
    Policies,
    Tenant,
    checked,
    checked_policies,
    decode,
    digest,
    encode,
    merged,
    price_record,
    shown,
    with_new_key,
    with_revoked_key,
    with_rotated_keys,
)
from schemas import codec, envelope, stock, topics
from schemas.errors import Unavailable, Undecodable
from schemas.prices import PRICE_POLICY
from schemas.settings import Settings

__all__ = [
    "ApiKey", "Follower", "Limits", "Policies", "Tenant", "change", "change_all", "checked", "checked_policies",
    "decode", "digest", "encode", "merged", "put", "read_all", "shown", "with_new_key", "with_revoked_key",
    "with_rotated_keys",
]  # fmt: skip

log = logging.getLogger(__name__)

Change = Callable[[Tenant | None], Tenant]
"""Makes the new state of a tenant of the present one, None for an unknown tenant; it may be called more than once."""
Read = Callable[[], Mapping[str, Tenant]]
"""All tenants, as of the call."""
_WRITER: Final = "tenants-writer"
"""The transactional id that all writers share."""
_TRY_AGAIN: Final = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError.UNKNOWN,  # what Kafka 4.3 says to a commit while another begins
}
"""Another writer came between; nothing was written, or a look will tell."""
_unheard: Final = logging.getLogger(f"{__name__}.librdkafka")
"""Where librdkafka says that it was fenced, which is no error here."""
_unheard.addHandler(logging.NullHandler())
_unheard.propagate = False
_one_of_this_process: Final = threading.Lock()
_MAX_WAITING: Final = 50_000
"""Records that wait in librdkafka, which takes 100,000."""
_PER_SECOND: Final = 2_000
"""Records that a slow Kafka takes a second."""
_TAKING_TURNS_S: Final = 30.0
_TRANSACTION_S: Final = 10.0
_MAX_TRANSACTION_S: Final = 600.0
"""Kafka's own default bound (transaction.max.timeout.ms) is 900."""


def put(settings: Settings, tenants: Iterable[Tenant]) -> None:
    """Publish new tenants that nobody else changes; return once Kafka has acknowledged. Raises Unavailable."""
    producer = confluent_kafka.Producer(config(settings) | {"log_level": 0})
    failed: list[str] = []

    def delivered(error: KafkaError | None, _: confluent_kafka.Message) -> None:
        if error is not None:
            failed.append(error.str())

    for tenant in tenants:
        _produce(producer, settings, tenant, Policies(), delivered)
    left = producer.flush(settings.delivery_timeout_s + 1)
    if left or failed:
        raise Unavailable(f"Kafka did not take the tenants: {failed[0] if failed else 'no answer'}")


def change(settings: Settings, tenant_id: str, to: Change, read: Read | None = None) -> Tenant:
    """As `change_all`, of one tenant; what it is now."""
    return change_all(settings, {tenant_id: to}, read)[tenant_id]


def change_all(
    settings: Settings,
    changes: Mapping[str, Change],
    read: Read | None = None,
    on_sent: Callable[[], None] = lambda: None,
) -> dict[str, Tenant]:
    """Change tenants, all or none, and return what they are now; no change that others make meanwhile is lost.

    Raises Rejected for what a change rejects or `checked` does, and Unavailable when Kafka did not confirm (it may have
    happened all the same) or others leave no gap.
    """
    deadline = time.monotonic() + _TAKING_TURNS_S
    tried: dict[str, Tenant] = {}
    with _one_of_this_process:
        for attempt in count():
            try:
                producer = _begin(settings, len(changes))
                known = read() if read else read_all(settings)
                if tried and all(known.get(tenant_id) == tenant for tenant_id, tenant in tried.items()):
                    return tried  # it was committed; only the answer that said so was lost
                tried = {tenant_id: checked(to(known.get(tenant_id))) for tenant_id, to in changes.items()}
                producer.begin_transaction()
                for tenant_id, tenant in tried.items():
                    producer.poll(0.1 if len(producer) > _MAX_WAITING else 0)
                    before = known.get(tenant_id)
                    _produce(producer, settings, tenant, before.policies if before else Policies())
                    on_sent()
                producer.commit_transaction(settings.delivery_timeout_s + len(tried) / _PER_SECOND)
                return tried
            except KafkaException as exc:
                error: KafkaError = exc.args[0]
                if error.code() not in _TRY_AGAIN or time.monotonic() > deadline:
                    raise Unavailable(f"Kafka did not take the change of tenants: {error.str()}") from exc
            time.sleep(random.uniform(0, min(1.0, 0.04 * 2**attempt)))
    raise AssertionError


def _begin(settings: Settings, tenants: int) -> confluent_kafka.Producer:
    """A producer whose commit fails once another has begun.

    What was committed before is there to be read now, and what was not never will be.
    """
    longest = _TRANSACTION_S + tenants / _PER_SECOND
    producer = confluent_kafka.Producer(
        config(settings)
        | {
            "transactional.id": settings.named(_WRITER),
            # A writer that died hides later records, also of `ingestion`, `stock` and `prices`, until then or the next.
            "transaction.timeout.ms": round(1000 * min(longest, _MAX_TRANSACTION_S)),
            "logger": _unheard,
        }
    )
    _connect(producer, settings.named(topics.TENANTS), settings.delivery_timeout_s)
    producer.init_transactions(settings.delivery_timeout_s)
    return producer


def _produce(
    producer: confluent_kafka.Producer,
    settings: Settings,
    tenant: Tenant,
    before: Policies,
    on_delivery: Callable[[KafkaError | None, confluent_kafka.Message], None] | None = None,
) -> None:
    """Send a tenant, and its policies to where its rows are when they are other than before."""
    said = [(topics.TENANTS, TYPE, encode(tenant))]
    now = tenant.policies
    record = {"tenant_id": tenant.tenant_id} | asdict(now)
    if (now.currencies, now.order_totals) != (before.currencies, before.order_totals):
        said.append((topics.INGESTION, envelope.INGESTION_POLICY, codec.encode(envelope.INGESTION_POLICY, record)))
    if now.prices != before.prices:
        policy = {"tenant_id": tenant.tenant_id} | price_record(now.prices)
        said.append((topics.PRICES, PRICE_POLICY, codec.encode(PRICE_POLICY, policy)))
    if now.oversell != before.oversell:
        said.append((topics.STOCK, stock.POLICY, codec.encode(stock.POLICY, record)))
    for topic, type_, value in said:
        headers = envelope.headers_of(
            event_id=str(uuid.uuid4()),
            type=type_,
            source="admin",
            accepted_ms=time.time_ns() // 1_000_000,
            rows=0,
            value=value,
            traceparent=None,
        )
        key = topics.partition_key(tenant.tenant_id)
        producer.produce(settings.named(topic), value, key, headers=headers, on_delivery=on_delivery)


def read_all(settings: Settings, within: float = 30.0) -> dict[str, Tenant]:
    """Every tenant, by id, as of the call. Raises Unavailable when the topic's end is not reached in time."""
    tenants: dict[str, Tenant] = {}

    def apply(tenant_id: str, tenant: Tenant | None) -> None:
        if tenant is None:
            tenants.pop(tenant_id, None)
        else:
            tenants[tenant_id] = tenant

    follower = Follower(settings, apply)
    follower.start()
    try:
        if follower.loaded.wait(within):
            return tenants
    finally:
        follower.stop()
    raise Unavailable(f"topic {topics.TENANTS} was not read to its end within {within:.0f} s; is Kafka up?")


class Follower:
    """Follows the topic from its beginning, in a thread of its own, until stopped.

    Calls `apply(tenant_id, tenant)` in the order of the log, from that thread; None for a tenant that is no more.
    `loaded` is set when it has been at the topic's end for the first time: only then is an unknown tenant unknown.
    `position` is the offset below which everything is applied. A record that cannot be read is logged and left out.
    """

    def __init__(self, settings: Settings, apply: Callable[[str, Tenant | None], None]) -> None:
        self._settings = settings
        self._apply = apply
        self._topic = TopicPartition(settings.named(topics.TENANTS), 0, confluent_kafka.OFFSET_BEGINNING)
        self._stopping = threading.Event()
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._follow, name="tenants", daemon=True)
        self._ends = Ends(settings)
        self.loaded = threading.Event()
        self.position = 0

    def start(self) -> None:
        """Begin to follow; it waits while Kafka is away."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread has ended."""
        self._stopping.set()
        self._thread.join()

    def catch_up(self, within: float) -> None:
        """Wait until all that was written before the call is applied. Raises Unavailable."""
        at = (self._topic.topic, self._topic.partition)
        try:
            end = self._ends.of([at], within)[at]
        except KafkaException as exc:
            raise Unavailable(f"Kafka does not say where topic {topics.TENANTS} ends") from exc
        with self._moved:
            if not self._moved.wait_for(lambda: self.position >= end, within):
                raise Unavailable(f"topic {topics.TENANTS} was not read to its end within {within:.0f} s")

    def _follow(self) -> None:
        consumer = confluent_kafka.Consumer(
            {
                **self._settings.kafka,
                "group.id": "unused",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )
        _connect(consumer, self._topic.topic, 1)
        consumer.assign([self._topic])
        while not self._stopping.is_set():
            message = consumer.poll(0.1)
            if message is None:
                continue
            if (error := message.error()) is None:
                self._take(message)
                self._move(message.offset() + 1)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._move(message.offset())  # past the markers of transactions, which are never handed out
                self.loaded.set()
            else:
                log.warning("tenants: %s", error.str())
        consumer.close()

    def _take(self, message: confluent_kafka.Message) -> None:
        try:
            tenant_id, value = (message.key() or b"").decode(), message.value()
            self._apply(tenant_id, None if value is None else decode(value))
        except (Undecodable, UnicodeDecodeError) as exc:
            log.error("tenants@%d ignored: %s", message.offset(), exc)

    def _move(self, position: int) -> None:
        with self._moved:
            self.position = position
            self._moved.notify_all()


def _connect(client: confluent_kafka.Producer | confluent_kafka.Consumer, topic: str, within: float) -> None:
    """Have a connection before the first request needs it, which librdkafka would put off by 0.5 s. Never raises."""
    with contextlib.suppress(KafkaException):
        client.list_topics(topic, timeout=within)
