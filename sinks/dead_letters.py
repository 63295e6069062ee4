"""The topic `dead-letters` as a table: what each message was, why it was set aside, and whose it is.

Anybody who can write to the topic may have written anything: whatever does not read is kept under its own position.
"""

from typing import Any, Final

import confluent_kafka
import psycopg
from psycopg.types.json import Jsonb

from schemas import codec
from schemas.envelope import Envelope, Position, read, tenant_text
from schemas.errors import Undecodable
from sinks.records import storable
from sinks.sql import statement

Letter = dict[str, Any]
"""A row of `dead_letters`, by column."""

KEPT_BYTES: Final = 1_000_000
"""Bytes of a value that the table keeps."""
_KEPT_HEADERS: Final = 100
_KEPT_KEY: Final = 1_000
_LAST_MS: Final = 7_258_118_400_000


def letter_of(record: confluent_kafka.Message) -> Letter:
    """The row of a dead letter."""
    key, value = record.key(), record.value()
    headers = [(name, raw) for name, raw in record.headers() or () if raw is not None]
    found = dict(headers)
    at = Position(record.topic(), record.partition(), record.offset(), record.timestamp()[1])
    src = _source(found.get("ts-dlq-src"), at)
    envelope = _envelope([(name, raw) for name, raw in headers if not name.startswith("ts-dlq-")], value, src)
    return {
        "topic": storable(src.topic),
        "partition": src.partition,
        "log_offset": src.offset,
        "tenant_id": _owner(key, value, envelope.type),
        "claimed": tenant_text(key),
        "step": _text(found.get("ts-dlq-step")),
        "reason": _text(found.get("ts-dlq-reason")),
        "detail": _text(found.get("ts-dlq-detail")),
        "event_id": envelope.event_id,
        "type": envelope.type,
        "rows": codec.count_rows(envelope.type, value, envelope.rows),
        "accepted_ms": envelope.accepted_ms,
        "logged_ms": src.time_ms,
        "dead_ms": at.time_ms,
        "headers": Jsonb(
            {storable(n): _text(raw) for n, raw in headers[:_KEPT_HEADERS] if not n.startswith("ts-dlq-")}
        ),
        "key": key and key[:_KEPT_KEY],
        "payload": value and value[:KEPT_BYTES],
        "payload_bytes": len(value or b""),
    }


def store(db: psycopg.Connection[Any], letters: list[Letter]) -> None:
    """Keep letters; one that is known already stays as it is."""
    if letters:
        with db.cursor() as cursor:
            cursor.executemany(statement("insert_dead_letter"), letters)


def _source(header: bytes | None, at: Position) -> Position:
    try:
        src = Position.parse(header or b"")
    except Undecodable:
        return at
    fits = 0 <= src.partition < 2**31 and 0 <= src.offset < 2**63 and 0 <= src.time_ms < _LAST_MS
    return src if fits else at


def _envelope(headers: list[tuple[str, bytes]], value: bytes | None, src: Position) -> Envelope:
    try:
        return read(headers, value, src)
    except Undecodable:
        return Envelope(src.event_id(), "unknown", "unknown", src.time_ms, 0, b"", src)


def _owner(key: bytes | None, value: bytes | None, type_: str) -> str | None:
    """The tenant that key and value agree on. A key alone is a claim: the value may hold somebody else's rows."""
    try:
        tenant_id = codec.decode(type_, value)["tenant_id"]
    except Undecodable:
        return None
    known = isinstance(tenant_id, str) and key == tenant_id.encode() and storable(tenant_id) == tenant_id
    return tenant_id if known else None


def _text(raw: bytes | None) -> str:
    return storable((raw or b"").decode(errors="replace")) or ""
