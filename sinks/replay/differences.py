"""Shadow against live, table by table: which rows are missing, extra or different, some of them, and putting it right.

Each comparison leaves a temporary table `differs_<table>` with keys and kinds until the transaction ends.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.sql import Literal as Value

from sinks.replay.tables import Table

Db = psycopg.Connection[Any]
Kind = Literal["missing", "extra", "different"]
"""Of a row: only the topics know it, only the live table has it, or it is other than the topics say."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True)
class Sample:
    """A row that differs: its key, and the columns that do, as they are live and as the topics have them.

    Of a row that is missing or extra, all of its columns; JSON values.
    """

    kind: Kind
    key: dict[str, Any]
    live: dict[str, Any] | None
    topics: dict[str, Any] | None


@dataclass
class Difference:
    """What differs in a table: rows by kind, and samples of each."""

    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    samples: list[Sample] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that differ."""
        return sum(self.counts.values())


class Comparison:
    """The tables of a shadow against the live ones, in the transaction that is open."""

    def __init__(self, db: Db, shadow: str, live: str, tenant: str | None, *, merge: bool) -> None:
        self._db, self._shadow, self._live, self._tenant, self._merge = db, shadow, live, tenant, merge

    def compare(self, table: Table, others: dict[str, Table]) -> Difference:
        """Find what differs. `others` has the table that this one is a part of."""
        key = _names(table.key)
        kind = SQL(
            "CASE WHEN live.tenant_id IS NULL THEN 'missing' WHEN shadow.tenant_id IS NULL THEN 'extra'"
            " ELSE 'different' END"
        )
        parent = others.get(table.decision.part_of or "")
        query = SQL(
            "CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT {key}, {kind} AS difference"
            " FROM ({shadow}) AS shadow FULL JOIN ({live}) AS live USING ({key})"
            " WHERE (shadow.tenant_id IS NULL OR live.tenant_id IS NULL OR {differs}){merged}"
        ).format(
            name=_differs(table),
            key=key,
            kind=kind,
            shadow=self._rows(self._shadow, table, parent),
            live=self._rows(self._live, table, parent),
            differs=_differing(table),
            merged=self._merged(table) if self._merge else SQL(""),
        )
        self._db.execute(query)
        self._db.execute(SQL("ANALYZE {}").format(_differs(table)))
        found = Difference()
        for name, count in self._db.execute(
            SQL("SELECT difference, count(*) FROM {} GROUP BY 1").format(_differs(table))
        ):
            found.counts[name] = count
        return found

    def sample(self, table: Table, found: Difference, most: int) -> None:
        """Add the first few rows of each kind."""
        for kind in KINDS:
            if not found.counts[kind] or not most:
                continue
            query = SQL(
                "SELECT to_jsonb(one) - 'difference', to_jsonb(live), to_jsonb(shadow)"
                " FROM (SELECT * FROM {differs} WHERE difference = {kind} ORDER BY {key} LIMIT {most}) AS one"
                " LEFT JOIN {live} AS live USING ({key}) LEFT JOIN {shadow} AS shadow USING ({key})"
                " ORDER BY {key}"
            ).format(
                differs=_differs(table),
                kind=Value(kind),
                key=_names(table.key),
                most=Value(most),
                live=Identifier(self._live, table.name),
                shadow=Identifier(self._shadow, table.name),
            )
            found.samples += [_sample(kind, table, *row) for row in self._db.execute(query)]

    def put_right(self, found: dict[str, Difference], tables: list[Table]) -> None:
        """Make the live rows what the shadow says: deletes first, so that rows may pass a unique value round."""
        gone = [table for table in tables if found[table.name].rows > found[table.name].counts["missing"]]
        new = [table for table in tables if found[table.name].rows > found[table.name].counts["extra"]]
        for table in gone:
            same = _equal(table, "live", "differs")
            self._db.execute(
                SQL("DELETE FROM {} AS live USING {} AS differs WHERE {} AND differs.difference <> 'missing'").format(
                    Identifier(self._live, table.name), _differs(table), same
                )
            )
        for table in new:
            columns = list(table.columns)
            if table.name == "orders":
                self._say_what_is_inserted(table)
            self._db.execute(
                SQL("INSERT INTO {} ({}) SELECT {} {}").format(
                    Identifier(self._live, table.name), _names(columns), _names(columns), self._wanted(table)
                )
            )

    def _wanted(self, table: Table) -> Composable:
        """FROM: the shadow's rows that the live table is to have."""
        return SQL("FROM {} JOIN {} AS differs USING ({}) WHERE differs.difference <> 'extra'").format(
            Identifier(self._shadow, table.name), _differs(table), _names(table.key)
        )

    def _say_what_is_inserted(self, orders: Table) -> None:
        """Let only their days be counted again, as sinks do (migration 0011), and not those of all tenants."""
        self._db.execute("TRUNCATE pg_temp.staged_orders")
        rows = SQL("INSERT INTO pg_temp.staged_orders (tenant_id, order_date) SELECT tenant_id, order_date {}")
        self._db.execute(rows.format(self._wanted(orders)))
        self._db.execute("SET LOCAL app.orders_staged = on")

    def _rows(self, schema: str, table: Table, parent: Table | None) -> Composable:
        """The rows of a table to compare: the tenant's, and, where parts follow rows that merge, of those rows."""
        rows: Composable = SQL("SELECT part.* FROM {} AS part").format(Identifier(schema, table.name))
        if parent is not None and self._merge:
            # Of the rows that the shadow's version of the whole is to replace, or agrees with.
            rows += SQL(
                " JOIN {shadow} AS mine USING ({key}) LEFT JOIN {live} AS theirs USING ({key})"
                " WHERE (theirs.tenant_id IS NULL OR {newer})"
            ).format(
                shadow=Identifier(self._shadow, parent.name),
                live=Identifier(self._live, parent.name),
                key=_names(parent.key),
                newer=_newer(parent, "mine", "theirs"),
            )
        else:
            rows += SQL(" WHERE true")
        if self._tenant is not None:
            # A literal, so that partitions are pruned when the statement is planned.
            rows += SQL(" AND part.tenant_id = {}").format(Value(self._tenant))
        return rows

    def _merged(self, table: Table) -> Composable:
        """What a merge leaves alone: extra rows, facts that differ, newer rows, and a unique value that another has."""
        if table.decision.part_of:
            return SQL("")
        merged: Composable = SQL(" AND shadow.tenant_id IS NOT NULL AND (live.tenant_id IS NULL")
        if table.decision.version:
            merged += SQL(" OR ") + _newer(table, "shadow", "live")
        merged += SQL(")")
        for unique in table.unique:
            merged += SQL(" AND NOT EXISTS (SELECT FROM {} AS holder WHERE {} AND NOT ({}))").format(
                Identifier(self._live, table.name),
                SQL(" AND ").join(
                    SQL("{} = {}").format(Identifier("holder", name), Identifier("shadow", name)) for name in unique
                ),
                _equal(table, "holder", "shadow"),
            )
        return merged


