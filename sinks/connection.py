"""The sink's connection to PostgreSQL: made anew where it broke, and waited for however long it is away."""

import threading
from collections.abc import Callable
from typing import TypeVar

import psycopg

from producers.registry import backoff
from schemas import metrics
from schemas.errors import TillstreamError
from sinks import faults, writer
from sinks.waiting import Waiting

T = TypeVar("T")


class Stopped(TillstreamError):
    """The sink was told to stop while it waited for what is away."""


class Connection:
    """One thread at a time may use it. `stopping` ends every wait."""

    def __init__(self, database_url: str, stopping: threading.Event) -> None:
        self._url, self._stopping = database_url, stopping
        self._db: writer.Db | None = None
        self._waiting = Waiting(told=lambda waits: metrics.DATABASE_UP.labels("write").set(not waits))
        self._waiting.start()

    def close(self) -> None:
        """Close it, where there is one."""
        self._waiting.stop()
        if self._db is not None:
            self._db.close()

    def insist(self, ask: Callable[[writer.Db], T]) -> T:
        """What PostgreSQL answers in the end.

        Raises what is not the environment's fault, Misconfigured where migrations are missing, and Stopped.
        """
        for pause in backoff():
            try:
                return self.once(ask)
            except psycopg.Error as error:
                if not faults.is_environment(error):
                    raise
            metrics.SINK_WAITS.inc()
            metrics.DATABASE_UP.labels("write").set(0)
            if self._stopping.wait(pause):
                raise Stopped("told to stop while PostgreSQL was away; nothing of the batch at hand is committed")
        raise AssertionError("the backoff has no end")

    def once(self, ask: Callable[[writer.Db], T]) -> T:
        """What PostgreSQL answers now. Raises psycopg.Error while it is away."""
        try:
            with self._waiting.for_answer():
                return ask(self._connected())
        except psycopg.Error as error:
            self._waiting.because(str(error).strip() or type(error).__name__)
            if self._db is not None and not self._db.closed:  # else every statement after it would be refused too
                self._db.rollback()
            raise

    def _connected(self) -> writer.Db:
        if self._db is None or self._db.closed:
            self._db = writer.connect(self._url)
            metrics.DATABASE_UP.labels("write").set(1)
        return self._db
