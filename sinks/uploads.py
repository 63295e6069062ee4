"""What is said of uploads, folded into their table in log order."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import psycopg
from msgspec import Meta, Struct, ValidationError, convert

from schemas import codec
from schemas.envelope import UPLOAD_CANCELLED, UPLOAD_COMPLETED, UPLOAD_OPENED
from schemas.errors import Rejected
from sinks.sql import statement

_SAYS: Final = {
    UPLOAD_OPENED: "open_upload",
    UPLOAD_COMPLETED: "complete_upload",
    UPLOAD_CANCELLED: "cancel_upload",
}


_Time = Annotated[int, Meta(ge=0, lt=7_258_118_400_000_000)]  # microseconds, 1970 to 2199


class _Said(Struct):
    """What a message says of an upload; a direct producer may say anything."""

    tenant_id: str
    upload_id: UUID
    entity: Literal["customers", "products", "orders"] | None = None
    name: Annotated[str, Meta(max_length=200, pattern="^[^\\x00]*$")] | None = None
    chunks: Annotated[int, Meta(ge=1)] | None = None
    opened_at: _Time = 0
    expires_at: _Time = 0
    completed_at: _Time = 0
    cancelled_at: _Time = 0


def checked(record: codec.Record) -> codec.Record:
    """The record, if the table can hold what it says; else raises Rejected."""
    try:
        convert(record, _Said)
    except ValidationError as exc:
        raise Rejected("invalid_value", str(exc)) from exc
    return record


def follow(db: psycopg.Connection[Any], said: list[tuple[str, codec.Record]]) -> None:
    """Apply what messages (their types and records) say: opened, completed with so many chunks, cancelled."""
    for type_, record in said:
        db.execute(statement(_SAYS[type_]), record)
