"""The topic catalogue: the only place that names a topic, and the one function that makes a key.

Kafka's default partitioner differs between clients (librdkafka CRC32, Java and Faust murmur2). Every client
of ours hashes with murmur2, so that a tenant's messages share a partition number on every topic.
"""

from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
FOR_EVER: Final = -1

TENANTS: Final = "tenants"
INGESTION: Final = "ingestion"
INGESTION_UNIQUE: Final = "ingestion.unique"
DEDUP_INGESTION: Final = "dedup.ingestion"
STOCK: Final = "stock"
STOCK_LEVELS: Final = "stock.levels"
DEDUP_STOCK: Final = "dedup.stock"
PRICES: Final = "prices"
PRICES_CURRENT: Final = "prices.current"
PRICES_VERDICTS: Final = "prices.verdicts"
DEDUP_PRICES: Final = "dedup.prices"
OUTCOMES: Final = "outcomes"
DEAD_LETTERS: Final = "dead-letters"
EXPORTS: Final = "exports"
REDRIVES: Final = "redrives"

STREAMS_GROUP: Final = "tillstream-streams"
"""Consumer group of the streams, and the beginning of their transactional ids."""

MAX_ROWS: Final = 1_000
"""Rows a message of the gateway carries at most."""
MAX_MOVEMENTS: Final = 5_000
"""Movements a message of `stock` carries at most."""
MAX_MESSAGE_BYTES: Final = 900_000
"""Bytes of a message's value before compression; Faust's client refuses 1,000,000."""
MAX_FORWARDED_BYTES: Final = 3_800_000
"""Bytes of a message that streams send on, before compression; compressed, a source message may hide far more."""
PARTITIONER: Final = "murmur2_random"
"""librdkafka's name for the hash that Java and Faust use by default."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One line of the catalogue; `retention_ms` is -1 for a topic that is kept for ever."""

    name: str
    cleanup: str = "delete"
    retention_ms: int = FOR_EVER
    source: bool = False
    single_partition: bool = False

    def config(self) -> dict[str, str]:
        """Topic settings as Kafka names them."""
        config = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            # A source stays below what Faust's client accepts; a derived topic must hold it plus headers.
            "max.message.bytes": "1048588" if self.source else "4194304",
            "message.timestamp.type": "LogAppendTime" if self.source else "CreateTime",
        }
        if "compact" in self.cleanup:
            config |= {"segment.ms": str(DAY_MS), "min.cleanable.dirty.ratio": "0.2"}
        return config


CATALOGUE: Final[dict[str, Topic]] = {
    topic.name: topic
    for topic in (
        Topic(TENANTS, cleanup="compact", single_partition=True),
        Topic(INGESTION, retention_ms=30 * DAY_MS, source=True),
        Topic(INGESTION_UNIQUE),
        Topic(DEDUP_INGESTION, cleanup="compact,delete", retention_ms=7 * DAY_MS),
        Topic(STOCK, retention_ms=30 * DAY_MS, source=True),
        Topic(STOCK_LEVELS, cleanup="compact"),
        Topic(DEDUP_STOCK, cleanup="compact,delete", retention_ms=7 * DAY_MS),
        Topic(PRICES, retention_ms=30 * DAY_MS, source=True),
        Topic(PRICES_CURRENT, cleanup="compact"),
        Topic(PRICES_VERDICTS),
        Topic(DEDUP_PRICES, cleanup="compact,delete", retention_ms=7 * DAY_MS),
        Topic(OUTCOMES),
        Topic(DEAD_LETTERS, retention_ms=90 * DAY_MS),
        Topic(EXPORTS, retention_ms=7 * DAY_MS),
        Topic(REDRIVES, single_partition=True),
    )
}


def partition_key(tenant_id: str) -> bytes:
    """The key of every message of a tenant: its id in UTF-8."""
    return tenant_id.encode()


def level_key(tenant_key: bytes, product_id: str) -> bytes:
    """The key of a product's level in `stock.levels`: `tenant/product`. It lies on the tenant's partition."""
    return tenant_key + b"/" + product_id.encode()


def parse_level_key(key: bytes) -> tuple[str, str] | None:
    """Tenant and product of a key of `stock.levels`; None for one of the table's own notes, which begin with NUL.

    The first slash ends the tenant's id, which holds none; a product's id may hold any number.
    """
    if key.startswith(b"\x00"):
        return None
    tenant_id, _, product_id = key.decode().partition("/")
    return tenant_id, product_id


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's default partitioner puts `key` on (Kafka `Utils.murmur2`)."""
    return (_murmur2(key) & 0x7FFFFFFF) % partitions


def _murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with Kafka's seed (Appleby; `org.apache.kafka.common.utils.Utils.murmur2`)."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
