"""What a replay does with each table of tenants is decided here, by name; columns and keys are PostgreSQL's to say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from schemas import topics
from schemas.errors import Misconfigured
from sinks.sql import statement

Db = psycopg.Connection[Any]

_MESSAGES: Final = frozenset({topics.INGESTION_UNIQUE})
_VERDICTS: Final = frozenset({topics.PRICES_VERDICTS})
_ACCOUNTS: Final = frozenset({topics.INGESTION_UNIQUE, topics.OUTCOMES, topics.PRICES_VERDICTS})
_RECORD: Final = ("version_at", "version_offset", "version_row")


@dataclass(frozen=True)
class Decision:
    """How a table is made again, and compared.

    `fed_by` are the topics that fill it. `ignored` columns say nothing about the tenant. In a merge a row replaces one
    of an older `version`, or, if a version `names` one message, one of the same version too; a table without a version
    holds facts, which are added only, and one that is `part_of` another follows its rows.
    """

    fed_by: frozenset[str]
    ignored: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    names: bool = True
    part_of: str | None = None


REBUILT: Final[Mapping[str, Decision]] = {
    "customers": Decision(_MESSAGES, version=_RECORD),
    "products": Decision(_MESSAGES, version=_RECORD),
    # How often PostgreSQL rewrote an order depends on where batches end.
    "orders": Decision(_MESSAGES, ignored=("revision",), version=_RECORD),
    "order_items": Decision(_MESSAGES, part_of="orders"),
    "uploads": Decision(_MESSAGES),
    "ingestion_policies": Decision(_MESSAGES, version=("log_offset",)),
    "ledger": Decision(_ACCOUNTS, ignored=("applied_at",)),
    "row_errors": Decision(_ACCOUNTS),
    "stock_levels": Decision(frozenset({topics.STOCK_LEVELS}), version=("version",), names=False),
    "stock_movements": Decision(frozenset({topics.OUTCOMES})),
    "prices": Decision(_VERDICTS, version=("version",), names=False),
    "price_changes": Decision(_VERDICTS),
    "price_limits": Decision(_VERDICTS, version=("log_offset",)),
    "tenants": Decision(frozenset({topics.TENANTS}), version=("log_offset",)),
}
KEPT: Final[Mapping[str, str]] = {
    "dead_letters": "its topic is kept for 90 days, and the table for longer",
    "redrives": "what operators did, other tenants' letters with it; sinks fill it from a topic of its own",
    "tenant_daily_metrics": "counted again from the orders, whose change leaves marks",
    "exports": "files that somebody asked for, not what a topic says of a tenant",
    "metrics_marks": "they say what is to be counted",
}
"""Tables of tenants that a replay leaves as they are, and why."""


@dataclass(frozen=True)
class Table:
    """A live table of tenants with its columns (name to type), its primary key and its other unique keys."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    decision: Decision

    @property
    def compared(self) -> list[str]:
        """The columns by which two rows with the same key are told apart."""
        return [name for name in self.columns if name not in self.key and name not in self.decision.ignored]


def live_schema(db: Db) -> str:
    """Where the tables are that sinks write to. Raises Misconfigured where there are none, or they are not ours."""
    row = db.execute(statement("live_schema")).fetchone()
    if row is None:
        raise Misconfigured("the database has no tables. Run: tillstream migrate")
    schema, owned = row
    if not owned:
        raise Misconfigured("a replay needs the login that owns the tables, as migrations do: set DATABASE_URL to it")
    return str(schema)


def tables(db: Db, schema: str) -> list[Table]:
    """All tables that are made again. Raises Misconfigured for one with a tenant_id that nobody decided about."""
    found = []
    for name, columns, types, key, unique in db.execute(statement("tables_of_tenants"), [schema]):
        if name in KEPT:
            continue
        if name not in REBUILT:
            raise Misconfigured(
                f"table {name} has a tenant_id, and what a replay does with it is not decided: sinks/replay/tables.py"
            )
        if not key or "tenant_id" not in key:
            raise Misconfigured(f"table {name} has no primary key with the tenant_id, which a replay compares by")
        pairs = zip(columns, types, strict=True)
        found.append(Table(name, dict(pairs), tuple(key), tuple(map(tuple, unique)), REBUILT[name]))
    return found
