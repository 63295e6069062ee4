"""Requests for exports, and that one is cancelled, from the topic into the table."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import confluent_kafka
import psycopg
from msgspec import Meta, Struct, ValidationError, convert
from psycopg.types.json import Jsonb

from producers import stored
from producers.tenant import TENANT_ID
from schemas import codec, topics
from schemas.errors import Rejected, Undecodable
from schemas.exports import EXPORT_CANCELLED, EXPORT_REQUESTED, KEPT_H, MOST_OPEN
from sinks.sql import statement

_YEAR_2200_US: Final = 7_258_118_400_000_000
_Text = Annotated[str, Meta(min_length=1, max_length=stored.MAX_TEXT, pattern="^[^\\x00]*$")]


_TenantId = Annotated[str, Meta(pattern=TENANT_ID)]
"""Part of the file's name: a direct producer's may lead nowhere else."""


class _Filter(Struct):
    name: _Text
    value: _Text


class Asked(Struct):
    """What a message asks for; a direct producer may say anything."""

    tenant_id: _TenantId
    export_id: UUID
    entity: _Text
    format: Literal["csv", "ndjson"]
    gzip: bool
    requested_at: Annotated[int, Meta(ge=0, lt=_YEAR_2200_US)]
    filters: Annotated[list[_Filter], Meta(max_length=stored.MAX_FILTERS)]


class Cancelled(Struct):
    """An export that is not needed any more."""

    tenant_id: _TenantId
    export_id: UUID


_TYPES: Final[dict[str, type[Asked | Cancelled]]] = {EXPORT_REQUESTED: Asked, EXPORT_CANCELLED: Cancelled}


def asked_in(record: confluent_kafka.Message) -> Asked | Cancelled:
    """What a record asks for. Raises Rejected."""
    type_ = (dict(record.headers() or ()).get("ce_type") or b"").decode(errors="replace")
    if type_ not in _TYPES:
        raise Undecodable("unknown_type", f"ce_type on this topic is one of {', '.join(_TYPES)}")
    try:
        asked = convert(codec.decode(type_, record.value()), _TYPES[type_])
    except ValidationError as exc:
        raise Rejected("invalid_value", str(exc)) from exc
    if record.key() != topics.partition_key(asked.tenant_id):
        raise Rejected("foreign_tenant", f"key {(record.key() or b'')[:100]!r}, value {asked.tenant_id!r}")
    return asked


def store(db: psycopg.Connection[Any], asked: list[Asked | Cancelled]) -> None:
    """Put requests into the table, each once however often it comes."""
    for each in asked:
        if isinstance(each, Cancelled):
            db.execute(statement("cancel_export"), {"tenant_id": each.tenant_id, "export_id": each.export_id})
            continue
        row = {
            "tenant_id": each.tenant_id,
            "export_id": each.export_id,
            "entity": each.entity,
            "format": each.format,
            "gzip": each.gzip,
            "filters": Jsonb([[one.name, one.value] for one in each.filters]),
            "requested_at": each.requested_at,
            "most_open": MOST_OPEN,
            "kept_h": KEPT_H,
        }
        db.execute(statement("insert_export"), row)
