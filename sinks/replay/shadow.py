"""The shadow: a schema with empty copies of the live tables, which one replay has for itself."""

import hashlib
import re
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg.sql import SQL, Identifier

from schemas.errors import Unavailable
from sinks.migrate import require
from sinks.replay.tables import live_schema, tables
from sinks.sql import statement

Db = psycopg.Connection[Any]

_LOCK: Final = 7_470
"""First half of the advisory lock that a replay holds while it lives; the second is its schema's hash."""
_PREFIX: Final = "replay_"
_SHOWN: Final = 40


def schema_of(tenant: str | None) -> str:
    """The name of a tenant's shadow, or of everybody's."""
    if tenant is None:
        return f"{_PREFIX}all"
    shown = re.sub("[^a-z0-9]", "_", tenant.lower())[:_SHOWN]
    return f"{_PREFIX}{shown}_{hashlib.sha256(tenant.encode()).hexdigest()[:8]}"


class Shadow:
    """`with Shadow(url, tenant) as shadow:` has a session that writes into empty tables, gone when the block ends.

    Raises Misconfigured where replays are not possible, Unavailable while another has the shadow.
    """

    def __init__(self, database_url: str, tenant: str | None, *, keep: bool = False) -> None:
        self.tenant, self.schema, self._keep = tenant, schema_of(tenant), keep
        self._url = database_url

    def __enter__(self) -> Self:
        self.db = psycopg.connect(self._url, application_name="tillstream-replay", connect_timeout=5)
        try:
            require(self.db)
            self.live = live_schema(self.db)
            self.tables = tables(self.db, self.live)
            if not _lock(self.db, self.schema):
                whose = "all tenants" if self.tenant is None else f"tenant {self.tenant!r}"
                raise Unavailable(f"another replay of {whose} is running: wait until it has ended")
            self._create()
        except BaseException:
            self.db.close()
            raise
        return self

    def known(self) -> bool:
        """Whether the live tables have a line of the ledger for the tenant."""
        query = SQL("SELECT FROM {} WHERE tenant_id = %s LIMIT 1").format(Identifier(self.live, "ledger"))
        return self.db.execute(query, [self.tenant]).fetchone() is not None

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if not self.db.closed:
            self.db.rollback()
            if not self._keep:
                _drop(self.db, self.schema)
            # At once: a server ends a session some time after its client has gone.
            self.db.execute("SELECT pg_advisory_unlock_all()")
            self.db.commit()
        self.db.close()

    def analyze(self) -> None:
        """Let the planner know what the tables hold."""
        for table in self.tables:
            self.db.execute(SQL("ANALYZE {}").format(Identifier(self.schema, table.name)))
        self.db.commit()

    def _create(self) -> None:
        _drop(self.db, self.schema)
        self.db.execute(SQL("CREATE SCHEMA {}").format(Identifier(self.schema)))
        for name in ("sink_offsets", *(table.name for table in self.tables)):
            self.db.execute(
                SQL(
                    "CREATE UNLOGGED TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED"
                    " INCLUDING INDEXES)"
                ).format(Identifier(self.schema, name), Identifier(self.live, name))
            )
            # Nobody but the owner may look in; gateways refuse to serve beside a table of tenants without it.
            self.db.execute(SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(Identifier(self.schema, name)))
        self.db.execute(SQL("SET search_path TO {}").format(Identifier(self.schema)))
        self.db.execute("SET plan_cache_mode = force_custom_plan")
        self.db.execute("SET synchronous_commit = off")  # what a crash leaves of a shadow is of no use
        self.db.execute(statement("staging"))
        self.db.commit()


def clean(database_url: str) -> list[str]:
    """Drop the shadows that killed replays left behind; return their names. Those in use stay."""
    with psycopg.connect(database_url, autocommit=True, connect_timeout=5) as db:
        live_schema(db)
        names = [row[0] for row in db.execute(statement("shadows"), [_PREFIX])]
        left = [name for name in names if _lock(db, name)]
        for name in left:
            _drop(db, name)
    return left


def _lock(db: Db, schema: str) -> bool:
    """Take the lock of a shadow, for as long as the session lives; False where somebody has it."""
    row = db.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", [_LOCK, schema]).fetchone()
    return row == (True,)


def _drop(db: Db, schema: str) -> None:
    db.execute("SET client_min_messages = warning")
    db.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(schema)))
    if not db.autocommit:
        db.commit()