def _differs(table: Table) -> Identifier:
    return Identifier("pg_temp", f"differs_{table.name}")


def _names(names: tuple[str, ...] | list[str]) -> Composed:
    return SQL(", ").join(map(Identifier, names))


def _equal(table: Table, one: str, other: str) -> Composed:
    return SQL(" AND ").join(SQL("{} = {}").format(Identifier(one, n), Identifier(other, n)) for n in table.key)


def _differing(table: Table) -> Composable:
    if not table.compared:
        return SQL("false")
    sides = [SQL("ROW(") + SQL(", ").join(_value(side, table, n) for n in table.compared) + SQL(")") for side in
             ("shadow", "live")]  # fmt: skip
    return SQL(" IS DISTINCT FROM ").join(sides)


def _value(side: str, table: Table, name: str) -> Composable:
    column = Identifier(side, name)
    return column + SQL("::text") if table.columns[name] == "json" else column  # json knows no equality


def _newer(table: Table, one: str, other: str) -> Composable:
    """Whether the row of one side may replace that of the other."""
    sides = [SQL("ROW(") + SQL(", ").join(Identifier(side, n) for n in table.decision.version) + SQL(")") for side in
             (one, other)]  # fmt: skip
    return SQL(" >= " if table.decision.names else " > ").join(sides)


def _sample(kind: Kind, table: Table, key: dict[str, Any], live: Any, shadow: Any) -> Sample:
    shown = [n for n in table.columns if n not in table.key]
    if kind == "different":
        shown = [n for n in table.compared if live[n] != shadow[n]]
    live, shadow = ({n: row[n] for n in shown} if row is not None else None for row in (live, shadow))
    return Sample(kind, key, live, shadow)
