"""One export at a time: claimed by an advisory lock, copied out under the tenant's own row-level security, offered."""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.errors import QueryCanceled
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Literal

from producers import stored
from schemas import metrics
from schemas.exports import path_of
from sinks import faults
from sinks.exports.file import Unfinished

log = logging.getLogger(__name__)

Db = psycopg.Connection[Any]

KEPT: Final = "3 days"
"""How long a file can be downloaded."""
_ATTEMPTS: Final = 5
"""An export that ended its worker so often is given up."""
_TOLD_S: Final = 0.5
_CHUNK_BYTES: Final = 262_144
_LONGEST: Final = "1h"
"""A transaction that stays open keeps PostgreSQL from cleaning up."""
_OPEN: Final = """
SELECT tenant_id, export_id::text, entity, format, gzip, filters, attempt FROM exports
WHERE state IN ('queued', 'running') ORDER BY state DESC, requested_at LIMIT 100
"""
"""What runs stands behind what waits, save that its worker is gone: then it gets its turn."""
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended('tillstream export ' || %s, 0))"
_UNLOCK: Final = "SELECT pg_advisory_unlock(hashtextextended('tillstream export ' || %s, 0))"
_CLAIM: Final = """
UPDATE exports SET state = 'running', attempt = attempt + 1, rows_done = 0, rows_total = NULL, started_at = now()
WHERE tenant_id = %s AND export_id = %s::uuid AND attempt = %s AND state IN ('queued', 'running') RETURNING attempt
"""
_OURS: Final = " WHERE tenant_id = %s AND export_id = %s::uuid AND attempt = %s AND state = 'running'"
_EXPIRED: Final = """
SELECT tenant_id, export_id::text, entity, format, gzip, filters, attempt FROM exports
WHERE state = 'done' AND expires_at <= now() LIMIT 100
"""


class Cancelled(Exception):
    """The worker was told to stop; another starts the export again."""


@dataclass(frozen=True, slots=True)
class Export:
    """A line of the table; `filters` are pairs of a name and a value as text."""

    tenant_id: str
    export_id: str
    entity: str
    format: str
    gzip: bool
    filters: list[list[str]]
    attempt: int

    @property
    def key(self) -> list[Any]:
        """What the statements about this attempt take."""
        return [self.tenant_id, self.export_id, self.attempt]


