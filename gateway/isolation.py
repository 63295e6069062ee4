"""The proof, before anything is read, that this gateway's login sees one tenant at a time and changes nothing.

Twice over: the catalogue is asked for every known way around row-level security, and then each table of tenants is
asked for rows that nobody in particular may see.
"""

import secrets
from typing import Any, Final

import psycopg
from psycopg.sql import SQL, Identifier

from gateway.sql import statement
from schemas.errors import Misconfigured, Unavailable

Db = psycopg.Connection[Any]

_SHOWN: Final = 5
"""Faults named in one message."""
_PROBE_MS: Final = 30_000


def prove(reader_url: str) -> None:
    """Return when no way is known by which this login could see two tenants.

    Raises Misconfigured naming what is wrong and what to do, Unavailable while PostgreSQL is away or has no tables.
    """
    try:
        with psycopg.connect(
            reader_url, application_name="tillstream-isolation", client_encoding="utf8", connect_timeout=3
        ) as db:
            db.read_only = True
            db.execute("SELECT set_config('statement_timeout', %s, false)", [str(_PROBE_MS)])
            faults = _faults(db)
            if not faults:
                faults = _leaks(db)
    except psycopg.OperationalError as exc:
        raise Unavailable(f"PostgreSQL does not answer: {exc}") from exc
    if faults:
        shown = "; ".join(f"{fault} (what to do: {remedy})" for fault, remedy in faults[:_SHOWN])
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise Misconfigured(f"refuses to serve, for tenants would not be isolated: {shown}{more}")


def _faults(db: Db) -> list[tuple[str, str]]:
    """What the catalogue knows: (fault, remedy), the gravest first."""
    found = db.execute(statement("isolation_faults")).fetchall()
    superuser = bool(found) and found[0][0] == 0  # who passes every check, so that the rest says nothing
    return [(fault, remedy) for rule, fault, remedy in found if rule == 0 or not superuser]


def _leaks(db: Db) -> list[tuple[str, str]]:
    """Tables that show a row without a tenant, to the tenant '', or to one that does not exist."""
    tables = db.execute(statement("tenant_tables")).fetchall()
    if not tables:
        raise Unavailable("the database has no tables of tenants that this login may read. Run: tillstream migrate")
    # Whoever owns no rows must see none; the index on tenant_id tells at once, however large a table is.
    db.execute("SELECT set_config('enable_seqscan', 'off', false)")
    db.commit()
    found = {}
    for tenant_id in (None, "", f"nobody-{secrets.token_hex(8)}"):
        with db.transaction():
            if tenant_id is not None:
                db.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant_id])
            for table in tables:
                name = Identifier(*table)
                if db.execute(SQL("SELECT FROM {} LIMIT 1").format(name)).fetchone() is not None:
                    found[table] = name.as_string(db)
    return [(f"table {name} shows rows that belong to others", "look at its policies") for name in found.values()]
