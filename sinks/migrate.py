"""Applies migrations: plain SQL files, once each, in order, under an advisory lock."""

import hashlib
from importlib import resources

import psycopg

from schemas.errors import Misconfigured

_LOCK = 7_470_000


def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return its names. Raises Misconfigured when an applied file was changed since."""
    files = sorted(
        (file for file in resources.files("sinks").joinpath("migrations").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    applied_now = []
    with psycopg.connect(database_url) as db, db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        db.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        known: dict[str, str] = dict(db.execute("SELECT name, sha256 FROM migrations").fetchall())
        for file in files:
            sql = file.read_bytes()
            digest = hashlib.sha256(sql).hexdigest()
            if file.name in known:
                if known[file.name] != digest:
                    raise Misconfigured(f"migration {file.name} was changed after it was applied; add a new one")
                continue
            db.execute(sql)
            db.execute("INSERT INTO migrations (name, sha256) VALUES (%s, %s)", [file.name, digest])
            applied_now.append(file.name)
    return applied_now
