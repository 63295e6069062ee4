"""Applies migrations: plain SQL files, once each, in order, under an advisory lock."""

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from schemas.errors import Misconfigured

_LOCK = 7_470_000


def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return its names. Raises Misconfigured when an applied file was changed since."""
    applied_now = []
    with psycopg.connect(database_url) as db, db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        db.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for name, sql in _missing(db):
            db.execute(sql)
            db.execute("INSERT INTO migrations (name, sha256) VALUES (%s, %s)", [name, hashlib.sha256(sql).hexdigest()])
            applied_now.append(name)
        for role in ("tillstream_writer", "tillstream_reader"):
            _take(db, role)
    return applied_now


def _take(db: psycopg.Connection[Any], role: str) -> None:
    """Let us work as `role`, as sinks do: since PostgreSQL 16 who makes a role may grant it, and cannot take it."""
    if db.info.server_version < 160_000:
        return
    granted = db.execute(
        "SELECT pg_has_role(%s, 'MEMBER WITH ADMIN OPTION') AND NOT pg_has_role(%s, 'SET')", [role, role]
    )
    if granted.fetchone() == (True,):
        db.execute(SQL("GRANT {} TO CURRENT_USER").format(Identifier(role)))


def pending(db: psycopg.Connection[Any]) -> list[str]:
    """Names of those that are to be applied. Raises Misconfigured as `migrate`, and for one that we do not have."""
    if db.execute("SELECT to_regclass('migrations')").fetchone() == (None,):
        return [file.name for file in _files()]
    ours = {file.name for file in _files()}
    known = {name for (name,) in db.execute("SELECT name FROM migrations")}
    if newer := sorted(known - ours):
        raise Misconfigured(f"{', '.join(newer)} came from a newer version of tillstream")
    return [name for name, _ in _missing(db)]


def require(db: psycopg.Connection[Any]) -> None:
    """Raises Misconfigured where a migration is missing. One that we do not have is a newer version's, and no fault.

    A login that may not look passes: what it lacks then, it is told by what it does.
    """
    try:
        with db.transaction():
            if db.execute("SELECT to_regclass('migrations')").fetchone() == (None,):
                known = set()
            else:
                known = {name for (name,) in db.execute("SELECT name FROM migrations")}
    except psycopg.errors.InsufficientPrivilege:
        return
    missing = [file.name.removesuffix(".sql") for file in _files() if file.name not in known]
    if missing:
        number, _, what = missing[0].partition("_")
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Misconfigured(f"the database lacks migration {number} ({what}){more}. Run: tillstream migrate")


def _files() -> list[Traversable]:
    files = resources.files("sinks").joinpath("migrations").iterdir()
    return sorted((file for file in files if file.name.endswith(".sql")), key=lambda file: file.name)


def _missing(db: psycopg.Connection[Any]) -> list[tuple[str, bytes]]:
    known: dict[str, str] = dict(db.execute("SELECT name, sha256 FROM migrations").fetchall())
    missing = []
    for file in _files():
        sql = file.read_bytes()
        if file.name not in known:
            missing.append((file.name, sql))
        elif known[file.name] != hashlib.sha256(sql).hexdigest():
            raise Misconfigured(f"migration {file.name} was changed after it was applied; add a new one")
    return missing
