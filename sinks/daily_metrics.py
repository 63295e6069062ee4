"""Counts the days of tenants again whose orders changed, beside the sink (sinks/migrations/0011_daily_metrics.sql)."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import date
from typing import Any, Final, Self

import psycopg

from producers.registry import backoff
from schemas import metrics, topics
from schemas.settings import Settings
from sinks import faults
from sinks.sql import statement
from sinks.waiting import Waiting

Db = psycopg.Connection[Any]
Day = tuple[str, date]
"""A tenant's day."""

DAYS_AT_ONCE: Final = 500
"""Days in one transaction: each holds a lock, and PostgreSQL has room for thousands."""
_PAUSE_S: Final = 1.0
_SHARE: Final = 0.05
"""Of its time that a refresher works at most: days that change all the time are counted now and then."""
_LONGEST_PAUSE_S: Final = 15.0
"""It may have waited more than worked."""


class Refresher:
    """`with Refresher(settings, sink.stop): sink.run()`: a thread that counts while the block lasts.

    What ends the thread calls `on_failure` and is raised at the end of the block. Several processes share the work.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[], object]) -> None:
        self._url, self._topic = settings.database_url, settings.named(topics.INGESTION_UNIQUE)
        self._on_failure = on_failure
        self._db: Db | None = None
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(1, "refresher")

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._run)
        self._running.add_done_callback(self._ended)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        while not self._running.done():
            if self._db is not None:
                with suppress(psycopg.OperationalError):
                    self._db.cancel_safe(timeout=2)
            wait([self._running], timeout=0.2)  # it may have been between two statements: cancel again
        self._thread.shutdown()
        self._running.result()

    def _ended(self, running: Future[None]) -> None:
        if running.exception() is not None:
            self._on_failure()

    def _run(self) -> None:
        waiting, pauses, pause = Waiting("to count days"), backoff(), 0.0
        metrics.REFRESHED_AT.set_to_current_time()  # else none is late that never came to an end
        while not self._stopping.wait(pause):
            started = time.perf_counter()
            try:
                with waiting.for_answer():
                    days = refresh(self._connected(), self._topic)
            except psycopg.Error as error:
                if not faults.is_environment(error):
                    raise
                pause = next(pauses)
                if not self._stopping.is_set():
                    waiting.because(str(error).strip() or type(error).__name__)
                    metrics.SINK_WAITS.inc()
                continue
            seconds = time.perf_counter() - started
            metrics.REFRESHED_AT.set_to_current_time()
            if days:
                metrics.DAYS_COUNTED.inc(days)
                metrics.REFRESH_SECONDS.observe(seconds)
            pauses, pause = backoff(), pause_after(seconds)
        if self._db is not None:
            self._db.close()

    def _connected(self) -> Db:
        if self._db is None or self._db.closed:
            self._db = connect(self._url)
        return self._db


def pause_after(seconds: float) -> float:
    """Seconds until the next refresh, after one that took so long."""
    return min(max(_PAUSE_S, seconds * (1 / _SHARE - 1)), _LONGEST_PAUSE_S)


def connect(database_url: str) -> Db:
    """A connection with the rights of the writer role, each statement outside a transaction block for itself."""
    db = psycopg.connect(database_url, application_name="tillstream-metrics", connect_timeout=5, autocommit=True)
    db.execute("SET ROLE tillstream_writer")
    db.execute("SET plan_cache_mode = force_custom_plan")
    return db


def refresh(db: Db, topic: str) -> int:
    """Count all days again that have marks now; return how many. What another refresher is at is left to it.

    `topic` is the one that orders come from. Raises psycopg.Error.
    """
    # Before the marks are read: what is applied until here has left its marks already.
    applied = db.execute(
        "SELECT partition, applied_up_to FROM sink_offsets"
        " WHERE topic = %s AND applied_up_to IS DISTINCT FROM counted_up_to",
        [topic],
    ).fetchall()
    # The newest first: those are looked at.
    marked = db.execute("SELECT DISTINCT tenant_id, day FROM metrics_marks ORDER BY day DESC, tenant_id").fetchall()
    counted = sum(count(db, marked[n : n + DAYS_AT_ONCE]) for n in range(0, len(marked), DAYS_AT_ONCE))
    if counted == len(marked):
        for partition, up_to in applied:  # one at a time: sinks lock several, and in an order of their own
            db.execute(
                "UPDATE sink_offsets SET counted_up_to = greatest(counted_up_to, %s)"
                " WHERE topic = %s AND partition = %s",
                [up_to, topic, partition],
            )
    return counted


def count(db: Db, days: list[Day]) -> int:
    """Count those of these days again that nobody else is at; return how many."""
    with db.transaction():
        ours = db.execute(statement("lock_days"), _columns(days)).fetchall()
        if ours:
            tenants, of_tenants = _columns(ours)
            db.execute(statement("delete_marks"), [tenants, of_tenants])
            # In a later statement than the deletion: it sees all that the marks were about.
            db.execute("SET LOCAL enable_seqscan = off")  # a table just filled has no statistics
            db.execute(statement("count_days"), {"tenants": tenants, "days": of_tenants})
    return len(ours)


def _columns(days: list[Day]) -> list[list[Any]]:
    return [list(column) for column in zip(*days, strict=True)]
