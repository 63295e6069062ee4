"""Tenants and their API keys: messages on the compacted topic `tenants`, and the way to read and write them."""

import hashlib
import secrets
import time
from typing import Final

import confluent_kafka
from msgspec import Struct
from msgspec.structs import replace

from producers.client import config
from schemas import codec, envelope, topics
from schemas.errors import Rejected, Unavailable
from schemas.settings import Settings

TYPE: Final = "tillstream.tenant.v1"


class ApiKey(Struct, frozen=True):
    """What is kept of a key: never the key. Times in microseconds since 1970; no `expires_at` means no end."""

    key_id: str
    sha256: bytes
    created_at: int
    expires_at: int | None = None


class Policies(Struct, frozen=True):
    """TEMP"""

    currencies: tuple[str, ...] = ()
    order_totals: str = "exact"


class Tenant(Struct, frozen=True):
    """A merchant. `currency` is that of products that name none."""

    tenant_id: str
    name: str
    currency: str = "EUR"
    keys: tuple[ApiKey, ...] = ()
    limits: dict[str, int] = {}
    policies: Policies = Policies()


def digest(key: str) -> bytes:
    """SHA-256 of an API key. Keys have 256 random bits, so that a slow hash would add nothing."""
    return hashlib.sha256(key.encode()).digest()


def with_new_key(tenant: Tenant) -> tuple[Tenant, str]:
    """The tenant with one more key, and that key: it can be shown now and never again."""
    key = "ts_" + secrets.token_urlsafe(32)
    entry = ApiKey(secrets.token_hex(6), digest(key), time.time_ns() // 1000)
    return replace(tenant, keys=(*tenant.keys, entry)), key


def with_revoked_key(tenant: Tenant, key_id: str) -> Tenant:
    """The tenant with one key ended now; it stays listed, so that its holder is told why. Raises Rejected."""
    if key_id not in {key.key_id for key in tenant.keys}:
        raise Rejected("unknown_key", f"{tenant.tenant_id} has no key {key_id}")
    now = time.time_ns() // 1000
    keys = tuple(replace(key, expires_at=now) if key.key_id == key_id else key for key in tenant.keys)
    return replace(tenant, keys=keys)


def encode(tenant: Tenant) -> bytes:
    """The value of a tenant's message."""
    keys = [
        {"key_id": k.key_id, "sha256": k.sha256, "created_at": k.created_at, "expires_at": k.expires_at}
        for k in tenant.keys
    ]
    record = {"tenant_id": tenant.tenant_id, "name": tenant.name, "currency": tenant.currency, "keys": keys}
    return codec.encode(TYPE, record)


def decode(value: bytes) -> Tenant:
    """Read a tenant's message; raises Undecodable."""
    record = codec.decode(TYPE, value)
    keys = tuple(ApiKey(**key) for key in record["keys"])
    return Tenant(record["tenant_id"], record["name"], record["currency"], keys)


def put(settings: Settings, tenants: list[Tenant]) -> None:
    """Publish tenants, and return once Kafka has acknowledged them all. Raises Unavailable."""
    producer = confluent_kafka.Producer(config(settings) | {"log_level": 0})
    failed: list[str] = []

    def delivered(error: confluent_kafka.KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is not None:
            failed.append(error.str())

    for tenant in tenants:
        value = encode(tenant)
        headers = envelope.headers_of(
            event_id=secrets.token_hex(16),
            type=TYPE,
            source="admin",
            accepted_ms=time.time_ns() // 1_000_000,
            rows=1,
            value=value,
            traceparent=None,
        )
        producer.produce(
            settings.named(topics.TENANTS),
            value,
            topics.partition_key(tenant.tenant_id),
            headers=headers,
            on_delivery=delivered,
        )
    left = producer.flush(settings.delivery_timeout_s + 1)
    if left or failed:
        raise Unavailable(f"Kafka did not take the tenants: {failed[0] if failed else 'no answer'}")


def reader(settings: Settings) -> confluent_kafka.Consumer:
    """A consumer over the whole topic; it reports each end it reaches as _PARTITION_EOF."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": settings.kafka_bootstrap_servers,
            "group.id": "unused",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "log_level": 0,
        }
    )
    consumer.assign(
        [confluent_kafka.TopicPartition(settings.named(topics.TENANTS), 0, confluent_kafka.OFFSET_BEGINNING)]
    )
    return consumer


def read_all(settings: Settings, within: float = 10.0) -> dict[str, Tenant]:
    """Every tenant, by id. Raises Unavailable when the topic's end is not reached in time."""
    tenants: dict[str, Tenant] = {}
    consumer, deadline = reader(settings), time.monotonic() + within
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error() is None:
                apply(tenants, message)
            elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
                return tenants
    finally:
        consumer.close()
    raise Unavailable(f"topic {topics.TENANTS} was not read to its end within {within:.0f} s; is Kafka up?")


def apply(tenants: dict[str, Tenant], message: confluent_kafka.Message) -> None:
    """Fold one message of the topic: a value replaces the tenant, a tombstone removes it."""
    tenant_id, value = message.key().decode(), message.value()
    if value is None:
        tenants.pop(tenant_id, None)
    else:
        tenants[tenant_id] = decode(value)
