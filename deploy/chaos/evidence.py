"""What is there when all is quiet: the logs as they were really written, and every row of every table."""

import time
from collections.abc import Callable, Iterator
from typing import Final

import confluent_kafka
import psycopg
from psycopg.rows import dict_row

from deploy.chaos.history import Event, History
from schemas import codec, envelope, stock, topics
from schemas.envelope import Position
from schemas.prices import PRICE_VERDICTS
from schemas.settings import Settings
from sinks.audit import audit

SOURCES: Final = (topics.INGESTION, topics.STOCK, topics.PRICES)
_DERIVED: Final = (topics.INGESTION_UNIQUE, topics.OUTCOMES, topics.PRICES_VERDICTS, topics.DEAD_LETTERS)
_SUNK: Final = (topics.TENANTS, topics.INGESTION_UNIQUE, topics.STOCK_LEVELS, topics.PRICES_VERDICTS, topics.OUTCOMES)
"""What sinks read: at the end their offsets stand behind the last record of each."""

_US: Final = "(extract(epoch FROM {0}) * 1000000)::bigint AS {0}"
_VERSION: Final = f"{_US.format('updated_at')}, {_US.format('version_at')}, version_offset, version_row"
_CENTS: Final = "({0} * 100)::bigint AS {0}"
TABLES: Final[dict[str, str]] = {
    "customers": f"tenant_id, customer_id, email, name, phone, country, attributes, {_VERSION}",
    "products": "tenant_id, product_id, sku, name, (price * 100)::bigint AS price, currency, category, active,"
    f" attributes, {_VERSION}",
    "orders": "tenant_id, external_order_id, customer_id, customer_name, customer_email,"
    f" (total_amount * 100)::bigint AS total_amount, currency, order_status, {_US.format('order_date')},"
    f" raw_payload, {_VERSION}",
    "order_items": "tenant_id, external_order_id, item, product_id, quantity, (unit_price * 100)::bigint AS unit_price,"
    f" {_US.format('ordered_at')}",
    "stock_levels": "tenant_id, product_id, quantity, version, source_offset",
    "stock_movements": "tenant_id, product_id, log_offset, row_index, line, movement_id, kind, moved, outcome, code,"
    " quantity, version",
    "prices": f"tenant_id, product_id, {_CENTS.format('price')}, currency, {_US.format('since')}, version,"
    " source_offset",
    "price_changes": "tenant_id, product_id, log_offset, row_index, line, change_id, status,"
    f" {_CENTS.format('price_before')}, {_CENTS.format('new_price')}, {_CENTS.format('price_after')}, currency,"
    f" version, {_US.format('occurred_at')}",
    "row_errors": "tenant_id, topic, partition, log_offset, row_index, line, code, stage",
    "ledger": "tenant_id, topic, partition, log_offset, event_id, type, outcome, rows, applied, superseded, duplicate,"
    " conflict, rejected",
    "sink_offsets": "topic, partition, next_offset",
}
"""The columns of each table that a check looks at: times in microseconds since 1970, money in cents."""


def gather(settings: Settings, history: History, within: float, on_step: Callable[[str], None]) -> None:
    """Wait until nothing is in flight, or `within` seconds have passed; then write down what is there."""
    on_step("draining: every accepted row into the ledger")
    deadline = time.monotonic() + within
    report = audit(settings, wait_s=within)
    tenants = {name: {"accepted": one.accepted, **one.outcomes} for name, one in report.tenants.items()}
    history.add("law", tenants=tenants, missing=report.missing, wrong=report.wrong)
    ends = _ends(settings)
    while not _behind(settings, ends) and time.monotonic() < deadline:
        time.sleep(0.2)
    on_step("reading topics and tables back")
    for topic in SOURCES:
        history.add_all("logged", [_logged(topic, message) for message in _log_of(settings, topic)])
    for topic in _DERIVED:
        history.add_all("derived", [_derived(topic, message) for message in _log_of(settings, topic)])
    history.add_all("derived", [{"topic": topic, "partition": n, "end": end} for (topic, n), end in ends.items()])
    with psycopg.connect(settings.database_url, row_factory=dict_row) as db:
        db.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for table, columns in TABLES.items():
            rows = db.execute(f"SELECT {columns} FROM {table}".encode()).fetchall()
            history.add_all("row", [{"table": table, "row": row} for row in rows])
        for seen in ("moved", "written"):
            history.add_all(seen, db.execute(f"SELECT * FROM chaos.{seen}".encode()).fetchall())
    history.add("end")


