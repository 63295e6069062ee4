"""PostgreSQL: whether it answers, its version, migrations, roles, isolation of tenants, connections, clock."""

import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg

from deploy.doctor.finding import Finding, fail, ok, warn
from gateway import isolation
from schemas.errors import Misconfigured, Unavailable
from schemas.settings import Settings
from sinks.migrate import pending

_OLDEST: Final = 15
_WITHIN_S: Final = 5
_SKEW_S: Final = 2.0
_LOST: Final = """
SELECT c.oid::regclass::text, privilege
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace, unnest(ARRAY['SELECT', 'INSERT']) AS privilege
WHERE nspname = current_schema() AND relkind IN ('r', 'p') AND NOT relispartition
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = 'tenant_id' AND NOT attisdropped)
  AND NOT has_table_privilege('tillstream_writer', c.oid, privilege)
ORDER BY 1, 2
"""
"""What the migrations grant the sinks on every table of tenants, and is not there."""


def look(settings: Settings) -> Iterator[Finding]:
    """Reach, version, migrations, roles, connections, clock; nothing more where it does not answer."""
    try:
        with psycopg.connect(
            settings.database_url, connect_timeout=_WITHIN_S, application_name="tillstream-doctor", autocommit=True
        ) as db:
            yield from _server(db)
            yield from _schema(db, settings)
    except psycopg.OperationalError as exc:
        remedy = "is it up, and is DATABASE_URL right (host, port, user, password, sslmode)?"
        yield fail("PostgreSQL", str(exc).strip().splitlines()[0], remedy)
        return
    yield from _isolation(settings)


def _server(db: psycopg.Connection[Any]) -> Iterator[Finding]:
    major = db.info.server_version // 10_000
    found = f"version {db.info.parameter_status('server_version')} on {db.info.host}:{db.info.port}"
    if major < _OLDEST:
        yield fail("PostgreSQL", found, f"{_OLDEST} or newer is needed")
    else:
        yield ok("PostgreSQL", found)
    before = time.time()
    row = db.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    skew = row[0] - (before + time.time()) / 2
    if abs(skew) > _SKEW_S:
        yield warn("clocks", f"PostgreSQL's is {skew:+.1f} s from this machine's", "set the clocks (NTP)")
    else:
        yield ok("clocks", f"PostgreSQL's is {abs(skew) * 1000:.0f} ms from this machine's")
    used = db.execute(
        "SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity WHERE backend_type ="
        " 'client backend'"
    ).fetchone()
    assert used is not None
    if used[0] > 0.8 * used[1]:
        yield warn("connections", f"{used[0]} of {used[1]} are taken", "raise max_connections, or run fewer gateways")
    read_only = db.execute("SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on'")
    if read_only.fetchone() == (True,):
        yield fail("PostgreSQL", "takes no writes: it is a standby or read-only", "point DATABASE_URL at the primary")


def _schema(db: psycopg.Connection[Any], settings: Settings) -> Iterator[Finding]:
    try:
        missing = pending(db)
    except Misconfigured as exc:
        yield fail("migrations", str(exc), "run the version of tillstream that this database was migrated by")
        return
    except psycopg.errors.InsufficientPrivilege as exc:
        found = f"{db.info.user} may not look: {exc.diag.message_primary}"
        yield fail("roles", found, "DATABASE_URL takes the login that owns the tables, or is in tillstream_writer")
        return
    if missing:
        yield fail("migrations", f"{', '.join(missing)} to be applied", "tillstream migrate")
        return
    yield ok("migrations", "all are applied")
    login, roles = db.info.user, ("tillstream_writer", "tillstream_reader")  # exports are read as a gateway reads
    may_not = [role for role in roles if db.execute("SELECT pg_has_role(%s, 'MEMBER')", [role]).fetchone() != (True,)]
    if may_not:
        yield fail("roles", f"{login} may not become {' and '.join(may_not)}", f"GRANT {', '.join(may_not)} TO {login}")
    else:
        yield ok("roles", f"{login} may become {' and '.join(roles)}")
    lost = [f"{privilege} ON {table}" for table, privilege in db.execute(_LOST).fetchall()]
    if lost:
        yield fail(
            "grants", f"tillstream_writer has lost {', '.join(lost)}: sinks wait for it", f"GRANT {lost[0]} TO …"
        )


def _isolation(settings: Settings) -> Iterator[Finding]:
    if not settings.reader_database_url:
        yield warn(
            "isolation",
            "not looked at: there is no TILLSTREAM_READER_DATABASE_URL here",
            "gateways prove it at their start, and refuse to serve where tenants are not isolated",
        )
        return
    try:
        isolation.prove(settings.reader_database_url)
        yield ok("isolation", "the gateways' login sees one tenant at a time")
    except Misconfigured as exc:
        yield fail("isolation", str(exc), "as it says; gateways refuse to serve until then")
    except Unavailable as exc:
        yield fail("isolation", str(exc), "is TILLSTREAM_READER_DATABASE_URL right?")
