"""Requests for exports, from the topic into the table."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import confluent_kafka
import psycopg
from msgspec import Meta, Struct, ValidationError, convert
from psycopg.types.json import Jsonb

from producers import stored
from schemas import codec, topics
from schemas.errors import Rejected, Undecodable
from schemas.exports import EXPORT_REQUESTED, KEPT_H, MAX_OPEN
from sinks.sql import statement

_YEAR_2200_US: Final = 7_258_118_400_000_000
_Text = Annotated[str, Meta(min_length=1, max_length=stored.MAX_TEXT, pattern="^[^\\x00]*$")]


class _Filter(Struct):
    name: _Text
    value: _Text


class Asked(Struct):
    """What a message asks for; a direct producer may say anything."""

    tenant_id: _Text
    export_id: UUID
    entity: _Text
    format: Literal["csv", "ndjson"]
    gzip: bool
    requested_at: Annotated[int, Meta(ge=0, lt=_YEAR_2200_US)]
    filters: Annotated[list[_Filter], Meta(max_length=stored.MAX_FILTERS)]


def asked_in(record: confluent_kafka.Message) -> Asked:
    """What a record asks for. Raises Rejected."""
    if dict(record.headers() or ()).get("ce_type") != EXPORT_REQUESTED.encode():
        raise Undecodable("unknown_type", f"ce_type on this topic is {EXPORT_REQUESTED}")
    try:
        asked = convert(codec.decode(EXPORT_REQUESTED, record.value()), Asked)
    except ValidationError as exc:
        raise Rejected("invalid_value", str(exc)) from exc
    if record.key() != topics.partition_key(asked.tenant_id):
        raise Rejected("foreign_tenant", f"key {(record.key() or b'')[:100]!r}, value {asked.tenant_id!r}")
    return asked


def store(db: psycopg.Connection[Any], asked: list[Asked]) -> None:
    """Put requests into the table, each once however often it comes."""
    for each in asked:
        row = {
            "tenant_id": each.tenant_id,
            "export_id": each.export_id,
            "entity": each.entity,
            "format": each.format,
            "gzip": each.gzip,
            "filters": Jsonb([[one.name, one.value] for one in each.filters]),
            "requested_at": each.requested_at,
            "max_open": MAX_OPEN,
            "kept_h": KEPT_H,
        }
        db.execute(statement("insert_export"), row)
