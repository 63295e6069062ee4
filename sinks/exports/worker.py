"""A thread beside the sink: it claims one export after the other, and has a process of its own write each.

A claim is an advisory lock of this thread's connection. Where the process that writes ends without a word, the export
is begun anew; where the whole sink is killed, its lock goes with the connection, and any other takes the export up.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import Any, Final, Self

import msgspec
import psycopg
from psycopg.rows import class_row

from producers.export_files import files_at
from producers.registry import backoff
from schemas import metrics
from schemas.exports import KEPT_H, of_export
from schemas.settings import Settings
from sinks import faults
from sinks.exports.__main__ import Said
from sinks.exports.copying import CONNECT, Export, Written
from sinks.sql import statement
from sinks.waiting import Waiting

log = logging.getLogger(__name__)

Db = psycopg.Connection[Any]

ATTEMPTS: Final = 5
"""After so many an export is given up: it may be what ends its process."""
_PAUSE_S: Final = 0.5
_REASON: Final = 500
"""Characters kept of one."""
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended('tillstream export ' || %s, 0))"
_UNLOCK: Final = "SELECT pg_advisory_unlock(hashtextextended('tillstream export ' || %s, 0))"
_OURS: Final = " WHERE tenant_id = %s AND export_id = %s::uuid AND attempt = %s AND state = 'running'"
_TELL: Final = "UPDATE exports SET rows_done = %s, rows_total = nullif(%s, 0)" + _OURS
_DONE: Final = (
    "UPDATE exports SET state = 'done', reason = NULL, rows_done = %s, rows_total = %s, bytes = %s, sha256 = %s,"
    f" finished_at = now(), expires_at = now() + {KEPT_H} * interval '1 hour'" + _OURS
)
_AWAY: Final = "UPDATE exports SET reason = %s" + _OURS
_GIVE_UP: Final = (
    "UPDATE exports SET state = 'failed', reason = concat_ws(': ', %s::text, reason), finished_at = now()" + _OURS
)
_HAND_BACK: Final = "UPDATE exports SET state = 'queued', attempt = attempt - 1" + _OURS
_EXPIRED: Final = (
    "SELECT tenant_id, export_id::text FROM exports"
    " WHERE state IN ('done', 'cancelled') AND expires_at <= now() ORDER BY expires_at LIMIT 100"
)
_EXPIRE: Final = (
    "UPDATE exports SET state = CASE state WHEN 'done' THEN 'expired' ELSE state END,"
    " expires_at = CASE state WHEN 'done' THEN expires_at END WHERE tenant_id = %s AND export_id = %s::uuid"
)
_OPEN: Final = (
    "SELECT count(*) FILTER (WHERE state = 'queued'), count(*) FILTER (WHERE state = 'running'),"
    " extract(epoch FROM now() - min(requested_at) FILTER (WHERE state = 'queued'))::float8"
    " FROM exports WHERE state IN ('queued', 'running')"
)


class Exports:
    """`with Exports(settings, sink.stop): sink.run()`: works while the block lasts.

    What ends the thread calls `on_failure` and is raised at the end of the block. Several sinks share the work.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[], object]) -> None:
        """Raises Misconfigured where the store of files cannot be used."""
        self._settings, self._on_failure = settings, on_failure
        self._files = files_at(settings.exports_url)
        self._stopping = threading.Event()
        self._db: Db | None = None
        self._writing: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "exports")

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._run)
        self._running.add_done_callback(self._ended)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        while not wait([self._running], timeout=0.2).done:
            if (writing := self._writing) is not None:  # it may have begun just now: look again
                writing.kill()
            if (db := self._db) is not None:
                with suppress(psycopg.OperationalError):
                    db.cancel_safe(timeout=2)
        self._thread.shutdown()
        self._running.result()

    def _ended(self, running: Future[None]) -> None:
        if running.exception() is not None:
            self._on_failure()

    def _run(self) -> None:
        waiting, pauses, pause = Waiting("to write exports"), backoff(), 0.0
        for state in ("done", "failed"):
            metrics.EXPORTS_ENDED.labels(state)  # shown from the start, so that a first one is an increase
        while not self._stopping.wait(pause):
            try:
                with waiting.for_answer():
                    db = self._db = _connect(self._settings.database_url)
                with db:
                    while not self._stopping.is_set():
                        self._remove_expired(db)
                        if not self._run_next(db):
                            self._stopping.wait(_PAUSE_S)
                        pauses = backoff()
            except psycopg.Error as error:
                if not faults.is_environment(error):
                    raise
                pause = next(pauses)
                if not self._stopping.is_set():
                    waiting.because(str(error).strip() or type(error).__name__)
                    metrics.SINK_WAITS.inc()

    def _run_next(self, db: Db) -> bool:
        """Run the first export that nobody is at; False where there is none. Raises psycopg.Error."""
        _measure(db)
        for found in db.cursor(row_factory=class_row(Export)).execute(statement("open_exports")).fetchall():
            if db.execute(_LOCK, [found.export_id]).fetchone() != (True,):
                continue
            try:
                claimed = db.execute(statement("claim_export"), found.key).fetchone()
                if claimed is None:
                    continue  # it was run while we looked
                export = msgspec.structs.replace(found, attempt=claimed[0])
                if export.attempt > ATTEMPTS:
                    self._fail(db, export, f"{ATTEMPTS} attempts at it ended before it did")
                else:
                    self._write(db, export)
            finally:
                if not db.closed:
                    db.execute(_UNLOCK, [found.export_id])
            return True
        return False

    def _write(self, db: Db, export: Export) -> None:
        last, cancelled = Said(), False
        try:
            with closing(self._process(export)) as lines:
                for last in lines:
                    if last.is_last:
                        continue
                    if cancelled := not db.execute(_TELL, [last.rows, last.total, *export.key]).rowcount:
                        break
                    _measure(db)
        except (OSError, msgspec.DecodeError) as exc:  # no process could be started, or it was killed at once
            last = Said(away=f"the process that writes: {exc}")
        if cancelled:
            self._remove(export.tenant_id, export.export_id)
        elif (written := last.written) is not None:
            self._done(db, export, written)
        elif last.failed:
            self._fail(db, export, last.failed)
        elif self._stopping.is_set():
            db.execute(_HAND_BACK, export.key)
        else:
            log.warning("export %s: attempt %d ended: %s", export.export_id, export.attempt, last.away or "no word")
            if last.away:
                db.execute(_AWAY, [last.away[:_REASON], *export.key])
                self._stopping.wait(_PAUSE_S * 2**export.attempt)

    def _process(self, export: Export) -> Generator[Said, None, None]:
        """What the process that writes says, until it has ended."""
        command = [sys.executable, "-m", "sinks.exports"]
        environment = self._settings.env()
        with subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            self._writing = process
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(msgspec.json.encode(export) + b"\n")
                process.stdin.flush()
                for line in process.stdout:
                    yield msgspec.json.decode(line, type=Said)
            finally:
                process.kill()
                self._writing = None

    def _done(self, db: Db, export: Export, written: Written) -> None:
        if not db.execute(_DONE, [written.rows, written.rows, written.size, written.sha256, *export.key]).rowcount:
            self._remove(export.tenant_id, export.export_id)
            return
        metrics.EXPORTS_ENDED.labels("done").inc()
        log.info("export %s: %d rows, %d bytes", export.export_id, written.rows, written.size)

    def _fail(self, db: Db, export: Export, reason: str) -> None:
        log.warning("export %s failed: %s", export.export_id, reason)
        self._remove(export.tenant_id, export.export_id)
        if db.execute(_GIVE_UP, [reason[:_REASON], *export.key]).rowcount:  # else it was cancelled
            metrics.EXPORTS_ENDED.labels("failed").inc()

    def _remove_expired(self, db: Db) -> None:
        for tenant_id, export_id in db.execute(_EXPIRED).fetchall():
            if db.execute(_LOCK, [export_id]).fetchone() != (True,):
                continue  # it was cancelled, and its writer does not know it yet
            try:
                if not self._remove(tenant_id, export_id):
                    return
                db.execute(_EXPIRE, [tenant_id, export_id])  # afterwards: who is killed is followed by another
            finally:
                if not db.closed:
                    db.execute(_UNLOCK, [export_id])

    def _remove(self, tenant_id: str, export_id: str) -> bool:
        """Remove what there is of an export's files, if the store lets us."""
        try:
            self._files.remove(of_export(tenant_id, export_id))
        except OSError as exc:
            log.warning("the file of export %s stays: %s", export_id, exc)
            return False
        return True


def _measure(db: Db) -> None:
    found = db.execute(_OPEN).fetchone()
    assert found is not None
    metrics.EXPORTS_OPEN.labels("queued").set(found[0])
    metrics.EXPORTS_OPEN.labels("running").set(found[1])
    metrics.EXPORTS_WAIT.set(found[2] or 0)


def _connect(database_url: str) -> Db:
    """A connection with the rights of the writer role, each statement a transaction of its own."""
    db = psycopg.connect(database_url, application_name="tillstream-exports", autocommit=True, **CONNECT)
    db.execute("SET ROLE tillstream_writer")
    return db