def _logged(topic: str, message: confluent_kafka.Message) -> Event:
    """What the headers of a source message say, and of a policy the value: nothing else of the log is believed."""
    said = envelope.read(message.headers(), message.value(), _position(message))
    request = said.request
    event: Event = {
        "topic": topic, "partition": message.partition(), "offset": message.offset(), "time_ms": said.src.time_ms,
        "accepted_ms": said.accepted_ms, "tenant": (message.key() or b"").decode(), "event_id": said.event_id,
        "type": said.type, "rows": said.rows, "hash": said.content_hash.hex(),
    }  # fmt: skip
    if request is not None:
        event |= {"request": str(request.id), "first": request.first, "last": request.last, "chunk": request.chunk}
        event["upload"] = str(request.upload) if request.upload else None
    if said.type == stock.POLICY:
        event["value"] = codec.decode(said.type, message.value())
    return event


def _derived(topic: str, message: confluent_kafka.Message) -> Event:
    """Where a message that streams wrote comes from, and what it says became of its source."""
    at = {"topic": topic, "partition": message.partition(), "offset": message.offset()}
    headers = dict(message.headers() or [])
    if topic == topics.INGESTION_UNIQUE:
        source = envelope.read_forwarded(message.headers(), message.value()).src
        return at | {"of": [source.topic, source.partition, source.offset], "said": "new"}
    if topic == topics.DEAD_LETTERS:
        return at | {"said": (headers["ts-dlq-reason"] or b"").decode(), "of": None}
    type_ = headers["ce_type"].decode()
    record = codec.decode(type_, message.value())
    said = "new" if type_ in (stock.OUTCOME, PRICE_VERDICTS) else record["kind"]
    return at | {"of": [record["topic"], record["partition"], record["offset"]], "said": said}


def _position(message: confluent_kafka.Message) -> Position:
    return Position(message.topic(), message.partition(), message.offset(), message.timestamp()[1])


def _ends(settings: Settings) -> dict[tuple[str, int], int]:
    """Behind the last record of each partition that sinks read; a transaction's marker may follow it."""
    ends: dict[tuple[str, int], int] = {}
    for topic in _SUNK:
        for message in _log_of(settings, topic):
            at = topic, message.partition()
            ends[at] = max(ends.get(at, 0), message.offset() + 1)
    return ends


def _behind(settings: Settings, ends: dict[tuple[str, int], int]) -> bool:
    """Whether the sinks' offsets have come to these ends."""
    with psycopg.connect(settings.database_url) as db:
        stored = {
            (topic, n): at for topic, n, at in db.execute("SELECT topic, partition, next_offset FROM sink_offsets")
        }
    return all(stored.get(at, 0) >= end for at, end in ends.items())


def _log_of(settings: Settings, topic: str) -> Iterator[confluent_kafka.Message]:
    """Every committed message of a topic."""
    consumer = confluent_kafka.Consumer(
        {
            **settings.kafka,
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        unread = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        beginning = confluent_kafka.OFFSET_BEGINNING
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, beginning) for partition in unread])
        while unread:
            for message in consumer.consume(1_000, timeout=0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                elif not error.retriable():
                    raise confluent_kafka.KafkaException(error)
    finally:
        consumer.close()
