"""The conservation law: every accepted row ends as exactly one of applied, superseded, duplicate, conflict, rejected.

`audit` compares the source topics with the ledger message by message: accepted - sum of outcomes = in flight + lost.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import confluent_kafka
import psycopg

from producers.registry import reading
from schemas import codec, topics
from schemas.envelope import Position, read, tenant_text
from schemas.errors import Unavailable, Undecodable
from schemas.settings import Settings
from sinks.migrate import require
from sinks.passed_over import Partition, passed_over

OUTCOMES: Final = ("applied", "superseded", "duplicate", "conflict", "rejected")
_SOURCES: Final = (topics.INGESTION, topics.STOCK, topics.PRICES)
_LISTED: Final = 20


@dataclass(slots=True)
class Tally:
    """Rows of one tenant: what was accepted, and what the ledger says became of it."""

    messages: int = 0
    accepted: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    lost: int = 0

    @property
    def in_flight(self) -> int:
        """Accepted and not yet in the ledger."""
        return self.accepted - sum(self.outcomes.values()) - self.lost


@dataclass(slots=True)
class Report:
    """What an audit found. `missing`, `lost` and `wrong` list the first few messages in words.

    Missing are lines of the ledger; of those, lost are messages that sinks have passed.
    """

    tenants: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    missing: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    without_line: dict[Partition, dict[int, tuple[str, int]]] = field(default_factory=lambda: defaultdict(dict))
    """Tenant and rows of each message that has none, by its offset."""

    @property
    def in_flight(self) -> int:
        return sum(tally.in_flight for tally in self.tenants.values())

    @property
    def drained(self) -> bool:
        """Nothing is in flight; a message without rows counts as well."""
        return not self.missing and self.in_flight == 0

    @property
    def broken(self) -> bool:
        """The ledger contradicts the log: a line too many, other rows than the message has, or a line that was due."""
        return bool(self.wrong or self.lost)


def audit(settings: Settings, *, wait_s: float = 0.0) -> Report:
    """Compare log and ledger, again until nothing is in flight or `wait_s` seconds have passed.

    Raises Unavailable where PostgreSQL, or a schema registry that is needed, is away; Misconfigured without tables.
    """
    reading(settings)
    deadline = time.monotonic() + wait_s
    while True:
        report = _compare(settings)
        if report.broken or report.drained:
            return report
        if time.monotonic() >= deadline:
            _tell_lost(settings, report)
            return report
        time.sleep(0.2)


def _compare(settings: Settings) -> Report:
    report = Report()
    consumer = _consumer(settings)
    try:
        with _connected(settings) as db:
            for topic in map(settings.named, _SOURCES):
                for partition in sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions):
                    _compare_partition(report, consumer, db, topic, partition)
    finally:
        consumer.close()
    return report


def _tell_lost(settings: Settings, report: Report) -> None:
    """Say which of those without a line sinks have passed, rather than count them as in flight."""
    consumer = _consumer(settings)
    try:
        suspects = {at: list(offsets) for at, offsets in report.without_line.items()}
        for at, lost in passed_over(settings, consumer, suspects).items():
            for offset in sorted(lost):
                tenant_id, rows = report.without_line[at][offset]
                report.tenants[tenant_id].lost += rows
                _note(report.lost, f"lost: {_named(at, offset)}: {rows} rows of {tenant_id!r}; sinks have passed it")
    finally:
        consumer.close()


def _consumer(settings: Settings) -> Any:
    return confluent_kafka.Consumer(
        {
            **settings.kafka,
            "group.id": "unused",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )


def _connected(settings: Settings) -> psycopg.Connection[Any]:
    try:
        db = psycopg.connect(settings.database_url, connect_timeout=5, application_name="tillstream-audit")
    except psycopg.OperationalError as exc:
        raise Unavailable(f"PostgreSQL does not answer: {exc}") from exc
    require(db)
    return db


def _compare_partition(report: Report, consumer: Any, db: psycopg.Connection[Any], topic: str, partition: int) -> None:
    """Walk log and ledger side by side, both in offset order."""
    first, end = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, partition), timeout=10)
    log = _log(consumer, topic, partition, first, end)
    with db.cursor(name="ledger") as cursor:
        cursor.itersize = 5_000
        cursor.execute(
            "SELECT log_offset, tenant_id, rows, applied, superseded, duplicate, conflict, rejected FROM ledger"
            " WHERE topic = %s AND partition = %s AND log_offset >= %s AND log_offset < %s ORDER BY log_offset",
            [topic, partition, first, end],
        )
        lines = iter(cursor)
        line = next(lines, None)
        for message in log:
            offset, tenant_id, rows = message.offset(), tenant_text(message.key()), _rows(message)
            while line is not None and line[0] < offset:
                _note(report.wrong, f"{topic}[{partition}]@{line[0]} is in the ledger and not in the log")
                line = next(lines, None)
            if line is not None and line[0] == offset and line[2] != rows:
                rows = _rows(message, trusting=False)
            tally = report.tenants[tenant_id]
            tally.messages += 1
            tally.accepted += rows
            if line is None or line[0] != offset:
                _note(report.missing, f"{_named((topic, partition), offset)}: {rows} rows of {tenant_id!r}")
                report.without_line[topic, partition][offset] = tenant_id, rows
                continue
            if line[1] != tenant_id or line[2] != rows:
                said = f"{line[2]} rows of {line[1]!r}"
                _note(
                    report.wrong,
                    f"{topic}[{partition}]@{offset} has {rows} rows of {tenant_id!r}, ledger: {said}",
                )
            for outcome, count in zip(OUTCOMES, line[3:], strict=True):
                tally.outcomes[outcome] += count
            line = next(lines, None)
        while line is not None:
            _note(report.wrong, f"{topic}[{partition}]@{line[0]} is in the ledger and not in the log")
            line = next(lines, None)


def _log(consumer: Any, topic: str, partition: int, first: int, end: int) -> Iterator[confluent_kafka.Message]:
    """Each message that the partition holds."""
    if first >= end:
        return
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, first)])
    while True:
        for message in consumer.consume(500, timeout=0.02):
            if error := message.error():
                if error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                    return
                raise confluent_kafka.KafkaException(error)
            if message.offset() >= end:
                return
            yield message


def _rows(message: confluent_kafka.Message, *, trusting: bool = True) -> int:
    """Rows of a message; a header that fits the first block is trusted, since reading every row takes a while."""
    at = Position(message.topic(), message.partition(), message.offset(), message.timestamp()[1])
    try:
        envelope = read(message.headers(), message.value(), at)
    except Undecodable:
        return 0
    declared = envelope.rows if trusting else -1
    return max(0, codec.count_rows(envelope.type, message.value(), declared))


def _named(at: Partition, offset: int) -> str:
    return f"{at[0]}[{at[1]}]@{offset}"


def _note(notes: list[str], text: str) -> None:
    if len(notes) < _LISTED:
        notes.append(text)
