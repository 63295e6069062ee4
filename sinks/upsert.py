"""Rows of one entity into its table: COPY into staging, one set-based upsert; and the slow way where that won't do."""

from typing import Any, Final

import psycopg

from schemas import metrics
from sinks import faults
from sinks.batch import Message, RowError, StagedRow
from sinks.settling import State, Version, settle, split
from sinks.sql import statement

Db = psycopg.Connection[Any]
Applied = list[tuple[str, int, int]]
"""Rows that were applied, counted a source message: tenant, offset, count."""
Bad = list[tuple[Version, Exception]]

# PostgreSQL's binary COPY takes a timestamp as 8 bytes of microseconds since 2000, which is what int8 sends.
_VERSION: Final = ["int8", "int8", "int4"]
_COPY_TYPES: Final = {
    "customers": ["text", "text", "bytea", *["text"] * 5, "int8", *_VERSION],
    "products": ["text", "text", "bytea", "text", "text", "int8", "text", "text", "bool", "text", "int8", *_VERSION],
    "orders": ["text", "text", "bytea", *["text"] * 3, "int8", "text", "text", "int8", "text", "int8", *_VERSION],
    "order_items": ["text", "text", "int4", "text", "int4", "int8"],
}
_SKU: Final = 3
INVALID: Final = "invalid_value"
"""The code of a row that PostgreSQL refuses."""
_SKU_TAKEN: Final = "sku_taken", "another product of this tenant has this sku"


def upsert(db: Db, entity: str, messages: list[Message]) -> None:
    """Apply the rows of these messages as if one by one in the order of the log; quarantine what is refused."""
    versions = [(row, message) for message in messages for row in message.rows]
    by_version = {(message.tenant_id, message.envelope.first_offset): message for message in messages}
    # What is counted an offset cannot tell a message from one that brings some of its rows once more.
    once, several = split(entity, versions) if len(by_version) == len(messages) else ([], versions)
    applied = _attempt(db, entity, once, staged=False)
    if isinstance(applied, Exception):
        _settle(db, entity, once)
    else:
        for tenant_id, first_offset, count in applied:
            by_version[tenant_id, first_offset].applied += count
    if several:
        _settle(db, entity, several)


def _settle(db: Db, entity: str, versions: list[Version]) -> None:
    """Decide what becomes of each row from what the table holds, then write those that stay."""
    there = _there(db, entity, versions)
    while True:
        settled = settle(entity, versions, _state(there))
        winners = list(settled.winners.values())
        bad = _write(db, entity, winners, _given_up(there, settled.winners) if entity == "products" else [])
        for (row, message), error in bad:
            _quarantine(row, message, *_fault(error))
        if not bad:
            break
        refused = {id(row) for (row, _), _ in bad}  # what it would have replaced may stay after all
        versions = [version for version in versions if id(version[0]) not in refused]
    for _, message in settled.applied:
        message.applied += 1
    for row, message in settled.taken:
        _quarantine(row, message, *_SKU_TAKEN)


def _there(db: Db, entity: str, versions: list[Version]) -> list[Any]:
    # A direct producer's NUL names nothing that could be there.
    wanted = [row[: _SKU + 1] for row, _ in versions if "\x00" not in row[1]]
    keys = [[row[0] for row in wanted], [row[1] for row in wanted]]
    if entity == "products":
        keys.append([row[_SKU].replace("\x00", "") for row in wanted])
    return db.execute(statement(f"state_of_{entity}"), keys).fetchall()


def _state(there: list[Any]) -> State:
    state = State()
    for tenant_id, natural_id, at, offset, index, *sku in there:
        state.ages[tenant_id, natural_id] = at, offset, index
        for code in sku:
            state.skus[tenant_id, natural_id] = code
            state.holders[tenant_id, code] = natural_id
    return state


def _given_up(there: list[Any], winners: dict[tuple[str, str], Version]) -> list[tuple[str, str]]:
    """The products whose sku becomes another."""
    return [
        (tenant_id, product_id)
        for tenant_id, product_id, *_, sku in there
        if (winner := winners.get((tenant_id, product_id))) and winner[0][_SKU] != sku
    ]


def _write(db: Db, entity: str, winners: list[Version], giving_up: list[tuple[str, str]]) -> Bad:
    """Apply rows that are known to be newer than what is there; or none of them, and return those that are bad."""
    bad: Bad = []
    with db.transaction() as whole:
        if giving_up:
            db.execute(statement("free_skus"), [list(column) for column in zip(*giving_up, strict=True)])
        _bisect(db, entity, winners, bad)
        if bad:
            raise psycopg.Rollback(whole)
    return bad


def _bisect(db: Db, entity: str, versions: list[Version], bad: Bad) -> None:
    """Apply rows; on a row's fault halve them until that row is alone, note it, apply the rest."""
    error = _attempt(db, entity, versions, staged=True)
    if not isinstance(error, Exception):
        return
    if len(versions) == 1:
        bad.append((versions[0], error))
        return
    half = len(versions) // 2
    _bisect(db, entity, versions[:half], bad)
    _bisect(db, entity, versions[half:], bad)


def _attempt(db: Db, entity: str, versions: list[Version], *, staged: bool) -> Applied | Exception:
    """Apply rows, or nothing of them and return the row's fault; raises the environment's."""
    if not versions:
        return []
    try:
        with db.transaction():
            if staged:  # rows of an earlier attempt of this transaction are still there
                db.execute(f"TRUNCATE staged_{entity}, applied_orders, staged_order_items".encode())
            _copy(db, entity, (row for row, _ in versions))
            applied = db.execute(statement(f"upsert_{entity}")).fetchall()
            if entity == "orders":
                _replace_items(db, versions)
    except faults.ROW_FAULTS as error:
        if not faults.is_data(error):
            raise
        return error
    return applied


def _copy(db: Db, table: str, rows: Any) -> None:
    into = f"COPY staged_{table} FROM STDIN (FORMAT binary)".encode()
    with metrics.COPY_SECONDS.labels(table).time(), db.cursor().copy(into) as copy:
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


def _fault(error: Exception) -> tuple[str, str]:
    """Code and detail of what PostgreSQL or its client refuses."""
    detail = str(error)
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        constraint = error.diag.constraint_name
        detail = f"refused by {constraint}" if constraint else error.diag.message_primary or type(error).__name__
        if isinstance(error, psycopg.errors.ProgramLimitExceeded):
            detail = "longer than can be stored or indexed"  # PostgreSQL's words name the index of a partition
    return INVALID, detail


def _quarantine(row: StagedRow, message: Message, code: str, detail: str) -> None:
    place = message.envelope.place_of(row[-1])
    message.errors.append(RowError(row[-1], message.lines[place], code, detail, row[1], row=message.row_json(place)))
