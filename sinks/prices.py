"""Verdicts on prices, as streams left them, into the tables of prices: COPY, then one statement each.

Streams have judged every row. What they refused as invalid echoes whatever somebody sent, and is kept with the row
errors alone (sinks/ledger.py).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
import psycopg

from schemas import codec
from schemas.price_events import metadata_json
from schemas.prices import PRICE_LIMITS, Detector, alarming
from sinks.batch import PG_EPOCH_US, StagedRow
from sinks.records import storable
from sinks.sql import statement

Db = psycopg.Connection[Any]

_CHANGE: Final = [
    "text", "text", "int8", "int4", "int4", "text", "text", "text", "bool", "text", "int8", "int8", "int8", "text",
    "text", "int8", "int8", "int8", "text", "text", "int8", "text", "text",
]  # fmt: skip
_LIMIT: Final = ["text", "text", "int8", "int8", "int8", "int4"]
_MAX_ID: Final = 100
_MAX_DECISION: Final = 500
"""Characters kept of who decided, and why."""


def store(db: Db, judged: list[codec.Record]) -> None:
    """Write what PriceVerdictBatches say: the changes, the prices that came in force, and limits."""
    changes = [row for batch in judged for row in staged_changes(batch)]
    limits = [row for batch in judged for row in staged_limits(batch)]
    if changes:
        _copy(db, "staged_price_changes", _CHANGE, changes)
        db.execute(statement("insert_price_changes"))
        db.execute(statement("upsert_prices"))
    if limits:
        _copy(db, "staged_price_limits", _LIMIT, limits)
        db.execute(statement("upsert_price_limits"))


def staged_changes(batch: codec.Record) -> Iterator[StagedRow]:
    """Rows of staged_price_changes: changes, and decisions about held ones."""
    if batch["type"] == PRICE_LIMITS:
        return
    decided_by, reason = (_short(batch[name]) for name in ("decided_by", "decision_reason"))
    logged_at = batch["time_ms"] * 1000 - PG_EPOCH_US
    for index, row in enumerate(batch["rows"]):
        if _unstorable(row):
            continue
        yield (
            batch["tenant_id"], row["product_id"], batch["offset"], index, row["line"], batch["event_id"],
            row["event_id"], row["status"], alarming(row), msgspec.json.encode(row["findings"]).decode(),
            _cents(row["price_before"]), _cents(row["new_price"]), _cents(row["price_after"]), row["currency"],
            row["new_currency"], row["version"], row["occurred_at"] - PG_EPOCH_US, logged_at, row["source"],
            metadata_json(row["metadata"]), row["held_offset"], decided_by, reason,
        )  # fmt: skip


def staged_limits(batch: codec.Record) -> Iterator[StagedRow]:
    """Rows of staged_price_limits."""
    if batch["type"] != PRICE_LIMITS:
        return
    for index, row in enumerate(batch["rows"]):
        if not _unstorable(row):
            floor, ceiling = _cents(row["floor"]), _cents(row["ceiling"])
            yield batch["tenant_id"], row["product_id"], floor, ceiling, batch["offset"], index


def _unstorable(row: codec.Record) -> bool:
    """Whether a row names no possible product (a decision may name any), or was refused for what it is."""
    product_id, invalid = row["product_id"], any(finding["name"] == Detector.INVALID for finding in row["findings"])
    return invalid or not 1 <= len(product_id) <= _MAX_ID or "\x00" in product_id


def _cents(raw: bytes | None) -> int | None:
    return None if raw is None else int.from_bytes(raw, "big", signed=True)


def _short(text: str | None) -> str | None:
    return storable(text and text[:_MAX_DECISION])


def _copy(db: Db, table: str, types: list[str], rows: Iterable[StagedRow]) -> None:
    with db.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)".encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
