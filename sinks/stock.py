"""Levels of stock and the movements that made them, as streams left them, into their tables: COPY, then one statement.

Streams have looked at every movement, so that all but those with an impossible product fit.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import psycopg

from schemas import codec, stock, topics
from sinks.batch import PG_EPOCH_US, StagedRow
from sinks.sql import statement

Db = psycopg.Connection[Any]

_LEVEL: Final = ["text", "text", "int8", "int8", "int8", "int8"]
_MOVEMENT: Final = [
    "text", "text", "int8", "int4", "int4", "text", "text", "text", "int8", "int8", "int8", "int8", "text", "text",
    "int8", "int8",
]  # fmt: skip
_LAST_US: Final = 7_258_118_400_000_000


def store_levels(db: Db, levels: Mapping[bytes, bytes]) -> None:
    """Upsert what `stock.levels` says last of each key; an older level than the one there changes nothing."""
    if levels:
        _copy(db, "staged_stock_levels", _LEVEL, (staged_level(key, value) for key, value in levels.items()))
        db.execute(statement("upsert_stock_levels"))


def store_movements(db: Db, folded: list[codec.Record]) -> None:
    """Append the movements of StockOutcomes, with what became of each."""
    if folded:
        rows = (row for outcome in folded for row in staged_movements(outcome))
        _copy(db, "staged_stock_movements", _MOVEMENT, rows)
        db.execute(statement("insert_stock_movements"))


def staged_level(key: bytes, value: bytes) -> StagedRow:
    """A row of staged_stock_levels."""
    named = topics.parse_level_key(key)
    assert named is not None
    level = stock.decode_level(value)
    return *named, level.quantity, level.version, level.changed_at - PG_EPOCH_US, level.source_offset


def staged_movements(outcome: codec.Record) -> Iterator[StagedRow]:
    """Rows of staged_stock_movements; what names no possible product has no history."""
    tenant_id, offset, event_id = outcome["tenant_id"], outcome["offset"], outcome["event_id"]
    logged_at = outcome["time_ms"] * 1000 - PG_EPOCH_US
    for index, one in enumerate(outcome["movements"]):
        code = one["code"]
        if code == stock.INVALID_PRODUCT_ID:
            continue
        movement = one["movement"]
        movement_id, occurred_at = movement["movement_id"], movement["occurred_at"]
        if code == stock.INVALID_MOVEMENT_ID:
            movement_id = None
        if occurred_at is not None:
            occurred_at = occurred_at - PG_EPOCH_US if 0 <= occurred_at < _LAST_US else None
        yield (
            tenant_id, movement["product_id"], offset, index, movement["line"], event_id, movement_id,
            movement["kind"], movement["quantity"], movement["expected_quantity"], occurred_at, logged_at,
            one["outcome"], code, one["quantity"], one["version"],
        )  # fmt: skip


def _copy(db: Db, table: str, types: list[str], rows: Iterable[StagedRow]) -> None:
    with db.cursor().copy(f"COPY {table} FROM STDIN (FORMAT binary)".encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
