"""From Kafka messages to rows ready for COPY: pure functions, no database.

A staged row is a tuple in the order of its staging table (sinks/sql/staging.sql); its first two fields are the
record's key, its last three the record's version. Times are microseconds since 2000, PostgreSQL's own epoch; money
is in cents.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from producers.tenants import Policies, Tenant
from schemas import codec
from schemas.envelope import (
    BATCH_TYPES,
    INGESTION_POLICY,
    ROWS_REJECTED,
    Envelope,
    Position,
    read_forwarded,
    tenant_text,
)
from schemas.errors import Rejected, Undecodable
from schemas.ids import uuid5
from schemas.rows import as_json, natural_id
from schemas.tracing import Event
from sinks import meaning, policies, uploads
from sinks.exports.requests import Asked, Cancelled

StagedRow = tuple[Any, ...]
PG_EPOCH_US: Final = 946_684_800_000_000
_NAMESPACE: Final = uuid.UUID("2d2ef1f0-3f4e-5c6b-8c59-0d6f4d7a1c55")


@dataclass(slots=True)
class RowError:
    """A row that was refused: its line in the body, why, and the row as JSON or as it came.

    `row_index` is its index in the message, of a row that comes once more in the message that it came in first.
    `errors` has all that is wrong with it, as `{pointer, code, detail}`; empty where `code` and `detail` are all.
    """

    row_index: int
    line: int
    code: str
    detail: str
    natural_id: str | None
    pointer: str = ""
    errors: list[dict[str, str]] = field(default_factory=list)
    row: str | None = None


@dataclass(slots=True)
class Message:
    """One message of `ingestion.unique` with its rows, and what becomes of them.

    `invalid` are rows that mean nothing whatever the tables hold, `errors` those that PostgreSQL refused in this try.
    """

    tenant_id: str
    envelope: Envelope
    value: bytes | None = None
    rows: list[StagedRow] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    items: dict[int, list[StagedRow]] = field(default_factory=dict)
    count: int = 0
    applied: int = 0
    duplicate: bool = False
    refused: Rejected | None = None
    invalid: list[RowError] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    upload: codec.Record | None = None
    policies: Policies | None = None
    decoded: list[codec.Record] | None = None

    def row_json(self, index: int) -> str:
        """A row as the merchant would send it. The message is read once more where any is asked for: few ever are."""
        if self.decoded is None:
            self.decoded = codec.decode(self.envelope.type, self.value)["rows"]
        return as_json(self.decoded[index])


@dataclass(slots=True)
class Batch:
    """What one transaction writes: messages, what streams did not send on, and tenants (with offset and time in ms).

    `folded` are StockOutcomes, `judged` PriceVerdictBatches, `levels` the last value of each key of `stock.levels`.
    `letters` are rows of the table of dead letters, `notes` of that of redrives, `exports` requests for exports,
    `traced` the events whose traces are sampled, each with which of these it is. `up_to` is when the newest source
    message of a partition was appended, in ms, by topic and partition.
    """

    messages: list[Message] = field(default_factory=list)
    outcomes: list[codec.Record] = field(default_factory=list)
    tenants: list[tuple[Tenant, int, int]] = field(default_factory=list)
    folded: list[codec.Record] = field(default_factory=list)
    judged: list[codec.Record] = field(default_factory=list)
    levels: dict[bytes, bytes] = field(default_factory=dict)
    letters: list[dict[str, Any]] = field(default_factory=list)
    exports: list[Asked | Cancelled] = field(default_factory=list)
    notes: list[codec.Record] = field(default_factory=list)
    traced: list[tuple[Event, Message | codec.Record | None]] = field(default_factory=list)
    up_to: dict[tuple[str, int], int] = field(default_factory=dict)


@lru_cache(maxsize=4_096)
def _prefix(tenant_id: str, kind: str) -> bytes:
    return _NAMESPACE.bytes + f"{tenant_id}\n{kind}\n".encode()


def record_id(tenant_id: str, kind: str, natural_id: str) -> bytes:
    """The 16 bytes of UUIDv5(tenant, kind, natural id): the same in every replay (RFC 9562, section 5.5)."""
    return uuid5(_prefix(tenant_id, kind), natural_id.encode())


def prepare(
    key: bytes | None, value: bytes | None, headers: Any, at: Position, in_force: Callable[[str], Policies]
) -> Message:
    """Read one message of `ingestion.unique`. What cannot be read comes back refused, with the rows it declared."""
    try:
        envelope = read_forwarded(headers, value)
    except Undecodable as exc:
        envelope = Envelope(at.event_id(), "unknown", "unknown", at.time_ms, 0, b"", at)
        return Message(tenant_text(key), envelope, refused=exc)
    message = Message(tenant_text(key), envelope, value)
    try:
        record = codec.decode(envelope.type, value)
        if record["tenant_id"] != message.tenant_id:
            raise Rejected("foreign_tenant", f"key {message.tenant_id!r}, value {record['tenant_id']!r}")
        if envelope.type in BATCH_TYPES:
            _stage(message, record["rows"], in_force(message.tenant_id))
        elif envelope.type == ROWS_REJECTED:
            message.invalid = [_refused_by_gateway(n, row) for n, row in enumerate(record["rejected"])]
        elif envelope.type == INGESTION_POLICY:
            message.policies = policies.read(record)
        else:
            message.upload = uploads.checked(record)
    except Rejected as exc:
        message.refused = exc
        message.rows.clear()
        message.invalid.clear()
        message.count = codec.count_rows(envelope.type, value, envelope.rows)
    return message


def _refused_by_gateway(index: int, row: codec.Record) -> RowError:
    if not row["errors"]:
        raise Rejected("invalid_value", f"nothing is said to be wrong with line {row['line']}")
    first = row["errors"][0]
    return RowError(
        index, row["line"], first["code"], first["detail"], None, first["pointer"], row["errors"], row["row"]
    )


def _stage(message: Message, rows: list[codec.Record], in_force: Policies) -> None:
    envelope = message.envelope
    logged_us = envelope.first_ms * 1000 - PG_EPOCH_US
    accepted_us = min(envelope.accepted_ms * 1000 - PG_EPOCH_US, logged_us)
    stage, entity = _STAGE[envelope.entity], envelope.entity
    if envelope.redrive and envelope.redrive.rows and len(envelope.redrive.rows) != len(rows):
        raise Rejected("bad_header", f"ts-redrive-rows names {len(envelope.redrive.rows)} rows, there are {len(rows)}")
    for place, row in enumerate(rows):
        index = envelope.first_index(place)
        if wrong := meaning.faults(entity, row, in_force):
            message.invalid.append(_meaningless(index, row, entity, wrong))
            continue
        updated = row["updated_at"]
        if updated is not None:
            updated -= PG_EPOCH_US
        # A clock that runs fast, or a date in 2099, must not freeze a record: the broker's clock is the bound.
        version_at = accepted_us if updated is None else min(updated, logged_us)
        message.rows.append(stage(message, row, index, updated, (version_at, envelope.first_offset, index)))
    message.lines = [row["line"] for row in rows]
    message.count = len(rows)


def _meaningless(index: int, row: codec.Record, entity: str, wrong: list[meaning.Fault]) -> RowError:
    errors = [{"pointer": pointer, "code": code, "detail": detail} for pointer, code, detail in wrong]
    pointer, code, detail = wrong[0]
    return RowError(index, row["line"], code, detail, natural_id(entity, row), pointer, errors, as_json(row))


def _customer(
    message: Message, row: codec.Record, index: int, updated: int | None, version: tuple[int, int, int]
) -> StagedRow:
    tenant_id, natural = message.tenant_id, row["customer_id"]
    return (
        tenant_id, natural, record_id(tenant_id, "customer", natural), row["email"], row["name"], row["phone"],
        row["country"], row["attributes"], updated, *version,
    )  # fmt: skip


def _product(
    message: Message, row: codec.Record, index: int, updated: int | None, version: tuple[int, int, int]
) -> StagedRow:
    tenant_id, natural = message.tenant_id, row["product_id"]
    return (
        tenant_id, natural, record_id(tenant_id, "product", natural), row["sku"], row["name"],
        int.from_bytes(row["price"], "big", signed=True), row["currency"], row["category"], row["active"],
        row["attributes"], updated, *version,
    )  # fmt: skip


def _order(
    message: Message, row: codec.Record, index: int, updated: int | None, version: tuple[int, int, int]
) -> StagedRow:
    tenant_id, natural = message.tenant_id, row["external_order_id"]
    if row["items"]:
        message.items[index] = [
            (tenant_id, natural, n, item["product_id"], item["quantity"],
             int.from_bytes(item["unit_price"], "big", signed=True))
            for n, item in enumerate(row["items"])
        ]  # fmt: skip
    return (
        tenant_id, natural, record_id(tenant_id, "order", natural), row["customer_id"], row["customer_name"],
        row["customer_email"], int.from_bytes(row["total_amount"], "big", signed=True), row["currency"],
        row["order_status"], row["order_date"] - PG_EPOCH_US, row["raw_payload"], updated, *version,
    )  # fmt: skip


_STAGE: Final[dict[str, Callable[..., StagedRow]]] = {
    "customers": _customer,
    "products": _product,
    "orders": _order,
}