class Runner:
    """Runs exports on two connections: `db` tells how far it is and holds the lock, `reading` copies."""

    def __init__(self, folder: str, stopping: threading.Event) -> None:
        self._folder, self._stopping = folder, stopping
        self._reading: Db | None = None

    def cancel(self) -> None:
        """End a COPY under way."""
        if (reading := self._reading) is not None:
            with suppress(psycopg.OperationalError):
                reading.cancel_safe(timeout=2)

    def run_next(self, db: Db, reading: Db) -> bool:
        """Run the first export that nobody is at; False where there is none. Raises psycopg.Error, Cancelled."""
        for found in db.cursor(row_factory=class_row(Export)).execute(_OPEN).fetchall():
            if db.execute(_LOCK, [found.export_id]).fetchone() != (True,):
                continue
            try:
                if (
                    claimed := db.execute(_CLAIM, [found.tenant_id, found.export_id, found.attempt]).fetchone()
                ) is None:
                    continue  # it was run while we looked
                fields = (found.entity, found.format, found.gzip, found.filters)
                self._run(db, reading, Export(found.tenant_id, found.export_id, *fields, claimed[0]))
            finally:
                if not db.closed:
                    db.execute(_UNLOCK, [found.export_id])
            return True
        return False

    def remove_expired(self, db: Db) -> None:
        """Delete the files whose time is over, and say so; a file that is being downloaded is still read to its end."""
        for export in db.cursor(row_factory=class_row(Export)).execute(_EXPIRED).fetchall():
            self._path(export).unlink(missing_ok=True)
            # Afterwards: killed in between, the next one finds it again.
            db.execute(
                "UPDATE exports SET state = 'expired' WHERE tenant_id = %s AND export_id = %s::uuid", export.key[:2]
            )

    def _run(self, db: Db, reading: Db, export: Export) -> None:
        started = time.monotonic()
        try:
            if export.attempt > _ATTEMPTS:
                raise ValueError(f"{_ATTEMPTS} workers ended while they wrote it")
            path = self._path(export)
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f"{export.export_id}.*"):  # by a worker that was killed
                left.unlink(missing_ok=True)
            with Unfinished(path, gzip=export.gzip) as file:
                rows = self._copy(db, reading, export, file)
                file.finish()
        except QueryCanceled:
            if self._stopping.is_set():
                raise Cancelled from None
            self._fail(db, export, f"it took more than {_LONGEST}")
        except psycopg.Error as error:
            if faults.is_environment(error):
                raise
            self._fail(db, export, f"PostgreSQL: {error}".strip())
        except OSError as error:
            self._fail(db, export, f"the file store: {error.strerror or type(error).__name__}")
        except ValueError as error:
            self._fail(db, export, str(error))
        else:
            said = "rows_done = %s, rows_total = %s, bytes = %s, sha256 = %s, finished_at = now()"
            db.execute(
                f"UPDATE exports SET state = 'done', {said}, expires_at = now() + %s::interval" + _OURS,
                [rows, rows, file.size, file.sha256, KEPT, *export.key],
            )
            metrics.EXPORTS_ENDED.labels("done").inc()
            log.info("export %s: %d rows in %.1f s", export.export_id, rows, time.monotonic() - started)

    def _fail(self, db: Db, export: Export, reason: str) -> None:
        log.warning("export %s failed: %s", export.export_id, reason)
        db.execute(
            "UPDATE exports SET state = 'failed', reason = %s, finished_at = now()" + _OURS,
            [reason[:500], *export.key],
        )
        metrics.EXPORTS_ENDED.labels("failed").inc()

    def _copy(self, db: Db, reading: Db, export: Export, file: Unfinished) -> int:
        """Copy the rows into the file; return how many. Raises ValueError for filters that are none."""
        rows, counting = queries(export)
        copy = (stored.COPY_CSV if export.format == "csv" else stored.COPY_NDJSON).format(rows)
        head, end = (1, b"\r\n") if export.format == "csv" else (0, b"\n")
        done, told, size = -head, time.monotonic(), 0
        lines: list[Any] = []
        self._reading = reading
        try:
            with reading.transaction():
                reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                reading.execute("SET LOCAL ROLE tillstream_reader")
                settings = stored.READING | {"statement_timeout": _LONGEST, "app.tenant_id": export.tenant_id}
                for name, value in settings.items():
                    reading.execute("SELECT set_config(%s, %s, true)", [name, value])
                total = reading.execute(counting).fetchone()
                assert total is not None
                self._tell(db, export, 0, total[0])
                with reading.cursor().copy(copy) as found:
                    for line in found:
                        lines.append(line)
                        size += len(line)
                        if size >= _CHUNK_BYTES:
                            file.write(stored.joined(lines, end))
                            done += len(lines)
                            lines.clear()
                            size = 0
                            if self._stopping.is_set():
                                raise Cancelled
                            if time.monotonic() >= told + _TOLD_S:
                                told = time.monotonic()
                                self._tell(db, export, done, total[0])
            if lines:
                file.write(stored.joined(lines, end))
            return done + len(lines)
        finally:
            self._reading = None

    def _tell(self, db: Db, export: Export, done: int, total: int) -> None:
        db.execute("UPDATE exports SET rows_done = %s, rows_total = %s" + _OURS, [done, total, *export.key])

    def _path(self, export: Export) -> Path:
        return path_of(self._folder, export.tenant_id, export.export_id, export.attempt, export.format, export.gzip)


def queries(export: Export) -> tuple[Composed, Composed]:
    """The rows of an export, as the gateway lists them, and how many they are. Raises ValueError."""
    known = stored.RECORDS.get(export.entity)
    if known is None:
        raise ValueError(f"there are no {export.entity} to export")
    values: dict[str, list[Any]] = {}
    for name, value in export.filters:
        try:
            values.setdefault(name, []).append(known[name].read(value))
        except (KeyError, ValueError) as exc:
            raise ValueError(f"{name} is no filter of {export.entity}, or does not take {value[:100]!r}") from exc
    source, where = stored.conditions(export.entity, known, export.tenant_id, values)
    rows = stored.select(stored.statement(export.entity), export.entity, export.tenant_id, where, source=source)
    counting = SQL("SELECT count(*) FROM {} o WHERE tenant_id = {} AND {}").format(
        source, Literal(export.tenant_id), SQL(" AND ").join(where or [SQL("true")])
    )
    return rows, counting
