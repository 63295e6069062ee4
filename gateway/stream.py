"""Reads of any length in constant memory: COPY TO STDOUT, read by a thread, 64 KB at a time."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg.sql import Composed
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway import database
from gateway.problems import Problem
from producers import stored
from schemas import metrics

log = logging.getLogger(__name__)

STALL_S = 30.0
"""A client that takes no chunk for so long is dropped."""
MAX_STREAMS: Final = 8
MAX_OF_TENANT: Final = 3
_CHUNK_BYTES: Final = 65_536
_LONGEST: Final = "1h"
"""A transaction that stays open keeps PostgreSQL from cleaning up."""


@dataclass(frozen=True, slots=True)
class Query:
    """A COPY, what ends each of its rows on the wire, and a query to ask first, in the same snapshot."""

    tenant_id: str
    copy: Composed
    first: Composed | None
    line_end: bytes


class Streams:
    """The live streams of a gateway. They have connections and threads of their own, so that pages need not wait."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.threads = ThreadPoolExecutor(2 * MAX_STREAMS, thread_name_prefix="stream")  # one reads, one may stop it
        self._live: Counter[str] = Counter()

    @contextmanager
    def place(self, tenant_id: str) -> Iterator[None]:
        """Counts as a live stream. Raises Problem 503 when there are too many."""
        if self._live.total() >= MAX_STREAMS or self._live[tenant_id] >= MAX_OF_TENANT:
            detail = f"{MAX_OF_TENANT} streams of a tenant, {MAX_STREAMS} of a gateway; try again when one has ended"
            raise Problem(503, "too_many_streams", detail, retry_after=5)
        self._live[tenant_id] += 1
        metrics.STREAMS.inc()
        try:
            yield
        finally:
            self._live[tenant_id] -= 1
            self._live += Counter()  # forgets who has none
            metrics.STREAMS.dec()

    def close(self) -> None:
        """Wait for the threads."""
        self.threads.shutdown()


class Reading:
    """One COPY, read in threads: `open`, then `read` until it returns b"", and `stop` in any case."""

    def __init__(self, streams: Streams, query: Query) -> None:
        self._streams, self._query = streams, query
        self._db: psycopg.Connection[Any] | None = None
        self._chunks: Generator[bytes, None, None] | None = None
        self._working: Future[bytes] = Future()
        self._working.set_result(b"")
        self._stopping = threading.Event()
        self.asked: Any = None
        """The row that `query.first` found."""

    def open(self) -> Future[bytes]:
        """Connect, ask `first`, start the COPY, and return its first chunk. Raises psycopg.Error."""
        return self._in_thread(self._open)

    def read(self) -> Future[bytes]:
        """The next rows, about 64 KB of them; b"" at the end. Raises psycopg.Error."""
        return self._in_thread(self._read)

    async def stop(self) -> None:
        """End the query, whatever its thread is at, and close the connection."""
        await asyncio.wrap_future(self._streams.threads.submit(self._stop))

    def _in_thread(self, work: Callable[[], bytes]) -> Future[bytes]:
        self._working = self._streams.threads.submit(work)
        return self._working

    def _open(self) -> bytes:
        self._db = db = psycopg.connect(self._streams.url, **database.CONNECT)
        if self._stopping.is_set():
            return b""
        db.read_only, db.isolation_level = True, psycopg.IsolationLevel.REPEATABLE_READ
        settings = stored.READING | {"statement_timeout": _LONGEST, "app.tenant_id": self._query.tenant_id}
        for name, value in settings.items():
            db.execute("SELECT set_config(%s, %s, true)", [name, value])
        if self._query.first is not None:
            self.asked = db.execute(self._query.first).fetchone()
        self._chunks = self._copy(db)
        return self._read()

    def _read(self) -> bytes:
        assert self._chunks is not None
        return next(self._chunks, b"")

    def _copy(self, db: psycopg.Connection[Any]) -> Generator[bytes, None, None]:
        rows: list[Any] = []
        size = 0
        with db.cursor().copy(self._query.copy) as copy:
            for row in copy:
                rows.append(row)
                size += len(row)
                if size >= _CHUNK_BYTES:
                    yield stored.joined(rows, self._query.line_end)
                    rows.clear()
                    size = 0
        if rows:
            yield stored.joined(rows, self._query.line_end)

    def _stop(self) -> None:
        self._stopping.set()
        while not self._working.done():
            if self._db is not None:
                with suppress(psycopg.OperationalError):
                    self._db.cancel_safe(timeout=2)
            wait([self._working], timeout=0.2)  # it may have been between two statements: cancel again
        if self._chunks is not None:
            with suppress(psycopg.OperationalError):
                self._chunks.close()  # where rows are left, psycopg cancels the query
        if self._db is not None:
            self._db.close()


class Streamed(Response):
    """An answer that is a COPY. Cut short, it never looks complete: the connection is aborted."""

    def __init__(
        self, streams: Streams, query: Query, media_type: str, headers_of: Callable[[Any], dict[str, str]]
    ) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._streams, self._query, self._headers_of = streams, query, headers_of
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Problem 503 or ClientDisconnect before the answer has begun; afterwards there is nobody to tell."""
        with self._streams.place(self._query.tenant_id):
            reading = Reading(self._streams, self._query)
            sending = asyncio.create_task(self._send(reading, scope, send))
            leaving = asyncio.create_task(gone(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                leaving.cancel()
                await asyncio.wait({sending})
                await reading.stop()
        if not sending.cancelled():
            sending.result()
        elif not self._begun:
            raise ClientDisconnect

    async def _send(self, reading: Reading, scope: Scope, send: Send) -> None:
        try:
            chunk = await asyncio.wrap_future(reading.open())
            self.headers.update(self._headers_of(reading.asked))
            start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            self._begun = True
            await send(start)
            while chunk and scope["method"] != "HEAD":
                ahead = reading.read()  # PostgreSQL works while the client takes
                async with asyncio.timeout(STALL_S):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await asyncio.wrap_future(ahead)
            async with asyncio.timeout(STALL_S):
                await send({"type": "http.response.body", "body": b""})
        except (psycopg.Error, TimeoutError) as exc:
            if not self._begun:
                if isinstance(exc, database.ENVIRONMENT):
                    raise database.reads_unavailable("PostgreSQL does not answer") from exc
                raise
            why = str(exc) or f"its client took nothing for {STALL_S:.0f} s"
            log.warning("a stream of %s ends early: %s", self._query.tenant_id, why)
            scope["extensions"]["tillstream.abort"]["abort"]()


async def gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
