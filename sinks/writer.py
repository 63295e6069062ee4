"""Writes a batch in one transaction: COPY into staging, one set-based upsert an entity, the ledger, the offsets."""

from collections import defaultdict
from typing import Any, Final

import psycopg

from sinks import faults, ledger, tenants, uploads
from sinks.batch import Batch, Message, RowError, StagedRow, Version, newest
from sinks.offsets import Move, advance
from sinks.sql import statement

Db = psycopg.Connection[Any]

# PostgreSQL's binary COPY takes a timestamp as 8 bytes of microseconds since 2000, which is what int8 sends.
_VERSION: Final = ["int8", "int8", "int4"]
_COPY_TYPES: Final = {
    "customers": ["text", "text", "bytea", *["text"] * 5, "int8", *_VERSION],
    "products": [
        "text",
        "text",
        "bytea",
        "text",
        "text",
        "int8",
        "text",
        "text",
        "bool",
        "text",
        "int8",
        *_VERSION,
    ],
    "orders": [
        "text",
        "text",
        "bytea",
        *["text"] * 3,
        "int8",
        "text",
        "text",
        "int8",
        "text",
        "int8",
        *_VERSION,
    ],
    "order_items": ["text", "text", "int4", "text", "int4", "int8"],
}


def connect(database_url: str) -> Db:
    """A connection with the rights of the writer role and its staging tables."""
    db = psycopg.connect(database_url, application_name="tillstream-sink", connect_timeout=5)
    db.execute("SET ROLE tillstream_writer")
    db.execute("SET plan_cache_mode = force_custom_plan")
    db.execute(statement("staging"))
    db.commit()
    return db


def write(db: Db, batch: Batch, moves: list[Move]) -> None:
    """Apply a batch, or nothing of it. Raises psycopg.Error for the environment's faults, Superseded for a zombie's."""
    with db.transaction():
        fresh = _skip_known(db, batch.messages)
        by_entity: dict[str, list[Message]] = defaultdict(list)
        for message in fresh:
            if message.rows and not message.duplicate:
                by_entity[message.envelope.entity].append(message)
        for entity, messages in by_entity.items():
            _upsert(db, entity, messages)
        uploads.follow(db, [(m.envelope.type, m.upload) for m in fresh if m.upload is not None and not m.duplicate])
        ledger.write(db, fresh, batch.outcomes)
        tenants.materialise(db, batch.tenants)
        advance(db, moves)


def _skip_known(db: Db, messages: list[Message]) -> list[Message]:
    """Leave out what the ledger has, and mark what it has applied under the same event id elsewhere."""
    if not messages:
        return []
    for message in messages:  # a second try starts from nothing
        message.applied, message.duplicate = 0, False
        message.errors.clear()
    tenants = [m.tenant_id for m in messages]
    event_ids = [m.envelope.event_id for m in messages]
    at = [
        [m.envelope.src.topic for m in messages],
        [m.envelope.src.partition for m in messages],
        [m.envelope.src.offset for m in messages],
    ]
    known: dict[int, bool] = {}
    for n, same_message in db.execute(statement("known_events"), [tenants, event_ids, *at, tenants, *at], binary=True):
        known[n - 1] = known.get(n - 1, False) or same_message
    fresh, seen = [], set()
    for n, message in enumerate(messages):
        if known.get(n):
            continue
        event = (message.tenant_id, message.envelope.event_id)
        if message.refused is None:
            message.duplicate = n in known or event in seen
            seen.add(event)
        fresh.append(message)
    return fresh


def _upsert(db: Db, entity: str, messages: list[Message]) -> None:
    """Upsert the newest version of each record; where PostgreSQL refuses it, quarantine it and try the one before."""
    versions, older = newest(messages)
    refused: list[Version] = []
    _bisect(db, entity, versions, refused, staged=False)
    for version in refused:
        # Once more, now that the rest is there: another record may have given up the sku.
        for candidate in (version, *older.get(version[0][:2], ())):
            error = _attempt(db, entity, [candidate], staged=True)
            if error is None:
                break
            row, message = candidate
            _quarantine(row, message, error)


def _bisect(db: Db, entity: str, versions: list[Version], refused: list[Version], *, staged: bool) -> None:
    """Apply rows; on a row's fault halve the batch until that row is alone, note it, apply the rest."""
    if _attempt(db, entity, versions, staged=staged) is None:
        return
    if len(versions) == 1:
        refused += versions
        return
    half = len(versions) // 2
    _bisect(db, entity, versions[:half], refused, staged=True)
    _bisect(db, entity, versions[half:], refused, staged=True)


def _attempt(db: Db, entity: str, versions: list[Version], *, staged: bool) -> Exception | None:
    """Apply rows, or nothing of them and return the row's fault; raises the environment's."""
    try:
        with db.transaction():
            if staged:  # rows of an earlier attempt of this transaction are still there
                db.execute(f"TRUNCATE staged_{entity}".encode())
                db.execute(b"TRUNCATE applied_orders, staged_order_items")
            _apply(db, entity, versions)
    except faults.ROW_FAULTS as error:
        if not faults.is_data(error):
            raise
        return error
    return None


def _apply(db: Db, entity: str, versions: list[Version]) -> None:
    _copy(db, entity, (row for row, _ in versions))
    applied = db.execute(statement(f"upsert_{entity}")).fetchall()
    if entity == "orders":
        _replace_items(db, versions)
    by_source = {(m.tenant_id, m.envelope.src.offset): m for _, m in versions}
    for tenant_id, source_offset, count in applied:
        by_source[tenant_id, source_offset].applied += count


def _copy(db: Db, table: str, rows: Any) -> None:
    with db.cursor().copy(f"COPY staged_{table} FROM STDIN (FORMAT binary)".encode()) as copy:
        copy.set_types(_COPY_TYPES[table])
        for row in rows:
            copy.write_row(row)


def _replace_items(db: Db, versions: list[Version]) -> None:
    replaced = db.execute("SELECT count(*) FROM applied_orders WHERE replaced").fetchone()
    if replaced != (0,):
        # A temporary table has no statistics; without this the planner may read all items to find a few.
        db.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        db.execute(statement("delete_replaced_items"))
        db.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on")
    items = [item for row, message in versions for item in message.items.get(row[-1], ())]
    if items:
        _copy(db, "order_items", items)
        db.execute(statement("insert_items"))


def _quarantine(row: StagedRow, message: Message, error: Exception) -> None:
    index, code, detail = row[-1], "invalid_value", str(error)
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        constraint = error.diag.constraint_name
        detail = f"refused by {constraint}" if constraint else error.diag.message_primary or type(error).__name__
        if error.sqlstate == "23505" and constraint is not None and "sku" in constraint:
            code, detail = "sku_taken", "another product of this tenant has this sku"
    error_of_row = RowError(index, message.lines[index], code, detail, row[1], row=message.row_json(index))
    message.errors.append(error_of_row)
